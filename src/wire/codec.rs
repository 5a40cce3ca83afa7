//! bincode 2 behind two bytes: the format, and the version of our types. All encoding and decoding of wire and
//! disk bytes happens here, so that the format (bincode is unmaintained) can be replaced in one place.

use serde::{Serialize, de::DeserializeOwned};

/// The first byte of everything we encode.
const FORMAT_BINCODE2: u8 = 0xb2;
/// The version of the types. Raised when old nodes could misread new bytes.
pub const VERSION: u8 = 1;
/// Most of what we encode fits this.
const USUAL_BYTES: usize = 192;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("{0} bytes, more than the {1} allowed")]
    TooLarge(usize, usize),
    #[error("cut short: {0} bytes")]
    TooShort(usize),
    #[error("not our format (first byte {0:#04x})")]
    Format(u8),
    #[error("version {0}, but this build reads only version {VERSION}: upgrade peer on this node")]
    Version(u8),
    #[error("malformed: {0}")]
    Malformed(String),
    #[error("{0} bytes after the end")]
    Trailing(usize),
}

const CONFIG: bincode::config::Configuration = bincode::config::standard();

pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bytes.extend([FORMAT_BINCODE2, VERSION]);
    // Writing to a Vec can't fail, and our types have no serializer that refuses: no maps of unknown length, no flatten.
    bincode::serde::encode_into_std_write(value, &mut bytes, CONFIG).expect("encoding our own types into memory");
    bytes
}

/// `max` is held against the length before anything is read; no allocation is larger than the input claims to be.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLarge(bytes.len(), max));
    }
    let [format, version, body @ ..] = bytes else { return Err(CodecError::TooShort(bytes.len())) };
    if *format != FORMAT_BINCODE2 {
        return Err(CodecError::Format(*format));
    }
    if *version != VERSION {
        return Err(CodecError::Version(*version));
    }
    let (value, rest) = read_bare(body)?;
    if !rest.is_empty() {
        return Err(CodecError::Trailing(rest.len()));
    }
    Ok(value)
}

/// Without format and version, for what travels inside of something that has them. Says how many bytes it took, or
/// nothing if they don't fit.
pub fn write_bare<T: Serialize>(value: &T, into: &mut [u8]) -> Option<usize> {
    bincode::serde::encode_into_slice(value, into, CONFIG).ok()
}

/// Likewise; what is behind it is returned, too.
pub fn read_bare<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), CodecError> {
    // The limit makes bincode refuse hostile lengths before it allocates.
    let config = CONFIG.with_limit::<{ 2 * crate::limits::MAX_MESSAGE_BYTES }>();
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, config).map_err(|e| CodecError::Malformed(e.to_string()))?;
    Ok((value, bytes.get(used..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Message;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_it_does_not_know_by_name() {
        let good = encode(&7u32);
        assert_eq!(decode::<u32>(&good, 100), Ok(7));
        assert_eq!(decode::<u32>(&good, 1), Err(CodecError::TooLarge(good.len(), 1)));
        assert_eq!(decode::<u32>(&[good[0]], 100), Err(CodecError::TooShort(1)));
        assert_eq!(decode::<u32>(&[b'{', b'"', 1], 100), Err(CodecError::Format(b'{')));
        assert_eq!(decode::<u32>(&[good[0], 9, 7], 100), Err(CodecError::Version(9)));
        let long = [good.as_slice(), &[0]].concat();
        assert_eq!(decode::<u32>(&long, 100), Err(CodecError::Trailing(1)));
    }

    /// What earlier builds wrote with bincode 2: nothing of it may ever change.
    #[test]
    fn the_form_is_that_of_the_first_versions() {
        let id = |n: u128| crate::ids::NodeId::from_u128(n);
        let asks = Message::SeenAsk { author: id(0x0102), seq: 300 };
        assert_eq!(encode(&asks), [&[0xb2, 1, 7][..], &[0; 14], &[1, 2, 251, 0x2c, 1]].concat());
        let compares = Message::Compare { hash: 0x0102_0304_0506_0708 };
        assert_eq!(encode(&compares), [0xb2, 1, 10, 253, 8, 7, 6, 5, 4, 3, 2, 1]);
        let buckets = Message::MembersHash { buckets: vec![1, 250, 251, 65_536] };
        assert_eq!(encode(&buckets), [0xb2, 1, 16, 4, 1, 250, 251, 251, 0, 252, 0, 0, 1, 0]);
        let odds = (Some("é"), -3i64, true, None::<u8>, i64::MIN);
        let min = [253, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(encode(&odds), [&[0xb2, 1, 1, 2, 0xc3, 0xa9, 5, 1, 0][..], &min].concat());
        let addr: std::net::SocketAddr = ([10, 0, 0, 7], 7373).into();
        assert_eq!(encode(&addr), [0xb2, 1, 0, 10, 0, 0, 7, 251, 0xcd, 0x1c]);
        assert_eq!(decode(&encode(&addr), 100), Ok(addr));
        assert_eq!(decode(&encode(&(-3i64, i64::MIN)), 100), Ok((-3i64, i64::MIN)));
    }

    #[test]
    fn no_length_is_believed_that_is_beyond_all_bounds() {
        let claims = [0xb2, 1, 5, 253, 0, 0, 0, 0, 1, 0, 0, 0];
        assert!(matches!(decode::<Message>(&claims, 100), Err(CodecError::Malformed(_))));
        let text = [0xb2, 1, 252, 0, 0, 0, 1];
        assert!(matches!(decode::<String>(&text, 100), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn bytes_in_one_piece_look_like_any_list_of_bytes() {
        for length in [0usize, 1, 250, 251, 1_000, 70_000] {
            let bytes: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let whole = encode(&Message::Gossip(bytes.clone()));
            assert_eq!(whole.get(3..), encode(&bytes).get(2..), "behind the tag, {length} bytes");
            assert_eq!(decode::<Message>(&whole, whole.len()), Ok(Message::Gossip(bytes)));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let bytes = [&[FORMAT_BINCODE2, VERSION], body.as_slice()].concat();
            let _ = decode::<Message>(&bytes, crate::limits::MAX_MESSAGE_BYTES);
            let _ = decode::<crate::model::record::Record>(&bytes, crate::limits::MAX_RECORD_BYTES);
        }
    }
}
