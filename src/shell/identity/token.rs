//! The join token: `PEERTKN-1-<digest of the cluster's CA>-<secret>`. The digest tells the joiner whom to trust,
//! the secret tells the cluster whom to let in. Neither errors nor `Debug` ever show the secret.

use super::random::{self, NoRandomness};
use crate::ids::{ID_TEXT_LEN, TaskId};
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "PEERTKN";
const VERSION: &str = "1";
const DIGEST_TEXT_LEN: usize = 2 * ID_TEXT_LEN;

/// SHA-256 of the CA certificate's DER bytes.
pub type CaDigest = [u8; 32];

#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    ca: CaDigest,
    secret: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error("the token is empty")]
    Empty,
    #[error("this is a Docker Swarm token, not one of peer (want {PREFIX}-{VERSION}-…)")]
    Swarm,
    #[error("not a join token (want {PREFIX}-{VERSION}-…)")]
    Prefix,
    #[error("a token of version {0:?}, but this build reads only version {VERSION}: upgrade peer on this node")]
    Version(String),
    #[error("the token is cut short: its {part} has {got} of {want} characters")]
    Truncated { part: &'static str, got: usize, want: usize },
    #[error("the token's {0} is malformed")]
    Malformed(&'static str),
}

/// A new join secret.
pub fn generate_secret() -> Result<String, NoRandomness> {
    random::secret()
}

/// Compares without telling by its duration where the two differ.
pub fn same_secret(a: &str, b: &str) -> bool {
    subtle::ConstantTimeEq::ct_eq(a.as_bytes(), b.as_bytes()).into()
}

impl Token {
    pub fn new(ca: CaDigest, secret: &str) -> Result<Self, BadToken> {
        let secret = check_secret(secret)?;
        Ok(Self { ca, secret })
    }

    pub fn parse(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BadToken::Empty);
        }
        let mut parts = text.split('-');
        match parts.next() {
            Some(PREFIX) => {}
            Some("SWMTKN") => return Err(BadToken::Swarm),
            _ => return Err(BadToken::Prefix),
        }
        match parts.next() {
            Some(VERSION) => {}
            Some("") | None => return Err(BadToken::Prefix),
            Some(other) => return Err(BadToken::Version(other.chars().take(8).collect())),
        }
        let digest = parts.next().unwrap_or_default();
        let secret = parts.next().unwrap_or_default();
        let ca = parse_digest(digest)?;
        let token = Self::new(ca, secret)?;
        match parts.next() {
            None => Ok(token),
            Some(_) => Err(BadToken::Malformed("end")),
        }
    }

    pub fn ca(&self) -> &CaDigest {
        &self.ca
    }

    pub fn secret(&self) -> &str {
        &self.secret
    }
}

fn parse_digest(text: &str) -> Result<CaDigest, BadToken> {
    const PART: &str = "CA digest";
    check_len(PART, text, DIGEST_TEXT_LEN)?;
    let (Some(high), Some(low)) = (text.get(..ID_TEXT_LEN), text.get(ID_TEXT_LEN..)) else {
        return Err(BadToken::Malformed(PART));
    };
    let mut digest = [0; 32];
    for (half, out) in [high, low].into_iter().zip(digest.chunks_exact_mut(16)) {
        let value: TaskId = half.parse().map_err(|_| BadToken::Malformed(PART))?;
        out.copy_from_slice(&value.as_u128().to_be_bytes());
    }
    Ok(digest)
}

fn check_secret(text: &str) -> Result<String, BadToken> {
    const PART: &str = "secret";
    check_len(PART, text, ID_TEXT_LEN)?;
    text.parse::<TaskId>().map_err(|_| BadToken::Malformed(PART))?;
    Ok(text.to_owned())
}

fn check_len(part: &'static str, text: &str, want: usize) -> Result<(), BadToken> {
    match text.len() {
        got if got < want => Err(BadToken::Truncated { part, got, want }),
        got if got > want => Err(BadToken::Malformed(part)),
        _ => Ok(()),
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}-{VERSION}-")?;
        for half in self.ca.chunks_exact(16) {
            // Chunks of exactly sixteen bytes.
            let value = half.iter().fold(0u128, |v, b| (v << 8) | u128::from(*b));
            write!(f, "{}", TaskId::from_u128(value))?;
        }
        write!(f, "-{}", self.secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl FromStr for Token {
    type Err = BadToken;
    fn from_str(text: &str) -> Result<Self, BadToken> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        let mut ca = [7; 32];
        ca[0] = 0xff;
        ca[31] = 1;
        Token::new(ca, &generate_secret().unwrap()).unwrap()
    }

    #[test]
    fn text_round_trips_and_survives_a_sloppy_copy() {
        let token = token();
        assert_eq!(Token::parse(&token.to_string()), Ok(token.clone()));
        assert_eq!(Token::parse(&format!("  {token}\n")), Ok(token.clone()));
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn every_cut_is_told_as_such_or_as_no_token() {
        let text = token().to_string();
        for len in 0..text.len() {
            match Token::parse(&text[..len]) {
                Err(BadToken::Truncated { .. }) => assert!(len >= "PEERTKN-1".len()),
                Err(BadToken::Empty | BadToken::Prefix) => assert!(len <= "PEERTKN-1".len()),
                other => panic!("cut to {len}: {other:?}"),
            }
        }
    }

    #[test]
    fn names_what_is_wrong() {
        let text = token().to_string();
        assert_eq!(Token::parse("SWMTKN-1-abc-def"), Err(BadToken::Swarm));
        assert_eq!(Token::parse("hello"), Err(BadToken::Prefix));
        assert_eq!(Token::parse(&text.replacen("-1-", "-2-", 1)), Err(BadToken::Version("2".to_owned())));
        assert_eq!(Token::parse(&format!("{text}x")), Err(BadToken::Malformed("secret")));
        assert_eq!(Token::parse(&format!("{text}-x")), Err(BadToken::Malformed("end")));
        assert_eq!(Token::parse(&text.to_uppercase()), Err(BadToken::Malformed("CA digest")));
        let odd = format!("PEERTKN-1-{}é-{}", "0".repeat(48), "0".repeat(25));
        assert_eq!(Token::parse(&odd), Err(BadToken::Malformed("CA digest")));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".*", tail in "[-0-9a-zé]{0,90}") {
            let _ = Token::parse(&text);
            let _ = Token::parse(&format!("PEERTKN-1-{tail}"));
        }
    }

    #[test]
    fn secrets_differ_and_compare() {
        let (a, b) = (generate_secret().unwrap(), generate_secret().unwrap());
        assert!(same_secret(&a, &a.clone()));
        assert!(!same_secret(&a, &b));
        assert!(!same_secret(&a, &a[1..]));
    }
}
