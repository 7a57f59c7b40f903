//! `dunlin cert`: the certificate that clients trust, those that each node shows to clients and peers, new
//! ones on demand, and the authority behind all, to be made before there is a node.

mod authority;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use dunlin_node::pki::Authority;
use reqwest::Method;
use reqwest::tls::TlsInfo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use super::hub::{Call, Hub, HubArgs, HubError};
use super::table::Table;
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
    /// Have every node make new certificates now, or read those of --tls-cert again; connections stay
    Renew,
    /// Whose certificates devices may show that are registered as `certificateAuthority`
    #[command(subcommand)]
    Authority(authority::Action),
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
            Action::Renew => self.renew().await,
            Action::Ca => self.ca(),
            Action::Init { pki } => self.init(pki),
            Action::Authority(action) => authority::run(action, &self.hub).await,
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

    /// Asks every node that has doors. The exit code is 0 only if each has renewed.
    async fn renew(&self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let mut nodes = Vec::new();
        for door in hub.doors() {
            let path = ["certificates", "renew"];
            let call = Call::new(Method::POST, &path);
            let asked = async { Ok::<_, HubError>(hub.call_door(door, &call).await?.json::<Value>().await) };
            let answer = match progress::waiting("asking every node", asked).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            nodes.push((door.https.clone(), answer));
        }
        let is_done = nodes.iter().all(|(_, answer)| answer.is_ok());
        match self.hub.output {
            Format::Json => {
                let nodes: Vec<Value> = nodes
                    .iter()
                    .map(|(https, answer)| match answer {
                        Ok(answer) => json!({ "https": https, "certificates": answer["certificates"] }),
                        Err(error) => json!({ "https": https, "error": error }),
                    })
                    .collect();
                say(json!({ "renewed": is_done, "nodes": nodes }))?;
            }
            Format::Text => {
                let mut table = Table::new(["NODE", "CERTIFICATE", "FROM", "VALID UNTIL"]);
                for (https, answer) in &nodes {
                    match answer {
                        Ok(answer) => rows(&mut table, https, answer),
                        Err(error) => table.push([https.clone(), "-".into(), "-".into(), shown(error)]),
                    }
                }
                say(table)?;
            }
        }
        Ok(if is_done {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        })
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
            // What a node shows to its peers is not seen at its doors: it says so itself, to an admin.
            let path = ["certificates"];
            let told = match hub.call_door(door, &Call::get(&path)).await {
                Ok(response) => response.json::<Value>().await.unwrap_or_default(),
                Err(_) => Value::Null,
            };
            nodes.push((door.https.clone(), shown, told));
        }
        match self.hub.output {
            Format::Json => {
                let nodes: Vec<Value> = nodes
                    .iter()
                    .map(|(https, shown, told)| match shown {
                        Ok(shown) => json!({
                            "https": https,
                            "certificate": shown.json(),
                            "certificates": told["certificates"],
                        }),
                        Err(error) => json!({ "https": https, "error": error }),
                    })
                    .collect();
                say(json!({ "caFile": path, "ca": ca.json(), "nodes": nodes }))?;
            }
            Format::Text => {
                say(format!("Clients trust {path}\n{}", ca.text()))?;
                for (https, certificate, told) in &nodes {
                    match certificate {
                        Ok(certificate) => {
                            say(format!("\nThe node at {https} shows\n{}", certificate.text()))?
                        }
                        Err(error) => say(format!("\nThe node at {https}: {error}"))?,
                    }
                    let to_peers = told["certificates"].as_array().into_iter().flatten();
                    for line in to_peers.filter(|line| line["certificate"] == "node") {
                        let until = shown(line["notAfter"].as_str().unwrap_or("?"));
                        say(format!("  to peers, until {until}"))?;
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a node says of its certificates, a row each.
fn rows(table: &mut Table<4>, https: &str, answer: &Value) {
    for line in answer["certificates"].as_array().into_iter().flatten() {
        let text = |name: &str| shown(line[name].as_str().unwrap_or("-"));
        table.push([
            https.to_owned(),
            text("certificate"),
            text("source"),
            text("notAfter"),
        ]);
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
        "{:04}-{:02}-{:02} {:02}:{:02} UTC",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute()
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
