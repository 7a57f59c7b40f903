//! The floor: `dunlin load null-sink`, a server that does nothing but make messages durable three times.
//!
//! It runs in a process of its own, so that its processor time can be told from the load's.

use std::io::{self, BufRead as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::Failure;
use crate::support::free_port;

/// Logs, as there are nodes.
const LOGS: usize = 3;

/// A sink in a process of its own.
pub(crate) struct Sink {
    child: Child,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
}

impl Sink {
    /// Starts it with its logs in `folder`; `pem` holds certificate chain and key.
    pub(crate) fn start(folder: &Path, (chain, key): (&Path, &Path)) -> Result<Sink, Failure> {
        let (plain, tls) = (local(free_port()), local(free_port()));
        let mut child = Command::new(env!("CARGO_BIN_EXE_dunlin"))
            .args(["load", "null-sink", "-o", "json"])
            .args(["--port", &plain.port().to_string()])
            .args(["--tls-port", &tls.port().to_string()])
            .args(["--wal", &LOGS.to_string()])
            .arg("--folder")
            .arg(folder)
            .arg("--cert")
            .arg(chain)
            .arg("--key")
            .arg(key)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("the sink has no output")?;
        io::BufReader::new(output).read_line(&mut line)?;
        let sink = Sink { child, plain, tls };
        if !line.contains("\"ready\":true") {
            return Err("the sink did not start".into());
        }
        Ok(sink)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
