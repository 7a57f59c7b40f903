//! The commands, one file each, and how each of them ends.

mod audit;
mod c2d;
mod cert;
mod chaos;
mod cluster;
mod completions;
mod configuration;
mod credentials;
mod demo;
mod device;
mod health;
mod hub;
mod job;
mod join;
mod load;
mod method;
mod module;
mod monitor;
mod named;
mod policy;
mod progress;
mod provisioning;
mod query;
mod quota;
mod recording;
mod renew;
mod routing;
mod send;
mod serve;
mod simulate;
mod sse;
mod table;
mod twin;
mod up;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use dunlin_node::serve::Output;

use hub::HubError;

/// An IoT hub you run yourself: an acknowledged message is on disk on a majority of its replicas.
#[derive(Parser)]
#[command(name = "dunlin", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one node; with no arguments it is a complete hub
    Serve(serve::Serve),
    /// Run a cluster of several nodes on this machine, as real processes
    Up(up::Up),
    /// Kill a node under load and prove that nothing acked was lost
    Demo(demo::Demo),
    /// Load any MQTT server, or this hub: how fast, how late, and whether it kept everything
    Load(load::Load),
    /// Break a cluster in many ways, and get a verdict on what it promised
    Chaos(chaos::Chaos),
    /// Create, list and simulate devices, and send as one
    Device(device::Device),
    /// Create, list and show the modules of a device
    Module(module::Module),
    /// See and change what a hub and a device keep for each other
    Twin(twin::Twin),
    /// Ask a device that is connected, and print its answer
    Method(method::Method),
    /// Ask all devices at once, in IoT Hub's query language
    Query(query::Query),
    /// Change twins, or call a method, of all devices that a condition finds
    Job(job::Job),
    /// Say what many twins shall have, by a condition on them
    Configuration(configuration::Configuration),
    /// Say which events go to which endpoints
    MessageRoute(routing::MessageRoute),
    /// Say where events may go: webhooks, and files of an object store
    MessageEndpoint(routing::MessageEndpoint),
    /// Give events properties on their way to endpoints
    MessageEnrichment(routing::MessageEnrichment),
    /// Hold the hub to a plan of IoT Hub, and see what is used of it
    Quota(quota::Quota),
    /// Send messages to devices, and see after those that they did not take
    C2d(c2d::C2d),
    /// Let one device register that nobody knows yet
    Enrollment(provisioning::Enrollment),
    /// Let many devices register that nobody knows yet
    EnrollmentGroup(provisioning::EnrollmentGroup),
    /// See the provisioning service: its id scope, its hubs, and who has registered
    Dps(provisioning::Dps),
    /// List shared access policies, make and remove them, and give them other keys
    Policy(policy::Policies),
    /// Print what services are given to connect
    ConnectionString(credentials::ConnectionStrings),
    /// Make shared access tokens
    Sas(credentials::Sas),
    /// Print events as they commit, or how messages to devices ended
    Monitor(monitor::Monitor),
    /// See how the cluster is, and change its nodes and replicas
    Cluster(cluster::Cluster),
    /// Ask every node whether it serves; exit code 0 if all do, 1 if not
    Health(health::Health),
    /// Make a cluster's CA, see the certificates of a hub, or renew them
    Cert(cert::Cert),
    /// Check and list what a node has kept of who did what
    Audit(audit::Audit),
    /// Print a script that completes commands in your shell
    Completions(completions::Completions),
}

/// How a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences, for people
    Text,
    /// JSON, for programs
    Json,
}

impl From<Format> for Output {
    fn from(format: Format) -> Output {
        match format {
            Format::Text => Output::Text,
            Format::Json => Output::Json,
        }
    }
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Serve(command) => command.run(),
            Command::Up(command) => command.run(),
            Command::Demo(command) => command.run(),
            Command::Chaos(command) => command.run(),
            Command::Load(command) => end(block_on(command.run())),
            Command::Device(command) => end(block_on(command.run())),
            Command::Twin(command) => end(block_on(command.run())),
            Command::Module(command) => end(block_on(command.run())),
            Command::Method(command) => end(block_on(command.run())),
            Command::Query(command) => end(block_on(command.run())),
            Command::Configuration(command) => end(block_on(command.run())),
            Command::Job(command) => end(block_on(command.run())),
            Command::MessageRoute(command) => end(block_on(command.run())),
            Command::MessageEndpoint(command) => end(block_on(command.run())),
            Command::MessageEnrichment(command) => end(block_on(command.run())),
            Command::Quota(command) => end(block_on(command.run())),
            Command::C2d(command) => end(block_on(command.run())),
            Command::Enrollment(command) => end(block_on(command.run())),
            Command::EnrollmentGroup(command) => end(block_on(command.run())),
            Command::Dps(command) => end(block_on(command.run())),
            Command::Policy(command) => end(block_on(command.run())),
            Command::ConnectionString(command) => end(block_on(command.run())),
            Command::Sas(command) => end(block_on(command.run())),
            Command::Monitor(command) => end(block_on(command.run())),
            Command::Cluster(command) => end(block_on(command.run())),
            Command::Health(command) => end(block_on(command.run())),
            Command::Cert(command) => end(block_on(command.run())),
            Command::Audit(command) => end(command.run()),
            Command::Completions(command) => end(command.run()),
        }
    }
}

/// Why a command did not do what it was asked. Its text is one line that says what to do next.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The hub is not there, or says no.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The command line makes no sense, as clap alone cannot see.
    #[error("{0}")]
    Usage(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
    /// The answer could not be written.
    #[error("write the answer: {0}")]
    Write(#[from] io::Error),
}

type CommandResult = Result<ExitCode, CommandError>;

/// Runs a command that waits, on this thread.
fn block_on(command: impl Future<Output = CommandResult>) -> CommandResult {
    dunlin_node::logging::init("warn");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::Failed(format!("start runtime: {error}")))?;
    runtime.block_on(command)
}

/// Says what went wrong, if anything did.
fn end(result: CommandResult) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        // Whoever read us has seen enough, as `head` does; nothing is wrong with that.
        Err(CommandError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(error) => error,
    };
    eprintln!("error: {error}");
    ExitCode::from(match error {
        CommandError::Usage(_) | CommandError::Hub(HubError::ConnectionString(_) | HubError::NoTrust) => 2,
        _ => 1,
    })
}

/// Writes a line, or lines, to standard output.
fn say(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Text from a device or a file as a terminal may show it: control characters could do things there.
fn shown(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split_whitespace()).is_ok()
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines_are_read() {
        for line in [
            "dunlin device create dev-1 --disabled",
            "dunlin chaos run failover --local 3 --seed 7 --duration 60",
            "dunlin chaos judge dunlin-chaos/failover-7 --json",
            "dunlin chaos show composed",
            "dunlin chaos list",
            "dunlin device create room- --count 100 --data /tmp/x",
            "dunlin device list --top 5 -o json",
            "dunlin device create a --thumbprint ABCD",
            "dunlin enrollment create sn-1 --device-id pump --initial-twin-tags {}",
            "dunlin enrollment update sn-1 --provisioning-status disabled",
            "dunlin enrollment-group create plant --ca-name plant-ca",
            "dunlin enrollment-group compute-device-key plant --registration-id sn-1",
            "dunlin enrollment-group compute-device-key --key AAAA --registration-id sn-1",
            "dunlin dps linked-hub create other.example --hub-connection-string x",
            "dunlin dps registration list --group plant",
            "dunlin connection-string show --policy service --event-hub",
            "dunlin sas generate --device pump-7 --duration 60",
            "dunlin sas generate -d pump-7 --du 60",
            "dunlin sas generate --policy-name service --duration 60",
            "dunlin sas generate --pn service",
            "dunlin connection-string show --pn service",
            "dunlin device create -d dev-1 --disabled",
            "dunlin device show --device-id dev-1",
            "dunlin device update -d dev-1 --status disabled",
            "dunlin device renew-key -d dev-1 --key swap",
            "dunlin device connection-string -d dev-1",
            "dunlin device delete -d dev-1 -y",
            "dunlin device erase a -d b --yes",
            "dunlin device send -d dev-1 --da {} --props a=b;c=d",
            "dunlin device send dev-1 --body {} -p a=b -p c=",
            "dunlin device simulate -d a --count 5",
            "dunlin module list -d dev-1",
            "dunlin twin show -d dev-1/cam",
            "dunlin twin update -d dev-1 --tags {}",
            "dunlin c2d purge -d dev-1 --yes",
            "dunlin c2d dead-letters -d dev-1 --resubmit 7",
            "dunlin monitor events -d dev-1",
            "dunlin monitor twin-changes --device-id dev-1",
            "dunlin device create a --by-authority --disabled",
            "dunlin device --data /tmp/x delete dev-1 --yes",
            "dunlin device send dev-1 --body {} --property a=b --property c=",
            "dunlin device simulate a b --interval 0 --messages 10",
            "dunlin device simulate a --from-csv room.csv --speed 60",
            "dunlin twin show dev-1 -o json",
            "dunlin twin update dev-1 --desired {\"a\":1} --tags {} --etag AAAAAAAAAAE=",
            "dunlin twin replace dev-1 --desired {}",
            "dunlin job create --job-id j --job-type scheduleUpdateTwin -q * --twin-patch {\"tags\":{}} --wait",
            "dunlin job create -j j --job-type scheduleDeviceMethod --query-condition * --method-name m --ttl 60",
            "dunlin job list --job-type scheduleDeviceMethod --job-status running --top 5 -o json",
            "dunlin job show --job-id j",
            "dunlin job cancel -j j",
            "dunlin method invoke dev-1 reboot --payload {\"in\":5} --timeout 10 --connect-timeout 60",
            "dunlin c2d send dev-1 --body on --property a=b --ack full --expiry 2030-01-01T00:00:00Z --message-id m",
            "dunlin c2d purge dev-1 --yes",
            "dunlin c2d dead-letters dev-1 -o json",
            "dunlin c2d dead-letters dev-1 --resubmit 7",
            "dunlin monitor events --shard 3 --from 17 -o json",
            "dunlin monitor events --from beginning --device dev-1 --count 5",
            "dunlin monitor feedback --count 2",
            "dunlin monitor file-notifications --count 2 -o json",
            "dunlin cluster status",
            "dunlin cluster drain 0af3 --force",
            "dunlin cluster set-replication 3",
            "dunlin cluster token --minutes 5 --data x",
            "dunlin cluster join dunlin-join-abc --data y",
            "dunlin cluster recover --accept-loss",
            "dunlin health --connection-string HostName=h;SharedAccessKeyName=n;SharedAccessKey=k --ca ca.pem",
            "dunlin cert show",
            "dunlin cert authority add plant-7 ca.pem --data x",
            "dunlin cert authority list -o json",
            "dunlin cert authority remove plant-7",
            "dunlin cert ca --data /tmp/x",
            "dunlin cert init --pki /tmp/x -o json",
            "dunlin audit verify --data /tmp/x -o json",
            "dunlin audit verify audit.log.1 audit.log",
            "dunlin audit --data-dir /tmp/x verify",
            "dunlin audit show --limit 5 --data /tmp/x",
            "dunlin audit show audit.log -o json",
            "dunlin serve --roles gateway --seeds shard:8900",
            "dunlin serve --roles shard,gateway",
            "dunlin up -n 3 --gateways 2",
            "dunlin cert renew -o json",
            "dunlin serve --otlp-endpoint http://localhost:4318 --trace-ratio 1",
            "dunlin serve --tls-cert a.pem --tls-key a.key",
            "dunlin chaos hostile --kind malformed,half-open --count 2000 --target /tmp/x",
            "dunlin chaos hostile --kind bombs --local 3 --plain --packets 1000 --json",
            "dunlin completions bash",
            "dunlin load pub -h a,b -p 1884 -c 10 -i 5 -I 100 -t t/%i -s 64 -q 1 -V 5 -F 8 -u n -P p",
            "dunlin load pub --rate 1000 --duration 5 --warm-up 0 --verify -o json --data x",
            "dunlin load pub -h b --tls --insecure -t t --count 10 --closed --hdr f --report r.html",
            "dunlin load twin -c 20 --rate 1000 -s 64 -F 1",
            "dunlin load method -c 20 --rate 100 -s 64 -F 8 --plain",
            "dunlin load sub -h b -t t/# --ws --duration 0 --keep-session",
            "dunlin load conn -c 5 --plain",
            "dunlin load null-sink --port 0 --wal 3 --folder x",
            "dunlin load merge a.hdr b.json -o json",
            "dunlin load compare --targets dunlin,m=mqtt://b:1883 -t t/%i --rounds 2",
            "dunlin load pub --generator 2/3 --start-at 1700000000000 --threads 2",
            "dunlin chaos fs /mnt/disk /var/disk --control /run/disk.sock --seed 7",
        ] {
            assert!(parses(line), "{line}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "dunlin chaos run",
            "dunlin chaos run failover --local 0",
            "dunlin device create",
            "dunlin device create a#b",
            "dunlin device create a --count 0",
            "dunlin device create a --count 2 --by-authority",
            "dunlin device create a --by-authority --thumbprint AB",
            "dunlin device send dev-1",
            "dunlin device send dev-1 --body x --property novalue",
            "dunlin device send dev-1 --body x -p novalue",
            "dunlin device send dev-1 -d dev-1 --body x",
            "dunlin device show",
            "dunlin device show dev-1 -d dev-1",
            "dunlin device delete --yes",
            "dunlin twin update -d dev-1",
            "dunlin sas generate -d pump-7 --pn service",
            "dunlin audit",
            "dunlin audit show --limit 0",
            "dunlin device simulate",
            "dunlin twin update dev-1",
            "dunlin twin replace dev-1 --etag x",
            "dunlin method invoke dev-1",
            "dunlin job create --job-id j --job-type scheduleUpdateTwin -q *",
            "dunlin job create --job-id j --job-type scheduleDeviceMethod -q *",
            "dunlin job create --job-id j --job-type export -q * --twin-patch {}",
            "dunlin job create --job-id j --job-type scheduleUpdateTwin --twin-patch {}",
            "dunlin job show j",
            "dunlin job list --job-status sometimes",
            "dunlin method invoke dev-1 reboot --payload {",
            "dunlin method invoke dev-1 reboot --timeout 301",
            "dunlin device simulate a --speed 2",
            "dunlin device simulate a --from-csv x --speed 0",
            "dunlin device simulate a --from-csv x --speed 2 --interval 5",
            "dunlin monitor events --from yesterday",
            "dunlin monitor",
            "dunlin c2d send dev-1",
            "dunlin c2d send dev-1 --body x --ack sometimes",
            "dunlin c2d dead-letters dev-1 --drop 1 --show 1",
            "dunlin cluster join",
            "dunlin cluster drain",
            "dunlin chaos hostile --kind nice --local 1",
            "dunlin chaos hostile --kind bombs",
            "dunlin chaos hostile --kind bombs --local 1 --target /tmp/x",
            "dunlin completions cobol",
            "dunlin chaos fs /mnt/disk /var/disk",
            "dunlin serve --roles cook",
            "dunlin serve --roles shard, gateway",
            "dunlin cert init",
            "dunlin cert authority add plant-7",
            "dunlin load pub -h b -t %z",
            "dunlin load pub --rate 10 -I 10",
            "dunlin load pub --rate 10 --closed",
            "dunlin load pub -q 3",
            "dunlin load pub --insecure -h b",
            "dunlin load pub --generator 4/3",
            "dunlin load sub -h b",
            "dunlin load merge",
            "dunlin load compare -t t",
        ] {
            assert!(!parses(line), "{line}");
        }
    }

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        assert_eq!(shown("21 °C\u{1b}[2J\n"), "21 °C\\u{1b}[2J\\n");
    }
}
