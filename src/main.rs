//! The `dunlin` binary: reads the command line, hands over, and sets the exit code.
//!
//! 0 is success, 1 a failure that the last line on standard error explains, 2 a command line that
//! makes no sense. What a command does is in [`commands`]; what a node is, in `dunlin-node`.

mod commands;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commands::Cli::parse().run()
}
