//! `dunlin load null-sink`: a server that acknowledges everything, until it is told to stop.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use dunlin_chaos::load::files::raise_open_files;
use dunlin_chaos::load::sink::{LOG_BYTES, LOGS_MAX, Sink, SinkOptions};
use dunlin_gateway::TlsIdentity;
use dunlin_node::serve::stop_signal;
use serde_json::json;

use crate::commands::{CommandError, CommandResult, Format, say};

const MIB: u64 = 1024 * 1024;

#[derive(Args)]
pub(super) struct NullSink {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Port of MQTT; 0 takes a free one
    #[arg(short, long, value_name = "PORT", default_value_t = 1883)]
    port: u16,
    /// Port of MQTT over TLS, with --cert and --key
    #[arg(long, value_name = "PORT", requires = "cert", requires = "key")]
    tls_port: Option<u16>,
    /// Certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_port")]
    cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_port")]
    key: Option<PathBuf>,
    /// Logs that a message is written and synced to before it is acknowledged
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=LOGS_MAX as u64))]
    wal: u64,
    /// Where the logs are [default: a folder of the system for temporary files]
    #[arg(long, value_name = "DIR", requires = "wal")]
    folder: Option<PathBuf>,
    /// MiB of each log, which is written full of zeros first
    #[arg(long, value_name = "N", default_value_t = LOG_BYTES / MIB, value_parser = clap::value_parser!(u64).range(1..=64 * 1024))]
    log_mib: u64,
}

impl NullSink {
    pub(super) async fn run(self, output: Format) -> CommandResult {
        raise_open_files();
        let failed = |error: &dyn std::fmt::Display| CommandError::Failed(error.to_string());
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|error| CommandError::Failed(format!("read {}: {error}", path.display())))
        };
        let tls = match (self.tls_port, &self.cert, &self.key) {
            (Some(port), Some(cert), Some(key)) => {
                let identity = TlsIdentity::from_pem(&read(cert)?, &read(key)?);
                let identity = identity.map_err(|error| failed(&error))?;
                Some((SocketAddr::from((self.bind, port)), identity))
            }
            _ => None,
        };
        let own = folder_of(&self)?;
        let mut sink = Sink::start(SinkOptions {
            plain: SocketAddr::from((self.bind, self.port)),
            tls,
            logs: usize::try_from(self.wal).unwrap_or(LOGS_MAX),
            folder: own.path.clone(),
            log_bytes: self.log_mib * MIB,
        })
        .await
        .map_err(|error| failed(&error))?;
        match output {
            Format::Json => say(json!({ "ready": true, "mqtt": sink.plain, "mqtts": sink.tls }))?,
            Format::Text => say(format!(
                "Acknowledging everything at {}{}; Ctrl-C ends.",
                sink.plain,
                match self.wal {
                    0 => String::new(),
                    logs => format!(" once {logs} logs in {} are synced", own.path.display()),
                }
            ))?,
        }
        tokio::select! {
            () = stop_signal() => Ok(ExitCode::SUCCESS),
            error = sink.failed() => Err(failed(&error)),
        }
    }
}

/// The folder of the logs; one that was made for them goes with them.
struct Folder {
    path: PathBuf,
    is_ours: bool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.is_ours {
            // What is left behind is in a folder for temporary files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn folder_of(sink: &NullSink) -> Result<Folder, CommandError> {
    if let Some(path) = &sink.folder {
        return Ok(Folder {
            path: path.clone(),
            is_ours: false,
        });
    }
    let name = format!(
        "dunlin-null-sink-{}-{:08x}",
        std::process::id(),
        rand::random::<u32>()
    );
    let path = std::env::temp_dir().join(name);
    if sink.wal > 0 {
        std::fs::create_dir_all(&path)
            .map_err(|error| CommandError::Failed(format!("make {}: {error}", path.display())))?;
    }
    Ok(Folder {
        path,
        is_ours: sink.wal > 0,
    })
}
