//! The relay between plain sockets in the places of nodes and devices.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::faults::{Cause, DoorFaults, Flap, LinkFaults};
use super::{Relay, RelayError, RelayOptions, node_host, relay_host};

/// How long something may take that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sockets in the places of nodes, with a relay before them.
struct World {
    relay: Relay,
    nodes: Vec<UdpSocket>,
    port: u16,
}

impl World {
    fn new(nodes: usize) -> World {
        let (nodes, port) = node_sockets(nodes);
        let relay = Relay::start(&RelayOptions {
            nodes: nodes.len(),
            cluster_port: port,
            door_ports: Vec::new(),
            seed: 11,
        })
        .unwrap();
        World { relay, nodes, port }
    }

    fn send(&self, from: usize, to: usize, packet: &[u8]) {
        let target = SocketAddr::new(relay_host(to).into(), self.port);
        assert_eq!(self.nodes[from].send_to(packet, target).unwrap(), packet.len());
    }

    fn receive(&self, at: usize) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 65_535];
        let (len, source) = self.nodes[at].recv_from(&mut buffer).expect("a packet in time");
        (buffer[..len].to_vec(), source)
    }

    /// Sends and receives once, and returns where the packet came from.
    fn assert_passes(&self, from: usize, to: usize, packet: &[u8]) -> SocketAddr {
        self.send(from, to, packet);
        let (found, source) = self.receive(to);
        assert_eq!(found, packet, "{from} to {to}");
        source
    }

    /// Sends one packet, and returns when the relay has dropped it for this cause.
    fn assert_dropped(&self, from: usize, to: usize, cause: Cause) {
        let before = self.relay.counters(from, to);
        self.send(from, to, b"never seen");
        eventually("the packet dropped", || {
            self.relay.counters(from, to).dropped(cause) == before.dropped(cause) + 1
        });
        assert_eq!(self.relay.counters(from, to).passed, before.passed);
    }
}

/// One socket for each of the first nodes, all with one port that is free there and before the relay.
fn node_sockets(nodes: usize) -> (Vec<UdpSocket>, u16) {
    for _ in 0..100 {
        let first = UdpSocket::bind((node_host(0), 0)).unwrap();
        let port = first.local_addr().unwrap().port();
        let others = (1..nodes).map(|place| UdpSocket::bind((node_host(place), port)));
        let is_free = |place| UdpSocket::bind((relay_host(place), port)).is_ok();
        if let Ok(others) = others.collect::<Result<Vec<_>, _>>()
            && (0..nodes).all(is_free)
        {
            let sockets: Vec<UdpSocket> = std::iter::once(first).chain(others).collect();
            for socket in &sockets {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            return (sockets, port);
        }
    }
    panic!("no port is free on all addresses");
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "still not: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn packets_of_all_links_arrive_and_answers_find_their_way_back() {
    let world = World::new(3);
    for from in 0..3 {
        for to in 0..3 {
            let source = world.assert_passes(from, to, format!("{from} to {to}").as_bytes());
            assert_eq!(
                source.ip(),
                relay_host(from),
                "the sender is known by its address"
            );
            world.nodes[to].send_to(b"answer", source).unwrap();
            let (answer, source) = world.receive(from);
            assert_eq!(answer, b"answer");
            assert_eq!(source, SocketAddr::new(relay_host(to).into(), world.port));
        }
    }
    let there = world.relay.counters(0, 1);
    assert_eq!((there.received, there.passed, there.passed_bytes), (2, 2, 6 + 6));
}

#[test]
fn a_cut_of_one_direction_stops_packets_and_answers_of_it_and_nothing_else() {
    let world = World::new(2);
    let source = world.assert_passes(0, 1, b"before");
    world.assert_passes(1, 0, b"before");
    world.relay.set(1, 0, LinkFaults::cut()).unwrap();
    world.assert_dropped(1, 0, Cause::Cut);
    // What node 1 answers to node 0's dialling takes the same link.
    world.nodes[1].send_to(b"answer", source).unwrap();
    eventually("the answer dropped", || {
        world.relay.counters(1, 0).dropped(Cause::Cut) == 2
    });
    world.assert_passes(0, 1, b"still");
    world.relay.heal_all();
    world.assert_passes(1, 0, b"healed");
}

#[test]
fn groups_that_overlap_make_a_bridge() {
    let world = World::new(3);
    world.relay.partition(&[vec![0, 1], vec![1, 2]]);
    for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1), (0, 0)] {
        world.assert_passes(from, to, b"passes");
    }
    world.assert_dropped(0, 2, Cause::Cut);
    world.assert_dropped(2, 0, Cause::Cut);
    world.relay.partition(&[vec![0, 1, 2]]);
    world.assert_passes(0, 2, b"mended");
}

#[test]
fn late_packets_arrive_in_the_order_of_their_times_and_a_replay_comes_last() {
    let world = World::new(2);
    let late = |delay_ms| LinkFaults {
        delay_ms,
        ..LinkFaults::default()
    };
    let replayed = LinkFaults {
        replay: 1.0,
        replay_after_ms: 400,
        ..LinkFaults::default()
    };
    // What a packet meets is decided when it comes, so the relay must have seen it before the next order.
    let send = |faults, packet: &[u8], count| {
        world.relay.set(0, 1, faults).unwrap();
        world.send(0, 1, packet);
        eventually("the packet taken", || {
            world.relay.counters(0, 1).received == count
        });
    };
    send(late(200), b"third", 1);
    send(late(100), b"second", 2);
    send(replayed, b"first, and fourth", 3);
    for wanted in [
        &b"first, and fourth"[..],
        b"second",
        b"third",
        b"first, and fourth",
    ] {
        assert_eq!(
            String::from_utf8_lossy(&world.receive(1).0),
            String::from_utf8_lossy(wanted)
        );
    }
    let counters = world.relay.counters(0, 1);
    assert_eq!((counters.delayed, counters.replayed, counters.passed), (3, 1, 4));
}

#[test]
fn a_duplicate_a_flipped_bit_a_black_hole_and_a_flap_are_felt_and_counted() {
    let world = World::new(2);
    let fine = LinkFaults::default();
    let tell = |faults| world.relay.set(0, 1, faults).unwrap();
    tell(LinkFaults {
        duplicate: 1.0,
        ..fine
    });
    world.assert_passes(0, 1, b"twice");
    assert_eq!(world.receive(1).0, b"twice");
    tell(LinkFaults { corrupt: 1.0, ..fine });
    world.send(0, 1, &[0; 100]);
    let flipped: u32 = world.receive(1).0.iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(flipped, 1);
    tell(LinkFaults {
        drop_larger_than: Some(5),
        ..fine
    });
    world.assert_dropped(0, 1, Cause::TooLarge);
    world.assert_passes(0, 1, b"small");
    let counters = world.relay.counters(0, 1);
    assert_eq!((counters.duplicated, counters.corrupted), (1, 1));
    let flap = Some(Flap {
        up_ms: 1,
        down_ms: 30_000,
    });
    tell(LinkFaults { flap, ..fine });
    eventually("a packet that came while the link was down", || {
        world.send(0, 1, b"x");
        world.relay.counters(0, 1).dropped(Cause::Flap) > 0
    });
}

#[test]
fn a_rebind_changes_the_port_that_a_sender_is_seen_with() {
    let world = World::new(2);
    let before = world.assert_passes(0, 1, b"before");
    assert_eq!(world.assert_passes(0, 1, b"again"), before);
    world.relay.rebind(0, 1);
    let after = world.assert_passes(0, 1, b"after");
    assert_eq!(after.ip(), before.ip());
    assert_ne!(after.port(), before.port());
    world.nodes[1].send_to(b"answer", after).unwrap();
    assert_eq!(world.receive(0).0, b"answer");
    assert_eq!(world.relay.counters(0, 1).rebound, 1);
}

#[test]
fn nonsense_and_an_address_in_use_are_refused() {
    let world = World::new(2);
    let options = |nodes| RelayOptions {
        nodes,
        cluster_port: world.port,
        door_ports: Vec::new(),
        seed: 0,
    };
    assert!(matches!(Relay::start(&options(0)), Err(RelayError::Count(0))));
    assert!(matches!(Relay::start(&options(10)), Err(RelayError::Count(10))));
    let Err(error) = Relay::start(&options(2)) else {
        panic!("two relays on one address");
    };
    let wanted = format!("bind 127.0.1.1:{} (UDP)", world.port);
    assert!(error.to_string().starts_with(&wanted), "{error}");
    let nonsense = LinkFaults {
        loss: 2.0,
        ..LinkFaults::default()
    };
    assert!(world.relay.set(0, 1, nonsense).is_err());
}

/// Ports that are tried until one is free for datagrams and for connections.
const PORTS_TRIED_MAX: usize = 50;

/// A device's connection through a door to a socket in the place of a node.
struct Spliced {
    relay: Relay,
    device: TcpStream,
    node: TcpStream,
}

impl Spliced {
    fn new() -> Spliced {
        // The relay needs some port for nodes, too; the socket that holds it stays unused. One that datagrams have may be
        // somebody else's for connections.
        let (_nodes, listener, relay) = (0..PORTS_TRIED_MAX)
            .find_map(|_| {
                let (nodes, port) = node_sockets(1);
                let listener = TcpListener::bind((node_host(0), port)).ok()?;
                let relay = Relay::start(&RelayOptions {
                    nodes: 1,
                    cluster_port: port,
                    door_ports: vec![port],
                    seed: 0,
                });
                Some((nodes, listener, relay.ok()?))
            })
            .expect("a port that is free for all");
        let port = listener.local_addr().unwrap().port();
        let device = TcpStream::connect((relay_host(0), port)).unwrap();
        let (node, _) = listener.accept().unwrap();
        for end in [&device, &node] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Spliced { relay, device, node }
    }

    fn assert_passes(&mut self) {
        let mut found = [0; 4];
        self.device.write_all(b"ping").unwrap();
        self.node.read_exact(&mut found).unwrap();
        assert_eq!(&found, b"ping");
        self.node.write_all(b"pong").unwrap();
        self.device.read_exact(&mut found).unwrap();
        assert_eq!(&found, b"pong");
    }

    fn tell(&self, faults: DoorFaults) {
        self.relay.set_door(0, faults).unwrap();
    }
}

fn is_reset(stream: &mut TcpStream) -> bool {
    let read = stream.read(&mut [0; 16]);
    matches!(read, Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn a_spliced_connection_carries_both_ways_and_closes_as_its_ends_do() {
    let mut spliced = Spliced::new();
    spliced.assert_passes();
    spliced.tell(DoorFaults {
        delay_ms: 5,
        rate_bits_per_s: Some(1_000_000),
        ..DoorFaults::default()
    });
    spliced.assert_passes();
    eventually("all of it counted", || {
        spliced.relay.door_counters(0).passed_bytes == 16
    });
    spliced.device.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(spliced.node.read(&mut [0; 4]).unwrap(), 0, "the FIN goes on");
    spliced.node.write_all(b"last").unwrap();
    let mut last = [0; 4];
    spliced.device.read_exact(&mut last).unwrap();
    drop(spliced.node);
    eventually("the connection over", || spliced.relay.door_counters(0).open == 0);
    assert_eq!(spliced.relay.door_counters(0).resets, 0);
}

#[test]
fn a_cut_connection_goes_on_where_it_was() {
    let mut spliced = Spliced::new();
    spliced.assert_passes();
    spliced.tell(DoorFaults {
        cut: true,
        ..DoorFaults::default()
    });
    spliced.device.write_all(b"late").unwrap();
    spliced.node.set_nonblocking(true).unwrap();
    let nothing = spliced.node.read(&mut [0; 4]).map_err(|error| error.kind());
    assert_eq!(nothing.err(), Some(ErrorKind::WouldBlock));
    spliced.node.set_nonblocking(false).unwrap();
    eventually("what passed before counted", || {
        spliced.relay.door_counters(0).passed_bytes == 8
    });
    spliced.relay.heal_all();
    let mut late = [0; 4];
    spliced.node.read_exact(&mut late).unwrap();
    assert_eq!(&late, b"late");
    spliced.assert_passes();
}

#[test]
fn a_half_open_connection_swallows_and_is_reset_in_the_end() {
    let mut spliced = Spliced::new();
    spliced.assert_passes();
    spliced.tell(DoorFaults {
        stall: true,
        ..DoorFaults::default()
    });
    spliced.device.write_all(b"into the void").unwrap();
    eventually("it swallowed", || {
        spliced.relay.door_counters(0).swallowed_bytes == 13
    });
    eventually("what passed before counted", || {
        spliced.relay.door_counters(0).passed_bytes == 8
    });
    spliced.relay.heal_all();
    assert!(is_reset(&mut spliced.device) && is_reset(&mut spliced.node));
    assert_eq!(spliced.relay.door_counters(0).resets, 1);
}

#[test]
fn connections_are_reset_on_demand() {
    let mut spliced = Spliced::new();
    spliced.assert_passes();
    spliced.relay.reset_connections(0);
    assert!(is_reset(&mut spliced.device) && is_reset(&mut spliced.node));
    assert_eq!(spliced.relay.door_counters(0).resets, 1);
}

#[test]
fn a_fin_without_a_close_leaves_both_ends_open_to_write() {
    let mut spliced = Spliced::new();
    spliced.assert_passes();
    spliced.relay.finish_connections(0);
    assert_eq!(spliced.device.read(&mut [0; 4]).unwrap(), 0);
    assert_eq!(spliced.node.read(&mut [0; 4]).unwrap(), 0);
    spliced.device.write_all(b"nobody reads this").unwrap();
    let counters = spliced.relay.door_counters(0);
    assert_eq!((counters.half_closed, counters.open), (1, 1));
    drop((spliced.device, spliced.node));
    eventually("the connection over", || spliced.relay.door_counters(0).open == 0);
}

#[test]
fn a_door_whose_node_is_gone_resets() {
    let spliced = Spliced::new();
    let address = spliced.device.peer_addr().unwrap();
    // The listener of the node's place is gone since the connection was taken.
    let mut second = TcpStream::connect(address).unwrap();
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(is_reset(&mut second));
    assert_eq!(spliced.relay.door_counters(0).refused, 1);
}
