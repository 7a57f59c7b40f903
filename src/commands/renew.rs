//! `dunlin device update` and `dunlin device renew-key`: what changes about an identity that is there. Modules have the
//! same.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, ValueEnum};
use dunlin_model::id::DeviceId;
use reqwest::Method;
use serde_json::{Value, json};

use super::hub::{Call, Hub};
use super::{CommandError, Format, device, progress, say};

/// Times that a key is renewed anew because the identity changed meanwhile.
const ATTEMPTS_MAX: u32 = 3;

/// Which keys change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// The primary one is drawn anew
    Primary,
    /// The secondary one is drawn anew
    Secondary,
    /// Both are drawn anew
    Both,
    /// They change places; both stay good
    Swap,
}

/// Arguments of `update`.
#[derive(Args)]
pub(crate) struct StatusChange {
    /// May it connect?
    #[arg(long, value_enum)]
    status: Status,
    /// Why, in your words
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    /// It may
    Enabled,
    /// It may not; a live connection is closed
    Disabled,
}

/// The path of an identity below `/devices`.
pub(crate) fn path(id: &DeviceId) -> Vec<&str> {
    path_in("devices", id)
}

/// The path of what belongs to an identity below `collection`.
pub(crate) fn path_in<'a>(collection: &'a str, id: &'a DeviceId) -> Vec<&'a str> {
    let mut path = vec![collection, id.device_part()];
    if let Some(module) = id.module_part() {
        path.extend(["modules", module]);
    }
    path
}

fn drawn() -> Value {
    BASE64.encode(rand::random::<[u8; 32]>()).into()
}

/// The identity with its keys changed; `None` if it has none.
fn renewed(mut identity: Value, which: Which) -> Option<Value> {
    let keys = identity.pointer_mut("/authentication/symmetricKey")?;
    let (primary, secondary) = (keys["primaryKey"].clone(), keys["secondaryKey"].clone());
    if !primary.is_string() {
        return None;
    }
    let (primary, secondary) = match which {
        Which::Primary => (drawn(), secondary),
        Which::Secondary => (primary, drawn()),
        Which::Both => (drawn(), drawn()),
        Which::Swap => (secondary, primary),
    };
    *keys = json!({ "primaryKey": primary, "secondaryKey": secondary });
    Some(identity)
}

/// Reads an identity, and writes what `change` makes of it, if nobody else has changed it meanwhile.
async fn rewrite(
    hub: &Hub,
    id: &DeviceId,
    change: impl Fn(Value) -> Option<Value>,
    no_change: &str,
) -> Result<Value, CommandError> {
    let path = path(id);
    let mut attempt = 1;
    loop {
        let identity = hub.call_json(&Call::get(&path)).await?;
        let etag = identity["etag"].as_str().unwrap_or_default().to_owned();
        let changed = change(identity).ok_or_else(|| CommandError::Failed(no_change.to_owned()))?;
        let call = Call::new(Method::PUT, &path)
            .json(changed)
            .header("if-match", format!("\"{etag}\""));
        match hub.call_json(&call).await {
            Err(error) if error.code() == "PreconditionFailed" && attempt < ATTEMPTS_MAX => attempt += 1,
            written => return Ok(written?),
        }
    }
}

/// Changes keys. Whoever is connected with a key that is no more is cut off.
pub(crate) async fn renew_key(
    hub: &Hub,
    id: &DeviceId,
    which: Which,
    output: Format,
) -> Result<(), CommandError> {
    let no_key = format!("{id} proves itself with no key");
    let renewing = rewrite(hub, id, |identity| renewed(identity, which), &no_key);
    let written = progress::waiting("renewing", renewing).await?;
    match output {
        Format::Json => say(written)?,
        Format::Text => {
            let key = written["authentication"]["symmetricKey"]["primaryKey"]
                .as_str()
                .unwrap_or_default();
            say(format!(
                "Renewed the keys of {id}.\n\n  connection string  {}",
                hub.identity_string(id, key)
            ))?;
        }
    }
    Ok(())
}

/// Lets a device connect, or not.
pub(crate) async fn update(
    hub: &Hub,
    id: &DeviceId,
    update: &StatusChange,
    output: Format,
) -> Result<(), CommandError> {
    let (status, done) = match update.status {
        Status::Enabled => ("enabled", "may connect"),
        Status::Disabled => ("disabled", "may not connect any more"),
    };
    let change = |mut identity: Value| {
        identity["status"] = status.into();
        identity["statusReason"] = update.reason.clone().into();
        Some(identity)
    };
    let changing = rewrite(hub, id, change, "");
    let written = progress::waiting("changing", changing).await?;
    match output {
        Format::Json => say(written)?,
        Format::Text => say(format!("{id} {done}."))?,
    }
    Ok(())
}

/// An error about an identity that is not there, in words.
pub(crate) fn explained(error: CommandError, id: &DeviceId) -> CommandError {
    match error {
        CommandError::Hub(error) => device::explained(error, id),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(primary: Value, secondary: Value) -> Value {
        json!({"deviceId": "d", "authentication": {"type": "sas",
            "symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}}})
    }

    #[test]
    fn only_the_keys_that_are_named_change() {
        let keys = |which| {
            let changed = renewed(identity(json!("p"), json!("s")), which).unwrap();
            let keys = &changed["authentication"]["symmetricKey"];
            (keys["primaryKey"].clone(), keys["secondaryKey"].clone())
        };
        assert_eq!(keys(Which::Swap), (json!("s"), json!("p")));
        let (primary, secondary) = keys(Which::Primary);
        assert!(primary != json!("p") && secondary == json!("s"));
        let (primary, secondary) = keys(Which::Secondary);
        assert!(primary == json!("p") && secondary != json!("s"));
        let (primary, secondary) = keys(Which::Both);
        assert!(primary != json!("p") && secondary != json!("s") && primary != secondary);
        assert_eq!(renewed(identity(Value::Null, Value::Null), Which::Both), None);
    }

    #[test]
    fn a_module_is_below_its_device() {
        let device = DeviceId::parse("d").unwrap();
        let module = device.of_module("m").unwrap();
        assert_eq!(path(&device), ["devices", "d"]);
        assert_eq!(path(&module), ["devices", "d", "modules", "m"]);
        assert_eq!(path_in("twins", &module), ["twins", "d", "modules", "m"]);
    }
}
