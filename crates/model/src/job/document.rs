//! A job at one device as services read it: the row of `devices.jobs`, in IoT Hub's words.
//!
//! What stands in a row is decided in [`rows`](super::rows).

use serde_json::{Value, json};

use super::rows::{JobRow, RowResult, RowStatus};
use crate::id::DeviceId;
use crate::iso_time::iso_utc;

/// The whole object. The end has no time before it is there.
pub fn document(device: &DeviceId, row: &JobRow) -> Value {
    let mut body = json!({
        "deviceId": device.device_part(),
        "jobId": row.job,
        "jobType": row.kind.word(),
        "status": row.status.word(),
        "createdDateTimeUtc": iso_utc(row.created_ms),
        "startTimeUtc": iso_utc(row.begun_ms),
        "lastUpdatedDateTimeUtc": iso_utc(row.updated_ms),
    });
    if let Some(module) = device.module_part() {
        body["moduleId"] = module.into();
    }
    if row.status != RowStatus::Running {
        body["endTimeUtc"] = iso_utc(row.updated_ms).into();
    }
    match &row.result {
        None => {}
        Some(RowResult::Failed { code, text }) => {
            body["error"] = json!({ "code": code, "description": text });
        }
        Some(RowResult::Answered { status, payload }) => {
            // What a device sends as JSON was read as JSON before it was kept.
            let payload = payload.as_ref().and_then(|text| serde_json::from_str(text).ok());
            let payload: Value = payload.unwrap_or_default();
            body["outcome"] = json!({ "deviceMethodResponse": { "status": status, "payload": payload } });
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobId, JobKind};

    #[test]
    fn a_row_is_shown_in_the_words_of_iot_hub() {
        let device = DeviceId::parse_identity("d/m").expect("a module");
        let mut row = JobRow {
            job: JobId::parse("j").expect("a job id"),
            generation: 1,
            kind: JobKind::Method,
            status: RowStatus::Running,
            created_ms: 0,
            begun_ms: 1,
            updated_ms: 1,
            until_ms: 9,
            runner: 7,
            result: None,
        };
        let shown = document(&device, &row);
        assert_eq!(
            shown,
            json!({
                "deviceId": "d", "moduleId": "m", "jobId": "j", "jobType": "scheduleDeviceMethod", "status": "running",
                "createdDateTimeUtc": "1970-01-01T00:00:00.000Z", "startTimeUtc": "1970-01-01T00:00:00.001Z",
                "lastUpdatedDateTimeUtc": "1970-01-01T00:00:00.001Z",
            })
        );
        row.status = RowStatus::Completed;
        row.result = Some(RowResult::Answered {
            status: 200,
            payload: Some("[1]".into()),
        });
        let shown = document(&device, &row);
        assert_eq!(
            shown["outcome"]["deviceMethodResponse"],
            json!({"status": 200, "payload": [1]})
        );
        assert_eq!(shown["endTimeUtc"], "1970-01-01T00:00:00.001Z");
    }
}
