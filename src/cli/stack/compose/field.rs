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
            if known.contains(&key.as_str()) || key.starts_with("x-") || value.is_null() {
                continue;
            }
            let place = format!("{}.{key}", self.at);
            if ignored.contains(&key.as_str()) { report.ignored.push(place) } else { report.unknown.push(place) }
        }
        Ok(())
    }
}
