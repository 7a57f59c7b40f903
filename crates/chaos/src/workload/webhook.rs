//! Somebody outside the hub who takes events over HTTPS, and is not always well: now and then it refuses a parcel, takes
//! its time, or ends the connection instead of an answer.
//!
//! It lives in the run's own process, where no fault of a node can touch it, and writes down every parcel before it
//! answers. It never judges one; that is for [`crate::invariants::routes`]. Whom routes lead to it, [`super::routes`] says.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_gateway::TlsError;
use dunlin_gateway::tls::TlsIdentity;
use dunlin_node::pki::{Authority, PkiError};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Deserialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::delivery::{Arrival, Delivery, Parcel, Reply};
use crate::waiting::Waiting;
use crate::{oracle, payload};

/// Connections at a time; one more waits.
const CONNECTIONS_MAX: usize = 256;
/// Pause after a connection could not be taken.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Bytes of a request before its body.
const HEAD_BYTES_MAX: u64 = 16 * 1024;
/// Bytes of a body. A parcel is what was read of a shard at once, which JSON and Base64 make longer by a few times.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long an answer takes that is late; far less than a gateway waits for it.
const LATE: Duration = Duration::from_millis(1_500);
/// Of so many parcels one is refused, one is answered late, and one not at all.
const PARCELS_PER_FAULT: u32 = 12;
/// How long its certificate is valid.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// What it wants to be told with each parcel.
const AUTHORIZATION: &str = "Bearer known-to-the-hub-alone";

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Its certificate.
    #[error("make the webhook's certificate: {0}")]
    Pki(#[from] PkiError),
    /// TLS.
    #[error("set up the webhook's TLS: {0}")]
    Tls(#[from] TlsError),
    /// A folder or a socket.
    #[error("listen as a webhook: {0}")]
    Io(#[from] io::Error),
}

/// A webhook that listens. Dropping it ends that.
pub struct Webhook {
    address: SocketAddr,
    authority: String,
    desk: Arc<Desk>,
    serving: JoinHandle<()>,
}

/// Where parcels are taken in.
struct Desk {
    deliveries: Arc<Waiting<Delivery>>,
    epoch: Instant,
    seed: u64,
    asked: AtomicU64,
    is_well: AtomicBool,
    /// Places of all events that it said it has.
    taken: Mutex<BTreeSet<(u32, u64)>>,
    /// How many they are.
    taken_count: watch::Sender<usize>,
}

/// An event, as far as it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    shard: u32,
    offset: u64,
    device_id: String,
    body: String,
}

impl Webhook {
    /// Begins to listen at a free port of `address`. Times count from `epoch`; `seed` draws when it is not well.
    pub async fn start(
        address: IpAddr,
        deliveries: Arc<Waiting<Delivery>>,
        (epoch, seed): (Instant, u64),
    ) -> Result<Webhook, WebhookError> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::open(folder.path())?;
        let certificate = authority.server_certificate(&[], &[address], CERTIFICATE_LIFE)?;
        let (chain, key) = (certificate.chain_pem.as_bytes(), certificate.key_pem.as_bytes());
        let acceptor = TlsAcceptor::from(TlsIdentity::from_pem(chain, key)?.server_config(&[])?);
        let listener = TcpListener::bind((address, 0)).await?;
        let desk = Arc::new(Desk {
            deliveries,
            epoch,
            seed,
            asked: AtomicU64::new(0),
            is_well: AtomicBool::new(false),
            taken: Mutex::default(),
            taken_count: watch::Sender::new(0),
        });
        Ok(Webhook {
            address: listener.local_addr()?,
            authority: authority.ca_pem().to_owned(),
            serving: tokio::spawn(listen(listener, acceptor, Arc::clone(&desk))),
            desk,
        })
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        format!("https://{}/events", self.address)
    }

    /// Who vouches for it, in PEM.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What it must be told, as an `authorization` header.
    pub fn authorization(&self) -> &'static str {
        AUTHORIZATION
    }

    /// From now on it takes every parcel at once.
    pub fn be_well(&self) {
        self.desk.is_well.store(true, Ordering::Relaxed);
    }

    /// Waits until it has all of these events, by shard and offset, but not beyond `until`. Returns how many are missing.
    pub async fn wait_for(&self, mut due: Vec<(u32, u64)>, until: Instant) -> usize {
        let mut counts = self.desk.taken_count.subscribe();
        loop {
            counts.mark_unchanged();
            {
                let taken = self.desk.taken.lock().unwrap_or_else(PoisonError::into_inner);
                due.retain(|place| !taken.contains(place));
            }
            if due.is_empty() || !matches!(timeout_at(until, counts.changed()).await, Ok(Ok(()))) {
                return due.len();
            }
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        // With it end its connections.
        self.serving.abort();
    }
}

async fn listen(listener: TcpListener, acceptor: TlsAcceptor, desk: Arc<Desk>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((socket, _)) => {
                    connections.spawn(serve(socket, acceptor.clone(), Arc::clone(&desk)));
                }
                Err(_) => sleep(ACCEPT_AGAIN).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, to its end. What fails on the way is the other side's to try again.
async fn serve(socket: TcpStream, acceptor: TlsAcceptor, desk: Arc<Desk>) -> io::Result<()> {
    let mut stream = BufReader::new(acceptor.accept(socket).await?);
    while let Some(request) = read_request(&mut stream).await? {
        let status = if !request.is_authorized {
            "401 Unauthorized"
        } else {
            match desk.take(&request.body) {
                Reply::Dropped => return Ok(()),
                Reply::Refused => "503 Service Unavailable",
                Reply::Late => {
                    sleep(LATE).await;
                    "200 OK"
                }
                Reply::Taken => "200 OK",
            }
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
    Ok(())
}

struct Request {
    is_authorized: bool,
    body: Vec<u8>,
}

/// The next request; none once the other side is done, or says what makes no sense.
async fn read_request(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Request>> {
    let (mut length, mut is_authorized) = (None, false);
    let mut head = (&mut *stream).take(HEAD_BYTES_MAX);
    let mut line = String::new();
    loop {
        line.clear();
        if head.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if let Some((name, value)) = text.split_once(':') {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().ok(),
                "authorization" => is_authorized = value.trim() == AUTHORIZATION,
                _ => {}
            }
        }
    }
    let Some(length) = length.filter(|length| *length <= BODY_BYTES_MAX) else {
        return Ok(None);
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request { is_authorized, body }))
}

impl Desk {
    /// Writes a parcel down, and says how it is to be answered.
    fn take(&self, body: &[u8]) -> Reply {
        let events = read_events(body);
        let mut reply = self.draw_reply();
        if events.is_empty() && reply.is_taken() {
            reply = Reply::Refused;
        }
        // Parcels stand in the order in which they were taken.
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if reply.is_taken() {
            taken.extend(events.iter().map(|event| (event.shard, event.offset)));
        }
        self.deliveries.note(Delivery::Parcel(Parcel {
            us: self.epoch.elapsed().as_micros() as u64,
            reply,
            events,
        }));
        self.taken_count.send_replace(taken.len());
        reply
    }

    fn draw_reply(&self) -> Reply {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_well.load(Ordering::Relaxed) {
            return Reply::Taken;
        }
        let mut random = StdRng::seed_from_u64(self.seed.wrapping_add(number));
        match random.random_range(0..PARCELS_PER_FAULT) {
            0 => Reply::Refused,
            1 => Reply::Dropped,
            2 => Reply::Late,
            _ => Reply::Taken,
        }
    }
}

/// The events of a body; none if it cannot be read.
fn read_events(body: &[u8]) -> Vec<Arrival> {
    let events: Vec<Event> = serde_json::from_slice(body).unwrap_or_default();
    let arrival = |event: Event| Arrival {
        shard: event.shard,
        offset: event.offset,
        device: event.device_id,
        digest: oracle::digest(&payload::of_body(&event.body)),
    };
    events.into_iter().map(arrival).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    async fn webhook() -> (Webhook, Arc<Waiting<Delivery>>) {
        let deliveries: Arc<Waiting<Delivery>> = Arc::default();
        let began = (Instant::now(), 7);
        let webhook = Webhook::start(Ipv4Addr::LOCALHOST.into(), Arc::clone(&deliveries), began);
        (webhook.await.expect("it listens"), deliveries)
    }

    fn client(webhook: &Webhook) -> reqwest::Client {
        let config =
            dunlin_gateway::tls::client_config(webhook.authority().as_bytes()).expect("it is trusted");
        let builder = reqwest::Client::builder().tls_backend_preconfigured((*config).clone());
        builder.no_proxy().build().expect("a client")
    }

    fn body(offset: u64) -> String {
        let body = STANDARD.encode(b"{}");
        format!(r#"[{{"shard":3,"offset":{offset},"deviceId":"d","term":1,"body":"{body}"}}]"#)
    }

    #[tokio::test]
    async fn every_parcel_is_written_down_with_the_answer_that_it_got() {
        let (webhook, deliveries) = webhook().await;
        let (client, url) = (client(&webhook), webhook.url());
        let send = |offset: u64, authorization: &'static str| {
            let request = client.post(&url).header("authorization", authorization);
            async move {
                request
                    .body(body(offset))
                    .send()
                    .await
                    .map(|answer| answer.status().as_u16())
            }
        };
        assert_eq!(send(0, "Bearer another").await.expect("an answer"), 401);
        for offset in 0..60 {
            let told = send(offset, AUTHORIZATION).await;
            let (noted, dropped) = deliveries.take();
            let [Delivery::Parcel(parcel)] = &noted[..] else {
                panic!("one parcel, not {noted:?}");
            };
            assert_eq!((dropped, parcel.events[0].offset), (0, offset));
            match parcel.reply {
                Reply::Taken | Reply::Late => assert_eq!(told.expect("an answer"), 200),
                Reply::Refused => assert_eq!(told.expect("an answer"), 503),
                Reply::Dropped => assert!(told.is_err()),
            }
        }
    }

    #[tokio::test]
    async fn it_waits_for_what_is_due_and_no_longer_than_it_was_told() {
        let (webhook, _deliveries) = webhook().await;
        webhook.be_well();
        assert_eq!(webhook.wait_for(vec![(3, 1), (3, 2)], Instant::now()).await, 2);
        let (client, url) = (client(&webhook), webhook.url());
        let sending = async {
            for offset in [1, 2] {
                let request = client.post(&url).header("authorization", AUTHORIZATION);
                request.body(body(offset)).send().await.expect("an answer");
            }
        };
        let until = Instant::now() + Duration::from_secs(30);
        let (missing, ()) = tokio::join!(webhook.wait_for(vec![(3, 1), (3, 2)], until), sending);
        assert_eq!(missing, 0);
    }
}
