//! Load on the Kafka door: consumers of one group that share all partitions out and read them, and how much that is.
//!
//! Decides nothing that Kafka's own consumers would not: each finds the group's coordinator, joins, takes its partitions up
//! at the committed offset or else where it is told, reads one fetch after the other at one gateway, commits once a second,
//! and joins again when the group shares out anew. Time counts from the first share to the last event.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dunlin_gateway::client::kafka::{Code, Door, Fetched, From, KafkaError, Member, Reader, Times, Wanted};
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::figures::Latency;
use super::tally::{per_s, write_ends};
use crate::fleet::histogram;

/// Time for the first share.
const SHARE_WAIT: Duration = Duration::from_secs(30);
/// What members let each other wait for.
const TIMES: Times = Times {
    session: Duration::from_secs(10),
    rebalance: Duration::from_secs(10),
};
/// As much as a gateway gives at once, as soon as there is something.
const WANTED: Wanted = Wanted {
    wait: Duration::from_millis(500),
    bytes_min: 1,
    bytes_max: 2 * 1024 * 1024,
};
/// Between two signs of life, and two commits.
const COMMIT_PERIOD: Duration = Duration::from_secs(1);
/// Pause after a refusal, and before a lost connection is made anew.
const PAUSE: Duration = Duration::from_millis(200);

/// What is to be done.
pub struct Plan {
    /// The gateways, which consumers read at in turn.
    pub doors: Vec<Door>,
    /// The group. It is forgotten when all is over.
    pub group: String,
    /// How many.
    pub consumers: usize,
    /// Where partitions are read from.
    pub from: From,
    /// How long.
    pub duration: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Events that were read.
    pub events: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// Seconds from the first share to the last event.
    pub seconds: f64,
    /// Events per second.
    pub per_s: f64,
    /// Megabytes per second.
    pub mb_per_s: f64,
    /// From when the hub took an event in until it was read, by two clocks; nothing if they were there before.
    pub latency_us: Option<Latency>,
    /// Generations that the group has had.
    pub rebalances: u64,
    /// What was said instead of an answer.
    pub refused: BTreeMap<String, u64>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  read      {} events, {:.0} per second, {:.1} MB/s",
            self.events, self.per_s, self.mb_per_s
        )?;
        writeln!(f, "  shared    {} times", self.rebalances)?;
        let nothing = "not known of events that were there before; see --from latest";
        write_ends(f, self.latency_us.as_ref(), &self.refused, nothing)
    }
}

struct Counted {
    events: u64,
    bytes: u64,
    latency_us: Histogram<u64>,
    generations: BTreeSet<i32>,
    refused: BTreeMap<String, u64>,
    last: Option<Instant>,
}

/// What all consumers share.
struct Load {
    plan: Plan,
    started: Instant,
    /// When somebody had a share.
    begun: OnceLock<Instant>,
    counted: Mutex<Counted>,
}

/// Runs it, unless `stop` resolves first; then what there is by then is counted.
pub async fn run(plan: Plan, stop: impl Future<Output = ()>) -> Figures {
    let counted = Counted {
        events: 0,
        bytes: 0,
        latency_us: histogram(),
        generations: BTreeSet::new(),
        refused: BTreeMap::new(),
        last: None,
    };
    let load = Arc::new(Load {
        plan,
        started: Instant::now(),
        begun: OnceLock::new(),
        counted: Mutex::new(counted),
    });
    let mut consumers = JoinSet::new();
    for number in 0..load.plan.consumers {
        consumers.spawn(Consumer::new(Arc::clone(&load), number).run());
    }
    tokio::select! {
        () = async { while consumers.join_next().await.is_some() {} } => {}
        () = stop => {}
    }
    consumers.shutdown().await;
    load.forget_group().await;
    load.figures()
}

impl Load {
    fn is_over(&self) -> bool {
        match self.begun.get() {
            Some(begun) => begun.elapsed() >= self.plan.duration,
            None => self.started.elapsed() >= SHARE_WAIT,
        }
    }

    fn count(&self, count: impl FnOnce(&mut Counted)) {
        count(&mut self.counted.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn refuse(&self, what: String) {
        self.count(|counted| *counted.refused.entry(what).or_default() += 1);
    }

    /// Leaves nothing behind. A group with somebody in it goes by itself, its offsets a week later.
    async fn forget_group(&self) {
        let Some(door) = self.plan.doors.first() else {
            return;
        };
        if let Ok(mut reader) = Reader::dial(door).await {
            let _ = reader.delete_group(&self.plan.group).await;
        }
    }

    fn figures(&self) -> Figures {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = self.begun.get().copied().unwrap_or(self.started);
        let seconds = counted
            .last
            .map_or(0.0, |last| last.saturating_duration_since(begun).as_secs_f64());
        Figures {
            events: counted.events,
            bytes: counted.bytes,
            seconds,
            per_s: per_s(counted.events, seconds),
            mb_per_s: per_s(counted.bytes, seconds) / 1e6,
            latency_us: Latency::of(&counted.latency_us),
            rebalances: counted.generations.len() as u64,
            refused: counted.refused.clone(),
        }
    }
}

/// One of them.
struct Consumer {
    load: Arc<Load>,
    door: Door,
    member: Member,
    is_joined: bool,
    partitions: Vec<u32>,
    places: BTreeMap<u32, u64>,
    commit_due: Instant,
}

impl Consumer {
    fn new(load: Arc<Load>, number: usize) -> Self {
        let door = load.plan.doors[number % load.plan.doors.len()].clone();
        let member = Member::new(&load.plan.group, TIMES);
        Self {
            load,
            door,
            member,
            is_joined: false,
            partitions: Vec::new(),
            places: BTreeMap::new(),
            commit_due: Instant::now(),
        }
    }

    async fn run(mut self) {
        while !self.load.is_over() {
            if let Err(error) = self.consume().await {
                self.load.refuse(error.to_string());
                sleep(PAUSE).await;
            }
        }
    }

    /// Over one pair of connections: to a gateway for events, and to the coordinator.
    async fn consume(&mut self) -> Result<(), KafkaError> {
        let mut reader = Reader::dial(&self.door).await?;
        self.partitions = reader.partitions().await?;
        let coordinator = reader.find_coordinator(&self.load.plan.group).await?;
        let door = Door {
            address: format!("{}:{}", coordinator.host, coordinator.port),
            server_name: coordinator.host,
            ..self.door.clone()
        };
        let mut group = Reader::dial(&door).await?;
        while !self.load.is_over() {
            let done = self.go_on(&mut reader, &mut group).await;
            if let Err(error) = done {
                match error.code() {
                    None => return Err(error),
                    Some(Code::UNKNOWN_MEMBER_ID) => self.member.forget(),
                    // How a member learns that the group shares out anew.
                    Some(Code::REBALANCE_IN_PROGRESS | Code::ILLEGAL_GENERATION) => {
                        let _ = self.commit(&mut group).await;
                        self.is_joined = false;
                        continue;
                    }
                    Some(_) => {}
                }
                self.is_joined = false;
                self.load.refuse(error.to_string());
                sleep(PAUSE).await;
            }
        }
        let _ = self.commit(&mut group).await;
        let _ = self.member.leave(&mut group).await;
        Ok(())
    }

    async fn go_on(&mut self, reader: &mut Reader, group: &mut Reader) -> Result<(), KafkaError> {
        if !self.is_joined {
            self.places.clear();
            let share = self.member.join(group, &self.partitions).await?;
            self.take_up(reader, group, &share.partitions).await?;
            self.is_joined = true;
            self.load.begun.get_or_init(Instant::now);
            self.load.count(|counted| {
                counted.generations.insert(share.generation);
            });
        }
        if Instant::now() >= self.commit_due {
            self.member.heartbeat(group).await?;
            self.commit(group).await?;
            self.commit_due = Instant::now() + COMMIT_PERIOD;
        }
        if self.places.is_empty() {
            sleep(PAUSE).await;
            return Ok(());
        }
        let fetched = reader.fetch(&self.places, WANTED).await?;
        self.take(&fetched)
    }

    async fn take_up(
        &mut self,
        reader: &mut Reader,
        group: &mut Reader,
        share: &[u32],
    ) -> Result<(), KafkaError> {
        let refused = |code| KafkaError::Refused {
            asking: "take up partition",
            code,
        };
        let mut unread = Vec::new();
        for (partition, committed) in group.committed(&self.load.plan.group, share).await? {
            match committed.map_err(refused)? {
                Some(offset) => {
                    self.places.insert(partition, offset);
                }
                None => unread.push(partition),
            }
        }
        if !unread.is_empty() {
            for (partition, offset) in reader.list_offsets(self.load.plan.from, &unread).await? {
                self.places.insert(partition, offset.map_err(refused)?);
            }
        }
        Ok(())
    }

    /// Counts what came. The first refusal of a partition counts for all of them.
    fn take(&mut self, fetched: &[Fetched]) -> Result<(), KafkaError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_us = now.map_or(0, |since| since.as_micros() as u64);
        let is_timed = self.load.plan.from == From::Latest;
        self.load.count(|counted| {
            for one in fetched {
                self.places.insert(one.partition, one.next);
                if one.events.is_empty() {
                    continue;
                }
                counted.events += one.events.len() as u64;
                counted.bytes += one.bytes as u64;
                counted.last = Some(Instant::now());
                if is_timed {
                    for event in &one.events {
                        let took_us = now_us.saturating_sub(event.time_ms.saturating_mul(1000));
                        counted.latency_us.saturating_record(took_us);
                    }
                }
            }
        });
        let refused = fetched.iter().find(|one| one.code != Code::NONE);
        refused.map_or(Ok(()), |one| {
            Err(KafkaError::Refused {
                asking: "fetch events",
                code: one.code,
            })
        })
    }

    async fn commit(&mut self, group: &mut Reader) -> Result<(), KafkaError> {
        let offsets: Vec<(u32, u64)> = self
            .places
            .iter()
            .map(|(partition, next)| (*partition, *next))
            .collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let codes = self.member.commit(group, &offsets).await?;
        let refused = codes.into_iter().find(|(_, code)| *code != Code::NONE);
        refused.map_or(Ok(()), |(_, code)| {
            Err(KafkaError::Refused {
                asking: "commit offsets",
                code,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_put_into_words() {
        let figures = Figures {
            events: 1_000,
            bytes: 300_000,
            seconds: 10.0,
            per_s: 100.0,
            mb_per_s: 0.03,
            latency_us: None,
            rebalances: 2,
            refused: BTreeMap::from([("join group: COORDINATOR_NOT_AVAILABLE".to_owned(), 2)]),
        };
        let text = figures.to_string();
        assert!(text.contains("1000 events, 100 per second, 0.0 MB/s"), "{text}");
        assert!(
            text.contains("shared    2 times") && text.contains("--from latest"),
            "{text}"
        );
        assert!(
            text.ends_with("failed    2: join group: COORDINATOR_NOT_AVAILABLE"),
            "{text}"
        );
    }
}
