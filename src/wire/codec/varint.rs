//! How numbers wider than a byte begin: with themselves if they are below the first of these, else with how many bytes
//! follow, the lowest first.

pub(super) const TWO: u8 = 251;
pub(super) const FOUR: u8 = 252;
pub(super) const EIGHT: u8 = 253;
