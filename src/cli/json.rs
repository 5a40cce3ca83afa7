//! Reading and editing Docker's JSON without types of our own: what we don't know must survive an update.

use super::error::CliError;
use serde_json::{Map, Value};

pub type Object = Map<String, Value>;

/// The text at a JSON pointer, or "".
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at a JSON pointer, or 0.
pub fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

pub fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at a JSON pointer, or an empty one.
pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The texts in the list at a JSON pointer.
pub fn texts<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    list(value, pointer).iter().filter_map(Value::as_str).collect()
}

/// Names and texts of the object at a JSON pointer, by name.
pub fn pairs<'a>(value: &'a Value, pointer: &str) -> Vec<(&'a str, &'a str)> {
    let object = value.pointer(pointer).and_then(Value::as_object);
    object
        .map(|map| map.iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default())).collect())
        .unwrap_or_default()
}

/// There, and not null.
pub fn is_there(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).is_some_and(|found| !found.is_null())
}

/// How the last write stands that no majority holds yet, if there is one: "held by 1 of 5 nodes".
pub fn pending(service: &Value) -> Option<&str> {
    let why = service.get("PeerPending").and_then(Value::as_str)?;
    Some(why.strip_prefix("pending: ").unwrap_or(why))
}

/// What a write must say it has read.
pub fn index(object: &Value) -> String {
    number(object, "/Version/Index").to_string()
}

pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The object itself; an answer that isn't one is the agent's fault.
pub fn into_object(value: Value) -> Result<Object, CliError> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(CliError::new(format!("the agent answered {other} where an object belongs"))),
    }
}

/// The object under `key`, made where there is none.
pub fn child<'a>(object: &'a mut Object, key: &str) -> &'a mut Object {
    let slot = object.entry(key).or_insert_with(|| Value::Object(Object::new()));
    if !slot.is_object() {
        *slot = Value::Object(Object::new());
    }
    match slot {
        Value::Object(child) => child,
        // Made one just above.
        _ => unreachable!("the slot holds an object"),
    }
}

pub fn put(object: &mut Object, key: &str, value: impl Into<Value>) {
    object.insert(key.to_owned(), value.into());
}

/// Docker's `omitempty`: zero is the same as not there.
pub fn put_nonzero(object: &mut Object, key: &str, value: u64) {
    if value == 0 { drop(object.remove(key)) } else { put(object, key, value) }
}

pub fn put_text(object: &mut Object, key: &str, value: &str) {
    if value.is_empty() { drop(object.remove(key)) } else { put(object, key, value) }
}

pub fn put_true(object: &mut Object, key: &str, value: bool) {
    if value { put(object, key, true) } else { drop(object.remove(key)) }
}

pub fn put_list(object: &mut Object, key: &str, value: Vec<Value>) {
    if value.is_empty() { drop(object.remove(key)) } else { put(object, key, value) }
}

pub fn put_texts(object: &mut Object, key: &str, value: Vec<String>) {
    put_list(object, key, value.into_iter().map(Value::String).collect());
}

pub fn take_texts(object: &Object, key: &str) -> Vec<String> {
    let list = object.get(key).and_then(Value::as_array);
    list.map(|list| list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()).unwrap_or_default()
}

/// JSON text laid out with four spaces, in its own order and to the letter, as docker prints it.
pub fn indented(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut chars = text.chars().filter(|c| !matches!(c, '\n' | '\r' | '\t')).peekable();
    let mut in_string = false;
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"    ".repeat(depth));
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_string => {
                out.push(c);
                out.extend(chars.next());
            }
            '"' => {
                in_string = !in_string;
                out.push(c);
            }
            _ if in_string => out.push(c),
            ' ' => {}
            '{' | '[' => {
                while chars.next_if_eq(&' ').is_some() {}
                out.push(c);
                match chars.next_if(|next| matches!(next, '}' | ']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        newline(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_laid_out_without_touching_order_or_texts() {
        let text = "[{\"b\":1, \"a\":{ },\"s\":\"x, \\\"{y}: z\\\\\",\n\"l\":[1.50,true]}]\n";
        let want = "[\n    {\n        \"b\": 1,\n        \"a\": {},\n        \"s\": \"x, \\\"{y}: z\\\\\",\n        \"l\": [\n            1.50,\n            true\n        ]\n    }\n]";
        assert_eq!(indented(text), want);
        assert_eq!(indented("[]"), "[]");
    }

    #[test]
    fn empty_things_are_left_out_as_docker_leaves_them_out() {
        let mut object = into_object(json!({ "Env": ["A=1"], "TTY": true, "Limits": null })).unwrap();
        put_texts(&mut object, "Env", Vec::new());
        put_true(&mut object, "TTY", false);
        put_nonzero(child(&mut object, "Limits"), "NanoCPUs", 5);
        assert_eq!(Value::Object(object), json!({ "Limits": { "NanoCPUs": 5 } }));
    }
}
