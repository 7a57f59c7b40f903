//! The road to whoever leads group 0, from any node: of changes to the directory, and of questions for it as it is now.

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::directory::{Directory, DirectoryCommand, DirectoryRefusal};
use dunlin_model::id::{GroupId, ReplicaId};
use dunlin_model::port::{Clock as _, QueryError};

use crate::maintenance::confirm_directory;
use crate::messages::{Request, Response};
use crate::node::Shared;
use crate::transport::Lane;

/// How long a change may look for the directory's leader.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long the directory as it is now may be asked for.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before it is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Why the directory was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError {
    /// It was asked and says no.
    #[error(transparent)]
    Refused(#[from] DirectoryRefusal),
    /// Nobody answered for it in time. The change may have been made.
    #[error("the directory has no leader that answers")]
    Unavailable,
}

impl Shared {
    /// The directory as it is now, and not as this node last heard of it: with every change that was answered before.
    pub(crate) async fn directory_now(self: &Arc<Self>) -> Result<Arc<Directory>, QueryError> {
        // Later than any change that was answered before: a question that began within this very millisecond
        // may not have seen it.
        let since_ms = self.clock.monotonic_ms() + 1;
        let asking = async {
            loop {
                // One question answers all who wait by the time that it begins.
                let _turn = self.directory_turn.lock().await;
                if self.view.is_confirmed_since(since_ms) {
                    return;
                }
                confirm_directory(self).await;
                if !self.view.is_confirmed_since(since_ms) {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
            }
        };
        let asked = tokio::time::timeout(ASK_TIMEOUT, asking).await;
        asked.map_err(|_| QueryError::CutOff)?;
        Ok(self.view.get())
    }

    /// Has the directory changed, whoever leads it. A change whose answer was lost is made again: each
    /// command either says what shall be, or is refused the second time.
    pub(crate) async fn change_directory(
        &self,
        command: DirectoryCommand,
    ) -> Result<Option<ReplicaId>, ChangeError> {
        let changing = async {
            loop {
                if let Some(result) = self.try_change(&command).await {
                    return result;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let result = tokio::time::timeout(CHANGE_TIMEOUT, changing).await;
        result.unwrap_or(Err(ChangeError::Unavailable))
    }

    async fn try_change(&self, command: &DirectoryCommand) -> Option<Result<Option<ReplicaId>, ChangeError>> {
        let leader = self.ask_leader(GroupId::DIRECTORY).await?;
        if leader == self.node {
            let group = self.group(GroupId::DIRECTORY)?;
            let result = group.change_directory(command).await.ok()?;
            return Some(result.map_err(ChangeError::from));
        }
        let asked = Request::ChangeDirectory(command.clone());
        let answer = self
            .peers
            .call(leader, Lane::Control, asked, CHANGE_TIMEOUT)
            .await;
        match answer {
            Ok((Response::Changed(result), _)) => Some(result.map_err(ChangeError::from)),
            _ => None,
        }
    }
}
