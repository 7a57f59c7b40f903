//! `dunlin load provision`: devices that nobody knows register, under an enrolment group that is there for this run.

use std::process::ExitCode;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use dunlin_chaos::load::files::raise_open_files;
use dunlin_chaos::load::provisions::{self, Plan};
use dunlin_node::serve::stop_signal;
use reqwest::Method;
use serde_json::json;

use super::shown::{Shown, failed};
use crate::commands::CommandResult;
use crate::commands::hub::{Call, Hub, HubArgs, host_of};

#[derive(Args)]
pub(super) struct Provision {
    /// Devices that register; they stay in the registry
    #[arg(short = 'c', long = "devices", value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    devices: u64,
    /// Devices at a time
    #[arg(short = 'F', long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=4096))]
    inflight: u64,
    #[command(flatten)]
    shown: Shown,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl Provision {
    pub(super) async fn run(self, args: &HubArgs) -> CommandResult {
        let files = raise_open_files();
        if files < self.inflight + 64 {
            eprintln!(
                "note: this system allows {files} open files, fewer than devices at a time; see `ulimit -n`"
            );
        }
        let hub = Hub::find(args)?;
        let mut live = self.shown.live("provision", args.output)?;
        let service = hub.call_json(&Call::get(&["provisioning"])).await?;
        let scope = service["idScope"].as_str().unwrap_or_default().to_owned();
        let name = format!("load-{:08x}", rand::random::<u32>());
        let key = BASE64.encode(rand::random::<[u8; 32]>());
        let keys = json!({ "primaryKey": key, "secondaryKey": key });
        let group = json!({
            "enrollmentGroupId": name,
            "attestation": { "type": "symmetricKey", "symmetricKey": keys },
            "iotHubs": [service["linkedHubs"][0]["hostName"]],
        });
        let path = ["enrollmentGroups", name.as_str()];
        hub.call_json(&Call::new(Method::PUT, &path).json(group)).await?;
        let doors: Vec<(String, String)> = hub
            .gateways()
            .iter()
            .map(|door| {
                (
                    door.mqtts.clone(),
                    host_of(&door.mqtts).trim_matches(['[', ']']).to_owned(),
                )
            })
            .collect();
        live.say(&format!(
            "{}: {} devices register at {} gateways, closed loop, {} at a time",
            hub.host_name(),
            self.devices,
            doors.len(),
            self.inflight
        ));
        let plan = Plan {
            doors,
            trust: Arc::clone(hub.trust()),
            scope,
            group_key: key,
            prefix: format!("{name}-"),
            devices: self.devices as usize,
            in_flight: self.inflight as usize,
        };
        let figures = provisions::run(plan, hub.host_name(), &mut live, stop_signal()).await;
        hub.call(&Call::new(Method::DELETE, &path)).await?;
        live.finish().map_err(failed)?;
        let figures = figures.map_err(failed)?;
        self.shown.tell(&figures, args.output)?;
        Ok(ExitCode::from(u8::from(!figures.is_whole())))
    }
}
