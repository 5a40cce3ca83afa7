//! QUIC's knobs. Strangers get next to nothing until they are known; members get room to work.

use super::Timing;
use crate::shell::identity::Identity;
use quinn::{Connection, ConnectionIdGenerator, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use ring::rand::{SecureRandom, SystemRandom};
use std::sync::Arc;
use std::time::Duration;

/// Messages a member may send at once; more wait at the sender.
const MEMBER_UNI_STREAMS: VarInt = VarInt::from_u32(256);
/// Tunnels of the mesh, one per connection of a client.
const MEMBER_BI_STREAMS: VarInt = VarInt::from_u32(8_192);
const STREAM_WINDOW: VarInt = VarInt::from_u32(1024 * 1024);
const STRANGER_UNI_STREAMS: VarInt = VarInt::from_u32(1);
const STRANGER_BI_STREAMS: VarInt = VarInt::from_u32(1);
/// All that a stranger can make us hold.
const STRANGER_WINDOW: VarInt = VarInt::from_u32(64 * 1024);
const DATAGRAM_BUFFER: usize = 512 * 1024;
/// The first guess, which paces the first retransmissions; QUIC's own third of a second is slow for a LAN.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// For connections that we open: the other side has proven itself before it can send.
pub fn member(timing: &Timing) -> TransportConfig {
    let mut config = base(timing);
    config.max_concurrent_uni_streams(MEMBER_UNI_STREAMS).max_concurrent_bidi_streams(MEMBER_BI_STREAMS);
    config
}

/// For connections that come in, until [`trust`].
pub fn stranger(timing: &Timing) -> TransportConfig {
    let mut config = base(timing);
    config
        .max_concurrent_uni_streams(STRANGER_UNI_STREAMS)
        .max_concurrent_bidi_streams(STRANGER_BI_STREAMS)
        .receive_window(STRANGER_WINDOW);
    config
}

/// For a connection on which we only ask: the other side opens nothing.
pub fn joiner(timing: &Timing) -> TransportConfig {
    let mut config = base(timing);
    config.max_concurrent_uni_streams(VarInt::from_u32(0)).max_concurrent_bidi_streams(VarInt::from_u32(0));
    config
}

/// The caller has shown a member's certificate.
pub fn trust(conn: &Connection) {
    conn.set_max_concurrent_uni_streams(MEMBER_UNI_STREAMS);
    conn.set_max_concurrent_bi_streams(MEMBER_BI_STREAMS);
    // Bounded per stream only: tunnels that nobody empties must not hold up messages.
    conn.set_receive_window(VarInt::MAX);
}

fn base(timing: &Timing) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .keep_alive_interval(Some(timing.keep_alive))
        // Out of range only for idle times of ages, which mean the same as none.
        .max_idle_timeout(IdleTimeout::try_from(timing.idle).ok())
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(STREAM_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    config
}

/// The key of stateless resets comes from the node's own key: after a restart the agent can still tell the others
/// that their connections to its former life are gone, and they need not wait for them to time out.
pub fn endpoint(identity: &Identity) -> EndpointConfig {
    let context = ring::digest::Context::new(&ring::digest::SHA256);
    let secret = [b"peer stateless reset\n".as_slice(), identity.pem().key.as_bytes()].into_iter().fold(
        context,
        |mut context, part| {
            context.update(part);
            context
        },
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.finish().as_ref());
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(|| Box::new(RandomIds));
    config
}

/// Unlike quinn's default these carry no mark of one process: that would keep a restarted agent silent about
/// connections it does not know.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        let mut bytes = [0; 8];
        // Ids need not be secret. Without randomness no handshake succeeds anyway.
        let _ = SystemRandom::new().fill(&mut bytes);
        quinn::ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
