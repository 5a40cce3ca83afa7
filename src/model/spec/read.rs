//! A cursor over JSON that knows where it stands, so that every complaint names its field as Docker's API does.
//!
//! The rules are those of Go's decoder, which Docker's clients were written against: null is absent, absent is
//! the zero value, unknown keys are ignored, and keys match without regard to case when none matches exactly
//! (`HealthCheck` is `Healthcheck`).

use super::SpecError;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) struct Field<'j> {
    path: String,
    value: Option<&'j Value>,
}

/// `key` in `map` as Go's decoder would find it.
pub(super) fn find_key(map: &Map<String, Value>, key: &str) -> Option<String> {
    if map.contains_key(key) {
        return Some(key.to_owned());
    }
    map.keys().find(|k| k.eq_ignore_ascii_case(key)).cloned()
}

/// Somebody's text in an error: quoted, and cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
        None => format!("{text:?}"),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl<'j> Field<'j> {
    pub fn root(value: &'j Value) -> Self {
        Self::new(String::new(), Some(value))
    }

    fn new(path: String, value: Option<&'j Value>) -> Self {
        Self { path, value: value.filter(|v| !v.is_null()) }
    }

    pub fn bad(&self, why: impl Into<String>) -> SpecError {
        let field = if self.path.is_empty() { "ServiceSpec".to_owned() } else { self.path.clone() };
        SpecError { field, why: why.into() }
    }

    fn wrong_kind(&self, want: &str) -> SpecError {
        self.bad(format!("want {want}, found {}", self.value.map_or("nothing", kind)))
    }

    /// "path: text", for a warning.
    pub fn note(&self, text: &str) -> String {
        format!("{}: {text}", self.path)
    }

    pub fn is_present(&self) -> bool {
        self.value.is_some()
    }

    /// There is an object here, be it empty: how Docker chooses one of several modes.
    pub fn is_object(&self) -> Result<bool, SpecError> {
        Ok(self.object()?.is_some())
    }

    /// It says more than the zero value of its type would.
    pub fn says_something(&self) -> bool {
        match self.value {
            None | Some(Value::Null) => false,
            Some(Value::Bool(b)) => *b,
            Some(Value::Number(n)) => n.as_f64() != Some(0.0),
            Some(Value::String(s)) => !s.is_empty(),
            Some(Value::Array(a)) => !a.is_empty(),
            Some(Value::Object(o)) => !o.is_empty(),
        }
    }

    /// Refuses what we would have to ignore at the user's expense.
    pub fn refuse_if_set(&self, what: &str) -> Result<(), SpecError> {
        if self.says_something() { Err(self.bad(format!("{what} not supported yet"))) } else { Ok(()) }
    }

    fn object(&self) -> Result<Option<&'j Map<String, Value>>, SpecError> {
        match self.value {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.wrong_kind("an object")),
        }
    }

    /// The member `key`; absent where this object is absent.
    pub fn at(&self, key: &str) -> Result<Field<'j>, SpecError> {
        let value = self.object()?.and_then(|map| map.get(find_key(map, key)?.as_str()));
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Ok(Field::new(path, value))
    }

    pub fn items(&self) -> Result<Vec<Field<'j>>, SpecError> {
        match self.value {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list
                .iter()
                .enumerate()
                .map(|(i, value)| Field::new(format!("{}[{i}]", self.path), Some(value)))
                .collect()),
            Some(_) => Err(self.wrong_kind("a list")),
        }
    }

    /// A string; empty where absent. No string of a spec may carry a NUL: no system call would take it.
    pub fn text(&self) -> Result<&'j str, SpecError> {
        match self.value {
            None => Ok(""),
            Some(Value::String(text)) if text.contains('\0') => Err(self.bad("must not contain a NUL character")),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(self.wrong_kind("a string")),
        }
    }

    /// A string, or nothing where it is absent or empty.
    pub fn some_text(&self) -> Result<Option<String>, SpecError> {
        Ok(Some(self.text()?).filter(|t| !t.is_empty()).map(str::to_owned))
    }

    pub fn texts(&self) -> Result<Vec<String>, SpecError> {
        self.items()?.iter().map(|item| item.text().map(str::to_owned)).collect()
    }

    /// A list of strings none of which is empty.
    pub fn words(&self) -> Result<Vec<String>, SpecError> {
        for item in self.items()? {
            if item.text()?.is_empty() {
                return Err(item.bad("must not be empty"));
            }
        }
        self.texts()
    }

    pub fn text_map(&self) -> Result<BTreeMap<String, String>, SpecError> {
        let mut out = BTreeMap::new();
        for (key, value) in self.object()?.into_iter().flatten() {
            let entry = Field::new(format!("{}[{key:?}]", self.path), Some(value));
            if key.is_empty() {
                return Err(self.bad("a key must not be empty"));
            }
            if key.contains('\0') {
                return Err(entry.bad("a key must not contain a NUL character"));
            }
            out.insert(key.clone(), entry.text()?.to_owned());
        }
        Ok(out)
    }

    pub fn flag(&self) -> Result<bool, SpecError> {
        Ok(self.some_flag()?.unwrap_or(false))
    }

    pub fn some_flag(&self) -> Result<Option<bool>, SpecError> {
        match self.value {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(_) => Err(self.wrong_kind("true or false")),
        }
    }

    pub fn some_integer(&self) -> Result<Option<i64>, SpecError> {
        match self.value {
            None => Ok(None),
            Some(Value::Number(n)) => match n.as_i64() {
                Some(i) => Ok(Some(i)),
                None if n.is_u64() => Err(self.bad(format!("{n} is more than {} allows", i64::MAX))),
                None => Err(self.bad(format!("want a whole number, found {n}"))),
            },
            Some(_) => Err(self.wrong_kind("a whole number")),
        }
    }

    /// A whole number from 0 to `max`.
    pub fn some_count(&self, max: u64) -> Result<Option<u64>, SpecError> {
        let Some(Value::Number(number)) = self.value else { return self.some_integer().map(|_| None) };
        match number.as_u64() {
            Some(n) if n <= max => Ok(Some(n)),
            Some(n) => Err(self.bad(format!("{n} is too many: want at most {max}"))),
            None if number.as_i64().is_some() => Err(self.bad(format!("{number} is negative: want 0 or more"))),
            None => Err(self.bad(format!("want a whole number, found {number}"))),
        }
    }

    pub fn count(&self, max: u64) -> Result<u64, SpecError> {
        Ok(self.some_count(max)?.unwrap_or(0))
    }

    pub fn count_u32(&self) -> Result<u32, SpecError> {
        // The bound above keeps it in range.
        Ok(u32::try_from(self.count(u64::from(u32::MAX))?).unwrap_or(u32::MAX))
    }

    /// A number from 0 to 1.
    pub fn ratio(&self) -> Result<f64, SpecError> {
        let Some(value) = self.value else { return Ok(0.0) };
        let ratio = value.as_f64().ok_or_else(|| self.wrong_kind("a number"))?;
        if (0.0..=1.0).contains(&ratio) {
            Ok(ratio)
        } else {
            Err(self.bad(format!("{ratio} is out of range: want 0 to 1")))
        }
    }

    /// Nanoseconds, as Go writes durations.
    pub fn some_duration(&self) -> Result<Option<Duration>, SpecError> {
        if let Some(Value::String(text)) = self.value {
            return Err(self.bad(format!("want nanoseconds as a number, found {}", quoted(text))));
        }
        match self.some_integer()? {
            None => Ok(None),
            Some(ns) => match u64::try_from(ns) {
                Ok(ns) => Ok(Some(Duration::from_nanos(ns))),
                Err(_) => Err(self.bad(format!("{ns} ns is negative: want 0 or more"))),
            },
        }
    }

    /// One of a few words; the first is what an absent or empty one means. As in Docker's own conversion
    /// case doesn't matter, nor `_` for `-`.
    pub fn keyword<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, SpecError> {
        let text = self.text()?;
        let plain = text.to_ascii_lowercase().replace('_', "-");
        let found = words.iter().find(|(word, _)| plain == *word).or(words.first().filter(|_| text.is_empty()));
        found.map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.bad(format!("unknown value {}: want {}", quoted(text), known.join(" or ")))
        })
    }

    /// The value as it came.
    pub fn raw(&self) -> Option<&'j Value> {
        self.value
    }
}
