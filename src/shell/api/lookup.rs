//! What a client means by a reference: the full id, the full name, or the beginning of one id; in this order.

use super::backend::Snapshot;
use super::reply::Failure;
use crate::core::view::{NodeView, ServiceView};

/// An ambiguous reference's error has so many ids.
const NAMED: usize = 5;

/// `what` is the kind of thing, as the error says it.
pub fn find<'a, T>(
    items: &'a [T],
    what: &str,
    text: &str,
    id: impl Fn(&T) -> String,
    named: impl Fn(&T) -> bool,
) -> Result<&'a T, Failure> {
    if let Some(item) = items.iter().find(|item| id(item) == text) {
        return Ok(item);
    }
    let mut matches: Vec<&T> = items.iter().filter(|item| named(item)).collect();
    if matches.is_empty() && !text.is_empty() {
        matches = items.iter().filter(|item| id(item).starts_with(text)).collect();
    }
    match matches.as_slice() {
        [one] => Ok(one),
        [] => Err(Failure::not_found(format!("{what} {text} not found"))),
        many => {
            let ids: Vec<String> = many.iter().take(NAMED).map(|item| id(item)).collect();
            Err(Failure::invalid(format!(
                "{what} {text} is ambiguous ({} matches found): use an id: {}",
                many.len(),
                ids.join(", ")
            )))
        }
    }
}

pub fn service<'a>(snapshot: &'a Snapshot, text: &str) -> Result<&'a ServiceView, Failure> {
    find(&snapshot.services, "service", text, |s| s.service.id.to_string(), |s| s.service.name == text)
}

/// A node's name is its host name; `self` is the one that answers.
pub fn node<'a>(snapshot: &'a Snapshot, text: &str) -> Result<&'a NodeView, Failure> {
    if text == "self"
        && let Some(node) = snapshot.this_node()
    {
        return Ok(node);
    }
    let named = |node: &NodeView| node.fact.as_ref().is_some_and(|fact| fact.hostname == text);
    find(&snapshot.nodes, "node", text, |node| node.id.to_string(), named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    #[test]
    fn an_id_then_a_name_then_the_beginning_of_one_id() {
        // The second is named like the first's id, the third like the beginning of both ids.
        let items = [("abc1", "web"), ("abc2", "abc1"), ("xyz3", "abc")];
        let found = |text: &str| {
            find(&items, "service", text, |i| i.0.to_owned(), |i| i.1 == text)
                .map(|i| i.0)
                .map_err(|f| (f.status, f.message))
        };
        assert_eq!(found("abc1"), Ok("abc1"));
        assert_eq!(found("web"), Ok("abc1"));
        assert_eq!(found("abc"), Ok("xyz3"));
        assert_eq!(found("x"), Ok("xyz3"));
        assert_eq!(
            found("ab"),
            Err((
                StatusCode::BAD_REQUEST,
                "service ab is ambiguous (2 matches found): use an id: abc1, abc2".to_owned()
            ))
        );
        assert_eq!(found("q"), Err((StatusCode::NOT_FOUND, "service q not found".to_owned())));
    }
}
