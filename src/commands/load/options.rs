//! The options that loads share, with the letters that emqtt-bench and mosquitto_pub gave them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{ArgAction, Args};
use dunlin_chaos::load::content::{Content, PAYLOAD_BYTES_MAX, Ring};
use dunlin_chaos::load::plan::{Action, CLIENTS_MAX, THREADS_MAX};
use dunlin_chaos::load::publisher::WINDOW_MAX;
use dunlin_chaos::load::report;
use dunlin_chaos::load::schedule::{Schedule, Share};
use dunlin_chaos::load::template::{self, Template, TemplateError};
use dunlin_chaos::payload::Payloads;
use dunlin_gateway::mqtt::Version;

use super::shown::Shown;
use crate::commands::CommandError;

/// How long a load lasts if nothing says how long.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// Nanoseconds between two messages of a client if nothing says how fast: a second, as with emqtt-bench.
const INTERVAL_NS_DEFAULT: u64 = 1_000_000_000;
/// Nanoseconds of a millisecond.
const MS_NS: f64 = 1e6;
const SECONDS_MAX: f64 = 31.0 * 24.0 * 3600.0;

/// Where the server is, and who comes to it.
#[derive(Args, Debug, Clone)]
pub(super) struct Server {
    /// Print this
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// MQTT server, or several that are used in turn [default: the hub that `--data` means]
    #[arg(
        short = 'h',
        long,
        value_name = "HOST",
        value_delimiter = ',',
        help_heading = "Which server"
    )]
    pub(super) host: Vec<String>,
    /// Its port [default: 1883, 8883 with TLS, 80 or 443 with WebSocket]
    #[arg(
        short,
        long,
        value_name = "PORT",
        help_heading = "Which server",
        requires = "host"
    )]
    pub(super) port: Option<u16>,
    /// TLS
    #[arg(long, help_heading = "Which server")]
    pub(super) tls: bool,
    /// Authority to trust (PEM) [default: those of this system]
    #[arg(long, value_name = "FILE", help_heading = "Which server", requires = "tls")]
    pub(super) cafile: Option<PathBuf>,
    /// Trust whoever answers
    #[arg(
        long,
        help_heading = "Which server",
        requires = "tls",
        conflicts_with = "cafile"
    )]
    pub(super) insecure: bool,
    /// MQTT over WebSocket
    #[arg(long, help_heading = "Which server")]
    pub(super) ws: bool,
    /// Path of the WebSocket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/mqtt",
        help_heading = "Which server"
    )]
    pub(super) ws_path: String,
    /// A hub's MQTT without TLS, where it has it
    #[arg(long, help_heading = "Which server", conflicts_with_all = ["host", "tls", "ws"])]
    pub(super) plain: bool,
    /// Clients
    #[arg(short, long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX))]
    pub(super) clients: u64,
    /// Milliseconds between the connects of two clients
    #[arg(short = 'i', long, value_name = "MS", default_value_t = 0)]
    pub(super) connect_interval: u64,
    /// Client ids; %i is the client's number, from 1 [default: load-%i with a hub, whose devices they
    /// are; else one that no other run has]
    #[arg(long, value_name = "TEMPLATE", value_parser = template::parse_client_id)]
    pub(super) client_id: Option<Template>,
    /// User name
    #[arg(short, long, value_name = "NAME", requires = "host")]
    pub(super) username: Option<String>,
    /// Password
    #[arg(
        short = 'P',
        long,
        value_name = "TEXT",
        requires = "username",
        env = "DUNLIN_LOAD_PASSWORD",
        hide_env_values = true
    )]
    pub(super) password: Option<String>,
    /// MQTT version: 3.1.1 or 5
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "3.1.1", value_parser = parse_version)]
    pub(super) mqtt_version: Version,
    /// Seconds of keep-alive; 0 for none
    #[arg(short, long, value_name = "S", default_value_t = 300)]
    pub(super) keep_alive: u16,
    /// Sessions outlive their connections (clean session off)
    #[arg(long)]
    pub(super) keep_session: bool,
}

/// How a run is made and shown.
#[derive(Args, Debug, Clone)]
pub(super) struct Making {
    /// Threads of this generator
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX as u64))]
    pub(super) threads: u64,
    /// Be the second of three generators, say: 2/3. Each has its share of the clients and of the rate
    #[arg(long, value_name = "K/N", value_parser = Share::parse)]
    pub(super) generator: Option<Share>,
    /// Start the load at this time, in milliseconds since 1970, so that generators start as one
    #[arg(long, value_name = "MS")]
    pub(super) start_at: Option<u64>,
    /// Leave out the second that it takes to find this generator's ceiling
    #[arg(long)]
    pub(super) no_ceiling: bool,
    #[command(flatten)]
    pub(super) shown: Shown,
}

impl Making {
    pub(super) fn share(&self) -> Share {
        self.generator.unwrap_or(Share::ALL)
    }

    pub(super) fn starts(&self) -> Option<SystemTime> {
        self.start_at.map(|ms| UNIX_EPOCH + Duration::from_millis(ms))
    }
}

/// When messages are due, or calls.
#[derive(Args, Debug, Clone)]
pub(super) struct Pace {
    /// Open loop: milliseconds between two messages, or calls, of a client [default: 1000, without
    /// --rate and --closed]
    #[arg(short = 'I', long, value_name = "MS", value_parser = parse_interval, conflicts_with = "rate")]
    pub(super) interval: Option<u64>,
    /// Open loop: messages, or calls, per second of all clients together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(super) rate: Option<u64>,
    /// Closed loop: no schedule, the next leaves as soon as -F has room for it
    #[arg(long, conflicts_with_all = ["rate", "interval"])]
    pub(super) closed: bool,
}

impl Pace {
    /// The schedule of `clients` clients, if there is one.
    pub(super) fn schedule(&self, clients: u64, count_max: Option<u64>) -> Option<Schedule> {
        if self.closed {
            return None;
        }
        Some(match (self.rate, self.interval) {
            (Some(rate), _) => Schedule::of_rate(rate, clients, count_max),
            (None, interval) => {
                Schedule::of_interval(interval.unwrap_or(INTERVAL_NS_DEFAULT), clients, count_max)
            }
        })
    }
}

/// What is published, and when.
#[derive(Args, Debug, Clone)]
pub(super) struct Messages {
    /// Topic; %i is the client's number (%4i: modulo 4), %c its id, %u its user name, %s the number
    /// of the message
    #[arg(short, long, value_name = "TEMPLATE", value_parser = Template::parse)]
    pub(super) topic: Option<Template>,
    /// Bytes of a payload
    #[arg(short, long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u64).range(0..=PAYLOAD_BYTES_MAX as u64))]
    pub(super) size: u64,
    /// 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(super) qos: u8,
    /// Messages of a client that may be unacknowledged
    #[arg(short = 'F', long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=i64::from(WINDOW_MAX)))]
    pub(super) inflight: u16,
    #[command(flatten)]
    pub(super) pace: Pace,
    /// Seconds that are measured [default: 10, or until --count messages are sent]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub(super) duration: Option<Duration>,
    /// Seconds of load before that [default: 2, none with --count]
    #[arg(long, value_name = "S", value_parser = parse_seconds)]
    pub(super) warm_up: Option<Duration>,
    /// Messages of all clients together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// Recording whose rows are sent as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) csv: Option<PathBuf>,
    /// Measure beforehand what a server comes to that only syncs each message to so many logs in the
    /// system's folder for temporary files: 1, or 3 as on three nodes
    #[arg(long, value_name = "LOGS", value_parser = parse_floor)]
    pub(super) floor: Option<usize>,
}

impl Messages {
    fn schedule(&self, clients: u64) -> Option<Schedule> {
        self.pace.schedule(clients, self.count)
    }

    pub(super) fn window(&self) -> Option<Duration> {
        match (self.duration, self.count) {
            (None, Some(_)) => None,
            (duration, _) => Some(duration.unwrap_or(DURATION_DEFAULT)),
        }
    }

    pub(super) fn warm_up(&self) -> Duration {
        let default = if self.count.is_some() { 0 } else { 2 };
        self.warm_up.unwrap_or(Duration::from_secs(default))
    }

    /// What the clients do, `clients` of them in the whole run. `writer` makes every message tell whose
    /// it is.
    pub(super) fn action(&self, clients: u64, writer: Option<&str>) -> Result<Action, CommandError> {
        if self.floor.is_some() && self.qos == 0 {
            return Err(CommandError::Usage(
                "a message of QoS 0 is not acknowledged, and so has no floor: --floor needs -q 1 or -q 2"
                    .into(),
            ));
        }
        let size = usize::try_from(self.size).unwrap_or(PAYLOAD_BYTES_MAX);
        let content = if writer.is_some() || self.csv.is_some() {
            let payloads = Payloads::new(writer.unwrap_or("load").to_owned(), self.csv.as_deref())
                .map_err(|error| CommandError::Failed(error.to_string()))?;
            Content::Numbered {
                payloads: Arc::new(payloads),
                // A recording's rows are as long as they are.
                size_min: if self.csv.is_some() { 0 } else { size },
            }
        } else {
            Content::Ring(Arc::new(Ring::new(size)))
        };
        Ok(Action::Publish {
            qos: self.qos,
            window: self.inflight,
            schedule: self.schedule(clients),
            count_max: self.count,
            clients,
            content,
        })
    }

    /// The load in words.
    pub(super) fn describe(&self, clients: u64) -> String {
        let pace = match self.schedule(clients) {
            Some(schedule) => format!("open loop, {}", report::per_s(schedule.per_s())),
            None => format!("closed loop, {} in flight each", self.inflight),
        };
        let payload = match &self.csv {
            Some(path) => format!("rows of {}", path.display()),
            None => format!("{} bytes", self.size),
        };
        format!("{clients} clients, QoS {}, {payload}, {pace}", self.qos)
    }
}

fn parse_version(text: &str) -> Result<Version, String> {
    match text {
        "3.1.1" | "311" | "mqttv311" | "4" | "3" => Ok(Version::V3),
        "5" | "5.0" | "mqttv5" => Ok(Version::V5),
        _ => Err("3.1.1 or 5".into()),
    }
}

/// Milliseconds, whole or not, as nanoseconds.
fn parse_interval(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(ms) if ms * MS_NS >= 1.0 && ms <= SECONDS_MAX * 1000.0 => Ok((ms * MS_NS) as u64),
        _ => Err("milliseconds above 0".into()),
    }
}

fn parse_floor(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1 or 3".into()),
    }
}

pub(super) fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=SECONDS_MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("seconds, 0 or more".into()),
    }
}

/// Why a template makes no sense, as a mistake on the command line.
pub(super) fn usage(error: TemplateError) -> CommandError {
    CommandError::Usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        messages: Messages,
    }

    fn messages(words: &str) -> Messages {
        let line = ["pub"].into_iter().chain(words.split_whitespace());
        Line::try_parse_from(line).unwrap().messages
    }

    #[test]
    fn a_load_is_open_unless_it_is_told_to_be_closed() {
        let per_s = |words| messages(words).schedule(200).map(|schedule| schedule.per_s());
        assert_eq!(per_s(""), Some(200.0), "each client once a second");
        assert_eq!(per_s("-I 100"), Some(2000.0));
        assert_eq!(per_s("--rate 70"), Some(70.0));
        assert_eq!(per_s("--closed"), None);
        assert!(messages("").describe(200).ends_with("open loop, 200/s"));
        assert!(
            messages("--closed")
                .describe(200)
                .ends_with("closed loop, 32 in flight each")
        );
        // A bounded load has as many messages in either loop.
        let schedule = messages("--count 3").schedule(2).unwrap();
        assert_eq!(
            (schedule.at_ns(2), schedule.at_ns(3)),
            (Some(1_000_000_000), None)
        );
    }

    #[test]
    fn a_floor_is_that_of_one_log_or_three_and_of_acknowledged_messages() {
        assert_eq!(messages("--floor 3").floor, Some(3));
        assert!(messages("--floor 1").action(1, None).is_ok());
        assert!(messages("--floor 1 -q 0").action(1, None).is_err());
        assert!(Line::try_parse_from(["pub", "--floor", "2"]).is_err());
    }

    #[test]
    fn numbers_are_read() {
        assert_eq!(parse_interval("0.5"), Ok(500_000));
        assert_eq!(parse_seconds("1.5"), Ok(Duration::from_millis(1500)));
        for nonsense in ["0", "-1", "x", "NaN", "inf"] {
            assert!(parse_interval(nonsense).is_err(), "{nonsense}");
        }
        for nonsense in ["-1", "x", "NaN", "inf"] {
            assert!(parse_seconds(nonsense).is_err(), "{nonsense}");
        }
        assert_eq!(parse_version("mqttv5"), Ok(Version::V5));
        assert!(parse_version("2").is_err());
    }
}
