//! Certificates: one authority per cluster, made once; a certificate per node for its peers, and
//! one for the doors.
//!
//! The authority's folder also holds the join secret and the admin token; whoever can read those can
//! join the cluster or do anything, so only their owner can.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dunlin_cluster::config::NodeIdentity;
use dunlin_model::id::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

/// Years that the authority is valid.
const CA_YEARS: i32 = 20;
/// How far back a certificate's time begins, for clocks that are behind.
const CLOCK_SKEW: Duration = Duration::from_secs(3_600);
/// Certificate of the authority; what clients are given to trust.
pub const CA_FILE: &str = "ca.pem";
const CA_KEY_FILE: &str = "ca.key";
const SECRET_FILE: &str = "join-secret";
const ADMIN_TOKEN_FILE: &str = "admin-token";
const LOCK_FILE: &str = "lock";

/// Why certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file.
    #[error("{action} {path}: {source}")]
    File {
        /// Verb: "read", "write".
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate.
    #[error("make certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// A cluster's authority, read from its folder.
pub struct Authority {
    folder: PathBuf,
    ca_pem: String,
    ca_key_pem: String,
    secret: String,
    admin_token: String,
}

/// What the doors show.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    /// Certificate chain, PEM.
    pub chain_pem: String,
    /// Private key, PEM.
    pub key_pem: String,
}

impl Authority {
    /// Whether there is an authority in `folder`.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(CA_FILE).exists()
    }

    /// Reads the authority in `folder`, or makes it if there is none. Several nodes may do so at
    /// the same time: one makes it, the others find it. A folder that has one is only read.
    pub fn open(folder: &Path) -> Result<Self, PkiError> {
        let file_error = |action, path: &Path| {
            let path = path.to_owned();
            move |source| PkiError::File { action, path, source }
        };
        if !Self::is_in(folder) {
            fs::create_dir_all(folder).map_err(file_error("create", folder))?;
            let lock_path = folder.join(LOCK_FILE);
            let lock = File::create(&lock_path).map_err(file_error("create", &lock_path))?;
            lock.lock().map_err(file_error("lock", &lock_path))?;
            if !Self::is_in(folder) {
                make(folder)?;
            }
        }
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(file_error("read", &path))
        };
        Ok(Self {
            folder: folder.to_owned(),
            ca_pem: read(CA_FILE)?,
            ca_key_pem: read(CA_KEY_FILE)?,
            secret: read(SECRET_FILE)?,
            admin_token: read(ADMIN_TOKEN_FILE)?.trim().to_owned(),
        })
    }

    /// The file that clients trust.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join(CA_FILE)
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The token that opens everything.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// What another node needs to open the same authority, by file name.
    pub fn files(&self) -> BTreeMap<String, String> {
        let files = [
            (CA_FILE, &self.ca_pem),
            (CA_KEY_FILE, &self.ca_key_pem),
            (SECRET_FILE, &self.secret),
            (ADMIN_TOKEN_FILE, &self.admin_token),
        ];
        files.map(|(name, text)| (name.to_owned(), text.clone())).into()
    }

    /// Writes what [`files`](Self::files) of another node gave to `folder`, which has no authority yet.
    pub fn write(folder: &Path, files: &BTreeMap<String, String>) -> Result<(), PkiError> {
        let refused = |source: io::Error| PkiError::File {
            action: "write",
            path: folder.to_owned(),
            source,
        };
        if folder.join(CA_FILE).exists() {
            let reason = "there is an authority already";
            return Err(refused(io::Error::new(io::ErrorKind::AlreadyExists, reason)));
        }
        fs::create_dir_all(folder).map_err(refused)?;
        // The certificate last, since its presence says that the others are there.
        for name in [CA_KEY_FILE, SECRET_FILE, ADMIN_TOKEN_FILE, CA_FILE] {
            let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{name} was not given"));
            let text = files.get(name).ok_or_else(missing).map_err(refused)?;
            let mode = if name == CA_FILE { 0o644 } else { 0o600 };
            write(&folder.join(name), text, mode)?;
        }
        Ok(())
    }

    /// A node's identity towards its peers, valid for `life` from now on.
    pub fn node_identity(&self, node: NodeId, life: Duration) -> Result<NodeIdentity, PkiError> {
        let mut params = CertificateParams::new(vec!["dunlin-node".to_owned()])?;
        params
            .subject_alt_names
            .push(SanType::URI(format!("dunlin://node/{node}").try_into()?));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let (cert_pem, key_pem) = self.issue(params, &format!("node {node}"), life)?;
        Ok(NodeIdentity {
            ca_pem: self.ca_pem.clone(),
            cert_pem,
            key_pem,
            cluster_secret: self.secret.as_bytes().to_vec(),
        })
    }

    /// The doors' certificate, for these names and addresses, valid for `life` from now on.
    pub fn server_certificate(
        &self,
        names: &[String],
        addresses: &[IpAddr],
        life: Duration,
    ) -> Result<ServerCertificate, PkiError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params
            .subject_alt_names
            .extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let name = names.first().map_or("dunlin", String::as_str);
        let (cert_pem, key_pem) = self.issue(params, name, life)?;
        Ok(ServerCertificate {
            chain_pem: cert_pem + &self.ca_pem,
            key_pem,
        })
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        name: &str,
        life: Duration,
    ) -> Result<(String, String), PkiError> {
        params.distinguished_name = named(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
        params.not_after = epoch + now + life;
        let ca_key = KeyPair::from_pem(&self.ca_key_pem)?;
        let issuer = Issuer::from_ca_cert_pem(&self.ca_pem, ca_key)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

fn make(folder: &Path) -> Result<(), PkiError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = named("Dunlin cluster CA");
    set_validity(&mut params, CA_YEARS);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let draw = || URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    write(&folder.join(CA_KEY_FILE), &key.serialize_pem(), 0o600)?;
    write(&folder.join(SECRET_FILE), &draw(), 0o600)?;
    write(&folder.join(ADMIN_TOKEN_FILE), &draw(), 0o600)?;
    // Last, since its presence says that the others are there, also to those who take no lock.
    write(&folder.join(CA_FILE), &certificate.pem(), 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let temporary = path.with_extension("tmp");
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    written().map_err(|source| PkiError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Sets from when to when the authority is valid.
pub(crate) fn set_validity(params: &mut CertificateParams, years: i32) {
    let since_1970 = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let year = 1970 + (since_1970 / 31_556_952) as i32;
    // A day before the year, so that a clock that is a little behind finds it valid.
    params.not_before = rcgen::date_time_ymd(year - 1, 12, 31);
    params.not_after = rcgen::date_time_ymd(year + years, 12, 31);
}
