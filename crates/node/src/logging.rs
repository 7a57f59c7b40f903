//! Where log lines go: to standard error, as much as `DUNLIN_LOG` asks for (`info` by default).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// What is shown when `DUNLIN_LOG` says nothing. openraft and quinn tell their own story at info.
const FILTER: &str = "info,ractor=off,openraft=error,quinn=warn,fjall=warn,lsm_tree=warn";

/// Sets the process's logger up. A second call does nothing.
pub fn init(default: &str) {
    let wanted = std::env::var("DUNLIN_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(if wanted.is_empty() { FILTER } else { &wanted });
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(FILTER));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
