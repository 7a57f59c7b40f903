//! What a node holds in memory: with many devices registered, with connections that are idle, and with
//! devices that send.
//!
//! Registers devices over HTTPS and starts the nodes again, since each device that was just created
//! has an actor until it has been quiet for five minutes. Then it opens idle connections without TLS,
//! then as many with TLS, then lets every connected device send. After each step it reads the nodes'
//! resident memory; steps build on each other and nothing is released in between, so that each
//! difference is one step's.
//!
//! Usage: `cargo bench --bench memory [-- --registered 100000 --active 10000]`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use dunlin_gateway::client::{Client, ConnectOptions, Event, Transport};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

#[path = "support/mod.rs"]
mod support;

use support::cluster::{ClusterPorts, NODES, Running};
use support::{Failure, kernel, median};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections that are made at a time.
const CONNECTS_AT_A_TIME: usize = 64;
/// Open files beside connections.
const FILES_RESERVED: u64 = 500;
/// Messages that an active device sends.
const MESSAGES: usize = 4;
/// Readings of one step; the middle one counts.
const READINGS: usize = 5;
/// Between two readings. Before the first, checkpoints of the load just seen come and go.
const READING_PAUSE: Duration = Duration::from_secs(3);

/// Resident memory of the nodes.
#[derive(Parser)]
struct Options {
    /// Devices in the registry
    #[arg(long, default_value_t = 100_000)]
    registered: usize,
    /// Devices that connect, one half without TLS and one with, and then send
    #[arg(long, default_value_t = 10_000)]
    active: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(&options)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no figures: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Resident bytes of all nodes together.
#[derive(Clone, Copy)]
struct Resident {
    all: f64,
    anonymous: f64,
}

async fn read(name: &str, running: &Running) -> Result<Resident, Failure> {
    let mut readings = Vec::new();
    for _ in 0..READINGS {
        tokio::time::sleep(READING_PAUSE).await;
        let mut sum = (0, 0);
        for pid in running.pids() {
            let (all, anonymous) = kernel::resident_bytes(pid)?;
            sum = (sum.0 + all, sum.1 + anonymous);
        }
        readings.push(sum);
    }
    let resident = Resident {
        all: median(readings.iter().map(|sum| sum.0 as f64)),
        anonymous: median(readings.iter().map(|sum| sum.1 as f64)),
    };
    println!(
        "{name:<44} {:>8.1} MB a node, {:>8.1} MB of it anonymous",
        resident.all / NODES as f64 / 1e6,
        resident.anonymous / NODES as f64 / 1e6
    );
    Ok(resident)
}

async fn run(options: &Options) -> Result<(), Failure> {
    let files = dunlin_chaos::load::files::raise_open_files();
    let active = options.active.min(files.saturating_sub(FILES_RESERVED) as usize);
    if active < options.active {
        println!("the system allows {files} open files, so {active} devices connect");
    }
    let folder = tempfile::Builder::new().prefix("memory-").tempdir()?;
    let program = PathBuf::from(env!("CARGO_BIN_EXE_dunlin"));
    let ports = ClusterPorts::take();
    let start = || Running::start(&program, folder.path(), ports, &[]);
    println!("load average {}", kernel::load_average());
    let running = start().await?;
    let empty = read("just formed", &running).await?;
    let begun = Instant::now();
    let progress = |count: usize| {
        if count.is_multiple_of(20_000) {
            println!("  {count} devices after {:.0} s", begun.elapsed().as_secs_f64());
        }
    };
    running.create_devices((0, options.registered), progress).await?;
    let name = format!("{} devices registered", options.registered);
    let created = read(&format!("{name}, all awake"), &running).await?;
    running.stop().await;
    let running = start().await?;
    let registered = read(&format!("{name}, after a restart"), &running).await?;
    let before = Before {
        empty,
        created,
        registered,
    };
    let measured = measure(options, active, &running, before).await;
    running.stop().await;
    folder.close()?;
    measured
}

/// Readings before any device connects.
struct Before {
    empty: Resident,
    created: Resident,
    registered: Resident,
}

async fn measure(options: &Options, active: usize, running: &Running, before: Before) -> Result<(), Failure> {
    let registered = before.registered;
    let half = active / 2;
    let mut clients = connect(running, (0, half), false).await?;
    let plain = read(&format!("{half} idle connections without TLS"), running).await?;
    clients.extend(connect(running, (half, active), true).await?);
    let tls = read(
        &format!("{} idle connections with TLS more", active - half),
        running,
    )
    .await?;
    let topic = |index: usize| {
        running
            .device(index)
            .map(|device| format!("devices/{}/messages/events/", device.id))
    };
    for (index, client) in clients.iter_mut().enumerate() {
        let topic = topic(index)?;
        for _ in 0..MESSAGES {
            client.publish(&topic, &[b'x'; 256]).await?;
        }
        client.flush().await?;
    }
    for client in &mut clients {
        while client.in_flight() > 0 {
            if let Event::Disconnected { .. } = client.next_event().await {
                return Err("a device lost its connection".into());
            }
        }
    }
    let sending = read(
        &format!("{active} devices have sent {MESSAGES} messages each"),
        running,
    )
    .await?;
    println!("load average {}", kernel::load_average());

    let each =
        |after: Resident, before: Resident, count: usize| (after.anonymous - before.anonymous) / count as f64;
    println!("\nbytes of anonymous memory, all nodes together, for each");
    println!(
        "  registered device                 {:>8.0}",
        each(registered, before.empty, options.registered)
    );
    println!(
        "  registered device that is awake   {:>8.0}",
        each(before.created, before.empty, options.registered)
    );
    println!(
        "  idle connection without TLS       {:>8.0}",
        each(plain, registered, half)
    );
    println!(
        "  idle connection with TLS          {:>8.0}",
        each(tls, plain, active - half)
    );
    println!(
        "  device that has sent, beside that {:>8.0}",
        each(sending, tls, active)
    );
    Ok(())
}

async fn connect(
    running: &Running,
    (from, to): (usize, usize),
    with_tls: bool,
) -> Result<Vec<Client>, Failure> {
    let config = dunlin_gateway::tls::client_config(&std::fs::read(&running.ready.ca_file)?)?;
    let connects = (from..to).map(|index| {
        let node = &running.ready.nodes[index % NODES];
        let transport = if with_tls {
            Transport::Tls {
                address: node.mqtts.clone(),
                server_name: "localhost".into(),
                config: config.clone(),
            }
        } else {
            Transport::Tcp {
                address: node.mqtt.clone().unwrap_or_default(),
            }
        };
        async move {
            let device = running.device(index)?;
            let options = ConnectOptions {
                keep_alive_s: 0,
                ..ConnectOptions::new(transport, &running.host, &device.id, device.token)
            };
            Client::connect(&options).await.map_err(Failure::from)
        }
    });
    stream::iter(connects)
        .buffered(CONNECTS_AT_A_TIME)
        .try_collect()
        .await
}
