//! The doors of a node: for devices and services where it has the role `gateway`, for operators
//! alone where it has not.
//!
//! Decides what the certificate names and what the listeners are. What is answered behind them is
//! the gateway's.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dunlin_cluster::Cluster;
use dunlin_gateway::{Audience, Gateway, GatewayConfig, Hooks};
use dunlin_model::directory::Role;
use dunlin_model::port::{Clock as _, Tracer};

use crate::address;
use crate::blobs::Blobs;
use crate::config::NodeConfig;
use crate::observe::Observed;
use crate::outbound::HttpOutbound;
use crate::pki::Authority;
use crate::wiring::StartError;

/// Opens them.
pub(crate) async fn open(
    config: &NodeConfig,
    authority: &Authority,
    cluster: &Arc<Cluster>,
    observed: &Arc<Observed>,
) -> Result<Gateway, StartError> {
    let (mut names, addresses) = names(config);
    // Devices on this machine may name the hub by address as well.
    names.extend(addresses.iter().map(ToString::to_string));
    let at = |port: u16| SocketAddr::new(config.bind, port);
    let mut doors = GatewayConfig {
        audience: Audience::Operators,
        host_names: names,
        mqtts: Vec::new(),
        amqps: Vec::new(),
        kafka: Vec::new(),
        https: vec![at(config.https_port)],
        mqtt_plain: None,
        tls: observed.certificates.doors(),
        connections_max: config.connections_max,
        uploads: config.uploads.clone(),
    };
    if config.roles.contains(&Role::Gateway) {
        doors.audience = Audience::Everyone;
        doors.mqtts.push(at(config.mqtts_port));
        doors.amqps.push(at(config.amqps_port));
        doors.kafka.push(at(config.kafka_port));
        doors.mqtt_plain = config.mqtt_port.map(at);
        doors.https.extend(config.https_alt_port.map(at).filter(can_bind));
    }
    let (healthy, measured) = (observed.clone(), observed.clone());
    let (shown, renewed) = (observed.certificates.clone(), observed.certificates.clone());
    let token = authority.admin_token().to_owned();
    let files = authority.files();
    let clock = observed.clock.clone();
    let faults = observed.faults.clone().map(|faults| {
        let clock = observed.clock.clone();
        let told = move |body: &[u8]| faults.handle_body(body, &clock);
        Arc::new(told) as dunlin_gateway::FaultsHook
    });
    let mut hooks = Hooks {
        now_ms: Arc::new(move || clock.wall_ms()),
        faults,
        health: Arc::new(move || healthy.health()),
        metrics_text: Arc::new(move || measured.metrics()),
        join_files: Arc::new(move || files.clone()),
        is_admin_token: Arc::new(move |given| same(given.as_bytes(), token.as_bytes())),
        audit: observed.audit.clone(),
        certificates: Arc::new(move || shown.show()),
        renew_certificates: Arc::new(move || renewed.renew()),
        outbound: Arc::new(HttpOutbound::default()),
        tracer: observed.traces.clone().map(|traces| traces as Arc<dyn Tracer>),
        ..Hooks::default()
    };
    if config.roles.contains(&Role::Gateway) {
        let blobs = Blobs::open(config.object_store.as_deref(), &config.data);
        hooks.blobs = Arc::new(blobs.map_err(StartError::Objects)?);
    }
    let gateway = Gateway::start(doors, cluster.client(), hooks).await?;
    let _ = observed.gateway.set(gateway.metrics().clone());
    Ok(gateway)
}

/// Names and addresses that clients may dial this node by: the hub's, this machine's, loopback.
pub(crate) fn names(config: &NodeConfig) -> (Vec<String>, Vec<IpAddr>) {
    let mut names = vec![config.host_name.clone()];
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
    let own = config.bind.is_unspecified().then(address::machine_name).flatten();
    for name in [Some("localhost".to_owned()), own].into_iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if let Some(own) = address::facing(config)
        && !addresses.contains(&own)
    {
        addresses.push(own);
    }
    (names, addresses)
}

/// Whether the second HTTPS port can be had: it needs a privilege, and another program may hold it.
fn can_bind(address: &SocketAddr) -> bool {
    match std::net::TcpListener::bind(address) {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%address, %error, "the second HTTPS port is left out");
            false
        }
    }
}

/// Compares without telling by its time where the first difference is.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let tag = |bytes| ring::digest::digest(&ring::digest::SHA256, bytes);
    let (given, wanted) = (tag(given), tag(wanted));
    given
        .as_ref()
        .iter()
        .zip(wanted.as_ref())
        .fold(0, |differs, (a, b)| differs | (a ^ b))
        == 0
}
