//! `serve`: one node in this process until it is told to stop.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use crate::config::NodeConfig;
use crate::logging;
use crate::ready::{ENDPOINT_FILE, Ready};
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
    // Commands may ask how it gets on before it serves.
    save(&node.ready());
    let is_told_to_stop = node.block_on(async {
        tokio::select! {
            () = node.serving() => false,
            () = stop_signal() => true,
        }
    });
    if !is_told_to_stop {
        let ready = node.ready();
        save(&ready);
        print_ready(&ready, output);
        node.block_on(stop_signal());
    }
    tracing::info!("stopping");
    logging::stopping();
    node.stop();
    ExitCode::SUCCESS
}

fn save(ready: &Ready) {
    if let Err(error) = ready.save(&ready.nodes[0].data_dir) {
        tracing::warn!(%error, "cannot write the endpoint file; commands will need a connection string");
    }
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
        Output::Text => writeln!(out, "{}", text(ready, out.is_terminal())),
    };
    let _ = out.flush();
}

/// Secrets go to whoever sits before a terminal, not into the logs of a service.
fn text(ready: &Ready, is_terminal: bool) -> String {
    let mut lines = Vec::new();
    let mut line = |what: &str, value: &str| lines.push(format!("  {what:<20}{value}\n"));
    if ready.is_gateway() {
        line("MQTT over TLS", &ready.mqtts);
        line("AMQP over TLS", &ready.amqps);
        line("Kafka over TLS", &ready.kafka);
        line("HTTPS, WebSocket", &ready.https);
    } else {
        line("HTTPS (operators)", &ready.https);
    }
    if let Some(mqtt) = &ready.mqtt {
        line("MQTT without TLS", mqtt);
    }
    line("trust this file", &ready.ca_file.display().to_string());
    if is_terminal {
        line("admin token", &ready.admin_token);
        line("connection string", &ready.connection_string);
    } else {
        let folder = ready.nodes.first().map(|node| node.data_dir.join(ENDPOINT_FILE));
        let kept = folder.unwrap_or_default().display().to_string();
        line("admin token", &format!("in {kept}"));
    }
    match &ready.nodes[..] {
        [node] => line("node", &node.id),
        nodes => line("nodes", &nodes.len().to_string()),
    }
    format!("Dunlin is ready.\n\n{}", lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ready::ReadyNode;
    use dunlin_model::directory::Role;

    fn ready(mqtts: &str) -> Ready {
        let node = ReadyNode {
            id: "1".into(),
            pid: 1,
            roles: vec![Role::Shard],
            mqtts: mqtts.into(),
            amqps: mqtts.replace("8883", "5671"),
            kafka: mqtts.replace("8883", "9093"),
            https: "localhost:8443".into(),
            mqtt: None,
            data_dir: "/data".into(),
        };
        Ready {
            ready: true,
            mqtts: mqtts.into(),
            amqps: mqtts.replace("8883", "5671"),
            kafka: mqtts.replace("8883", "9093"),
            https: "localhost:8443".into(),
            mqtt: None,
            ca_file: "/pki/ca.pem".into(),
            admin_token: "open-sesame".into(),
            connection_string: "SharedAccessKey=open-sesame".into(),
            nodes: vec![node],
        }
    }

    #[test]
    fn secrets_are_shown_on_a_terminal_and_not_in_a_log() {
        assert!(text(&ready("localhost:8883"), true).contains("open-sesame"));
        let logged = text(&ready("localhost:8883"), false);
        assert!(
            !logged.contains("open-sesame") && logged.contains("/data/endpoint.json"),
            "{logged}"
        );
    }

    #[test]
    fn a_node_that_is_no_gateway_names_no_door_for_devices() {
        let said = text(&ready(""), true);
        assert!(
            !said.contains("MQTT") && said.contains("HTTPS (operators)"),
            "{said}"
        );
        let json = serde_json::to_string(&ready("")).expect("plain data");
        assert!(!json.contains("mqtts"), "{json}");
    }
}
