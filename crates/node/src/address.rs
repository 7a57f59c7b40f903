//! Where others reach this machine, when the node listens on all of its addresses.
//!
//! The routing table knows: connecting a UDP socket chooses the address that packets would leave
//! from, and sends none. Looked up at each start, since containers change their addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use dunlin_model::directory::Role;

use crate::config::NodeConfig;

/// Hosts that documents are written with (RFC 5737, RFC 3849): nobody is there, and the way to
/// them is the way to everybody.
const ANYBODY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// Any port does: none is ever sent to.
const ANY_PORT: u16 = 9;

/// The address to listen on that others can name: what the node is bound to, or, if that is all of
/// them, the one that faces the seeds, or else the world. `None` on a machine without any network.
pub(crate) fn facing(config: &NodeConfig) -> Option<IpAddr> {
    if !config.bind.is_unspecified() {
        return Some(config.bind);
    }
    let is_served = |address: &SocketAddr| config.bind.is_ipv6() || address.is_ipv4();
    let seeds = config
        .seeds
        .iter()
        .filter_map(|seed| seed.to_socket_addrs().ok())
        .flatten();
    let anybody = ANYBODY.map(|host| SocketAddr::new(host, ANY_PORT));
    let own: Vec<IpAddr> = seeds
        .chain(anybody)
        .filter(is_served)
        .filter_map(source_towards)
        .collect();
    // Loopback leads to this machine alone: only if nothing else does.
    let is_for_others = |address: &&IpAddr| !address.is_loopback();
    own.iter().find(is_for_others).or(own.first()).copied()
}

/// The name of this machine.
pub(crate) fn machine_name() -> Option<String> {
    let name = rustix::system::uname();
    let name = name.nodename().to_str().ok()?;
    (!name.is_empty() && name.is_ascii()).then(|| name.to_owned())
}

/// `host:port` that other nodes are told, if it can be known before the port is bound.
pub(crate) fn advertised(config: &NodeConfig) -> Option<String> {
    if config.advertise.is_some() || config.cluster_port == 0 {
        return config.advertise.clone();
    }
    let port = config.cluster_port;
    facing(config)
        .map(|address| SocketAddr::new(address, port).to_string())
        .or_else(|| machine_name().map(|name| format!("{name}:{port}")))
}

/// `host:port` that Kafka's clients are told to dial, if this node takes any and it can be known.
pub(crate) fn advertised_kafka(config: &NodeConfig) -> Option<String> {
    if !config.roles.contains(&Role::Gateway) {
        return None;
    }
    if config.kafka_advertise.is_some() {
        return config.kafka_advertise.clone();
    }
    let host = match &config.advertise {
        Some(told) => told
            .rsplit_once(':')
            .map_or(told.as_str(), |(host, _)| host)
            .to_owned(),
        None => match facing(config) {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            Some(address) => address.to_string(),
            None => machine_name()?,
        },
    };
    Some(format!("{host}:{}", config.kafka_port))
}

fn source_towards(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_unspecified()).then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(bind: &str, seeds: &[&str]) -> NodeConfig {
        NodeConfig {
            bind: bind.parse().unwrap(),
            seeds: seeds.iter().map(|&seed| seed.to_owned()).collect(),
            ..NodeConfig::default()
        }
    }

    #[test]
    fn what_is_told_and_what_is_bound_come_first() {
        let mut told = config("0.0.0.0", &["127.0.0.2:8900"]);
        told.advertise = Some("hub-1:1".into());
        assert_eq!(advertised(&told).as_deref(), Some("hub-1:1"));
        let bound = config("127.0.0.3", &["127.0.0.2:8900"]);
        assert_eq!(advertised(&bound).as_deref(), Some("127.0.0.3:8900"));
    }

    #[test]
    fn a_node_on_all_addresses_tells_one_that_can_be_dialled() {
        for seeds in [&[][..], &["127.0.0.1:8900"], &["no-such-host.invalid:8900"]] {
            let told = advertised(&config("0.0.0.0", seeds)).expect("an address or a name");
            assert!(
                !told.starts_with("0.0.0.0") && told.ends_with(":8900"),
                "{seeds:?}: {told}"
            );
        }
    }

    #[test]
    fn the_way_to_loopback_begins_on_loopback() {
        let source = source_towards("127.0.0.1:9".parse().unwrap());
        assert_eq!(source, Some(IpAddr::from([127, 0, 0, 1])));
    }

    #[test]
    fn readers_over_kafka_are_told_the_same_host() {
        let mut told = config("127.0.0.3", &[]);
        assert_eq!(advertised_kafka(&told).as_deref(), Some("127.0.0.3:9093"));
        told.advertise = Some("hub-1:8900".into());
        assert_eq!(advertised_kafka(&told).as_deref(), Some("hub-1:9093"));
        told.kafka_advertise = Some("outside:19093".into());
        assert_eq!(advertised_kafka(&told).as_deref(), Some("outside:19093"));
        told.roles = vec![Role::Shard];
        assert_eq!(advertised_kafka(&told), None);
    }

    #[test]
    fn a_port_that_is_not_known_yet_is_not_told() {
        let mut drawn = config("127.0.0.1", &[]);
        drawn.cluster_port = 0;
        assert_eq!(advertised(&drawn), None);
    }
}
