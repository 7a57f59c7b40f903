//! Acknowledged QoS 1 messages per second through three nodes, beside a floor and a peer.
//!
//! One round measures Dunlin, the floor (`sink`) and Mosquitto, each plain and over TLS, one after the
//! other with the same load; rounds follow each other, and medians and ratios are printed at the end,
//! since a machine's speed drifts. What the figures came to is in `docs/benchmarks.md`.
//!
//! Usage: `cargo bench --bench road [-- --rounds 3 --seconds 5]`.

#[path = "../support/mod.rs"]
mod support;

mod fleet;
mod mosquitto;
mod sink;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use dunlin_node::pki::Authority;

use fleet::{Load, Measured, PAYLOAD_BYTES, Sender, WINDOW};
use mosquitto::Mosquitto;
use sink::Sink;
use support::cluster::{ClusterPorts, Device, NODES, Running};
use support::{Failure, kernel, median};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Pause after a peer has started, for what it does on its own.
const SETTLE: Duration = Duration::from_secs(1);

/// Throughput of acknowledged QoS 1 messages, beside a floor and Mosquitto.
#[derive(Parser)]
struct Options {
    /// Rounds; medians are printed
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that are measured of each peer in each round
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Connections, spread over the nodes
    #[arg(long, default_value_t = 200)]
    connections: usize,
    /// What is measured: dunlin, floor, mosquitto
    #[arg(long, value_delimiter = ',', default_value = "dunlin,floor,mosquitto")]
    peers: Vec<String>,
    /// plain, tls
    #[arg(long, value_delimiter = ',', default_value = "plain,tls")]
    doors: Vec<String>,
    /// Other builds of the program, for a comparison; each named after its file
    #[arg(long, value_delimiter = ',')]
    other: Vec<PathBuf>,
    /// Further arguments of each node
    #[arg(long, value_delimiter = ' ')]
    serve: Vec<String>,
    /// Where data goes; a folder of the system if not given
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long the sink's certificate is good for.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no figures: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What all rounds share.
struct Bench<'a> {
    options: &'a Options,
    folder: &'a Path,
    chain: PathBuf,
    key: PathBuf,
    tls: Arc<rustls::ClientConfig>,
    /// One per program that is measured: its name, and what it keeps from round to round.
    hubs: Vec<Hub>,
    /// From 0.
    round: usize,
    rows: Vec<(String, Measured)>,
}

/// A program, with the data that its nodes keep.
struct Hub {
    name: String,
    program: PathBuf,
    data: PathBuf,
    ports: ClusterPorts,
    has_devices: bool,
}

fn run(options: &Options) -> Result<(), Failure> {
    dunlin_chaos::load::files::raise_open_files();
    let folder = match &options.folder {
        Some(folder) => tempfile::Builder::new().prefix("road-").tempdir_in(folder)?,
        None => tempfile::Builder::new().prefix("road-").tempdir()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let measured = runtime.block_on(async {
        let mut bench = Bench::new(options, folder.path())?;
        println!(
            "{} connections x {WINDOW} in flight, {PAYLOAD_BYTES}-byte payloads, QoS 1; load average {}",
            options.connections,
            kernel::load_average()
        );
        println!("{HEAD}");
        for round in 0..options.rounds {
            bench.round = round;
            bench.measure_all().await?;
        }
        Ok::<_, Failure>(bench.rows)
    });
    let rows = measured?;
    println!("load average {}", kernel::load_average());
    print_medians(&rows);
    folder.close()?;
    Ok(())
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options, folder: &'a Path) -> Result<Self, Failure> {
        // The nodes find this authority and use it, so one trusted root serves all peers.
        let pki = folder.join("pki");
        let authority = Authority::open(&pki)?;
        let certificate = authority.server_certificate(
            &["localhost".to_owned()],
            &[[127, 0, 0, 1].into()],
            CERTIFICATE_LIFE,
        )?;
        let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
        fs::write(&chain, certificate.chain_pem)?;
        fs::write(&key, certificate.key_pem)?;
        let this = PathBuf::from(env!("CARGO_BIN_EXE_dunlin"));
        let ours = options.peers.iter().any(|peer| peer == "dunlin").then_some(&this);
        let hubs = ours
            .into_iter()
            .chain(&options.other)
            .map(|program| {
                let name = program
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                let data = folder.join(&name);
                fs::create_dir_all(data.join("pki"))?;
                for file in fs::read_dir(&pki)? {
                    let file = file?;
                    fs::copy(file.path(), data.join("pki").join(file.file_name()))?;
                }
                Ok(Hub {
                    name,
                    program: program.clone(),
                    data,
                    ports: ClusterPorts::take(),
                    has_devices: false,
                })
            })
            .collect::<Result<_, Failure>>()?;
        Ok(Self {
            options,
            folder,
            chain,
            key,
            tls: dunlin_gateway::tls::client_config(authority.ca_pem().as_bytes())?,
            hubs,
            round: 0,
            rows: Vec::new(),
        })
    }

    async fn measure_all(&mut self) -> Result<(), Failure> {
        for place in 0..self.hubs.len() {
            self.measure_hub(place).await?;
        }
        let wants = |name: &str| self.options.peers.iter().any(|peer| peer == name);
        let (floor, mosquitto) = (wants("floor"), wants("mosquitto"));
        let nobody = Device {
            id: String::new(),
            username: "bench".into(),
            token: "none".into(),
        };
        let devices: Vec<Device> = (0..self.options.connections)
            .map(|index| Device {
                id: format!("bench-{index:06}"),
                ..nobody.clone()
            })
            .collect();
        if floor {
            let sink = Sink::start(self.folder, (&self.chain, &self.key))?;
            self.measure("floor", vec![sink.pid()], |_| (sink.plain, sink.tls), &devices)
                .await?;
        }
        if mosquitto && mosquitto::version().is_none() {
            println!("mosquitto is not installed (Debian: apt-get install mosquitto) and is left out");
        } else if mosquitto {
            let folder = tempfile::tempdir_in(self.folder)?;
            let broker = Mosquitto::start(folder.path(), (&self.chain, &self.key)).await?;
            let addresses = |_| (broker.plain, broker.tls);
            self.measure("mosquitto", vec![broker.pid()], addresses, &devices)
                .await?;
        }
        Ok(())
    }

    async fn measure_hub(&mut self, place: usize) -> Result<(), Failure> {
        let hub = &mut self.hubs[place];
        let running = Running::start(&hub.program, &hub.data, hub.ports, &self.options.serve).await?;
        let connections = self.options.connections;
        if !hub.has_devices {
            running.create_devices((0, connections), |_| ()).await?;
            hub.has_devices = true;
        }
        let devices = (0..connections)
            .map(|index| running.device(index))
            .collect::<Result<Vec<_>, _>>()?;
        let address = |text: &str| -> Result<SocketAddr, Failure> {
            Ok(text.replace("localhost", "127.0.0.1").parse()?)
        };
        let addresses = running
            .ready
            .nodes
            .iter()
            .map(|node| {
                let plain = node.mqtt.as_deref().ok_or("a node without plain MQTT")?;
                Ok((address(plain)?, address(&node.mqtts)?))
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let name = hub.name.clone();
        let measured = self
            .measure(&name, running.pids(), |index| addresses[index % NODES], &devices)
            .await;
        running.stop().await;
        measured
    }

    /// Each door that is wanted; prints a row for each.
    async fn measure(
        &mut self,
        name: &str,
        servers: Vec<u32>,
        addresses: impl Fn(usize) -> (SocketAddr, SocketAddr),
        devices: &[Device],
    ) -> Result<(), Failure> {
        tokio::time::sleep(SETTLE).await;
        // What is measured first after a start finds colder files, so the order turns with each round.
        let mut doors = self.options.doors.clone();
        if self.round % 2 == 1 {
            doors.reverse();
        }
        for door in &doors {
            let is_tls = door == "tls";
            let senders = devices.iter().enumerate().map(|(index, device)| {
                let (plain, tls) = addresses(index);
                Sender {
                    address: if is_tls { tls } else { plain },
                    device: device.clone(),
                }
            });
            let load = Load {
                senders: senders.collect(),
                tls: is_tls.then(|| self.tls.clone()),
                warm_up: Duration::from_secs(self.options.warm_up),
                measured: Duration::from_secs(self.options.seconds),
                servers: servers.clone(),
            };
            let measured = fleet::run(load).await;
            let measured = measured.map_err(|error| format!("{name} {door}: {error}"))?;
            let row = format!("{name} {door}");
            print_row(&row, &measured);
            self.rows.push((row, measured));
        }
        Ok(())
    }
}

const HEAD: &str = "peer                   msgs/s  server us  client us     p50 ms     p99 ms   p99.9 ms  flushes/s   MB/s  idle  others";

fn print_row(name: &str, row: &Measured) {
    let ms = |micros: u64| micros as f64 / 1000.0;
    println!(
        "{name:<18} {:>10.0} {:>10.2} {:>10.2} {:>10.1} {:>10.1} {:>10.1} {:>10.0} {:>6.0} {:>4.0}% {:>6.0}%",
        row.per_s,
        row.server_us,
        row.client_us,
        ms(row.latency_us.p50),
        ms(row.latency_us.p99),
        ms(row.latency_us.p999),
        row.flushes_per_s,
        row.written_mb_per_s,
        row.idle * 100.0,
        row.others * 100.0,
    );
}

/// Medians over the rounds, and the ratio to the floor round by round.
fn print_medians(rows: &[(String, Measured)]) {
    let mut names: Vec<&String> = rows.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let of = |name: &str| -> Vec<&Measured> {
        let own = rows.iter().filter(|(row, _)| row == name);
        own.map(|(_, measured)| measured).collect()
    };
    println!("\nmedians\n{HEAD}");
    for name in &names {
        let all = of(name);
        let middle = |value: fn(&Measured) -> f64| median(all.iter().map(|row| value(row)));
        let measured = Measured {
            per_s: middle(|row| row.per_s),
            server_us: middle(|row| row.server_us),
            client_us: middle(|row| row.client_us),
            latency_us: dunlin_chaos::verdict::LatencyUs {
                p50: middle(|row| row.latency_us.p50 as f64) as u64,
                p99: middle(|row| row.latency_us.p99 as f64) as u64,
                p999: middle(|row| row.latency_us.p999 as f64) as u64,
            },
            flushes_per_s: middle(|row| row.flushes_per_s),
            written_mb_per_s: middle(|row| row.written_mb_per_s),
            idle: middle(|row| row.idle),
            others: middle(|row| row.others),
        };
        print_row(name, &measured);
    }
    println!();
    for door in ["plain", "tls"] {
        let ours = of(&format!("dunlin {door}"));
        for name in names.iter().filter(|name| name.ends_with(door)) {
            let theirs = of(name);
            let peer = name.trim_end_matches(door).trim_end();
            if peer == "dunlin" || theirs.len() != ours.len() {
                continue;
            }
            let pairs = || ours.iter().zip(&theirs);
            let rate = median(pairs().map(|(our, their)| our.per_s / their.per_s));
            let cost = median(pairs().map(|(our, their)| our.server_us / their.server_us));
            println!(
                "dunlin / {peer}, {door}: {rate:.2} of the rate, {cost:.2} of the servers' processor time per message"
            );
        }
    }
}
