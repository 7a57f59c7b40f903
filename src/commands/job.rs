//! `dunlin job`: one change of twins, or one method, for all devices that a condition finds, in the shape of
//! `az iot hub job`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::hub::{Call, Hub, HubArgs, HubError};
use super::method::parse_json;
use super::table::Table;
use super::twin::parse_object;
use super::{CommandError, CommandResult, Format, progress, say, shown};

/// Pause between two looks at a job that is waited for.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Job {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Make a job; it is run as soon as its time has come
    Create(Box<Create>),
    /// Show a job, and how far it is
    Show {
        /// Its id
        #[arg(short, long, value_name = "ID")]
        job_id: String,
    },
    /// List jobs, ended ones included
    List {
        /// Only of this kind
        #[arg(long, value_enum)]
        job_type: Option<Kind>,
        /// Only those that are so
        #[arg(long, value_enum)]
        job_status: Option<Status>,
        /// How many at the most
        #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
        top: u64,
    },
    /// Cancel a job: nothing more is begun for it
    Cancel {
        /// Its id
        #[arg(short, long, value_name = "ID")]
        job_id: String,
    },
}

#[derive(Args)]
struct Create {
    /// Its id
    #[arg(short, long, value_name = "ID")]
    job_id: String,
    /// What it does at each device
    #[arg(long, value_enum)]
    job_type: Kind,
    /// For which devices, e.g. "tags.floor = 3"; * for all, "FROM devices.modules WHERE .." for modules
    #[arg(short, long, value_name = "CONDITION")]
    query_condition: String,
    /// What is merged into twins, e.g. '{"properties": {"desired": {"fps": 5}}}': a JSON object, or a file with one
    #[arg(long, value_name = "JSON", value_parser = parse_object, required_if_eq("job_type", "scheduleUpdateTwin"),
          conflicts_with = "method_name")]
    twin_patch: Option<Map<String, Value>>,
    /// Which method is called
    #[arg(
        long,
        value_name = "METHOD",
        required_if_eq("job_type", "scheduleDeviceMethod")
    )]
    method_name: Option<String>,
    /// What goes with it
    #[arg(long, value_name = "JSON", default_value = "null", value_parser = parse_json)]
    method_payload: Value,
    /// Seconds that each device has to answer
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=300))]
    method_response_timeout: u64,
    /// Seconds to wait for each device that is not connected
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=300))]
    method_connect_timeout: u64,
    /// When it begins, e.g. 2030-01-01T00:00:00Z; at once otherwise
    #[arg(long, value_name = "TIME")]
    start_time: Option<String>,
    /// Seconds that it has from then
    #[arg(long, value_name = "S", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    ttl: u64,
    /// Return when it has ended; exit code 1 if it was not completed
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Merge into twins
    #[value(name = "scheduleUpdateTwin")]
    UpdateTwin,
    /// Call a method
    #[value(name = "scheduleDeviceMethod")]
    DeviceMethod,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    /// Its time has not come
    Scheduled,
    /// Nobody runs it yet
    Queued,
    /// It is run
    Running,
    /// Every device was seen to
    Completed,
    /// It could not be carried out, or not in its time
    Failed,
    /// It was cancelled
    Cancelled,
}

/// The word of a value on the command line, which is that of the hub.
fn word(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Job {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let output = self.hub.output;
        match self.action {
            Action::Create(create) => create.run(&hub, output).await,
            Action::Show { job_id } => print(&show(&hub, &job_id).await?, output),
            Action::List {
                job_type,
                job_status,
                top,
            } => {
                let top = usize::try_from(top).unwrap_or(usize::MAX);
                let jobs = list(&hub, job_type, job_status, top).await?;
                match output {
                    Format::Json => say(Value::from(jobs))?,
                    Format::Text => say(table(&jobs))?,
                }
                Ok(ExitCode::SUCCESS)
            }
            Action::Cancel { job_id } => {
                let path = ["jobs", "v2", job_id.as_str(), "cancel"];
                let cancelled = hub.call_json(&Call::new(Method::POST, &path)).await;
                print(&cancelled.map_err(|error| explained(error, &job_id))?, output)
            }
        }
    }
}

impl Create {
    /// What the hub is told.
    fn body(&self) -> Value {
        let mut body = json!({
            "jobId": self.job_id,
            "type": word(self.job_type),
            "queryCondition": self.query_condition,
            "maxExecutionTimeInSeconds": self.ttl,
        });
        if let Some(start) = &self.start_time {
            body["startTime"] = start.as_str().into();
        }
        if let Some(patch) = &self.twin_patch {
            body["updateTwin"] = patch.clone().into();
        }
        if let Some(name) = &self.method_name {
            body["cloudToDeviceMethod"] = json!({
                "methodName": name,
                "payload": self.method_payload,
                "responseTimeoutInSeconds": self.method_response_timeout,
                "connectTimeoutInSeconds": self.method_connect_timeout,
            });
        }
        body
    }

    async fn run(&self, hub: &Hub, output: Format) -> CommandResult {
        let path = ["jobs", "v2", self.job_id.as_str()];
        let call = Call::new(Method::PUT, &path).json(self.body());
        let made = progress::waiting("making the job", hub.call_json(&call)).await;
        let made = made.map_err(|error| explained(error, &self.job_id))?;
        if !self.wait {
            return print(&made, output);
        }
        let ended = progress::waiting("running the job", ended(hub, &self.job_id)).await?;
        print(&ended, output)?;
        Ok(match ended["status"].as_str() {
            Some("completed") => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }
}

/// The job once it has ended. A hub that is busy or elects a leader is asked again.
async fn ended(hub: &Hub, id: &str) -> Result<Value, CommandError> {
    loop {
        match hub.call_json(&Call::get(&["jobs", "v2", id])).await {
            Ok(job) if matches!(job["status"].as_str(), Some("scheduled" | "queued" | "running")) => {}
            Ok(job) => return Ok(job),
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(explained(error, id)),
        }
        sleep(LOOK_PAUSE).await;
    }
}

async fn show(hub: &Hub, id: &str) -> Result<Value, CommandError> {
    let found = hub.call_json(&Call::get(&["jobs", "v2", id])).await;
    found.map_err(|error| explained(error, id))
}

async fn list(
    hub: &Hub,
    kind: Option<Kind>,
    status: Option<Status>,
    top: usize,
) -> Result<Vec<Value>, HubError> {
    let (mut jobs, mut continuation) = (Vec::new(), None);
    loop {
        let mut call = Call::get(&["jobs", "v2", "query"]);
        if let Some(kind) = kind {
            call = call.query("jobType", word(kind));
        }
        if let Some(status) = status {
            call = call.query("jobStatus", word(status));
        }
        let (page, next) = hub.page(call, continuation).await?;
        jobs.extend(page);
        if next.is_none() || jobs.len() >= top {
            jobs.truncate(top);
            return Ok(jobs);
        }
        continuation = next;
    }
}

/// What a user is told of a refusal.
fn explained(error: HubError, id: &str) -> CommandError {
    match error.code() {
        "JobNotFound" => CommandError::Failed(format!(
            "there is no job {}; `dunlin job list` shows those there are",
            shown(id)
        )),
        "JobAlreadyExists" => CommandError::Failed(format!("there is another job {} already", shown(id))),
        _ => error.into(),
    }
}

fn print(job: &Value, output: Format) -> CommandResult {
    match output {
        Format::Json => say(job)?,
        Format::Text => say(text(job))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(job: &Value) -> String {
    let word = |name: &str| shown(job[name].as_str().unwrap_or_default());
    let count = |name: &str| job["deviceJobStatistics"][name].as_u64().unwrap_or(0);
    let mut text = format!(
        "job        {}\ntype       {}\ncondition  {}\nstart      {}\nstatus     {}",
        word("jobId"),
        word("type"),
        word("queryCondition"),
        word("startTime"),
        word("status"),
    );
    for (name, label) in [("endTime", "end        "), ("failureReason", "reason     ")] {
        if job[name].is_string() {
            text.push_str(&format!("\n{label}{}", word(name)));
        }
    }
    text.push_str(&format!(
        "\ndevices    {} found, {} succeeded, {} failed, {} running, {} pending",
        count("deviceCount"),
        count("succeededCount"),
        count("failedCount"),
        count("runningCount"),
        count("pendingCount")
    ));
    text
}

fn table(jobs: &[Value]) -> String {
    if jobs.is_empty() {
        return "No jobs.".to_owned();
    }
    let mut table = Table::new(["JOB", "TYPE", "STATUS", "START", "DEVICES", "SUCCEEDED", "FAILED"]);
    for job in jobs {
        let text = |name: &str| shown(job[name].as_str().unwrap_or_default());
        let count = |name: &str| job["deviceJobStatistics"][name].as_u64().unwrap_or(0).to_string();
        table.push([
            text("jobId"),
            text("type"),
            text("status"),
            text("startTime"),
            count("deviceCount"),
            count("succeededCount"),
            count("failedCount"),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Value {
        json!({
            "jobId": "j\u{1b}", "type": "scheduleUpdateTwin", "queryCondition": "*", "status": "failed",
            "startTime": "2026-01-01T00:00:00.000Z", "failureReason": "its time is over",
            "deviceJobStatistics": {"deviceCount": 3, "succeededCount": 2, "failedCount": 1},
        })
    }

    #[test]
    fn jobs_are_shown_to_people() {
        let text = text(&job());
        assert!(
            text.contains("status     failed\nreason     its time is over\ndevices    3 found, 2 succeeded")
        );
        assert!(!text.contains('\u{1b}') && !text.contains("end "));
        assert_eq!(table(&[]), "No jobs.");
        let expected = "JOB      TYPE                STATUS  START                     DEVICES  SUCCEEDED  FAILED\n\
                        j\\u{1b}  scheduleUpdateTwin  failed  2026-01-01T00:00:00.000Z  3        2          1";
        assert_eq!(table(&[job()]), expected);
    }

    #[test]
    fn words_are_those_of_the_hub() {
        assert_eq!(
            (word(Kind::DeviceMethod).as_str(), word(Status::Queued).as_str()),
            ("scheduleDeviceMethod", "queued")
        );
    }
}
