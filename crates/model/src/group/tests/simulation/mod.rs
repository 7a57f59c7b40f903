//! Clients, gateways and a group in a world where commands are late, repeated or lost, answers do not arrive, and clients
//! die. Time is an event like any other, and all chance comes from one seed.

mod chance;
mod check;
mod client;

use std::collections::BTreeMap;

use proptest::prelude::*;

use self::chance::Random;
use self::check::key;
use self::client::{Answer, Client, Command};
use super::super::request::Joining;
use super::*;

/// How long it goes on as it likes, and how long it is then left in peace.
const TROUBLE_MS: u64 = 150_000;
const PEACE_MS: u64 = 200_000;
/// How often a gateway reads for somebody who waits.
const POLL_MS: u64 = 100;

#[derive(Debug, Clone)]
enum Event {
    Wake(usize),
    /// A command reaches the group.
    Arrive(usize, u64, Command),
    /// A gateway reads for the client that sent this request, having seen this turn without an answer.
    Poll(usize, u64, Wait, Option<u64>),
    Hear(usize, u64, Answer),
    Tick,
    /// Something happens to somebody.
    Fate,
}

/// What a gateway waits for.
#[derive(Debug, Clone)]
enum Wait {
    Join(MemberIdentity, i32),
    Sync(MemberIdentity, i32),
}

struct World {
    now_ms: u64,
    count: u64,
    events: BTreeMap<(u64, u64), Event>,
    random: Random,
    clients: Vec<Client>,
    /// When each of them is woken next.
    wakes_ms: Vec<Option<u64>>,
    desk: Desk,
    tick_ms: Option<u64>,
    /// What each member, or static instance, was assigned in each generation.
    assigned: BTreeMap<i32, BTreeMap<String, Opaque>>,
    /// Who was once a member of what.
    former: Vec<(MemberIdentity, i32)>,
    commits: u64,
}

impl World {
    fn new(seed: u64, dynamic_count: usize, static_count: usize) -> Self {
        let instances = (0..static_count).map(|n| Some(format!("instance-{n}")));
        let instances = instances.chain((0..dynamic_count).map(|_| None));
        let mut world = Self {
            now_ms: 0,
            count: 0,
            events: BTreeMap::new(),
            random: Random::new(seed),
            clients: instances.map(|instance_id| Client::new(instance_id, 0)).collect(),
            wakes_ms: vec![None; static_count + dynamic_count],
            desk: Desk::new(),
            tick_ms: None,
            assigned: BTreeMap::new(),
            former: Vec::new(),
            commits: 0,
        };
        for client in 0..world.clients.len() {
            let start_ms = world.random.below(20_000);
            world.start(client, start_ms);
        }
        world.put(1_000, Event::Fate);
        world
    }

    /// A new process, where there may have been one before.
    fn start(&mut self, client: usize, start_ms: u64) {
        let instance_id = self.clients[client].identity().instance_id;
        self.clients[client] = Client::new(instance_id, start_ms);
        self.send(client, Vec::new());
    }

    fn put(&mut self, time_ms: u64, event: Event) {
        self.count += 1;
        self.events.insert((time_ms, self.count), event);
    }

    fn run_until(&mut self, end_ms: u64) {
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end_ms) {
            let ((time_ms, _), event) = entry.remove_entry();
            self.now_ms = time_ms;
            self.desk.now_ms = time_ms;
            self.handle(event);
        }
        self.now_ms = end_ms;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(client) if self.wakes_ms[client] != Some(self.now_ms) => {}
            Event::Wake(client) => {
                self.wakes_ms[client] = None;
                let sent = self.clients[client].wake(self.now_ms, &mut self.random);
                self.send(client, sent);
            }
            Event::Hear(client, request, answer) => {
                let sent = self.clients[client].hear((request, answer), self.now_ms, &mut self.random);
                self.send(client, sent);
            }
            Event::Arrive(client, request, command) => self.arrive(client, request, command),
            Event::Poll(client, request, wait, turn) => self.poll(client, request, wait, turn),
            Event::Tick if self.tick_ms != Some(self.now_ms) => {}
            Event::Tick => {
                self.tick_ms = None;
                let due_ms = self.desk.group.due_ms();
                let before = self.desk.group.clone();
                self.apply(Group::tick);
                let is_due = due_ms.is_some_and(|due_ms| due_ms <= self.now_ms);
                assert_eq!(
                    is_due,
                    before != self.desk.group,
                    "time does something exactly when it is due"
                );
            }
            Event::Fate => self.strike(),
        }
    }

    /// Somebody dies, leaves, or is started again.
    fn strike(&mut self) {
        let client = self.random.below(self.clients.len() as u64) as usize;
        let instance_id = self.clients[client].identity().instance_id;
        if self.clients[client].is_gone() {
            self.start(client, self.now_ms);
        } else if self.random.is(50) {
            let identity = self.clients[client].identity();
            // A static member leaves without a word (KIP-345).
            if self.random.is(50) && instance_id.is_none() {
                self.send(client, vec![(0, Command::Leave(identity))]);
            }
            self.clients[client].die();
        }
        if !self.random.is_peace() {
            let next_ms = self.now_ms + 500 + self.random.below(15_000);
            self.put(next_ms, Event::Fate);
        }
    }

    /// Commands go their way, and the client is woken when it next has something to do.
    fn send(&mut self, client: usize, sent: Vec<(u64, Command)>) {
        for (request, command) in sent {
            for _ in 0..1 + u64::from(self.random.is(10)) {
                if !self.random.is(5) {
                    let arrive_ms = self.now_ms + self.random.delay_ms();
                    self.put(arrive_ms, Event::Arrive(client, request, command.clone()));
                }
            }
        }
        let wake_ms = self.clients[client].wake_ms();
        let wake_ms = wake_ms.map(|wake_ms| wake_ms.max(self.now_ms));
        if let Some(wake_ms) = wake_ms.filter(|_| self.wakes_ms[client] != wake_ms) {
            self.put(wake_ms, Event::Wake(client));
        }
        self.wakes_ms[client] = wake_ms;
    }

    fn reply(&mut self, client: usize, request: u64, answer: Answer) {
        if !self.random.is(5) {
            let hear_ms = self.now_ms + self.random.delay_ms();
            self.put(hear_ms, Event::Hear(client, request, answer));
        }
    }

    /// Each operation also on another replica, which must come to the same.
    fn apply<T>(&mut self, operation: impl Fn(&mut Group, u64) -> T) -> T {
        let mut replica = self.desk.group.clone();
        let before = (replica.generation(), replica.phase().word());
        let answer = self.desk.apply(&operation);
        operation(&mut replica, self.now_ms);
        assert_eq!(replica, self.desk.group, "replicas agree");
        self.look(before);
        let lag_ms = if self.random.is(20) {
            self.random.below(2_000)
        } else {
            0
        };
        let tick_ms = self.desk.group.due_ms().map(|due_ms| due_ms + lag_ms);
        // What was put off is looked at when it was due before: nothing happens then.
        if let Some(tick_ms) =
            tick_ms.filter(|tick_ms| self.tick_ms.is_none_or(|known_ms| *tick_ms < known_ms))
        {
            self.put(tick_ms, Event::Tick);
            self.tick_ms = Some(tick_ms);
        }
        answer
    }

    fn arrive(&mut self, client: usize, request: u64, command: Command) {
        let soon_ms = self.now_ms + 1;
        match command {
            Command::Join(join) => match self.apply(|group, now_ms| group.join(join.clone(), now_ms)) {
                Ok(Joining {
                    member_id,
                    generation,
                }) => {
                    let instance_id = join.member.instance_id;
                    let wait = Wait::Join(
                        MemberIdentity {
                            member_id,
                            instance_id,
                        },
                        generation,
                    );
                    self.put(soon_ms, Event::Poll(client, request, wait, None));
                }
                Err(error) => self.reply(client, request, Answer::Join(Err(error))),
            },
            Command::Sync(sync) => match self.apply(|group, now_ms| group.sync(&sync, now_ms)) {
                Ok(()) => {
                    assert_eq!(sync.generation, self.desk.group.generation());
                    let wait = Wait::Sync(sync.member, sync.generation);
                    self.put(soon_ms, Event::Poll(client, request, wait, None));
                }
                Err(error) => self.reply(client, request, Answer::Sync(Err(error))),
            },
            Command::Heartbeat(member, generation) => {
                let group = &self.desk.group;
                if group.is_heartbeat_fresh(&member, generation, self.now_ms) {
                    return self.reply(client, request, Answer::Heartbeat(Ok(())));
                }
                let due_ms = group.due_ms();
                let answer = self.apply(|group, now_ms| group.heartbeat(&member, generation, now_ms));
                let is_earlier = self.desk.group.due_ms() < due_ms;
                assert!(
                    answer.is_err() || !is_earlier,
                    "a heartbeat brings nothing forward"
                );
                self.reply(client, request, Answer::Heartbeat(answer));
            }
            Command::Commit(commit) => {
                let answer = self.apply(|group, now_ms| group.commit(&commit, now_ms));
                if answer.is_ok() {
                    self.commits += 1;
                    self.assert_owned(&commit);
                }
            }
            Command::Leave(member) => {
                let _ = self.apply(|group, now_ms| group.leave(std::slice::from_ref(&member), now_ms));
            }
        }
    }

    fn poll(&mut self, client: usize, request: u64, wait: Wait, turn: Option<u64>) {
        if !self.clients[client].awaits(request) {
            return;
        }
        let group = &self.desk.group;
        let answer = match &wait {
            Wait::Join(member, generation) => group.join_result(member, *generation).map(|result| {
                if let Ok(result) = &result {
                    assert!(
                        result.generation >= *generation,
                        "never that of an earlier rebalance"
                    );
                }
                Answer::Join(result)
            }),
            Wait::Sync(member, generation) => group.sync_result(member, *generation).map(|result| {
                if let Ok(result) = &result {
                    let part = &self.assigned[generation][&key(member)];
                    assert_eq!(&result.assignment, part, "what the leader said");
                }
                Answer::Sync(result)
            }),
        };
        match answer {
            Some(answer) => {
                assert_ne!(turn, Some(group.turn()), "who waits is told when to look");
                if let Wait::Join(member, _) = &wait {
                    self.former.push((member.clone(), group.generation()));
                }
                self.reply(client, request, answer);
            }
            None => {
                let turn = Some(group.turn());
                self.put(self.now_ms + POLL_MS, Event::Poll(client, request, wait, turn));
            }
        }
    }

    fn make_peace(&mut self) {
        self.random.make_peace();
        // Whoever was fenced by one of its own late commands is started again.
        for client in 0..self.clients.len() {
            let is_static = self.clients[client].identity().instance_id.is_some();
            if self.clients[client].is_gone() && is_static {
                self.start(client, self.now_ms + 20_000);
            }
        }
    }
}

fn run(seed: u64, dynamic_count: usize, static_count: usize) -> World {
    let mut world = World::new(seed, dynamic_count, static_count);
    world.run_until(TROUBLE_MS);
    world.make_peace();
    world.run_until(TROUBLE_MS + PEACE_MS);
    world.assert_whole();
    let generation = world.desk.group.generation();
    world.run_until(TROUBLE_MS + PEACE_MS + 60_000);
    world.assert_whole();
    assert_eq!(world.desk.group.generation(), generation, "peace lasts");
    world
}

#[test]
fn the_world_is_not_idle() {
    let world = run(1, 3, 2);
    assert!(world.commits > 50, "{} commits", world.commits);
    assert!(world.desk.group.generation() > 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_trouble_the_group_is_whole(seed: u64, dynamic_count in 0..5_usize, static_count in 0..4_usize) {
        prop_assume!(dynamic_count + static_count > 0);
        run(seed, dynamic_count, static_count);
    }
}
