//! Reading a Compose file's values, each with the place where it stands, so that an error or a warning can name it. Compose
//! takes numbers and truths as texts too, since they may come from variables.

use super::Report;
use crate::cli::error::CliError;
use crate::cli::go::parse_bool;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::str::FromStr;

#[derive(Debug, Clone)]
pub struct Field<'a> {
    /// As `services.web.deploy`.
    pub at: String,
    pub value: &'a Value,
}

impl<'a> Field<'a> {
    pub fn of(at: impl Into<String>, value: &'a Value) -> Self {
        Self { at: at.into(), value }
    }

    pub fn bad(&self, why: impl std::fmt::Display) -> CliError {
        CliError::new(format!("{}: {why}", self.at))
    }

    /// What stands under the key, unless it is nothing.
    pub fn get(&self, key: &str) -> Option<Field<'a>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Self { at: format!("{}.{key}", self.at), value })
    }

    pub fn map(&self) -> Result<&'a Map<String, Value>, CliError> {
        self.value.as_object().ok_or_else(|| self.bad("want a mapping"))
    }

    /// The entries of a mapping, by name.
    pub fn entries(&self) -> Result<Vec<(&'a str, Field<'a>)>, CliError> {
        let entry =
            |(key, value): (&'a String, &'a Value)| (key.as_str(), Self::of(format!("{}.{key}", self.at), value));
        Ok(self.map()?.iter().map(entry).collect())
    }

    pub fn items(&self) -> Result<Vec<Field<'a>>, CliError> {
        let list = self.value.as_array().ok_or_else(|| self.bad("want a list"))?;
        Ok(list.iter().enumerate().map(|(n, value)| Self::of(format!("{}[{n}]", self.at), value)).collect())
    }

    /// A text, or a number or truth as one.
    pub fn text(&self) -> Result<String, CliError> {
        match self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(truth) => Ok(truth.to_string()),
            _ => Err(self.bad("want a text")),
        }
    }

    pub fn parsed<T: FromStr>(&self) -> Result<T, CliError>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text()?;
        text.trim().parse().map_err(|why| self.bad(format!("{text:?}: {why}")))
    }

    pub fn number(&self) -> Result<u64, CliError> {
        let text = self.text()?;
        text.trim().parse().map_err(|_| self.bad(format!("{text:?} is not a whole number, 0 or more")))
    }

    pub fn ratio(&self) -> Result<f64, CliError> {
        let text = self.text()?;
        let parsed = text.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
        parsed.ok_or_else(|| self.bad(format!("{text:?} is not a number, 0 or more")))
    }

    pub fn truth(&self) -> Result<bool, CliError> {
        match (self.value, self.text()?.to_ascii_lowercase().as_str()) {
            (Value::Bool(truth), _) => Ok(*truth),
            (_, "yes" | "on" | "y") => Ok(true),
            (_, "no" | "off" | "n") => Ok(false),
            (_, text) => parse_bool(text).map_err(|why| self.bad(why)),
        }
    }

    /// A list of texts, or one alone.
    pub fn texts(&self) -> Result<Vec<String>, CliError> {
        match self.value {
            Value::Array(_) => self.items()?.iter().map(Field::text).collect(),
            _ => Ok(vec![self.text()?]),
        }
    }

    /// `[A=1, B]` or `{A: 1, B: null}`.
    pub fn pairs(&self) -> Result<BTreeMap<String, Option<String>>, CliError> {
        if self.value.is_object() {
            let pair = |(key, field): (&str, Field<'_>)| match field.value {
                Value::Null => Ok((key.to_owned(), None)),
                _ => Ok((key.to_owned(), Some(field.text()?))),
            };
            return self.entries()?.into_iter().map(pair).collect();
        }
        let pair = |field: &Field<'_>| {
            let text = field.text()?;
            Ok(match text.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (text, None),
            })
        };
        self.items()?.iter().map(pair).collect()
    }

    /// Likewise, nothing being the empty text.
    pub fn labels(&self) -> Result<BTreeMap<String, String>, CliError> {
        Ok(self.pairs()?.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
    }

    /// Every key must be known; what is `ignored` is told, what isn't known is an error in the end.
    pub fn check(&self, known: &[&str], ignored: &[&str], report: &mut Report) -> Result<(), CliError> {
        for (key, value) in self.map()? {
            if known.contains(&key.as_str()) || key.starts_with("x-") {
                continue;
            }
            let place = format!("{}.{key}", self.at);
            if ignored.contains(&key.as_str()) {
                report.ignored.extend((!value.is_null()).then_some(place));
            } else {
                report.unknown.push((place, meant(key, known)));
            }
        }
        Ok(())
    }
}

/// The known key that was probably meant.
pub fn meant(key: &str, known: &[&str]) -> Option<String> {
    let most = if key.chars().count() < 4 { 1 } else { 2 };
    let near = known.iter().map(|known| (typos(key, known), *known)).filter(|(typos, _)| *typos <= most);
    near.min().map(|(_, known)| known.to_owned())
}

/// How many letters were put in, left out, taken for others, or swapped with their neighbours.
fn typos(typed: &str, meant: &str) -> usize {
    let (typed, meant): (Vec<char>, Vec<char>) = (typed.chars().collect(), meant.chars().collect());
    // The rows of the table that are needed: what it takes to make each beginning of `meant` of so much of `typed`.
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=meant.len()).collect();
    for (n, letter) in typed.iter().enumerate() {
        let mut next = vec![n + 1];
        for (m, other) in meant.iter().enumerate() {
            let at = |row: &[usize], m: usize| row.get(m).copied().unwrap_or(usize::MAX - 1);
            let changed = at(&row, m) + usize::from(letter != other);
            let mut least = changed.min(at(&row, m + 1) + 1).min(at(&next, m) + 1);
            let swapped = m > 0 && n > 0 && meant.get(m - 1) == Some(letter) && typed.get(n - 1) == Some(other);
            if swapped {
                least = least.min(at(&before, m - 1) + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_nearly_one_is_recognised_and_others_are_not() {
        assert_eq!(
            [("imag", "image"), ("iamge", "image"), ("image", "image"), ("", "ab"), ("imagge", "image"), ("xyz", "ab")]
                .map(|(typed, meant)| typos(typed, meant)),
            [1, 1, 0, 2, 1, 3]
        );
        let known = ["image", "ports", "dns", "tty", "environment"];
        for (key, want) in [
            ("imag", Some("image")),
            ("port", Some("ports")),
            ("enviroment", Some("environment")),
            ("dn", Some("dns")),
            ("env", None),
            ("ps", None),
            ("tier", None),
        ] {
            assert_eq!(meant(key, &known).as_deref(), want, "{key}");
        }
    }
}
