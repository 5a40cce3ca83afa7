//! bincode 2 behind two bytes: the format, and the version of our types. All encoding and decoding of wire and
//! disk bytes happens here, so that the format (bincode is unmaintained) can be replaced in one place.

use serde::{Serialize, de::DeserializeOwned};

/// The first byte of everything we encode.
const FORMAT_BINCODE2: u8 = 0xb2;
/// The version of the types. Raised when old nodes could misread new bytes.
pub const VERSION: u8 = 1;

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
    let mut bytes = vec![FORMAT_BINCODE2, VERSION];
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
    // The limit makes bincode refuse hostile lengths before it allocates.
    let config = CONFIG.with_limit::<{ 2 * crate::limits::MAX_MESSAGE_BYTES }>();
    let (value, used) =
        bincode::serde::decode_from_slice(body, config).map_err(|e| CodecError::Malformed(e.to_string()))?;
    if used != body.len() {
        return Err(CodecError::Trailing(body.len() - used));
    }
    Ok(value)
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

    proptest! {
        #[test]
        fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let bytes = [&[FORMAT_BINCODE2, VERSION], body.as_slice()].concat();
            let _ = decode::<Message>(&bytes, crate::limits::MAX_MESSAGE_BYTES);
            let _ = decode::<crate::model::record::Record>(&bytes, crate::limits::MAX_RECORD_BYTES);
        }
    }
}
