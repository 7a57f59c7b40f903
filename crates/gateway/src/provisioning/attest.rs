//! Whether somebody may register, and under which enrolment: a token, a certificate or a TPM held against an enrolment of
//! its own, and otherwise against the groups.
//!
//! An enrolment of one's own comes before all groups, also when it is disabled. Of groups with certificates the one counts
//! that is nearest to the leaf. Nothing is decided here on a copy of the directory that may be old: what is not found is
//! looked for once more in the directory as it is now.

use std::sync::Arc;

use dunlin_model::command::{Consistency, Query, View};
use dunlin_model::directory::Directory;
use dunlin_model::identity::{Authentication, SymmetricKeys, Thumbprints};
use dunlin_model::provisioning::{
    Attestation, Enrollment, Pair, ProofKind, ProvisioningView, Registration, RegistrationId, TpmAttestation,
};

use super::error::ProvisioningError;
use super::possession::{self, TpmShown};
use super::{Asked, id_scope};
use crate::auth::{self, AuthError, KeyForm, SasToken, Scope, Shown, derive_key, verify_keys};
use crate::shared::Shared;

/// Whoever may register.
#[derive(Debug)]
pub(crate) struct Attested {
    /// Under which name.
    pub(crate) id: RegistrationId,
    /// The same as the device spells it.
    pub(crate) name: String,
    /// The enrolment that lets it in.
    pub(crate) enrollment: Enrollment,
    /// Whether that is a group.
    pub(crate) is_group: bool,
    /// How it proved it.
    pub(crate) proof: ProofKind,
    /// How it will prove itself at its hub.
    pub(crate) authentication: Authentication,
    /// The storage key of its TPM, if it has proved to hold one.
    pub(crate) storage_root_key: Option<String>,
    /// What became of it when it came before.
    pub(crate) registration: Option<Registration>,
}

/// Why somebody may not register, for the audit; they are not told.
#[derive(Debug)]
pub(crate) enum NotAttested {
    /// What they show does not count.
    Refused(String),
    /// They have to open this first, Base64.
    Challenged(String),
    /// Nobody can say now.
    Error(ProvisioningError),
}

impl From<ProvisioningError> for NotAttested {
    fn from(error: ProvisioningError) -> Self {
        Self::Error(error)
    }
}

impl From<AuthError> for NotAttested {
    fn from(error: AuthError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// What somebody shows, read as far as that needs no key.
enum Proof<'a> {
    Token(SasToken<'a>),
    Certificate(&'a Shown),
    /// The public keys of a TPM, which prove nothing yet.
    Tpm(&'a TpmShown),
}

/// What a proof against an enrolment of one's own has shown.
struct Shows {
    kind: ProofKind,
    authentication: Authentication,
    storage_root_key: Option<String>,
}

/// Finds the enrolment that lets `asked` in.
pub(crate) async fn attest(shared: &Shared, asked: &Asked<'_>) -> Result<Attested, NotAttested> {
    let now_s = shared.now_ms() / 1000;
    let directory = shared.client.directory();
    if !shared.client.is_fresh() {
        return Err(ProvisioningError::unavailable("this gateway is cut off from the cluster").into());
    }
    let scope = id_scope(&directory);
    if !asked.scope.eq_ignore_ascii_case(&scope) {
        return Err(NotAttested::Refused(format!(
            "the id scope is another than {scope}"
        )));
    }
    let id =
        RegistrationId::parse(asked.name).map_err(|error| ProvisioningError::invalid(error.to_string()))?;
    let proof = read_proof(asked, now_s)?;
    let view = view(shared, &id).await?;
    if let Some(enrollment) = view.enrollment {
        let shows = match (&enrollment.spec.attestation, &proof) {
            (Attestation::Tpm(tpm), Proof::Tpm(keys)) => {
                let blob = possession::challenge_for(tpm, keys).ok_or(AuthError::BadSignature)?;
                shared.pending.put(&id, &keys.storage_root_key);
                return Err(NotAttested::Challenged(blob));
            }
            (Attestation::Tpm(tpm), Proof::Token(token)) => {
                let known = view
                    .registration
                    .as_ref()
                    .and_then(|known| known.spec.storage_root_key.clone());
                let said = asked.tpm.as_ref().map(|keys| keys.storage_root_key.clone());
                let waiting = shared.pending.get(&id);
                check_tpm(tpm, token, said.into_iter().chain(known).chain(waiting))?
            }
            _ => check_own(&enrollment, &proof, now_s)?,
        };
        return Ok(Attested {
            id,
            name: asked.name.to_owned(),
            enrollment,
            is_group: false,
            proof: shows.kind,
            authentication: shows.authentication,
            storage_root_key: shows.storage_root_key,
            registration: view.registration,
        });
    }
    let mut found = search(shared, &directory, asked, now_s).await?;
    if found.is_none() {
        let now = shared.client.directory_now().await;
        let now = now.map_err(ProvisioningError::from)?;
        if now.rank() != directory.rank() {
            found = search(shared, &now, asked, now_s).await?;
        }
    }
    let Some((enrollment, authentication)) = found else {
        return Err(NotAttested::Refused("no enrollment fits".to_owned()));
    };
    // A certificate has its own spelling of the name.
    let (proof, name) = match proof {
        Proof::Token(_) | Proof::Tpm(_) => (ProofKind::SymmetricKey, None),
        Proof::Certificate(shown) => (ProofKind::X509, shown.common_name()),
    };
    Ok(Attested {
        id,
        name: name.unwrap_or_else(|| asked.name.to_owned()),
        enrollment,
        is_group: true,
        proof,
        authentication,
        storage_root_key: None,
        registration: view.registration,
    })
}

/// What is known of a registration id now.
pub(crate) async fn view(
    shared: &Shared,
    id: &RegistrationId,
) -> Result<ProvisioningView, ProvisioningError> {
    let query = Query::Provisioning(id.clone());
    match shared.client.query(query, Consistency::Linearizable).await? {
        View::Provisioning(view) => Ok(*view),
        _ => Err(ProvisioningError::internal()),
    }
}

fn read_proof<'a>(asked: &'a Asked<'_>, now_s: u64) -> Result<Proof<'a>, AuthError> {
    if let Some(text) = asked.token {
        let token = SasToken::parse(text)?;
        if token.expiry_s <= now_s {
            return Err(AuthError::Expired);
        }
        // Case does not count, and one client lowers it.
        let hosts = [asked.scope.to_owned()];
        let name = asked.name.to_ascii_lowercase();
        let scope = Scope {
            hosts: &hosts,
            path: &["registrations", &name],
        };
        if !scope.is_covered_by(&token.resource().to_ascii_lowercase()) {
            return Err(AuthError::WrongScope);
        }
        // Azure's documents name a policy, its Python SDK does not.
        if token
            .policy
            .as_deref()
            .is_some_and(|policy| policy != "registration")
        {
            return Err(AuthError::UnknownPolicy);
        }
        return Ok(Proof::Token(token));
    }
    match (&asked.tpm, asked.shown) {
        (Some(keys), _) => Ok(Proof::Tpm(keys)),
        (None, Some(shown)) => Ok(Proof::Certificate(shown)),
        (None, None) => Err(AuthError::Missing),
    }
}

/// Checks a proof against an enrolment of one's own that has no TPM.
fn check_own(enrollment: &Enrollment, proof: &Proof<'_>, now_s: u64) -> Result<Shows, AuthError> {
    let (kind, authentication) = match (&enrollment.spec.attestation, proof) {
        (Attestation::SymmetricKey(keys), Proof::Token(token)) => {
            verify_keys(token, keys, KeyForm::Decoded)?;
            (ProofKind::SymmetricKey, Authentication::Sas(keys.clone()))
        }
        (Attestation::ClientCertificate(pair), Proof::Certificate(shown)) => {
            if !pair.each().any(|pem| shown.leaf_is(pem)) {
                return Err(AuthError::WrongCertificate);
            }
            shown.check_leaf_in_force(now_s)?;
            let print = |pem: &Option<String>| pem.as_deref().and_then(auth::thumbprint_of_pem);
            let prints = Thumbprints {
                primary: print(&pair.primary),
                secondary: print(&pair.secondary),
            };
            (ProofKind::X509, Authentication::SelfSigned(prints))
        }
        (_, Proof::Token(_) | Proof::Tpm(_)) => return Err(AuthError::BadSignature),
        (_, Proof::Certificate(_)) => return Err(AuthError::WrongCertificate),
    };
    Ok(Shows {
        kind,
        authentication,
        storage_root_key: None,
    })
}

/// Checks that the TPM has signed, with one of `storage_keys`.
fn check_tpm(
    tpm: &TpmAttestation,
    token: &SasToken<'_>,
    mut storage_keys: impl Iterator<Item = String>,
) -> Result<Shows, AuthError> {
    let storage = storage_keys.find(|storage| possession::is_signed(tpm, storage, token));
    let storage = storage.ok_or(AuthError::BadSignature)?;
    let key = possession::hub_key(tpm, &storage).ok_or(AuthError::BadKey)?;
    // A TPM has room for one.
    let keys = SymmetricKeys {
        primary: key.clone(),
        secondary: key,
    };
    Ok(Shows {
        kind: ProofKind::Tpm,
        authentication: Authentication::Sas(keys),
        storage_root_key: Some(storage),
    })
}

/// [`find_group`] aside, a few at a time: whoever shows a chain that leads nowhere has much computed, and nobody knows
/// who it is.
async fn search(
    shared: &Shared,
    directory: &Arc<Directory>,
    asked: &Asked<'_>,
    now_s: u64,
) -> Result<Option<(Enrollment, Authentication)>, NotAttested> {
    let turn = Arc::clone(&shared.attesting).acquire_owned().await;
    let turn = turn.map_err(|_| ProvisioningError::unavailable("this gateway is closing"))?;
    let directory = Arc::clone(directory);
    let (name, token, shown) = (
        asked.name.to_owned(),
        asked.token.map(str::to_owned),
        asked.shown.cloned(),
    );
    let searching = tokio::task::spawn_blocking(move || {
        let proof = match (&token, &shown) {
            (Some(text), _) => Proof::Token(SasToken::parse(text).ok()?),
            (None, Some(shown)) => Proof::Certificate(shown),
            (None, None) => return None,
        };
        let found = find_group(&directory, &name, &proof, now_s);
        drop(turn);
        found
    });
    let found = searching.await;
    Ok(found.map_err(|_| ProvisioningError::internal())?)
}

/// The group that a proof fits, with what its device proves itself with at its hub.
fn find_group(
    directory: &Directory,
    name: &str,
    proof: &Proof<'_>,
    now_s: u64,
) -> Option<(Enrollment, Authentication)> {
    match proof {
        Proof::Token(token) => directory.book.groups().find_map(|group| {
            let Attestation::SymmetricKey(keys) = &group.spec.attestation else {
                return None;
            };
            let derived = [&keys.primary, &keys.secondary].map(|key| derive_key(key, name));
            let [primary, secondary] = derived.map(Result::unwrap_or_default);
            let derived = SymmetricKeys { primary, secondary };
            verify_keys(token, &derived, KeyForm::Decoded).ok()?;
            Some((group.clone(), Authentication::Sas(derived)))
        }),
        Proof::Tpm(_) => None,
        Proof::Certificate(shown) => {
            if !shown.is_for_any_case(name) {
                return None;
            }
            let fitting = directory.book.groups().filter_map(|group| {
                let depth = depth_of(&group.spec.attestation, shown, directory, now_s)?;
                Some((depth, group))
            });
            let (_, group) = fitting.min_by_key(|(depth, _)| *depth)?;
            Some((group.clone(), Authentication::SelfSigned(shown.thumbprints())))
        }
    }
}

/// How far above the leaf the certificate of a group stands that has signed it, if one has.
fn depth_of(attestation: &Attestation, shown: &Shown, directory: &Directory, now_s: u64) -> Option<usize> {
    let nearest = |pems: &mut dyn Iterator<Item = &String>| {
        pems.filter(|pem| shown.may_be_below(pem))
            .filter(|pem| {
                shown
                    .is_signed_below(std::slice::from_ref(*pem), &[], now_s)
                    .is_ok()
            })
            .map(|pem| shown.depth_of(pem))
            .min()
    };
    match attestation {
        Attestation::Authority(Pair { primary, secondary }) => {
            let names = primary.iter().chain(secondary);
            nearest(&mut names.filter_map(|name| directory.authorities.get(name)))
        }
        Attestation::SigningCertificate(pair) => {
            // Beside the group's own word, one of the hub's authorities must vouch for the chain.
            if !pair.each().any(|pem| shown.may_be_below(pem)) {
                return None;
            }
            let signing: Vec<String> = pair.each().cloned().collect();
            let authorities: Vec<String> = directory.authorities.values().cloned().collect();
            shown.is_signed_below(&authorities, &signing, now_s).ok()?;
            nearest(&mut pair.each())
        }
        _ => None,
    }
}
