//! Device actors: awake when concerned, asleep when idle, restarted, quarantined, alone in their failures.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use dunlin_actors::{ActorFault, HostConfig};
use dunlin_model::id::{DeviceId, ShardId};
use dunlin_model::identity::{Condition, DeviceStatus};
use dunlin_model::port::{AppliedSink, DownlinkKind, SessionEnd};

use crate::support::{
    Field, Gateway, SHARD, applied, device, epoch, generation, open, pass, put, spec, until,
};
use dunlin_model::command::Command;

/// Makes the named devices fail as many times as is written.
#[derive(Default)]
struct Failing {
    failures: Mutex<HashMap<DeviceId, usize>>,
}

impl Failing {
    fn set(&self, name: &str, failures: usize) {
        self.failures.lock().unwrap().insert(device(name), failures);
    }
}

impl ActorFault for Failing {
    fn before_device(&self, device: &DeviceId) {
        let fails = match self.failures.lock().unwrap().get_mut(device) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        };
        assert!(!fails, "the test makes {device} fail");
    }

    fn before_shard(&self, _: ShardId) {}
}

fn failing_field() -> (Field, Arc<Failing>) {
    let failing = Arc::new(Failing::default());
    let field = Field::start(HostConfig {
        actor_fault: Some(failing.clone()),
        ..HostConfig::default()
    });
    field.lead();
    (field, failing)
}

async fn connect_device(gateway: &mut Gateway<'_>, name: &str) -> u64 {
    let created = applied(gateway.send(&[], vec![put(name)]).await);
    let command = open(name, generation(&created.outcomes[0]), gateway.stream);
    epoch(&applied(gateway.send(&[], vec![command]).await).outcomes[0])
}

#[tokio::test(start_paused = true)]
async fn only_an_idle_device_without_a_session_leaves_memory() {
    let config = HostConfig {
        device_idle_ms: 2_000,
        gateway_lease_ms: 1_000_000,
        ..HostConfig::default()
    };
    let field = Field::start(config);
    field.lead();
    let mut gateway = Gateway::connected(&field, 1).await;
    let epoch = connect_device(&mut gateway, "connected").await;
    gateway.send(&[], vec![put("idle")]).await;
    until("two actors", || field.stats().device_actors == 2).await;
    until("presence", || field.stats().devices_connected == 1).await;
    pass(1_500).await;
    gateway.send(&[], vec![put("idle")]).await;
    pass(1_500).await;
    assert_eq!(field.stats().device_actors, 2, "news start the wait anew");
    pass(700).await;
    assert_eq!(
        (field.stats().device_actors, field.stats().devices_connected),
        (1, 1)
    );
    gateway.send(&[], vec![put("idle")]).await;
    until("a wake", || field.stats().device_actors == 2).await;
    gateway
        .send(
            &[],
            vec![Command::SessionClose {
                device: device("connected"),
                epoch,
            }],
        )
        .await;
    until("absence", || field.stats().devices_connected == 0).await;
    pass(2_100).await;
    assert_eq!(field.stats().device_actors, 0);
    assert_eq!(
        (field.stats().device_restarts, field.stats().notices_dropped),
        (0, 0)
    );
    assert_eq!(gateway.downlinks(), [], "it closed the session itself");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_panics_is_restarted_and_loses_nothing() {
    let (field, failing) = failing_field();
    let mut gateway = Gateway::connected(&field, 1).await;
    let epoch = connect_device(&mut gateway, "a").await;
    until("presence", || field.stats().devices_connected == 1).await;
    failing.set("a", 1);
    let disabled = spec(DeviceStatus::Disabled, "key");
    let disable = Command::DevicePut {
        device: device("a"),
        spec: disabled,
        condition: Condition::Any,
    };
    gateway.send(&[], vec![disable]).await;
    until("a restart", || field.stats().device_restarts == 1).await;
    until("the actor", || field.stats().device_actors == 1).await;
    pass(5).await;
    let ends: Vec<_> = gateway
        .downlinks()
        .into_iter()
        .map(|(_, down)| (down.epoch, down.kind))
        .collect();
    assert_eq!(
        ends,
        [(epoch, DownlinkKind::SessionEnded(SessionEnd::CredentialRevoked))]
    );
    assert_eq!(field.stats().devices_connected, 0, "it was built from state");
    assert_eq!(field.stats().quarantined, []);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_keeps_panicking_is_quarantined_and_its_siblings_live_on() {
    let (field, failing) = failing_field();
    let mut gateway = Gateway::connected(&field, 1).await;
    // Siblings in every bucket, so one is in that of the device that fails.
    let siblings: Vec<_> = (0..64).map(|i| format!("s{i}")).collect();
    for name in &siblings {
        connect_device(&mut gateway, name).await;
    }
    until("siblings", || field.stats().devices_connected == 64).await;
    let reads = field.replication.reads();
    failing.set("bad", usize::MAX);
    let epoch = connect_device(&mut gateway, "bad").await;
    until("quarantine", || !field.stats().quarantined.is_empty()).await;
    let stats = field.stats();
    assert_eq!(
        (
            stats.device_restarts,
            stats.devices_connected,
            stats.shard_restarts
        ),
        (5, 64, 0)
    );
    assert_eq!(stats.quarantined[0].device, device("bad"));
    assert!(
        stats.quarantined[0].evidence.contains("the test makes bad fail"),
        "{stats:?}"
    );
    assert_eq!(
        field.replication.reads(),
        reads,
        "it fails before it reads, and no sibling was built again"
    );

    let command = Command::DeviceDelete {
        device: device("bad"),
        condition: Condition::Any,
    };
    gateway.send(&[], vec![command]).await;
    until("the missed", || field.stats().quarantined[0].notices_dropped == 2).await;
    let ends: Vec<_> = gateway
        .downlinks()
        .into_iter()
        .map(|(_, down)| (down.epoch, down.kind))
        .collect();
    assert_eq!(
        ends,
        [(epoch, DownlinkKind::SessionEnded(SessionEnd::Deleted))],
        "its session ends all the same"
    );
    for name in &siblings {
        gateway.send(&[], vec![put(name)]).await;
    }
    assert_eq!((gateway.lost(), field.stats().device_actors), (0, 64));

    field.host.on_follower(SHARD, None);
    until("the end", || field.stats().device_actors == 0).await;
    failing.set("bad", 0);
    field.lead();
    gateway.connect(1, &[]).await.unwrap();
    assert_eq!(field.stats().quarantined, [], "a new leadership tries again");
}
