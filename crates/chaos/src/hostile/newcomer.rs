//! Good devices that come while others are served: how long it takes to be let in, attack or not.
//!
//! One after the other, since it is the single newcomer that a crowd before the door shuts out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_gateway::client::{Client, ConnectOptions, Transport};
use hdrhistogram::Histogram;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::attack::Insider;
use crate::fleet::histogram;

/// Devices that come in turn: so many that none is held back for coming too often.
pub(super) const DEVICES: usize = 64;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(100);
/// Time after which a newcomer gives up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Seen {
    connect_us: Option<Histogram<u64>>,
    failed: u64,
}

/// Newcomers at work. Dropping it ends them.
pub(super) struct Newcomers {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Newcomers {
    pub(super) fn start(devices: Vec<Insider>, targets: Vec<Transport>, host: String) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            for (place, device) in devices.iter().enumerate().cycle() {
                let target = targets[place % targets.len()].clone();
                let options = ConnectOptions {
                    clean: true,
                    ..ConnectOptions::new(target, &host, &device.device, device.token.clone())
                };
                let begun = Instant::now();
                let connected = timeout(PATIENCE, Client::connect(&options)).await;
                let took_us = begun.elapsed().as_micros() as u64;
                {
                    let mut seen = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    // One that was not let in waited at least that long.
                    seen.connect_us
                        .get_or_insert_with(histogram)
                        .saturating_record(took_us);
                    seen.failed += u64::from(!matches!(connected, Ok(Ok(_))));
                }
                if let Ok(Ok(client)) = connected {
                    let _ = timeout(PAUSE, client.disconnect()).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { seen, task }
    }

    /// Adds the connects since the last call to `total`.
    pub(super) fn take(&self, total: &mut Histogram<u64>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = seen.connect_us.take()
            && let Err(error) = total.add(&taken)
        {
            tracing::warn!(%error, "connects left out");
        }
    }

    /// Ends them; says how many were not let in.
    pub(super) async fn stop(self) -> u64 {
        self.task.abort();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.failed
    }
}
