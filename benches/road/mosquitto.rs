//! The peer: Mosquitto as Debian ships it, told to keep every message as far as it can.
//!
//! Its PUBACK says that the message is in its memory. With persistence on, it writes all of it to
//! one file every so often; a crash loses what came since. A subscriber with a durable session is
//! registered and gone, since without one the broker drops what it acknowledges.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::fleet;
use crate::support::{Failure, free_port};

/// Time for it to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What it is told; printed with the figures.
pub(crate) const SETTINGS: &str = "persistence true; autosave_interval 5; set_tcp_nodelay true; \
    max_queued_messages 0; max_inflight_messages 0; allow_anonymous true; log_dest none";

/// A running broker.
pub(crate) struct Mosquitto {
    child: Child,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
}

/// The version of the installed program, if there is one.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("mosquitto").arg("-h").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}

impl Mosquitto {
    /// Starts it with its database in `folder`, and registers the durable subscriber.
    pub(crate) async fn start(folder: &Path, (chain, key): (&Path, &Path)) -> Result<Mosquitto, Failure> {
        let (plain, tls) = (free_port(), free_port());
        let mut text = String::new();
        for setting in SETTINGS.split(';') {
            text += &format!("{}\n", setting.trim());
        }
        // It would give root up and lose its own folder.
        text += &format!("user root\npersistence_location {}/\n", folder.display());
        text += &format!("listener {plain} 127.0.0.1\nlistener {tls} 127.0.0.1\n");
        text += &format!("certfile {}\nkeyfile {}\n", chain.display(), key.display());
        let config = folder.join("mosquitto.conf");
        fs::write(&config, text)?;
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let broker = Mosquitto {
            child,
            plain: local(plain),
            tls: local(tls),
        };
        broker.register_subscriber().await?;
        Ok(broker)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it listens, and registers a durable subscriber.
    async fn register_subscriber(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match TcpStream::connect(self.plain).await {
                Ok(_) => break,
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        fleet::register_subscriber(self.plain, "keeper", "devices/#").await
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
