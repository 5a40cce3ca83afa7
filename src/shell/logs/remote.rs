//! Logs from another node: one QUIC stream a question. It opens with [`KIND`], a length and the question; what comes
//! back are lines, each with a length before it, closed by an empty one. Lengths are held against bounds before
//! anything is read.

use super::{LogAsk, LogItem, Logs, MAX_LINE_BYTES, MAX_TASKS};
use crate::ids::NodeId;
use crate::shell::net::Net;
use crate::wire::codec;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// The first byte of such a stream; a tunnel of the mesh begins with another.
pub const KIND: u8 = 2;
const MAX_ASK_BYTES: usize = 1024 + MAX_TASKS * 16;
const MAX_ITEM_BYTES: usize = MAX_LINE_BYTES + 1024;
/// The question must arrive within this.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn ask(net: &Net, node: NodeId, addr: SocketAddr, ask: LogAsk, out: mpsc::Sender<LogItem>) {
    let Some(task) = ask.tasks.first().copied() else { return };
    let why = tokio::select! {
        () = out.closed() => return,
        result = exchange(net, node, addr, &ask, &out) => match result {
            Ok(()) => return,
            Err(error) => error.to_string(),
        },
    };
    // Whoever asked may have gone.
    let _ = out.send(LogItem::Trouble { task, why }).await;
}

async fn exchange(
    net: &Net,
    node: NodeId,
    addr: SocketAddr,
    ask: &LogAsk,
    out: &mpsc::Sender<LogItem>,
) -> io::Result<()> {
    let (mut send, mut recv) = net.open_tunnel(node, addr).await.map_err(io::Error::other)?;
    send.write_u8(KIND).await?;
    write(&mut send, &codec::encode(ask)).await?;
    loop {
        let bytes = match read(&mut recv, MAX_ITEM_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(io::Error::other(format!("the connection to it broke: {error}"))),
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let item = codec::decode(&bytes, MAX_ITEM_BYTES).map_err(io::Error::other)?;
        if out.send(item).await.is_err() {
            return Ok(());
        }
    }
}

pub(super) async fn serve(logs: &Logs, mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
    let Ok(Ok(bytes)) = timeout(ASK_TIMEOUT, read(&mut recv, MAX_ASK_BYTES)).await else { return };
    let Ok(ask) = codec::decode::<LogAsk>(&bytes, MAX_ASK_BYTES) else { return };
    if ask.tasks.is_empty() || ask.tasks.len() > MAX_TASKS {
        return;
    }
    let mut stream = logs.here(ask);
    // Ends when the asker has let go of the stream, and else never while we have not finished it.
    let let_go = send.stopped();
    tokio::pin!(let_go);
    loop {
        let item = tokio::select! {
            _ = &mut let_go => return,
            item = stream.recv() => item,
        };
        let bytes = item.map_or_else(Vec::new, |item| codec::encode(&clipped(item)));
        if write(&mut send, &bytes).await.is_err() || bytes.is_empty() {
            break;
        }
    }
    // Fails only if it was reset, and then nobody reads it.
    let _ = send.finish();
}

fn clipped(mut item: LogItem) -> LogItem {
    match &mut item {
        LogItem::Line(line) => line.text.truncate(MAX_LINE_BYTES),
        LogItem::Trouble { why, .. } => *why = why.chars().take(200).collect(),
    }
    item
}

async fn write(send: &mut quinn::SendStream, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    AsyncWriteExt::write_all(send, &length.to_be_bytes()).await?;
    AsyncWriteExt::write_all(send, bytes).await
}

async fn read(recv: &mut quinn::RecvStream, max: usize) -> io::Result<Vec<u8>> {
    let length = recv.read_u32().await? as usize;
    if length > max {
        return Err(io::Error::other(format!("{length} bytes, more than the {max} allowed")));
    }
    let mut bytes = vec![0; length];
    AsyncReadExt::read_exact(recv, &mut bytes).await?;
    Ok(bytes)
}
