//! The certificates that a node shows, to devices and services at its doors and to its peers: when they
//! are made anew, and that no connection ends for it.
//!
//! Certificates of the cluster's authority are renewed when two thirds of their life are over. An
//! operator's own files are looked at and read again when they change. What cannot be renewed or read is said
//! once, recorded, and tried again; the old one stays. How they are made is in [`pki`](crate::pki).

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_cluster::Cluster;
use dunlin_cluster::config::NodeIdentity;
use dunlin_gateway::TlsIdentity;
use dunlin_model::audit::{AuditOutcome, AuditRecord};
use dunlin_model::id::NodeId;
use dunlin_model::iso_time::iso_utc;
use dunlin_model::port::{AuditSink, Clock};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::pki::{Authority, PkiError, ServerCertificate};

/// Longest time between two looks at the clock and at an operator's files. The wall clock may jump.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Shortest time between two looks, so that a renewal that fails is not tried in a circle.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Why a certificate cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// An operator's file cannot be read.
    #[error("read {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// The doors do not take it.
    #[error("use certificate of the doors: {0}")]
    Doors(#[from] dunlin_gateway::TlsError),
    /// The peers' side does not take it.
    #[error("use certificate of the node: {0}")]
    Peers(#[from] dunlin_cluster::transport::TlsError),
    /// It is no certificate.
    #[error("the certificate of the {0} cannot be read")]
    Unreadable(&'static str),
}

/// What is told of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    sha256: String,
    /// When it was put to use, seconds since 1970.
    since_s: u64,
    until_s: u64,
}

/// One certificate in use.
struct Held {
    shown: Shown,
    renewals: u64,
    /// Why the last try to renew it did not work.
    failed: Option<String>,
}

struct State {
    door: Held,
    node: Held,
    /// What stood in the operator's files when they were last read.
    files: Option<ServerCertificate>,
}

/// What certificates are made of.
pub(crate) struct Plan {
    pub(crate) authority: Arc<Authority>,
    pub(crate) node: NodeId,
    /// Names and addresses of the doors.
    pub(crate) names: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) door_life: Duration,
    pub(crate) node_life: Duration,
    /// An operator's chain and key.
    pub(crate) files: Option<(PathBuf, PathBuf)>,
}

/// The certificates of one node.
pub(crate) struct Certificates {
    plan: Plan,
    doors: TlsIdentity,
    clock: Arc<dyn Clock>,
    audit: Arc<dyn AuditSink>,
    cluster: Mutex<Option<Arc<Cluster>>>,
    state: Mutex<State>,
    ca_until_s: u64,
    renewals_failed: AtomicU64,
}

impl Certificates {
    /// Makes the first ones. Returns them with the node's identity, for the cluster to start with.
    pub(crate) fn first(
        plan: Plan,
        clock: Arc<dyn Clock>,
        audit: Arc<dyn AuditSink>,
    ) -> Result<(Arc<Self>, NodeIdentity), CertificateError> {
        let now_s = clock.wall_ms() / 1000;
        let door = plan.door_certificate()?;
        let doors = TlsIdentity::from_pem(door.chain_pem.as_bytes(), door.key_pem.as_bytes())?;
        let identity = plan.authority.node_identity(plan.node, plan.node_life)?;
        let held = |shown| Held {
            shown,
            renewals: 0,
            failed: None,
        };
        let state = State {
            door: held(read("doors", &door.chain_pem, now_s)?),
            node: held(read("node", &identity.cert_pem, now_s)?),
            files: plan.files.is_some().then_some(door),
        };
        let ca = read("authority", plan.authority.ca_pem(), now_s)?;
        let certificates = Self {
            plan,
            doors,
            clock,
            audit,
            cluster: Mutex::new(None),
            state: Mutex::new(state),
            ca_until_s: ca.until_s,
            renewals_failed: AtomicU64::new(0),
        };
        Ok((Arc::new(certificates), identity))
    }

    /// The identity that the doors show; it follows renewals.
    pub(crate) fn doors(&self) -> TlsIdentity {
        self.doors.clone()
    }

    /// Names the cluster that shows the node's certificate to peers.
    pub(crate) fn shown_by(&self, cluster: Arc<Cluster>) {
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner) = Some(cluster);
    }

    /// Renews what is due, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let wait = Duration::from_secs(self.next_due_s().saturating_sub(self.now_s()));
            tokio::time::sleep(wait.clamp(LOOK_PAUSE, LOOK_EVERY)).await;
            for record in self.look() {
                self.audit.record(record).await;
            }
        }
    }

    /// Makes all of them anew, now.
    pub(crate) fn renew(&self) -> Result<(), String> {
        let mut state = self.lock();
        let (door, node) = (self.renew_door(&mut state), self.renew_node(&mut state));
        door.and(node).map_err(|error| error.to_string())
    }

    /// What is told to an operator.
    pub(crate) fn show(&self) -> Value {
        let state = self.lock();
        let line = |name: &str, held: &Held, source: &str| {
            json!({
                "certificate": name,
                "source": source,
                "sha256": held.shown.sha256,
                "notAfter": iso_utc(held.shown.until_s * 1000),
                "secondsLeft": held.shown.until_s.saturating_sub(self.now_s()),
                "renewals": held.renewals,
                "failed": held.failed,
            })
        };
        let source = if state.files.is_some() { "files" } else { "cluster" };
        json!({
            "node": self.plan.node.to_string(),
            "certificates": [line("door", &state.door, source), line("node", &state.node, "cluster")],
        })
    }

    /// Name, seconds until its end, and renewals of each.
    pub(crate) fn lives(&self) -> [(&'static str, u64, u64); 3] {
        let state = self.lock();
        let left = |until_s: u64| until_s.saturating_sub(self.now_s());
        [
            ("door", left(state.door.shown.until_s), state.door.renewals),
            ("node", left(state.node.shown.until_s), state.node.renewals),
            ("authority", left(self.ca_until_s), 0),
        ]
    }

    /// Renewals that did not work, since start.
    pub(crate) fn renewals_failed(&self) -> u64 {
        self.renewals_failed.load(Relaxed)
    }

    /// What keeps clients or peers out: certificates that have ended.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let ended = self.lives().into_iter().filter(|(_, left_s, _)| *left_s == 0);
        ended
            .map(|(name, ..)| format!("the {name} certificate has ended"))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_s(&self) -> u64 {
        self.clock.wall_ms() / 1000
    }

    fn next_due_s(&self) -> u64 {
        let state = self.lock();
        due_s(&state.door.shown).min(due_s(&state.node.shown))
    }

    /// Renews what is due; says what was tried and not said before.
    fn look(&self) -> Vec<AuditRecord> {
        let mut state = self.lock();
        let now_s = self.now_s();
        let mut records = Vec::new();
        let door_is_due = match &state.files {
            None => now_s >= due_s(&state.door.shown),
            // Who brings files renews them; only a change counts.
            Some(known) => self.plan.door_certificate().map_or(true, |found| found != *known),
        };
        if door_is_due {
            let failed_before = state.door.failed.clone();
            let result = self.renew_door(&mut state);
            records.extend(self.told("door", result, failed_before, &state.door));
        }
        if now_s >= due_s(&state.node.shown) {
            let failed_before = state.node.failed.clone();
            let result = self.renew_node(&mut state);
            records.extend(self.told("node", result, failed_before, &state.node));
        }
        records
    }

    /// The record of a renewal that happened by itself; none for a failure that was told before.
    fn told(
        &self,
        what: &str,
        result: Result<(), CertificateError>,
        failed_before: Option<String>,
        held: &Held,
    ) -> Option<AuditRecord> {
        let record = AuditRecord::done("certificates.renew", "node", what);
        match result {
            Ok(()) => {
                let until = iso_utc(held.shown.until_s * 1000);
                tracing::info!(what, until, "certificate renewed");
                Some(AuditRecord {
                    detail: format!("valid until {until}"),
                    ..record
                })
            }
            Err(error) if failed_before == Some(error.to_string()) => None,
            Err(error) => {
                tracing::error!(what, %error, "cannot renew certificate; the old one stays");
                Some(AuditRecord {
                    outcome: AuditOutcome::Failed(error.to_string()),
                    ..record
                })
            }
        }
    }

    fn renew_door(&self, state: &mut State) -> Result<(), CertificateError> {
        let renewed = self.plan.door_certificate().and_then(|found| {
            let shown = read("doors", &found.chain_pem, self.now_s())?;
            self.doors
                .reload(found.chain_pem.as_bytes(), found.key_pem.as_bytes())?;
            Ok((shown, found))
        });
        let renewed = renewed.map(|(shown, found)| {
            if state.files.is_some() {
                state.files = Some(found);
            }
            shown
        });
        self.settle(&mut state.door, renewed)
    }

    fn renew_node(&self, state: &mut State) -> Result<(), CertificateError> {
        let renew = || {
            let identity = self
                .plan
                .authority
                .node_identity(self.plan.node, self.plan.node_life)?;
            let shown = read("node", &identity.cert_pem, self.now_s())?;
            let cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(cluster) = &*cluster {
                cluster.renew_identity(&identity)?;
            }
            Ok(shown)
        };
        self.settle(&mut state.node, renew())
    }

    fn settle(
        &self,
        held: &mut Held,
        renewed: Result<Shown, CertificateError>,
    ) -> Result<(), CertificateError> {
        match renewed {
            Ok(shown) => {
                held.shown = shown;
                held.renewals += 1;
                held.failed = None;
                Ok(())
            }
            Err(error) => {
                self.renewals_failed.fetch_add(1, Relaxed);
                held.failed = Some(error.to_string());
                Err(error)
            }
        }
    }
}

impl Plan {
    /// What the doors are to show from now on: the operator's files as they are, or a fresh one.
    fn door_certificate(&self) -> Result<ServerCertificate, CertificateError> {
        let Some((chain, key)) = &self.files else {
            return Ok(self
                .authority
                .server_certificate(&self.names, &self.addresses, self.door_life)?);
        };
        let text = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|error| CertificateError::File(path.clone(), error))
        };
        Ok(ServerCertificate {
            chain_pem: text(chain)?,
            key_pem: text(key)?,
        })
    }
}

/// When two thirds of its life are over, seconds since 1970.
fn due_s(shown: &Shown) -> u64 {
    shown.since_s + shown.until_s.saturating_sub(shown.since_s) * 2 / 3
}

/// Reads the first certificate of a chain.
fn read(what: &'static str, chain_pem: &str, now_s: u64) -> Result<Shown, CertificateError> {
    let unreadable = || CertificateError::Unreadable(what);
    let der = CertificateDer::from_pem_slice(chain_pem.as_bytes()).map_err(|_| unreadable())?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|_| unreadable())?;
    let digest = ring::digest::digest(&ring::digest::SHA256, &der);
    Ok(Shown {
        sha256: digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect(),
        since_s: now_s,
        until_s: u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use dunlin_model::port::BoxFuture;

    use super::*;

    /// A wall clock that is set by hand.
    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn wall_ms(&self) -> u64 {
            self.0.load(Relaxed)
        }
        fn monotonic_ms(&self) -> u64 {
            self.wall_ms()
        }
    }

    struct NoAudit;

    impl AuditSink for NoAudit {
        fn record(&self, _: AuditRecord) -> BoxFuture<'_, ()> {
            Box::pin(std::future::ready(()))
        }
        fn refused(&self, _: AuditRecord) {}
    }

    fn plan(folder: &std::path::Path, files: Option<(PathBuf, PathBuf)>) -> Plan {
        Plan {
            authority: Arc::new(Authority::open(folder).unwrap()),
            node: NodeId(7),
            names: vec!["localhost".into()],
            addresses: vec![],
            door_life: Duration::from_secs(90 * 24 * 3600),
            node_life: Duration::from_secs(6 * 3600),
            files,
        }
    }

    fn real_now_ms() -> u64 {
        crate::clock::SystemClock::new().wall_ms()
    }

    #[test]
    fn a_certificate_is_renewed_when_two_thirds_of_its_life_are_over() {
        let folder = tempfile::tempdir().unwrap();
        let start = real_now_ms();
        let clock = Arc::new(HandClock(AtomicU64::new(start)));
        let (all, _) =
            Certificates::first(plan(folder.path(), None), clock.clone(), Arc::new(NoAudit)).unwrap();
        let first = all.show();
        assert!(all.look().is_empty(), "nothing is due");
        clock.0.store(start + 4 * 3_600_000 - 5_000, Relaxed);
        assert!(all.look().is_empty());
        clock.0.store(start + 4 * 3_600_000 + 5_000, Relaxed);
        let records = all.look();
        assert_eq!(records.len(), 1, "{records:?}");
        assert_eq!(
            (records[0].action, &*records[0].what, &records[0].outcome),
            ("certificates.renew", "node", &AuditOutcome::Done)
        );
        let second = all.show();
        let sha = |shown: &Value, place: usize| shown["certificates"][place]["sha256"].clone();
        assert_eq!(sha(&first, 0), sha(&second, 0), "that of the doors lives longer");
        assert_ne!(sha(&first, 1), sha(&second, 1));
        all.renew().unwrap();
        assert_ne!(sha(&second, 0), sha(&all.show(), 0));
        assert_eq!(all.lives().map(|(_, _, renewals)| renewals), [1, 2, 0]);
    }

    #[test]
    fn an_operators_files_are_read_again_when_they_change_and_bad_ones_are_said_once() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("door.pem"), folder.path().join("door.key"));
        let other = Authority::open(&folder.path().join("other")).unwrap();
        let put = || {
            let names = ["hub.example".to_owned()];
            let made = other
                .server_certificate(&names, &[], Duration::from_secs(3_600))
                .unwrap();
            std::fs::write(&chain, made.chain_pem).unwrap();
            std::fs::write(&key, made.key_pem).unwrap();
        };
        put();
        let clock = Arc::new(HandClock(AtomicU64::new(real_now_ms())));
        let plan = plan(&folder.path().join("pki"), Some((chain.clone(), key.clone())));
        let (all, _) = Certificates::first(plan, clock, Arc::new(NoAudit)).unwrap();
        let before = all.show();
        assert!(all.look().is_empty());
        put();
        assert_eq!(all.look().len(), 1);
        assert_ne!(all.show()["certificates"][0], before["certificates"][0]);
        assert_eq!(all.show()["certificates"][0]["source"], "files");
        let good = all.show()["certificates"][0]["sha256"].clone();
        std::fs::write(&chain, "no certificate").unwrap();
        let told = all.look();
        assert!(matches!(told[0].outcome, AuditOutcome::Failed(_)), "{told:?}");
        assert!(all.look().is_empty(), "once is enough");
        assert_eq!(all.show()["certificates"][0]["sha256"], good, "the old one stays");
        assert!(all.renew().is_err());
        put();
        assert_eq!(all.look().len(), 1);
    }
}
