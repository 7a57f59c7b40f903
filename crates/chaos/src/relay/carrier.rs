//! What stands between nodes and does to packets what it is told: the relay, or the kernel in
//! [namespaces](crate::namespaces).

use super::Relay;
use super::faults::{LinkCounters, LinkFaults};

/// A link, by the places of its sender and its receiver.
pub type Ends = (usize, usize);

/// Something that carries the packets of all links.
pub trait Carrier {
    /// Nodes that it stands between.
    fn node_count(&self) -> usize;

    /// Why this cannot be done to a link, if it cannot; `rebinds` asks for other ports as well.
    fn check(&self, faults: &LinkFaults, rebinds: bool) -> Result<(), String>;

    /// What a link is told at present.
    fn faults(&self, link: Ends) -> LinkFaults;

    /// Tells links what to do to packets. Which have heard it is not known if this fails.
    fn set(&self, told: &[(Ends, LinkFaults)]) -> Result<(), String>;

    /// What became of the packets of these links, in their order.
    fn counters(&self, links: &[Ends]) -> Result<Vec<LinkCounters>, String>;

    /// Gives the packets of a link another source port.
    fn rebind(&self, link: Ends);
}

impl Carrier for Relay {
    fn node_count(&self) -> usize {
        self.node_count()
    }

    fn check(&self, faults: &LinkFaults, _rebinds: bool) -> Result<(), String> {
        faults.validate().map_err(|error| error.to_string())
    }

    fn faults(&self, (from, to): Ends) -> LinkFaults {
        self.faults(from, to)
    }

    fn set(&self, told: &[(Ends, LinkFaults)]) -> Result<(), String> {
        told.iter().try_for_each(|((from, to), faults)| {
            self.set(*from, *to, *faults).map_err(|error| error.to_string())
        })
    }

    fn counters(&self, links: &[Ends]) -> Result<Vec<LinkCounters>, String> {
        Ok(links.iter().map(|(from, to)| self.counters(*from, *to)).collect())
    }

    fn rebind(&self, (from, to): Ends) {
        self.rebind(from, to);
    }
}
