//! What changes in a request's and an answer's head on the way through (RFC 9110, 7.6.1), and what the replica is told of
//! the client.

use hyper::header::{CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Uri, Version};
use std::net::{IpAddr, SocketAddr};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// A request may be sent again when it is all here and doing it twice is doing it once (RFC 9110, 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let words = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    words.map(str::trim).any(|word| word.eq_ignore_ascii_case(token))
}

/// What the client wants the connection to become, if anything.
pub fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    let asked = parts.version == Version::HTTP_11 && has_token(&parts.headers, &CONNECTION, "upgrade");
    parts.headers.get(UPGRADE).filter(|_| asked).cloned()
}

/// What concerns one connection only, and what its `Connection` header names.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|word| word.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&[CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE]) {
        headers.remove(name);
    }
}

fn become_one(headers: &mut HeaderMap, what: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, what);
}

/// The head as it goes to a replica; an error says what is wrong with the request.
pub fn towards_replica(
    parts: &mut Parts,
    from: IpAddr,
    to: SocketAddr,
    h2: bool,
    upgrade: Option<HeaderValue>,
) -> Result<(), &'static str> {
    let trailers = has_token(&parts.headers, &TE, "trailers");
    strip(&mut parts.headers);
    parts.headers.remove(TE);
    if trailers {
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(what) = upgrade.filter(|_| !h2) {
        become_one(&mut parts.headers, what);
    }
    one_cookie(&mut parts.headers);
    let authority = authority(parts, to)?;
    forwarded(&mut parts.headers, from, &authority);
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if h2 {
        parts.headers.remove(HOST);
        let mut uri = hyper::http::uri::Parts::default();
        (uri.scheme, uri.authority, uri.path_and_query) = (Some(Scheme::HTTP), Some(authority), Some(path));
        parts.uri = Uri::from_parts(uri).map_err(|_| "its target can't be read")?;
        parts.version = Version::HTTP_2;
    } else {
        if !parts.headers.contains_key(HOST) {
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "its authority can't be read")?;
            parts.headers.insert(HOST, host);
        }
        parts.uri = Uri::from(path);
        parts.version = Version::HTTP_11;
    }
    Ok(())
}

/// Whom the client means: the target's authority goes before the Host header, and one without both means where it
/// connected to.
fn authority(parts: &mut Parts, to: SocketAddr) -> Result<Authority, &'static str> {
    if let Some(authority) = parts.uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "its authority can't be read")?;
        parts.headers.insert(HOST, host);
        return Ok(authority.clone());
    }
    match parts.headers.get(HOST).filter(|host| !host.is_empty()) {
        Some(host) => {
            let read = host.to_str().ok().and_then(|host| host.parse().ok());
            read.ok_or("its Host header can't be read")
        }
        None => to.to_string().parse().map_err(|_| "its Host header is missing"),
    }
}

/// HTTP/2 may cut a cookie into several fields; HTTP/1.1 wants one.
fn one_cookie(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            headers.insert(COOKIE, cookie);
        }
    }
}

/// The client's address goes behind what is there: who was before it, as it says. Protocol and host are set where
/// nobody before us has, such as what ended the client's TLS.
fn forwarded(headers: &mut HeaderMap, from: IpAddr, authority: &Authority) {
    let mut chain: Vec<u8> = Vec::new();
    for before in headers.get_all(FORWARDED_FOR) {
        chain.extend(before.as_bytes());
        chain.extend(b", ");
    }
    chain.extend(from.to_canonical().to_string().bytes());
    if let Ok(chain) = HeaderValue::from_bytes(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
}

/// The head of an answer as it goes to the client.
pub fn towards_client(headers: &mut HeaderMap, upgraded: bool) {
    let upgrade = headers.get(UPGRADE).filter(|_| upgraded).cloned();
    strip(headers);
    if let Some(what) = upgrade {
        become_one(headers, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn parts(version: Version, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const TO: &str = "10.0.0.1:80";

    fn sent(mut parts: Parts, h2: bool) -> Parts {
        let asked = upgrade(&parts);
        towards_replica(&mut parts, IpAddr::from([1, 2, 3, 4]), TO.parse().unwrap(), h2, asked).unwrap();
        parts
    }

    #[test]
    fn what_concerns_the_clients_connection_stays_there() {
        let headers = [
            ("host", "shop"),
            ("connection", "keep-alive, X-Private"),
            ("keep-alive", "timeout=5"),
            ("x-private", "1"),
            ("te", "gzip, trailers"),
            ("upgrade", "websocket"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("x-kept", "1"),
        ];
        let sent = sent(parts(Version::HTTP_11, "/a?b", &headers), false);
        let mut names: Vec<&str> = sent.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "te", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-kept"]);
        assert_eq!(
            (&sent.headers["x-forwarded-for"], &sent.headers["te"]),
            (&"9.9.9.9, 1.2.3.4".parse().unwrap(), &"trailers".parse().unwrap())
        );
        assert_eq!(
            (&sent.headers["x-forwarded-proto"], sent.uri.to_string().as_str()),
            (&"https".parse().unwrap(), "/a?b")
        );
    }

    #[test]
    fn an_upgrade_that_is_asked_for_is_passed_on_and_its_answer_too() {
        let asked = parts(Version::HTTP_11, "/", &[("host", "a"), ("connection", "Upgrade"), ("upgrade", "websocket")]);
        let sent = sent(asked, false);
        assert_eq!(
            (&sent.headers[CONNECTION], &sent.headers[UPGRADE]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        let mut answer = HeaderMap::from_iter([(UPGRADE, HeaderValue::from_static("websocket"))]);
        towards_client(&mut answer, true);
        assert_eq!(answer[CONNECTION], "upgrade");
        towards_client(&mut answer, false);
        assert!(answer.is_empty());
    }

    #[test]
    fn whom_the_client_means_is_told_in_either_version() {
        let h1 = sent(parts(Version::HTTP_2, "http://shop/x", &[("cookie", "a=1"), ("cookie", "b=2")]), false);
        assert_eq!((&h1.headers[HOST], &h1.headers[COOKIE]), (&"shop".parse().unwrap(), &"a=1; b=2".parse().unwrap()));
        assert_eq!((h1.version, h1.uri.to_string().as_str()), (Version::HTTP_11, "/x"));
        let h2 = sent(parts(Version::HTTP_11, "/x", &[("host", "shop")]), true);
        assert_eq!((h2.version, h2.uri.to_string().as_str()), (Version::HTTP_2, "http://shop/x"));
        assert!(!h2.headers.contains_key(HOST));
        let old = sent(parts(Version::HTTP_10, "/", &[]), false);
        assert_eq!(old.headers[HOST], TO);
        let mut bad = parts(Version::HTTP_11, "/", &[("host", "a b")]);
        assert!(towards_replica(&mut bad, IpAddr::from([1, 2, 3, 4]), TO.parse().unwrap(), false, None).is_err());
    }
}
