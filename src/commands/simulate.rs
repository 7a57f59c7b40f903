//! `dunlin device simulate`: devices that send made-up values or a recording, as devices do: they
//! come back when their gateway goes away, and send again what was not acknowledged.
//!
//! Each device is a task of its own; [`Fleet`] watches over them and says how they are.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use dunlin_gateway::client::{Client, ClientError, Event};
use dunlin_model::id::DeviceId;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::hub::{Connect, Hub};
use super::named::ManyDevices;
use super::recording::Recording;
use super::{CommandError, CommandResult, Format, device, say, send};

/// Messages of one device that may be unacknowledged.
const WINDOW: usize = 64;
/// Time for an acknowledgement; then the connection counts as lost, as with a gateway that hangs.
const ACK_WAIT: Duration = Duration::from_secs(20);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Devices that connect at a time.
const CONNECTS_MAX: usize = 64;
/// A device that is later than this goes on from now, instead of sending all at once.
const LATE_MAX: Duration = Duration::from_secs(1);
/// How long the last acknowledgements are waited for after Ctrl-C.
const GRACE: Duration = Duration::from_secs(5);
/// Times that a device may be cut off by another before it leaves the name to it.
const TAKEOVERS_MAX: u32 = 3;
/// Between two states of the live line, and between two lines where there is no terminal.
const TICK: Duration = Duration::from_millis(500);
const TICKS_PER_LINE: u32 = 20;
/// Ticks over which the rate is taken.
const RATE_TICKS: usize = 10;

#[derive(Args)]
pub(crate) struct Simulate {
    #[command(flatten)]
    devices: ManyDevices,
    /// Run ID1 to IDN, where ID is what their names begin with
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(device::COUNT_MAX)))]
    count: Option<u32>,
    /// Milliseconds between two messages of a device; 0 sends as fast as they are acknowledged
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    interval: u64,
    /// Messages of each device [default: the recording once, or without end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// Recording to replay: each row becomes a JSON object
    #[arg(long, value_name = "FILE")]
    from_csv: Option<PathBuf>,
    /// Replay in the recording's own time, so many times as fast, instead of --interval
    #[arg(
        long,
        value_name = "FACTOR",
        requires = "from_csv",
        conflicts_with = "interval",
        value_parser = parse_speed
    )]
    speed: Option<f64>,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err("a factor above 0, like 60 for a minute a second".into()),
    }
}

impl Simulate {
    pub(crate) async fn run(self, hub: Hub, output: Format) -> CommandResult {
        let plan = Arc::new(self.plan()?);
        let ids = self.devices.ids();
        let ids = match (ids.as_slice(), self.count) {
            ([prefix], Some(count)) => device::numbered(prefix, count)?,
            (_, Some(_)) => return Err(CommandError::Usage("--count takes one ID to number".into())),
            (_, None) => ids,
        };
        let found = device::ensure(&hub, &ids).await?;
        if let Some((disabled, _)) = found.iter().find(|(found, _)| !found.is_enabled()) {
            return Err(CommandError::Failed(format!(
                "device {} is disabled",
                disabled.device_id
            )));
        }
        let created = found.iter().filter(|(_, created)| *created).count();
        if created > 0 {
            eprintln!("Created {} that did not exist.", device::counted(created as u64));
        }
        let keys = found.iter().map(|(found, _)| found.key().to_owned());
        let fleet = Fleet::start(hub, plan, ids.into_iter().zip(keys).collect());
        fleet.watch(output).await
    }

    fn plan(&self) -> Result<Plan, CommandError> {
        let Some(path) = &self.from_csv else {
            return Ok(Plan {
                recording: None,
                pace: self.pace(),
                messages: self.messages,
            });
        };
        let unusable = |error| CommandError::Failed(format!("replay {}: {error}", path.display()));
        let recording = Recording::open(path).map_err(unusable)?;
        let pace = match self.speed {
            Some(speed) => Pace::Recorded(recording.gaps(speed).map_err(unusable)?),
            None => self.pace(),
        };
        let messages = Some(self.messages.unwrap_or(recording.rows.len() as u64));
        Ok(Plan {
            recording: Some(recording),
            pace,
            messages,
        })
    }

    fn pace(&self) -> Pace {
        Pace::Even(Duration::from_millis(self.interval))
    }
}

/// What every device sends, and when.
struct Plan {
    recording: Option<Recording>,
    pace: Pace,
    /// Messages of each device; `None` without end.
    messages: Option<u64>,
}

enum Pace {
    Even(Duration),
    /// The time after each row.
    Recorded(Vec<Duration>),
}

impl Plan {
    /// Message number `number` (from 0), and the time until the next one.
    fn message(&self, number: u64, values: &mut Values) -> (String, Duration) {
        let row = |count: usize| (number % count.max(1) as u64) as usize;
        let body = match &self.recording {
            Some(recording) => recording.rows[row(recording.rows.len())].body.clone(),
            None => values.next(number),
        };
        let gap = match &self.pace {
            Pace::Even(interval) => *interval,
            Pace::Recorded(gaps) => gaps[row(gaps.len())],
        };
        (body, gap)
    }

    fn is_over(&self, number: u64) -> bool {
        self.messages.is_some_and(|messages| number >= messages)
    }
}

/// Made-up values of one device, which wander like those of a room.
struct Values {
    temperature: f64,
    humidity: f64,
}

impl Values {
    fn new() -> Self {
        Self {
            temperature: rand::random_range(18.0..24.0),
            humidity: rand::random_range(35.0..55.0),
        }
    }

    fn next(&mut self, number: u64) -> String {
        self.temperature = (self.temperature + rand::random_range(-0.2..=0.2)).clamp(10.0, 35.0);
        self.humidity = (self.humidity + rand::random_range(-0.5..=0.5)).clamp(10.0, 90.0);
        let rounded = |value: f64| (value * 100.0).round() / 100.0;
        json!({ "number": number, "temperature": rounded(self.temperature), "humidity": rounded(self.humidity) })
            .to_string()
    }
}

/// What all devices together have done.
#[derive(Default)]
struct Tally {
    connected: AtomicU64,
    sent: AtomicU64,
    acked: AtomicU64,
    resent: AtomicU64,
    reconnects: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A message that is not acknowledged.
struct Pending {
    /// Its id in the present connection.
    id: u16,
    topic: String,
    body: String,
    sent: Instant,
}

/// How a connection ended.
enum Over {
    /// Nothing is left to do.
    Done,
    /// Come back.
    Lost(String),
    /// Never come back.
    Refused(String),
}

/// One device.
struct Simulated {
    hub: Arc<Hub>,
    plan: Arc<Plan>,
    tally: Arc<Tally>,
    connects: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
    device: DeviceId,
    key: String,
    /// Spreads devices over the gateways, and counts up with each connect.
    attempt: usize,
    /// Distinguishes this run's message ids from those of others.
    run: u32,
    values: Values,
    /// Messages begun.
    begun: u64,
    /// Messages acknowledged.
    acked: u64,
    /// When the next one is due.
    due: Instant,
    pending: VecDeque<Pending>,
}

impl Simulated {
    async fn run(mut self) -> Result<(), String> {
        let (mut backoff, mut takeovers, mut was_connected) = (BACKOFF_MIN, 0, false);
        while !self.is_done() {
            let acked_before = self.acked;
            let over = match self.connect().await {
                Err(error) => self.refused(&error),
                Ok(mut client) => {
                    add(if was_connected {
                        &self.tally.reconnects
                    } else {
                        &self.tally.connected
                    });
                    if was_connected {
                        add(&self.tally.connected);
                    }
                    was_connected = true;
                    let over = self.talk(&mut client, &mut takeovers).await;
                    self.tally.connected.fetch_sub(1, Ordering::Relaxed);
                    if matches!(over, Over::Done) {
                        client.disconnect().await;
                    }
                    over
                }
            };
            match over {
                Over::Done => break,
                Over::Refused(why) => return Err(format!("{}: {why}", self.device)),
                Over::Lost(why) => tracing::debug!(device = %self.device, why, "connection lost"),
            }
            self.attempt += 1;
            if self.acked > acked_before {
                backoff = BACKOFF_MIN;
            }
            sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        Ok(())
    }

    /// Whether nothing is left to send and nothing to wait for.
    fn is_done(&self) -> bool {
        self.pending.is_empty() && (*self.stop.borrow() || self.plan.is_over(self.begun))
    }

    async fn connect(&self) -> Result<Client, ClientError> {
        // The semaphore is never closed.
        let _permit = self.connects.acquire().await;
        self.hub
            .connect(
                &self.device,
                &self.key,
                Connect {
                    attempt: self.attempt,
                    window: WINDOW,
                    receipts: false,
                },
            )
            .await
    }

    fn refused(&self, error: &ClientError) -> Over {
        let why = send::reason(&self.device, error);
        match error {
            // "Not authorized" is certain; any other trouble is the cluster's and may pass.
            ClientError::Refused(0x84..=0x87 | 0x8A | 0x8C) | ClientError::Options(_) => Over::Refused(why),
            _ => Over::Lost(why),
        }
    }

    /// One connection, from what was left by the one before.
    async fn talk(&mut self, client: &mut Client, takeovers: &mut u32) -> Over {
        match self.exchange(client).await {
            Err(error) => Over::Lost(error.to_string()),
            Ok(Over::Lost(why)) if why == send::end_reason(Some(0x8E)) => {
                *takeovers += 1;
                if *takeovers >= TAKEOVERS_MAX {
                    Over::Refused(why)
                } else {
                    Over::Lost(why)
                }
            }
            Ok(over) => over,
        }
    }

    async fn exchange(&mut self, client: &mut Client) -> Result<Over, ClientError> {
        for pending in &mut self.pending {
            pending.id = client.publish(&pending.topic, pending.body.as_bytes()).await?;
            pending.sent = Instant::now();
            add(&self.tally.resent);
        }
        loop {
            self.send_due(client).await?;
            if self.is_done() {
                return Ok(Over::Done);
            }
            let stopping = *self.stop.borrow();
            let may_send = !stopping && !self.plan.is_over(self.begun) && self.pending.len() < WINDOW;
            let ack_due = self.pending.front().map(|pending| pending.sent + ACK_WAIT);
            tokio::select! {
                event = client.next_event() => match event {
                    Event::Puback { id, .. } => self.on_ack(id),
                    // It is sent again, on another connection and after its pause.
                    Event::Refused { reason, .. } => return Ok(Over::Lost(send::end_reason(Some(reason)))),
                    Event::Disconnected { reason } => {
                        let why = send::end_reason(reason);
                        // The same message would end the next connection as well.
                        let is_final = matches!(reason, Some(0x90 | 0x95));
                        return Ok(if is_final { Over::Refused(why) } else { Over::Lost(why) });
                    }
                    _ => {}
                },
                () = sleep_until(self.due), if may_send => {}
                () = sleep_until(ack_due.unwrap_or(self.due)), if ack_due.is_some() => {
                    return Ok(Over::Lost("no acknowledgement in time".to_owned()));
                }
                _ = self.stop.changed(), if !stopping => {}
            }
        }
    }

    /// Publishes what is due; it leaves together when the connection is waited for.
    async fn send_due(&mut self, client: &mut Client) -> Result<(), ClientError> {
        while self.pending.len() < WINDOW && !self.plan.is_over(self.begun) && !*self.stop.borrow() {
            let now = Instant::now();
            if self.due > now {
                break;
            }
            let (body, gap) = self.plan.message(self.begun, &mut self.values);
            // Readers can tell by the message id what was sent twice.
            let message_id = format!("{:08x}-{}", self.run, self.begun);
            let properties = [
                ("$.mid", message_id.as_str()),
                ("$.ct", "application/json"),
                ("$.ce", "utf-8"),
            ];
            let topic = send::topic(&self.device, &properties)
                .map_err(|error| ClientError::Options(error.to_string()))?;
            self.begun += 1;
            self.due = if now - self.due > LATE_MAX {
                now + gap
            } else {
                self.due + gap
            };
            // Kept before it is sent: a connection that fails now must not lose it.
            self.pending.push_back(Pending {
                id: 0,
                topic,
                body,
                sent: now,
            });
            add(&self.tally.sent);
            if let Some(pending) = self.pending.back_mut() {
                pending.id = client.publish(&pending.topic, pending.body.as_bytes()).await?;
            }
        }
        Ok(())
    }

    fn on_ack(&mut self, id: u16) {
        // In order, as a rule, so it is the first.
        if let Some(place) = self.pending.iter().position(|pending| pending.id == id) {
            self.pending.remove(place);
            self.acked += 1;
            add(&self.tally.acked);
        }
    }
}

/// All devices of this run.
struct Fleet {
    tasks: JoinSet<Result<(), String>>,
    tally: Arc<Tally>,
    stop: watch::Sender<bool>,
    device_count: usize,
    /// Messages of all devices together, if there is an end.
    total: Option<u64>,
    started: Instant,
}

impl Fleet {
    fn start(hub: Hub, plan: Arc<Plan>, devices: Vec<(DeviceId, String)>) -> Fleet {
        let (hub, tally) = (Arc::new(hub), Arc::new(Tally::default()));
        let connects = Arc::new(Semaphore::new(CONNECTS_MAX));
        let (stop, stopped) = watch::channel(false);
        let (device_count, run, started) = (devices.len(), rand::random(), Instant::now());
        let mut tasks = JoinSet::new();
        for (place, (device, key)) in devices.into_iter().enumerate() {
            // Devices of the same interval do not all speak at the same time.
            let shift = match plan.pace {
                Pace::Even(interval) => interval.mul_f64(place as f64 / device_count as f64),
                Pace::Recorded(_) => Duration::ZERO,
            };
            let simulated = Simulated {
                hub: Arc::clone(&hub),
                plan: Arc::clone(&plan),
                tally: Arc::clone(&tally),
                connects: Arc::clone(&connects),
                stop: stopped.clone(),
                device,
                key,
                attempt: place,
                run,
                values: Values::new(),
                begun: 0,
                acked: 0,
                due: started + shift,
                pending: VecDeque::new(),
            };
            tasks.spawn(simulated.run());
        }
        let total = plan
            .messages
            .map(|messages| messages.saturating_mul(device_count as u64));
        Fleet {
            tasks,
            tally,
            stop,
            device_count,
            total,
            started,
        }
    }

    /// Shows how they are until they are done, or until Ctrl-C.
    async fn watch(mut self, output: Format) -> CommandResult {
        let bar = self.live_line();
        let mut signal = pin!(dunlin_node::serve::stop_signal());
        let mut ticks = tokio::time::interval(TICK);
        let mut rate = Rate::default();
        let mut grace_end: Option<Instant> = None;
        let (mut problems, mut tick_count) = (Vec::new(), 0_u32);
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => match ended {
                    None => break,
                    Some(Ok(Ok(()))) => {}
                    Some(Ok(Err(problem))) => {
                        bar.suspend(|| eprintln!("{problem}"));
                        problems.push(problem);
                    }
                    Some(Err(error)) => problems.push(error.to_string()),
                },
                _ = ticks.tick() => {
                    let line = self.line(rate.take(get(&self.tally.acked)));
                    bar.set_position(get(&self.tally.acked));
                    if bar.is_hidden() && tick_count % TICKS_PER_LINE == TICKS_PER_LINE - 1 {
                        eprintln!("{line}");
                    }
                    bar.set_message(line);
                    tick_count += 1;
                }
                () = &mut signal, if grace_end.is_none() => {
                    self.stop.send_replace(true);
                    grace_end = Some(Instant::now() + GRACE);
                }
                () = sleep_until(grace_end.unwrap_or(self.started)), if grace_end.is_some() => break,
            }
        }
        bar.finish_and_clear();
        self.sum_up(&problems, output)
    }

    fn live_line(&self) -> ProgressBar {
        let (bar, template) = match self.total {
            Some(total) => (
                ProgressBar::new(total),
                "[{bar:20}] {pos}/{len}  {msg}  {eta} left",
            ),
            None => (
                ProgressBar::new_spinner(),
                "{spinner} {elapsed}  {pos} acknowledged  {msg}",
            ),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    }

    fn line(&self, rate: f64) -> String {
        let tally = &self.tally;
        let mut line = format!(
            "{rate:.1} a second  {} of {} connected  {} under way",
            get(&tally.connected),
            self.device_count,
            get(&tally.sent).saturating_sub(get(&tally.acked)),
        );
        if get(&tally.reconnects) > 0 {
            line.push_str(&format!(
                "  {} reconnects  {} sent again",
                get(&tally.reconnects),
                get(&tally.resent)
            ));
        }
        line
    }

    fn sum_up(&self, problems: &[String], output: Format) -> CommandResult {
        let tally = &self.tally;
        let (acked, sent) = (get(&tally.acked), get(&tally.sent));
        let unknown = sent.saturating_sub(acked);
        let elapsed_s = self.started.elapsed().as_secs_f64();
        match output {
            Format::Json => say(json!({
                "devices": self.device_count,
                "acknowledged": acked,
                "unacknowledged": unknown,
                "sentAgain": get(&tally.resent),
                "reconnects": get(&tally.reconnects),
                "seconds": elapsed_s,
                "problems": problems,
            }))?,
            Format::Text => say(format!(
                "{acked} messages of {} acknowledged in {elapsed_s:.1} s, {:.1} a second; {} reconnects, {} sent again, {unknown} not acknowledged.",
                device::counted(self.device_count as u64),
                acked as f64 / elapsed_s.max(0.001),
                get(&tally.reconnects),
                get(&tally.resent),
            ))?,
        }
        if !problems.is_empty() {
            return Err(CommandError::Failed(format!(
                "{} of {} devices gave up",
                problems.len(),
                self.device_count
            )));
        }
        if unknown > 0 {
            return Err(CommandError::Failed(format!(
                "{unknown} messages were not acknowledged; each may be stored or not"
            )));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Acknowledgements a second over the last few ticks.
#[derive(Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    fn take(&mut self, acked: u64) -> f64 {
        self.0.push_back((Instant::now(), acked));
        if self.0.len() > RATE_TICKS {
            self.0.pop_front();
        }
        match (self.0.front(), self.0.back()) {
            (Some((from, before)), Some((to, now))) if to > from => {
                (now - before) as f64 / (*to - *from).as_secs_f64()
            }
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_begins_again() {
        let path = std::env::temp_dir().join(format!("dunlin-simulate-{}.csv", std::process::id()));
        std::fs::write(&path, "time,v\n1,10\n3,20\n").unwrap();
        let simulate = Simulate {
            devices: ManyDevices::default(),
            count: None,
            interval: 1000,
            messages: None,
            from_csv: Some(path.clone()),
            speed: Some(2.0),
        };
        let plan = simulate.plan();
        std::fs::remove_file(&path).unwrap();
        let plan = plan.ok().unwrap();
        let mut values = Values::new();
        assert_eq!(plan.message(0, &mut values).1, Duration::from_secs(1));
        assert_eq!(plan.message(1, &mut values).1, Duration::ZERO);
        assert_eq!(plan.message(2, &mut values).0, plan.message(0, &mut values).0);
        assert!(!plan.is_over(1) && plan.is_over(2));
    }

    #[test]
    fn made_up_values_are_json() {
        let mut values = Values::new();
        for number in 0..100 {
            let json: serde_json::Value = serde_json::from_str(&values.next(number)).unwrap();
            assert_eq!(json["number"], number);
            assert!((10.0..=35.0).contains(&json["temperature"].as_f64().unwrap()));
        }
    }
}
