//! One connection of a sink: every packet is answered with yes, a message with a log behind it when that
//! is synced. What is no MQTT ends the connection.

use std::rc::Rc;

use dunlin_gateway::mqtt::Version;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::super::packet::{self, Split};
use super::wal::{Answers, Gather};

/// Bytes that a read buffer begins with.
const READ_BYTES: usize = 16 * 1024;
/// Bytes of a packet at the most.
const PACKET_BYTES_MAX: usize = 17 * 1024 * 1024;

pub(super) async fn serve_plain(stream: TcpStream, gather: Option<Rc<Gather>>) {
    if stream.set_nodelay(true).is_ok() {
        serve(stream, gather).await;
    }
}

pub(super) async fn serve_tls(stream: TcpStream, acceptor: TlsAcceptor, gather: Option<Rc<Gather>>) {
    if stream.set_nodelay(true).is_ok()
        && let Ok(stream) = acceptor.accept(stream).await
    {
        serve(stream, gather).await;
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, gather: Option<Rc<Gather>>) {
    let mut session = Session {
        version: Version::V3,
        answers: Rc::default(),
        gather,
    };
    let mut read = Vec::with_capacity(READ_BYTES);
    loop {
        tokio::select! {
            count = stream.read_buf(&mut read) => {
                if count.unwrap_or(0) == 0 {
                    return;
                }
                let Some(used) = session.take(&read) else { return };
                read.drain(..used);
            }
            () = session.answers.wake.notified() => {}
        }
        let out = session.answers.out.take();
        if !out.is_empty() && (stream.write_all(&out).await.is_err() || stream.flush().await.is_err()) {
            return;
        }
    }
}

struct Session {
    version: Version,
    answers: Rc<Answers>,
    gather: Option<Rc<Gather>>,
}

impl Session {
    /// Answers every whole packet and returns the bytes of them; `None` ends the connection.
    fn take(&mut self, read: &[u8]) -> Option<usize> {
        let mut used = 0;
        loop {
            match packet::split(&read[used..]) {
                Split::Whole(head, body, bytes) => {
                    self.answer(head, body, &read[used..used + bytes])?;
                    used += bytes;
                }
                Split::Partial(wanted) if wanted <= PACKET_BYTES_MAX => return Some(used),
                Split::Partial(_) | Split::Malformed => return None,
            }
        }
    }

    fn answer(&mut self, head: u8, body: &[u8], whole: &[u8]) -> Option<()> {
        let mut out = self.answers.out.borrow_mut();
        match head & 0xF0 {
            packet::CONNECT => {
                self.version = match body.get(6)? {
                    5 => Version::V5,
                    _ => Version::V3,
                };
                out.extend(match self.version {
                    Version::V3 => &[packet::CONNACK, 2, 0, 0][..],
                    Version::V5 => &[packet::CONNACK, 3, 0, 0, 0],
                });
            }
            packet::PUBLISH => {
                let message = packet::publish(self.version, head, body)?;
                let answer = match message.qos {
                    0 => return Some(()),
                    1 => packet::PUBACK,
                    _ => packet::PUBREC,
                };
                match &self.gather {
                    None => packet::push_answer(&mut out, answer, message.id),
                    Some(gather) => gather.add(&self.answers, (answer, message.id), whole),
                }
            }
            0x60 => packet::push_answer(&mut out, packet::PUBCOMP, packet::number(body, 0)?),
            0x80 => {
                let id = packet::number(body, 0)?.to_be_bytes();
                let granted = *body.last()? & 3;
                out.extend(match self.version {
                    Version::V3 => vec![packet::SUBACK, 3, id[0], id[1], granted],
                    Version::V5 => vec![packet::SUBACK, 4, id[0], id[1], 0, granted],
                });
            }
            packet::PINGREQ => out.extend([packet::PINGRESP, 0]),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(read: &[u8]) -> Option<(usize, Vec<u8>)> {
        let mut session = Session {
            version: Version::V3,
            answers: Rc::default(),
            gather: None,
        };
        let used = session.take(read)?;
        Some((used, session.answers.out.take()))
    }

    #[test]
    fn everything_is_answered_with_yes() {
        let mut read = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c".to_vec();
        read.extend(b"\x32\x06\0\x01t\0\x07x"); // QoS 1
        read.extend(b"\x34\x06\0\x01t\0\x08x\x62\x02\0\x08"); // QoS 2 and its end
        read.extend(b"\x30\x04\0\x01tx\xc0\0"); // QoS 0, a ping
        read.extend(b"\x82\x06\0\x09\0\x01t\x01\x32\x06\0"); // SUBSCRIBE, half a message
        let (used, out) = answered(&read).unwrap();
        assert_eq!(used, read.len() - 3);
        let expected = b"\x20\x02\0\0\x40\x02\0\x07\x50\x02\0\x08\x70\x02\0\x08\xd0\0\x90\x03\0\x09\x01";
        assert_eq!(out, expected);
    }

    #[test]
    fn what_is_no_mqtt_ends_the_connection() {
        for wrong in [
            &b"\x00\0"[..],
            b"\x32\x02\0\x09",
            b"\x10\0",
            b"\x32\xff\xff\xff\xff\xff",
            b"\xe0\0",
        ] {
            assert_eq!(answered(wrong), None, "{wrong:?}");
        }
    }
}
