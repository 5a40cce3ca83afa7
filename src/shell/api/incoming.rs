//! What a request says: its path without the API version, its query and its body, within bounds.

use super::ApiVersion;
use super::reply::Failure;
use crate::limits::MAX_API_BODY_BYTES;
use crate::model::record::Hlc;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde::de::{DeserializeOwned, IgnoredAny};
use std::collections::BTreeMap;
use std::time::Duration;

/// A body must have arrived within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// X-Registry-Auth is a base64 JSON of a user name and a token; the longest tokens seen have a few thousand bytes.
const MAX_REGISTRY_AUTH_BYTES: usize = 64 * 1024;

/// One request to us, read to its end.
pub struct Call {
    pub query: Query,
    pub body: String,
    /// The version in the path.
    pub version: Option<ApiVersion>,
    headers: HeaderMap,
}

impl Call {
    pub async fn read(request: Request) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let body = text(body).await?;
        let version = parts.uri.path().split('/').find(|segment| !segment.is_empty()).and_then(version);
        Ok(Self { query: Query::of(&parts.uri)?, body, version, headers: parts.headers })
    }

    /// The body's text, once it is known to be a JSON object.
    pub fn json_object(&self) -> Result<String, Failure> {
        json::<BTreeMap<String, IgnoredAny>>(&self.body)?;
        Ok(self.body.clone())
    }

    /// Credentials for pulls as the client sent them. Not to be logged.
    pub fn registry_auth(&self) -> Result<Option<String>, Failure> {
        let Some(value) = self.headers.get("x-registry-auth").filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match value.to_str() {
            Ok(text) if text.len() <= MAX_REGISTRY_AUTH_BYTES => Ok(Some(text.to_owned())),
            Ok(_) => Err(Failure::invalid(format!(
                "X-Registry-Auth is longer than {MAX_REGISTRY_AUTH_BYTES} bytes (MAX_REGISTRY_AUTH_BYTES)"
            ))),
            Err(_) => Err(Failure::invalid("X-Registry-Auth isn't base64 text")),
        }
    }
}

/// The path's decoded segments without a leading `v1.47`.
pub fn segments(uri: &Uri) -> Vec<String> {
    let mut segments = uri.path().split('/').filter(|segment| !segment.is_empty()).peekable();
    segments.next_if(|first| version(first).is_some());
    segments.map(percent_decoded).collect()
}

fn version(segment: &str) -> Option<ApiVersion> {
    segment.strip_prefix('v').and_then(ApiVersion::parse)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escaped = match tail {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The query's parameters; of one that comes twice, the last.
#[derive(Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    pub fn of(uri: &Uri) -> Result<Self, Failure> {
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|pairs| Self(pairs.0.into_iter().collect()))
            .map_err(|error| Failure::invalid(format!("invalid query: {error}")))
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Docker's idea of true: anything but nothing, 0, no, false and none.
    pub fn flag(&self, key: &str) -> bool {
        let value = self.0.get(key).map(|value| value.trim().to_ascii_lowercase()).unwrap_or_default();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// The `version` that a client must say it has read; `current` is what it should be.
    pub fn version(&self, what: &str, current: Hlc) -> Result<Hlc, Failure> {
        let text = self.0.get("version").map_or("", String::as_str);
        let version = text
            .parse()
            .map_err(|_| Failure::invalid(format!("invalid {what} version '{text}': want its Version.Index")))?;
        Ok(if rounded_by_javascript(text, version, current.0) { current } else { Hlc(version) })
    }

    /// As [`Self::version`], for our own paths, where none means "whatever it is now".
    pub fn optional_version(&self, what: &str, current: Hlc) -> Result<Option<Hlc>, Failure> {
        self.text("version").map(|_| self.version(what, current)).transpose()
    }
}

/// An index is a hybrid time of 57 bits, and a browser's numbers keep 53: a web client sends back the nearest double.
/// It is taken for the current index if the text is how JavaScript would write that double, and the same one. All
/// that this lets through is such a client's write over another one of the very same millisecond.
fn rounded_by_javascript(text: &str, version: u64, current: u64) -> bool {
    let (sent, real) = (version as f64, current as f64);
    version != current && sent.to_bits() == real.to_bits() && format!("{sent}") == text
}

/// The whole body, within [`MAX_API_BODY_BYTES`].
async fn text(body: Body) -> Result<String, Failure> {
    let reading = axum::body::to_bytes(body, MAX_API_BODY_BYTES);
    let bytes = tokio::time::timeout(BODY_TIMEOUT, reading)
        .await
        .map_err(|_| Failure::new(StatusCode::REQUEST_TIMEOUT, "the request's body took too long to arrive"))?
        .map_err(|error| match std::error::Error::source(&error) {
            Some(source) if source.is::<http_body_util::LengthLimitError>() => Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the request's body is larger than {MAX_API_BODY_BYTES} bytes (MAX_API_BODY_BYTES)"),
            ),
            _ => Failure::invalid(format!("can't read the request's body: {error}")),
        })?;
    String::from_utf8(bytes.into())
        .map_err(|error| Failure::invalid(format!("the request's body isn't UTF-8: {error}")))
}

/// Parses JSON; the error names line and column.
pub fn json<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    if text.trim().is_empty() {
        return Err(Failure::invalid("invalid JSON: the request has no body"));
    }
    serde_json::from_str(text).map_err(|error| Failure::invalid(format!("invalid JSON: {error}")))
}

/// Reads a body that nobody wants, as far as bounds allow, so that the client gets to see the answer.
pub async fn discard(body: Body) {
    // Whatever is wrong with it, the answer is the same.
    let _ = text(body).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_before_a_path_is_optional_and_only_that_is_taken_off() {
        let of = |text: &str| segments(&text.parse().unwrap());
        assert_eq!(of("/v1.41/services/web"), ["services", "web"]);
        assert_eq!(of("/services/v1.41"), ["services", "v1.41"]);
        assert_eq!(of("/volumes"), ["volumes"]);
        assert_eq!(of("/nodes/a%2Fb%20%"), ["nodes", "a/b %"]);
    }

    #[test]
    fn flags_are_read_as_docker_reads_them() {
        let query = Query::of(&"/x?a=1&b=0&c=False&d=&e=yes".parse().unwrap()).unwrap();
        assert_eq!(["a", "b", "c", "d", "e", "f"].map(|key| query.flag(key)), [true, false, false, false, true, false]);
    }

    #[test]
    fn a_browser_can_send_back_an_index_that_its_numbers_cannot_hold() {
        let current = Hlc(1_780_000_000_123 << 16 | 5);
        let version =
            |text: &str| Query::of(&format!("/x?version={text}").parse().unwrap()).unwrap().version("service", current);
        let rounded = format!("{}", current.0 as f64);
        assert_ne!(rounded, current.0.to_string());
        assert_eq!(version(&rounded).unwrap(), current);
        // A client with whole numbers is held to the exact one.
        assert_eq!(version(&(current.0 - 1).to_string()).unwrap(), Hlc(current.0 - 1));
        assert_eq!(version(&current.0.to_string()).unwrap(), current);
        assert!(version("").unwrap_err().message.contains("invalid service version"));
    }

    #[test]
    fn bad_json_is_named_by_line_and_column() {
        let failure = json::<IgnoredAny>("{\n \"a\": tru }").unwrap_err();
        assert_eq!(failure.status, StatusCode::BAD_REQUEST);
        assert!(failure.message.contains("line 2 column"), "{}", failure.message);
        assert!(json::<IgnoredAny>("  ").unwrap_err().message.contains("no body"));
    }
}
