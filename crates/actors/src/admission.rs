//! Whether a frame is sound enough to enter the log.
//!
//! `apply` runs on every replica and takes soundness for granted, so a frame that could make it fail
//! must not get past this room. Whether there is space for it is decided in [`crate::credit`].

use dunlin_model::limits::{ENTRY_BYTES_MAX, FRAME_COMMANDS_MAX};
use dunlin_model::port::Frame;
use dunlin_model::telemetry;

/// Says what is wrong with `frame`, if anything is. Looks at every record header, at no payload.
pub(crate) fn check_frame(frame: &Frame) -> Result<(), &'static str> {
    if frame.sequence == 0 {
        return Err("frames are numbered from 1");
    }
    if frame.commands.len() > FRAME_COMMANDS_MAX {
        return Err("the frame has too many commands");
    }
    if frame.weight_bytes() > ENTRY_BYTES_MAX {
        return Err("the frame is larger than a log entry");
    }
    let mut rest = &frame.records[..];
    for _ in 0..frame.record_count {
        let record = telemetry::peek(rest).map_err(|_| "a record of the frame is malformed")?;
        rest = &rest[record.total_bytes..];
    }
    if !rest.is_empty() {
        return Err("the frame holds more than the records that it counts");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dunlin_model::id::{DeviceId, NodeId, StreamId};
    use dunlin_model::telemetry::{AuthMethod, Source, encode};

    use super::*;

    fn frame(count: u32) -> Frame {
        let mut records = bytes::BytesMut::new();
        for i in 0..count {
            let device = DeviceId::parse(&format!("d{i}")).unwrap();
            encode(
                &mut records,
                Source::Mqtt,
                AuthMethod::DeviceKey,
                1,
                &device,
                (b"", b"x"),
            );
        }
        let stream = StreamId {
            gateway: NodeId(1),
            incarnation: 1,
        };
        Frame {
            stream,
            sequence: 1,
            records: records.freeze(),
            record_count: count,
            commands: vec![],
            trace: None,
        }
    }

    #[test]
    fn only_sound_frames_pass() {
        assert_eq!(check_frame(&frame(0)), Ok(()));
        assert_eq!(check_frame(&frame(3)), Ok(()));
        assert!(
            check_frame(&Frame {
                sequence: 0,
                ..frame(1)
            })
            .is_err()
        );
        assert!(
            check_frame(&Frame {
                record_count: 2,
                ..frame(1)
            })
            .is_err()
        );
        assert!(
            check_frame(&Frame {
                record_count: 1,
                ..frame(2)
            })
            .is_err()
        );
        let whole = frame(2);
        let cut = whole.records.slice(..whole.records.len() - 1);
        assert!(
            check_frame(&Frame {
                records: cut,
                ..whole
            })
            .is_err()
        );
        let noise = bytes::Bytes::from(vec![0xFF; 64]);
        assert!(
            check_frame(&Frame {
                records: noise,
                ..frame(1)
            })
            .is_err()
        );
        let large = bytes::Bytes::from(vec![0; ENTRY_BYTES_MAX]);
        assert!(
            check_frame(&Frame {
                records: large,
                ..frame(1)
            })
            .is_err()
        );
    }
}
