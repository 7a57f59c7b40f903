//! The floor: a server that decodes PUBLISHes and does nothing but make them durable three times.
//!
//! What has arrived is gathered, written to three files of zeros as three nodes would write it, each
//! by a thread of its own, and acknowledged when all three have synced. No session, no fence, no
//! order between nodes, no network between them, nothing to read back. It runs in a process of its
//! own, this very program again, so that its processor time can be told from the load's.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;

use dunlin_gateway::TlsIdentity;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use super::fleet::Io;
use crate::support::Failure;
use crate::support::free_port;

/// Logs, as there are nodes.
const LOGS: usize = 3;
/// Bytes of a log, written full of zeros beforehand; then it starts over.
const LOG_BYTES: u64 = 256 * 1024 * 1024;
/// Writes are padded to a multiple of this.
const BLOCK_BYTES: usize = 4096;
/// Batches that one log is behind at the most; the next is gathered meanwhile.
const BATCHES_QUEUED_MAX: usize = 1;

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
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--sink")
            .args([plain.port().to_string(), tls.port().to_string()])
            .args([folder, chain, key])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("the sink has no output")?;
        io::BufReader::new(output).read_line(&mut line)?;
        if line.trim() != "ready" {
            return Err("the sink did not start".into());
        }
        Ok(Sink { child, plain, tls })
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

/// The sink's process: ports of both doors, folder of the logs, PEM of chain and key.
pub(crate) fn serve(arguments: &[String]) -> Result<(), Failure> {
    let [plain, tls, folder, chain, key] = arguments else {
        return Err("the sink is told two ports, a folder, a chain and a key".into());
    };
    let identity = TlsIdentity::from_pem(&std::fs::read(chain)?, &std::fs::read(key)?)?;
    let acceptor = TlsAcceptor::from(identity.server_config(&[])?);
    let (plain, tls) = (local(plain.parse()?), local(tls.parse()?));
    let (done, finished) = mpsc::channel(LOGS);
    let logs = (0..LOGS)
        .map(|log| start_log(&PathBuf::from(folder).join(format!("log-{log}")), done.clone()))
        .collect::<io::Result<Vec<_>>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async move {
        let (plain, tls) = (TcpListener::bind(plain).await?, TcpListener::bind(tls).await?);
        println!("ready");
        io::stdout().flush()?;
        let gather = Rc::new(Gather::default());
        tokio::task::spawn_local(flush(gather.clone(), logs, finished));
        loop {
            tokio::select! {
                accepted = plain.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    tokio::task::spawn_local(serve_connection(stream, gather.clone()));
                }
                accepted = tls.accept() => {
                    let (stream, _) = accepted?;
                    tokio::task::spawn_local(serve_tls(stream, acceptor.clone(), gather.clone()));
                }
            }
        }
    })
}

type Log = std::sync::mpsc::SyncSender<Arc<Vec<u8>>>;

fn start_log(path: &Path, done: mpsc::Sender<io::Result<()>>) -> io::Result<Log> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let zeros = vec![0; 1 << 20];
    for chunk in 0..LOG_BYTES >> 20 {
        file.write_all_at(&zeros, chunk << 20)?;
    }
    file.sync_data()?;
    let (sender, batches) = std::sync::mpsc::sync_channel::<Arc<Vec<u8>>>(BATCHES_QUEUED_MAX);
    std::thread::Builder::new().name("log".into()).spawn(move || {
        let mut at = 0;
        while let Ok(batch) = batches.recv() {
            let written = write(&file, &mut at, &batch);
            if done.blocking_send(written).is_err() {
                return;
            }
        }
    })?;
    Ok(sender)
}

fn write(file: &File, at: &mut u64, batch: &[u8]) -> io::Result<()> {
    if *at + batch.len() as u64 > LOG_BYTES {
        *at = 0;
    }
    file.write_all_at(batch, *at)?;
    *at += batch.len() as u64;
    file.sync_data()
}

/// A connection, as far as the flushing task sees it.
#[derive(Default)]
struct Answers {
    out: RefCell<Vec<u8>>,
    wake: Notify,
    /// Whether it was woken for the batch that is being answered.
    touched: Cell<bool>,
}

/// What has arrived and is in no log yet.
#[derive(Default)]
struct Gather {
    bytes: RefCell<Vec<u8>>,
    messages: RefCell<Vec<(Rc<Answers>, u16)>>,
    wake: Notify,
}

/// Takes everything, hands it to all logs, and acknowledges when all have synced it. Ends with the
/// process when a log fails.
async fn flush(gather: Rc<Gather>, logs: Vec<Log>, mut finished: mpsc::Receiver<io::Result<()>>) {
    loop {
        if gather.messages.borrow().is_empty() {
            gather.wake.notified().await;
            continue;
        }
        let mut bytes = gather.bytes.take();
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        let messages = gather.messages.take();
        let batch = Arc::new(bytes);
        for log in &logs {
            log.send(batch.clone()).expect("a log runs as long as the sink");
        }
        for _ in &logs {
            let written = finished.recv().await.expect("a log answers every batch");
            written.expect("write and sync a log");
        }
        for (connection, id) in &messages {
            let mut out = connection.out.borrow_mut();
            out.extend([0x40, 2]);
            out.extend(id.to_be_bytes());
            if !connection.touched.replace(true) {
                connection.wake.notify_one();
            }
        }
        for (connection, _) in &messages {
            connection.touched.set(false);
        }
    }
}

async fn serve_tls(stream: TcpStream, acceptor: TlsAcceptor, gather: Rc<Gather>) {
    if stream.set_nodelay(true).is_ok()
        && let Ok(stream) = acceptor.accept(stream).await
    {
        serve_connection(stream, gather).await;
    }
}

async fn serve_connection(mut stream: impl Io, gather: Rc<Gather>) {
    let answers = Rc::new(Answers::default());
    let mut read = Vec::with_capacity(64 * 1024);
    loop {
        tokio::select! {
            count = stream.read_buf(&mut read) => {
                if count.unwrap_or(0) == 0 {
                    return;
                }
                let Some(used) = take_packets(&read, &answers, &gather) else { return };
                read.drain(..used);
            }
            () = answers.wake.notified() => {}
        }
        let out = answers.out.take();
        if !out.is_empty() && (stream.write_all(&out).await.is_err() || stream.flush().await.is_err()) {
            return;
        }
    }
}

/// Handles every whole packet and returns their length; `None` ends the connection.
fn take_packets(read: &[u8], answers: &Rc<Answers>, gather: &Gather) -> Option<usize> {
    let mut used = 0;
    while let Some((kind, body, length)) = split_packet(&read[used..]) {
        match kind >> 4 {
            1 => answers.out.borrow_mut().extend([0x20, 2, 0, 0]),
            3 => {
                let topic = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
                let id = u16::from_be_bytes([*body.get(2 + topic)?, *body.get(3 + topic)?]);
                if kind & 0x06 != 0x02 || id == 0 {
                    return None;
                }
                let mut messages = gather.messages.borrow_mut();
                if messages.is_empty() {
                    gather.wake.notify_one();
                }
                messages.push((answers.clone(), id));
                gather
                    .bytes
                    .borrow_mut()
                    .extend_from_slice(&read[used..used + length]);
            }
            _ => return None,
        }
        used += length;
    }
    Some(used)
}

/// The packet at the front: first byte, body, and length of the whole, once it is all there.
fn split_packet(read: &[u8]) -> Option<(u8, &[u8], usize)> {
    let mut body_bytes = 0;
    for place in 0..4 {
        let byte = *read.get(1 + place)?;
        body_bytes |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            let head = 2 + place;
            let body = read.get(head..head + body_bytes)?;
            return Some((read[0], body, head + body_bytes));
        }
    }
    None
}
