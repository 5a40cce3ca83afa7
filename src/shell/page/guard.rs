//! Who may look and who may act.

use crate::shell::api::Failure;
use crate::shell::identity::token::same_secret;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HOST};
use std::net::{IpAddr, SocketAddr};

pub struct Guard {
    loopback: bool,
    token: String,
}

impl Guard {
    pub fn new(addr: SocketAddr, token: String) -> Self {
        Self { loopback: addr.ip().is_loopback(), token }
    }

    pub fn may_look(&self, headers: &HeaderMap) -> Result<(), Failure> {
        match self.token_of(headers)? {
            Some(()) => Ok(()),
            // A name that leads here from a web site's script (DNS rebinding) is not one of these.
            None if self.loopback && names_loopback(headers) => Ok(()),
            None => Err(wanted("to look at this cluster")),
        }
    }

    pub fn may_act(&self, headers: &HeaderMap) -> Result<(), Failure> {
        self.token_of(headers)?.ok_or_else(|| wanted("to change anything"))
    }

    /// `None` where none was sent; a wrong one is an error even where none is needed.
    fn token_of(&self, headers: &HeaderMap) -> Result<Option<()>, Failure> {
        let Some(sent) = headers.get(AUTHORIZATION) else { return Ok(None) };
        let sent = sent.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        match sent {
            Some(sent) if same_secret(sent.trim(), &self.token) => Ok(Some(())),
            _ => Err(wanted("and this one is wrong")),
        }
    }
}

fn wanted(what_for: &str) -> Failure {
    let text =
        format!("the page's token is needed {what_for}: open the link that `peer dashboard` prints on this node");
    Failure::new(StatusCode::UNAUTHORIZED, text)
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|h| h.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str, bearer: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(bearer) = bearer {
            headers.insert(AUTHORIZATION, format!("Bearer {bearer}").parse().unwrap());
        }
        headers
    }

    fn guard(addr: &str) -> Guard {
        Guard::new(addr.parse().unwrap(), "s3cret".to_owned())
    }

    #[test]
    fn on_loopback_everybody_may_look_and_nobody_may_act_without_the_token() {
        for addr in ["127.0.0.1:7373", "[::1]:7373", "127.0.0.4:80"] {
            let guard = guard(addr);
            for host in ["localhost:7373", "127.0.0.1:7373", "[::1]:7373", "127.0.0.1", "LOCALHOST"] {
                assert!(guard.may_look(&headers(host, None)).is_ok(), "{host}");
                assert!(guard.may_act(&headers(host, None)).is_err(), "{host}");
            }
            assert!(guard.may_act(&headers("localhost", Some("s3cret"))).is_ok());
        }
    }

    #[test]
    fn elsewhere_and_under_foreign_names_looking_takes_the_token_too() {
        assert!(guard("10.0.0.1:7373").may_look(&headers("127.0.0.1:7373", None)).is_err());
        assert!(guard("127.0.0.1:7373").may_look(&headers("evil.example:7373", None)).is_err());
        assert!(guard("127.0.0.1:7373").may_look(&headers("127.0.0.1.evil.example", None)).is_err());
        assert!(guard("10.0.0.1:7373").may_look(&headers("node1:7373", Some("s3cret"))).is_ok());
    }

    #[test]
    fn a_wrong_token_is_told_even_where_none_is_needed() {
        let refused = guard("127.0.0.1:7373").may_look(&headers("localhost", Some("guess"))).unwrap_err();
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(refused.message.contains("wrong") && refused.message.contains("peer dashboard"), "{refused:?}");
        assert!(guard("127.0.0.1:7373").may_look(&headers("localhost", Some(""))).is_err());
    }
}
