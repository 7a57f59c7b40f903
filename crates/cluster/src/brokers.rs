//! Where the gateways take readers over Kafka, as each says of itself.
//!
//! Addresses are no consensus data: nodes tell them to each other when they say hello, and what is known of one that is
//! silent is not passed on to readers.

use std::collections::BTreeMap;
use std::sync::Mutex;

use dunlin_model::directory::NODES_MAX;
use dunlin_model::id::NodeId;

/// `host:port` by node; no more than a cluster has nodes.
#[derive(Default)]
pub(crate) struct Brokers(Mutex<BTreeMap<NodeId, String>>);

impl Brokers {
    /// A node says where it takes readers, or that it takes none.
    pub(crate) fn learn(&self, node: NodeId, address: Option<String>) {
        let mut known = self.0.lock().expect("no panic holds it");
        match address {
            None => drop(known.remove(&node)),
            Some(address) if known.len() < NODES_MAX || known.contains_key(&node) => {
                known.insert(node, address);
            }
            Some(_) => {}
        }
    }

    /// Those of the nodes that `is_there`.
    pub(crate) fn those(&self, is_there: impl Fn(NodeId) -> bool) -> Vec<(NodeId, String)> {
        let known = self.0.lock().expect("no panic holds it");
        let there = known.iter().filter(|(node, _)| is_there(**node));
        there.map(|(node, address)| (*node, address.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_say_where_they_are_and_that_they_are_not() {
        let brokers = Brokers::default();
        for node in 1..=2 {
            brokers.learn(NodeId(node), Some(format!("n{node}:9093")));
        }
        assert_eq!(
            brokers.those(|node| node == NodeId(2)),
            [(NodeId(2), "n2:9093".to_owned())]
        );
        brokers.learn(NodeId(2), None);
        assert_eq!(brokers.those(|_| true).len(), 1);
        for node in 0..2 * NODES_MAX as u64 {
            brokers.learn(NodeId(node), Some("x:1".into()));
        }
        assert_eq!(brokers.those(|_| true).len(), NODES_MAX);
    }
}
