//! The templates that Docker fills in per task, in environment variables, the hostname and mounts, and in the content of
//! secrets and configs that were made with `--template-driver golang`: `{{.Service.Name}}`,
//! `{{index .Service.Labels "x"}}`, `{{.Task.Slot}}` and the rest of [`FIELDS`].
//!
//! Docker finds a mistake when the task starts; we know the fields and their types, and find it when the spec is parsed.

use super::read::quoted;
use crate::ids::{NodeId, ServiceId, TaskId};
use crate::model::go_template::{Data, Template};
use crate::model::task::Slot;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the templates of one task stand for.
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

const FIELDS: [&str; 9] = [
    ".Service.ID",
    ".Service.Name",
    ".Node.ID",
    ".Node.Hostname",
    ".Node.Platform.OS",
    ".Node.Platform.Architecture",
    ".Task.ID",
    ".Task.Name",
    ".Task.Slot",
];
/// Not of one value.
const PARTS: [&str; 5] = [".Service", ".Service.Labels", ".Node", ".Node.Platform", ".Task"];
const LABELS: &str = ".Service.Labels.";

/// Swarm's own function, everywhere: `join SEPARATOR TEXT...`.
const JOIN: &[&str] = &["join"];
/// And those in the content of secrets and configs: a secret or config of the same task by its target, and a variable.
const IN_CONTENT: &[&str] = &["join", "secret", "config", "env"];

/// What `secret`, `config` and `env` (the first argument) mean for one task.
pub type Lookup<'l> = &'l dyn Fn(&str, &str) -> Result<String, String>;

/// `text` with its templates filled in.
pub fn expand(text: &str, context: &TemplateContext) -> Result<String, String> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    parsed(text, JOIN)?.render(&Data { top: &context.value(), nothing: "", strict: false, call: &join_alone })
}

/// Would [`expand`] understand it? The same answer for every context.
pub fn check(text: &str) -> Result<(), String> {
    if !text.contains("{{") {
        return Ok(());
    }
    parsed(text, JOIN)?.try_all(&Data { top: &sample(), nothing: "", strict: false, call: &join_alone })
}

/// The content of a secret or config with its templates filled in.
pub fn expand_content(text: &str, context: &TemplateContext, lookup: Lookup<'_>) -> Result<String, String> {
    let call = |name: &str, args: &[Value]| call(name, args, lookup);
    parsed(text, IN_CONTENT)?.render(&Data { top: &context.value(), nothing: "", strict: false, call: &call })
}

/// Would [`expand_content`] understand it, given that all is there that it looks up?
pub fn check_content(text: &str) -> Result<(), String> {
    let call = |name: &str, args: &[Value]| call(name, args, &|_, _| Ok("sample".to_owned()));
    parsed(text, IN_CONTENT)?.try_all(&Data { top: &sample(), nothing: "", strict: false, call: &call })
}

fn parsed(text: &str, functions: &[&str]) -> Result<Template, String> {
    let template = Template::parse(text, functions)?;
    match template.unknown_field(&is_known) {
        Some(field) => Err(format!(
            "unknown template {}: want {} or index .Service.Labels \"key\"",
            quoted(&format!("{{{{{field}}}}}")),
            FIELDS.join(", ")
        )),
        None => Ok(template),
    }
}

fn is_known(names: &[String]) -> bool {
    let field = format!(".{}", names.join("."));
    let is_label = field.strip_prefix(LABELS).is_some_and(|label| !label.contains('.'));
    is_label || FIELDS.contains(&field.as_str()) || PARTS.contains(&field.as_str())
}

fn join_alone(name: &str, args: &[Value]) -> Option<Result<Value, String>> {
    call(name, args, &|_, _| Ok(String::new()))
}

fn call(name: &str, args: &[Value], lookup: Lookup<'_>) -> Option<Result<Value, String>> {
    match (name, args) {
        ("join", [Value::String(by), parts @ ..]) => {
            let parts: Option<Vec<&str>> = parts.iter().map(Value::as_str).collect();
            Some(parts.map(|parts| parts.join(by).into()).ok_or_else(|| "want texts: join \",\" .A .B".to_owned()))
        }
        ("join", _) => Some(Err("want texts: join \",\" .A .B".to_owned())),
        ("secret" | "config" | "env", [Value::String(of)]) => Some(lookup(name, of).map(Value::String)),
        ("secret" | "config" | "env", _) => Some(Err(format!("want one name: {name} \"name\""))),
        _ => None,
    }
}

/// Of the types that every context has.
fn sample() -> Value {
    json!({
        "Service": { "ID": "x", "Name": "x", "Labels": { "x": "x" } },
        "Node": { "ID": "x", "Hostname": "x", "Platform": { "OS": "x", "Architecture": "x" } },
        "Task": { "ID": "x", "Name": "x", "Slot": "x" },
    })
}

impl TemplateContext {
    fn value(&self) -> Value {
        let slot = match self.slot {
            Slot::Replica(number) => number.to_string(),
            Slot::Node(node) => node.to_string(),
        };
        json!({
            "Service": { "ID": self.service_id.to_string(), "Name": self.service_name, "Labels": self.service_labels },
            "Node": {
                "ID": self.node_id.to_string(), "Hostname": self.node_hostname,
                "Platform": { "OS": self.node_os, "Architecture": self.node_arch },
            },
            "Task": { "ID": self.task_id.to_string(), "Name": self.task_name, "Slot": slot },
        })
    }
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
            (r#"{{join "-" .Service.Name .Task.Slot}}"#, "web-7".into()),
            (r#"{{if eq .Task.Slot "7"}}lucky{{else}}other{{end}}"#, "lucky".into()),
            (
                r#"{{with .Node}}{{.Hostname}}{{end}}{{range $k, $v := .Service.Labels}},{{$v}}{{end}}"#,
                "n1,dotted,front".into(),
            ),
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
            "{{if true}}x",
            "{{if .Nothing}}x{{end}}",
            "{{if .Task.Slot}}x{{else}}{{eq .Task.Slot 1}}{{end}}",
            "{{join .Task.Slot}}{{join 1}}",
            "{{secret \"x\"}}",
            "{{`}}",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
        let why = check("{{.Task.Foo}}").unwrap_err();
        assert!(why.starts_with(r#"unknown template "{{.Task.Foo}}": want .Service.ID, "#), "{why}");
    }

    #[test]
    fn content_looks_up_secrets_configs_and_variables() {
        let lookup = |kind: &str, name: &str| match (kind, name) {
            ("secret", "token") => Ok("hush".to_owned()),
            ("env", name) => Ok(name.to_lowercase()),
            _ => Err(format!("the task has no {kind} {name}")),
        };
        let text = r#"{{.Service.Name}}: {{secret "token"}} {{env "LEVEL"}}"#;
        assert_eq!(check_content(text), Ok(()));
        assert_eq!(expand_content(text, &context(), &lookup).as_deref(), Ok("web: hush level"));
        let missing = r#"{{config "nginx.conf"}}"#;
        assert_eq!(check_content(missing), Ok(()));
        assert_eq!(
            expand_content(missing, &context(), &lookup).unwrap_err(),
            "config: the task has no config nginx.conf"
        );
        assert!(check_content("{{secret}}").is_err());
        assert!(check_content("{{.Service.Nmae}}").unwrap_err().contains("unknown template"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[{}\"\\\\`.a-zA-Zé ]{0,60}") {
            let _ = expand(&text, &context());
        }
    }
}
