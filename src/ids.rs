//! Typed ids. Each is 128 random (or derived) bits shown as Docker shows its own: 25 characters of base 36.
//!
//! Ids order and hash by value; the text form is fixed width, so text order and value order agree.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Width of the text form: 36^25 > 2^128.
pub const ID_TEXT_LEN: usize = 25;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: {0:?} (want {ID_TEXT_LEN} characters of 0-9 a-z)")]
pub struct BadId(String);

fn write_base36(mut value: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // Twelve digits fit 64 bits, where division is many times faster.
    const TWELVE: u128 = 36u128.pow(12);
    let mut text = [b'0'; ID_TEXT_LEN];
    for part in text.rchunks_mut(12) {
        let mut low = (value % TWELVE) as u64;
        value /= TWELVE;
        for place in part.iter_mut().rev() {
            *place = b"0123456789abcdefghijklmnopqrstuvwxyz"[(low % 36) as usize];
            low /= 36;
        }
    }
    // Only ASCII was written above.
    f.pad(std::str::from_utf8(&text).unwrap_or_default())
}

fn read_base36(text: &str) -> Result<u128, BadId> {
    let bad = || BadId(text.chars().take(64).collect());
    if text.len() != ID_TEXT_LEN {
        return Err(bad());
    }
    text.chars().try_fold(0u128, |value, c| {
        let digit = c.to_digit(36).filter(|_| !c.is_ascii_uppercase()).ok_or_else(bad)?;
        value.checked_mul(36).and_then(|v| v.checked_add(u128::from(digit))).ok_or_else(bad)
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            pub const fn from_u128(value: u128) -> Self {
                Self(value)
            }
            pub const fn as_u128(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_base36(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = self.to_string();
                write!(f, "{}({})", stringify!($name), &text[text.len() - 6..])
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                read_base36(text).map(Self)
            }
        }

        // Text for people's formats (JSON), sixteen fixed bytes for ours.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { self.0.to_be_bytes().serialize(s) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(d).map(|b| Self(u128::from_be_bytes(b)))
                }
            }
        }
    };
}

id!(
    /// One machine's agent, fixed at its first start and bound to its certificate.
    NodeId
);
id!(
    /// One cluster; made by the first node, carried in every certificate.
    ClusterId
);
id!(
    /// One service. Derived from the name (see [`ServiceId::of_name`]) so that two partitions
    /// which create the same name meet in one record.
    ServiceId
);
id!(
    /// One attempt to fill a slot on one node. Never moves: a replacement is a new task.
    TaskId
);

id!(
    /// One secret, config or network; derived from its kind and name.
    ObjectId
);

impl ServiceId {
    /// FNV-1a over the name, 128 bits. Names are checked (short, `[a-zA-Z0-9_.-]`) before they come here;
    /// a collision somebody constructs merges two services of his own.
    pub fn of_name(cluster: ClusterId, name: &str) -> Self {
        Self(fnv1a(cluster, name))
    }
}

impl ObjectId {
    /// Of the cluster and a text that names one object in it.
    pub fn derived(cluster: ClusterId, text: &str) -> Self {
        Self(fnv1a(cluster, text))
    }
}

fn fnv1a(cluster: ClusterId, text: &str) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = cluster.0.to_be_bytes();
    bytes.iter().chain(text.as_bytes()).fold(OFFSET, |h, b| (h ^ u128::from(*b)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_keeps_the_order() {
        let values = [0u128, 1, 35, 36, u128::MAX / 3, u128::MAX];
        let texts: Vec<String> = values.iter().map(|v| TaskId::from_u128(*v).to_string()).collect();
        for (value, text) in values.iter().zip(&texts) {
            assert_eq!(text.len(), ID_TEXT_LEN);
            assert_eq!(text.parse::<TaskId>().unwrap().as_u128(), *value);
        }
        assert!(texts.is_sorted());
    }

    #[test]
    fn rejects_what_is_no_id() {
        for text in ["", "abc", "ABCDEFGHIJKLMNOPQRSTUVWXY", "zzzzzzzzzzzzzzzzzzzzzzzzz", "-000000000000000000000000"] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }
}
