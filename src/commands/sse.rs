//! Server-sent events out of bytes that arrive in pieces. Knows nothing of what they say.

/// Bytes of one event at the most: a full message stands in it twice, once with escapes.
const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SseEvent {
    /// Its kind; empty for the usual one.
    pub(crate) kind: String,
    /// Where to go on after it, if it says so.
    pub(crate) id: Option<String>,
    /// Its lines.
    pub(crate) data: String,
}

/// More came than one event may have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {EVENT_BYTES_MAX} bytes")]
pub(crate) struct TooLong;

/// Takes bytes in with [`handle_bytes`](Self::handle_bytes), gives events out with
/// [`poll_event`](Self::poll_event).
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    bytes: Vec<u8>,
    /// What of `bytes` is known to hold no line end.
    searched: usize,
    event: SseEvent,
}

impl SseReader {
    /// Takes what has arrived.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.bytes.len() + self.event.data.len() + bytes.len() > EVENT_BYTES_MAX {
            return Err(TooLong);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole event.
    pub(crate) fn poll_event(&mut self) -> Option<SseEvent> {
        let mut start = 0;
        let mut whole = None;
        while let Some(end) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
            let end = self.searched + end;
            let line = String::from_utf8_lossy(&self.bytes[start..end]).into_owned();
            (start, self.searched) = (end + 1, end + 1);
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if event != SseEvent::default() {
                    whole = Some(event);
                    break;
                }
            } else {
                self.take_line(line);
            }
        }
        self.bytes.drain(..start);
        self.searched = if whole.is_some() { 0 } else { self.bytes.len() };
        whole
    }

    fn take_line(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.kind = value.to_owned(),
            "id" => self.event.id = Some(value.to_owned()),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments keep the connection alive; other fields mean nothing to us.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "event: cursor\nid: 0:1\ndata: {}\n\n: alive\n\nid: 0:2\r\ndata: {\"ä\":\ndata: 1}\r\n\r\n";

    #[test]
    fn events_are_the_same_in_whatever_pieces_they_come() {
        for piece in 1..TEXT.len() {
            let (mut reader, mut found) = (SseReader::default(), Vec::new());
            for bytes in TEXT.as_bytes().chunks(piece) {
                reader.handle_bytes(bytes).unwrap();
                found.extend(std::iter::from_fn(|| reader.poll_event()));
            }
            assert_eq!(found.len(), 2, "{piece}");
            assert_eq!(
                (found[0].kind.as_str(), found[0].id.as_deref()),
                ("cursor", Some("0:1"))
            );
            assert_eq!(
                (found[1].id.as_deref(), found[1].data.as_str()),
                (Some("0:2"), "{\"ä\":\n1}")
            );
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut reader = SseReader::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX / 2 + 1];
        assert_eq!(reader.handle_bytes(&piece), Ok(()));
        assert_eq!(reader.poll_event(), None);
        assert_eq!(reader.handle_bytes(&piece), Err(TooLong));
    }
}
