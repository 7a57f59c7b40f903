//! `serve`: one node in this process until it is told to stop.

use std::io::Write;
use std::process::ExitCode;

use crate::config::NodeConfig;
use crate::ready::Ready;
use crate::wiring::RunningNode;

/// How a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Tables and sentences.
    Text,
    /// One JSON value a line.
    Json,
}

/// Runs a node until SIGINT or SIGTERM.
pub fn run(config: NodeConfig, output: Output) -> ExitCode {
    let node = match RunningNode::start(config) {
        Ok(node) => node,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::from(1);
        }
    };
    let ready = node.ready();
    if let Err(error) = ready.save(&ready.nodes[0].data_dir) {
        tracing::warn!(%error, "cannot write the endpoint file; commands will need a connection string");
    }
    print_ready(&ready, output);
    node.block_on(stop_signal());
    tracing::info!("stopping");
    node.stop();
    ExitCode::SUCCESS
}

/// Resolves at SIGINT or SIGTERM.
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Says that the hub is ready, and where.
pub fn print_ready(ready: &Ready, output: Output) {
    let mut out = std::io::stdout().lock();
    let _ = match output {
        Output::Json => {
            let line = serde_json::to_string(ready).expect("the line is plain data");
            writeln!(out, "{line}")
        }
        Output::Text => writeln!(
            out,
            "Dunlin is ready.\n\n  MQTT over TLS       {}\n  HTTPS, WebSocket    {}\n{}  trust this file     {}\n  admin token         {}\n  connection string   {}\n  nodes               {}\n",
            ready.mqtts,
            ready.https,
            ready
                .mqtt
                .as_ref()
                .map_or(String::new(), |mqtt| format!("  MQTT without TLS    {mqtt}\n")),
            ready.ca_file.display(),
            ready.admin_token,
            ready.connection_string,
            ready.nodes.len(),
        ),
    };
    let _ = out.flush();
}
