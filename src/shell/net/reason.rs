//! Why a connection ended or never came to be: the codes we close with, and what people are told.

use super::tls::{WRONG_CA, WRONG_NODE};
use quinn::{Connection, ConnectionError, TransportErrorCode, VarInt};

/// The agent stops.
pub const STOPPING: VarInt = VarInt::from_u32(1);
/// The member protocol was asked for without a certificate.
pub const NO_CERTIFICATE: VarInt = VarInt::from_u32(2);
/// The other side was removed from the cluster.
pub const BANNED: VarInt = VarInt::from_u32(3);
/// Another connection between the two serves both.
pub const SETTLED: VarInt = VarInt::from_u32(4);
/// The other side was restarted and has a new connection.
pub const SUPERSEDED: VarInt = VarInt::from_u32(5);
/// The other side did not keep to the protocol.
pub const PROTOCOL: VarInt = VarInt::from_u32(6);
pub const BUSY: VarInt = VarInt::from_u32(7);
pub const JOIN_OVER: VarInt = VarInt::from_u32(8);

/// Nothing listens any more at the other side's port.
pub const GONE: VarInt = VarInt::from_u32(9);

/// A stream that was longer than allowed, or took longer.
pub const STREAM_TOO_LARGE: VarInt = VarInt::from_u32(1);
pub const STREAM_TOO_SLOW: VarInt = VarInt::from_u32(2);

/// Alerts of TLS (RFC 8446), as QUIC carries them.
const ALERT: u64 = 0x100;
const ALERT_REVOKED: u64 = ALERT + 44;
const ALERT_EXPIRED: u64 = ALERT + 45;
const ALERT_UNKNOWN_CA: u64 = ALERT + 48;
const ALERT_NO_PROTOCOL: u64 = ALERT + 120;

/// What the other side's refusal, or its silence, means to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It says that this node was removed from the cluster.
    Removed,
    /// It is no node of our cluster, or takes us for none.
    OtherCluster,
    /// The token pins another CA than the one it shows.
    WrongCa,
    /// Something else it said, or we found wrong with it.
    Said(String),
    /// Nothing came back in time, or the way there is shut.
    Silent(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Removed => f.write_str("this node was removed from the cluster"),
            Refusal::OtherCluster => f.write_str("the node there belongs to another cluster"),
            Refusal::WrongCa => {
                f.write_str("the cluster's CA does not match the token: this token belongs to another cluster")
            }
            Refusal::Said(why) | Refusal::Silent(why) => f.write_str(why),
        }
    }
}

pub fn close(conn: &Connection, code: VarInt) {
    conn.close(code, text(code).as_bytes());
}

fn text(code: VarInt) -> &'static str {
    match code {
        STOPPING => "the agent is stopping",
        NO_CERTIFICATE => "members must show a certificate of this cluster",
        BANNED => "this node was removed from the cluster",
        SETTLED => "the other connection serves",
        SUPERSEDED => "replaced by a newer connection",
        PROTOCOL => "protocol violated",
        BUSY => "busy, try again",
        _ => "done",
    }
}

pub fn explain(error: &ConnectionError) -> Refusal {
    match error {
        ConnectionError::ApplicationClosed(close) if close.error_code == BANNED => Refusal::Removed,
        ConnectionError::ApplicationClosed(close) => Refusal::Said(printable(&close.reason)),
        ConnectionError::ConnectionClosed(close) => of_code(close.error_code, || printable(&close.reason), true),
        ConnectionError::TransportError(error) if error.reason.contains(WRONG_CA) => Refusal::WrongCa,
        ConnectionError::TransportError(error) if error.reason.contains(WRONG_NODE) => {
            Refusal::Said(from(&error.reason, WRONG_NODE))
        }
        ConnectionError::TransportError(error) => of_code(error.code, || error.reason.clone(), false),
        ConnectionError::TimedOut => Refusal::Silent("no answer".to_owned()),
        ConnectionError::Reset => Refusal::Silent("the agent there was restarted".to_owned()),
        ConnectionError::VersionMismatch => Refusal::Said("it speaks another version of QUIC".to_owned()),
        ConnectionError::LocallyClosed => Refusal::Silent("closed".to_owned()),
        ConnectionError::CidsExhausted => Refusal::Silent("out of connection ids".to_owned()),
    }
}

/// `about_us`: the other side speaks of our certificate, rather than we of theirs.
fn of_code(code: TransportErrorCode, said: impl FnOnce() -> String, about_us: bool) -> Refusal {
    match u64::from(code) {
        ALERT_REVOKED if about_us => Refusal::Removed,
        ALERT_REVOKED => Refusal::Said("the node there was removed from the cluster".to_owned()),
        ALERT_UNKNOWN_CA => Refusal::OtherCluster,
        ALERT_EXPIRED if about_us => {
            Refusal::Said("our certificate is not valid by its clock: compare the clocks".to_owned())
        }
        ALERT_EXPIRED => Refusal::Said("its certificate is not valid by our clock: compare the clocks".to_owned()),
        ALERT_NO_PROTOCOL => Refusal::Said("it speaks no version of our protocol".to_owned()),
        _ if code == TransportErrorCode::CONNECTION_REFUSED => Refusal::Said("too busy, or stopping".to_owned()),
        // What rustls puts before words that are ours.
        _ => match said().trim_start_matches("unexpected error: ") {
            "" => Refusal::Said(code.to_string()),
            words => Refusal::Said(words.to_owned()),
        },
    }
}

fn from(text: &str, marker: &str) -> String {
    text.find(marker).and_then(|at| text.get(at..)).unwrap_or(text).to_owned()
}

/// Text from the other side, safe to print: short, and nothing that moves a terminal's cursor.
pub fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quinn::{ApplicationClose, ConnectionClose};

    fn closed_with(code: u64) -> ConnectionError {
        // Any alert will do as a start; the code type can't be made of a number directly.
        let error_code = TransportErrorCode::crypto(u8::try_from(code - ALERT).unwrap());
        ConnectionError::ConnectionClosed(ConnectionClose { error_code, frame_type: None, reason: Bytes::new() })
    }

    #[test]
    fn refusals_are_told_apart() {
        assert_eq!(explain(&closed_with(ALERT_REVOKED)), Refusal::Removed);
        assert_eq!(explain(&closed_with(ALERT_UNKNOWN_CA)), Refusal::OtherCluster);
        let reason = Bytes::from_static(b"unexpected error: the CA does not match the token");
        let close = ConnectionClose { error_code: TransportErrorCode::crypto(80), frame_type: None, reason };
        let said = Refusal::Said("the CA does not match the token".to_owned());
        assert_eq!(explain(&ConnectionError::ConnectionClosed(close)), said);
        let close = ApplicationClose { error_code: BANNED, reason: Bytes::new() };
        assert_eq!(explain(&ConnectionError::ApplicationClosed(close)), Refusal::Removed);
        let close = ApplicationClose { error_code: BUSY, reason: Bytes::from_static(b"later\x1b[2J") };
        assert_eq!(explain(&ConnectionError::ApplicationClosed(close)), Refusal::Said("later [2J".to_owned()));
        assert!(matches!(explain(&ConnectionError::TimedOut), Refusal::Silent(_)));
    }
}
