//! `dunlin chaos fs`: a disk that misbehaves on demand, for a node that somebody else runs.

use std::io::Write as _;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use dunlin_chaos::chaosfs::{ChaosFs, control};
use futures_util::FutureExt as _;

use crate::commands::{CommandError, CommandResult};

#[derive(Args)]
pub(crate) struct ChaosFsCommand {
    /// Where the file system appears: a folder, empty best, and then a node's --data
    mountpoint: PathBuf,
    /// The folder that the files are kept in
    backing: PathBuf,
    /// Socket for the switches; one JSON value a line, such as {"lose_power":"nothing"}
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,
    /// Draws what a power cut keeps and which operations are hit
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

impl ChaosFsCommand {
    /// Mounts, serves the switches, and unmounts on SIGINT or SIGTERM. Prints one line when it is ready.
    pub(crate) async fn run(self) -> CommandResult {
        let failed =
            |what: &str, error: &dyn std::fmt::Display| CommandError::Failed(format!("{what}: {error}"));
        let disk = ChaosFs::mount(&self.backing, &self.mountpoint, self.seed)
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        let listener = control::listen(&self.control)
            .map_err(|error| failed(&format!("bind {}", self.control.display()), &error))?;
        let mut stopped = pin!(dunlin_node::serve::stop_signal());
        // It listens from the first look on, and whoever reads the line below may send a signal at once.
        if stopped.as_mut().now_or_never().is_some() {
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "{}",
            serde_json::json!({
                "mountpoint": self.mountpoint, "backing": self.backing, "control": self.control,
            })
        )?;
        out.flush()?;
        drop(out);
        tokio::select! {
            () = control::serve(listener, Arc::new(disk)) => {}
            () = stopped => {}
        }
        // A socket without a server would only be in the way.
        let _ = std::fs::remove_file(&self.control);
        Ok(ExitCode::SUCCESS)
    }
}
