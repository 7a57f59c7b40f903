//! `dunlin message-route`, `message-endpoint`, `message-enrichment`: which events go where, and with what.
//!
//! The hub keeps all of it as one document; each command reads it, changes its part, and puts it back if nobody else
//! has changed it meanwhile.

mod endpoint;
mod enrichment;
mod route;

pub(crate) use endpoint::MessageEndpoint;
pub(crate) use enrichment::MessageEnrichment;
pub(crate) use route::MessageRoute;

use reqwest::Method;
use serde_json::{Value, json};

use super::hub::{Call, Hub, HubError};
use super::{CommandError, progress};

/// The whole document.
async fn read(hub: &Hub) -> Result<Value, HubError> {
    hub.call_json(&Call::get(&["routing"])).await
}

/// Has the document changed by `edit`, and returns what it is then.
async fn change(
    hub: &Hub,
    edit: impl FnOnce(&mut Value) -> Result<(), CommandError>,
) -> Result<Value, CommandError> {
    let mut routing = progress::waiting("asking the hub", read(hub)).await?;
    edit(&mut routing)?;
    let etag = routing["etag"].as_str().unwrap_or_default().to_owned();
    // The hub makes it up itself, but for whether it is on.
    let is_enabled = routing["fallbackRoute"]["isEnabled"].clone();
    routing["fallbackRoute"] = json!({ "isEnabled": is_enabled });
    let call = Call::new(Method::PUT, &["routing"])
        .json(routing)
        .header("if-match", etag);
    Ok(progress::waiting("changing", hub.call_json(&call)).await?)
}

/// The list under `name`, to change.
fn list<'a>(of: &'a mut Value, name: &str) -> Result<&'a mut Vec<Value>, CommandError> {
    let list = of[name].as_array_mut();
    list.ok_or_else(|| CommandError::Failed(format!("the hub's answer has no list '{name}'")))
}

/// Takes the one of `list` whose `key` is `name` out; an error says that `what` is not there.
fn remove(list: &mut Vec<Value>, key: &str, name: &str, what: &str) -> Result<(), CommandError> {
    let before = list.len();
    list.retain(|one| one[key] != *name);
    match list.len() < before {
        true => Ok(()),
        false => Err(CommandError::Failed(format!("there is no {what} {name}"))),
    }
}

/// An error if one of `list` is called `name` already.
fn check_new(list: &[Value], key: &str, name: &str, what: &str) -> Result<(), CommandError> {
    match list.iter().any(|one| one[key] == *name) {
        true => Err(CommandError::Failed(format!("there is {what} {name} already"))),
        false => Ok(()),
    }
}

/// Names one after the other.
fn names(list: &Value) -> String {
    let names = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}
