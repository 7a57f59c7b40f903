//! Blocks of a file that comes in parts: where they wait, which list makes a file of them, and the file.
//!
//! Blocks lie in the store, in a folder of their upload's own that no address leads to, so that any gateway which has the
//! store can go on. Beside them lie marks. One says that a list is about to be a file: the same list again is not told that
//! the file is there. Another says that a file has come, whole or of which list: the same list again, from somebody who has
//! not heard the answer, is answered as before, and the end of the upload is believed. Once it lies there the blocks go.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dunlin_model::port::{BlobError, BlobInfo, BlobStore, BlobWrite};
use dunlin_model::upload::Upload;
use ring::digest::{Context, SHA256};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout_at};

use super::Grant;
use super::receive::finish;
use super::room::{NoRoom, Reserved, Sum};
use crate::http::blob_fault::BlobFault;
use crate::limits::UPLOAD_BLOCKS_MAX;
use crate::shared::Shared;

/// Folder of all blocks. Its name is no container's.
pub(super) const FOLDER: &str = ".uploads";
/// Begins the name of a mark that a file has come. No block's does: those are of hexadecimal digits.
const MADE: &str = "made-";
/// Begins the name of a mark that a list is about to be a file.
const MEANT: &str = "meant-";
/// Ends the mark of a file that came whole.
const WHOLE: &str = "whole";
/// Bytes of a block's id (Azure: 64).
const BLOCK_ID_BYTES_MAX: usize = 64;
/// Files in the folder of an upload that are looked at: its blocks, and marks.
const LISTED_MAX: usize = UPLOAD_BLOCKS_MAX + 16;

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
    folder_of(&upload.id)
}

/// Where everything waits that belongs to the upload of this id.
pub(crate) fn folder_of(id: &str) -> String {
    format!("{FOLDER}/{id}")
}

/// Where a block waits.
pub(crate) fn path(upload: &Upload, id: &BlockId) -> String {
    format!("{}/{}", folder(upload), id.0)
}

/// What lies in the folder of an upload, by name.
type Found = BTreeMap<String, BlobInfo>;

/// Takes the place of one more block of `bytes` at the most.
pub(crate) async fn reserve<'a>(
    shared: &'a Shared,
    grant: &Grant,
    bytes: u64,
) -> Result<Reserved<'a>, BlobFault> {
    let (id, room) = (&grant.upload.id, &shared.uploads.room);
    let bytes_max = shared.uploads.config.file_bytes_max;
    if let Ok(reserved) = room.try_reserve(id, bytes, bytes_max) {
        return Ok(reserved);
    }
    // Blocks that came twice are counted twice until somebody looks.
    let before = room.came(id);
    let found = look(shared, &grant.upload).await?;
    let blocks = || found.iter().filter(|(name, _)| !is_mark(name));
    let sum = Sum {
        count: blocks().count(),
        bytes: blocks().map(|(_, info)| info.bytes).sum(),
    };
    room.set_found(id, before, sum);
    room.try_reserve(id, bytes, bytes_max).map_err(|why| match why {
        NoRoom::Unknown | NoRoom::Coming => BlobFault::busy(),
        NoRoom::TooLarge => BlobFault::too_large(bytes_max),
        NoRoom::TooMany => BlobFault::too_many_blocks(UPLOAD_BLOCKS_MAX),
    })
}

async fn look(shared: &Shared, upload: &Upload) -> Result<Found, BlobError> {
    let listed = shared.hooks.blobs.list(folder(upload), None, LISTED_MAX).await?;
    let name = |info: &BlobInfo| info.path.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(listed.into_iter().map(|info| (name(&info), info)).collect())
}

fn is_mark(name: &str) -> bool {
    name.starts_with(MADE) || name.starts_with(MEANT)
}

/// Whether a file has come under an upload.
pub(crate) async fn has_come(shared: &Shared, upload: &Upload) -> Result<bool, BlobError> {
    let found = look(shared, upload).await?;
    Ok(found.keys().any(|name| name.starts_with(MADE)))
}

/// A file has come whole.
pub(crate) async fn mark_whole(shared: &Shared, grant: &Grant) -> Result<(), BlobFault> {
    put_mark(shared, &grant.upload, &format!("{MADE}{WHOLE}")).await
}

async fn put_mark(shared: &Shared, upload: &Upload, name: &str) -> Result<(), BlobFault> {
    let path = format!("{}/{name}", folder(upload));
    let put = shared.hooks.blobs.put(path, Bytes::from_static(b"1")).await;
    put.map_err(|error| BlobError::Failed(error).into())
}

/// What became of a list before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// It is new, or names blocks that came since.
    Nothing,
    /// It was to be a file, and may be one; or it is one, and its blocks are all there still. To make it again does no harm.
    Meant,
    /// It is a file.
    Made,
}

/// What `found` says of a list. Blocks that came after a mark are not those that it speaks of; of the same millisecond, they
/// may be.
fn before(found: &Found, ids: &[BlockId]) -> Before {
    let digest = digest(ids);
    let mark = |kind: &str| found.get(&format!("{kind}{digest}"));
    let blocks = || ids.iter().filter_map(|id| found.get(&id.0));
    let is_whole = blocks().count() == ids.len();
    let speaks_of_them = |mark: &BlobInfo| blocks().all(|block| block.modified_ms <= mark.modified_ms);
    match (mark(MADE), mark(MEANT)) {
        (Some(made), _) if speaks_of_them(made) => match is_whole {
            true => Before::Meant,
            false => Before::Made,
        },
        (_, Some(meant)) if speaks_of_them(meant) && is_whole => Before::Meant,
        _ => Before::Nothing,
    }
}

/// Makes the file at `path` of the blocks in `ids`, unless it was made before by somebody who has not heard of it.
/// `check` says whether a list that is new may become a file.
pub(crate) async fn make(
    shared: &Arc<Shared>,
    grant: &Grant,
    path: String,
    ids: &[BlockId],
    until: Instant,
    check: impl AsyncFnOnce() -> Result<(), BlobFault>,
) -> Result<(), BlobFault> {
    let upload = &grant.upload;
    // Somebody may still be removing its blocks.
    if before(&look(shared, upload).await?, ids) == Before::Made {
        return Ok(());
    }
    let turn = timeout_at(until, shared.uploads.turn(&upload.id)).await;
    let turn = turn.map_err(|_| BlobFault::late())?;
    let found = look(shared, upload).await?;
    match before(&found, ids) {
        Before::Made => return Ok(()),
        Before::Meant => {}
        Before::Nothing => check().await?,
    }
    let listed = ids
        .iter()
        .map(|id| Some((self::path(upload, id), found.get(&id.0)?.bytes)));
    let listed: Option<Vec<(String, u64)>> = listed.collect();
    let absent = || BlobFault::invalid_block_list("it names a block that is not there");
    let listed = listed.ok_or_else(absent)?;
    let bytes = listed
        .iter()
        .fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
    let bytes_max = shared.uploads.config.file_bytes_max;
    if bytes > bytes_max {
        return Err(BlobFault::too_large(bytes_max));
    }
    let digest = digest(ids);
    put_mark(shared, upload, &format!("{MEANT}{digest}")).await?;
    let blobs = &shared.hooks.blobs;
    let mut file = blobs.write(path).await?;
    let copied = timeout_at(until, copy(&**blobs, &mut *file, &listed, bytes_max)).await;
    let copied = copied.unwrap_or_else(|_| Err(BlobFault::late()));
    if let Err(fault) = finish(shared, grant, file, copied, until).await {
        // Another gateway may have made it meanwhile, and removed blocks.
        return match before(&look(shared, upload).await?, ids) {
            Before::Made => Ok(()),
            _ => Err(fault),
        };
    }
    let made = format!("{MADE}{digest}");
    put_mark(shared, upload, &made).await?;
    // From here on it is a file. What goes wrong with the blocks is the sweep's, and nobody waits for it.
    let gone = found.into_iter().filter(|(name, _)| *name != made);
    let mut gone: Vec<BlobInfo> = gone.map(|(_, info)| info).collect();
    gone.extend(
        blobs
            .info(format!("{}/{MEANT}{digest}", folder(upload)))
            .await
            .ok()
            .flatten(),
    );
    shared.uploads.room.forget(&upload.id);
    let Some(permit) = shared.uploads.enter_clearing() else {
        return Ok(());
    };
    let (shared, upload) = (Arc::clone(shared), upload.clone());
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        let _permit = permit;
        remove(&shared, gone, turn).await;
        shared.uploads.room.forget(&upload.id);
    });
    Ok(())
}

/// Copies blocks, by path and size, one after another into a file: no more than `bytes_max`, and nothing that was put in
/// the place of one since it was listed.
async fn copy(
    blobs: &dyn BlobStore,
    file: &mut dyn BlobWrite,
    listed: &[(String, u64)],
    bytes_max: u64,
) -> Result<u64, BlobFault> {
    let replaced = || BlobFault::invalid_block_list("a block was replaced meanwhile");
    let mut left = bytes_max;
    for (path, bytes) in listed {
        let Some((info, mut block)) = blobs.read(path.clone()).await? else {
            return Err(BlobFault::invalid_block_list("a block is gone"));
        };
        if info.bytes != *bytes {
            return Err(replaced());
        }
        let mut block_left = *bytes;
        while let Some(piece) = block.next().await? {
            let piece_bytes = piece.len() as u64;
            block_left = block_left.checked_sub(piece_bytes).ok_or_else(replaced)?;
            let rest = left.checked_sub(piece_bytes);
            left = rest.ok_or_else(|| BlobFault::too_large(bytes_max))?;
            file.append(piece).await?;
        }
        if block_left > 0 {
            return Err(replaced());
        }
    }
    Ok(bytes_max - left)
}

/// Waits until blocks that became a file are gone, so that one that comes under the same name does not go with them.
pub(crate) async fn wait_for_room(shared: &Shared, grant: &Grant, until: Instant) -> Result<(), BlobFault> {
    let turn = timeout_at(until, shared.uploads.turn(&grant.upload.id)).await;
    turn.map(drop).map_err(|_| BlobFault::late())
}

/// Removes everything that waits under an upload that is over, while nobody waits for it. What is left behind is swept.
pub(crate) fn clear(shared: &Arc<Shared>, upload: &Upload) {
    shared.uploads.room.forget(&upload.id);
    let Some(permit) = shared.uploads.enter_clearing() else {
        return;
    };
    let (shared, upload) = (Arc::clone(shared), upload.clone());
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        let _permit = permit;
        let turn = shared.uploads.turn(&upload.id).await;
        match look(&shared, &upload).await {
            Err(error) => tracing::debug!(%error, "blocks of an upload are left behind"),
            Ok(found) => remove(&shared, found.into_values().collect(), turn).await,
        }
        shared.uploads.room.forget(&upload.id);
    });
}

/// Removes files as they were found. One that came since stays.
async fn remove(shared: &Shared, found: Vec<BlobInfo>, _turn: OwnedMutexGuard<()>) {
    let blobs = &shared.hooks.blobs;
    // Some stores tell milliseconds in lists and not of one file.
    let state = |info: &BlobInfo| (info.bytes, info.modified_ms / 1000);
    for info in found {
        let removed = async {
            let now = blobs.info(info.path.clone()).await?;
            match now.is_some_and(|now| state(&now) == state(&info)) {
                true => blobs.delete(info.path).await,
                false => Ok(()),
            }
        };
        if let Err(error) = removed.await {
            tracing::debug!(%error, "a block is left behind");
        }
    }
}

/// What a mark calls a list.
fn digest(ids: &[BlockId]) -> String {
    let mut digest = Context::new(&SHA256);
    for id in ids {
        digest.update(id.0.as_bytes());
        digest.update(b"/");
    }
    hex(digest.finish().as_ref())
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
    use std::collections::HashSet;

    use super::super::memory::MemoryBlobs;
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
        let lists = [
            vec![],
            vec![id("AAE=")],
            vec![id("AAI="), id("AAE=")],
            vec![id("AAE="), id("AAI=")],
        ];
        let digests: HashSet<String> = lists.iter().map(|ids| digest(ids)).collect();
        assert_eq!(digests.len(), 4);
    }

    #[test]
    fn a_list_that_was_made_is_known_whichever_of_its_blocks_are_there() {
        let ids = [id("AAE="), id("AAI=")];
        let digest = digest(&ids);
        let found = |files: &[(&str, u64)]| {
            let files = files.iter().map(|(name, modified_ms)| {
                let info = BlobInfo {
                    path: format!("{FOLDER}/u/{name}"),
                    bytes: 1,
                    modified_ms: *modified_ms,
                    tag: None,
                };
                ((*name).to_owned(), info)
            });
            files.collect::<Found>()
        };
        let (made, meant) = (format!("{MADE}{digest}"), format!("{MEANT}{digest}"));
        let (made, meant) = (made.as_str(), meant.as_str());
        for (files, expected) in [
            (&[][..], Before::Nothing),
            (&[("0001", 1), ("0002", 1)], Before::Nothing),
            (&[("0001", 1), ("0002", 1), (meant, 2)], Before::Meant),
            (&[("0001", 1), (meant, 2)], Before::Nothing),
            (&[("0001", 3), ("0002", 1), (meant, 2)], Before::Nothing),
            (&[("0001", 1), ("0002", 1), (meant, 2), (made, 3)], Before::Meant),
            (&[("0002", 1), (meant, 2), (made, 3)], Before::Made),
            (&[("0002", 3), (made, 3)], Before::Made),
            (&[(made, 3)], Before::Made),
            (&[("0002", 4), (made, 3)], Before::Nothing),
            (&[("0001", 4), ("0002", 4), (made, 3)], Before::Nothing),
            (&[("made-other", 3), ("made-whole", 3)], Before::Nothing),
        ] {
            assert_eq!(before(&found(files), &ids), expected, "{files:?}");
        }
    }

    #[tokio::test]
    async fn a_block_that_was_replaced_since_it_was_listed_ends_the_copy() {
        let blobs = MemoryBlobs::default();
        let put = |bytes: usize| blobs.put("b".to_owned(), Bytes::from(vec![0; bytes]));
        let copied = async |listed: &[(String, u64)], bytes_max: u64| {
            let mut file = blobs.write("file".to_owned()).await.expect("it is begun");
            copy(&blobs, &mut *file, listed, bytes_max).await
        };
        // A list may name a block as often as it names blocks.
        let listed = vec![("b".to_owned(), 1); UPLOAD_BLOCKS_MAX];
        put(1).await.expect("it is put");
        assert_eq!(copied(&listed, 10_000).await, Ok(10_000));
        assert_eq!(copied(&listed, 9_999).await, Err(BlobFault::too_large(9_999)));
        for bytes in [1_000_000, 0] {
            put(bytes).await.expect("it is put");
            let fault = copied(&listed, 10_000).await.expect_err("it is another block");
            assert_eq!(fault.code(), "InvalidBlockList");
        }
    }
}
