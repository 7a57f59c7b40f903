//! The attackers: tasks that do one kind of harm over and over while they are let loose.
//!
//! They know no truth about the hub; what came of it is counted ([`super::count`]) and judged elsewhere. Every
//! wait has an end, so that a hub that neither answers nor closes does not keep an attacker for ever. How many
//! there are and where they go is in [`super::crowd`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dunlin_gateway::client::{Event, Transport};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

use super::count::Counters;
use super::dial::{KEEP_ALIVE_S, STEP_TIMEOUT, Socket, closes, dial, enter, enter_bare, tcp};
use super::kind::Kind;
use super::pace::Pace;
use super::packets::Mill;

/// Malformed packets in one write before CONNECT, of which the hub reads one or none.
const BURST_FIRST: u64 = 4;
/// Packets in one write of a connected device.
const BURST: u64 = 32;
/// Pause between two bytes of a slow CONNECT.
const DRIBBLE_PAUSE: Duration = Duration::from_millis(500);
/// Messages that are left without a look at their acknowledgements: fewer than the hub allows to be unacknowledged.
const UNREAD_PUBLISHES: u64 = 8;
/// Bytes that a slow reader's kernel keeps for it, as far as that can be told to.
const UNREAD_BYTES: u32 = 4 * 1024;
/// The keep-alive of devices that vanish: the hub owes them half as much again, and then their end.
const VANISH_KEEP_ALIVE_S: u16 = 2;
/// The beginning of a record that holds a ClientHello.
const CLIENT_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];
/// Pause of an attacker that was not let in.
const TRY_AGAIN_PAUSE: Duration = Duration::from_millis(100);

/// A device that an attacker speaks as.
#[derive(Debug, Clone)]
pub struct Insider {
    /// Its id.
    pub device: String,
    /// Its token.
    pub token: String,
}

/// What an attacker is told.
#[derive(Clone)]
pub struct Order {
    /// What to do.
    pub kind: Kind,
    /// Where.
    pub target: Transport,
    /// The hub's name in user names.
    pub host: String,
    /// As whom, where that needs a device.
    pub insider: Insider,
    /// Draws what it sends.
    pub seed: u64,
    /// Where it counts.
    pub counters: Arc<Counters>,
    /// Packets of all attackers together; none sends beyond it.
    pub packets_max: u64,
    /// How fast all of them together may send; as fast as they can without it.
    pub pace: Option<Arc<Pace>>,
}

/// Does harm whenever `loose` says so, until its sender is gone.
pub async fn attack(order: Order, mut loose: watch::Receiver<bool>) {
    let mut mill = Mill::new(order.seed, &order.insider.device);
    let mut round = 0;
    while until(&mut loose, true).await {
        round += 1;
        mill.set_v5(round % 2 == 0);
        let paced = async {
            if let Some(pace) = &order.pace {
                pace.wait().await;
            }
            once(&order, &mut mill).await
        };
        let done = tokio::select! {
            done = paced => done,
            _ = until(&mut loose, false) => continue,
        };
        if done.is_err() {
            order.counters.was_refused();
            tokio::time::sleep(TRY_AGAIN_PAUSE).await;
        }
        if order.counters.packets() >= order.packets_max {
            // Enough: what is left of the phase is spent in peace.
            until(&mut loose, false).await;
        }
    }
}

/// Waits until attackers are let loose, or held back; `false` when the run is over.
async fn until(loose: &mut watch::Receiver<bool>, wanted: bool) -> bool {
    let is_so = loose.wait_for(|is_loose| *is_loose == wanted).await.is_ok();
    // Whoever let them loose may be gone without a word: what was said last still stands then.
    is_so && loose.has_changed().is_ok()
}

/// One round of harm. An error says that there was no connection to do it on.
async fn once(order: &Order, mill: &mut Mill) -> io::Result<()> {
    match order.kind {
        // A device that comes too often is slowed down, so most of them come as strangers.
        Kind::Malformed if mill.below(16) > 0 => strangers_burst(order, mill).await,
        Kind::Malformed => insiders_burst(order, mill, Mill::any).await,
        Kind::Bombs => insiders_burst(order, mill, Mill::bomb).await,
        Kind::HugeLength if mill.below(2) == 0 => strangers_claim(order, mill).await,
        Kind::HugeLength => insiders_burst(order, mill, Mill::huge).await,
        Kind::HalfOpen => sit(order, &[]).await,
        Kind::HalfTls => sit(order, CLIENT_HELLO).await,
        Kind::SlowConnect => dribble(order, mill).await,
        Kind::SlowReader => read_nothing(order, mill).await,
        Kind::Reconnect | Kind::TakeOver => come_and_go(order).await,
        Kind::Reset => reset(order, mill).await,
        Kind::HalfClose => half_close(order, mill).await,
        Kind::Vanish => vanish(order, mill).await,
    }
}

/// Malformed packets on a connection that nobody has said CONNECT on.
async fn strangers_burst(order: &Order, mill: &mut Mill) -> io::Result<()> {
    let mut burst = Vec::new();
    for place in 0..BURST_FIRST {
        burst.extend(if place == 0 { mill.first() } else { mill.any() });
    }
    let mut stream = dial(order, Socket::default()).await?;
    let _held = order.counters.hold(order.kind);
    order.counters.wrote(1, burst.len());
    let written = timeout(STEP_TIMEOUT, stream.write_all(&burst)).await;
    // Some are resets, some are ends, some are silent.
    let was_closed = match mill.below(4) {
        0 => return Ok(()),
        1 => {
            let _ = stream.shutdown().await;
            closes(&mut stream).await
        }
        _ if !matches!(written, Ok(Ok(()))) => true,
        // A packet that is not whole is waited for; the hub need not close at once.
        _ => timeout(DRIBBLE_PAUSE, closes(&mut stream)).await.unwrap_or(false),
    };
    if was_closed {
        order.counters.was_closed();
    }
    Ok(())
}

/// Packets of `make` on the connection of a device, with valid ones between them.
async fn insiders_burst(order: &Order, mill: &mut Mill, make: fn(&mut Mill) -> Vec<u8>) -> io::Result<()> {
    let is_v5 = mill.below(2) == 0;
    mill.set_v5(is_v5);
    let mut client = enter(order, is_v5).await?;
    let _held = order.counters.hold(order.kind);
    let mut burst = Vec::new();
    for place in 0..BURST {
        burst.extend(if place % 8 == 7 {
            make(mill)
        } else {
            mill.publish()
        });
    }
    order.counters.wrote(1, burst.len());
    let _ = timeout(STEP_TIMEOUT, client.send_raw(&burst)).await;
    let _ = timeout(STEP_TIMEOUT, client.flush()).await;
    let listening = async {
        loop {
            match client.next_event().await {
                Event::Puback { .. } => order.counters.was_answered(),
                Event::Disconnected { .. } => return,
                _ => {}
            }
        }
    };
    if timeout(DRIBBLE_PAUSE, listening).await.is_ok() {
        order.counters.was_closed();
    }
    Ok(())
}

/// The head of a packet that never comes.
async fn strangers_claim(order: &Order, mill: &mut Mill) -> io::Result<()> {
    let mut stream = dial(order, Socket::default()).await?;
    let _held = order.counters.hold(order.kind);
    let head = mill.huge();
    order.counters.wrote(1, head.len());
    let _ = timeout(STEP_TIMEOUT, stream.write_all(&head)).await;
    if closes(&mut stream).await {
        order.counters.was_closed();
    }
    Ok(())
}

/// Holds a bare TCP connection on which `greeting` was sent, until the hub closes it.
async fn sit(order: &Order, greeting: &[u8]) -> io::Result<()> {
    let mut stream = tcp(order, Socket::default()).await?;
    let _held = order.counters.hold(order.kind);
    let _ = timeout(STEP_TIMEOUT, stream.write_all(greeting)).await;
    order.counters.wrote(0, greeting.len());
    wait_closed(order, &mut stream).await;
    Ok(())
}

/// Holds a connection until the hub closes it.
async fn wait_closed(order: &Order, stream: &mut (impl AsyncRead + Unpin)) {
    while !closes(stream).await {}
    order.counters.was_closed();
}

/// A CONNECT, byte by byte.
async fn dribble(order: &Order, mill: &mut Mill) -> io::Result<()> {
    let mut stream = dial(order, Socket::default()).await?;
    let _held = order.counters.hold(order.kind);
    // The beginning of a valid one that is longer than anybody has patience for.
    let connect = [
        &[0x10, 0xFF, 0x3F, 0, 4],
        &b"MQTT\x04\xC2\x00\x3C"[..],
        &mill.publish(),
    ]
    .concat();
    for byte in connect.chunks(1) {
        order.counters.wrote(0, 1);
        let mut answer = [0; 64];
        let is_closed = match timeout(STEP_TIMEOUT, stream.write_all(byte)).await {
            Ok(Ok(())) => match timeout(DRIBBLE_PAUSE, stream.read(&mut answer)).await {
                Err(_) => continue,
                Ok(read) => matches!(read, Ok(0) | Err(_)),
            },
            Ok(Err(_)) => true,
            Err(_) => false,
        };
        if is_closed {
            order.counters.was_closed();
        }
        return Ok(());
    }
    order.counters.wrote(1, 0);
    Ok(())
}

/// Messages whose acknowledgements nobody waits for.
fn unread(order: &Order, mill: &mut Mill) -> Vec<u8> {
    let mut burst = Vec::new();
    for _ in 0..UNREAD_PUBLISHES {
        burst.extend(mill.publish());
    }
    order.counters.wrote(UNREAD_PUBLISHES, burst.len());
    burst
}

/// A device that publishes and reads no acknowledgement, until the hub has had enough. It has little room for
/// what it does not read, so that the hub is soon the one that keeps it.
async fn read_nothing(order: &Order, mill: &mut Mill) -> io::Result<()> {
    let told = Socket {
        receive_bytes: Some(UNREAD_BYTES),
        ..Socket::default()
    };
    let (mut stream, _held) = enter_bare(order, mill, told, KEEP_ALIVE_S).await?;
    loop {
        let burst = unread(order, mill);
        // Where the hub stops reading, this waits with it, until it is thrown out.
        if stream.write_all(&burst).await.is_err() {
            break;
        }
        tokio::time::sleep(DRIBBLE_PAUSE).await;
    }
    order.counters.was_closed();
    Ok(())
}

/// A device that connects, sends one message, and is gone without a word.
async fn come_and_go(order: &Order) -> io::Result<()> {
    let mut client = enter(order, false).await?;
    let _held = order.counters.hold(order.kind);
    let topic = format!("devices/{}/messages/events/", order.insider.device);
    order.counters.wrote(1, topic.len());
    if timeout(STEP_TIMEOUT, client.publish(&topic, b"here"))
        .await
        .is_ok()
    {
        // Acknowledged, or thrown out by whoever came after.
        match timeout(STEP_TIMEOUT, client.next_event()).await {
            Ok(Event::Puback { .. }) => order.counters.was_answered(),
            Ok(Event::Disconnected { .. }) => order.counters.was_closed(),
            _ => {}
        }
    }
    Ok(())
}

/// A connection that ends by RST wherever it is just then: within the handshake, before CONNECT, or with messages
/// under way, so that what the hub reads or writes next fails.
async fn reset(order: &Order, mill: &mut Mill) -> io::Result<()> {
    let told = Socket {
        resets: true,
        ..Socket::default()
    };
    match mill.below(3) {
        0 => {
            let mut stream = tcp(order, told).await?;
            let _held = order.counters.hold(order.kind);
            let said = &CLIENT_HELLO[..mill.below(CLIENT_HELLO.len() as u64 + 1) as usize];
            order.counters.wrote(0, said.len());
            let _ = timeout(STEP_TIMEOUT, stream.write_all(said)).await;
        }
        1 => {
            let mut stream = dial(order, told).await?;
            let _held = order.counters.hold(order.kind);
            let first = mill.first();
            order.counters.wrote(1, first.len());
            let _ = timeout(STEP_TIMEOUT, stream.write_all(&first)).await;
        }
        _ => {
            let (mut stream, _held) = enter_bare(order, mill, told, KEEP_ALIVE_S).await?;
            let burst = unread(order, mill);
            let _ = timeout(STEP_TIMEOUT, stream.write_all(&burst)).await;
        }
    }
    Ok(())
}

/// A client that has said all that it will (FIN), as a stranger or as a device with messages under way, and waits for
/// the hub to close.
async fn half_close(order: &Order, mill: &mut Mill) -> io::Result<()> {
    if mill.below(2) == 0 {
        let mut stream = tcp(order, Socket::default()).await?;
        let _held = order.counters.hold(order.kind);
        let _ = stream.shutdown().await;
        wait_closed(order, &mut stream).await;
    } else {
        let (mut stream, _held) = enter_bare(order, mill, Socket::default(), KEEP_ALIVE_S).await?;
        let burst = unread(order, mill);
        let _ = timeout(STEP_TIMEOUT, stream.write_all(&burst)).await;
        let _ = timeout(STEP_TIMEOUT, stream.shutdown()).await;
        wait_closed(order, &mut stream).await;
    }
    Ok(())
}

/// A device that has messages under way and is not heard of again, as when its power fails: neither FIN nor RST, and
/// no ping. Only its kernel still takes what the hub sends, since nothing here can keep that one silent.
async fn vanish(order: &Order, mill: &mut Mill) -> io::Result<()> {
    let (mut stream, _held) = enter_bare(order, mill, Socket::default(), VANISH_KEEP_ALIVE_S).await?;
    let burst = unread(order, mill);
    let _ = timeout(STEP_TIMEOUT, stream.write_all(&burst)).await;
    wait_closed(order, &mut stream).await;
    Ok(())
}
