//! One question to another node and its answer, on a QUIC stream of its own: [`KIND`] and the question; back comes the answer
//! and the stream's end. Both are held against bounds before they are read.

use super::{Ask, MAX_HEARD, Said, Vitals};
use crate::ids::NodeId;
use crate::shell::net::Net;
use crate::wire::codec;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

/// The first byte of such a stream; other streams between nodes begin with others.
pub const KIND: u8 = 4;
const MAX_ASK_BYTES: usize = 16;
/// An id, three times and a little more for each.
const MAX_ANSWER_BYTES: usize = 1024 + MAX_HEARD * 64;
/// The question must arrive within this.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn ask(net: &Net, node: NodeId, addr: SocketAddr, ask: Ask) -> io::Result<Said> {
    let (mut send, mut recv) = net.open_tunnel(node, addr).await.map_err(io::Error::other)?;
    send.write_u8(KIND).await?;
    send.write_all(&codec::encode(&ask)).await?;
    send.finish()?;
    let answer = recv.read_to_end(MAX_ANSWER_BYTES).await.map_err(io::Error::other)?;
    if answer.is_empty() {
        return Err(io::Error::other("it has no answer to that: an older agent, or one that is too busy"));
    }
    codec::decode(&answer, MAX_ANSWER_BYTES).map_err(io::Error::other)
}

pub(super) async fn serve(vitals: &Vitals, mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
    let Ok(Ok(bytes)) = timeout(ASK_TIMEOUT, recv.read_to_end(MAX_ASK_BYTES)).await else { return };
    let Ok(ask) = codec::decode::<Ask>(&bytes, MAX_ASK_BYTES) else { return };
    let Ok(said) = vitals.here(ask).await else { return };
    // Whoever asked may have gone.
    if send.write_all(&codec::encode(&said)).await.is_ok() {
        let _ = send.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::vitals::Heard;

    #[test]
    fn the_longest_answer_is_within_the_bound_and_no_question_is_longer_than_its_own() {
        let long = Some(Duration::new(u64::MAX, 999_999_999));
        let heard =
            Heard { node: NodeId::from_u128(u128::MAX), heard: long, silent: true, verdict: long, round_trip: long };
        let bytes = codec::encode(&Said::Network(vec![heard; MAX_HEARD]));
        assert!(bytes.len() <= MAX_ANSWER_BYTES, "{}", bytes.len());
        for ask in [Ask::Usage, Ask::Network] {
            assert!(codec::encode(&ask).len() <= MAX_ASK_BYTES);
        }
    }
}
