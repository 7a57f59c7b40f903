//! Where log lines go: to standard error, as much as `DUNLIN_LOG` asks for (`info` by default).

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

/// What is shown when `DUNLIN_LOG` says nothing. openraft and quinn tell their own story at info.
const FILTER: &str = "info,ractor=off,openraft=error,quinn=warn,fjall=warn,lsm_tree=warn";
/// The same while the node stops: openraft then calls it an error that a group which has been told to
/// stop is still spoken to.
const FILTER_AT_STOP: &str = "info,ractor=off,openraft=off,quinn=warn,fjall=warn,lsm_tree=warn";

/// Changes the filter to [`FILTER_AT_STOP`]; nothing where somebody asked for another one.
static AT_STOP: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Sets the process's logger up. A second call does nothing.
pub fn init(default: &str) {
    let wanted = std::env::var("DUNLIN_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(if wanted.is_empty() { FILTER } else { &wanted });
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(FILTER));
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter_reloading();
    let handle = logger.reload_handle();
    if logger.try_init().is_ok() && wanted.is_empty() {
        let _ = AT_STOP.set(Box::new(move || {
            // It fails when the logger is gone, and with it whoever would read of that.
            let _ = handle.reload(EnvFilter::new(FILTER_AT_STOP));
        }));
    }
}

/// The node stops from here on.
pub(crate) fn stopping() {
    if let Some(at_stop) = AT_STOP.get() {
        at_stop();
    }
}
