//! When what happens: the load's duration in as many parts as there are kills, in each of them a node
//! killed after a third and brought back after two thirds.
//!
//! Chooses the victim (the node that leads most shards just then) and the probes that watch its
//! shards through nodes that live. Measures nothing itself.

use std::sync::Arc;
use std::time::Duration;

use dunlin_cluster::admin::ClusterStatus;
use dunlin_node::local::LocalCluster;
use tokio::time::{Instant, sleep_until};

use super::{DemoError, Options};
use crate::fleet::{Armed, Fleet};
use crate::hub::Hub;
use crate::oracle::Disturbance;
use crate::stage;
use crate::verdict::KillLine;
use crate::view::View;

/// Probes send from so long before a kill ...
const ARMED_BEFORE: Duration = Duration::from_secs(1);
/// ... until so long after it, or until the node comes back.
const ARMED_AFTER: Duration = Duration::from_secs(5);
/// Choices of a victim before a kill is given up because leaderships do not rest.
const CHOICES_MAX: u32 = 5;

/// What was done to the cluster.
#[derive(Debug, Default)]
pub(super) struct Played {
    pub(super) kills: Vec<Disturbance>,
    pub(super) lines: Vec<KillLine>,
    /// For each kill the shards that the node led just before.
    pub(super) led: Vec<Vec<u32>>,
    pub(super) last_victim: Option<usize>,
}

/// Kills and restarts on time, and returns when the load's time is over. `epoch` is where the history's
/// times begin, `begun` where the load began.
pub(super) async fn play(
    options: &Options,
    cluster: &mut LocalCluster,
    hub: &Hub,
    fleet: &Fleet,
    view: &View,
    (epoch, begun): (Instant, Instant),
) -> Result<Played, DemoError> {
    let mut played = Played::default();
    let duration = Duration::from_secs(options.duration_s);
    let part = duration / options.kills.max(1) as u32;
    let since = |from: Instant| from.elapsed().as_secs_f64();
    for kill in 0..options.kills {
        let kill_at = begun + part * kill as u32 + part / 3;
        let back_at = begun + part * kill as u32 + part * 2 / 3;
        sleep_until(kill_at - ARMED_BEFORE.min(part / 3)).await;
        if kill > 0 {
            stage::wait_until_whole(hub).await?;
        }
        let settle = ARMED_BEFORE.min(part / 6);
        let (mut victim, mut led) = most_leading(cluster, &hub.status().await?);
        let mut led_now = Vec::new();
        for _ in 0..CHOICES_MAX {
            fleet.set_phase(|phase| {
                phase.armed = vec![Arc::new(watchers(kill, cluster.node_count(), victim, &led))]
            });
            sleep_until(kill_at.max(Instant::now() + settle)).await;
            // Leaderships may have moved meanwhile.
            let (most, most_led) = most_leading(cluster, &hub.status().await?);
            if most == victim {
                led_now = most_led;
                break;
            }
            (victim, led) = (most, most_led);
        }
        if led_now.is_empty() {
            // The report counts what happened against what was planned, and fails.
            played.led.push(Vec::new());
            continue;
        }
        // Only shards that it led all along were watched.
        led.retain(|shard| led_now.contains(shard));
        hub.set_down(victim, true);
        view.say(&format!(
            "{:5.1} s  SIGKILL to node {}, which leads {} shards",
            since(begun),
            victim + 1,
            led_now.len()
        ));
        let (asked, at_s) = (epoch.elapsed(), since(begun));
        cluster.kill(victim).await?;
        let (killed, gone) = (Instant::now(), epoch.elapsed());
        played.kills.push(Disturbance {
            node: victim,
            from_us: asked.as_micros() as u64,
            until_us: gone.as_micros() as u64,
        });
        played.led.push(led);
        played.last_victim = Some(victim);

        sleep_until(back_at.min(killed + ARMED_AFTER)).await;
        fleet.set_phase(|phase| phase.armed.clear());
        sleep_until(back_at).await;
        cluster.restart(victim).await?;
        hub.set_down(victim, false);
        let away_s = killed.elapsed().as_secs_f64();
        view.say(&format!("{:5.1} s  node {} is back", since(begun), victim + 1));
        played.lines.push(KillLine {
            node: victim + 1,
            at_s: (at_s * 10.0).round() / 10.0,
            shards_led: led_now.len(),
            away_s: Some((away_s * 10.0).round() / 10.0),
        });
    }
    sleep_until(begun + duration).await;
    Ok(played)
}

/// One probe for each of the victim's shards, in turn on the nodes that live.
fn watchers(kill: usize, node_count: usize, victim: usize, led: &[u32]) -> Armed {
    let survivors: Vec<usize> = (0..node_count).filter(|node| *node != victim).collect();
    let probes = led
        .iter()
        .enumerate()
        .map(|(place, shard)| (survivors[place % survivors.len()], *shard));
    Armed {
        fault: kill,
        probes: probes.collect(),
    }
}

/// The node that leads most shards, and those shards.
fn most_leading(cluster: &LocalCluster, status: &ClusterStatus) -> (usize, Vec<u32>) {
    (0..cluster.node_count())
        .map(|node| (node, led_by(cluster, node, status)))
        .max_by_key(|(node, led)| (led.len(), std::cmp::Reverse(*node)))
        .unwrap_or_default()
}

/// Shards that a node leads. Group 0 is the directory, group `n + 1` is shard `n`.
fn led_by(cluster: &LocalCluster, node: usize, status: &ClusterStatus) -> Vec<u32> {
    let Some(id) = cluster.node(node).map(|node| &node.id) else {
        return Vec::new();
    };
    let led = status
        .groups
        .iter()
        .filter(|group| group.leader.as_ref() == Some(id));
    led.filter_map(|group| group.group.checked_sub(1)).collect()
}
