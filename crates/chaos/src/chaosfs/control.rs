//! The switches of a [`ChaosFs`] for other processes: a socket with one JSON value on each line.
//!
//! `{"set":{…}}` with [`DiskFaults`], `{"lose_power":"nothing"}` with a [`Tear`], `"faults"` and
//! `"counters"`; each line is answered by one. Only who may write to the socket's file is heard. It
//! decides nothing, and serves until it is dropped.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::ChaosFs;
use super::faults::{DiskCounters, DiskFaults};
use super::pages::Tear;

/// Bytes of a request.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Connections at a time; others wait.
const CLIENTS_MAX: usize = 16;
/// Pause after the system has refused to give a connection.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Tells the disk what to do wrong.
    Set(DiskFaults),
    /// Cuts the power.
    LosePower(Tear),
    /// Asks what it is told.
    Faults,
    /// Asks what has happened.
    Counters,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is done.
    Done,
    /// What the disk is told.
    Faults(DiskFaults),
    /// What has happened.
    Counters(DiskCounters),
    /// It is not done, and why.
    Error(String),
}

/// Makes the socket, in place of one that an earlier process has left.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(socket)?,
        Err(_) => {}
    }
    UnixListener::bind(socket)
}

/// Answers whoever asks.
pub async fn serve(listener: UnixListener, disk: Arc<ChaosFs>) {
    let room = Arc::new(Semaphore::new(CLIENTS_MAX));
    while let Ok(permit) = room.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((client, _)) => {
                let disk = disk.clone();
                tokio::spawn(async move {
                    if let Err(error) = talk(client, &disk).await {
                        tracing::debug!(%error, "a client of the disk's switches is gone");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept at the disk's switches");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn talk(mut client: UnixStream, disk: &Arc<ChaosFs>) -> io::Result<()> {
    let (read, mut write) = client.split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        if (&mut read).take(LINE_BYTES_MAX).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let response = match serde_json::from_str(&line) {
            Ok(request) => answer(request, disk.clone()).await,
            Err(error) => Response::Error(format!("read request: {error}")),
        };
        let mut answer = serde_json::to_vec(&response)?;
        answer.push(b'\n');
        write.write_all(&answer).await?;
    }
}

async fn answer(request: Request, disk: Arc<ChaosFs>) -> Response {
    let done = |result: Result<(), String>| result.map_or_else(Response::Error, |()| Response::Done);
    match request {
        Request::Set(faults) => done(disk.set(faults).map_err(|error| error.to_string())),
        Request::LosePower(tear) => {
            // Files are written, which may take its time.
            let cut = tokio::task::spawn_blocking(move || disk.lose_power(tear)).await;
            done(match cut {
                Ok(cut) => cut.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            })
        }
        Request::Faults => Response::Faults(disk.faults()),
        Request::Counters => Response::Counters(disk.counters()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_the_head_of_this_file_says() {
        let faults = DiskFaults {
            full: true,
            ..DiskFaults::default()
        };
        for (text, wanted) in [
            (r#"{"set":{"full":true}}"#, Request::Set(faults)),
            (
                r#"{"lose_power":"scattered"}"#,
                Request::LosePower(Tear::Scattered),
            ),
            (r#""faults""#, Request::Faults),
            (r#""counters""#, Request::Counters),
        ] {
            assert_eq!(serde_json::from_str::<Request>(text).ok(), Some(wanted), "{text}");
        }
        assert!(serde_json::from_str::<Request>(r#"{"set":{"fool":true}}"#).is_err());
    }
}
