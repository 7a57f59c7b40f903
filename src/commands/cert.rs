//! `dunlin cert`: the certificate that clients trust, the one that each node shows, and the authority
//! behind both, to be made before there is a node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use dunlin_node::pki::Authority;
use reqwest::tls::TlsInfo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::hub::{Hub, HubArgs};
use super::{CommandError, CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct Cert {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// The CA file to give to devices, fingerprints, and until when they are valid
    Show,
    /// The CA's certificate itself (PEM), for devices to trust
    Ca,
    /// Make a cluster's CA, join secret and admin token; what is there already stays as it is
    Init {
        /// Folder to keep them in, for `serve --pki` of every node
        #[arg(long, value_name = "DIR")]
        pki: PathBuf,
    },
}

/// What people compare and watch.
struct Shown {
    subject: String,
    names: Vec<String>,
    fingerprint: String,
    from: String,
    until: String,
    is_valid: bool,
}

impl Cert {
    pub(crate) async fn run(self) -> CommandResult {
        match &self.action {
            Action::Show => self.show().await,
            Action::Ca => self.ca(),
            Action::Init { pki } => self.init(pki),
        }
    }

    fn init(&self, folder: &Path) -> CommandResult {
        let was_there = Authority::is_in(folder);
        let authority = Authority::open(folder).map_err(|error| CommandError::Failed(error.to_string()))?;
        let ca_file = authority.ca_file().display().to_string();
        match self.hub.output {
            Format::Json => say(json!({ "caFile": ca_file, "made": !was_there }))?,
            Format::Text if was_there => say(format!("There is a cluster CA already: {ca_file}"))?,
            Format::Text => say(format!(
                "Made a cluster CA, a join secret and an admin token; clients trust {ca_file}"
            ))?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn ca(&self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let path = hub.ca_file().display();
        let pem = std::fs::read_to_string(hub.ca_file())
            .map_err(|error| CommandError::Failed(format!("read {path}: {error}")))?;
        match self.hub.output {
            Format::Json => say(json!({ "caFile": path.to_string(), "pem": pem }))?,
            Format::Text => say(pem.trim_end())?,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn show(&self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let path = hub.ca_file().display().to_string();
        let unreadable = |why: String| CommandError::Failed(format!("read {path}: {why}"));
        let der =
            CertificateDer::from_pem_file(hub.ca_file()).map_err(|error| unreadable(error.to_string()))?;
        let ca = read(&der).ok_or_else(|| unreadable("not an X.509 certificate".into()))?;
        let mut nodes = Vec::new();
        for door in hub.doors() {
            let answer = progress::waiting("asking every node", hub.health(door)).await;
            let shown = answer.map_err(|error| error.to_string()).and_then(|response| {
                let info = response
                    .extensions()
                    .get::<TlsInfo>()
                    .and_then(TlsInfo::peer_certificate);
                info.and_then(read)
                    .ok_or_else(|| "it shows no certificate".to_owned())
            });
            nodes.push((door.https.clone(), shown));
        }
        match self.hub.output {
            Format::Json => {
                let nodes: Vec<Value> = nodes
                    .iter()
                    .map(|(https, shown)| match shown {
                        Ok(shown) => json!({ "https": https, "certificate": shown.json() }),
                        Err(error) => json!({ "https": https, "error": error }),
                    })
                    .collect();
                say(json!({ "caFile": path, "ca": ca.json(), "nodes": nodes }))?;
            }
            Format::Text => {
                say(format!("Clients trust {path}\n{}", ca.text()))?;
                for (https, shown) in &nodes {
                    match shown {
                        Ok(shown) => say(format!("\nThe node at {https} shows\n{}", shown.text()))?,
                        Err(error) => say(format!("\nThe node at {https}: {error}"))?,
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn read(der: &[u8]) -> Option<Shown> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|found| found.value.general_names.iter().filter_map(name).collect());
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let validity = certificate.validity();
    Some(Shown {
        subject: shown(&certificate.subject().to_string()),
        names: names.unwrap_or_default(),
        fingerprint: digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect::<Vec<_>>()
            .join(":"),
        from: date(validity.not_before),
        until: date(validity.not_after),
        is_valid: validity.is_valid(),
    })
}

fn name(found: &GeneralName<'_>) -> Option<String> {
    match found {
        GeneralName::DNSName(name) => Some(shown(name)),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

fn date(time: ASN1Time) -> String {
    let time = time.to_datetime();
    format!(
        "{:04}-{:02}-{:02}",
        time.year(),
        u8::from(time.month()),
        time.day()
    )
}

impl Shown {
    fn json(&self) -> Value {
        json!({
            "subject": self.subject,
            "names": self.names,
            "sha256": self.fingerprint,
            "notBefore": self.from,
            "notAfter": self.until,
            "valid": self.is_valid,
        })
    }

    fn text(&self) -> String {
        let names = if self.names.is_empty() {
            String::new()
        } else {
            format!("\n  names    {}", self.names.join(", "))
        };
        let valid = if self.is_valid { "" } else { ": NOT NOW" };
        format!(
            "  subject  {}{names}\n  SHA-256  {}\n  valid    {} to {}{valid}",
            self.subject, self.fingerprint, self.from, self.until
        )
    }
}
