//! A small MQTT broker that breaks its word in one chosen way, so that a comparison can be seen to fail.
//!
//! It speaks MQTT 3.1.1, acknowledges everything at once and hands every message to every subscriber,
//! but for one misdeed. It is no model of any broker.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Packets that wait for a subscriber; a test sends fewer.
const QUEUE_MAX: usize = 100_000;
/// The message that the misdeed is done to, counted over all connections.
const VICTIM: u64 = 100;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misdeed {
    /// Nothing.
    None,
    /// One message is acknowledged and forgotten.
    Forget,
    /// One message is handed out twice.
    Repeat,
    /// One message changes on its way.
    Alter,
    /// One message is handed out after the next one of its connection.
    Delay,
    /// One connection is closed before its message is acknowledged or handed out, and no other one.
    HangUp,
}

/// The running broker. Dropping it ends it.
pub struct Forgetful {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

struct Shared {
    misdeed: Misdeed,
    messages: AtomicU64,
    subscribers: Mutex<Vec<mpsc::Sender<Vec<u8>>>>,
}

impl Forgetful {
    /// Starts it.
    pub async fn start(misdeed: Misdeed) -> Forgetful {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            misdeed,
            messages: AtomicU64::new(0),
            subscribers: Mutex::default(),
        });
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Forgetful { address, task }
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let (mut reader, mut writer) = stream.into_split();
    let (out, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE_MAX);
    tokio::spawn(async move {
        while let Some(packet) = queue.recv().await {
            if writer.write_all(&packet).await.is_err() {
                return;
            }
        }
    });
    let mut delayed = None;
    while let Some((head, body)) = read_packet(&mut reader).await {
        let answer = match head & 0xF0 {
            0x10 => vec![0x20, 2, 0, 0],
            0x30 => match publish(&shared, head, &body, &mut delayed) {
                Some(answer) => answer,
                None => return,
            },
            0x80 => {
                let mut subscribers = shared.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
                subscribers.push(out.clone());
                vec![0x90, 3, body[0], body[1], 1]
            }
            0xC0 => vec![0xD0, 0],
            _ => return,
        };
        if out.send(answer).await.is_err() {
            return;
        }
    }
}

/// Hands a message out and returns its PUBACK; `None` hangs up.
fn publish(shared: &Shared, head: u8, body: &[u8], delayed: &mut Option<Vec<u8>>) -> Option<Vec<u8>> {
    assert_eq!(head & 0x06, 0x02, "the broker takes QoS 1 alone");
    let topic = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
    let id = [body[topic], body[topic + 1]];
    let mut payload = body[topic + 2..].to_vec();
    let is_victim = shared.messages.fetch_add(1, Ordering::Relaxed) == VICTIM;
    let misdeed = if is_victim { shared.misdeed } else { Misdeed::None };
    if misdeed == Misdeed::Alter {
        // The claims stay, the rest does not.
        let at = payload.len() - 4;
        payload[at] ^= 1;
    }
    let packet = packet(0x30, &[&body[..topic], &payload].concat());
    let mut handed = match misdeed {
        Misdeed::HangUp => return None,
        Misdeed::Forget => Vec::new(),
        Misdeed::Repeat => vec![packet.clone(), packet],
        Misdeed::Delay => {
            *delayed = Some(packet);
            return Some(vec![0x40, 2, id[0], id[1]]);
        }
        Misdeed::None | Misdeed::Alter => vec![packet],
    };
    handed.extend(delayed.take());
    let subscribers = shared.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
    for subscriber in subscribers.iter() {
        for packet in &handed {
            subscriber
                .try_send(packet.clone())
                .expect("a test sends less than the queue holds");
        }
    }
    Some(vec![0x40, 2, id[0], id[1]])
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![head];
    let mut left = body.len();
    loop {
        let low = (left & 0x7F) as u8;
        left >>= 7;
        out.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

async fn read_packet(reader: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<(u8, Vec<u8>)> {
    let head = reader.read_u8().await.ok()?;
    let mut bytes = 0;
    for place in 0..4 {
        let byte = reader.read_u8().await.ok()?;
        bytes |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; bytes];
    reader.read_exact(&mut body).await.ok()?;
    Some((head, body))
}
