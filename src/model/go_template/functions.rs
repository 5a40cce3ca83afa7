//! The functions that are always there: Go's own, and those that Docker adds for `--format`.

use serde_json::Value;
use std::cmp::Ordering;

const NAMES: [&str; 22] = [
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "print", "println", "printf", "json",
    "join", "split", "lower", "upper", "title", "pad", "truncate",
];

/// A field is filled up to this at most.
const MAX_WIDTH: usize = 1_000;

pub fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

pub fn call(name: &str, args: &[Value]) -> Result<Value, String> {
    // To what works on text, a label that isn't there is an empty one.
    let is_for_text = ["split", "lower", "upper", "title", "pad", "truncate"].contains(&name);
    if is_for_text && args.first().is_some_and(Value::is_null) {
        let args = [&[Value::String(String::new())], &args[1..]].concat();
        return call(name, &args);
    }
    match (name, args) {
        ("and", [_, ..]) => Ok(args.iter().find(|arg| !is_true(arg)).or(args.last()).cloned().unwrap_or_default()),
        ("or", [_, ..]) => Ok(args.iter().find(|arg| is_true(arg)).or(args.last()).cloned().unwrap_or_default()),
        ("not", [one]) => Ok(Value::Bool(!is_true(one))),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let mut equal = false;
            for other in others {
                equal |= same(first, other)?;
            }
            Ok(Value::Bool(equal))
        }
        ("ne", [a, b]) => Ok(Value::Bool(!same(a, b)?)),
        ("lt", [a, b]) => Ok(Value::Bool(order(a, b)? == Ordering::Less)),
        ("le", [a, b]) => Ok(Value::Bool(order(a, b)? != Ordering::Greater)),
        ("gt", [a, b]) => Ok(Value::Bool(order(a, b)? == Ordering::Greater)),
        ("ge", [a, b]) => Ok(Value::Bool(order(a, b)? != Ordering::Less)),
        ("len", [one]) => length(one).map(Value::from),
        ("index", [from, keys @ ..]) if !keys.is_empty() => {
            keys.iter().try_fold(from.clone(), |from, key| entry(&from, key))
        }
        ("print", _) => Ok(args.iter().map(go_text).collect::<Vec<_>>().join(" ").into()),
        ("println", _) => Ok(format!("{}\n", args.iter().map(go_text).collect::<Vec<_>>().join(" ")).into()),
        ("printf", [Value::String(format), args @ ..]) => printf(format, args).map(Value::String),
        ("json", [one]) => Ok(one.to_string().into()),
        ("join", [Value::Array(list), Value::String(by)]) => {
            Ok(list.iter().map(go_text).collect::<Vec<_>>().join(by).into())
        }
        ("join", [Value::Null, Value::String(_)]) => Ok(String::new().into()),
        ("split", [Value::String(text), Value::String(by)]) if !by.is_empty() => {
            Ok(text.split(by.as_str()).map(Value::from).collect())
        }
        ("lower", [Value::String(text)]) => Ok(text.to_lowercase().into()),
        ("upper", [Value::String(text)]) => Ok(text.to_uppercase().into()),
        ("title", [Value::String(text)]) => Ok(title(text).into()),
        ("pad", [Value::String(text), before, after]) if !text.is_empty() => {
            Ok(format!("{}{text}{}", " ".repeat(width(before)?), " ".repeat(width(after)?)).into())
        }
        ("pad", [Value::String(_), _, _]) => Ok(String::new().into()),
        ("truncate", [Value::String(text), most]) => {
            let most = most.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or("want a number, 0 or more")?;
            Ok(text.chars().take(most).collect::<String>().into())
        }
        _ => Err(format!("can't be called with {}", kinds(args))),
    }
}

fn kinds(args: &[Value]) -> String {
    match args {
        [] => "no arguments".to_owned(),
        args => args.iter().map(kind).collect::<Vec<_>>().join(", "),
    }
}

pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

pub fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go prints a value.
pub fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

fn same(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        // What isn't there is like nothing else.
        (Value::Null, _) | (_, Value::Null) => Ok(a == b),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        _ => order(a, b).map(|order| order == Ordering::Equal),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Ok(a.cmp(&b)),
            _ => a.as_f64().partial_cmp(&b.as_f64()).ok_or_else(|| "not a number".to_owned()),
        },
        _ => Err(format!("can't compare {} with {}", kind(a), kind(b))),
    }
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::Null => Ok(0),
        Value::String(text) => Ok(text.len()),
        Value::Array(list) => Ok(list.len()),
        Value::Object(map) => Ok(map.len()),
        other => Err(format!("{} has no length", kind(other))),
    }
}

/// As in Go, what a map hasn't is its type's zero value; here that is an empty text.
fn entry(from: &Value, key: &Value) -> Result<Value, String> {
    match (from, key) {
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or_else(|| String::new().into())),
        (Value::Null, Value::String(_)) => Ok(String::new().into()),
        (Value::Array(list), Value::Number(at)) => {
            let found = at.as_u64().and_then(|at| usize::try_from(at).ok()).and_then(|at| list.get(at));
            found.cloned().ok_or_else(|| format!("there is no entry {at} in a list of {}", list.len()))
        }
        (from, key) => Err(format!("can't look up {} in {}", kind(key), kind(from))),
    }
}

fn title(text: &str) -> String {
    let mut at_start = true;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if at_start {
            out.extend(c.to_uppercase())
        } else {
            out.push(c)
        }
        at_start = c.is_whitespace();
    }
    out
}

fn width(value: &Value) -> Result<usize, String> {
    let width = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= MAX_WIDTH);
    width.ok_or_else(|| format!("want a number up to {MAX_WIDTH}"))
}

/// `%s %v %d %q %t %%`, with a width and `-` or `0` before it.
fn printf(format: &str, args: &[Value]) -> Result<String, String> {
    let (mut out, mut args, mut chars) = (String::new(), args.iter(), format.chars().peekable());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut left, mut zeros, mut digits) = (false, false, String::new());
        while let Some(c) = chars.peek().copied() {
            match c {
                '-' if digits.is_empty() => left = true,
                '0' if digits.is_empty() => zeros = true,
                '0'..='9' => digits.push(c),
                _ => break,
            }
            chars.next();
        }
        let verb = chars.next().ok_or("a % at the end")?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let arg = args.next().ok_or_else(|| format!("no argument for %{verb}"))?;
        let text = match (verb, arg) {
            ('s' | 'v', arg) => go_text(arg),
            ('d', Value::Number(n)) if n.as_f64().is_some_and(|n| n.fract() == 0.0) => n.to_string(),
            ('t', Value::Bool(b)) => b.to_string(),
            ('q', Value::String(text)) => format!("{text:?}"),
            _ => return Err(format!("%{verb} doesn't fit {}", kind(arg))),
        };
        let want: usize = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(usize::MAX) };
        if want > MAX_WIDTH {
            return Err(format!("a width of {digits} is more than the {MAX_WIDTH} allowed"));
        }
        let fill = want.saturating_sub(text.chars().count());
        match (left, zeros) {
            (true, _) => out.extend([text, " ".repeat(fill)]),
            (false, true) => out.extend(["0".repeat(fill), text]),
            (false, false) => out.extend([" ".repeat(fill), text]),
        }
    }
    match args.next() {
        None => Ok(out),
        Some(_) => Err("more arguments than the format has places for".to_owned()),
    }
}
