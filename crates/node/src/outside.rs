//! What shows a node to the outside, beside its doors: certificates, audit, traces. Made first, since
//! everything else stands on them; what each decides is in its own file.

use std::sync::Arc;

use dunlin_cluster::config::NodeIdentity;
use dunlin_model::port::{Clock, Tracer};
use dunlin_storage::data_dir::DataDir;
use tokio::runtime::Handle;

use crate::audit::Audit;
use crate::certificates::{Certificates, Plan};
use crate::clock::SystemClock;
use crate::config::NodeConfig;
use crate::doors;
use crate::pki::Authority;
use crate::traces::Traces;
use crate::wiring::StartError;

/// All of it.
pub(crate) struct Outside {
    pub(crate) certificates: Arc<Certificates>,
    /// The first one that the node shows to its peers.
    pub(crate) identity: NodeIdentity,
    pub(crate) audit: Arc<Audit>,
    pub(crate) traces: Option<Arc<Traces>>,
}

impl Outside {
    /// Makes it; what goes on in the background does so on `runtime`.
    pub(crate) fn start(
        config: &NodeConfig,
        authority: &Arc<Authority>,
        data: &DataDir,
        clock: Arc<dyn Clock>,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        let node = data.node_id();
        let _entered = runtime.enter();
        let audit = Audit::open(data.path(), node, clock).map_err(StartError::Audit)?;
        let endpoint = config.otlp_endpoint.as_deref();
        let traces = endpoint
            .map(|endpoint| Traces::start(endpoint, config.trace_ratio, node, runtime.clone()))
            .transpose()?;
        let (names, addresses) = doors::names(config);
        let plan = Plan {
            authority: authority.clone(),
            node,
            names,
            addresses,
            door_life: config.door_certificate_life,
            node_life: config.node_certificate_life,
            files: config.tls_cert.clone().zip(config.tls_key.clone()),
        };
        // By the machine's own clock, as TLS checks them.
        let (certificates, identity) =
            Certificates::first(plan, Arc::new(SystemClock::new()), audit.clone())?;
        Ok(Self {
            certificates,
            identity,
            audit,
            traces,
        })
    }

    /// Who decides which messages are followed, if any are.
    pub(crate) fn tracer(&self) -> Option<Arc<dyn Tracer>> {
        self.traces.clone().map(|traces| traces as Arc<dyn Tracer>)
    }
}
