//! Nodes that are processes of this machine.
//!
//! Signals them, starts them and looks at them in `/proc`; their data and logs are folders that everyone
//! here can reach. Several faults happen at once on one thread, so the cluster is locked for moments only
//! and never while something is waited for. How a process is started is in [`dunlin_node::local`].

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_node::local::LocalCluster;
use dunlin_node::ready::ReadyNode;
use futures_util::FutureExt as _;
use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::{Backend, Call, END_TIMEOUT, Ended, NodeError, Nodes, Starting};
use crate::faults::processes;

/// Time for the kernel to stop all threads of a process, or to let them go on.
const STOPPED_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const STOPPED_PAUSE: Duration = Duration::from_millis(1);

/// Processes of this machine.
pub struct Local {
    cluster: Mutex<LocalCluster>,
}

impl Local {
    /// The nodes of a cluster that runs.
    pub fn new(cluster: LocalCluster) -> Local {
        Local {
            cluster: Mutex::new(cluster),
        }
    }

    fn cluster(&self) -> MutexGuard<'_, LocalCluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self, place: usize) -> Result<u32, NodeError> {
        self.pid(place).ok_or(NodeError::Down(place))
    }
}

async fn wait_for(pid: u32, is_stopped: bool) -> Result<(), NodeError> {
    let deadline = Instant::now() + STOPPED_TIMEOUT;
    loop {
        match processes::state(pid) {
            None => return Err(NodeError::unclear("the process is gone")),
            Some(state) if (state == 'T') == is_stopped => return Ok(()),
            Some(state) if Instant::now() >= deadline => {
                return Err(NodeError::unclear(format!("the process is in state {state}")));
            }
            Some(_) => sleep(STOPPED_PAUSE).await,
        }
    }
}

impl Nodes for Local {
    fn backend(&self) -> Backend {
        Backend::Processes
    }

    fn count(&self) -> usize {
        self.cluster().node_count()
    }

    fn node(&self, place: usize) -> Option<ReadyNode> {
        self.cluster().node(place).cloned()
    }

    fn is_running(&self, place: usize) -> bool {
        self.cluster().is_running(place)
    }

    fn pid(&self, place: usize) -> Option<u32> {
        self.cluster().pid(place)
    }

    fn ended_by_itself(&self, place: usize) -> bool {
        match self.pid(place) {
            Some(pid) => processes::state(pid).is_none_or(|state| state == 'Z'),
            // Its end was seen already, though nobody asked for it.
            None => self.is_running(place),
        }
    }

    fn bury(&self, place: usize) {
        drop(self.cluster().take(place));
    }

    fn data_dir(&self, place: usize) -> Option<PathBuf> {
        Some(self.cluster().options().data_dir(place))
    }

    fn log_file(&self, place: usize) -> PathBuf {
        self.cluster().options().log_file(place)
    }

    fn kill(&self, place: usize) -> Call<'_, String> {
        async move {
            let Some(mut child) = self.cluster().take(place) else {
                return Err(NodeError::Down(place));
            };
            let pid = child.id().unwrap_or(0);
            child
                .kill()
                .await
                .map_err(|error| NodeError::Unclear(format!("kill node {}: {error}", place + 1)))?;
            Ok(format!("SIGKILL to node {} (process {pid})", place + 1))
        }
        .boxed_local()
    }

    fn terminate(&self, place: usize) -> Call<'_, Ended> {
        async move {
            let pid = self.live(place)?;
            let Some(mut child) = self.cluster().take(place) else {
                return Err(NodeError::Down(place));
            };
            processes::signal(pid, Signal::TERM).map_err(NodeError::Unclear)?;
            match timeout(END_TIMEOUT, child.wait()).await {
                Ok(Ok(status)) => Ok(Ended {
                    is_clean: status.success(),
                    how: status.to_string(),
                }),
                Ok(Err(error)) => Err(NodeError::Unclear(format!(
                    "wait for node {}: {error}",
                    place + 1
                ))),
                // Dropping the process kills it.
                Err(_) => Err(NodeError::late(place)),
            }
        }
        .boxed_local()
    }

    fn begin_start(&self, place: usize) -> Call<'_, Starting> {
        async move {
            let starting = self.cluster().begin_start(place).map_err(NodeError::unclear)?;
            let ready = async move { starting.ready().await.map_err(NodeError::unclear) };
            Ok(ready.boxed_local())
        }
        .boxed_local()
    }

    fn set_ready(&self, place: usize, ready: ReadyNode) {
        self.cluster().set_ready(place, ready);
    }

    fn pause(&self, place: usize) -> Call<'_, String> {
        async move {
            let pid = self.live(place)?;
            processes::signal(pid, Signal::STOP).map_err(NodeError::Unclear)?;
            Ok(format!("SIGSTOP to node {} (process {pid})", place + 1))
        }
        .boxed_local()
    }

    fn wait_paused(&self, place: usize) -> Call<'_, ()> {
        async move { wait_for(self.live(place)?, true).await }.boxed_local()
    }

    fn resume(&self, place: usize) -> Call<'_, String> {
        async move {
            let pid = self.live(place)?;
            processes::signal(pid, Signal::CONT).map_err(NodeError::Unclear)?;
            wait_for(pid, false).await?;
            Ok(format!("SIGCONT to node {}", place + 1))
        }
        .boxed_local()
    }

    fn keep_audit<'a>(&'a self, place: usize, into: &'a Path, suffix: &'a str) -> Call<'a, ()> {
        async move {
            let from = self.cluster().options().data_dir(place);
            let Ok(entries) = std::fs::read_dir(&from) else {
                return Ok(());
            };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(dunlin_node::audit::AUDIT_FILE) {
                    std::fs::copy(entry.path(), into.join(format!("{name}{suffix}")))
                        .map_err(|error| NodeError::Unclear(format!("keep the audit: {error}")))?;
                }
            }
            Ok(())
        }
        .boxed_local()
    }
}
