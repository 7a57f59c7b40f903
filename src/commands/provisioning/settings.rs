//! What the command line says of an enrolment, as the JSON that the hub reads.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::commands::CommandError;

/// How one device proves that it may register. With nothing given: with keys.
#[derive(Args)]
pub(super) struct OwnProof {
    #[command(flatten)]
    keys: Keys,
    /// It shows exactly this certificate (PEM)
    #[arg(long, value_name = "FILE", group = "proof")]
    certificate: Option<PathBuf>,
    /// Or this one
    #[arg(long, value_name = "FILE", requires = "certificate")]
    secondary_certificate: Option<PathBuf>,
    /// It has the TPM of this endorsement key (Base64 of its TPM2B_PUBLIC)
    #[arg(long, value_name = "KEY", group = "proof")]
    endorsement_key: Option<String>,
}

/// How devices of a group do. With nothing given: with keys that are derived from the group's.
#[derive(Args)]
pub(super) struct GroupProof {
    #[command(flatten)]
    keys: Keys,
    /// They show certificates below this one (PEM)
    #[arg(long, value_name = "FILE", group = "proof")]
    certificate: Option<PathBuf>,
    /// Or below this one
    #[arg(long, value_name = "FILE", requires = "certificate")]
    secondary_certificate: Option<PathBuf>,
    /// They show certificates below this authority of the hub; see `dunlin cert authority`
    #[arg(long, value_name = "NAME", group = "proof")]
    ca_name: Option<String>,
    /// Or below this one
    #[arg(long, value_name = "NAME", requires = "ca_name")]
    secondary_ca_name: Option<String>,
}

#[derive(Args)]
struct Keys {
    /// First key (Base64 of 16 to 64 bytes) [default: drawn]
    #[arg(long, value_name = "KEY", group = "proof")]
    primary_key: Option<String>,
    /// Second key [default: drawn]
    #[arg(long, value_name = "KEY")]
    secondary_key: Option<String>,
}

impl Keys {
    fn read(&self) -> Option<Value> {
        (self.primary_key.is_some() || self.secondary_key.is_some()).then(|| {
            json!({
                "type": "symmetricKey",
                "symmetricKey": { "primaryKey": self.primary_key, "secondaryKey": self.secondary_key },
            })
        })
    }
}

fn file(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path)
        .map_err(|error| CommandError::Failed(format!("read {}: {error}", path.display())))
}

fn certificates(
    kind: &str,
    primary: Option<&PathBuf>,
    secondary: Option<&PathBuf>,
) -> Result<Option<Value>, CommandError> {
    let Some(primary) = primary else { return Ok(None) };
    let mut pair = json!({ "primary": { "certificate": file(primary)? } });
    if let Some(secondary) = secondary {
        pair["secondary"] = json!({ "certificate": file(secondary)? });
    }
    Ok(Some(json!({ "type": "x509", "x509": { kind: pair } })))
}

impl OwnProof {
    /// The attestation, if one is given.
    pub(super) fn read(&self) -> Result<Option<Value>, CommandError> {
        if let Some(key) = &self.endorsement_key {
            return Ok(Some(json!({ "type": "tpm", "tpm": { "endorsementKey": key } })));
        }
        let (primary, secondary) = (self.certificate.as_ref(), self.secondary_certificate.as_ref());
        let shown = certificates("clientCertificates", primary, secondary)?;
        Ok(shown.or_else(|| self.keys.read()))
    }
}

impl GroupProof {
    /// The attestation, if one is given.
    pub(super) fn read(&self) -> Result<Option<Value>, CommandError> {
        if let Some(primary) = &self.ca_name {
            let pair = json!({ "primary": primary, "secondary": self.secondary_ca_name });
            return Ok(Some(json!({ "type": "x509", "x509": { "caReferences": pair } })));
        }
        let (primary, secondary) = (self.certificate.as_ref(), self.secondary_certificate.as_ref());
        let shown = certificates("signingCertificates", primary, secondary)?;
        Ok(shown.or_else(|| self.keys.read()))
    }
}

/// What becomes of those that register.
#[derive(Args)]
pub(super) struct Settings {
    /// Whether anybody may register under it
    #[arg(long, value_enum)]
    provisioning_status: Option<Status>,
    /// Whether the devices are edge devices
    #[arg(long, value_name = "BOOL")]
    edge_enabled: Option<bool>,
    /// How their hub is chosen
    #[arg(long, value_enum)]
    allocation_policy: Option<Allocation>,
    /// A hub that they may get; may be given more than once [default: all that are linked]
    #[arg(long = "iot-hub", value_name = "HOST")]
    hubs: Vec<String>,
    /// Who chooses their hub, for the policy custom
    #[arg(long, value_name = "URL")]
    webhook_url: Option<String>,
    /// Version of DPS's interface that it understands
    #[arg(long, value_name = "VERSION", requires = "webhook_url")]
    api_version: Option<String>,
    /// Tags that their twins begin with: a JSON object
    #[arg(long, value_name = "JSON")]
    initial_twin_tags: Option<String>,
    /// Desired properties that their twins begin with: a JSON object
    #[arg(long, value_name = "JSON")]
    initial_twin_properties: Option<String>,
    /// What happens to a device that registers again
    #[arg(long, value_enum)]
    reprovision_policy: Option<ComingAgain>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    Enabled,
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Allocation {
    /// Evenly, by their names
    Hashed,
    /// The one that answers soonest
    GeoLatency,
    /// The one that --iot-hub names
    Static,
    /// A webhook chooses
    Custom,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ComingAgain {
    /// It may move to another hub, and its twin goes with it
    ReprovisionAndMigrateData,
    /// It may move, and begins anew
    ReprovisionAndResetData,
    /// It stays where it is
    Never,
}

impl Settings {
    /// Writes what is given into `body`, and leaves the rest of it.
    pub(super) fn write(self, body: &mut Value) -> Result<(), CommandError> {
        if let Some(status) = self.provisioning_status {
            body["provisioningStatus"] = match status {
                Status::Enabled => "enabled".into(),
                Status::Disabled => "disabled".into(),
            };
        }
        if let Some(edge) = self.edge_enabled {
            body["capabilities"] = json!({ "iotEdge": edge });
        }
        if let Some(allocation) = self.allocation_policy {
            body["allocationPolicy"] = match allocation {
                Allocation::Hashed => "hashed".into(),
                Allocation::GeoLatency => "geoLatency".into(),
                Allocation::Static => "static".into(),
                Allocation::Custom => "custom".into(),
            };
        }
        if !self.hubs.is_empty() {
            body["iotHubs"] = json!(self.hubs);
            // One that there was before would come first.
            if let ([only], true) = (&self.hubs[..], body["allocationPolicy"] == "static") {
                body["iotHubHostName"] = only.clone().into();
            }
        }
        if let Some(url) = self.webhook_url {
            let version = self.api_version.unwrap_or_else(|| "2019-03-31".to_owned());
            body["customAllocationDefinition"] = json!({ "webhookUrl": url, "apiVersion": version });
        }
        if let Some(tags) = &self.initial_twin_tags {
            body["initialTwin"]["tags"] = object("--initial-twin-tags", tags)?;
        }
        if let Some(properties) = &self.initial_twin_properties {
            body["initialTwin"]["properties"]["desired"] = object("--initial-twin-properties", properties)?;
        }
        if let Some(policy) = self.reprovision_policy {
            let (updates, migrates) = match policy {
                ComingAgain::ReprovisionAndMigrateData => (true, true),
                ComingAgain::ReprovisionAndResetData => (true, false),
                ComingAgain::Never => (false, false),
            };
            body["reprovisionPolicy"] =
                json!({ "updateHubAssignment": updates, "migrateDeviceData": migrates });
        }
        Ok(())
    }
}

fn object(option: &str, text: &str) -> Result<Value, CommandError> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(CommandError::Usage(format!("{option}: it is no JSON object"))),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        proof: GroupProof,
        #[command(flatten)]
        settings: Settings,
    }

    fn body(line: &str) -> Result<Value, CommandError> {
        let line = Line::try_parse_from(["x"].into_iter().chain(line.split_whitespace()));
        let line = line.map_err(|error| CommandError::Usage(error.to_string()))?;
        let mut body = json!({ "attestation": line.proof.read()? });
        line.settings.write(&mut body)?;
        Ok(body)
    }

    #[test]
    fn a_line_says_all_that_the_hub_reads() {
        let line = "--ca-name plant --allocation-policy static --iot-hub a.example --edge-enabled true \
                    --initial-twin-tags {\"a\":1} --initial-twin-properties {\"b\":2} \
                    --reprovision-policy reprovision-and-reset-data --provisioning-status disabled";
        let expected = json!({
            "attestation": {"type": "x509", "x509": {"caReferences": {"primary": "plant", "secondary": null}}},
            "allocationPolicy": "static",
            "iotHubs": ["a.example"],
            "iotHubHostName": "a.example",
            "capabilities": {"iotEdge": true},
            "initialTwin": {"tags": {"a": 1}, "properties": {"desired": {"b": 2}}},
            "reprovisionPolicy": {"updateHubAssignment": true, "migrateDeviceData": false},
            "provisioningStatus": "disabled",
        });
        assert_eq!(body(line).expect("a body"), expected);
        assert_eq!(body("").expect("a body"), json!({"attestation": null}));
        for wrong in [
            "--initial-twin-tags 1",
            "--initial-twin-tags {",
            "--ca-name a --primary-key b",
            "--certificate /nonexistent",
            "--secondary-ca-name a",
            "--api-version 1",
        ] {
            assert!(body(wrong).is_err(), "{wrong}");
        }
    }
}
