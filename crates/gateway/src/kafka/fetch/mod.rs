//! Fetch: events for readers, at once or after a wait.
//!
//! Decides in which order things happen: everything is read that is there; if that is too little, all partitions are
//! waited for together until there is enough, the time is over, or the reader asks for something else: answers come in
//! the order of requests, so that a wait would hold up whatever comes after it. What is read and what is answered is decided in
//! [`gather`]. There are no fetch sessions (KIP-227): each fetch names all of its partitions, which costs some bytes and
//! saves a state that a gateway would lose.

mod gather;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use self::gather::{Ask, Gather, Pass};
pub(super) use self::gather::{epoch_code, read_code};
use super::backend::{Bounds, Page, ReadError};
use super::call::{self, Call, Fault};
use super::code::Code;
use super::door::Door;
use super::limits::{
    ANSWER_BYTES_MAX, FETCH_AHEAD_PAUSE, FETCH_FIRST_WAIT, FETCH_LAGGARD_WAIT, FETCH_READS_AT_A_TIME,
    FETCH_WAIT_MAX, READS_MAX,
};

/// What a partition said.
enum Said {
    Page(Result<Page, ReadError>),
    Bounds(Result<Bounds, ReadError>),
}

type Asking<'a> = FuturesUnordered<BoxFuture<'a, (usize, Said)>>;

/// Answers a fetch. The permit is the answer's share of the memory for events.
pub(crate) async fn answer(
    door: &Door,
    mut call: Call,
    hurry: &CancellationToken,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Fault> {
    let request: FetchRequest = call.take()?;
    if request.session_id != 0 {
        let code = Code::FETCH_SESSION_ID_NOT_FOUND.0;
        let response = FetchResponse::default().with_error_code(code);
        return Ok((call.answer(&response)?, None));
    }
    let mut gather = Gather::new(&request, door);
    let wait = Duration::from_millis(request.max_wait_ms.max(0) as u64).min(FETCH_WAIT_MAX);
    let held = fill(door, &mut gather, Instant::now() + wait, hurry).await;
    // An event that is larger than all bounds may come alone; it has its own.
    let bytes_max = ANSWER_BYTES_MAX + gather.bytes();
    let frame = call::answer(call.correlation, call.version, &gather.into_response(), bytes_max)?;
    Ok((frame, held))
}

/// Reads until there is enough to answer with.
async fn fill(
    door: &Door,
    gather: &mut Gather,
    until: Instant,
    hurry: &CancellationToken,
) -> Option<OwnedSemaphorePermit> {
    let patience = until.max(Instant::now() + FETCH_FIRST_WAIT);
    // Without its share of reads or memory a fetch is answered with nothing, and comes again.
    let partitions = gather.partition_count().min(READS_MAX);
    let _reads = acquire(&door.reads, partitions, patience).await?;
    let mut held = acquire(&door.memory, kib(gather.bytes_max()), patience).await?;
    pass(door, gather, Pass::There, until).await;
    // What is not used goes back, and nothing is held while nothing comes.
    let spare = kib(gather.bytes_max()).saturating_sub(kib(gather.bytes()));
    drop(held.split(spare));
    if !gather.is_enough() && Instant::now() < until {
        let before = kib(gather.bytes());
        let waiting = async {
            pass(door, gather, Pass::Wait, until).await;
            if !gather.is_enough() {
                // Whatever waited for less time than we: an empty answer comes when it is due, not before.
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = waiting => {}
            () = sleep_until(until) => {}
            () = hurry.cancelled() => {}
        }
        let more = kib(gather.bytes()).saturating_sub(before);
        if let Some(more) = acquire(&door.memory, more, patience + FETCH_FIRST_WAIT).await {
            held.merge(more);
        }
    }
    if gather.has_aheads() {
        sleep(FETCH_AHEAD_PAUSE).await;
        pass(door, gather, Pass::Ahead, until).await;
    }
    Some(held)
}

/// Asks partitions, a few at a time unless they are waited for, until nobody is left to ask or there is enough. Who takes
/// too long for what should be there counts as unreachable, and the sooner so if others have something to tell.
async fn pass(door: &Door, gather: &mut Gather, pass: Pass, until: Instant) {
    let at_a_time = match pass {
        Pass::Wait => usize::MAX,
        Pass::There | Pass::Ahead => FETCH_READS_AT_A_TIME,
    };
    gather.begin(pass);
    let mut asking = Asking::new();
    let began = Instant::now();
    loop {
        while asking.len() < at_a_time
            && let Some((slot, ask)) = gather.poll_ask()
        {
            asking.push(say(door, slot, ask, until));
        }
        let patience = match pass {
            Pass::Wait => until,
            Pass::There | Pass::Ahead if gather.bytes() > 0 => began + FETCH_LAGGARD_WAIT,
            Pass::There | Pass::Ahead => began + FETCH_FIRST_WAIT,
        };
        match timeout_at(patience, asking.next()).await {
            Ok(None) => return,
            Ok(Some((slot, Said::Page(page)))) => gather.handle_page(slot, page),
            Ok(Some((slot, Said::Bounds(bounds)))) => gather.handle_bounds(slot, bounds),
            Err(_) => return gather.give_up(),
        }
        if pass == Pass::Wait && gather.is_enough() {
            return;
        }
    }
}

fn say(door: &Door, slot: usize, ask: Ask, until: Instant) -> BoxFuture<'_, (usize, Said)> {
    let backend = Arc::clone(&door.backend);
    Box::pin(async move {
        let said = match ask {
            Ask::Look { partition } => Said::Bounds(backend.bounds(partition).await),
            Ask::Read {
                partition,
                from,
                bytes_max,
                is_waiting,
            } => {
                let wait = match is_waiting {
                    true => until.saturating_duration_since(Instant::now()),
                    false => Duration::ZERO,
                };
                let wait_ms = wait.as_millis() as u64;
                Said::Page(backend.read(partition, from, bytes_max, wait_ms).await)
            }
        };
        (slot, said)
    })
}

async fn acquire(semaphore: &Arc<Semaphore>, count: usize, until: Instant) -> Option<OwnedSemaphorePermit> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let acquired = timeout_at(until, Arc::clone(semaphore).acquire_many_owned(count)).await;
    acquired.ok()?.ok()
}

fn kib(bytes: usize) -> usize {
    bytes.div_ceil(1024)
}
