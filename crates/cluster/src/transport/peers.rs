//! The peers of this node: where they are, and a connection to each when one is needed.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use dunlin_model::id::NodeId;
use dunlin_model::wire::Reader;
use tokio::time::Instant;

use super::calls::{self, CallError, Calls};
use super::cids::Cids;
use super::frames::{FrameReader, FrameWriter};
use super::socket::Socket;
use super::tls::{self, SERVER_NAME, TlsError};
use super::{ClusterTag, Handler, StreamError};
use crate::config::{NodeIdentity, Simulated, TlsSources};
use crate::messages::{Request, Response, StreamHead};
use crate::{codec, entropy};

/// Nodes whose addresses are remembered.
const PEERS_MAX: usize = 1_024;
/// How long a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_millis(1_000);
/// The longest round trip of a handshake. One that a process slept through, or its peer, makes a connection that takes
/// three times as long to send again what is lost, and meanwhile may send nothing else: it is better made anew.
const FIRST_RTT_MAX: Duration = Duration::from_millis(300);
/// Between the beginnings of two dials of one connection, at first: it doubles while dials follow on each other.
const DIAL_PAUSE_MIN: Duration = Duration::from_millis(20);
/// What it grows to. A dial that nobody answers takes as long, so that a node that is away waits for nothing.
const DIAL_PAUSE_MAX: Duration = DIAL_TIMEOUT;
/// How long a new stream may take to say what it is for.
const HEAD_TIMEOUT: Duration = Duration::from_millis(2_000);
/// Bytes that the socket may buffer in each direction, as far as the machine allows.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Which of the two connections to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Small things that must not wait.
    Control,
    /// Everything else.
    Bulk,
}

#[derive(Clone)]
struct Link {
    connection: quinn::Connection,
    calls: Calls,
}

impl Link {
    fn is_lost(&self) -> bool {
        self.connection.close_reason().is_some() || self.calls.is_lost()
    }
}

/// One connection, or the place for it.
#[derive(Default)]
struct Slot {
    link: tokio::sync::Mutex<Option<Link>>,
    /// Never held across a wait.
    dials: Mutex<Dials>,
}

/// The dials of one connection.
///
/// They keep apart. A handshake costs both ends milliseconds of a core, and some end at once: where another
/// node has the address by now, or one that will not speak with this one. Everybody who wants something of the
/// node that is gone would begin the next, a hundred times a second, and starve those that are there.
#[derive(Default)]
struct Dials {
    /// How many have failed.
    failed: u64,
    /// Why the last one did.
    last: Option<CallError>,
    /// When the last one began, and how long the next one waits from then.
    begun: Option<(Instant, Duration)>,
}

impl Slot {
    fn dials(&self) -> MutexGuard<'_, Dials> {
        self.dials.lock().expect("no panic holds it")
    }

    fn failures(&self) -> u64 {
        self.dials().failed
    }

    /// Why the last dial failed, if it ended after `seen` others had failed.
    fn failure_since(&self, seen: u64) -> Option<CallError> {
        let dials = self.dials();
        dials.last.clone().filter(|_| dials.failed > seen)
    }

    fn note_failure(&self, error: &CallError) {
        let mut dials = self.dials();
        dials.failed += 1;
        dials.last = Some(error.clone());
    }

    /// Takes note that a dial begins, or says why it must not yet.
    fn begin(&self, node: NodeId, now: Instant) -> Result<(), CallError> {
        let mut dials = self.dials();
        let pause = match dials.begun {
            Some((begun, pause)) if now < begun + pause => {
                let too_soon = || CallError::Unreachable(node, "it was dialled a moment ago".into());
                return Err(dials.last.clone().unwrap_or_else(too_soon));
            }
            Some((begun, pause)) if now < begun + 2 * DIAL_PAUSE_MAX => (2 * pause).min(DIAL_PAUSE_MAX),
            _ => DIAL_PAUSE_MIN,
        };
        dials.begun = Some((now, pause));
        Ok(())
    }
}

/// Connections to and from other nodes.
pub(crate) struct Peers {
    node: NodeId,
    endpoint: quinn::Endpoint,
    /// What is dialled with: the node's newest certificate.
    client: ArcSwap<quinn::ClientConfig>,
    sources: TlsSources,
    addresses: Mutex<BTreeMap<NodeId, String>>,
    tag: Arc<ClusterTag>,
    links: Mutex<HashMap<(NodeId, Lane), Arc<Slot>>>,
}

impl Peers {
    /// Binds `listen`, or takes what is simulated in its place. Nothing is accepted before [`serve`](Self::serve).
    pub(crate) fn bind(
        node: NodeId,
        (listen, simulated): (SocketAddr, Option<Simulated>),
        identity: &NodeIdentity,
    ) -> Result<Arc<Self>, TlsError> {
        let setup = |error: &dyn ToString| TlsError::Setup(format!("bind {listen}: {}", error.to_string()));
        let (datagrams, sources) = match simulated {
            Some(simulated) => (Some(simulated.datagrams), simulated.tls),
            None => (None, TlsSources::default()),
        };
        let configs = tls::configs(identity, &sources)?;
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &identity.cluster_secret);
        let mut endpoint_config = quinn::EndpointConfig::new(Arc::new(key));
        endpoint_config.rng_seed(entropy::seed_if_seeded());
        endpoint_config.cid_generator(|| Box::new(Cids));
        endpoint_config
            .max_udp_payload_size(65_527)
            .map_err(|e| setup(&e))?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let server = Some(configs.server);
        let endpoint = match datagrams {
            Some(datagrams) => {
                let socket = Arc::new(Socket(datagrams));
                quinn::Endpoint::new_with_abstract_socket(endpoint_config, server, socket, runtime)
            }
            None => kernel_socket(listen)
                .and_then(|socket| quinn::Endpoint::new(endpoint_config, server, socket, runtime)),
        };
        Ok(Arc::new(Self {
            node,
            endpoint: endpoint.map_err(|e| setup(&e))?,
            client: ArcSwap::from_pointee(configs.client),
            sources,
            addresses: Mutex::default(),
            tag: Arc::default(),
            links: Mutex::default(),
        }))
    }

    /// Shows and dials with another certificate from now on. Connections that are open stay as they are.
    pub(crate) fn renew(&self, identity: &NodeIdentity) -> Result<(), TlsError> {
        let configs = tls::configs(identity, &self.sources)?;
        self.endpoint.set_server_config(Some(configs.server));
        self.client.store(Arc::new(configs.client));
        Ok(())
    }

    fn connect(&self, address: SocketAddr) -> Result<quinn::Connecting, quinn::ConnectError> {
        let client = quinn::ClientConfig::clone(&self.client.load());
        self.endpoint.connect_with(client, address, SERVER_NAME)
    }

    /// Where this node listens.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.endpoint
            .local_addr()
            .expect("a bound endpoint has an address")
    }

    /// Accepts peers and hands what they send to `handler`, until [`close`](Self::close).
    pub(crate) fn serve(self: &Arc<Self>, handler: Arc<dyn Handler>) {
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                let handler = handler.clone();
                tokio::spawn(async move {
                    match incoming.await {
                        Ok(connection) => serve_connection(connection, handler).await,
                        Err(error) => tracing::debug!(%error, "a peer's handshake failed"),
                    }
                });
            }
        });
    }

    /// Which cluster this node speaks for.
    pub(crate) fn tag(&self) -> &ClusterTag {
        &self.tag
    }

    /// Ends all connections.
    pub(crate) fn close(&self) {
        self.endpoint.close(0u32.into(), b"stop");
    }

    /// Remembers where `node` is reached (`host:port`).
    pub(crate) fn learn(&self, node: NodeId, address: &str) {
        if node == self.node {
            return;
        }
        let mut addresses = self.addresses.lock().expect("no panic holds it");
        if addresses.len() < PEERS_MAX || addresses.contains_key(&node) {
            let old = addresses.insert(node, address.to_owned());
            if old.is_some_and(|old| old != address) {
                self.links
                    .lock()
                    .expect("no panic holds it")
                    .retain(|(peer, _), _| *peer != node);
            }
        }
    }

    /// Ends the connections that were made to `node`; whoever needs one makes it anew.
    pub(crate) fn drop_links(&self, node: NodeId) {
        let links = self.links.lock().expect("no panic holds it");
        for lane in [Lane::Control, Lane::Bulk] {
            // Where somebody dials just now there is nothing old.
            if let Some(mut link) = links
                .get(&(node, lane))
                .and_then(|slot| slot.link.try_lock().ok())
                && let Some(link) = link.take()
            {
                link.connection.close(0u32.into(), b"silent");
            }
        }
    }

    /// Whether an address of `node` is known.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.addresses
            .lock()
            .expect("no panic holds it")
            .contains_key(&node)
    }

    /// Everyone whose address is known.
    pub(crate) fn known(&self) -> Vec<(NodeId, String)> {
        let addresses = self.addresses.lock().expect("no panic holds it");
        addresses
            .iter()
            .map(|(node, address)| (*node, address.clone()))
            .collect()
    }

    /// Asks `node`.
    pub(crate) async fn call(
        &self,
        node: NodeId,
        lane: Lane,
        request: Request,
        deadline: Duration,
    ) -> Result<(Response, Bytes), CallError> {
        let asked = async {
            let link = self.link(node, lane).await?;
            link.calls.call(request, deadline).await
        };
        tokio::time::timeout(deadline, asked)
            .await
            .unwrap_or(Err(CallError::Timeout))
    }

    /// Opens a stream to `node` on the bulk connection.
    pub(crate) async fn open(
        &self,
        node: NodeId,
        head: &StreamHead,
    ) -> Result<(FrameWriter, FrameReader), CallError> {
        let link = self.link(node, Lane::Bulk).await?;
        open_on(&link.connection, self.tag.get(), head)
            .await
            .map_err(|_| CallError::Lost)
    }

    /// Sends a ping that may be lost, if there is a connection; makes one in the background if not. It says what
    /// this machine's wall clock shows.
    pub(crate) fn ping(self: &Arc<Self>, node: NodeId, wall_ms: u64) {
        let slot = self.slot(node, Lane::Control);
        let Ok(link) = slot.link.try_lock() else { return };
        match &*link {
            Some(link) if !link.is_lost() => {
                let clock = Bytes::copy_from_slice(&wall_ms.to_le_bytes());
                let _ = link.connection.send_datagram(clock);
            }
            _ => {
                let peers = self.clone();
                tokio::spawn(async move {
                    let _ = peers.link(node, Lane::Control).await;
                });
            }
        }
    }

    /// Dials an address without knowing who is there, and asks.
    pub(crate) async fn call_address(
        &self,
        address: SocketAddr,
        request: Request,
        deadline: Duration,
    ) -> Result<(NodeId, Response), CallError> {
        let unreachable = |reason: String| CallError::Unreachable(NodeId(0), format!("{address}: {reason}"));
        let asked = async {
            let connecting = self
                .connect(address)
                .map_err(|error| unreachable(error.to_string()))?;
            let connection = connecting.await.map_err(|error| unreachable(error.to_string()))?;
            let node = tls::peer_node(&connection).ok_or_else(|| unreachable("names no node".into()))?;
            let (writer, reader) = open_on(&connection, self.tag.get(), &StreamHead::Calls)
                .await
                .map_err(|_| CallError::Lost)?;
            let (response, _) = Calls::start(writer, reader, self.tag.clone())
                .call(request, deadline)
                .await?;
            connection.close(0u32.into(), b"asked");
            Ok((node, response))
        };
        tokio::time::timeout(deadline, asked)
            .await
            .unwrap_or(Err(CallError::Timeout))
    }

    fn slot(&self, node: NodeId, lane: Lane) -> Arc<Slot> {
        self.links
            .lock()
            .expect("no panic holds it")
            .entry((node, lane))
            .or_default()
            .clone()
    }

    /// The connection to `node`, made now if there is none. Callers of one slot wait for one dial and share
    /// its end, good or bad: if each dialled a dead node in its turn, the last group of many would learn
    /// only after as many time-outs that its follower is gone, and would keep the journal for it as long.
    async fn link(&self, node: NodeId, lane: Lane) -> Result<Link, CallError> {
        let slot = self.slot(node, lane);
        let seen = slot.failures();
        let mut link = slot.link.lock().await;
        if let Some(link) = link.as_ref().filter(|link| !link.is_lost()) {
            return Ok(link.clone());
        }
        if let Some(error) = slot.failure_since(seen) {
            return Err(error);
        }
        slot.begin(node, Instant::now())?;
        tracing::debug!(from = %self.node, to = %node, ?lane, "dials");
        let dialled = self.dial(node).await;
        let failed = dialled.as_ref().err();
        tracing::debug!(from = %self.node, to = %node, ?lane, failed = ?failed, "dialled");
        let fresh = dialled.inspect_err(|error| slot.note_failure(error))?;
        *link = Some(fresh.clone());
        Ok(fresh)
    }

    async fn dial(&self, node: NodeId) -> Result<Link, CallError> {
        let unreachable = |reason: String| CallError::Unreachable(node, reason);
        let address = self
            .addresses
            .lock()
            .expect("no panic holds it")
            .get(&node)
            .cloned();
        let address = address.ok_or_else(|| unreachable("its address is not known".into()))?;
        let dialled = async {
            let resolved = tokio::net::lookup_host(&address)
                .await
                .map_err(|error| unreachable(error.to_string()))?;
            let mut last = unreachable(format!("{address} has no address"));
            for address in resolved {
                match self.dial_address(node, address).await {
                    Ok(link) => return Ok(link),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        tokio::time::timeout(DIAL_TIMEOUT, dialled)
            .await
            .unwrap_or_else(|_| Err(unreachable("dial timed out".into())))
    }

    async fn dial_address(&self, node: NodeId, address: SocketAddr) -> Result<Link, CallError> {
        let unreachable = |reason: String| CallError::Unreachable(node, reason);
        let connecting = self
            .connect(address)
            .map_err(|error| unreachable(error.to_string()))?;
        let connection = connecting.await.map_err(|error| unreachable(error.to_string()))?;
        let found = tls::peer_node(&connection);
        if found != Some(node) {
            connection.close(2u32.into(), b"another node");
            return Err(unreachable(format!("{address} is {found:?}")));
        }
        let rtt = connection.rtt();
        if rtt > FIRST_RTT_MAX {
            connection.close(4u32.into(), b"slow");
            return Err(unreachable(format!("a round trip took {} ms", rtt.as_millis())));
        }
        let (writer, reader) = open_on(&connection, self.tag.get(), &StreamHead::Calls)
            .await
            .map_err(|_| CallError::Lost)?;
        Ok(Link {
            connection,
            calls: Calls::start(writer, reader, self.tag.clone()),
        })
    }
}

fn kernel_socket(listen: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(listen);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    // The machine may grant less; that costs speed, not safety.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

async fn open_on(
    connection: &quinn::Connection,
    tag: u64,
    head: &StreamHead,
) -> Result<(FrameWriter, FrameReader), StreamError> {
    let (send, receive) = connection.open_bi().await.map_err(StreamError::lost)?;
    let mut writer = FrameWriter::new(send);
    let tag = Bytes::copy_from_slice(&tag.to_le_bytes());
    writer.send([tag, codec::encode(head)]).await?;
    Ok((writer, FrameReader::new(receive)))
}

async fn serve_connection(connection: quinn::Connection, handler: Arc<dyn Handler>) {
    let Some(from) = tls::peer_node(&connection) else {
        connection.close(3u32.into(), b"certificate names no node");
        return;
    };
    let pings = connection.clone();
    let pinged = handler.clone();
    tokio::spawn(async move {
        while let Ok(ping) = pings.read_datagram().await {
            match <[u8; 8]>::try_from(&ping[..]) {
                Ok(wall_ms) => pinged.handle_ping(from, u64::from_le_bytes(wall_ms)),
                Err(_) => tracing::warn!(%from, bytes = ping.len(), "a datagram that is no ping"),
            }
        }
    });
    while let Ok((send, receive)) = connection.accept_bi().await {
        let handler = handler.clone();
        tokio::spawn(serve_stream(
            from,
            handler,
            FrameWriter::new(send),
            FrameReader::new(receive),
        ));
    }
}

pub(crate) fn read_head(frame: Bytes) -> Result<(u64, StreamHead), codec::CodecError> {
    let mut fields = Reader::new(frame);
    let tag = fields.u64("cluster tag")?;
    Ok((tag, codec::decode(&fields.rest())?))
}

async fn serve_stream(from: NodeId, handler: Arc<dyn Handler>, writer: FrameWriter, mut reader: FrameReader) {
    let head = match tokio::time::timeout(HEAD_TIMEOUT, reader.next()).await {
        Ok(Ok(Some(frame))) => read_head(frame),
        _ => return,
    };
    match head {
        Ok((_, StreamHead::Calls)) => calls::serve(from, handler, writer, reader).await,
        Ok((tag, head)) => handler.handle_stream(from, tag, head, writer, reader).await,
        Err(error) => tracing::warn!(%error, %from, "a peer opened a stream that cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::{Context, Poll, Waker};

    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    };

    use super::*;
    use crate::transport::Datagrams;

    /// An authority that issues identities.
    struct Authority {
        ca_pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let ca_pem = params.self_signed(&key).unwrap().pem();
            Self {
                ca_pem,
                issuer: Issuer::new(params, key),
            }
        }

        /// A node on a port of this machine.
        fn peers(&self, node: u64) -> Arc<Peers> {
            let any = "127.0.0.1:0".parse().unwrap();
            Peers::bind(NodeId(node), (any, None), &self.identity(NodeId(node))).unwrap()
        }

        fn identity(&self, node: NodeId) -> NodeIdentity {
            let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
            let name = format!("dunlin://node/{node}").try_into().unwrap();
            params.subject_alt_names.push(SanType::URI(name));
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate().unwrap();
            NodeIdentity {
                ca_pem: self.ca_pem.clone(),
                cert_pem: params.signed_by(&key, &self.issuer).unwrap().pem(),
                key_pem: key.serialize_pem(),
                cluster_secret: b"a secret".to_vec(),
            }
        }
    }

    fn shown(connection: &quinn::Connection) -> Vec<u8> {
        let identity = connection.peer_identity().unwrap();
        let chain = identity
            .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
            .unwrap();
        chain[0].to_vec()
    }

    /// A connection from `a` to `b`, as both see it.
    async fn meet(a: &Peers, b: &Peers) -> (quinn::Connection, quinn::Connection) {
        let dialled = async { a.connect(b.local_address()).unwrap().await.unwrap() };
        let taken = async { b.endpoint.accept().await.unwrap().await.unwrap() };
        tokio::join!(dialled, taken)
    }

    async fn assert_carries(from: &quinn::Connection, to: &quinn::Connection) {
        let (mut send, _receive) = from.open_bi().await.unwrap();
        send.write_all(b"still here").await.unwrap();
        send.finish().unwrap();
        let (_send, mut receive) = to.accept_bi().await.unwrap();
        assert_eq!(receive.read_to_end(64).await.unwrap(), b"still here");
    }

    #[tokio::test]
    async fn a_renewed_certificate_is_shown_by_new_links_and_old_ones_go_on() {
        let authority = Authority::new();
        let (a, b) = (authority.peers(1), authority.peers(2));
        let old = meet(&a, &b).await;
        a.renew(&authority.identity(NodeId(1))).unwrap();
        b.renew(&authority.identity(NodeId(2))).unwrap();
        let new = meet(&a, &b).await;
        assert_ne!(shown(&old.0), shown(&new.0), "the side that was dialled");
        assert_ne!(shown(&old.1), shown(&new.1), "the side that dialled");
        assert_eq!(tls::peer_node(&new.0), Some(NodeId(2)));
        for (from, to) in [(&old.0, &old.1), (&old.1, &old.0), (&new.0, &new.1)] {
            assert_carries(from, to).await;
        }
    }

    /// Sockets in memory. Whoever binds an address again takes it from its former life, which falls silent.
    #[derive(Debug, Default)]
    struct Wire(Mutex<BTreeMap<SocketAddr, Inbox>>);

    #[derive(Debug, Default)]
    struct Inbox {
        life: usize,
        /// What arrives waits, as before a process that is stopped.
        is_stopped: bool,
        arrived: VecDeque<(SocketAddr, Vec<u8>)>,
        waker: Option<Waker>,
    }

    #[derive(Debug)]
    struct Port {
        wire: Arc<Wire>,
        address: SocketAddr,
        life: usize,
    }

    impl Wire {
        fn bind(self: &Arc<Self>, address: SocketAddr) -> Arc<Port> {
            let mut inboxes = self.0.lock().unwrap();
            let life = inboxes.get(&address).map_or(0, |inbox| inbox.life + 1);
            let inbox = Inbox {
                life,
                ..Inbox::default()
            };
            inboxes.insert(address, inbox);
            Arc::new(Port {
                wire: self.clone(),
                address,
                life,
            })
        }
    }

    impl Wire {
        fn stop(&self, address: SocketAddr, stop: bool) {
            let mut inboxes = self.0.lock().unwrap();
            let inbox = inboxes.get_mut(&address).unwrap();
            inbox.is_stopped = stop;
            inbox.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    impl Datagrams for Port {
        fn send(&self, to: SocketAddr, bytes: &[u8]) {
            let mut inboxes = self.wire.0.lock().unwrap();
            if inboxes[&self.address].life != self.life {
                return;
            }
            let inbox = inboxes.get_mut(&to).unwrap();
            inbox.arrived.push_back((self.address, bytes.to_vec()));
            inbox.waker.take().into_iter().for_each(Waker::wake);
        }

        fn poll_receive(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<(usize, SocketAddr)> {
            let mut inboxes = self.wire.0.lock().unwrap();
            let inbox = inboxes.get_mut(&self.address).unwrap();
            if inbox.life != self.life {
                return Poll::Pending;
            }
            let next = (!inbox.is_stopped).then(|| inbox.arrived.pop_front()).flatten();
            let Some((from, bytes)) = next else {
                inbox.waker = Some(context.waker().clone());
                return Poll::Pending;
            };
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Poll::Ready((bytes.len(), from))
        }

        fn local_address(&self) -> SocketAddr {
            self.address
        }
    }

    fn simulated(authority: &Authority, wire: &Arc<Wire>, node: u8) -> Arc<Peers> {
        let address = SocketAddr::from(([10, 0, 0, node], 8900));
        let simulated = Simulated {
            datagrams: wire.bind(address),
            pid: 1,
            tls: TlsSources::default(),
            witness: None,
        };
        let node = NodeId(u64::from(node));
        Peers::bind(node, (address, Some(simulated)), &authority.identity(node)).unwrap()
    }

    /// A node that was stopped in the middle of a handshake takes its pause for a round trip, and would count on it.
    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_handshake_was_slept_through_is_made_anew() {
        let (authority, wire) = (Authority::new(), Arc::new(Wire::default()));
        let (a, b) = (simulated(&authority, &wire, 1), simulated(&authority, &wire, 2));
        let endpoint = b.endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async move {
                    let connection = incoming.await.ok()?;
                    while connection.accept_bi().await.is_ok() {}
                    Some(())
                });
            }
        });
        a.learn(NodeId(2), &b.local_address().to_string());
        wire.stop(a.local_address(), true);
        let dialling = tokio::spawn({
            let a = a.clone();
            async move { a.link(NodeId(2), Lane::Bulk).await.map(|_| ()) }
        });
        tokio::time::sleep(2 * FIRST_RTT_MAX).await;
        wire.stop(a.local_address(), false);
        let slept = dialling.await.unwrap();
        let Err(CallError::Unreachable(_, why)) = slept else {
            panic!("{slept:?}");
        };
        assert!(why.contains("a round trip took"), "{why}");
        tokio::time::sleep(2 * DIAL_PAUSE_MIN).await;
        assert!(a.link(NodeId(2), Lane::Bulk).await.is_ok());
    }

    /// A node that was killed says nothing to its peers; when it is back, it knows none of their connections.
    #[tokio::test]
    async fn a_node_that_is_back_ends_the_connections_of_its_former_life() {
        let (authority, wire) = (Authority::new(), Arc::new(Wire::default()));
        let start = |node: u8| simulated(&authority, &wire, node);
        let (a, b) = (start(1), start(2));
        let (connection, _in_its_former_life) = meet(&a, &b).await;
        let _back = start(2);
        let end = connection.closed().await;
        assert!(matches!(end, quinn::ConnectionError::Reset), "{end}");
    }

    /// Where a node was removed and another one started in its place, everybody who still wanted something of the
    /// old one made a connection to the new one and closed it again, hundreds of times a second.
    #[tokio::test]
    async fn a_node_whose_address_another_one_has_is_not_dialled_again_and_again() {
        let authority = Authority::new();
        let (a, successor) = (authority.peers(1), authority.peers(2));
        let endpoint = successor.endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async move { incoming.await.map(drop) });
            }
        });
        a.learn(NodeId(3), &successor.local_address().to_string());
        for _ in 0..200 {
            let end = a.link(NodeId(3), Lane::Control).await;
            assert!(matches!(end, Err(CallError::Unreachable(NodeId(3), _))));
        }
        let slot = a.slot(NodeId(3), Lane::Control);
        assert!((1..20).contains(&slot.failures()), "{} dials", slot.failures());
        // Whoever is not in the way of such a dial is reached at once.
        a.learn(NodeId(2), &successor.local_address().to_string());
        assert!(a.link(NodeId(2), Lane::Control).await.is_ok());
    }

    #[test]
    fn dials_keep_apart_longer_the_more_follow_on_each_other() {
        let (slot, mut now) = (Slot::default(), Instant::now());
        let mut waited = Vec::new();
        for _ in 0..8 {
            let begun = now;
            while slot.begin(NodeId(2), now).is_err() {
                now += Duration::from_millis(5);
            }
            waited.push((now - begun).as_millis());
        }
        assert_eq!(waited, [0, 20, 40, 80, 160, 320, 640, 1_000]);
        now += 2 * DIAL_PAUSE_MAX;
        assert!(
            slot.begin(NodeId(2), now).is_ok(),
            "after a while it is as at first"
        );
        assert!(slot.begin(NodeId(2), now + DIAL_PAUSE_MIN).is_ok());
    }

    /// A leader keeps log entries for a follower until it hears that the follower cannot be reached; with one
    /// dial after the other, the last of many groups would hear it that many time-outs later.
    #[tokio::test]
    async fn whoever_waits_for_a_dial_shares_its_failure() {
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peers = Authority::new().peers(1);
        peers.learn(NodeId(2), &nobody.local_addr().unwrap().to_string());
        let groups = (0..16).map(|_| peers.link(NodeId(2), Lane::Bulk));
        let ends = futures_util::future::join_all(groups).await;
        assert!(ends.iter().all(Result::is_err));
        let slot = peers.slot(NodeId(2), Lane::Bulk);
        assert_eq!(slot.failures(), 1, "dials that failed");
        // The failure is of then: who comes now has it tried again.
        assert!(peers.link(NodeId(2), Lane::Bulk).await.is_err());
        assert_eq!(slot.failures(), 2);
    }
}
