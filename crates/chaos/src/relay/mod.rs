//! A network that can be told to misbehave, between the nodes of one machine and before their doors.
//!
//! Node `i` (its place, from 0) listens on `127.0.0.i+1` and tells the others to reach it at
//! `127.0.1.i+1`, the same port. There the relay listens, knows the sender by its address, and passes
//! each packet through the faults of the directed link (sender, receiver); answers come back the same
//! way. Kernels without `netem` need nothing else, and neither does anyone without root. For devices
//! it splices TCP connections in the same way.
//!
//! This room is the handle: threads, sockets and the switches. What a link does to a packet is decided
//! in [`impairer`], what it may be told and counts is in [`faults`], the sockets are in `udp` and
//! `door`. The relay never looks into a packet, and never ends a node.

pub mod carrier;
pub mod delay;
mod door;
pub mod faults;
pub mod impairer;
#[cfg(test)]
mod tests;
mod udp;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::Notify;

use door::Door;
use faults::{BadFaults, DoorCounters, DoorFaults, LinkCounters, LinkFaults};
use udp::Links;

/// Nodes that one relay serves.
pub const RELAY_NODES_MAX: usize = 9;

/// Where the relay stands in for the node in `place` (from 0).
pub fn relay_host(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, place as u8 + 1)
}

/// Where the node in `place` (from 0) itself listens.
pub fn node_host(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, place as u8 + 1)
}

/// What a relay is told.
#[derive(Debug, Clone)]
pub struct RelayOptions {
    /// Nodes that it stands before.
    pub nodes: usize,
    /// Their port between nodes (UDP).
    pub cluster_port: u16,
    /// Their ports for devices and services (TCP); none are fine.
    pub door_ports: Vec<u16>,
    /// Draws what the links draw.
    pub seed: u64,
}

/// Why there is no relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Too many, or none.
    #[error("a relay serves between 1 and {RELAY_NODES_MAX} nodes, not {0}")]
    Count(usize),
    /// A socket or a thread.
    #[error("{action}: {source}")]
    Io {
        /// Verb and object.
        action: String,
        /// Why.
        source: io::Error,
    },
}

impl RelayError {
    fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> RelayError {
        move |source| RelayError::Io {
            action: action.into(),
            source,
        }
    }
}

/// The running relay. Dropping it ends it: its nodes can then no longer reach each other.
///
/// All methods act at once and on packets that come from then on; what is late already keeps its time.
/// They panic for a place that the relay has no node in.
pub struct Relay {
    links: Arc<Links>,
    doors: Vec<Arc<Door>>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Binds the addresses of all nodes, and passes everything until it is told otherwise. The work is
    /// done by one thread of its own, so that a busy caller does not slow the network down.
    pub fn start(options: &RelayOptions) -> Result<Relay, RelayError> {
        if options.nodes == 0 || options.nodes > RELAY_NODES_MAX {
            return Err(RelayError::Count(options.nodes));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(RelayError::io("start runtime of relay"))?;
        let _entered = runtime.enter();
        let links = Arc::new(Links::bind(options)?);
        let doors = (0..options.nodes)
            .map(|place| Door::bind(place, &options.door_ports).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        let stop = Arc::new(Notify::new());
        links.spawn();
        for door in &doors {
            door.spawn();
        }
        let stopped = stop.clone();
        drop(_entered);
        let thread = std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || runtime.block_on(stopped.notified()))
            .map_err(RelayError::io("start thread of relay"))?;
        Ok(Relay {
            links,
            doors,
            stop,
            thread: Some(thread),
        })
    }

    /// Nodes that it stands before.
    pub fn node_count(&self) -> usize {
        self.doors.len()
    }

    /// Tells the link from one node to another what to do to packets.
    pub fn set(&self, from: usize, to: usize, faults: LinkFaults) -> Result<(), BadFaults> {
        faults.validate()?;
        self.links.set(from, to, faults);
        Ok(())
    }

    /// What the link from one node to another is told at present.
    pub fn faults(&self, from: usize, to: usize) -> LinkFaults {
        self.links.faults(from, to)
    }

    /// Cuts the links, both ways, between any two nodes that share no group, and mends all others;
    /// other faults stay. Groups may overlap: `[[0, 1], [1, 2]]` makes node 1 a bridge, and a ring of
    /// five is `[[0, 1], [1, 2], [2, 3], [3, 4], [4, 0]]`.
    pub fn partition(&self, groups: &[Vec<usize>]) {
        for from in 0..self.node_count() {
            for to in 0..self.node_count() {
                let share = |group: &Vec<usize>| group.contains(&from) && group.contains(&to);
                let cut = from != to && !groups.iter().any(share);
                let faults = self.links.faults(from, to);
                self.links.set(from, to, LinkFaults { cut, ..faults });
            }
        }
    }

    /// Ends all faults of links and doors.
    pub fn heal_all(&self) {
        for from in 0..self.node_count() {
            for to in 0..self.node_count() {
                self.links.set(from, to, LinkFaults::default());
            }
            self.doors[from].set(DoorFaults::default());
        }
    }

    /// Gives the packets from one node to another a new source port, as a NAT does that has forgotten
    /// them; what is sent to the old port is lost. Done with the next packet that goes this way.
    pub fn rebind(&self, from: usize, to: usize) {
        self.links.rebind(from, to);
    }

    /// What became of the packets from one node to another, over both directions of dialling.
    pub fn counters(&self, from: usize, to: usize) -> LinkCounters {
        self.links.counters(from, to)
    }

    /// Tells the doors of a node what to do to connections, those that are open included.
    pub fn set_door(&self, place: usize, faults: DoorFaults) -> Result<(), BadFaults> {
        faults.validate()?;
        self.doors[place].set(faults);
        Ok(())
    }

    /// Resets (RST) all connections that are open at the doors of a node, towards both ends.
    pub fn reset_connections(&self, place: usize) {
        self.doors[place].reset();
    }

    /// Sends a FIN to both ends of all connections that are open at the doors of a node, closes none
    /// of them, and takes no notice of what still comes.
    pub fn finish_connections(&self, place: usize) {
        self.doors[place].finish();
    }

    /// What became of the connections at the doors of a node.
    pub fn door_counters(&self, place: usize) -> DoorCounters {
        self.doors[place].counters()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the relay's thread has been printed; there is nothing else left of it.
            let _ = thread.join();
        }
    }
}
