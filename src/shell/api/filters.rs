//! Docker's `filters` parameter: `{"name":{"web":true}}` from its CLI or `{"name":["web"]}` from others. Values of one
//! key are alternatives, keys must all match, labels too.

use super::incoming::Query;
use super::reply::Failure;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Map(BTreeMap<String, bool>),
    List(Vec<String>),
}

impl Filters {
    pub fn of(query: &Query, accepted: &[&str]) -> Result<Self, Failure> {
        query.text("filters").map_or_else(|| Ok(Self::default()), |text| Self::parse(text, accepted))
    }

    fn parse(text: &str, accepted: &[&str]) -> Result<Self, Failure> {
        let keys: BTreeMap<String, Values> =
            serde_json::from_str(text).map_err(|error| Failure::invalid(format!("invalid filters: {error}")))?;
        if let Some(unknown) = keys.keys().find(|key| !accepted.contains(&key.as_str())) {
            // Those are between docker's CLI and its engine.
            let known: Vec<&str> = accepted.iter().copied().filter(|key| !key.starts_with('_')).collect();
            return Err(Failure::invalid(format!("invalid filter '{unknown}' (known here: {})", known.join(", "))));
        }
        let values = |values| match values {
            Values::Map(map) => map.into_keys().collect(),
            Values::List(list) => list.into_iter().collect(),
        };
        Ok(Self(keys.into_iter().map(|(key, raw)| (key, values(raw))).collect()))
    }

    /// The values asked for; `None` if this key asks for nothing.
    pub fn values(&self, key: &str) -> Option<&BTreeSet<String>> {
        self.0.get(key).filter(|values| !values.is_empty())
    }

    fn any(&self, key: &str, matches: impl Fn(&str) -> bool) -> bool {
        self.values(key).is_none_or(|values| values.iter().any(|value| matches(value)))
    }

    pub fn equals(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| value == text)
    }

    pub fn contains(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| text.contains(value))
    }

    pub fn begins(&self, key: &str, text: &str) -> bool {
        self.any(key, |value| text.starts_with(value))
    }

    /// `key` for any value, `key=value` for this one.
    pub fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        let matches = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) if !value.is_empty() => labels.get(name).is_some_and(|found| found == value),
            Some((name, _)) => labels.contains_key(name),
            None => labels.contains_key(wanted),
        };
        self.values(key).is_none_or(|values| values.iter().all(matches))
    }

    /// Every value of `key` must be one of these.
    pub fn check(&self, key: &str, known: &[&str]) -> Result<(), Failure> {
        let unknown = self.values(key).and_then(|values| values.iter().find(|v| !known.contains(&v.as_str())));
        unknown.map_or(Ok(()), |value| {
            Err(Failure::invalid(format!("invalid {key} filter: '{value}' (want {})", known.join(", "))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        for text in [r#"{"name":{"web":true,"db":true}}"#, r#"{"name":["web","db"]}"#] {
            let filters = Filters::parse(text, &["name", "id"]).unwrap();
            assert!(filters.begins("name", "web-1"), "{text}");
            assert!(filters.equals("name", "db"));
            assert!(!filters.begins("name", "api"));
            assert!(filters.begins("id", "anything"), "a key that asks for nothing lets all through");
        }
    }

    #[test]
    fn an_unknown_key_and_broken_json_are_refused() {
        let failure = Filters::parse(r#"{"colour":{"red":true}}"#, &["_up-to-date", "name"]).unwrap_err();
        assert_eq!(failure.message, "invalid filter 'colour' (known here: name)");
        assert!(Filters::parse(r#"{"_up-to-date":{"true":true}}"#, &["_up-to-date", "name"]).is_ok());
        assert!(Filters::parse("{", &["name"]).is_err());
    }

    #[test]
    fn labels_must_all_match() {
        let labels = BTreeMap::from([("zone".to_owned(), "east".to_owned()), ("ssd".to_owned(), String::new())]);
        let matches = |text: &str| Filters::parse(text, &["label"]).unwrap().labels("label", &labels);
        assert!(matches(r#"{"label":["zone=east","ssd"]}"#));
        assert!(!matches(r#"{"label":["zone=west","ssd"]}"#));
        assert!(!matches(r#"{"label":["zone","gpu"]}"#));
    }
}
