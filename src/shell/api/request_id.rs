//! Each request's name in the logs: its own, if the client gave it one that can stand in a log, or a fresh one. The span has
//! it from the first line on, and the name of the change that the request comes to as soon as there is one: under that the
//! other nodes' logs and events speak of it. The answer's header says it too.

use crate::shell::identity::random;
use axum::http::{HeaderMap, HeaderValue, Method};
use tracing::Span;

pub const HEADER: &str = "x-request-id";
const MAX_CHARS: usize = 64;

/// Of the request that came with these headers.
pub fn of(headers: &HeaderMap) -> String {
    let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
    let fits = |id: &&str| {
        !id.is_empty() && id.len() <= MAX_CHARS && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    // Without randomness they are all the same; the log goes on.
    let fresh = || format!("{:016x}", random::number().unwrap_or_default());
    given.filter(fits).map_or_else(fresh, str::to_owned)
}

/// Whatever is logged of the request on this node, from its first line to its last, stands in it.
pub fn span(id: &str, method: &Method, path: &str) -> Span {
    tracing::info_span!("api", request = id, %method, path, change = tracing::field::Empty)
}

pub fn tell(id: &str, headers: &mut HeaderMap) {
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(HEADER, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_own_name_is_kept_if_it_can_stand_in_a_log() {
        let of = |text: &str| of(&HeaderMap::from_iter([("x-request-id".parse().unwrap(), text.parse().unwrap())]));
        for good in ["deploy-17", "0af7651916cd43dd8448eb211c80319c", "a.b_c:d"] {
            assert_eq!(of(good), good);
        }
        for bad in ["", "two words", "x\"y", &"long".repeat(20)] {
            let fresh = of(bad);
            assert!(fresh.len() == 16 && fresh.bytes().all(|b| b.is_ascii_hexdigit()), "{bad}: {fresh}");
            assert_ne!(fresh, of(bad), "another one each time");
        }
    }
}
