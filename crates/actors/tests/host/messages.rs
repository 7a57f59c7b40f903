//! Messages to devices on the leader: who is told that some wait, and that time ends those that nobody takes.

use dunlin_model::command::{Command, Consistency, Outcome, Query, Refusal, View};
use dunlin_model::identity::Condition;
use dunlin_model::messages::feedback::FeedbackRecord;
use dunlin_model::messages::{
    AckWanted, Holder, MessageContent, MessageEnd, NewMessage, Settlement, TakenMessage,
};
use dunlin_model::port::{AppliedSink, DownlinkKind, ShardServer};
use dunlin_model::shard::registry::messages_filter;

use crate::support::{Field, Gateway, SHARD, applied, device, epoch, generation, open, pass, put, until};

async fn outcome(gateway: &mut Gateway<'_>, command: Command) -> Outcome {
    applied(gateway.send(&[], vec![command]).await).outcomes.remove(0)
}

/// A device with a session that listens for messages: the generation and the epoch.
async fn listening(gateway: &mut Gateway<'_>, name: &str) -> (u64, u64) {
    let generation = generation(&outcome(gateway, put(name)).await);
    let command = open(name, generation, gateway.stream);
    let epoch = epoch(&outcome(gateway, command).await);
    let command = Command::Subscribe {
        device: device(name),
        epoch,
        filters: vec![(messages_filter(&device(name)), 1)],
    };
    let kept = Outcome::Subscribed { waiting: false };
    assert_eq!(outcome(gateway, command).await, kept);
    (generation, epoch)
}

/// When the clock of these tests begins.
const BEGIN_MS: u64 = 1_700_000_000_000;
/// How long a message lives here, and how long one that was fetched is its holder's.
const LIFE_MS: u64 = 20_000;
const HELD_MS: u64 = 2_000;

fn send(name: &str, id: &str) -> Command {
    Command::MessageSend {
        device: device(name),
        message: NewMessage {
            id: id.into(),
            ack: AckWanted::Full,
            expires_ms: Some(BEGIN_MS + LIFE_MS),
            content: MessageContent::default(),
        },
    }
}

async fn taken(gateway: &mut Gateway<'_>, command: Command) -> Vec<TakenMessage> {
    match outcome(gateway, command).await {
        Outcome::MessagesTaken { messages, .. } => messages,
        other => panic!("{other:?}"),
    }
}

fn told(gateway: &Gateway<'_>) -> Vec<u64> {
    let downlinks = gateway.downlinks().into_iter();
    let waiting = downlinks.filter(|(_, downlink)| downlink.kind == DownlinkKind::MessagesWaiting);
    waiting.map(|(_, downlink)| downlink.epoch).collect()
}

async fn read(field: &Field, query: Query) -> View {
    let answer = field.host.query(SHARD, query, Consistency::Leader).await;
    answer.unwrap()
}

async fn queued(field: &Field, name: &str) -> u32 {
    match read(field, Query::Device(device(name))).await {
        View::Device(Some(view)) => view.message_count,
        other => panic!("{other:?}"),
    }
}

async fn feedback(field: &Field) -> Vec<(String, MessageEnd)> {
    let query = Query::Feedback {
        shard: SHARD,
        from: 0,
        to: 100,
    };
    match read(field, query).await {
        View::Feedback(records) => records
            .into_iter()
            .map(|FeedbackRecord { message_id, end, .. }| (message_id, end))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_listens_is_told_now_and_by_a_new_leader() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let (_, epoch) = listening(&mut gateway, "a").await;
    outcome(&mut gateway, put("b")).await;
    outcome(&mut gateway, send("b", "for nobody")).await;
    outcome(&mut gateway, send("a", "one")).await;
    until("the word", || told(&gateway) == [epoch]).await;
    field.host.on_follower(SHARD, None);
    field.lead();
    gateway.connect(1, &[("a", epoch)]).await.unwrap();
    until("the word again", || told(&gateway) == [epoch, epoch]).await;
}

#[tokio::test(start_paused = true)]
async fn the_leader_ends_what_nobody_takes_in_time() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    outcome(&mut gateway, put("a")).await;
    outcome(&mut gateway, send("a", "one")).await;
    pass(LIFE_MS - 2_000).await;
    assert_eq!(queued(&field, "a").await, 1);
    pass(4_000).await;
    assert_eq!(queued(&field, "a").await, 0);
    assert_eq!(feedback(&field).await, [("one".into(), MessageEnd::Expired)]);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_fetched_and_left_is_told_to_the_session() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let (generation, epoch) = listening(&mut gateway, "a").await;
    outcome(&mut gateway, send("a", "one")).await;
    until("the word", || told(&gateway).len() == 1).await;
    let fetch = Command::MessageLock {
        device: device("a"),
        generation,
        lock_ms: Some(HELD_MS),
    };
    let fetched = taken(&mut gateway, fetch.clone()).await;
    assert_eq!(fetched.len(), 1);
    let take = Command::MessageTake {
        device: device("a"),
        epoch,
        holds: Vec::new(),
        count_max: 9,
    };
    assert_eq!(taken(&mut gateway, take.clone()).await, []);
    for _ in 0..2 * HELD_MS / 100 {
        pass(100).await;
        field.host.keep_alive(SHARD, gateway.stream);
    }
    until("the word again", || told(&gateway).len() == 2).await;
    assert_eq!(taken(&mut gateway, take).await.len(), 1);
    let settle = |holder| Command::MessageSettle {
        device: device("a"),
        numbers: vec![1],
        holder,
        settlement: Settlement::Complete,
    };
    let late = outcome(&mut gateway, settle(fetched[0].holder)).await;
    assert_eq!(late, Outcome::Refused(Refusal::LockLost));
    assert_eq!(
        outcome(&mut gateway, settle(Holder::Session { epoch })).await,
        Outcome::Done
    );
    assert_eq!(feedback(&field).await, [("one".into(), MessageEnd::Success)]);
}

#[tokio::test(start_paused = true)]
async fn refusals_change_nothing() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let (generation, epoch) = listening(&mut gateway, "a").await;
    outcome(&mut gateway, send("a", "one")).await;
    let take = |epoch| Command::MessageTake {
        device: device("a"),
        epoch,
        holds: Vec::new(),
        count_max: 9,
    };
    let lock = |name, generation| Command::MessageLock {
        device: device(name),
        generation,
        lock_ms: None,
    };
    for (command, refusal) in [
        (send("nobody", "x"), Refusal::UnknownDevice),
        (take(epoch - 1), Refusal::Fenced),
        (lock("a", generation + 1), Refusal::StaleGeneration),
        (lock("nobody", 1), Refusal::UnknownDevice),
    ] {
        let seen = outcome(&mut gateway, command.clone()).await;
        assert_eq!(seen, Outcome::Refused(refusal), "{command:?}");
    }
    let unsubscribe = Command::Unsubscribe {
        device: device("a"),
        epoch,
        filters: vec![messages_filter(&device("a"))],
    };
    outcome(&mut gateway, unsubscribe).await;
    let deaf = outcome(&mut gateway, take(epoch)).await;
    assert_eq!(deaf, Outcome::Refused(Refusal::NotListening));
    assert_eq!(queued(&field, "a").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_deleted_leaves_nothing_of_its_messages() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    outcome(&mut gateway, put("a")).await;
    for id in ["one", "two"] {
        outcome(&mut gateway, send("a", id)).await;
    }
    let delete = Command::DeviceDelete {
        device: device("a"),
        condition: Condition::Any,
    };
    assert_eq!(outcome(&mut gateway, delete).await, Outcome::Done);
    let contents = Query::Messages {
        device: device("a"),
        numbers: vec![1, 2],
    };
    assert_eq!(read(&field, contents).await, View::Messages(vec![]));
    let due = Query::Due {
        shard: SHARD,
        ms: u64::MAX,
    };
    assert_eq!(read(&field, due).await, View::Due(vec![]));
    let ended = |id: &str| (id.to_owned(), MessageEnd::Purged);
    assert_eq!(feedback(&field).await, [ended("one"), ended("two")]);
}
