//! A device that registers at a door of a hub with [`dunlin_chaos::registering`].

use dunlin_chaos::registering;
use dunlin_gateway::client::Transport;
use serde_json::Value;

use crate::hub::{Door, HOST};

/// Registers `name` at `door` with its key. Returns the status of the answer and its body, or how the connection failed.
pub async fn register(door: &Door, scope: &str, name: &str, key: &str) -> Result<(u16, Value), String> {
    let transport = Transport::Tls {
        address: door.mqtts.clone(),
        server_name: HOST.to_owned(),
        config: door.tls.clone(),
    };
    let options = registering::options(transport, scope, name, key).expect("the key is one of ours");
    registering::register(&options)
        .await
        .map_err(|error| error.to_string())
}
