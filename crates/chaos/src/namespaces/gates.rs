//! What stands before each node that has a network namespace of its own: rules of `iptables` that drop of what
//! comes in, and the counts of what they have dropped.
//!
//! Decides when a node's rules are made anew, and that no count is lost by it; what a rule says is in
//! [`rules`](super::rules). Whose the namespaces are does not matter here: the parent makes some for processes,
//! and containers bring their own, a new one with each start. The kernel drops and does not delay. Needs root,
//! `ip` (iproute2), `nsenter` (util-linux) and `iptables`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

use super::{NamespaceError, rules, run};
use crate::relay::carrier::{Carrier, Ends};
use crate::relay::faults::{Cause, LinkCounters, LinkFaults};

/// Programs that are called, and how each says that it is there.
const PROGRAMS: [[&str; 2]; 3] = [["ip", "-V"], ["nsenter", "--version"], ["iptables", "--version"]];

/// Packets by sender and cause.
type Counts = BTreeMap<(usize, Cause), u64>;

/// The gates of nodes, by place.
#[derive(Default)]
pub struct Gates {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    sites: BTreeMap<usize, Site>,
    /// What each link is told, by its ends.
    faults: BTreeMap<Ends, LinkFaults>,
    /// By receiver: what the rules that stand had dropped when somebody last looked.
    seen: BTreeMap<usize, Counts>,
    /// By receiver: what rules had dropped that are gone since.
    gone: BTreeMap<usize, Counts>,
}

/// A node's namespace.
#[derive(Debug, Clone)]
struct Site {
    /// A file that leads there ...
    file: PathBuf,
    /// ... and the number of what it leads to: that of a process leads elsewhere once the process has ended.
    number: u64,
    addresses: Vec<Ipv4Addr>,
}

impl Site {
    /// The namespace that a file leads to, as it is now.
    fn find(file: &Path) -> Result<Site, NamespaceError> {
        let found = fs::metadata(file).map_err(|source| NamespaceError::Program {
            program: format!("nsenter --net={}", file.display()),
            source,
        })?;
        let mut site = Site {
            file: file.to_owned(),
            number: found.ino(),
            addresses: Vec::new(),
        };
        let listed = site.enter(&["ip", "-j", "-4", "addr", "show", "scope", "global"], "")?;
        for (name, addresses) in interfaces(&listed)? {
            site.addresses.extend(addresses);
            // One packet at a time, as on a wire: rules look at packets, not at what the kernel makes of many.
            site.enter(&["ip", "link", "set", "dev", &name, "gso_max_segs", "1"], "")?;
        }
        Ok(site)
    }

    fn is_there(&self) -> bool {
        fs::metadata(&self.file).is_ok_and(|found| found.ino() == self.number)
    }

    fn enter(&self, words: &[&str], input: &str) -> Result<String, NamespaceError> {
        let namespace = format!("--net={}", self.file.display());
        run(&[&["nsenter", &namespace], words].concat(), input)
    }
}

/// An interface as `ip -j` lists it; those that were not asked for are empty.
#[derive(Deserialize)]
struct Listed {
    ifname: Option<String>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    local: Ipv4Addr,
}

/// Makes sense of what `ip -j addr` prints: interfaces with their addresses.
fn interfaces(listed: &str) -> Result<Vec<(String, Vec<Ipv4Addr>)>, NamespaceError> {
    let found: Vec<Listed> = serde_json::from_str(listed).map_err(|error| NamespaceError::Refused {
        command: "ip -j addr".to_owned(),
        output: error.to_string(),
    })?;
    let named = found
        .into_iter()
        .filter_map(|one| Some((one.ifname?, one.addr_info)));
    let addresses = |found: Vec<Address>| found.into_iter().map(|address| address.local).collect();
    Ok(named.map(|(name, found)| (name, addresses(found))).collect())
}

impl Gates {
    /// Why nothing of it can be done here, if it cannot.
    ///
    /// # Errors
    /// It takes root, or a program is missing.
    pub fn check_machine() -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can enter network namespaces".to_owned());
        }
        let mut tries = PROGRAMS.iter().map(|words| run(words, ""));
        tries
            .try_for_each(|tried| tried.map(drop))
            .map_err(|error| error.to_string())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets up the gate of a node whose namespace this file leads to, in place of one that it had; what its links
    /// are told it is told again.
    ///
    /// # Errors
    /// What a program said.
    pub fn settle(&self, place: usize, file: &Path) -> Result<(), NamespaceError> {
        self.look(place)?;
        self.put_by(place);
        let site = Site::find(file)?;
        site.enter(&["iptables-restore"], &rules::initial())?;
        let mut table = self.table();
        table.sites.insert(place, site);
        // Those that hear from it know it by its address, which may be another one now.
        let about = table
            .faults
            .keys()
            .filter(|(from, to)| *from == place || *to == place);
        let receivers: BTreeSet<usize> = about.map(|(_, to)| *to).collect();
        drop(table);
        receivers.into_iter().try_for_each(|to| self.replace(to))
    }

    /// Runs a program in the namespace of a node; nothing of it if there is none, or none any more.
    fn run_at(&self, place: usize, words: &[&str], input: &str) -> Result<Option<String>, NamespaceError> {
        let site = self.table().sites.get(&place).cloned();
        let Some(site) = site.filter(Site::is_there) else {
            return Ok(None);
        };
        match site.enter(words, input) {
            Err(_) if !site.is_there() => Ok(None),
            ran => ran.map(Some),
        }
    }

    /// Takes note of what a node's rules have dropped so far. Of rules that are gone that was done before.
    fn look(&self, to: usize) -> Result<(), NamespaceError> {
        if let Some(listed) = self.run_at(to, &["iptables-save", "-c", "-t", "filter"], "")? {
            self.table().seen.insert(to, rules::dropped(&listed));
        }
        Ok(())
    }

    /// Keeps the counts of a node's rules beyond their end.
    fn put_by(&self, to: usize) {
        let mut table = self.table();
        let seen = table.seen.remove(&to).unwrap_or_default();
        let gone = table.gone.entry(to).or_default();
        for (of, count) in seen {
            *gone.entry(of).or_default() += count;
        }
    }

    /// Replaces the rules of a node by those for what links to it are told. One without a namespace has none
    /// until it has one.
    fn replace(&self, to: usize) -> Result<(), NamespaceError> {
        self.look(to)?;
        let chain = rules::all(&self.table().told(to));
        if self
            .run_at(to, &["iptables-restore", "--noflush"], &chain)?
            .is_some()
        {
            self.put_by(to);
        }
        Ok(())
    }
}

impl Table {
    /// What is done to packets at a node, by sender and the sender's addresses.
    fn told(&self, to: usize) -> Vec<(usize, Ipv4Addr, LinkFaults)> {
        let links = self.faults.iter().filter(|((_, at), _)| *at == to);
        let rows = links.flat_map(|((from, _), faults)| {
            let addresses = self.sites.get(from).map_or(&[][..], |site| &site.addresses);
            addresses.iter().map(|address| (*from, *address, *faults))
        });
        rows.collect()
    }

    /// What became of the packets of a link.
    fn counted(&self, (from, to): Ends) -> LinkCounters {
        let mut counters = LinkCounters::default();
        for cause in rules::CAUSES {
            let of = |counts: &BTreeMap<usize, Counts>| counts.get(&to)?.get(&(from, cause)).copied();
            let count = of(&self.gone).into_iter().chain(of(&self.seen)).sum();
            counters.add_drops(cause, count);
        }
        counters
    }
}

impl Carrier for Gates {
    fn node_count(&self) -> usize {
        self.table().sites.keys().next_back().map_or(0, |last| last + 1)
    }

    fn check(&self, faults: &LinkFaults, rebinds: bool) -> Result<(), String> {
        if rebinds {
            return Err("in network namespaces nothing between the nodes could change ports".into());
        }
        rules::check(faults)
    }

    fn faults(&self, link: Ends) -> LinkFaults {
        self.table().faults.get(&link).copied().unwrap_or_default()
    }

    fn set(&self, told: &[(Ends, LinkFaults)]) -> Result<(), String> {
        self.table().faults.extend(told.iter().copied());
        let receivers: BTreeSet<usize> = told.iter().map(|((_, to), _)| *to).collect();
        let mut replaced = receivers.into_iter().map(|to| self.replace(to));
        replaced
            .try_for_each(|done| done)
            .map_err(|error| error.to_string())
    }

    fn counters(&self, links: &[Ends]) -> Result<Vec<LinkCounters>, String> {
        let receivers: BTreeSet<usize> = links.iter().map(|(_, to)| *to).collect();
        for to in receivers {
            self.look(to).map_err(|error| error.to_string())?;
        }
        let table = self.table();
        Ok(links.iter().map(|link| table.counted(*link)).collect())
    }

    fn rebind(&self, _link: Ends) {
        unreachable!("`check` refuses it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(addresses: &[Ipv4Addr]) -> Site {
        Site {
            file: "/no/such/namespace".into(),
            number: 0,
            addresses: addresses.to_vec(),
        }
    }

    #[test]
    fn interfaces_are_read_with_their_addresses_and_empty_ones_left_out() {
        let listed = r#"[{},{"ifindex":11,"ifname":"eth0","mtu":1500,"addr_info":[
            {"family":"inet","local":"172.18.0.4","prefixlen":16,"scope":"global"}]},
            {"ifindex":13,"ifname":"eth1","addr_info":[]}]"#;
        let expected = [
            ("eth0".to_owned(), vec![Ipv4Addr::new(172, 18, 0, 4)]),
            ("eth1".to_owned(), vec![]),
        ];
        assert_eq!(interfaces(listed).unwrap(), expected);
        assert!(interfaces("Object \"addr\" is unknown").is_err());
    }

    #[test]
    fn a_sender_is_met_at_each_of_its_addresses_and_one_without_any_at_none() {
        let [one, other] = [Ipv4Addr::new(172, 18, 0, 4), Ipv4Addr::new(172, 19, 0, 4)];
        let gates = Gates::default();
        gates.table().sites = BTreeMap::from([(0, site(&[one, other])), (1, site(&[])), (2, site(&[]))]);
        let told = [((0, 2), LinkFaults::cut()), ((1, 2), LinkFaults::cut())];
        gates.set(&told).unwrap();
        let expected = vec![(0, one, LinkFaults::cut()), (0, other, LinkFaults::cut())];
        assert_eq!(gates.table().told(2), expected);
        assert_eq!(gates.table().told(0), []);
        assert_eq!((gates.faults((1, 2)).cut, gates.node_count()), (true, 3));
    }

    #[test]
    fn counts_outlive_the_rules_and_the_namespace_that_they_come_from() {
        let gates = Gates::default();
        gates.table().sites.insert(1, site(&[]));
        let dropped = |gates: &Gates| gates.counters(&[(0, 1)]).unwrap()[0].dropped(Cause::Cut);
        gates
            .table()
            .seen
            .insert(1, BTreeMap::from([((0, Cause::Cut), 5)]));
        assert_eq!(dropped(&gates), 5);
        gates.put_by(1);
        assert_eq!(dropped(&gates), 5, "the rules were replaced");
        gates
            .table()
            .seen
            .insert(1, BTreeMap::from([((0, Cause::Cut), 2)]));
        assert_eq!(dropped(&gates), 7);
        assert_eq!(gates.counters(&[(2, 1)]).unwrap()[0].dropped(Cause::Cut), 0);
    }
}
