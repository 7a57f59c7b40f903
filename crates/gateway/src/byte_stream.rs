//! What tasks of connections do with the bytes of their sockets: read more, write some, and leave so that the last words
//! arrive. What the bytes mean, and how long anything may take, is decided by who calls.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Reads into room for `room_bytes`, and says how many came; 0 at the end.
pub(crate) async fn read_more(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    room_bytes: usize,
) -> io::Result<usize> {
    buffer.reserve(room_bytes);
    reader.read_buf(buffer).await
}

/// Writes some of what there is, or has what is written leave; says whether all of it has left.
pub(crate) async fn write_some(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut impl Buf,
) -> io::Result<bool> {
    if !out.has_remaining() {
        writer.flush().await?;
        return Ok(true);
    }
    match writer.write_buf(out).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Ok(false),
    }
}

/// Writes the last words, and waits for the peer to have read them: what it still says would otherwise cut them off.
pub(crate) async fn finish(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut impl Buf,
) -> io::Result<()> {
    writer.write_all_buf(out).await?;
    writer.flush().await?;
    writer.shutdown().await?;
    let mut rest = [0; 1024];
    while reader.read(&mut rest).await? > 0 {}
    Ok(())
}
