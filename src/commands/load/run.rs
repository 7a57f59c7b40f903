//! `dunlin load pub`, `sub` and `conn`: one run against one server, with its ceiling and its verdict.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dunlin_chaos::load::ceiling;
use dunlin_chaos::load::engine::{self, LoadError, Outcome};
use dunlin_chaos::load::figures::{Figures, Floor};
use dunlin_chaos::load::files::raise_open_files;
use dunlin_chaos::load::plan::{Action, Client, Listener, Plan};
use dunlin_chaos::load::template::Template;
use dunlin_chaos::load::verify::{self, Verification};
use dunlin_chaos::readback;
use dunlin_node::serve::stop_signal;

use super::options::{Making, Messages, Server, parse_seconds};
use super::shown::{ceiling_unless, failed};
use super::target::{self, Address, Target};
use crate::commands::hub::HubArgs;
use crate::commands::{CommandError, CommandResult, Format};

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
        let head = format!("{}: {}", target.name, self.messages.describe(server.clients));
        let run = Run {
            plan,
            target,
            making: self.making,
            output: args.output,
            kind: "pub",
            head,
            floor: self.messages.floor,
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
            floor: self.messages.floor,
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
            floor: None,
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
            floor: None,
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
    /// Logs of the floor that is to stand beside it.
    floor: Option<usize>,
    verifies: bool,
}

impl Run {
    async fn run(self) -> CommandResult {
        let files = raise_open_files();
        if files < self.plan.clients.len() as u64 + 64 {
            eprintln!("note: this system allows {files} open files, fewer than clients; see `ulimit -n`");
        }
        let mut live = self.making.shown.live(self.kind, self.output)?;
        live.say(&self.head);
        let ceiling = ceiling_unless(self.making.no_ceiling, ceiling::measure(&self.plan)).await;
        let floor = floor_of(&self.plan, self.floor).await?;
        let begins = match (&self.target.hub, self.verifies) {
            (Some(hub), true) => {
                let ends = target::reader(hub)?.shard_ends().await;
                Some(ends.map_err(failed)?)
            }
            _ => None,
        };
        let outcome = engine::run(self.plan.clone(), &mut live, stop_signal()).await;
        live.finish().map_err(failed)?;
        let mut outcome = outcome.map_err(|error| match error {
            LoadError::Options(text) => CommandError::Usage(text),
            error => failed(error),
        })?;
        let figures = Figures::new(&self.plan, &self.target.name, &outcome).map_err(failed)?;
        let mut figures = Figures {
            floor,
            ..figures.with_ceiling(ceiling)
        };
        if self.verifies {
            figures.verification = Some(self.verify(&mut outcome, begins).await?);
        }
        self.making.shown.tell(&figures, self.output)?;
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

/// What a server comes to that does nothing but sync so many logs, if that is asked for.
pub(super) async fn floor_of(plan: &Plan, logs: Option<usize>) -> Result<Option<Floor>, CommandError> {
    let Some(logs) = logs else { return Ok(None) };
    let measured = ceiling::floor(plan, logs).await;
    let floor = measured.map_err(|error| failed(format_args!("measure the floor: {error}")))?;
    Ok(Some(floor))
}
