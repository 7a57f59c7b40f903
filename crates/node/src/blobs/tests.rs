//! The store, tried on a folder and on one that takes files in parts; with the feature `cloud`, on a server that speaks
//! the protocol of S3.

use object_store::memory::InMemory;

use super::*;

fn folder() -> (tempfile::TempDir, Blobs) {
    let data = tempfile::tempdir().expect("a folder");
    let blobs = Blobs::open(None, data.path()).expect("a store");
    (data, blobs)
}

fn in_memory() -> Blobs {
    Blobs {
        store: Arc::new(InMemory::new()),
        folder: None,
    }
}

async fn write(blobs: &Blobs, path: &str, pieces: &[Bytes]) -> Result<(), BlobError> {
    let mut file = blobs.write(path.to_owned()).await?;
    for piece in pieces {
        file.append(piece.clone()).await?;
    }
    file.finish().await
}

async fn read(blobs: &Blobs, path: &str) -> Option<Vec<u8>> {
    let (info, mut file) = blobs.read(path.to_owned()).await.expect("it can be read")?;
    let mut all = Vec::new();
    while let Some(bytes) = file.next().await.expect("it can be read") {
        all.extend_from_slice(&bytes);
    }
    assert_eq!(info.bytes, all.len() as u64);
    Some(all)
}

/// What every store does. More than a part, in pieces of an odd size.
async fn keeps_files(blobs: &Blobs) {
    let path = "uploads/dev/a folder/ä.bin";
    assert_eq!(read(blobs, path).await, None);
    assert_eq!(blobs.info(path.to_owned()).await, Ok(None));
    let large: Vec<u8> = (0..18_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let pieces: Vec<Bytes> = large.chunks(777_777).map(Bytes::copy_from_slice).collect();
    write(blobs, path, &pieces).await.expect("it is written");
    assert!(read(blobs, path).await.expect("it is there") == large);
    let info = blobs
        .info(path.to_owned())
        .await
        .expect("it answers")
        .expect("it is there");
    assert_eq!((info.path.as_str(), info.bytes), (path, 18_000_000));
    assert!(info.tag.is_some() && info.modified_ms > 1_600_000_000_000);
    // Again, smaller; and one that comes to no end leaves it as it is.
    write(blobs, path, &[Bytes::from_static(b"small")])
        .await
        .expect("it is written");
    let mut cut = blobs.write(path.to_owned()).await.expect("it is begun");
    cut.append(pieces[0].clone()).await.expect("it is taken");
    cut.abandon().await;
    assert_eq!(read(blobs, path).await.as_deref(), Some(&b"small"[..]));
    // Nothing at all is a file as well.
    write(blobs, "uploads/dev/empty", &[])
        .await
        .expect("it is written");
    assert_eq!(read(blobs, "uploads/dev/empty").await, Some(Vec::new()));
    let listed = |before_ms, count_max| blobs.list("uploads/dev".to_owned(), before_ms, count_max);
    let mut paths: Vec<String> = listed(None, 10)
        .await
        .expect("it is listed")
        .into_iter()
        .map(|info| info.path)
        .collect();
    paths.sort();
    assert_eq!(paths, [path, "uploads/dev/empty"]);
    assert_eq!(listed(None, 1).await.expect("it is listed").len(), 1);
    assert_eq!(listed(Some(1_600_000_000_000), 10).await, Ok(Vec::new()));
    assert_eq!(blobs.list("nowhere".to_owned(), None, 10).await, Ok(Vec::new()));
    for _ in 0..2 {
        assert_eq!(blobs.delete(path.to_owned()).await, Ok(()));
        assert_eq!(read(blobs, path).await, None);
    }
    assert!(
        blobs.write("../x".to_owned()).await.is_err(),
        "a path stays below the store"
    );
}

#[tokio::test]
async fn a_folder_keeps_files() {
    let (data, blobs) = folder();
    keeps_files(&blobs).await;
    let writing = data.path().join("objects").join(folder::WRITING);
    let left = fs::read_dir(&writing).expect("a folder").count();
    assert_eq!(left, 0, "what came to no end is gone");
}

#[tokio::test]
async fn a_store_that_takes_parts_keeps_files() {
    keeps_files(&in_memory()).await;
}

#[tokio::test]
async fn files_are_written_whole_and_again() {
    let (data, blobs) = folder();
    let path = "cold/00003/2030/a.jsonl";
    for content in ["one", "two"] {
        let put = blobs
            .put(path.to_owned(), Bytes::from_static(content.as_bytes()))
            .await;
        assert_eq!(put, Ok(()));
        let read = fs::read_to_string(data.path().join("objects").join(path)).expect("the file");
        assert_eq!(read, content);
    }
    let outside = blobs.put("../x".to_owned(), Bytes::new()).await;
    assert!(outside.is_err(), "a path stays below the store");
}

#[tokio::test]
async fn a_file_that_stands_in_the_way_of_another_is_told_from_a_failure() {
    let (_data, blobs) = folder();
    write(&blobs, "c/a", &[]).await.expect("it is written");
    assert_eq!(write(&blobs, "c/a/b", &[]).await, Err(BlobError::InTheWay));
    assert_eq!(read(&blobs, "c/a/b").await, None);
    write(&blobs, "c/d/e", &[]).await.expect("it is written");
    assert_eq!(write(&blobs, "c/d", &[]).await, Err(BlobError::InTheWay));
    assert_eq!(read(&blobs, "c/d").await, None, "a folder is no file");
}

#[tokio::test]
async fn folders_go_with_their_last_file_and_come_again() {
    let (data, blobs) = folder();
    write(&blobs, ".uploads/id/00", &[]).await.expect("it is written");
    blobs
        .delete(".uploads/id/00".to_owned())
        .await
        .expect("it is deleted");
    assert!(!data.path().join("objects/.uploads").exists());
    write(&blobs, ".uploads/id/00", &[]).await.expect("it is written");
}

#[tokio::test]
async fn what_a_node_left_behind_that_was_killed_is_swept() {
    let (data, blobs) = folder();
    let mut file = blobs.write("c/a".to_owned()).await.expect("it is begun");
    file.append(Bytes::from_static(b"x")).await.expect("it is taken");
    std::mem::forget(file);
    let left = || {
        let writing = data.path().join("objects").join(folder::WRITING);
        fs::read_dir(writing).expect("a folder").count()
    };
    blobs.sweep(1_600_000_000_000).await.expect("it sweeps");
    assert_eq!(left(), 1, "it is young");
    blobs.sweep(u64::MAX).await.expect("it sweeps");
    assert_eq!(left(), 0);
}

#[tokio::test]
async fn a_folder_leaves_the_disk_its_reserve_and_nothing_of_what_it_refuses() {
    let (data, mut blobs) = folder();
    let set_reserve = |blobs: &mut Blobs, bytes| {
        let folder = blobs.folder.as_mut().expect("it is a folder");
        folder.reserve_bytes = bytes;
    };
    let free_bytes = || {
        let found = rustix::fs::statvfs(data.path()).expect("a file system");
        found.f_bavail * found.f_frsize
    };
    set_reserve(&mut blobs, u64::MAX);
    let begun = blobs.write("c/a".to_owned()).await.map(|_| ());
    assert_eq!(begun, Err(BlobError::Full), "nothing is begun");
    let put = blobs.put("c/a".to_owned(), Bytes::from_static(b"x")).await;
    assert!(put.is_err_and(|why| why.contains("no room")));
    // There is room when it begins, and none later: others write as well, so the reserve moves in place of the disk.
    set_reserve(&mut blobs, 0);
    let folder = blobs.folder.as_ref().expect("it is a folder");
    let mut file = FolderWrite::begin(folder.path.clone(), folder.path.join("c/a"), 0)
        .await
        .expect("there is room");
    file.set_reserve(free_bytes().saturating_mul(2));
    let piece = Bytes::from(vec![0; 1024 * 1024]);
    let mut taken = Ok(());
    for _ in 0..8 {
        taken = file.append(piece.clone()).await;
        if taken.is_err() {
            break;
        }
    }
    assert_eq!(taken, Err(BlobError::Full), "it is seen within a few MiB");
    Box::new(file).abandon().await;
    let writing = data.path().join("objects").join(folder::WRITING);
    assert_eq!(fs::read_dir(&writing).expect("a folder").count(), 0);
    assert_eq!(read(&blobs, "c/a").await, None);
    write(&blobs, "c/a", &[piece]).await.expect("there is room again");
}

#[test]
fn addresses_are_of_folders_and_of_clouds_where_they_may_be() {
    assert_eq!(problem("file:///var/lib/dunlin"), None);
    for url in ["file://relative", "s3://", "az:///x", "ftp://x", "/var/lib", ""] {
        assert!(problem(url).is_some(), "{url}");
    }
    for url in ["s3://bucket", "az://container/some/prefix", "gs://bucket/prefix"] {
        match cfg!(feature = "cloud") {
            true => assert_eq!(problem(url), None),
            false => assert!(
                problem(url).expect("a problem").contains("--features cloud"),
                "{url}"
            ),
        }
    }
}

#[cfg(feature = "cloud")]
mod s3 {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// Kills it when the test is over.
    struct Moto(Child, u16);

    impl Drop for Moto {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A server of S3 that others wrote.
    fn moto() -> Moto {
        let python = std::env::var("DUNLIN_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("a port")
            .port();
        let mut child = Command::new(&python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{python} cannot be started: {error}"));
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if child.try_wait().expect("it is ours").is_some() || begun.elapsed() > Duration::from_secs(60) {
                let _ = child.kill();
                let mut said = String::new();
                if let Some(mut errors) = child.stderr.take() {
                    let _ = errors.read_to_string(&mut said);
                }
                panic!("moto does not run ({said}). Install it: {python} -m pip install 'moto[server]'");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Moto(child, port)
    }

    /// The bucket is made by hand: the client makes none.
    fn make_bucket(port: u16, bucket: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        let request = format!(
            "PUT /{bucket} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("it answers");
        assert!(line.contains(" 200 "), "{line}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_of_s3_keeps_files() {
        let moto = moto();
        make_bucket(moto.1, "hub");
        let endpoint = format!("http://127.0.0.1:{}", moto.1);
        let said = [
            ("aws_endpoint", endpoint.as_str()),
            ("aws_allow_http", "true"),
            ("aws_region", "us-east-1"),
            ("aws_access_key_id", "test"),
            ("aws_secret_access_key", "test"),
        ];
        let blobs = Blobs::open_cloud("s3://hub/some/prefix", &said).expect("a store");
        keeps_files(&blobs).await;
        let put = blobs
            .put("cold/a.jsonl".to_owned(), Bytes::from_static(b"events"))
            .await;
        assert_eq!(put, Ok(()));
        // It lies below the prefix.
        let whole = Blobs::open_cloud("s3://hub", &said).expect("a store");
        let found = read(&whole, "some/prefix/cold/a.jsonl").await;
        assert_eq!(found.as_deref(), Some(&b"events"[..]));
        let nowhere = Blobs::open_cloud("s3://nowhere", &said).expect("a store");
        assert!(matches!(
            write(&nowhere, "a", &[]).await,
            Err(BlobError::Failed(_))
        ));
    }
}
