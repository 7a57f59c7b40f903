//! One place of the group: a member, its connection, and whoever comes after it.
//!
//! Decides what a member does next: join, take its share up, read, commit, go. A refusal says who it still is; a connection
//! without an answer says nothing, so it goes on elsewhere with what it knows, and a commit may be done or not.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use dunlin_gateway::client::kafka::{Code, From, KafkaError, Member, Reader};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, timeout};

use super::answers::{outcome, runs};
use super::{GROUP, HEARTBEAT_PERIOD, PAUSE, TIMES, WANTED};
use crate::workload::Bench;
use crate::workload::operation::Outcome;
use crate::workload::step::{Commit, Departure, Left, Poll, Share, Step, TakenUp, Told};

/// Of a thousand times that a member would commit, those at which it goes instead, in each of the four ways, or is silent.
const DEPARTURES_PERMILLE: u32 = 6;
/// The longest that a commit is let run before the connection ends amid it. Few are answered within 4 ms.
const AMID_MS_MAX: u64 = 4;
/// How long a member is silent that is then another's: longer than its session.
const SILENCE_MS: RangeInclusive<u64> = 7_000..=10_000;
/// The longest that a place stays empty.
const EMPTY_MS_MAX: u64 = 2_000;

/// How far a member has come.
enum Stage {
    /// It is to join.
    Out,
    /// It knows its share, and not where to begin.
    Shared(Vec<u32>),
    /// It reads.
    Reads,
}

/// What comes next.
enum Next {
    /// The same member goes on, on this connection.
    GoOn,
    /// It goes on on another one.
    Reconnect,
    /// It is gone; somebody new comes.
    Gone(Departure),
}

/// See the file.
pub(super) struct Seat {
    bench: Bench,
    slot: usize,
    period: Duration,
    random: StdRng,
    /// Connections so far, which are to one gateway after the other.
    turn: usize,
    /// Members so far.
    life: usize,
    member: Member,
    generation: i32,
    stage: Stage,
    partitions: Vec<u32>,
    /// What is read next of each partition, and what of it is known to be committed.
    places: BTreeMap<u32, u64>,
    committed: BTreeMap<u32, u64>,
    commit_due: Instant,
    heartbeat_due: Instant,
}

impl Seat {
    pub(super) fn new(bench: Bench, slot: usize, period: Duration) -> Self {
        let seed = bench.seed ^ (slot as u64 + 1) << 32;
        Self {
            bench,
            slot,
            period,
            random: StdRng::seed_from_u64(seed),
            turn: slot,
            life: 0,
            member: Member::new(GROUP, TIMES),
            generation: -1,
            stage: Stage::Out,
            partitions: Vec::new(),
            places: BTreeMap::new(),
            committed: BTreeMap::new(),
            commit_due: Instant::now(),
            heartbeat_due: Instant::now(),
        }
    }

    /// One member after the other, until it is told to stop.
    pub(super) async fn run(mut self) {
        loop {
            let mut pause = PAUSE;
            let door = self.bench.kafka[self.turn % self.bench.kafka.len()].clone();
            self.turn += 1;
            if let Ok(mut reader) = Reader::dial(&door).await {
                match self.sit(&mut reader).await {
                    None => {
                        // What was read is committed, and nobody is to be waited for.
                        let _ = self.commit(&mut reader, None).await;
                        let _ = self.member.leave(&mut reader).await;
                        return;
                    }
                    Some(Next::Gone(how)) => {
                        self.end_life(how);
                        pause = Duration::from_millis(self.random.random_range(0..=EMPTY_MS_MAX));
                    }
                    Some(Next::GoOn | Next::Reconnect) => {}
                }
            }
            if !self.bench.wait_until(Instant::now() + pause).await {
                return;
            }
        }
    }

    fn name(&self) -> String {
        format!("{}-{}", self.slot, self.life)
    }

    fn end_life(&mut self, how: Departure) {
        let (member, us) = (self.name(), self.bench.now_us());
        self.bench.shelf.steps.note(Step::Left(Left { member, how, us }));
        self.life += 1;
        self.member.forget();
        self.stage = Stage::Out;
        self.places.clear();
    }

    /// On one connection; nothing if it is to stop.
    async fn sit(&mut self, reader: &mut Reader) -> Option<Next> {
        loop {
            let begun = Instant::now();
            let done = self.go_on(reader).await;
            match done.unwrap_or_else(|error| self.judge(&error)) {
                Next::GoOn => {}
                next => return Some(next),
            }
            if !self.bench.wait_until(begun + PAUSE).await {
                return None;
            }
        }
    }

    /// What a refusal means.
    fn judge(&mut self, error: &KafkaError) -> Next {
        match error.code() {
            None => Next::Reconnect,
            Some(Code::UNKNOWN_MEMBER_ID) => Next::Gone(Departure::Forgotten),
            Some(Code::REBALANCE_IN_PROGRESS | Code::ILLEGAL_GENERATION) => {
                self.stage = Stage::Out;
                Next::GoOn
            }
            // It passes.
            Some(_) => Next::GoOn,
        }
    }

    async fn go_on(&mut self, reader: &mut Reader) -> Result<Next, KafkaError> {
        match std::mem::replace(&mut self.stage, Stage::Out) {
            Stage::Out => self.join(reader).await?,
            Stage::Shared(share) => {
                // Whatever comes of it: this is its share until it is told otherwise.
                self.stage = Stage::Shared(share.clone());
                self.beat(reader).await?;
                self.take_up(reader, &share).await?;
                self.stage = Stage::Reads;
            }
            Stage::Reads => {
                self.stage = Stage::Reads;
                self.beat(reader).await?;
                self.poll(reader).await?;
                if Instant::now() >= self.commit_due {
                    let pause = self.random.random_range(0.5..1.5);
                    self.commit_due = Instant::now() + self.period.mul_f64(pause);
                    return self.act(reader).await;
                }
            }
        }
        Ok(Next::GoOn)
    }

    async fn join(&mut self, reader: &mut Reader) -> Result<(), KafkaError> {
        self.places.clear();
        if self.partitions.is_empty() {
            self.partitions = reader.partitions().await?;
        }
        let share = self.member.join(reader, &self.partitions).await?;
        self.generation = share.generation;
        self.heartbeat_due = Instant::now() + HEARTBEAT_PERIOD;
        self.bench.shelf.steps.note(Step::Share(Share {
            member: self.name(),
            generation: share.generation,
            partitions: share.partitions.clone(),
            us: self.bench.now_us(),
        }));
        self.stage = Stage::Shared(share.partitions);
        Ok(())
    }

    /// A sign of life, if one is due. Half of those who are to join again commit first, as consumers do.
    async fn beat(&mut self, reader: &mut Reader) -> Result<(), KafkaError> {
        if Instant::now() < self.heartbeat_due {
            return Ok(());
        }
        let beaten = self.member.heartbeat(reader).await;
        let code = beaten.as_ref().err().and_then(KafkaError::code);
        if code == Some(Code::REBALANCE_IN_PROGRESS) && self.random.random_bool(0.5) {
            self.commit(reader, None).await?;
        }
        beaten?;
        self.heartbeat_due = Instant::now() + HEARTBEAT_PERIOD;
        Ok(())
    }

    /// Learns where to begin, of all of the share or of nothing.
    async fn take_up(&mut self, reader: &mut Reader, share: &[u32]) -> Result<(), KafkaError> {
        let refused = |code| KafkaError::Refused {
            asking: "take up",
            code,
        };
        let invoked_us = self.bench.now_us();
        let told = reader.committed(GROUP, share).await?;
        let completed_us = self.bench.now_us();
        let mut committed = BTreeMap::new();
        for (partition, one) in told {
            committed.insert(partition, one.map_err(refused)?);
        }
        let unread = committed.iter().filter(|(_, one)| one.is_none());
        let unread: Vec<u32> = unread.map(|(partition, _)| *partition).collect();
        let mut first = BTreeMap::new();
        if !unread.is_empty() {
            for (partition, offset) in reader.list_offsets(From::Earliest, &unread).await? {
                first.insert(partition, offset.map_err(refused)?);
            }
        }
        for (partition, committed) in committed {
            let start = committed.or_else(|| first.get(&partition).copied());
            let start = start.ok_or(refused(Code::UNKNOWN_TOPIC_OR_PARTITION))?;
            self.places.insert(partition, start);
            self.committed.insert(partition, start);
            self.bench.shelf.steps.note(Step::Told(Told {
                partition,
                committed,
                invoked_us,
                completed_us,
                taken_up: Some(TakenUp {
                    member: self.name(),
                    generation: self.generation,
                    start,
                }),
            }));
        }
        Ok(())
    }

    async fn poll(&mut self, reader: &mut Reader) -> Result<(), KafkaError> {
        if self.places.is_empty() {
            return Ok(());
        }
        for fetched in reader.fetch(&self.places, WANTED).await? {
            let Some(from) = self.places.get(&fetched.partition).copied() else {
                continue;
            };
            let is_gone = fetched.code == Code::OFFSET_OUT_OF_RANGE;
            let runs = runs(&fetched.events);
            if is_gone {
                // It would be told so for ever.
                self.places.remove(&fetched.partition);
            } else if fetched.next > from {
                self.places.insert(fetched.partition, fetched.next);
            } else {
                continue;
            }
            self.bench.shelf.steps.note(Step::Poll(Poll {
                member: self.name(),
                partition: fetched.partition,
                from,
                runs,
                is_gone,
            }));
        }
        Ok(())
    }

    /// Commits, as a rule.
    async fn act(&mut self, reader: &mut Reader) -> Result<Next, KafkaError> {
        let drawn = self.random.random_range(0..1000);
        let how = match drawn / DEPARTURES_PERMILLE {
            0 => Departure::Leave,
            1 => Departure::CrashBeforeCommit,
            2 => Departure::CrashAmidCommit,
            3 => Departure::CrashAfterCommit,
            drawn => {
                if drawn == 4 {
                    // As a process that was paused: it knows nothing of what it has missed.
                    let silence = Duration::from_millis(self.random.random_range(SILENCE_MS));
                    self.bench.wait_until(Instant::now() + silence).await;
                }
                self.commit(reader, None).await?;
                return Ok(Next::GoOn);
            }
        };
        match how {
            Departure::Leave => self.member.leave(reader).await?,
            Departure::CrashAmidCommit => {
                let cut = Duration::from_millis(self.random.random_range(0..=AMID_MS_MAX));
                let _ = self.commit(reader, Some(cut)).await;
            }
            Departure::CrashAfterCommit => {
                let _ = self.commit(reader, None).await;
            }
            Departure::CrashBeforeCommit | Departure::Forgotten => {}
        }
        Ok(Next::Gone(how))
    }

    /// Commits what was read since, and gives up after `cut`.
    async fn commit(&mut self, reader: &mut Reader, cut: Option<Duration>) -> Result<(), KafkaError> {
        let is_due = |(partition, place): &(&u32, &u64)| self.committed.get(partition) < Some(place);
        let due = self.places.iter().filter(is_due);
        let due: Vec<(u32, u64)> = due.map(|(partition, place)| (*partition, *place)).collect();
        if due.is_empty() {
            return Ok(());
        }
        let invoked_us = self.bench.now_us();
        let asked = self.member.commit(reader, &due);
        let answered = match cut {
            None => asked.await,
            Some(cut) => timeout(cut, asked).await.unwrap_or(Err(KafkaError::TimedOut {
                asking: "commit offsets",
            })),
        };
        let completed_us = self.bench.now_us();
        let codes: BTreeMap<u32, Code> = match &answered {
            Ok(codes) => codes.iter().copied().collect(),
            Err(_) => BTreeMap::new(),
        };
        for (partition, offset) in &due {
            let outcome = codes
                .get(partition)
                .map_or(Outcome::Unknown, |code| outcome(*code));
            if outcome == Outcome::Ok {
                self.committed.insert(*partition, *offset);
            }
            self.bench.shelf.steps.note(Step::Commit(Commit {
                member: self.name(),
                generation: self.generation,
                partition: *partition,
                offset: *offset,
                invoked_us,
                completed_us,
                outcome,
            }));
        }
        answered?;
        let refusal = codes.into_values().find(|code| *code != Code::NONE);
        refusal.map_or(Ok(()), |code| {
            Err(KafkaError::Refused {
                asking: "commit offsets",
                code,
            })
        })
    }
}
