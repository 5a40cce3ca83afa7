//! Text into pieces, and the inside of `{{...}}` into words.

use serde_json::{Number, Value};

#[derive(Debug, PartialEq)]
pub enum Piece<'t> {
    Text(&'t str),
    /// What stands between the braces, without blanks and trim marks.
    Action(&'t str),
}

/// Comments are left out, and blanks around `{{-` and `-}}`.
pub fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut out = Vec::new();
    let (mut rest, mut trim_start) = (text, false);
    while let Some(open) = rest.find("{{") {
        let (mut before, inside) = (&rest[..open], &rest[open + 2..]);
        let close =
            end_of_action(inside).ok_or_else(|| format!("template without an end: {:?}", shortened(&rest[open..])))?;
        let (mut action, after) = (&inside[..close], &inside[close + 2..]);
        if trim_start {
            before = before.trim_start();
        }
        if let Some(marked) = action.strip_prefix('-').filter(|marked| marked.starts_with(char::is_whitespace)) {
            (action, before) = (marked, before.trim_end());
        }
        trim_start = false;
        if let Some(marked) = action.strip_suffix('-').filter(|marked| marked.ends_with(char::is_whitespace)) {
            (action, trim_start) = (marked, true);
        }
        out.push(Piece::Text(before));
        let action = action.trim();
        let is_comment = action.starts_with("/*") && action.ends_with("*/") && action.len() >= 4;
        if !is_comment {
            out.push(Piece::Action(action));
        }
        rest = after;
    }
    out.push(Piece::Text(if trim_start { rest.trim_start() } else { rest }));
    out.retain(|piece| *piece != Piece::Text(""));
    Ok(out)
}

fn shortened(text: &str) -> &str {
    text.char_indices().nth(80).map_or(text, |(cut, _)| &text[..cut])
}

/// Where the `}}` stands that isn't inside quotes or a comment.
fn end_of_action(text: &str) -> Option<usize> {
    let start = text.trim_start_matches('-').trim_start();
    if start.starts_with("/*") {
        let end = text.find("*/")? + 2;
        return Some(end + text[end..].find("}}")?);
    }
    let (mut quote, mut escaped) = (None, false);
    text.char_indices().find_map(|(at, c)| {
        match quote {
            None if text[at..].starts_with("}}") => return Some(at),
            None if matches!(c, '"' | '`' | '\'') => quote = Some(c),
            Some(open) if c == open && !escaped => quote = None,
            _ => {}
        }
        escaped = matches!(quote, Some('"' | '\'')) && c == '\\' && !escaped;
        None
    })
}

#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    Field(Vec<String>),
    Variable(String, Vec<String>),
    Name(String),
    Literal(Value),
    Bar,
    Open,
    /// With the fields that follow it.
    Close(Vec<String>),
    Declare,
    Assign,
    Comma,
}

pub fn words(action: &str) -> Result<Vec<Word>, String> {
    let mut out = Vec::new();
    let mut rest = action.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, tail) = match first {
            '|' => (Word::Bar, &rest[1..]),
            '(' => (Word::Open, &rest[1..]),
            ',' => (Word::Comma, &rest[1..]),
            '=' => (Word::Assign, &rest[1..]),
            ':' if rest.starts_with(":=") => (Word::Declare, &rest[2..]),
            ')' => {
                let (names, tail) = names(&rest[1..]);
                (Word::Close(names), tail)
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let (names, tail) = names(rest);
                let tail = if names.is_empty() { &rest[1..] } else { tail };
                (Word::Field(names), tail)
            }
            '$' => {
                let (name, tail) = identifier(&rest[1..]);
                let (names, tail) = names(tail);
                (Word::Variable(name.to_owned(), names), tail)
            }
            '"' => text(rest)?,
            '`' => {
                let end = rest[1..].find('`').ok_or_else(|| unfinished(rest))?;
                (Word::Literal(Value::String(rest[1..=end].to_owned())), &rest[end + 2..])
            }
            c if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => number(rest)?,
            c if c.is_alphabetic() || c == '_' => {
                let (name, tail) = identifier(rest);
                (name_or_literal(name), tail)
            }
            c => return Err(format!("unexpected {c:?}")),
        };
        // As in Go, operands don't touch one another.
        let is_operand = !matches!(word, Word::Bar | Word::Open | Word::Comma | Word::Assign | Word::Declare);
        if is_operand && !tail.is_empty() && !tail.starts_with(|c: char| c.is_whitespace() || "|(),=:".contains(c)) {
            return Err(format!("unexpected {:?}", shortened(tail)));
        }
        out.push(word);
        rest = tail.trim_start();
    }
    Ok(out)
}

fn name_or_literal(name: &str) -> Word {
    match name {
        "true" => Word::Literal(Value::Bool(true)),
        "false" => Word::Literal(Value::Bool(false)),
        "nil" => Word::Literal(Value::Null),
        name => Word::Name(name.to_owned()),
    }
}

fn identifier(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    text.split_at(end)
}

/// `.A.B` at the beginning of the text, as far as they go.
fn names(text: &str) -> (Vec<String>, &str) {
    let (mut names, mut rest) = (Vec::new(), text);
    while let Some(tail) = rest.strip_prefix('.') {
        let (name, tail) = identifier(tail);
        if name.is_empty() {
            break;
        }
        names.push(name.to_owned());
        rest = tail;
    }
    (names, rest)
}

fn unfinished(text: &str) -> String {
    format!("text without an end: {:?}", shortened(text))
}

/// `"..."` with Go's escapes.
fn text(from: &str) -> Result<(Word, &str), String> {
    let mut out = String::new();
    let mut chars = from.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Word::Literal(Value::String(out)), &from[at + 1..])),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(c @ ('"' | '\\')) => out.push(c),
                Some(c) => return Err(format!("unknown escape \\{c} in a text")),
                None => break,
            },
            c => out.push(c),
        }
    }
    Err(unfinished(from))
}

fn number(from: &str) -> Result<(Word, &str), String> {
    let end = from[1..].find(|c: char| !(c.is_ascii_digit() || c == '.')).map_or(from.len(), |end| end + 1);
    let (digits, tail) = from.split_at(end);
    let whole = digits.parse::<i64>().ok().map(Number::from);
    let number = whole.or_else(|| digits.parse::<f64>().ok().and_then(Number::from_f64));
    let number = number.ok_or_else(|| format!("bad number {digits:?}"))?;
    Ok((Word::Literal(Value::Number(number)), tail))
}
