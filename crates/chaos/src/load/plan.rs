//! What a load is told: where, who, what, when and for how long. Plain data, made by whoever runs a load.

use std::time::{Duration, SystemTime};

use dunlin_gateway::mqtt::Version;

use super::content::Content;
use super::dial::{Door, Wrapping};
use super::schedule::Schedule;
use super::template::Template;

/// Threads at the most.
pub const THREADS_MAX: usize = 64;
/// Clients of one generator at the most; a generator is bound by its ports and files long before.
pub const CLIENTS_MAX: u64 = 1_000_000;

/// How long answers are waited for at the end, unless told otherwise.
const DRAIN: Duration = Duration::from_secs(20);

/// One client.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its number within the whole run, all generators together.
    pub index: u64,
    /// Its client id.
    pub id: String,
    /// Its user name.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// Where it publishes or what it subscribes to, its own places filled in.
    pub topic: Template,
    /// Which door it comes to, counted on beyond the last.
    pub door: usize,
}

/// What the clients do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Publish.
    Publish {
        /// 0, 1 or 2.
        qos: u8,
        /// Messages that a client may have unacknowledged; with QoS 0, that it writes at a time.
        window: u16,
        /// When; without a schedule, whenever a window has room.
        schedule: Option<Schedule>,
        /// Messages of the whole run, if they are bounded.
        count_max: Option<u64>,
        /// Clients of the whole run, all generators together.
        clients: u64,
        /// What.
        content: Content,
    },
    /// Subscribe, and take what comes.
    Subscribe {
        /// 0, 1 or 2.
        qos: u8,
    },
    /// Stay connected.
    Connect,
}

/// A client beside the others that takes everything of one writer, for a comparison.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The client.
    pub client: Client,
    /// Whose messages are kept.
    pub writer: String,
}

/// A whole run of one generator.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the server is, one door or several that are used in turn.
    pub doors: Vec<Door>,
    /// What is between us and MQTT.
    pub wrapping: Wrapping,
    /// Protocol version.
    pub version: Version,
    /// Whether a session begins anew with each connection.
    pub clean: bool,
    /// Seconds; 0 for none.
    pub keep_alive_s: u16,
    /// This generator's clients.
    pub clients: Vec<Client>,
    /// What they do.
    pub action: Action,
    /// A listener beside them.
    pub listener: Option<Listener>,
    /// Whether each message is kept for a comparison.
    pub keeps_history: bool,
    /// Between the connects of two clients.
    pub connect_interval: Duration,
    /// Load before the measured window.
    pub warm_up: Duration,
    /// The measured window; without one the run ends when all messages are sent.
    pub duration: Option<Duration>,
    /// How long answers are waited for at the end.
    pub drain: Duration,
    /// When the load starts, so that several generators start as one.
    pub start_at: Option<SystemTime>,
    /// Threads.
    pub threads: usize,
}

impl Default for Plan {
    /// Nobody goes nowhere; connections without keep-alive that stay for no time.
    fn default() -> Self {
        Self {
            doors: Vec::new(),
            wrapping: Wrapping::default(),
            version: Version::V3,
            clean: true,
            keep_alive_s: 0,
            clients: Vec::new(),
            action: Action::Connect,
            listener: None,
            keeps_history: false,
            connect_interval: Duration::ZERO,
            warm_up: Duration::ZERO,
            duration: Some(Duration::ZERO),
            drain: DRAIN,
            start_at: None,
            threads: 1,
        }
    }
}
