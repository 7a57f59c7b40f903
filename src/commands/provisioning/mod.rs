//! What devices that nobody knows yet may do: `dunlin enrollment`, `dunlin enrollment-group` and `dunlin dps`.
//!
//! An enrolment's settings become JSON in [`settings`]; here they are sent, listed and shown.

mod dps;
mod settings;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::{Method, header};
use serde_json::{Value, json};

pub(super) use dps::Dps;

use super::device::confirmed;
use super::hub::{Call, Hub, HubArgs, HubError};
use super::table::Table;
use super::{CommandError, CommandResult, Format, progress, say, shown};
use settings::{GroupProof, OwnProof, Settings};

#[derive(Args)]
pub(crate) struct Enrollment {
    #[command(subcommand)]
    action: OwnAction,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum OwnAction {
    /// Let one device register; the hub draws its keys unless they are given
    Create {
        /// Its registration id
        #[arg(value_name = "ID")]
        id: String,
        /// What it is called at its hub [default: its registration id]
        #[arg(long, value_name = "ID")]
        device_id: Option<String>,
        #[command(flatten)]
        proof: OwnProof,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change what is given and leave the rest
    Update {
        /// Its registration id
        #[arg(value_name = "ID")]
        id: String,
        /// What it is called at its hub
        #[arg(long, value_name = "ID")]
        device_id: Option<String>,
        #[command(flatten)]
        proof: OwnProof,
        #[command(flatten)]
        settings: Settings,
    },
    #[command(flatten)]
    Common(Common),
}

#[derive(Args)]
pub(crate) struct EnrollmentGroup {
    #[command(subcommand)]
    action: GroupAction,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum GroupAction {
    /// Let many devices register; the hub draws the group's keys unless they are given
    Create {
        /// The group's name
        #[arg(value_name = "NAME")]
        id: String,
        #[command(flatten)]
        proof: GroupProof,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change what is given and leave the rest
    Update {
        /// The group's name
        #[arg(value_name = "NAME")]
        id: String,
        #[command(flatten)]
        proof: GroupProof,
        #[command(flatten)]
        settings: Settings,
    },
    /// Print the key that a device of the group proves itself with
    ComputeDeviceKey {
        /// The group's name; its primary key is read from the hub
        #[arg(value_name = "NAME", required_unless_present = "key")]
        id: Option<String>,
        /// The device's registration id
        #[arg(long, value_name = "ID")]
        registration_id: String,
        /// The group's key (Base64), with no hub asked
        #[arg(long, value_name = "KEY", conflicts_with = "id")]
        key: Option<String>,
    },
    #[command(flatten)]
    Common(Common),
}

/// What both can do.
#[derive(Subcommand)]
enum Common {
    /// List all
    List,
    /// Show one
    Show {
        /// Its name
        #[arg(value_name = "ID")]
        id: String,
        /// Its keys instead
        #[arg(long)]
        keys: bool,
    },
    /// Let nobody register under it any more; devices that have stay at their hub
    Delete {
        /// Its name
        #[arg(value_name = "ID")]
        id: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Individual,
    Group,
}

impl Kind {
    /// The collection in paths.
    fn path(self) -> &'static str {
        match self {
            Kind::Individual => "enrollments",
            Kind::Group => "enrollmentGroups",
        }
    }

    /// The name of the name.
    fn id(self) -> &'static str {
        match self {
            Kind::Individual => "registrationId",
            Kind::Group => "enrollmentGroupId",
        }
    }

    /// What people call it.
    fn noun(self) -> &'static str {
        match self {
            Kind::Individual => "enrollment",
            Kind::Group => "enrollment group",
        }
    }

    /// Its command.
    fn command(self) -> &'static str {
        match self {
            Kind::Individual => "dunlin enrollment",
            Kind::Group => "dunlin enrollment-group",
        }
    }
}

impl Enrollment {
    pub(crate) async fn run(self) -> CommandResult {
        let output = self.hub.output;
        let hub = Hub::find(&self.hub)?;
        let kind = Kind::Individual;
        match self.action {
            OwnAction::Create {
                id,
                device_id,
                proof,
                settings,
            } => {
                let mut body =
                    json!({ "attestation": proof.read()?.unwrap_or(json!({ "type": "symmetricKey" })) });
                settings.write(&mut body)?;
                name_device(&mut body, device_id);
                create(&hub, kind, &id, body, output).await
            }
            OwnAction::Update {
                id,
                device_id,
                proof,
                settings,
            } => {
                let attestation = proof.read()?;
                update(&hub, kind, &id, output, |body| {
                    name_device(body, device_id);
                    replace(body, attestation);
                    settings.write(body)
                })
                .await
            }
            OwnAction::Common(common) => common.run(&hub, kind, output).await,
        }
    }
}

fn name_device(body: &mut Value, device: Option<String>) {
    if let Some(device) = device {
        body["deviceId"] = device.into();
    }
}

fn replace(body: &mut Value, attestation: Option<Value>) {
    if let Some(attestation) = attestation {
        body["attestation"] = attestation;
    }
}

impl EnrollmentGroup {
    pub(crate) async fn run(self) -> CommandResult {
        let output = self.hub.output;
        let kind = Kind::Group;
        if let GroupAction::ComputeDeviceKey {
            registration_id,
            key: Some(key),
            ..
        } = &self.action
        {
            say(derive(key, registration_id)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let hub = Hub::find(&self.hub)?;
        match self.action {
            GroupAction::Create { id, proof, settings } => {
                let mut body =
                    json!({ "attestation": proof.read()?.unwrap_or(json!({ "type": "symmetricKey" })) });
                settings.write(&mut body)?;
                create(&hub, kind, &id, body, output).await
            }
            GroupAction::Update { id, proof, settings } => {
                let attestation = proof.read()?;
                update(&hub, kind, &id, output, |body| {
                    replace(body, attestation);
                    settings.write(body)
                })
                .await
            }
            GroupAction::ComputeDeviceKey {
                id, registration_id, ..
            } => {
                let id = id.unwrap_or_default();
                let keys = progress::waiting("asking the hub", keys(&hub, kind, &id)).await?;
                let key = keys["symmetricKey"]["primaryKey"].as_str();
                let key = key.ok_or_else(|| {
                    CommandError::Failed(format!("devices of {id} prove themselves with certificates"))
                })?;
                say(derive(key, &registration_id)?)?;
                Ok(ExitCode::SUCCESS)
            }
            GroupAction::Common(common) => common.run(&hub, kind, output).await,
        }
    }
}

/// A device's key in a group.
fn derive(key: &str, registration: &str) -> Result<String, CommandError> {
    dunlin_gateway::auth::derive_key(key, registration)
        .map_err(|error| CommandError::Usage(error.to_string()))
}

/// The error with what to do about it, where that is known.
fn explained(error: HubError, kind: Kind, id: &str) -> CommandError {
    let (noun, command) = (kind.noun(), kind.command());
    match error.code() {
        "404201" => CommandError::Failed(format!(
            "there is no {noun} {id}; `{command} list` shows those there are"
        )),
        "409201" => CommandError::Failed(format!(
            "{noun} {id} exists already; `{command} show {id}` shows it"
        )),
        _ => error.into(),
    }
}

async fn create(hub: &Hub, kind: Kind, id: &str, mut body: Value, output: Format) -> CommandResult {
    body[kind.id()] = id.into();
    let path = [kind.path(), id];
    let call = Call::new(Method::PUT, &path).json(body);
    let made = progress::waiting("asking the hub", hub.call_json(&call)).await;
    let made = made.map_err(|error| explained(error, kind, id))?;
    match output {
        Format::Json => say(made)?,
        Format::Text => {
            say(format!("Created {} {}.", kind.noun(), shown(id)))?;
            if made["attestation"]["type"] == "symmetricKey" {
                say(format!("`{} show {id} --keys` prints its keys.", kind.command()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn update(
    hub: &Hub,
    kind: Kind,
    id: &str,
    output: Format,
    change: impl FnOnce(&mut Value) -> Result<(), CommandError>,
) -> CommandResult {
    let path = [kind.path(), id];
    let found = hub.call_json(&Call::get(&path)).await;
    let mut body = found.map_err(|error| explained(error, kind, id))?;
    let etag = body["etag"].as_str().unwrap_or_default().to_owned();
    change(&mut body)?;
    let call = Call::new(Method::PUT, &path)
        .json(body)
        .header(header::IF_MATCH.as_str(), format!("\"{etag}\""));
    let changed = progress::waiting("asking the hub", hub.call_json(&call)).await;
    let changed = changed.map_err(|error| explained(error, kind, id))?;
    match output {
        Format::Json => say(changed)?,
        Format::Text => say(format!("Changed {} {}.", kind.noun(), shown(id)))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn keys(hub: &Hub, kind: Kind, id: &str) -> Result<Value, CommandError> {
    let path = [kind.path(), id, "attestationmechanism"];
    let call = Call::new(Method::POST, &path);
    hub.call_json(&call)
        .await
        .map_err(|error| explained(error, kind, id))
}

impl Common {
    async fn run(self, hub: &Hub, kind: Kind, output: Format) -> CommandResult {
        match self {
            Common::List => list(hub, kind, output).await,
            Common::Show { id, keys: true } => {
                let keys = progress::waiting("asking the hub", keys(hub, kind, &id)).await?;
                match output {
                    Format::Json => say(keys)?,
                    Format::Text => show_keys(&keys)?,
                }
                Ok(ExitCode::SUCCESS)
            }
            Common::Show { id, keys: false } => {
                let path = [kind.path(), id.as_str()];
                let call = Call::get(&path);
                let found = progress::waiting("asking the hub", hub.call_json(&call)).await;
                let found = found.map_err(|error| explained(error, kind, &id))?;
                match output {
                    Format::Json => say(found)?,
                    Format::Text => show(kind, &found)?,
                }
                Ok(ExitCode::SUCCESS)
            }
            Common::Delete { id, yes } => {
                if !yes && !confirmed(&format!("Delete {} {id}?", kind.noun()))? {
                    return Err(CommandError::Failed("nothing was deleted".into()));
                }
                let path = [kind.path(), id.as_str()];
                let deleted = hub.call(&Call::new(Method::DELETE, &path)).await;
                deleted.map_err(|error| explained(error, kind, &id))?;
                match output {
                    Format::Json => say(json!({ "deleted": id }))?,
                    Format::Text => say(format!("Deleted {} {}.", kind.noun(), shown(&id)))?,
                }
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// All rows of a listing, page after page.
async fn pages(hub: &Hub, path: &[&str], body: Option<Value>) -> Result<Vec<Value>, HubError> {
    let mut rows: Vec<Value> = Vec::new();
    let mut continuation: Option<String> = None;
    loop {
        let mut call = Call::new(Method::POST, path);
        if let Some(body) = &body {
            call = call.json(body.clone());
        }
        let page;
        (page, continuation) = hub.page(call, continuation).await?;
        rows.extend(page);
        if continuation.is_none() {
            return Ok(rows);
        }
    }
}

async fn list(hub: &Hub, kind: Kind, output: Format) -> CommandResult {
    let query = json!({ "query": format!("SELECT * FROM {}", kind.path()) });
    let path = [kind.path(), "query"];
    let rows = progress::waiting("asking the hub", pages(hub, &path, Some(query))).await?;
    match output {
        Format::Json => say(Value::Array(rows))?,
        Format::Text if rows.is_empty() => say(format!(
            "No {}s yet; `{} create` makes one.",
            kind.noun(),
            kind.command()
        ))?,
        Format::Text => {
            let mut table = Table::new(["NAME", "STATUS", "PROOF", "HUB CHOSEN", "REGISTERED AT"]);
            for row in &rows {
                let text = |value: &Value| shown(value.as_str().unwrap_or_default());
                table.push([
                    text(&row[kind.id()]),
                    text(&row["provisioningStatus"]),
                    text(&row["attestation"]["type"]),
                    text(&row["allocationPolicy"]),
                    text(&row["registrationState"]["assignedHub"]),
                ]);
            }
            say(table)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(kind: Kind, found: &Value) -> std::io::Result<()> {
    let text = |value: &Value| shown(value.as_str().unwrap_or("-"));
    let policy = &found["reprovisionPolicy"];
    let again = match (&policy["updateHubAssignment"], &policy["migrateDeviceData"]) {
        (Value::Bool(true), Value::Bool(true)) => "may move, with its twin",
        (Value::Bool(true), _) => "begins anew",
        _ => "stays where it is",
    };
    say(format!(
        "name      {}\nstatus    {}\nproof     {}\nhub       {}\nagain     {again}\nchanged   {}",
        text(&found[kind.id()]),
        text(&found["provisioningStatus"]),
        text(&found["attestation"]["type"]),
        text(&found["allocationPolicy"]),
        text(&found["lastUpdatedDateTimeUtc"]),
    ))?;
    if found["registrationState"].is_object() {
        dps::show_registration(&found["registrationState"])?;
    }
    Ok(())
}

fn show_keys(keys: &Value) -> std::io::Result<()> {
    let text = |value: &Value| shown(value.as_str().unwrap_or("-"));
    match keys["type"].as_str() {
        Some("symmetricKey") => say(format!(
            "primary    {}\nsecondary  {}",
            text(&keys["symmetricKey"]["primaryKey"]),
            text(&keys["symmetricKey"]["secondaryKey"])
        )),
        Some("tpm") => say(format!(
            "endorsement key  {}",
            text(&keys["tpm"]["endorsementKey"])
        )),
        _ => say("It has certificates and no keys; `show` without --keys tells of them with -o json."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_keys_are_computed_as_the_hub_does() {
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let derived = derive(key, "sn-007-888-abc-mac-a1-b2").expect("a key");
        assert_eq!(derived, "l6Rq0kavrR+hzFKfH+hUf7E3hlbCrl4k+yOwD25qnDQ=");
        assert!(derive("short", "x").is_err());
    }
}
