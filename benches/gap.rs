//! How long a shard's writers wait when the node that leads most shards is killed, over twenty kills.
//!
//! The run, its kills and its verdict are the demo's; this only sets them up and prints what came of
//! it. The exit code says whether the promises held, never whether the gap was short.
//!
//! Usage: `cargo bench --bench gap [-- --kills 20 --part 10]`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dunlin_chaos::demo::{self, Progress};

#[path = "support/mod.rs"]
mod support;

use support::{free_port, kernel};

/// Write gap after SIGKILL of the node that leads most shards.
#[derive(Parser)]
struct Options {
    /// Kills
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Seconds for each: a third before the kill, a third without the node, a third to recover
    #[arg(long, default_value_t = 10)]
    part: u64,
    /// Messages per second of all devices together
    #[arg(long, default_value_t = 2000)]
    rate: u32,
    /// Draws everything that is random
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    println!("load average {}", kernel::load_average());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let demo = demo::Options {
            kills: options.kills,
            duration_s: options.kills as u64 * options.part,
            rate: options.rate,
            seed: Some(options.seed),
            mqtts_port: free_port(),
            amqps_port: free_port(),
            kafka_port: free_port(),
            https_port: free_port(),
            cluster_port: free_port(),
            program: Some(PathBuf::from(env!("CARGO_BIN_EXE_dunlin"))),
            progress: Progress::Program,
            ..demo::Options::default()
        };
        runtime
            .block_on(demo::run(demo))
            .map_err(|error| error.to_string())
    });
    println!("load average {}", kernel::load_average());
    match report {
        Ok(report) => {
            println!("{report}");
            ExitCode::from(u8::from(!report.is_pass()))
        }
        Err(error) => {
            eprintln!("no figures: {error}");
            ExitCode::FAILURE
        }
    }
}
