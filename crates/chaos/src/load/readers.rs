//! Load on the Kafka door: consumers of one group that share all partitions out and read them, and how much that is.
//!
//! Decides nothing that Kafka's own consumers would not: each finds the group's coordinator, joins, takes its partitions up
//! at the committed offset or else where it is told, reads one fetch after the other at one gateway, commits once a second,
//! and joins again when the group shares out anew. Time counts from the first share to the last event. What events count is
//! decided in [`super::meter`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dunlin_gateway::client::kafka::{Code, Door, Fetched, From, KafkaError, Member, Reader, Times, Wanted};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::ceiling::Ceiling;
use super::engine::Observer;
use super::figures::{Figures, Reading, Shape};
use super::hdr::HdrError;
use super::meter::Meter;

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

/// Why there is no ceiling of such a load.
const NO_CEILING: &str = "a null sink speaks no Kafka";

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

/// What is counted beside events.
#[derive(Default)]
struct Counted {
    bytes: u64,
    generations: BTreeSet<i32>,
    /// When the last event came.
    last: Option<Instant>,
}

/// What all consumers share.
struct Load {
    plan: Plan,
    started: Instant,
    /// When somebody had a share.
    begun: OnceLock<Instant>,
    meter: Meter,
    counted: Mutex<Counted>,
}

/// Runs it against `target`, and tells `observer` on the way. When `stop` resolves, what there is by then is counted.
pub async fn run(
    plan: Plan,
    target: &str,
    observer: &mut dyn Observer,
    stop: impl Future<Output = ()>,
) -> Result<Figures, HdrError> {
    let load = Arc::new(Load {
        plan,
        started: Instant::now(),
        begun: OnceLock::new(),
        meter: Meter::start(Duration::ZERO, None, false),
        counted: Mutex::default(),
    });
    let mut consumers = JoinSet::new();
    for number in 0..load.plan.consumers {
        consumers.spawn(Consumer::new(Arc::clone(&load), number).run());
    }
    let reading = async { while consumers.join_next().await.is_some() {} };
    let mut outcome = load.meter.watch(observer, stop, reading).await;
    consumers.shutdown().await;
    load.forget_group().await;
    let waited = load.begun().saturating_duration_since(load.started);
    outcome.started += waited;
    outcome.window_s = load.reading_s();
    let shape = Shape {
        kind: "kafka",
        pacing: None,
        scheduled_per_s: None,
        clients: load.plan.consumers as u64,
        slots: None,
    };
    let figures = Figures::of(&shape, target, &outcome)?;
    Ok(Figures {
        reading: Some(load.reading()),
        ..figures.with_ceiling(Ceiling::none(NO_CEILING))
    })
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

    /// Leaves nothing behind. A group with somebody in it goes by itself, its offsets a week later.
    async fn forget_group(&self) {
        let Some(door) = self.plan.doors.first() else {
            return;
        };
        if let Ok(mut reader) = Reader::dial(door).await {
            let _ = reader.delete_group(&self.plan.group).await;
        }
    }

    /// When somebody had a share, or else when they all began.
    fn begun(&self) -> Instant {
        self.begun.get().copied().unwrap_or(self.started)
    }

    /// Seconds from the first share to the last event.
    fn reading_s(&self) -> f64 {
        let last = self.counted.lock().unwrap_or_else(PoisonError::into_inner).last;
        last.map_or(0.0, |last| {
            last.saturating_duration_since(self.begun()).as_secs_f64()
        })
    }

    fn reading(&self) -> Reading {
        let seconds = self.reading_s().max(1e-3);
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        Reading {
            bytes: counted.bytes,
            mb_per_s: counted.bytes as f64 / seconds / 1e6,
            rebalances: counted.generations.len() as u64,
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

/// What a code means to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The group shares out anew: the way to learn of it, and no refusal.
    ShareAnew,
    /// The group is served by another gateway: the same.
    AskElsewhere,
    /// The group has given this member up.
    Forgotten,
    /// Anything else.
    Refused,
}

impl std::convert::From<Code> for Told {
    fn from(code: Code) -> Told {
        match code {
            Code::REBALANCE_IN_PROGRESS | Code::ILLEGAL_GENERATION => Told::ShareAnew,
            Code::NOT_COORDINATOR => Told::AskElsewhere,
            Code::UNKNOWN_MEMBER_ID => Told::Forgotten,
            _ => Told::Refused,
        }
    }
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
                self.load.meter.refused(&error.to_string());
                sleep(PAUSE).await;
            }
        }
    }

    /// Over one pair of connections: to a gateway for events, and to the coordinator, for as long as it is the coordinator.
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
                self.is_joined = false;
                match error.code().map(Told::from) {
                    None => return Err(error),
                    Some(Told::ShareAnew) => {
                        let _ = self.commit(&mut group).await;
                        continue;
                    }
                    Some(Told::AskElsewhere) => {
                        sleep(PAUSE).await;
                        return Ok(());
                    }
                    Some(Told::Forgotten) => self.member.forget(),
                    Some(Told::Refused) => {}
                }
                self.load.meter.refused(&error.to_string());
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
        for one in fetched {
            self.places.insert(one.partition, one.next);
            if one.events.is_empty() {
                continue;
            }
            self.load.count(|counted| {
                counted.bytes += one.bytes as u64;
                counted.last = Some(Instant::now());
            });
            let took_us = |time_ms: u64| now_us.saturating_sub(time_ms.saturating_mul(1000));
            let latencies_us = one.events.iter().map(|event| took_us(event.time_ms));
            self.load
                .meter
                .received(latencies_us.map(|took_us| is_timed.then_some(took_us)));
        }
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
    use crate::load::engine::Unseen;

    #[test]
    fn a_group_that_has_moved_is_looked_for_again_and_refuses_nobody() {
        assert_eq!(Told::from(Code::NOT_COORDINATOR), Told::AskElsewhere);
        assert_eq!(Told::from(Code::ILLEGAL_GENERATION), Told::ShareAnew);
        assert_eq!(Told::from(Code::COORDINATOR_NOT_AVAILABLE), Told::Refused);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_share_there_is_an_end_and_nothing_was_read() {
        let plan = Plan {
            doors: Vec::new(),
            group: "load-x".to_owned(),
            consumers: 0,
            from: From::Earliest,
            duration: Duration::from_secs(1),
        };
        let figures = run(plan, "nowhere", &mut Unseen, std::future::pending())
            .await
            .unwrap();
        assert_eq!((figures.kind.as_str(), figures.counts.received), ("kafka", 0));
        assert_eq!((figures.window_s, figures.per_s()), (0.0, 0.0));
        assert_eq!(figures.reading.map(|reading| reading.rebalances), Some(0));
        assert!(figures.is_whole());
    }

    #[tokio::test(start_paused = true)]
    async fn time_counts_from_the_first_share_to_the_last_event() {
        let load = Load {
            plan: Plan {
                doors: Vec::new(),
                group: "load-x".to_owned(),
                consumers: 1,
                from: From::Earliest,
                duration: Duration::from_secs(60),
            },
            started: Instant::now(),
            begun: OnceLock::new(),
            meter: Meter::start(Duration::ZERO, None, false),
            counted: Mutex::default(),
        };
        sleep(Duration::from_secs(3)).await;
        load.begun.get_or_init(Instant::now);
        sleep(Duration::from_secs(2)).await;
        load.count(|counted| {
            counted.bytes = 4_000_000;
            counted.last = Some(Instant::now());
        });
        sleep(Duration::from_secs(50)).await;
        assert!((1.9..2.1).contains(&load.reading_s()), "{}", load.reading_s());
        let reading = load.reading();
        assert!((1.9..2.1).contains(&reading.mb_per_s), "{reading:?}");
    }
}
