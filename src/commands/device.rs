//! `dunlin device`: the registry, and the way to [`super::send`] and [`super::simulate`].

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use dunlin_model::id::DeviceId;
use futures_util::StreamExt as _;
use futures_util::stream;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::hub::{Call, Hub, HubArgs, HubError};
use super::named::{ManyDevices, OneDevice};
use super::table::Table;
use super::{CommandError, CommandResult, Format, progress, renew, say, send, shown, simulate};

/// Requests of one command at a time.
const AT_ONCE_MAX: usize = 16;
/// Devices that are made at one go.
pub(crate) const COUNT_MAX: u32 = 1_000_000;
/// Times that a device is looked for and created before its trouble is told.
const ENSURE_ATTEMPTS_MAX: u32 = 3;
/// Devices on a page of the listing.
const PAGE: usize = 1000;

#[derive(Args)]
pub(crate) struct Device {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Create a device; the hub draws its keys
    Create {
        #[command(flatten)]
        device: OneDevice,
        /// Create it without the right to connect
        #[arg(long)]
        disabled: bool,
        /// It proves itself with a certificate of this thumbprint (SHA-1 or SHA-256) instead of a key
        #[arg(long, value_name = "HEX", conflicts_with = "count")]
        thumbprint: Option<String>,
        /// It proves itself with a certificate for its name that an authority has signed; see `dunlin cert authority`
        #[arg(long, conflicts_with_all = ["count", "thumbprint"])]
        by_authority: bool,
        /// Create ID1 to IDN, where ID is what their names begin with; those that exist already are left as they are
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
        count: Option<u32>,
    },
    /// List devices, in the order of their shards
    List {
        /// The first so many
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        top: Option<u64>,
    },
    /// Show one device
    Show {
        #[command(flatten)]
        device: OneDevice,
    },
    /// Let a device connect, or not
    Update {
        #[command(flatten)]
        device: OneDevice,
        #[command(flatten)]
        update: renew::StatusChange,
    },
    /// Change a device's keys; whoever is connected with one that is no more is cut off
    RenewKey {
        #[command(flatten)]
        device: OneDevice,
        /// Which of them
        #[arg(long, value_enum)]
        key: renew::Which,
    },
    /// Delete devices for good; a device of the same name later is another one
    Delete {
        #[command(flatten)]
        devices: ManyDevices,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Delete devices for good, with every event that they ever sent; they may be deleted already
    Erase {
        #[command(flatten)]
        devices: ManyDevices,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Print what a device's SDK is given to connect
    ConnectionString {
        #[command(flatten)]
        device: OneDevice,
    },
    /// Send messages as a device, and print their receipts; whoever is connected as it is cut off
    Send(send::Send),
    /// Run devices that send made-up values or a recording; those that are missing are created
    Simulate(simulate::Simulate),
}

/// A device as the hub describes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Found {
    pub(crate) device_id: String,
    pub(crate) status: String,
    #[serde(default)]
    status_reason: Option<String>,
    connection_state: String,
    connection_state_updated_time: String,
    generation_id: String,
    authentication: Authentication,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authentication {
    symmetric_key: Keys,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    /// None for a device that proves itself with a certificate.
    primary_key: Option<String>,
}

impl Found {
    fn read(json: &Value) -> Result<Found, HubError> {
        Found::deserialize(json).map_err(|error| HubError::Answer(error.to_string()))
    }

    /// The key that devices sign with; empty for one that proves itself otherwise.
    pub(crate) fn key(&self) -> &str {
        let key = self.authentication.symmetric_key.primary_key.as_deref();
        key.unwrap_or_default()
    }

    /// What the device's SDK is given to connect.
    fn connection_string(&self, hub: &Hub, id: &DeviceId) -> String {
        match &self.authentication.symmetric_key.primary_key {
            Some(key) => hub.device_string(id, key),
            None => hub.device_string_x509(id),
        }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.status == "enabled"
    }
}

/// Checks a device's name. Two that the hub would take cannot stand in a URL.
pub(crate) fn parse_id(text: &str) -> Result<DeviceId, String> {
    if matches!(text, "." | "..") {
        return Err("a device of this name could not be reached over HTTP".into());
    }
    DeviceId::parse(text).map_err(|error| error.to_string())
}

/// The same of a device, or of a module as `DEVICE/MODULE`.
pub(crate) fn parse_identity(text: &str) -> Result<DeviceId, String> {
    if text.split('/').any(|part| matches!(part, "." | "..")) {
        return Err("a device of this name could not be reached over HTTP".into());
    }
    DeviceId::parse_identity(text).map_err(|error| error.to_string())
}

/// Names that begin with `prefix`, numbered from 1.
pub(crate) fn numbered(prefix: &DeviceId, count: u32) -> Result<Vec<DeviceId>, CommandError> {
    (1..=count)
        .map(|number| DeviceId::parse(&format!("{prefix}{number}")))
        .collect::<Result<_, _>>()
        .map_err(|error| CommandError::Usage(error.to_string()))
}

/// How many devices, in words.
pub(crate) fn counted(devices: u64) -> String {
    if devices == 1 {
        "1 device".to_owned()
    } else {
        format!("{devices} devices")
    }
}

/// Asks for one device.
pub(crate) async fn get(hub: &Hub, id: &DeviceId) -> Result<Value, CommandError> {
    hub.call_json(&Call::get(&["devices", id.as_str()]))
        .await
        .map_err(|error| explained(error, id))
}

/// Asks for one device and understands the answer.
pub(crate) async fn find(hub: &Hub, id: &DeviceId) -> Result<Found, CommandError> {
    Ok(Found::read(&get(hub, id).await?)?)
}

/// How a new device proves itself.
enum Proof {
    /// With a key that the hub draws.
    Key,
    /// With a certificate of this thumbprint.
    Thumbprint(String),
    /// With a certificate that an authority has signed.
    Authority,
}

async fn put(hub: &Hub, id: &DeviceId, disabled: bool, proof: &Proof) -> Result<Value, HubError> {
    let status = if disabled { "disabled" } else { "enabled" };
    let authentication = match proof {
        Proof::Key => json!({ "type": "sas" }),
        Proof::Thumbprint(print) => {
            json!({ "type": "selfSigned", "x509Thumbprint": { "primaryThumbprint": print } })
        }
        Proof::Authority => json!({ "type": "certificateAuthority" }),
    };
    let body = json!({ "deviceId": id.as_str(), "status": status, "authentication": authentication });
    hub.call_json(&Call::new(Method::PUT, &["devices", id.as_str()]).json(body))
        .await
}

/// Finds one device, or creates it. Creating changes nothing that exists, so what may have happened or
/// not is simply tried again.
async fn ensure_one(hub: &Hub, id: &DeviceId) -> Result<(Found, bool), CommandError> {
    let mut attempt = 1;
    loop {
        match find(hub, id).await {
            Err(CommandError::Hub(error)) if error.code() == "DeviceNotFound" => {}
            found => return Ok((found?, false)),
        }
        match put(hub, id, false, &Proof::Key).await {
            Ok(created) => return Ok((Found::read(&created)?, true)),
            Err(error) if error.code() == "DeviceAlreadyExists" => {}
            Err(HubError::Unknown { .. }) if attempt < ENSURE_ATTEMPTS_MAX => {}
            Err(error) => return Err(error.into()),
        }
        attempt += 1;
    }
}

/// Finds these devices, creating those that are missing; in order, with whether each was created.
pub(crate) async fn ensure(hub: &Hub, ids: &[DeviceId]) -> Result<Vec<(Found, bool)>, CommandError> {
    let bar = progress::bar("looking devices up", ids.len() as u64);
    let each = |id: DeviceId| {
        let bar = &bar;
        async move {
            let found = ensure_one(hub, &id).await;
            bar.inc(1);
            found
        }
    };
    let mut asked = stream::iter(ids.to_vec()).map(each).buffered(AT_ONCE_MAX);
    let mut all = Vec::with_capacity(ids.len());
    progress::during(&bar, async {
        while let Some(found) = asked.next().await {
            all.push(found?);
        }
        Ok(all)
    })
    .await
}

/// The error with what to do about it, where that is known.
pub(crate) fn explained(error: HubError, id: &DeviceId) -> CommandError {
    match error.code() {
        "DeviceNotFound" => HubError::NoDevice(id.device_part().to_owned()).into(),
        "ModuleNotFound" => CommandError::Failed(format!("there is no module {id}")),
        "DeviceAlreadyExists" => CommandError::Failed(format!(
            "device {id} exists already; `dunlin device show {id}` shows it"
        )),
        _ => error.into(),
    }
}

impl Device {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let output = self.hub.output;
        match self.action {
            Action::Create {
                device,
                disabled,
                thumbprint,
                by_authority,
                count: None,
            } => {
                let proof = match (thumbprint, by_authority) {
                    (Some(thumbprint), _) => Proof::Thumbprint(thumbprint),
                    (None, true) => Proof::Authority,
                    (None, false) => Proof::Key,
                };
                create(&hub, device.id(), disabled, &proof, output).await
            }
            Action::Create {
                device,
                disabled,
                count: Some(count),
                ..
            } => create_many(&hub, numbered(device.id(), count)?, disabled, output).await,
            Action::List { top } => {
                list(
                    &hub,
                    top.map_or(usize::MAX, |top| usize::try_from(top).unwrap_or(usize::MAX)),
                    output,
                )
                .await
            }
            Action::Show { device } => show(&hub, device.id(), output).await,
            Action::Update { device, update } => {
                let updated = renew::update(&hub, device.id(), &update, output).await;
                updated.map_err(|error| renew::explained(error, device.id()))?;
                Ok(ExitCode::SUCCESS)
            }
            Action::RenewKey { device, key } => {
                let renewed = renew::renew_key(&hub, device.id(), key, output).await;
                renewed.map_err(|error| renew::explained(error, device.id()))?;
                Ok(ExitCode::SUCCESS)
            }
            Action::Delete { devices, yes } => end(&hub, &devices.ids(), yes, Ending::Delete, output).await,
            Action::Erase { devices, yes } => end(&hub, &devices.ids(), yes, Ending::Erase, output).await,
            Action::ConnectionString { device } => connection_string(&hub, device.id(), output).await,
            Action::Send(command) => command.run(&hub, output).await,
            Action::Simulate(command) => command.run(hub, output).await,
        }
    }
}

async fn create(hub: &Hub, id: &DeviceId, disabled: bool, proof: &Proof, output: Format) -> CommandResult {
    let created = progress::waiting("creating the device", put(hub, id, disabled, proof)).await;
    let created = created.map_err(|error| explained(error, id))?;
    match output {
        Format::Json => say(&created)?,
        Format::Text => {
            let found = Found::read(&created)?;
            let state = if disabled { ", disabled" } else { "" };
            say(format!(
                "Created {id}{state}.\n\n  connection string  {}",
                found.connection_string(hub, id)
            ))?;
            note_port(hub);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn create_many(hub: &Hub, ids: Vec<DeviceId>, disabled: bool, output: Format) -> CommandResult {
    let bar = progress::bar("creating devices", ids.len() as u64);
    let (mut created, mut existed) = (0_u32, 0_u32);
    let mut asked = stream::iter(ids)
        .map(|id| async move { put(hub, &id, disabled, &Proof::Key).await })
        .buffer_unordered(AT_ONCE_MAX);
    let problem = progress::during(&bar, async {
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(_) => created += 1,
                Err(error) if error.code() == "DeviceAlreadyExists" => existed += 1,
                Err(error) => return Some(error),
            }
            bar.inc(1);
        }
        None
    })
    .await;
    if let Some(error) = problem {
        return Err(CommandError::Failed(format!(
            "{error} ({created} devices were created before; the same command goes on from there)"
        )));
    }
    match output {
        Format::Json => say(json!({ "created": created, "existed": existed }))?,
        Format::Text if existed == 0 => say(format!("Created {}.", counted(created.into())))?,
        Format::Text => say(format!(
            "Created {}; {existed} existed already.",
            counted(created.into())
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(hub: &Hub, top: usize, output: Format) -> CommandResult {
    let devices = progress::waiting("reading the registry", pages(hub, top)).await?;
    match output {
        Format::Json => say(Value::Array(devices))?,
        Format::Text if devices.is_empty() => say("No devices yet; `dunlin device create ID` makes one.")?,
        Format::Text => {
            let mut table = Table::new(["DEVICE", "STATUS", "CONNECTION", "SINCE"]);
            for device in &devices {
                let found = Found::read(device)?;
                let since = since(&found);
                table.push([
                    found.device_id,
                    found.status,
                    found.connection_state.to_lowercase(),
                    since,
                ]);
            }
            say(table)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The first `top` devices, page after page.
async fn pages(hub: &Hub, top: usize) -> Result<Vec<Value>, HubError> {
    let mut devices: Vec<Value> = Vec::new();
    let mut continuation: Option<String> = None;
    while devices.len() < top {
        let call = Call::get(&["devices"]).query("top", PAGE.min(top - devices.len()));
        let page;
        (page, continuation) = hub.page(call, continuation).await?;
        devices.extend(page);
        if continuation.is_none() {
            break;
        }
    }
    Ok(devices)
}

/// When the device came or went, or nothing if it never did.
fn since(found: &Found) -> String {
    let time = &found.connection_state_updated_time;
    if time.starts_with("0001-") {
        "never connected".to_owned()
    } else {
        shown(time)
    }
}

async fn show(hub: &Hub, id: &DeviceId, output: Format) -> CommandResult {
    let device = progress::waiting("asking the hub", get(hub, id)).await?;
    match output {
        Format::Json => say(device)?,
        Format::Text => {
            let found = Found::read(&device)?;
            let reason = found
                .status_reason
                .as_deref()
                .map_or(String::new(), |why| format!(" ({})", shown(why)));
            say(format!(
                "device      {}\nstatus      {}{reason}\nproof       {}\nconnection  {}\nsince       {}\ngeneration  {}",
                found.device_id,
                found.status,
                found.authentication.kind,
                found.connection_state.to_lowercase(),
                since(&found),
                found.generation_id,
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What becomes of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Delete,
    /// With what they sent.
    Erase,
}

async fn end(hub: &Hub, ids: &[DeviceId], yes: bool, ending: Ending, output: Format) -> CommandResult {
    let what = match ids {
        [id] => format!("device {id}"),
        _ => format!("{} devices", ids.len()),
    };
    let (question, doing, done) = match ending {
        Ending::Delete => (format!("Delete {what} for good?"), "deleting devices", "Deleted"),
        Ending::Erase => (
            format!("Delete {what} for good, and every event of it?"),
            "erasing devices",
            "Erased",
        ),
    };
    if !yes && !confirmed(&question)? {
        return Err(CommandError::Failed("nothing was deleted".into()));
    }
    let bar = progress::bar(doing, ids.len() as u64);
    progress::during(&bar, async {
        for id in ids {
            let path = ["devices", id.as_str(), "erase"];
            let call = match ending {
                Ending::Delete => Call::new(Method::DELETE, &path[..2]),
                Ending::Erase => Call::new(Method::POST, &path),
            };
            hub.call(&call).await.map_err(|error| explained(error, id))?;
            bar.inc(1);
            if output == Format::Text {
                bar.suspend(|| say(format!("{done} {id}.")))?;
            }
        }
        Ok::<(), CommandError>(())
    })
    .await?;
    if output == Format::Json {
        say(json!({ (done.to_lowercase()): ids }))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks whoever sits at the terminal.
pub(super) fn confirmed(question: &str) -> Result<bool, CommandError> {
    if !std::io::stdin().is_terminal() {
        return Err(CommandError::Usage(
            "nobody is there to ask: add --yes to go on without asking".into(),
        ));
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn connection_string(hub: &Hub, id: &DeviceId, output: Format) -> CommandResult {
    let found = progress::waiting("asking the hub", find(hub, id)).await?;
    let text = found.connection_string(hub, id);
    match output {
        Format::Text => {
            say(text)?;
            note_port(hub);
        }
        Format::Json => say(json!({
            "deviceId": id,
            "connectionString": text,
            "caFile": hub.ca_file(),
            "mqtts": hub.doors().first().map(|door| &door.mqtts),
        }))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn note_port(hub: &Hub) {
    if let Some(note) = hub.port_note() {
        eprintln!("{note}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbered() {
        let prefix = DeviceId::parse("room-").unwrap();
        let names: Vec<String> = numbered(&prefix, 3)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["room-1", "room-2", "room-3"]);
        let long = DeviceId::parse(&"x".repeat(128)).unwrap();
        assert!(matches!(numbered(&long, 1), Err(CommandError::Usage(_))));
        assert!(parse_id("..").is_err() && parse_id("a#b").is_err() && parse_id("a.b").is_ok());
    }

    #[test]
    fn a_device_is_read_as_the_hub_writes_it() {
        let json = json!({
            "deviceId": "d", "generationId": "1", "etag": "MQ==", "connectionState": "Disconnected",
            "status": "enabled", "connectionStateUpdatedTime": "0001-01-01T00:00:00Z",
            "authentication": { "symmetricKey": { "primaryKey": "k", "secondaryKey": "s" }, "type": "sas" },
        });
        let found = Found::read(&json).unwrap();
        assert_eq!(
            (found.key(), found.is_enabled(), since(&found).as_str()),
            ("k", true, "never connected")
        );
        let mut signed = json.clone();
        signed["authentication"] = json!({
            "symmetricKey": { "primaryKey": null, "secondaryKey": null },
            "x509Thumbprint": { "primaryThumbprint": "AB", "secondaryThumbprint": null },
            "type": "selfSigned",
        });
        assert_eq!(Found::read(&signed).unwrap().key(), "");
        assert!(Found::read(&json!({})).is_err());
    }
}
