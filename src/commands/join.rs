//! Join tokens: one line that tells a new node where the cluster is, whom to trust, and what opens the
//! door once.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dunlin_cluster::admin::JoinToken;
use dunlin_node::joining;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::hub::{Hub, root_cause};
use super::{CommandError, CommandResult, Format, say};

/// Stands before every token, so that people and programs know one.
const PREFIX: &str = "dunlin-join-";
/// How long a node may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// What a token says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    https: Vec<String>,
    ca_pem: String,
    secret: String,
    seeds: Vec<String>,
}

impl Said {
    fn encode(&self) -> Result<String, CommandError> {
        let json = serde_json::to_vec(self).map_err(|error| CommandError::Failed(error.to_string()))?;
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json)))
    }

    fn decode(text: &str) -> Option<Said> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim().strip_prefix(PREFIX)?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// The line to print for a token that `hub` has issued.
pub(super) fn token(hub: &Hub, issued: &JoinToken, format: Format) -> Result<String, CommandError> {
    let path = hub.ca_file();
    let unreadable = |error| CommandError::Failed(format!("read {}: {error}", path.display()));
    let said = Said {
        https: hub.doors().iter().map(|door| door.https.clone()).collect(),
        ca_pem: std::fs::read_to_string(path).map_err(unreadable)?,
        secret: issued.secret.clone(),
        seeds: issued.seeds.clone(),
    };
    let token = said.encode()?;
    Ok(match format {
        Format::Json => json!({ "token": token, "expiresMs": issued.expires_ms }).to_string(),
        Format::Text => token,
    })
}

/// Makes `data` the directory of a node that will join.
pub(super) async fn join(token: &str, data: &Path, format: Format) -> CommandResult {
    let said = Said::decode(token).ok_or_else(|| {
        CommandError::Usage("this is no join token; `dunlin cluster token` prints one".into())
    })?;
    let files = ask(&said).await?;
    joining::prepare(data, &said.seeds, &files).map_err(|error| CommandError::Failed(error.to_string()))?;
    let shown = data.display();
    match format {
        Format::Json => say(json!({ "data": shown.to_string(), "seeds": said.seeds }))?,
        Format::Text => say(format!(
            "{shown} is ready for a node of this cluster. It joins when it is started:\n\n  dunlin serve --data {shown} --bind ADDRESS"
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(said: &Said) -> Result<BTreeMap<String, String>, CommandError> {
    let trust = dunlin_gateway::tls::client_config(said.ca_pem.as_bytes())
        .map_err(|error| CommandError::Failed(format!("read the token's certificate: {error}")))?;
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(rustls::ClientConfig::clone(&trust))
        .timeout(ANSWER_WAIT)
        .no_proxy()
        .build()
        .map_err(|error| CommandError::Failed(format!("make an HTTPS client: {}", root_cause(&error))))?;
    let mut tried = Vec::new();
    for door in &said.https {
        let asked = http
            .post(format!("https://{door}/cluster/join"))
            .json(&json!({ "secret": said.secret }))
            .send()
            .await;
        match asked {
            Ok(answer) if answer.status().is_success() => {
                let files = answer.json().await;
                return files.map_err(|error| CommandError::Failed(root_cause(&error)));
            }
            Ok(answer) => {
                let text = answer.text().await.unwrap_or_default();
                return Err(CommandError::Failed(format!("{door} refuses: {text}")));
            }
            // The token is used by an answer, not by a door that is closed.
            Err(error) => tried.push(format!("{door}: {}", root_cause(&error))),
        }
    }
    Err(CommandError::Failed(format!(
        "no node answers ({})",
        tried.join("; ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_the_same_when_it_is_read_again() {
        let said = Said {
            https: vec!["localhost:8443".into()],
            ca_pem: "pem".into(),
            secret: "s".into(),
            seeds: vec!["127.0.0.1:8900".into()],
        };
        let token = said.encode().unwrap();
        assert!(token.starts_with(PREFIX));
        assert_eq!(Said::decode(&format!(" {token}\n")), Some(said));
        assert_eq!(Said::decode("dunlin-join-x"), None);
        assert_eq!(Said::decode(&token[1..]), None);
    }
}
