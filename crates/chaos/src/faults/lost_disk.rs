//! F24: a node comes back with an empty data directory, or with an old copy of its own.
//!
//! Source: `docs/chaos.md`, fault list; `docs/semantics.md` says what is promised: a minority's data may go
//! without anything acknowledged being lost. The empty node is a new one to its cluster, and the old one is
//! taken out for good, as an operator would do. An old copy is a node that has forgotten votes and entries
//! that it confirmed; it is restored only while every other replica is there.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunlin_cluster::admin::AdminRequest;
use futures_util::FutureExt as _;

use super::{
    Fault, FaultError, Field, Kind, NOTHING_DONE, Order, Step, indeterminate, may_have_done,
    reach_into_containers,
};

/// Time for the newcomer to have a share of the replicas.
const SHARE_TIMEOUT: Duration = Duration::from_secs(60);

/// Everything is gone.
pub(super) const WIPED: Kind = Kind {
    how: "SIGKILL, data directory removed, the old node removed, a new one started in its place",
    in_containers: Some(
        "`docker kill`, data directory removed from the container's volume, started as a new node",
    ),
    prepare_in_containers: Some(reach_into_containers),
    ..Kind::new("wipe", "F24", |order| {
        Box::new(LostDisk {
            order,
            lost: Lost::All,
            id: None,
            data: None,
        })
    })
};

/// What was written since the copy was made is gone.
pub(super) const RESTORED: Kind = Kind {
    how: "data directory copied while the node is down; put back, after it had run on, in place of its own",
    in_containers: Some("the same in the container's volume"),
    prepare_in_containers: Some(reach_into_containers),
    for_ms: (3_000, 6_000),
    ..Kind::new("restore", "F24", |order| {
        Box::new(LostDisk {
            order,
            lost: Lost::Newest,
            id: None,
            data: None,
        })
    })
};

enum Lost {
    All,
    Newest,
}

struct LostDisk {
    order: Order,
    lost: Lost,
    id: Option<String>,
    /// The data directory, once the node may have been taken down.
    data: Option<PathBuf>,
}

impl LostDisk {
    fn copy_dir(&self, field: &Field) -> PathBuf {
        field.folder().join(format!("backup-{}", self.order.node() + 1))
    }
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> FaultError {
    move |error| indeterminate(format!("{action}: {error}"))
}

/// Copies a folder with all that is in it. It stays whose it was: in a container that may be another user's.
fn copy_all(from: &Path, into: &Path) -> io::Result<()> {
    fs::create_dir_all(into)?;
    stay_with_owner(from, into)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = into.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_all(&entry.path(), &copy)?,
            false => {
                fs::copy(entry.path(), &copy)?;
                stay_with_owner(&entry.path(), &copy)?;
            }
        }
    }
    Ok(())
}

fn stay_with_owner(from: &Path, copy: &Path) -> io::Result<()> {
    let (owner, now) = (fs::metadata(from)?, fs::metadata(copy)?);
    match (owner.uid(), owner.gid()) == (now.uid(), now.gid()) {
        true => Ok(()),
        false => chown(copy, Some(owner.uid()), Some(owner.gid())),
    }
}

impl Fault for LostDisk {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let data = field.data_dir(node)?;
            self.id = field.id(node);
            let killed = field.kill(node).await;
            self.data = may_have_done(&killed).then(|| data.clone());
            let killed = killed?;
            match self.lost {
                Lost::All => {
                    field.keep_audit(node).await?;
                    fs::remove_dir_all(&data).map_err(failed("remove data directory"))?;
                    Ok(format!("{killed}; its data directory is gone"))
                }
                Lost::Newest => {
                    copy_all(&data, &self.copy_dir(field)).map_err(failed("copy data directory"))?;
                    field.start(node).await?;
                    Ok(format!("{killed}; its data directory is copied, and it runs on"))
                }
            }
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let (kept, what) = match self.lost {
                Lost::All => (!field.data_dir(self.order.node())?.exists(), "it is gone"),
                Lost::Newest => (self.copy_dir(field).exists(), "there is a copy"),
            };
            match kept {
                true => Ok(what.into()),
                false => Err(indeterminate(format!("not so: {what}"))),
            }
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let Some(data) = self.data.take() else {
                return Ok(NOTHING_DONE.into());
            };
            if let Lost::Newest = self.lost {
                let killed = field.kill(node).await?;
                field.keep_audit(node).await?;
                let copy = self.copy_dir(field);
                fs::remove_dir_all(&data).map_err(failed("remove data directory"))?;
                // Not renamed: the volume of a container may lie on another disk.
                copy_all(&copy, &data).map_err(failed("restore data directory"))?;
                fs::remove_dir_all(&copy).map_err(failed("remove the copy"))?;
                let line = field.start(node).await?;
                return Ok(format!("{killed}; {line} with the copy"));
            }
            let line = field.start(node).await?;
            if let Some(old) = self.id.clone().filter(|old| field.id(node).as_ref() != Some(old)) {
                field.ask(&AdminRequest::Remove { node: old }).await?;
                field.reached("removed");
            }
            let id = field.id(node).unwrap_or_default();
            let has_share = |status: &dunlin_cluster::admin::ClusterStatus| {
                let line = status.nodes.iter().find(|line| line.node == id);
                line.is_some_and(|line| line.replicas > 0) && status.health == "healthy"
            };
            field
                .wait_until(
                    "the new node has replicas and the cluster is healthy",
                    SHARE_TIMEOUT,
                    has_share,
                )
                .await?;
            field.reached("replica-made");
            Ok(format!("{line} as a new node, {id}, with replicas"))
        }
        .boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_copied_with_all_that_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (from, into) = (folder.path().join("a"), folder.path().join("b"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::write(from.join("one"), b"1").unwrap();
        fs::write(from.join("deep/er/two"), b"2").unwrap();
        copy_all(&from, &into).unwrap();
        assert_eq!(fs::read(into.join("one")).unwrap(), b"1");
        assert_eq!(fs::read(into.join("deep/er/two")).unwrap(), b"2");
    }
}
