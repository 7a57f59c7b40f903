//! What a scenario's workloads are begun with, and the webhook that its routes lead to.
//!
//! Each workload does its work by itself ([`crate::workload`]); here is only which of them there are, and how often.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::folder::About;
use super::{RunError, Stage};
use crate::faults::Field;
use crate::namespaces::Namespaces;
use crate::nodes::Backend;
use crate::oracle::Stored;
use crate::workload::delivery::Delivery;
use crate::workload::erasing::Subject;
use crate::workload::https::Sender;
use crate::workload::routes::Fits;
use crate::workload::webhook::Webhook;
use crate::workload::{
    Bench, Shelf, churn, configurations, contended, dialogue, erasing, history, https, jobs, messages,
    policies, provisioning, readers, registry, routes, uploads,
};

/// Time for events to come to the webhook, beyond the deadline after which they are late.
const DELIVERIES_LATE: Duration = Duration::from_secs(30);

impl Stage<'_> {
    /// Begins every workload that the scenario names, beside the fleet. `known` are the devices whose events stay.
    pub(super) fn workloads(
        &self,
        bench: &Bench,
        (https_senders, churn_senders, erased): (Vec<Sender>, Vec<Sender>, Vec<Subject>),
        known: &Arc<HashSet<String>>,
        backend: Backend,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let ms = Duration::from_millis;
        if let Some(workload) = &self.scenario.https {
            for sender in https_senders {
                tasks.spawn(https::run(bench.clone(), sender, ms(workload.period_ms)));
            }
        }
        if let Some(workload) = &self.scenario.churn {
            for sender in churn_senders {
                tasks.spawn(churn::run(bench.clone(), sender, ms(workload.period_ms)));
            }
        }
        if let Some(workload) = &self.scenario.registry {
            for slot in 0..workload.devices {
                tasks.spawn(registry::run(bench.clone(), slot, ms(workload.period_ms)));
            }
        }
        if let Some(workload) = &self.scenario.contended {
            for slot in 0..workload.devices {
                tasks.spawn(contended::run(bench.clone(), slot, ms(workload.period_ms)));
            }
        }
        if let Some(workload) = &self.scenario.provisioning {
            for slot in 0..workload.enrollments {
                tasks.spawn(provisioning::run(bench.clone(), slot, ms(workload.period_ms)));
            }
        }
        if let Some(workload) = &self.scenario.policies {
            for slot in 0..workload.policies {
                tasks.spawn(policies::run(bench.clone(), slot, ms(workload.period_ms)));
            }
        }
        if let Some(workload) = &self.scenario.erasing {
            for subjects in erased.chunks(erasing::NAMES) {
                let subjects = subjects.to_vec();
                tasks.spawn(erasing::run(bench.clone(), subjects, ms(workload.period_ms)));
            }
        }
        if let Some(workload) = &self.scenario.dialogue {
            for slot in 0..workload.devices {
                tasks.spawn(dialogue::run(bench.clone(), slot, ms(workload.period_ms)));
            }
        }
        if let Some(workload) = &self.scenario.messages {
            tasks.spawn(messages::run(
                bench.clone(),
                workload.devices,
                ms(workload.period_ms),
            ));
        }
        if let Some(workload) = &self.scenario.jobs {
            tasks.spawn(jobs::run(bench.clone(), workload.devices, ms(workload.period_ms)));
        }
        if let Some(workload) = &self.scenario.configurations {
            let period = ms(workload.period_ms);
            tasks.spawn(configurations::run(bench.clone(), workload.devices, period));
        }
        // Containers are told by their file where they keep files.
        if let Some(workload) = &self.scenario.uploads
            && backend == Backend::Processes
        {
            let period = ms(workload.period_ms);
            tasks.spawn(uploads::run(bench.clone(), workload.devices, period));
        }
        if let Some(workload) = &self.scenario.history {
            let places = (self.scenario.cluster.shards, ms(workload.period_ms));
            for slot in 0..workload.readers {
                tasks.spawn(history::run(bench.clone(), slot, places, Arc::clone(known)));
            }
        }
        if let Some(workload) = &self.scenario.readers
            && !bench.kafka.is_empty()
        {
            tasks.spawn(readers::run(
                bench.clone(),
                workload.members,
                ms(workload.period_ms),
            ));
        }
        tasks
    }

    /// Has a webhook listen and routes lead to it, if the scenario has routes and the nodes reach this process.
    pub(super) async fn lead_routes(
        &self,
        field: &Field,
        shelf: &Shelf,
    ) -> Result<Option<Webhook>, RunError> {
        if self.scenario.routes.is_none() || field.backend() == Backend::Containers {
            return Ok(None);
        }
        let namespaces = field.gear.get::<Namespaces>();
        let address = namespaces.map_or(Ipv4Addr::LOCALHOST, |namespaces| namespaces.outside_address());
        let deliveries = Arc::clone(&shelf.deliveries);
        let webhook = Webhook::start(address.into(), deliveries, (self.epoch, self.seed)).await?;
        self.hub.put_routing(&routes::document(&webhook)).await?;
        shelf.deliveries.note(Delivery::Led { us: field.now_us() });
        Ok(Some(webhook))
    }

    /// Waits until the webhook has everything that routes lead to it. What comes too late or never, judges see.
    pub(super) async fn wait_for_deliveries(&self, webhook: &Webhook, about: &About, stored: &[Stored]) {
        let due = Fits::new(&about.names, self.payloads()).places(stored);
        self.view
            .say(&format!("waiting until the webhook has {} events", due.len()));
        let until = Duration::from_secs(self.scenario.liveness.serve_s) + DELIVERIES_LATE;
        let missing = webhook.wait_for(due, Instant::now() + until).await;
        if missing > 0 {
            self.view.say(&format!("{missing} of them did not come"));
        }
    }
}
