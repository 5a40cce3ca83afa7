//! The placeholders that Docker fills in per task, in environment variables and the hostname:
//! `{{.Service.Name}}`, `{{index .Service.Labels "x"}}`, `{{.Task.Slot}}` and the rest of [`WORDS`].
//!
//! Docker runs Go's whole template language here and finds a mistake when the task starts; we know the fields and
//! quoted text (`{{"{{"}}` for two braces), and find it when the spec is parsed.

use super::read::quoted;
use crate::ids::{NodeId, ServiceId, TaskId};
use crate::model::task::Slot;
use std::collections::BTreeMap;

/// What the placeholders of one task stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateContext {
    pub service_id: ServiceId,
    pub service_name: String,
    pub service_labels: BTreeMap<String, String>,
    pub node_id: NodeId,
    pub node_hostname: String,
    pub node_os: String,
    pub node_arch: String,
    pub task_id: TaskId,
    /// `service.slot.task`
    pub task_name: String,
    /// Its number, or for a global service the node's id.
    pub slot: Slot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    ServiceId,
    ServiceName,
    NodeId,
    NodeHostname,
    NodeOs,
    NodeArch,
    TaskId,
    TaskName,
    TaskSlot,
}

const WORDS: [(&str, Word); 9] = [
    (".Service.ID", Word::ServiceId),
    (".Service.Name", Word::ServiceName),
    (".Node.ID", Word::NodeId),
    (".Node.Hostname", Word::NodeHostname),
    (".Node.Platform.OS", Word::NodeOs),
    (".Node.Platform.Architecture", Word::NodeArch),
    (".Task.ID", Word::TaskId),
    (".Task.Name", Word::TaskName),
    (".Task.Slot", Word::TaskSlot),
];

#[derive(Debug, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t str),
    Word(Word),
    Label(String),
    Literal(String),
}

/// `text` with its placeholders filled in.
pub fn expand(text: &str, context: &TemplateContext) -> Result<String, String> {
    Ok(pieces(text)?.into_iter().map(|piece| context.fill(piece)).collect())
}

/// Would [`expand`] understand it? The same answer for every context.
pub fn check(text: &str) -> Result<(), String> {
    pieces(text).map(|_| ())
}

impl TemplateContext {
    fn fill(&self, piece: Piece<'_>) -> String {
        match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Literal(text) => text,
            // As in Go, a label that isn't there is empty.
            Piece::Label(key) => self.service_labels.get(&key).cloned().unwrap_or_default(),
            Piece::Word(word) => self.word(word),
        }
    }

    fn word(&self, word: Word) -> String {
        match word {
            Word::ServiceId => self.service_id.to_string(),
            Word::ServiceName => self.service_name.clone(),
            Word::NodeId => self.node_id.to_string(),
            Word::NodeHostname => self.node_hostname.clone(),
            Word::NodeOs => self.node_os.clone(),
            Word::NodeArch => self.node_arch.clone(),
            Word::TaskId => self.task_id.to_string(),
            Word::TaskName => self.task_name.clone(),
            Word::TaskSlot => match self.slot {
                Slot::Replica(number) => number.to_string(),
                Slot::Node(node) => node.to_string(),
            },
        }
    }
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        out.push(Piece::Text(&rest[..open]));
        let inside = &rest[open + 2..];
        let close =
            end_of_action(inside).ok_or_else(|| format!("template without an end: {}", quoted(&rest[open..])))?;
        out.push(action(inside[..close].trim())?);
        rest = &inside[close + 2..];
    }
    out.push(Piece::Text(rest));
    Ok(out)
}

/// Where the `}}` stands that isn't inside quotes.
fn end_of_action(text: &str) -> Option<usize> {
    let (mut in_quotes, mut escaped) = (false, false);
    text.char_indices().find_map(|(at, c)| {
        if !in_quotes && text[at..].starts_with("}}") {
            return Some(at);
        }
        if c == '"' && !escaped {
            in_quotes = !in_quotes;
        }
        escaped = in_quotes && c == '\\' && !escaped;
        None
    })
}

fn action(text: &str) -> Result<Piece<'_>, String> {
    if let Some((_, word)) = WORDS.iter().find(|(name, _)| *name == text) {
        return Ok(Piece::Word(*word));
    }
    if let Some(key) = text.strip_prefix(".Service.Labels.").filter(|key| is_identifier(key)) {
        return Ok(Piece::Label(key.to_owned()));
    }
    if let Some(argument) = index_argument(text) {
        return unquote(argument).map(Piece::Label).ok_or_else(|| unknown(text));
    }
    unquote(text).map(Piece::Literal).ok_or_else(|| unknown(text))
}

fn unknown(text: &str) -> String {
    let known: Vec<&str> = WORDS.iter().map(|(name, _)| *name).collect();
    format!(
        "unknown template {}: want {} or index .Service.Labels \"key\"",
        quoted(&format!("{{{{{text}}}}}")),
        known.join(", ")
    )
}

/// `index .Service.Labels ARGUMENT`
fn index_argument(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("index")?;
    let labels = rest.trim_start();
    let argument = labels.strip_prefix(".Service.Labels")?;
    (labels.len() < rest.len()).then_some(argument.trim_start())
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_') && chars.all(|c| c.is_alphanumeric() || c == '_')
}

/// A Go string: `"..."` with `\"` and `\\`, or `` `...` `` as it stands.
fn unquote(text: &str) -> Option<String> {
    if let Some(raw) = text.strip_prefix('`').and_then(|t| t.strip_suffix('`')) {
        return (!raw.contains('`')).then(|| raw.to_owned());
    }
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().filter(|next| matches!(next, '"' | '\\'))?),
            '"' => return None,
            _ => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> TemplateContext {
        TemplateContext {
            service_id: ServiceId::from_u128(1),
            service_name: "web".into(),
            service_labels: BTreeMap::from([("tier".into(), "front".into()), ("a.b c".into(), "dotted".into())]),
            node_id: NodeId::from_u128(2),
            node_hostname: "n1".into(),
            node_os: "linux".into(),
            node_arch: "x86_64".into(),
            task_id: TaskId::from_u128(3),
            task_name: "web.7.x".into(),
            slot: Slot::Replica(7),
        }
    }

    #[test]
    fn fills_in_every_placeholder() {
        let id = |n: u128| TaskId::from_u128(n).to_string();
        let table: &[(&str, String)] = &[
            ("", String::new()),
            ("plain }} text { {", "plain }} text { {".into()),
            ("h-{{.Task.Slot}}", "h-7".into()),
            ("{{ .Service.Name }}/{{.Service.ID}}", format!("web/{}", id(1))),
            ("{{.Node.ID}}{{.Node.Hostname}}", format!("{}n1", id(2))),
            ("{{.Node.Platform.OS}}-{{.Node.Platform.Architecture}}", "linux-x86_64".into()),
            ("{{.Task.ID}}={{.Task.Name}}", format!("{}=web.7.x", id(3))),
            (r#"{{index .Service.Labels "tier"}}"#, "front".into()),
            (r#"{{ index  .Service.Labels   "a.b c" }}!"#, "dotted!".into()),
            (r#"{{.Service.Labels.tier}}{{index .Service.Labels "none"}}"#, "front".into()),
            (r#"{{"{{"}}x{{"}}"}}"#, "{{x}}".into()),
            (r#"{{"a\"b\\"}}{{`c\`}}"#, r#"a"b\c\"#.into()),
        ];
        for (text, want) in table {
            assert_eq!(check(text), Ok(()), "{text}");
            assert_eq!(expand(text, &context()).as_ref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn the_slot_of_a_global_task_is_its_node() {
        let global = TemplateContext { slot: Slot::Node(NodeId::from_u128(2)), ..context() };
        assert_eq!(expand("{{.Task.Slot}}", &global), Ok(NodeId::from_u128(2).to_string()));
    }

    #[test]
    fn says_what_it_does_not_know() {
        for text in [
            "{{",
            "{{}}",
            "x{{.Task.Slot",
            "{{.Task.Slot}",
            "{{.Task.Foo}}",
            "{{task.slot}}",
            "{{index .Service.Labels}}",
            "{{index.Service.Labels \"x\"}}",
            "{{index .Service.Labels tier}}",
            "{{index .Node.Labels \"x\"}}",
            "{{\"unfinished}}",
            "{{.Service.Labels.a.b}}",
            "{{if true}}x{{end}}",
            "{{`}}",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
        let why = check("{{.Task.Foo}}").unwrap_err();
        assert!(why.starts_with(r#"unknown template "{{.Task.Foo}}": want .Service.ID, "#), "{why}");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[{}\"\\\\`.a-zA-Zé ]{0,60}") {
            let _ = expand(&text, &context());
        }
    }
}
