//! The right to do something alone, as one gateway has it.
//!
//! It is held by the clock of the log that grants it. Here it counts from before it was asked for, so that it is over
//! here first. What must not be done twice needs a check of its own where it is done: a gateway may stand still
//! between a look at its lease and what it does then.

use std::time::Duration;

use dunlin_model::command::{Command, Outcome};
use dunlin_model::port::{ShardClient, SubmitError};
use tokio::time::Instant;

/// Why the lease is not held.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    /// It is another's.
    #[error("another gateway has the lease")]
    Lost,
    /// Nobody could say.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// See the file.
#[derive(Debug)]
pub(crate) struct Lease {
    name: String,
    holder: u64,
    length: Duration,
    /// Until when it is held, if nobody was wrong about time.
    held_until: Instant,
}

impl Lease {
    /// The lease called `name`, which nobody has yet. What is drawn for `holder` tells this one from others: who has it
    /// may drop it here and take it again.
    pub(crate) fn new(name: String, length: Duration, holder: u64) -> Self {
        Self {
            name,
            holder,
            length,
            held_until: Instant::now(),
        }
    }

    /// Takes the lease, or keeps it. Each time that it is asked for is an entry in a log, so it is not before half of it
    /// is over.
    pub(crate) async fn hold(&mut self, client: &dyn ShardClient) -> Result<(), LeaseError> {
        let now = Instant::now();
        if now + self.length / 2 < self.held_until {
            return Ok(());
        }
        let command = Command::LeaseTake {
            name: self.name.clone(),
            holder: self.holder,
            ms: self.length.as_millis() as u64,
        };
        match client.submit(command).await? {
            Outcome::Done => {
                self.held_until = now + self.length;
                Ok(())
            }
            _ => Err(LeaseError::Lost),
        }
    }

    /// Until when it is held.
    pub(crate) fn held_until(&self) -> Instant {
        self.held_until
    }
}
