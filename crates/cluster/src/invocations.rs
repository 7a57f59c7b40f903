//! Direct methods between nodes: from the gateway that a service called to the one that holds the device.
//!
//! A gateway is asked again only when a connection to it was lost on the way, and then by the same number, and told so: it
//! goes on with what it began, or says that it knows of nothing, so that no device is asked twice. How a device is asked is
//! the doors' part.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use dunlin_model::id::NodeId;
use dunlin_model::method::{Invocation, MethodAnswer, MethodError};
use dunlin_model::port::{BoxFuture, Clock as _, DownlinkSink};
use futures_util::FutureExt as _;
use futures_util::future::Shared as SharedFuture;
use tokio::time::Instant;

use crate::messages::{Request, Response};
use crate::node::Shared;
use crate::transport::Lane;
use crate::transport::calls::CallError;

/// Calls that one peer has under way here. Each holds one of the peer's places, which its reads need as well, and for much
/// longer.
const UNDER_WAY_PER_PEER_MAX: usize = 512;
/// Calls whose ends are kept, for a peer that lost its connection just before it heard.
const ENDED_MAX: usize = 256;
/// What an answer may take beyond the time that the device has.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Pause before a gateway is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

type Result<T> = std::result::Result<T, MethodError>;
type Asking = SharedFuture<BoxFuture<'static, Result<MethodAnswer>>>;

/// What peers have the doors of this node ask.
#[derive(Default)]
pub(crate) struct Invocations(Mutex<Table>);

#[derive(Default)]
struct Table {
    asked: BTreeMap<u64, Asking>,
    /// The numbers among them whose answers are there, the oldest first.
    ended: VecDeque<u64>,
    /// How many of the others each peer has.
    under_way: BTreeMap<NodeId, usize>,
}

impl Invocations {
    /// Asks, or goes on with what was asked before by this number; what was asked `again` is never begun here.
    pub(crate) async fn serve(
        &self,
        doors: &OnceLock<Arc<dyn DownlinkSink>>,
        from: NodeId,
        (invocation, again): (Invocation, bool),
    ) -> Result<MethodAnswer> {
        let id = invocation.id;
        let (asking, is_first) = {
            let mut table = self.0.lock().expect("no panic holds it");
            match table.asked.get(&id) {
                Some(asking) => (asking.clone(), false),
                // It came and is forgotten, or it never came: nobody can tell.
                None if again => return Err(MethodError::Unknown),
                None => {
                    let doors = doors.get().ok_or(MethodError::NotHere)?;
                    let under_way = table.under_way.entry(from).or_default();
                    if *under_way >= UNDER_WAY_PER_PEER_MAX {
                        return Err(MethodError::TooMany("calls from another gateway".into()));
                    }
                    *under_way += 1;
                    let asking = doors.invoke(invocation).shared();
                    table.asked.insert(id, asking.clone());
                    (asking, true)
                }
            }
        };
        let answer = asking.await;
        if is_first {
            let mut table = self.0.lock().expect("no panic holds it");
            let is_last = table.under_way.get(&from) == Some(&1);
            if is_last {
                table.under_way.remove(&from);
            } else if let Some(count) = table.under_way.get_mut(&from) {
                *count -= 1;
            }
            table.ended.push_back(id);
            if table.ended.len() > ENDED_MAX
                && let Some(oldest) = table.ended.pop_front()
            {
                table.asked.remove(&oldest);
            }
        }
        answer
    }
}

/// Has the doors on `gateway` ask a device.
pub(crate) async fn invoke(shared: &Shared, gateway: NodeId, invocation: Invocation) -> Result<MethodAnswer> {
    if gateway == shared.node {
        let doors = shared.downlink.get().ok_or(MethodError::NotHere)?;
        return doors.invoke(invocation).await;
    }
    if shared.detector.suspects(gateway, shared.clock.monotonic_ms()) {
        return Err(MethodError::Unreachable);
    }
    tokio::select! {
        answer = ask(shared, gateway, invocation) => answer,
        () = shared.suspected(gateway) => Err(MethodError::Unknown),
    }
}

async fn ask(shared: &Shared, gateway: NodeId, invocation: Invocation) -> Result<MethodAnswer> {
    let deadline = Instant::now() + Duration::from_millis(invocation.wait_ms) + ANSWER_WAIT;
    let mut may_have_heard = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let request = Request::Invoke {
            invocation: invocation.clone(),
            again: may_have_heard,
        };
        let answer = shared.peers.call(gateway, Lane::Bulk, request, left).await;
        match answer {
            // It knows nothing of us, or no longer.
            Ok((Response::NotHere { .. }, _)) if may_have_heard => return Err(MethodError::Unknown),
            Ok((Response::NotHere { .. }, _)) => return Err(MethodError::NotHere),
            Ok((Response::Invoked(result), _)) => return result,
            Ok(_) => return Err(MethodError::Unknown),
            Err(CallError::Unreachable(..)) if !may_have_heard => return Err(MethodError::Unreachable),
            Err(CallError::Unreachable(..)) => {}
            Err(CallError::Lost) => may_have_heard = true,
            Err(CallError::Timeout) => return Err(MethodError::TimedOut),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use dunlin_model::id::DeviceId;
    use dunlin_model::port::Downlink;
    use tokio::sync::Notify;

    use super::*;

    /// Doors that answer when they are told to, and count.
    #[derive(Default)]
    struct Doors {
        asked: AtomicUsize,
        go: Arc<Notify>,
    }

    impl DownlinkSink for Doors {
        fn on_downlink(&self, _: Downlink) {}

        fn sessions(&self) -> Vec<(DeviceId, u64)> {
            Vec::new()
        }

        fn invoke(&self, invocation: Invocation) -> BoxFuture<'static, Result<MethodAnswer>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let go = Arc::clone(&self.go);
            async move {
                go.notified().await;
                go.notify_one();
                Ok(MethodAnswer {
                    status: invocation.id as i64,
                    payload: String::new(),
                })
            }
            .boxed()
        }
    }

    fn invocation(id: u64) -> Invocation {
        Invocation {
            id,
            device: DeviceId::parse("d").expect("an id"),
            epoch: 1,
            name: "m".into(),
            payload: "null".into(),
            wait_ms: 1,
        }
    }

    const PEER: NodeId = NodeId(7);

    async fn serve(
        invocations: &Invocations,
        place: &OnceLock<Arc<dyn DownlinkSink>>,
        id: u64,
        again: bool,
    ) -> Result<i64> {
        let answer = invocations.serve(place, PEER, (invocation(id), again)).await;
        answer.map(|answer| answer.status)
    }

    #[tokio::test]
    async fn the_same_number_asks_once() {
        let doors = Arc::new(Doors::default());
        let place: OnceLock<Arc<dyn DownlinkSink>> = OnceLock::new();
        let invocations = Invocations::default();
        assert_eq!(
            serve(&invocations, &place, 1, false).await,
            Err(MethodError::NotHere)
        );
        assert!(place.set(doors.clone()).is_ok());
        doors.go.notify_one();
        let both = tokio::join!(
            serve(&invocations, &place, 7, false),
            serve(&invocations, &place, 7, true)
        );
        assert_eq!(both, (Ok(7), Ok(7)));
        assert_eq!(serve(&invocations, &place, 7, true).await, Ok(7));
        assert_eq!(doors.asked.load(Ordering::Relaxed), 1);
        // The oldest are forgotten. Whoever asks for one again is told that nobody knows, and its device is not asked.
        for id in 100..100 + ENDED_MAX as u64 {
            assert_eq!(serve(&invocations, &place, id, false).await, Ok(id as i64));
        }
        let asked = doors.asked.load(Ordering::Relaxed);
        assert_eq!(
            serve(&invocations, &place, 7, true).await,
            Err(MethodError::Unknown)
        );
        assert_eq!(
            serve(&invocations, &place, 8, true).await,
            Err(MethodError::Unknown)
        );
        assert_eq!(doors.asked.load(Ordering::Relaxed), asked);
        let table = invocations.0.lock().expect("it is free");
        assert_eq!((table.asked.len(), table.under_way.len()), (ENDED_MAX, 0));
    }

    #[tokio::test]
    async fn a_peer_has_only_so_many_under_way() {
        let doors = Arc::new(Doors::default());
        let place: OnceLock<Arc<dyn DownlinkSink>> = OnceLock::new();
        assert!(place.set(doors.clone()).is_ok());
        let invocations = Invocations::default();
        let mut waiting: Vec<_> = (0..UNDER_WAY_PER_PEER_MAX as u64)
            .map(|id| Box::pin(serve(&invocations, &place, id, false)))
            .collect();
        for asking in &mut waiting {
            assert!(asking.as_mut().now_or_never().is_none());
        }
        let refused = serve(&invocations, &place, 9_999, false).await;
        assert!(matches!(refused, Err(MethodError::TooMany(_))));
        let mut other = Box::pin(invocations.serve(&place, NodeId(8), (invocation(9_999), false)));
        assert!(
            other.as_mut().now_or_never().is_none(),
            "another peer has its own"
        );
        doors.go.notify_one();
        for (id, asking) in waiting.into_iter().enumerate() {
            assert_eq!(asking.await, Ok(id as i64));
        }
        assert!(other.await.is_ok());
    }
}
