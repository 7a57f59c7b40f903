//! `dunlin load pub`, `sub` and `conn`: one run against one server, with its ceiling and its verdict.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dunlin_chaos::demo::Progress;
use dunlin_chaos::load::ceiling;
use dunlin_chaos::load::engine::{self, LoadError, Outcome};
use dunlin_chaos::load::figures::Figures;
use dunlin_chaos::load::files::raise_open_files;
use dunlin_chaos::load::live::Live;
use dunlin_chaos::load::plan::{Action, Client, Listener, Plan};
use dunlin_chaos::load::report;
use dunlin_chaos::load::template::Template;
use dunlin_chaos::load::verify::{self, Verification};
use dunlin_chaos::readback;
use dunlin_node::serve::stop_signal;

use super::options::{Making, Messages, Server, parse_seconds};
use super::target::{self, Address, Target};
use crate::commands::hub::HubArgs;
use crate::commands::{CommandError, CommandResult, Format, say};

/// Records of one shard that are read beyond those that were sent; others may use the hub, too.
const OTHERS_MAX: u64 = 1_000_000;

#[derive(Args)]
pub(super) struct Publish {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    messages: Messages,
    /// Compare what is there afterwards with what was acknowledged; exit code 1 if it is not the same
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    making: Making,
}

#[derive(Args)]
pub(super) struct Twin {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    making: Making,
}

/// Where devices report.
const REPORT_TOPIC: &str = "$iothub/twin/PATCH/properties/reported/?$rid=0";
/// A made-up report is whole JSON from so many bytes on.
const REPORT_BYTES_MIN: u64 = 40;

#[derive(Args)]
pub(super) struct Subscribe {
    #[command(flatten)]
    server: Server,
    /// Topic filter; %i is the client's number, %c its id, %u its user name
    #[arg(short, long, value_name = "TEMPLATE", required = true, value_parser = Template::parse)]
    topic: Option<Template>,
    /// 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// Seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_seconds)]
    duration: Duration,
    #[command(flatten)]
    making: Making,
}

#[derive(Args)]
pub(super) struct Connect {
    #[command(flatten)]
    server: Server,
    /// Seconds that the clients stay
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_seconds)]
    duration: Duration,
    #[command(flatten)]
    making: Making,
}

impl Publish {
    pub(super) async fn run(self, args: &HubArgs) -> CommandResult {
        let (server, share) = (&self.server, self.making.share());
        let target = match (Address::of(server), &self.messages.topic) {
            (Some(address), Some(topic)) => target::broker(server, &address, share, topic)?,
            (Some(_), None) => return Err(CommandError::Usage("a topic is missing: -t".into())),
            (None, topic) => target::hub(server, args, share, topic.as_ref()).await?,
        };
        let writer = self.verify.then(|| format!("load-{:08x}", rand::random::<u32>()));
        let mut plan = plan_of(
            server,
            &self.making,
            &target,
            Plan {
                action: self.messages.action(server.clients, writer.as_deref())?,
                warm_up: self.messages.warm_up(),
                duration: self.messages.window(),
                ..Plan::default()
            },
        );
        plan.keeps_history = self.verify;
        if let (Some(writer), None, Some(topic)) = (&writer, &target.hub, &self.messages.topic) {
            plan.listener = Some(listener(server, topic, writer));
        }
        let making = Making {
            // A judged run reads on after the load; its speed is not the point.
            no_ceiling: self.making.no_ceiling || self.verify,
            ..self.making.clone()
        };
        let head = format!("{}: {}", target.name, self.messages.describe(server.clients));
        let run = Run {
            plan,
            target,
            making,
            output: args.output,
            kind: "pub",
            head,
            verifies: self.verify,
        };
        run.run().await
    }
}

impl Twin {
    /// A report is a message to a topic of its own, with an answer before its acknowledgement.
    pub(super) async fn run(self, args: &HubArgs) -> CommandResult {
        let nonsense = |text: &str| Err(CommandError::Usage(text.to_owned()));
        if Address::of(&self.server).is_some() {
            return nonsense("twins are a hub's: say which with --data or --connection-string, not with -h");
        }
        if self.messages.topic.is_some() || self.messages.qos != 1 {
            return nonsense("a device reports to its own twin, with QoS 1: leave -t and -q out");
        }
        if self.messages.csv.is_none() && self.messages.size < REPORT_BYTES_MIN {
            return nonsense("a report has 40 bytes at the least");
        }
        let topic = Template::parse(REPORT_TOPIC).map_err(super::options::usage)?;
        let (server, share) = (&self.server, self.making.share());
        let target = target::hub(server, args, share, Some(&topic)).await?;
        let plan = Plan {
            action: self.messages.action(server.clients, None)?,
            warm_up: self.messages.warm_up(),
            duration: self.messages.window(),
            ..Plan::default()
        };
        let head = format!(
            "{}: reports, {}",
            target.name,
            self.messages.describe(server.clients)
        );
        let run = Run {
            plan: plan_of(server, &self.making, &target, plan),
            target,
            making: self.making,
            output: args.output,
            kind: "twin",
            head,
            verifies: false,
        };
        run.run().await
    }
}

impl Subscribe {
    pub(super) async fn run(self, args: &HubArgs) -> CommandResult {
        let Some(address) = Address::of(&self.server) else {
            return Err(CommandError::Usage(
                "say which server with -h; a hub's devices have nothing to subscribe to, its events are read with `dunlin monitor events`".into(),
            ));
        };
        let topic = self
            .topic
            .ok_or_else(|| CommandError::Usage("a topic is missing: -t".into()))?;
        let target = target::broker(&self.server, &address, self.making.share(), &topic)?;
        let head = format!("{}: {} subscribers", target.name, self.server.clients);
        let run = Run {
            plan: plan_of(
                &self.server,
                &self.making,
                &target,
                Plan {
                    action: Action::Subscribe { qos: self.qos },
                    duration: Some(self.duration),
                    ..Plan::default()
                },
            ),
            target,
            making: self.making,
            output: args.output,
            kind: "sub",
            head,
            verifies: false,
        };
        run.run().await
    }
}

impl Connect {
    pub(super) async fn run(self, args: &HubArgs) -> CommandResult {
        let nowhere = Template::parse("").map_err(super::options::usage)?;
        let share = self.making.share();
        let target = match Address::of(&self.server) {
            Some(address) => target::broker(&self.server, &address, share, &nowhere)?,
            None => target::hub(&self.server, args, share, None).await?,
        };
        let head = format!("{}: {} clients", target.name, self.server.clients);
        let run = Run {
            plan: plan_of(
                &self.server,
                &self.making,
                &target,
                Plan {
                    duration: Some(self.duration),
                    ..Plan::default()
                },
            ),
            target,
            making: self.making,
            output: args.output,
            kind: "conn",
            head,
            verifies: false,
        };
        run.run().await
    }
}

/// A client beside the others that is given everything.
fn listener(server: &Server, topic: &Template, writer: &str) -> Listener {
    Listener {
        client: Client {
            index: u64::MAX,
            id: format!("{writer}-listener"),
            username: server.username.clone(),
            password: server.password.clone(),
            topic: topic.clone(),
            door: 0,
        },
        writer: writer.to_owned(),
    }
}

/// The plan with everything that the server's and the run's options say.
pub(super) fn plan_of(server: &Server, making: &Making, target: &Target, plan: Plan) -> Plan {
    Plan {
        doors: target.doors.clone(),
        wrapping: target.wrapping.clone(),
        version: server.mqtt_version,
        clean: !server.keep_session,
        keep_alive_s: server.keep_alive,
        clients: target.clients.clone(),
        connect_interval: Duration::from_millis(server.connect_interval),
        start_at: making.starts(),
        threads: usize::try_from(making.threads).unwrap_or(1),
        ..plan
    }
}

/// One run, ready to go.
struct Run {
    plan: Plan,
    target: Target,
    making: Making,
    output: Format,
    kind: &'static str,
    head: String,
    verifies: bool,
}

impl Run {
    async fn run(self) -> CommandResult {
        let files = raise_open_files();
        if files < self.plan.clients.len() as u64 + 64 {
            eprintln!("note: this system allows {files} open files, fewer than clients; see `ulimit -n`");
        }
        let progress = match self.output {
            Format::Text => Progress::People,
            Format::Json => Progress::Program,
        };
        let failed = |error: &dyn std::fmt::Display| CommandError::Failed(error.to_string());
        let mut live =
            Live::new(progress, self.kind, self.making.hdr.as_deref()).map_err(|error| failed(&error))?;
        live.say(&self.head);
        let ceiling_per_s = ceiling_of(&self.plan, &self.making).await;
        let begins = match (&self.target.hub, self.verifies) {
            (Some(hub), true) => {
                let ends = target::reader(hub)?.shard_ends().await;
                Some(ends.map_err(|error| failed(&error))?)
            }
            _ => None,
        };
        let outcome = engine::run(self.plan.clone(), &mut live, stop_signal()).await;
        live.finish().map_err(|error| failed(&error))?;
        let mut outcome = outcome.map_err(|error| match error {
            LoadError::Options(text) => CommandError::Usage(text),
            error => failed(&error),
        })?;
        let mut figures =
            Figures::new(&self.plan, &self.target.name, &outcome).map_err(|error| failed(&error))?;
        figures.ceiling_per_s = ceiling_per_s;
        if self.verifies {
            figures.verification = Some(self.verify(&mut outcome, begins).await?);
        }
        if let Some(path) = &self.making.report {
            let page = report::page(&figures, &command_line()).map_err(|error| failed(&error))?;
            page.save(path)
                .map_err(|error| CommandError::Failed(format!("write {}: {error}", path.display())))?;
        }
        match self.output {
            Format::Json => say(serde_json::to_string(&figures).map_err(|error| failed(&error))?)?,
            Format::Text => say(&figures)?,
        }
        Ok(ExitCode::from(u8::from(!figures.is_pass())))
    }

    async fn verify(
        &self,
        outcome: &mut Outcome,
        begins: Option<Vec<(u32, u64)>>,
    ) -> Result<Verification, CommandError> {
        let (Some(hub), Some(begins)) = (&self.target.hub, begins) else {
            return Ok(verify::by_listener(outcome));
        };
        let reader = target::reader(hub)?;
        let history = verify::history(outcome);
        let ids: Vec<String> = history
            .devices
            .iter()
            .map(|device| device.device.clone())
            .collect();
        let (sent, _) = history.sent_and_acked();
        let count_max = (sent + outcome.total.tally.resent) * 2 + OTHERS_MAX;
        let read = readback::read_from(&reader, &ids, &begins, count_max).await;
        let mut found = match read {
            Ok(found) => found,
            Err(error) => return Ok(Verification::impossible(error.to_string())),
        };
        // Other devices may send at the same time.
        found.retain(|stored| stored.device.is_some());
        Ok(Verification::judge(history, &found))
    }
}

/// This generator's ceiling, unless it is not wanted. That it cannot be found is no reason not to run.
pub(super) async fn ceiling_of(plan: &Plan, making: &Making) -> Option<f64> {
    if making.no_ceiling {
        return None;
    }
    match ceiling::measure(plan).await {
        Ok(ceiling_per_s) => ceiling_per_s,
        Err(error) => {
            eprintln!("note: no ceiling: {error}");
            None
        }
    }
}

/// The command as it was given, without what is secret.
pub(super) fn command_line() -> String {
    masked(std::env::args())
}

fn masked(arguments: impl Iterator<Item = String>) -> String {
    let mut is_secret = false;
    let words = arguments.map(|argument| {
        if std::mem::replace(
            &mut is_secret,
            matches!(argument.as_str(), "-P" | "--password" | "--connection-string"),
        ) {
            return "***".to_owned();
        }
        for head in ["--password=", "--connection-string="] {
            if argument.starts_with(head) {
                return format!("{head}***");
            }
        }
        if argument.starts_with("-P") && argument.len() > 2 {
            return "-P***".to_owned();
        }
        if argument.contains([' ', '\'', '"', '$', '#']) {
            format!("'{}'", argument.replace('\'', "'\\''"))
        } else {
            argument
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_go_into_reports() {
        let line =
            "dunlin load pub -P one --password two --password=three -Pfour --connection-string five -t a/%i";
        let masked = masked(line.split(' ').map(str::to_owned));
        for secret in ["one", "two", "three", "four", "five"] {
            assert!(!masked.contains(secret), "{masked}");
        }
        assert!(masked.ends_with("-t a/%i") && masked.starts_with("dunlin load pub"));
    }
}
