//! Randomness from the operating system, for what must not be guessed or must not repeat: secrets, serial numbers,
//! boot numbers, seeds of the core's own generators.

use crate::ids::TaskId;
use ring::rand::{SecureRandom, SystemRandom};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random numbers")]
pub struct NoRandomness;

pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut out = [0; N];
    SystemRandom::new().fill(&mut out).map_err(|_| NoRandomness)?;
    Ok(out)
}

pub fn number() -> Result<u64, NoRandomness> {
    bytes().map(u64::from_be_bytes)
}

/// A seed for a generator such as the core's.
pub fn seed() -> Result<[u8; 32], NoRandomness> {
    bytes()
}

/// 128 random bits as 25 characters of base 36: the form of our ids, which people can copy.
pub fn secret() -> Result<String, NoRandomness> {
    number128().map(|value| TaskId::from_u128(value).to_string())
}

fn number128() -> Result<u128, NoRandomness> {
    bytes().map(u128::from_be_bytes)
}
