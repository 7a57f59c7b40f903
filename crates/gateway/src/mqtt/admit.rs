//! From a CONNECT to an open session, or to the refusal that the client may know.
//!
//! A credential counts as wrong only when a linearizable read says so, since SDKs give up for good on
//! that answer; whatever is the cluster's trouble is answered "server unavailable" instead.

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::command::{Command, Consistency, DeviceView, Outcome, Query, Refusal, Settled, View};
use dunlin_model::id::DeviceId;
use dunlin_model::identity::DeviceStatus;
use dunlin_model::port::{QueryError, ShardClient, SubmitError};
use dunlin_model::quota::Operation;
use dunlin_model::telemetry::AuthMethod;
use tokio::time::timeout;

use super::deliveries::Deliveries;
use super::mailbox::Mailbox;
use super::session::{Terms, is_own_will};
use super::username::Username;
use super::wire::{ConnectRequest, Refused};
use crate::auth::{self, AuthError, Credential, Scope, Shown, Standing, news};
use crate::limits::{ADMIT_WAIT, CLOSE_ATTEMPTS_MAX, CLOSE_WAIT, QUOTA_CONNECT_WAIT, TOKEN_LIFE_S_MAX};
use crate::metrics::count;
use crate::quota::Cost;
use crate::shared::Shared;

/// An open session.
pub(crate) struct Admitted {
    pub(crate) terms: Terms,
    /// What the session rests on besides its device.
    pub(crate) standing: Standing,
    /// Whether earlier subscriptions go on.
    pub(crate) present: bool,
    /// What the connection has to do with messages to the device.
    pub(crate) deliveries: Deliveries,
}

/// A refusal, with what the operator may know.
#[derive(Debug)]
pub(crate) struct Refusing {
    pub(crate) answer: Refused,
    pub(crate) why: String,
    pub(crate) device: String,
}

/// Admits the client, or refuses it. Damping happens in here, after the credential was verified.
pub(crate) async fn admit(
    shared: &Shared,
    request: ConnectRequest,
    shown: Option<&Shown>,
    mailbox: &Arc<Mailbox>,
) -> Result<Admitted, Refusing> {
    let device = request
        .username
        .as_deref()
        .and_then(Username::parse)
        .map(|name| match name.module {
            None => name.device.to_owned(),
            Some(module) => format!("{}/{module}", name.device),
        })
        .unwrap_or_default();
    try_admit(shared, request, shown, mailbox)
        .await
        .map_err(|(answer, why)| Refusing { answer, why, device })
}

type Why = (Refused, String);

fn unavailable(why: impl ToString) -> Why {
    (Refused::Unavailable, why.to_string())
}

fn not_authorized(why: impl ToString) -> Why {
    (Refused::NotAuthorized, why.to_string())
}

async fn try_admit(
    shared: &Shared,
    request: ConnectRequest,
    shown: Option<&Shown>,
    mailbox: &Arc<Mailbox>,
) -> Result<Admitted, Why> {
    let device = check_names(shared, &request)?;
    let now_s = shared.now_ms() / 1000;
    let path = auth::identity_path("devices", device.device_part(), device.module_part());
    let scope = Scope {
        hosts: &shared.host_names,
        path: &path,
    };
    let token = match &request.password {
        Some(bytes) => Some(std::str::from_utf8(bytes).map_err(|_| not_authorized("the token is no text"))?),
        None => None,
    };
    let credential = Credential::read(token, shown, scope, now_s).map_err(not_authorized)?;
    if !shared.client.is_fresh() {
        return Err(unavailable("this gateway is cut off from the cluster"));
    }
    let proof = Proof {
        device: &device,
        credential: &credential,
        now_s,
    };
    let verifying = || async {
        let verified = timeout(ADMIT_WAIT, verify(shared, proof)).await;
        verified.map_err(|_| unavailable("no answer from the shard"))?
    };
    let (mut view, mut method) = verifying().await?;
    let delay = shared.damp(&device);
    if !delay.is_zero() {
        count(&shared.metrics.connects_damped);
        tokio::time::sleep(delay).await;
        // What was true before may not be now.
        if !shared.client.is_fresh() {
            return Err(unavailable("this gateway is cut off from the cluster"));
        }
        (view, method) = verifying().await?;
    }
    let patience = Some(QUOTA_CONNECT_WAIT);
    shared
        .charge_within(Cost::of(Operation::Connect), patience)
        .await
        .map_err(unavailable)?;
    let opened = open(shared, proof, view, !request.clean, mailbox).await?;
    let rests_on = credential.rests_on(&opened.view.record, &shared.client.directory(), now_s);
    let life_s = credential.expiry_s().map_or(TOKEN_LIFE_S_MAX, |expiry_s| {
        expiry_s.saturating_sub(now_s).min(TOKEN_LIFE_S_MAX)
    });
    let terms = Terms {
        device,
        epoch: opened.epoch,
        auth: method,
        version: request.version,
        keep_alive_s: request.keep_alive_s,
        token_life: Duration::from_secs(life_s),
        receipts: request.receipts,
        will: request.will,
    };
    Ok(Admitted {
        terms,
        standing: Standing::new(shared, rests_on),
        present: opened.present,
        deliveries: Deliveries::new(request.receive_max, opened.waiting),
    })
}

/// What a client shows, and for what.
#[derive(Clone, Copy)]
struct Proof<'a> {
    device: &'a DeviceId,
    credential: &'a Credential<'a>,
    now_s: u64,
}

fn check_names(shared: &Shared, request: &ConnectRequest) -> Result<DeviceId, Why> {
    if request.extended_auth {
        return Err((
            Refused::AuthMethod,
            "extended authentication is not offered".into(),
        ));
    }
    let username = request.username.as_deref().and_then(Username::parse);
    let username = username.ok_or_else(|| not_authorized("no user name of a device"))?;
    if !auth::is_host(&shared.host_names, username.host) {
        return Err(not_authorized("the user name names another hub"));
    }
    let device = DeviceId::of_parts(username.device, username.module).map_err(not_authorized)?;
    if request.client_id != device.as_str() {
        return Err((
            Refused::ClientId,
            "client id is not the device's, or module's".into(),
        ));
    }
    if request.will.as_ref().is_some_and(|will| will.qos > 1) {
        return Err((Refused::WillQos, "the will is of QoS 2".into()));
    }
    match &request.will {
        Some(will) if !is_own_will(will, &device) => {
            Err(not_authorized("the will is not for the device's own topic"))
        }
        _ => Ok(device),
    }
}

/// Reads the device and verifies the token: first as the leader knows it, and if that does not do,
/// as the majority does, by the directory as it is now where it is not the device's own key that has to count.
async fn verify(shared: &Shared, proof: Proof<'_>) -> Result<(DeviceView, AuthMethod), Why> {
    if let Ok(found) = verify_as(shared, proof, Consistency::Leader).await {
        return Ok(found);
    }
    match proof.credential {
        Credential::Token(token, _) => news::hear(shared, token).await,
        // It may be below an authority that is new.
        Credential::Certificate(_) => news::hear_all(shared).await,
    }
    verify_as(shared, proof, Consistency::Linearizable).await
}

async fn verify_as(
    shared: &Shared,
    proof: Proof<'_>,
    consistency: Consistency,
) -> Result<(DeviceView, AuthMethod), Why> {
    let view = query_device(&*shared.client, proof.device, consistency)
        .await
        .map_err(unavailable)?;
    let view = view.ok_or_else(|| not_authorized("no such device"))?;
    let directory = shared.client.directory();
    match proof.credential.verify(&view.record, &directory, proof.now_s) {
        Ok(method) => Ok((view, method)),
        // The directory is only a copy, so a policy or an authority that it lacks may exist.
        Err(error @ (AuthError::UnknownPolicy | AuthError::MissingRight | AuthError::UnknownAuthority))
            if !shared.client.is_fresh() =>
        {
            Err(unavailable(error))
        }
        Err(error) => Err(not_authorized(error)),
    }
}

/// One device, or `None` if there is none.
pub(crate) async fn query_device(
    client: &dyn ShardClient,
    device: &DeviceId,
    consistency: Consistency,
) -> Result<Option<DeviceView>, QueryError> {
    match client.query(Query::Device(device.clone()), consistency).await? {
        View::Device(view) => Ok(view),
        _ => Err(QueryError::Store("an answer of another kind".into())),
    }
}

/// A session that the log has.
struct Opened {
    epoch: u64,
    /// Whether earlier subscriptions go on.
    present: bool,
    /// Whether messages wait for the device.
    waiting: bool,
    /// The device as it was when its session was opened.
    view: DeviceView,
}

/// Opens the session in the log. A credential that was rolled meanwhile gets one more look, since the
/// token's other key may still be good.
async fn open(
    shared: &Shared,
    proof: Proof<'_>,
    mut view: DeviceView,
    persistent: bool,
    mailbox: &Arc<Mailbox>,
) -> Result<Opened, Why> {
    let device = proof.device;
    for attempt in 0..2 {
        let command = Command::SessionOpen {
            device: device.clone(),
            generation: view.record.generation,
            held_by: shared.client.stream_id(device),
            persistent,
        };
        let opening = shared.sessions.begin(device);
        match submit_open(shared, device, command).await.map_err(unavailable)? {
            Outcome::SessionOpened {
                epoch,
                present,
                waiting,
                ..
            } => {
                opening.activate(epoch, mailbox);
                return Ok(Opened {
                    epoch,
                    present,
                    waiting,
                    view,
                });
            }
            Outcome::Refused(Refusal::StaleGeneration) if attempt == 0 => {
                let again = timeout(ADMIT_WAIT, verify_as(shared, proof, Consistency::Linearizable));
                view = again
                    .await
                    .map_err(|_| unavailable("no answer from the shard"))??
                    .0;
                debug_assert_eq!(
                    view.record.spec.status,
                    DeviceStatus::Enabled,
                    "verification refuses others"
                );
            }
            // Neither says that the credential is wrong.
            Outcome::Refused(refusal @ (Refusal::LimitReached | Refusal::StaleGeneration)) => {
                return Err(unavailable(refusal));
            }
            Outcome::Refused(refusal) => return Err(not_authorized(refusal)),
            other => return Err(unavailable(format!("an outcome of another kind: {other:?}"))),
        }
    }
    Err(unavailable(Refusal::StaleGeneration))
}

/// Submits the opening with a time-out of ours. If we give up, whatever was opened is closed again.
async fn submit_open(shared: &Shared, device: &DeviceId, command: Command) -> Result<Outcome, SubmitError> {
    let client = Arc::clone(&shared.client);
    let device = device.clone();
    let mut submitting = tokio::spawn(async move { client.submit(command).await });
    match timeout(ADMIT_WAIT, &mut submitting).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_panic)) => Err(SubmitError::Unknown),
        Err(_elapsed) => {
            let client = Arc::clone(&shared.client);
            shared.tasks.spawn(async move {
                if let Ok(Ok(Outcome::SessionOpened { epoch, .. })) = submitting.await {
                    close(&*client, device, epoch).await;
                }
            });
            Err(SubmitError::Unknown)
        }
    }
}

/// A command of a session, submitted again while the cluster is busy.
pub(crate) fn submit_command(
    client: &Arc<dyn ShardClient>,
    command: Command,
) -> impl Future<Output = Result<Settled, SubmitError>> + Send + use<> {
    let client = Arc::clone(client);
    async move {
        loop {
            match client.submit_for_receipt(command.clone()).await {
                Err(SubmitError::Busy(_)) => client.ready().await,
                other => return other,
            }
        }
    }
}

/// Closes a session in the log, as well as that can be done.
pub(crate) async fn close(client: &dyn ShardClient, device: DeviceId, epoch: u64) {
    let closing = async {
        for _ in 0..CLOSE_ATTEMPTS_MAX {
            let command = Command::SessionClose {
                device: device.clone(),
                epoch,
            };
            match client.submit(command).await {
                Err(SubmitError::Busy(_)) => client.ready().await,
                Err(error) => return tracing::debug!(%device, epoch, %error, "session left to its shard"),
                Ok(_) => return,
            }
        }
    };
    if timeout(CLOSE_WAIT, closing).await.is_err() {
        tracing::debug!(%device, epoch, "session left to its shard");
    }
}
