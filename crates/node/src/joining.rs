//! A data directory that was prepared to join a cluster: whose authority it has, and where that is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use dunlin_storage::data_dir::{DataDir, DataDirError};
use serde::{Deserialize, Serialize};

use crate::config::NodeConfig;
use crate::pki::{Authority, PkiError};

/// Where the nodes of the cluster stand in a prepared data directory.
const JOIN_FILE: &str = "join.json";
/// Where a node looks for its authority when it is told of no other folder.
const PKI_FOLDER: &str = "pki";

#[derive(Debug, Serialize, Deserialize)]
struct Join {
    seeds: Vec<String>,
}

/// Why a data directory cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It is none, or another process has it.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// The authority cannot be written.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A file, or the folder itself.
    #[error("prepare {0}: {1}")]
    File(String, io::Error),
}

/// Makes `data` the directory of a node that will join the cluster at `seeds`, whose authority `files` are.
/// It must be new: a node that was of another cluster, or of none, does not become one of this.
pub fn prepare(data: &Path, seeds: &[String], files: &BTreeMap<String, String>) -> Result<(), PrepareError> {
    let refused = |source: io::Error| PrepareError::File(data.display().to_string(), source);
    let folder = DataDir::open(data)?;
    if folder.cluster_id().is_some() || data.join(JOIN_FILE).exists() {
        let reason = "it is a node's already";
        return Err(refused(io::Error::new(io::ErrorKind::AlreadyExists, reason)));
    }
    Authority::write(&data.join(PKI_FOLDER), files)?;
    let join = Join {
        seeds: seeds.to_vec(),
    };
    let text = serde_json::to_vec(&join).map_err(|error| refused(io::Error::other(error)))?;
    folder.write(JOIN_FILE, &text)?;
    Ok(())
}

/// Lets a node with a prepared directory join and never form; what it was told otherwise stands.
pub(crate) fn follow(config: &mut NodeConfig) -> io::Result<()> {
    let bytes = match fs::read(config.data.join(JOIN_FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let join: Join = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    if config.seeds.is_empty() {
        config.seeds = join.seeds;
        config.expect = 0;
    }
    Ok(())
}
