//! Events over Kafka with the client that others wrote: a group shares the partitions out, anew when a member comes or is
//! killed, goes on from what was committed, and misses nothing while nodes die.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_node::ready::Ready;
use dunlin_tests::field::{Field, SHARDS};
use dunlin_tests::judge::Place;
use dunlin_tests::load::Load;
use serde_json::{Value, json};

use crate::clients::{SdkDevice, is_there, python};

/// A member of a group, in a process of its own.
struct Member {
    sdk: SdkDevice,
    /// The partitions that are its share.
    share: BTreeSet<u32>,
    /// The next offset that it has not had of each.
    next: BTreeMap<u32, u64>,
}

/// Where all brokers are.
pub(crate) fn servers(ready: &Ready) -> String {
    let addresses: Vec<&str> = ready.nodes.iter().map(|node| node.kafka.as_str()).collect();
    addresses.join(",")
}

impl Member {
    fn start(ready: &Ready, group: &str) -> Member {
        let servers = servers(ready);
        let arguments = [
            servers.as_ref(),
            ready.connection_string.as_ref(),
            ready.ca_file.as_os_str(),
            group.as_ref(),
        ];
        Member {
            sdk: SdkDevice::start("kafka_consume.py", &arguments),
            share: BTreeSet::new(),
            next: BTreeMap::new(),
        }
    }

    /// Takes what it says next. Between two rebalances a partition's events come in order, without a gap.
    async fn hear(&mut self) -> Option<Value> {
        let (word, said) = self.sdk.hear_any().await;
        match word.as_str() {
            "assigned" | "revoked" => {
                let named = said.as_array().expect("a list").iter();
                let named = named.map(|one| one.as_u64().expect("a number") as u32);
                if word == "assigned" {
                    self.share.extend(named);
                } else {
                    named.for_each(|one| {
                        self.share.remove(&one);
                        self.next.remove(&one);
                    });
                }
                None
            }
            "event" => {
                let place = place(&said);
                assert!(self.share.contains(&place.shard), "{said}");
                if let Some(next) = self.next.insert(place.shard, place.offset + 1) {
                    assert_eq!(place.offset, next, "{said}");
                }
                Some(said)
            }
            "uncommitted" => None,
            // A broker that dies is a line in its log.
            "error" => None,
            _ => panic!("{word} {said}"),
        }
    }

    async fn until_shared(&mut self, count: usize) {
        while self.share.len() != count {
            self.hear().await;
        }
    }

    async fn read(&mut self, seen: &mut BTreeSet<Place>, all: &BTreeSet<Place>) {
        while seen != all {
            if let Some(event) = self.hear().await {
                seen.insert(place(&event));
            }
        }
    }
}

fn place(event: &Value) -> Place {
    Place {
        shard: event["partition"].as_u64().expect("a partition") as u32,
        offset: event["offset"].as_u64().expect("an offset"),
    }
}

async fn stored(field: &Field) -> BTreeSet<Place> {
    field
        .hub
        .read_all()
        .await
        .iter()
        .map(|stored| stored.place)
        .collect()
}

#[tokio::test]
async fn confluent_kafka_shares_out_and_goes_on_while_members_and_nodes_die() {
    let install = "pip install confluent-kafka";
    if !is_there(&python(), &["-c", "import confluent_kafka"], install).await {
        return;
    }
    let mut field = Field::start(3, &[]).await;
    let ready = field.cluster.ready().clone();
    let doors = &field.hub.doors[..1].to_vec();
    let devices = field.hub.create_many("d", 4).await;
    let send = async |count: usize| {
        let load = Load::start(doors, &devices);
        load.wait_acked(count).await;
        load.finish().await
    };
    send(60).await;
    let all = stored(&field).await;

    // One member has all partitions, and reads all.
    let mut first = Member::start(&ready, "readers");
    first.until_shared(SHARDS).await;
    let mut seen = BTreeSet::new();
    let event = loop {
        if let Some(event) = first.hear().await {
            seen.insert(place(&event));
            break event;
        }
    };
    let key = event["key"].as_str().expect("a key");
    assert_eq!(event["headers"]["iothub-connection-device-id"], key);
    assert_eq!(event["headers"]["iothub-message-source"], "Telemetry");
    assert_eq!(event["headers"]["iothub-enqueuedtime"], event["time"].to_string());
    first.read(&mut seen, &all).await;

    // A second one takes its share; a node dies, and with it leaders and perhaps a coordinator.
    let mut second = Member::start(&ready, "readers");
    while first.share.len() != SHARDS / 2 || second.share.len() != SHARDS / 2 {
        tokio::select! {
            _ = first.hear() => {}
            _ = second.hear() => {}
        }
    }
    assert!(first.share.is_disjoint(&second.share));
    field.kill(1).await;
    send(60).await;
    let all = stored(&field).await;
    while seen != all {
        let event = tokio::select! {
            event = first.hear() => event,
            event = second.hear() => event,
        };
        seen.extend(event.iter().map(place));
    }
    field.restart(1).await;

    // The first one is killed. Once its session is over the second has all, from what was committed on.
    drop(first);
    second.until_shared(SHARDS).await;
    send(40).await;
    let all = stored(&field).await;
    second.read(&mut seen, &all).await;
    second.sdk.say("end").await;
    loop {
        match second.sdk.hear_any().await {
            (word, _) if word == "ended" => break,
            (word, said) => assert!(matches!(word.as_str(), "revoked" | "event"), "{word} {said}"),
        }
    }

    // Whoever comes later begins where the group was; another group from the start.
    let mut later = Member::start(&ready, "readers");
    later.until_shared(SHARDS).await;
    send(8).await;
    let now = stored(&field).await;
    let mut rest: BTreeSet<Place> = BTreeSet::new();
    let new: BTreeSet<Place> = now.difference(&all).copied().collect();
    later.read(&mut rest, &new).await;
    let mut other = Member::start(&ready, "others");
    let mut again = BTreeSet::new();
    other.read(&mut again, &now).await;
    assert_eq!(json!(again.len()), json!(now.len()));
    drop((later, other));
    field.stop().await;
}
