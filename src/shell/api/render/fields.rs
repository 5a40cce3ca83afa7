//! A JSON object whose values stay as they were written: what we don't know or don't touch goes back to the letter,
//! numbers, order and all.

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;

#[derive(Debug, Clone, Default)]
pub struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// `None` if the text isn't a JSON object.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The value's text; `None` where there is none or it is null, which mean the same to Docker.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, raw)| raw.get()).filter(|text| *text != "null")
    }

    pub fn object(&self, key: &str) -> Option<Self> {
        self.get(key).and_then(Self::parse)
    }

    pub fn set(&mut self, key: &str, value: &impl Serialize) {
        let Ok(raw) = serde_json::value::to_raw_value(value) else {
            return;
        };
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = raw,
            None => self.0.push((key.to_owned(), raw)),
        }
    }

    /// Sets it to a value that was read as it is here.
    pub fn set_text(&mut self, key: &str, text: &str) {
        if let Ok(raw) = RawValue::from_string(text.to_owned()) {
            self.set(key, &raw);
        }
    }

    /// Takes it out; its text, if it was there.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1.get().to_owned())
    }

    /// Sets it where there is none.
    pub fn default(&mut self, key: &str, value: &impl Serialize) {
        if self.get(key).is_none() {
            self.set(key, value);
        }
    }

    /// Changes the object under `key`; one that isn't there or is no object is left as it is.
    pub fn within(&mut self, key: &str, change: impl FnOnce(&mut Self)) {
        if let Some(mut object) = self.object(key) {
            change(&mut object);
            self.set(key, &object);
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, raw) in &self.0 {
            map.serialize_entry(key, raw)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_comes_back_to_the_letter() {
        let text = r#"{"z":1.10,"a":{"Big":18446744073709551615,"u":"\u00e9"},"n":null}"#;
        let mut fields = Fields::parse(text).unwrap();
        assert_eq!(serde_json::to_string(&fields).unwrap(), text);
        fields.default("n", &7);
        fields.default("z", &7);
        fields.within("a", |a| a.set("new", &true));
        fields.within("missing", |_| panic!("nothing there"));
        assert_eq!(
            serde_json::to_string(&fields).unwrap(),
            r#"{"z":1.10,"a":{"Big":18446744073709551615,"u":"\u00e9","new":true},"n":7}"#
        );
        assert!(Fields::parse("[1]").is_none());
    }
}
