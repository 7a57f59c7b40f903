//! Network namespaces of this machine, one for each node, joined by a bridge in a namespace of its own.
//!
//! Decides how they are named and numbered, and takes them down again; what the kernel does to packets in
//! them is in [`gates`], which serves containers as well. Where a run has namespaces, they carry the faults of
//! the network in place of the [`relay`](crate::relay), as far as the kernel can: it drops, it does not delay.

pub mod gates;
mod rules;

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use gates::Gates;

/// Runs that can have namespaces at the same time.
const NUMBERS: u8 = 16;
/// Host part of this machine's own address in the nodes' network.
const OUTSIDE: u8 = 254;
/// Where `ip` names namespaces.
const NAMES: &str = "/run/netns";

/// Why there are no namespaces, or no rules in one.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// All numbers are taken.
    #[error(
        "find a free network: {NAMES} has namespaces of {NUMBERS} runs; `ip netns delete` removes those that were left behind"
    )]
    Full,
    /// A program cannot be run.
    #[error("run {program}: {source}")]
    Program {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A program refused.
    #[error("{command}: {output}")]
    Refused {
        /// What was run.
        command: String,
        /// What it said.
        output: String,
    },
}

/// The namespaces of a run. Dropping it takes them down.
pub struct Namespaces {
    number: u8,
    nodes: usize,
}

/// Runs a program to its end; what it printed.
fn run(words: &[&str], input: &str) -> Result<String, NamespaceError> {
    let failed = |source| NamespaceError::Program {
        program: words[0].to_owned(),
        source,
    };
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended already says why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let ended = child.wait_with_output().map_err(failed)?;
    match ended.status.success() {
        true => Ok(String::from_utf8_lossy(&ended.stdout).into_owned()),
        false => Err(NamespaceError::Refused {
            command: words.join(" "),
            output: String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
        }),
    }
}

fn batch(namespace: Option<&str>, lines: &[String]) -> Result<(), NamespaceError> {
    let named = namespace.map_or(vec![], |name| vec!["-n", name]);
    run(
        &[vec!["ip"], named, vec!["-batch", "-"]].concat(),
        &lines.join("\n"),
    )
    .map(drop)
}

impl Namespaces {
    /// Makes namespaces for so many nodes, with the first free number, and their gates.
    ///
    /// # Errors
    /// What `ip` or `iptables` said, without root for instance; what had been made is gone again.
    pub fn set_up(nodes: usize) -> Result<(Namespaces, Gates), NamespaceError> {
        let namespaces = Namespaces {
            number: claim()?,
            nodes,
        };
        let gates = Gates::default();
        let (switch, outside) = (switch(namespaces.number), namespaces.outside());
        let names = (0..nodes).map(|place| format!("netns add {}", namespaces.name(place)));
        let mut lines: Vec<String> = names.collect();
        lines.push(format!(
            "link add {outside} type veth peer name outside netns {switch}"
        ));
        lines.push(format!("addr add {}/24 dev {outside}", namespaces.host(OUTSIDE)));
        lines.push(format!("link set {outside} up"));
        batch(None, &lines)?;
        let mut lines = vec![
            "link add bridge type bridge".to_owned(),
            "link set bridge up".to_owned(),
        ];
        lines.push("link set outside master bridge up".to_owned());
        for place in 0..nodes {
            let name = namespaces.name(place);
            lines.push(format!(
                "link add node{place} type veth peer name eth0 netns {name}"
            ));
            lines.push(format!("link set node{place} master bridge up"));
        }
        batch(Some(&switch), &lines)?;
        for place in 0..nodes {
            let (name, address) = (namespaces.name(place), namespaces.address(place));
            let lines = [
                "link set lo up".to_owned(),
                format!("addr add {address}/24 dev eth0"),
                "link set eth0 up".to_owned(),
            ];
            batch(Some(&name), &lines)?;
            gates.settle(place, &Path::new(NAMES).join(&name))?;
        }
        Ok((namespaces, gates))
    }

    /// Begins the names of the nodes' namespaces; a number from 1 follows.
    pub fn prefix(&self) -> String {
        format!("dunlin{}-", self.number)
    }

    /// The first three bytes of all addresses; node `i`, from 1, has `i` as the last.
    pub fn subnet(&self) -> [u8; 3] {
        [10, 77, self.number]
    }

    /// Where nodes reach what runs outside.
    pub fn outside_address(&self) -> Ipv4Addr {
        self.host(OUTSIDE)
    }

    fn host(&self, last: u8) -> Ipv4Addr {
        let [first, second, third] = self.subnet();
        Ipv4Addr::new(first, second, third, last)
    }

    fn name(&self, place: usize) -> String {
        format!("{}{}", self.prefix(), place + 1)
    }

    fn address(&self, place: usize) -> Ipv4Addr {
        self.host(place as u8 + 1)
    }

    fn outside(&self) -> String {
        format!("{}outside", self.prefix())
    }
}

/// Takes the first free number by making the namespace of its switch, which only one can.
fn claim() -> Result<u8, NamespaceError> {
    for number in 0..NUMBERS {
        let switch = switch(number);
        match run(&["ip", "netns", "add", &switch], "") {
            Ok(_) => return Ok(number),
            Err(_) if Path::new(NAMES).join(&switch).exists() => {}
            Err(error) => return Err(error),
        }
    }
    Err(NamespaceError::Full)
}

fn switch(number: u8) -> String {
    format!("dunlin{number}-switch")
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // The devices in them go with the last process there; the other end of a pair goes with the first.
        let names = (0..self.nodes).map(|place| self.name(place));
        for name in names.chain([switch(self.number)]) {
            if let Err(error) = run(&["ip", "netns", "delete", &name], "") {
                tracing::warn!(%error, "cannot take a namespace down");
            }
        }
    }
}
