//! Blocks of a file that comes in parts: where they wait, which list makes a file of them, and the file.
//!
//! Blocks lie in the store, in a folder of their upload's own that no address leads to, so that any gateway which has the
//! store can go on. Once a list was made a file they go, and a mark stays: the same list again, from somebody who has not
//! heard the answer, is answered as before.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dunlin_model::port::BlobInfo;
use dunlin_model::upload::Upload;
use ring::digest::{Context, SHA256};

use super::Grant;
use super::receive::finish;
use crate::http::blob_fault::BlobFault;
use crate::limits::UPLOAD_BLOCKS_MAX;
use crate::shared::Shared;

/// Folder of all blocks. Its name is no container's.
pub(super) const FOLDER: &str = ".uploads";
/// Begins the name of a mark. No block's does.
const MARK: &str = "made-";
/// Bytes of a block's id (Azure: 64).
const BLOCK_ID_BYTES_MAX: usize = 64;
/// Files in the folder of an upload that are looked at: its blocks, and a mark.
const LISTED_MAX: usize = UPLOAD_BLOCKS_MAX + 16;

/// How much waits under an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Staged {
    count: usize,
    bytes: u64,
}

/// The id of a block, in the letters that its file has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockId(String);

impl BlockId {
    /// Reads an id as clients write it. `None` for what is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        let is_id = (1..=BLOCK_ID_BYTES_MAX).contains(&bytes.len());
        is_id.then(|| Self(hex(&bytes)))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn folder(upload: &Upload) -> String {
    format!("{FOLDER}/{}", upload.id)
}

/// Where a block waits.
pub(crate) fn path(upload: &Upload, id: &BlockId) -> String {
    format!("{}/{}", folder(upload), id.0)
}

/// Whether one more block may come. What went through other gateways since is not counted; it is bounded there.
pub(crate) async fn check_room(shared: &Shared, grant: &Grant) -> Result<(), BlobFault> {
    let bytes_max = shared.uploads.config.file_bytes_max;
    let has_room = |staged: Staged| staged.count < UPLOAD_BLOCKS_MAX && staged.bytes < bytes_max;
    let id = &grant.upload.id;
    if shared.uploads.staged(id).is_some_and(has_room) {
        return Ok(());
    }
    // Blocks that came twice are counted twice until somebody looks.
    let found = list(shared, &grant.upload).await?;
    let staged = Staged {
        count: found.len(),
        bytes: found.iter().map(|info| info.bytes).sum(),
    };
    shared.uploads.set_staged(id, Some(staged));
    if has_room(staged) {
        Ok(())
    } else if staged.bytes >= bytes_max {
        Err(BlobFault::too_large(bytes_max))
    } else {
        Err(BlobFault::too_many_blocks(UPLOAD_BLOCKS_MAX))
    }
}

/// A block has come.
pub(crate) fn handle_staged(shared: &Shared, grant: &Grant, bytes: u64) {
    let id = &grant.upload.id;
    if let Some(staged) = shared.uploads.staged(id) {
        let now = Staged {
            count: staged.count + 1,
            bytes: staged.bytes.saturating_add(bytes),
        };
        shared.uploads.set_staged(id, Some(now));
    }
}

async fn list(shared: &Shared, upload: &Upload) -> Result<Vec<BlobInfo>, BlobFault> {
    let blobs = &shared.hooks.blobs;
    Ok(blobs.list(folder(upload), None, LISTED_MAX).await?)
}

/// What waits under an upload, by name.
async fn sizes(shared: &Shared, upload: &Upload) -> Result<BTreeMap<String, u64>, BlobFault> {
    let found = list(shared, upload).await?;
    let name = |info: &BlobInfo| info.path.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(found.iter().map(|info| (name(info), info.bytes)).collect())
}

/// Whether this very list was made a file before, by somebody who has not heard of it: its blocks are gone, all of them.
pub(crate) async fn was_made(shared: &Shared, grant: &Grant, ids: &[BlockId]) -> Result<bool, BlobFault> {
    let found = sizes(shared, &grant.upload).await?;
    let is_there = |id: &BlockId| found.contains_key(&id.0);
    Ok(found.contains_key(&mark(ids)) && !ids.iter().any(is_there))
}

/// Makes the file at `path` of the blocks in `ids`.
pub(crate) async fn make(
    shared: &Shared,
    grant: &Grant,
    path: String,
    ids: &[BlockId],
) -> Result<(), BlobFault> {
    let found = sizes(shared, &grant.upload).await?;
    let mark = mark(ids);
    let sizes: Option<Vec<u64>> = ids.iter().map(|id| found.get(&id.0).copied()).collect();
    let absent = || BlobFault::invalid_block_list("it names a block that is not there");
    let sizes = sizes.ok_or_else(absent)?;
    let bytes = sizes.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    let bytes_max = shared.uploads.config.file_bytes_max;
    if bytes > bytes_max {
        return Err(BlobFault::too_large(bytes_max));
    }
    let blobs = &shared.hooks.blobs;
    let mut file = blobs.write(path).await?;
    let all = async {
        for id in ids {
            let block = blobs.read(self::path(&grant.upload, id)).await?;
            let Some((_, mut block)) = block else {
                return Err(BlobFault::invalid_block_list("a block is gone"));
            };
            while let Some(piece) = block.next().await? {
                file.append(piece).await?;
            }
        }
        Ok(bytes)
    };
    let came = all.await;
    finish(shared, grant, file, came).await?;
    // From here on it is a file. What goes wrong with the blocks is the sweep's.
    let marked = blobs.put(
        format!("{}/{mark}", folder(&grant.upload)),
        Bytes::from_static(b"1"),
    );
    match marked.await {
        Ok(()) => remove(shared, &grant.upload, found.keys().filter(|name| **name != mark)).await,
        Err(error) => tracing::debug!(error, "blocks of a file are left behind"),
    }
    shared.uploads.set_staged(&grant.upload.id, None);
    Ok(())
}

/// Removes everything that waits under an upload that is over. What is left behind is swept.
pub(crate) async fn clear(shared: &Shared, upload: &Upload) {
    shared.uploads.set_staged(&upload.id, None);
    match shared.hooks.blobs.list(folder(upload), None, LISTED_MAX).await {
        Err(error) => tracing::debug!(%error, "blocks of an upload are left behind"),
        Ok(found) => {
            let names = found.iter().filter_map(|info| info.path.rsplit('/').next());
            let names: HashSet<String> = names.map(ToOwned::to_owned).collect();
            remove(shared, upload, names.iter()).await;
        }
    }
}

async fn remove(shared: &Shared, upload: &Upload, names: impl Iterator<Item = &String>) {
    for name in names {
        let removed = shared.hooks.blobs.delete(format!("{}/{name}", folder(upload)));
        if let Err(error) = removed.await {
            tracing::debug!(%error, "a block is left behind");
        }
    }
}

/// The name of the mark that a list was made a file.
fn mark(ids: &[BlockId]) -> String {
    let mut digest = Context::new(&SHA256);
    for id in ids {
        digest.update(id.0.as_bytes());
        digest.update(b"/");
    }
    format!("{MARK}{}", hex(digest.finish().as_ref()))
}

/// Reads a list of blocks: `<BlockList><Latest>ID</Latest>..</BlockList>`, and nothing beside that XML could hold.
pub(crate) fn read_list(text: &[u8]) -> Result<Vec<BlockId>, BlobFault> {
    let no_list = || BlobFault::invalid_xml("the body is no list of blocks");
    let text = std::str::from_utf8(text).map_err(|_| no_list())?;
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    if let Some(declared) = rest.strip_prefix("<?xml ") {
        rest = declared.split_once("?>").ok_or_else(no_list)?.1.trim_start();
    }
    let after = rest.strip_prefix("<BlockList").ok_or_else(no_list)?;
    let (attributes, mut rest) = after.split_once('>').ok_or_else(no_list)?;
    if attributes.contains('<') || !(attributes.is_empty() || attributes.starts_with([' ', '/'])) {
        return Err(no_list());
    }
    let mut ids = Vec::new();
    if attributes.ends_with('/') {
        return match rest.trim().is_empty() {
            true => Ok(ids),
            false => Err(no_list()),
        };
    }
    loop {
        rest = rest.trim_start();
        if let Some(end) = rest.strip_prefix("</BlockList>") {
            return match end.trim().is_empty() {
                true => Ok(ids),
                false => Err(no_list()),
            };
        }
        let (name, after) = rest
            .strip_prefix('<')
            .and_then(|open| open.split_once('>'))
            .ok_or_else(no_list)?;
        let (id, after) = after.split_once("</").ok_or_else(no_list)?;
        rest = after
            .strip_prefix(name)
            .and_then(|closed| closed.strip_prefix('>'))
            .ok_or_else(no_list)?;
        match name {
            "Latest" | "Uncommitted" => {
                let id = BlockId::parse(id.trim());
                ids.push(id.ok_or_else(|| BlobFault::invalid_block_list("an id of a block is no Base64"))?);
            }
            // Of a file that is whole no blocks are kept.
            "Committed" => {
                return Err(BlobFault::invalid_block_list(
                    "no blocks of an earlier file are kept",
                ));
            }
            _ => return Err(no_list()),
        }
        if ids.len() > UPLOAD_BLOCKS_MAX {
            return Err(BlobFault::too_many_blocks(UPLOAD_BLOCKS_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> BlockId {
        BlockId::parse(text).expect("an id")
    }

    #[test]
    fn ids_are_base64_of_some_bytes() {
        assert_eq!(id("AAE="), BlockId("0001".to_owned()));
        for wrong in ["", "A", "AAE", "A A=", "../x", &STANDARD.encode([0; 65])] {
            assert_eq!(BlockId::parse(wrong), None, "{wrong}");
        }
        assert!(BlockId::parse(&STANDARD.encode([0xff; 64])).is_some());
    }

    #[test]
    fn lists_are_read_as_clients_write_them() {
        let two = vec![id("AAE="), id("AAI=")];
        for text in [
            "<BlockList><Latest>AAE=</Latest><Latest>AAI=</Latest></BlockList>",
            "<?xml version='1.0' encoding='utf-8'?>\n<BlockList><Latest>AAE=</Latest><Uncommitted>AAI=</Uncommitted></BlockList>\n",
            "\u{feff}<?xml version=\"1.0\"?> <BlockList xmlns=\"x\">\r\n <Latest> AAE= </Latest>\r\n <Latest>AAI=</Latest>\r\n</BlockList>",
        ] {
            assert_eq!(read_list(text.as_bytes()).ok(), Some(two.clone()), "{text}");
        }
        for text in [
            "<BlockList/>",
            "<BlockList />",
            "<BlockList></BlockList>",
            "<BlockList > </BlockList>",
        ] {
            assert_eq!(read_list(text.as_bytes()).ok(), Some(Vec::new()), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_none() {
        let code = |text: &[u8]| read_list(text).expect_err("no list").code();
        for text in [
            "",
            "{}",
            "<?xml version='1.0'",
            "<BlockList",
            "<BlockList>",
            "<BlockLists></BlockList>",
            "<BlockList><Latest>AAE=</BlockList>",
            "<BlockList><Latest>AAE=</Uncommitted></BlockList>",
            "<BlockList><Other>AAE=</Other></BlockList>",
            "<BlockList><!-- x --></BlockList>",
            "<BlockList></BlockList><BlockList></BlockList>",
            "<BlockList/>x",
            "<!DOCTYPE x [<!ENTITY a 'b'>]><BlockList></BlockList>",
        ] {
            assert_eq!(code(text.as_bytes()), "InvalidXmlDocument", "{text}");
        }
        assert_eq!(code(&[0xff, 0xfe]), "InvalidXmlDocument");
        for text in [
            "<BlockList><Latest>!</Latest></BlockList>",
            "<BlockList><Latest></Latest></BlockList>",
            "<BlockList><Committed>AAE=</Committed></BlockList>",
        ] {
            assert_eq!(code(text.as_bytes()), "InvalidBlockList", "{text}");
        }
        let many = format!(
            "<BlockList>{}</BlockList>",
            "<Latest>AAE=</Latest>".repeat(UPLOAD_BLOCKS_MAX + 1)
        );
        assert_eq!(code(many.as_bytes()), "BlockCountExceedsLimit");
    }

    #[test]
    fn a_mark_is_of_one_list() {
        let marks = [
            vec![],
            vec![id("AAE=")],
            vec![id("AAI="), id("AAE=")],
            vec![id("AAE="), id("AAI=")],
        ];
        let marks: HashSet<String> = marks.iter().map(|ids| mark(ids)).collect();
        assert_eq!(marks.len(), 4);
        assert!(marks.iter().all(|mark| mark.starts_with(MARK)));
    }
}
