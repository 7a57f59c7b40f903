//! Events over AMQP with the SDK that others wrote: all of them, in order, through the death of a node, and on from
//! where a reader was, or from its checkpoints when it was killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_gateway::auth::ConnectionString;
use dunlin_gateway::client::{Client, Event};
use dunlin_node::ready::Ready;
use dunlin_tests::PATIENCE;
use dunlin_tests::field::{Field, SHARDS};
use dunlin_tests::hub::{Device, HOST};
use dunlin_tests::judge::{Place, Stored, acked_count, assert_kept};
use dunlin_tests::load::Load;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::clients::{SdkDevice, event_hubs_field};

/// A reader in a process of its own.
struct Reader {
    sdk: SdkDevice,
    /// What the hub said of each partition.
    partitions: Vec<Value>,
    /// The last offset that was read of each.
    last: BTreeMap<u32, u64>,
}

impl Reader {
    /// Begins each partition where `places` says.
    async fn start(ready: &Ready, group: &str, places: &Value) -> Reader {
        let connection = connection(ready);
        let places = places.to_string();
        let arguments = [
            connection.as_ref(),
            ready.ca_file.as_os_str(),
            group.as_ref(),
            places.as_ref(),
        ];
        let mut sdk = SdkDevice::start("azure_eventhub_read.py", &arguments);
        let hub = sdk.hear("hub").await;
        let ids: Vec<String> = (0..SHARDS).map(|shard| shard.to_string()).collect();
        assert_eq!(hub["partition_ids"], json!(ids));
        let mut partitions = Vec::new();
        for _ in 0..SHARDS {
            partitions.push(sdk.hear("partition").await);
        }
        Reader {
            sdk,
            partitions,
            last: BTreeMap::new(),
        }
    }

    /// The next `count` events. Each partition's come in order, without a gap and none twice.
    async fn read(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            let event = self.sdk.hear("event").await;
            let place = place(&event);
            if let Some(before) = self.last.insert(place.shard, place.offset) {
                assert_eq!(place.offset, before + 1, "{event}");
            }
            events.push(event);
        }
        events
    }

    /// Ends it; it has nothing more to say.
    async fn end(self) {
        self.sdk.end().await;
    }
}

/// A reader that keeps checkpoints in a store, in a process of its own.
struct Keeper {
    sdk: SdkDevice,
    /// The next offset of each partition: behind its checkpoint, then behind what was read.
    next: BTreeMap<u32, u64>,
}

/// An event that is the next one of its partition: none is skipped, and none comes again.
fn take(next: &mut BTreeMap<u32, u64>, event: &Value) -> Stored {
    let stored = to_stored(event);
    let next = next.entry(stored.place.shard).or_default();
    assert_eq!(stored.place.offset, *next, "{event}");
    *next += 1;
    stored
}

impl Keeper {
    /// Begins where the checkpoints in `store` say.
    async fn start(ready: &Ready, group: &str, store: &Path) -> Keeper {
        let connection = connection(ready);
        let arguments = [
            connection.as_ref(),
            ready.ca_file.as_os_str(),
            group.as_ref(),
            store.as_os_str(),
        ];
        let mut sdk = SdkDevice::start("azure_eventhub_checkpoint.py", &arguments);
        let checkpoints = sdk.hear("checkpoints").await;
        let mut next = BTreeMap::new();
        for (partition, sequence) in checkpoints.as_object().expect("an object") {
            let partition = partition.parse().expect("a partition");
            let sequence = sequence.as_u64().expect("a sequence number");
            next.insert(partition, sequence + 1);
        }
        Keeper { sdk, next }
    }

    /// The next `count` events.
    async fn read(&mut self, count: usize) -> Vec<Stored> {
        let mut read = Vec::with_capacity(count);
        while read.len() < count {
            let event = self.sdk.hear("event").await;
            read.push(take(&mut self.next, &event));
        }
        read
    }

    /// Kills it; what it had read by then beyond what was asked for.
    async fn kill(self) -> Vec<Stored> {
        let Keeper { sdk, mut next } = self;
        let rest = sdk.kill().await;
        rest.iter()
            .map(|(said, event)| {
                assert_eq!(said, "event", "{event}");
                take(&mut next, event)
            })
            .collect()
    }
}

/// The hub's connection string in the form of Event Hubs.
pub(crate) fn connection(ready: &Ready) -> String {
    let owner = ConnectionString::parse(&ready.connection_string).expect("one of ours");
    format!(
        "Endpoint=sb://{HOST}/;SharedAccessKeyName={};SharedAccessKey={};EntityPath=hub",
        owner.shared_access_key_name.expect("a policy"),
        owner.shared_access_key
    )
}

fn place(event: &Value) -> Place {
    let offset = event["sequence"].as_u64().expect("a sequence number");
    assert_eq!(event["offset"], json!(offset.to_string()));
    Place {
        shard: event["partition"].as_u64().expect("a partition") as u32,
        offset,
    }
}

fn to_stored(event: &Value) -> Stored {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{event}")).to_owned();
    Stored {
        place: place(event),
        device: text(&event["system"]["iothub-connection-device-id"]),
        body: STANDARD.decode(text(&event["body"])).expect("Base64"),
    }
}

/// Every partition from its first event on.
pub(crate) fn beginning() -> Value {
    (0..SHARDS)
        .map(|shard| (shard.to_string(), json!("-1")))
        .collect()
}

/// Sends one message with all that a message may have, and returns when it is acknowledged.
async fn send_named(field: &Field, device: &Device) {
    let mut client = Client::connect(&field.hub.doors[0].options(device))
        .await
        .expect("it is let in");
    let bag = "%24.mid=m-1&%24.cid=c-1&%24.uid=u-1&%24.ct=application%2Fjson&%24.ce=utf-8&color=red&empty=";
    let topic = format!("devices/{}/messages/events/{bag}", device.id);
    client
        .publish(&topic, b"{\"named\":true}")
        .await
        .expect("it is sent");
    let acked = async { while !matches!(client.next_event().await, Event::Puback { .. }) {} };
    timeout(PATIENCE, acked).await.expect("it is acknowledged");
    client.disconnect().await;
}

fn assert_named(events: &[Value], device: &Device) {
    let named = |event: &&Value| event["system"]["iothub-connection-device-id"] == json!(device.id);
    let event = events.iter().find(named).expect("the message is read");
    let system = &event["system"];
    for (name, value) in [
        ("message-id", "m-1"),
        ("correlation-id", "c-1"),
        ("user-id", "u-1"),
        ("content-type", "application/json"),
        ("content-encoding", "utf-8"),
        ("iothub-message-source", "Telemetry"),
    ] {
        assert_eq!(system[name], json!(value), "{event}");
    }
    let method = system["iothub-connection-auth-method"].as_str().expect("a text");
    let method: Value = serde_json::from_str(method).expect("JSON");
    assert_eq!(
        method,
        json!({"scope": "device", "type": "sas", "issuer": "iothub"})
    );
    assert!(
        system["iothub-enqueuedtime"]
            .as_u64()
            .is_some_and(|time| time > 0)
    );
    assert_eq!(system["iothub-enqueuedtime"], system["x-opt-enqueued-time"]);
    assert_eq!(event["properties"], json!({"color": "red", "empty": ""}));
    assert_eq!(to_stored(event).body, b"{\"named\":true}");
}

/// Somewhere in the middle of a partition, in a spelling of its own for each, and what a reader gets from there on.
fn go_on(shard: u32, times: &BTreeMap<Place, u64>) -> (Value, Vec<Place>) {
    let own: Vec<Place> = times
        .keys()
        .copied()
        .filter(|place| place.shard == shard)
        .collect();
    let Some(middle) = own.get(own.len() / 2) else {
        return (json!("-1"), Vec::new());
    };
    let rest = |is_rest: &dyn Fn(&Place) -> bool| own.iter().copied().filter(is_rest).collect();
    match shard {
        0 => (json!(middle.offset.to_string()), rest(&|place| place > middle)),
        1 => (json!(middle.offset), rest(&|place| place >= middle)),
        2 => (
            json!({"time": times[middle]}),
            rest(&|place| times[place] > times[middle]),
        ),
        _ => (json!("-1"), own),
    }
}

#[tokio::test]
async fn the_event_hubs_sdk_reads_everything_while_a_node_dies() {
    let Some((_turn, mut field)) = event_hubs_field().await else {
        return;
    };
    let ready = field.cluster.ready().clone();
    let named = field.hub.create("named").await;
    let mut reader = Reader::start(&ready, "$Default", &beginning()).await;
    assert!(
        reader
            .partitions
            .iter()
            .all(|partition| partition["is_empty"] == json!(true))
    );
    send_named(&field, &named).await;

    // Devices and the reader are at the first node throughout. Another one dies while they send, and with it leaders.
    let doors = &field.hub.doors[..1].to_vec();
    let before = field.hub.create_many("before", 3).await;
    let during = field.hub.create_many("during", 3).await;
    let load = Load::start(doors, &before);
    load.wait_acked(200).await;
    let mut logs = load.finish().await;
    let mut events = reader.read(acked_count(&logs)).await;
    let load = Load::start(doors, &during);
    load.wait_acked(100).await;
    field.kill(1).await;
    load.wait_acked(100).await;
    logs.extend(load.finish().await);
    let stored = field.hub.read_all().await;
    events.extend(reader.read(stored.len() - events.len()).await);
    field.restart(1).await;

    let mut read: Vec<Stored> = events.iter().map(to_stored).collect();
    let places: BTreeSet<Place> = read.iter().map(|stored| stored.place).collect();
    assert_eq!(places.len(), read.len(), "none is read twice");
    assert_named(&events, &named);
    read.retain(|stored| stored.device != named.id);
    assert_kept(&logs, &read);
    reader.end().await;

    // Another run goes on behind an offset, from a sequence number, from a time, and from the beginning.
    let times: BTreeMap<Place, u64> = events
        .iter()
        .map(|event| {
            let time = event["system"]["x-opt-enqueued-time"].as_u64();
            (place(event), time.expect("a time"))
        })
        .collect();
    let (mut begun, mut wanted) = (BTreeMap::new(), BTreeSet::new());
    for shard in 0..SHARDS as u32 {
        let (from, rest) = go_on(shard, &times);
        begun.insert(shard.to_string(), from);
        wanted.extend(rest);
    }
    let mut resumed = Reader::start(&ready, "insights", &json!(begun)).await;
    let again = resumed.read(wanted.len()).await;
    let again: BTreeSet<Place> = again.iter().map(place).collect();
    assert_eq!(again, wanted);
    resumed.end().await;
    field.stop().await;
}

#[tokio::test]
async fn the_event_hubs_sdk_goes_on_from_its_checkpoints_when_a_reader_and_a_node_die() {
    let Some((_turn, mut field)) = event_hubs_field().await else {
        return;
    };
    let ready = field.cluster.ready().clone();
    let folder = TempDir::new().expect("a folder for temporary files");
    let store = folder.path().join("checkpoints.json");
    let early = field.hub.create_many("early", 3).await;
    let during = field.hub.create_many("during", 3).await;
    let late = field.hub.create_many("late", 3).await;

    // Devices and readers are at the first node throughout. Another one dies while they send and a reader reads, then
    // the reader, a few events past its checkpoints; the devices go on.
    let doors = &field.hub.doors[..1].to_vec();
    let mut first = Keeper::start(&ready, "insights", &store).await;
    assert!(first.next.is_empty(), "nobody has read for this group");
    let load = Load::start(doors, &early);
    load.wait_acked(200).await;
    let mut logs = load.finish().await;
    let mut before = first.read(100).await;
    let load = Load::start(doors, &during);
    load.wait_acked(100).await;
    field.kill(1).await;
    load.wait_acked(100).await;
    before.extend(first.read(200).await);
    before.extend(first.kill().await);
    load.wait_acked(100).await;
    logs.extend(load.finish().await);

    // `take` sees that another one begins right behind the checkpoints.
    let mut second = Keeper::start(&ready, "insights", &store).await;
    let done = second.next.clone();
    let is_done = |place: &Place| done.get(&place.shard).is_some_and(|next| place.offset < *next);
    let done_count = before.iter().filter(|stored| is_done(&stored.place)).count();
    assert!(done_count > 0, "there are no checkpoints");
    assert_eq!(done_count as u64, done.values().sum::<u64>());
    let mut after = second.read(100).await;
    let load = Load::start(doors, &late);
    load.wait_acked(100).await;
    logs.extend(load.finish().await);
    let mut stored = field.hub.read_all().await;
    after.extend(second.read(stored.len() - done_count - after.len()).await);
    second.sdk.end().await;
    before.retain(|stored| is_done(&stored.place));
    let mut read = [before, after].concat();
    read.sort_by_key(|stored| stored.place);
    stored.sort_by_key(|stored| stored.place);
    assert!(read == stored, "what was read is not what there is");
    assert_kept(&logs, &read);

    // Another group has checkpoints of its own, and none yet.
    let mut other = Keeper::start(&ready, "$Default", &store).await;
    assert!(other.next.is_empty());
    let mut all = other.read(stored.len()).await;
    other.sdk.end().await;
    all.sort_by_key(|stored| stored.place);
    assert!(all == stored, "another group does not read all");
    field.restart(1).await;
    field.stop().await;
}
