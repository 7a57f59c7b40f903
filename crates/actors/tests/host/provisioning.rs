//! Registrations in the log: each counts only under the enrolment that let it in, as that is when it is stored.

use dunlin_model::command::{Command, Consistency, Outcome, Query, Refusal, View};
use dunlin_model::identity::{Condition, SymmetricKeys};
use dunlin_model::port::ShardServer;
use dunlin_model::provisioning::{
    Attestation, EnrollmentSpec, ProofKind, ProvisioningView, RegistrationId, RegistrationSpec, Substatus,
};

use crate::support::{Field, Gateway, SHARD, applied, device};

fn id() -> RegistrationId {
    RegistrationId::parse("Pump-1").unwrap()
}

fn enroll(is_enabled: bool, condition: Condition) -> Command {
    Command::EnrollmentPut {
        id: id(),
        name: "Pump-1".into(),
        spec: Box::new(EnrollmentSpec {
            is_enabled,
            ..EnrollmentSpec::enabled(Attestation::SymmetricKey(SymmetricKeys::default()))
        }),
        condition,
    }
}

fn register(enrollment: Option<u64>, condition: Condition) -> Command {
    Command::RegistrationPut {
        id: id(),
        spec: Box::new(RegistrationSpec {
            name: "Pump-1".into(),
            group: enrollment.is_none().then(|| "Plant".into()),
            proof: ProofKind::SymmetricKey,
            storage_root_key: None,
            hub: "hub.example".into(),
            device: device("pump"),
            leaving: None,
            substatus: Substatus::InitialAssignment,
            payload: None,
            operation: "5.x".into(),
        }),
        enrollment,
        condition,
    }
}

async fn outcome(gateway: &mut Gateway<'_>, command: Command) -> Outcome {
    applied(gateway.send(&[], vec![command]).await).outcomes.remove(0)
}

async fn kept(gateway: &mut Gateway<'_>, command: Command) -> u64 {
    match outcome(gateway, command).await {
        Outcome::Kept { version, .. } => version,
        other => panic!("{other:?}"),
    }
}

async fn refused(gateway: &mut Gateway<'_>, command: Command) -> Refusal {
    match outcome(gateway, command).await {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

async fn known(field: &Field) -> ProvisioningView {
    let query = Query::Provisioning(id());
    match field.host.query(SHARD, query, Consistency::Leader).await.unwrap() {
        View::Provisioning(view) => *view,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_registration_counts_under_the_enrolment_that_let_it_in() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    let gateway = &mut gateway;
    let of_group = kept(gateway, register(None, Condition::Absent)).await;
    let again = register(None, Condition::Absent);
    assert_eq!(refused(gateway, again).await, Refusal::AlreadyExists);

    // Whoever has an enrolment of its own is let in by no group any more.
    let first = kept(gateway, enroll(true, Condition::Absent)).await;
    let late = register(None, Condition::Version(of_group));
    assert_eq!(refused(gateway, late).await, Refusal::StaleEnrollment);
    let own = kept(gateway, register(Some(first), Condition::Version(of_group))).await;
    assert!(own > first && first > of_group, "none comes again");

    // One that was changed, or disabled, meanwhile lets nobody in who came before.
    let second = kept(gateway, enroll(true, Condition::Version(first))).await;
    let late = register(Some(first), Condition::Version(own));
    assert_eq!(refused(gateway, late).await, Refusal::StaleEnrollment);
    let third = kept(gateway, enroll(false, Condition::Version(second))).await;
    for enrollment in [second, third] {
        let late = register(Some(enrollment), Condition::Version(own));
        assert_eq!(refused(gateway, late).await, Refusal::StaleEnrollment);
    }
    let view = known(&field).await;
    assert_eq!(view.enrollment.map(|found| found.version), Some(third));
    let registration = view.registration.expect("it is kept");
    assert_eq!((registration.version, registration.spec.group), (own, None));
    assert!(registration.created_ms < registration.updated_ms);

    // It goes with its enrolment.
    let delete = |version| Command::EnrollmentDelete {
        id: id(),
        condition: Condition::Version(version),
    };
    assert_eq!(refused(gateway, delete(second)).await, Refusal::VersionMismatch);
    assert_eq!(outcome(gateway, delete(third)).await, Outcome::Done);
    assert_eq!(known(&field).await, ProvisioningView::default());
    assert_eq!(refused(gateway, delete(third)).await, Refusal::UnknownEnrollment);
    let forget = Command::RegistrationDelete {
        id: id(),
        condition: Condition::Present,
    };
    assert_eq!(refused(gateway, forget).await, Refusal::UnknownRegistration);
}
