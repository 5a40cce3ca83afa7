//! `--format` with one of Go's templates, as scripts have them: `{{.Name}}`, `{{json .Spec}}`, `{{range .Ports}}...{{end}}`,
//! with `\t` and `\n`. What is beyond [`crate::model::go_template`] is refused by name; `--format json` and a JSON tool do
//! the rest.

use super::error::CliError;
use crate::model::go_template::{Data, Template};
use serde_json::Value;

pub struct Format {
    typed: String,
    template: Template,
}

impl Format {
    pub fn parse(typed: &str) -> Result<Self, CliError> {
        let text = typed.replace("\\t", "\t").replace("\\n", "\n");
        let template = Template::parse(&text, &[]).map_err(|why| refused(typed, &why))?;
        Ok(Self { typed: typed.to_owned(), template })
    }

    pub fn render(&self, value: &Value) -> Result<String, CliError> {
        let data = Data { top: value, nothing: "<no value>", strict: true, call: &|_, _| None };
        self.template.render(&data).map_err(|why| refused(&self.typed, &why))
    }

    /// The head of a table whose rows it makes.
    pub fn titles(&self) -> String {
        self.template.titles(title)
    }
}

pub fn render(template: &str, value: &Value) -> Result<String, CliError> {
    Format::parse(template)?.render(value)
}

/// As docker heads the column of a field: DesiredState is DESIRED STATE, and CreatedAt is CREATED.
fn title(field: &str) -> String {
    let field = field.strip_suffix("At").unwrap_or(field);
    let mut out = String::new();
    let mut before = None;
    let mut chars = field.chars().peekable();
    while let Some(c) = chars.next() {
        let begins_word = c.is_uppercase()
            && before.is_some_and(|before: char| {
                before.is_lowercase() || (before.is_uppercase() && chars.peek().is_some_and(|next| next.is_lowercase()))
            });
        if begins_word {
            out.push(' ');
        }
        out.extend(c.to_uppercase());
        before = Some(c);
    }
    out
}

fn refused(template: &str, why: &str) -> CliError {
    CliError::misuse(format!("--format {template:?}: {why}")).hint("--format json prints every field")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_paths_and_json() {
        let value = json!({ "Name": "web", "Spec": { "Mode": { "Replicated": { "Replicas": 3 } } } });
        assert_eq!(render("{{.Name}}\\t{{ .Spec.Mode.Replicated.Replicas }}", &value).unwrap(), "web\t3");
        assert_eq!(render("{{json .Spec.Mode}}", &value).unwrap(), r#"{"Replicated":{"Replicas":3}}"#);
        assert_eq!(render("{{.Spec.Nothing}}", &value).unwrap(), "<no value>");
        assert_eq!(render("{{json .}}", &json!({ "a": 1 })).unwrap(), r#"{"a":1}"#);
        assert_eq!(render(r#"{{if .UpdateStatus}}x{{else}}{{upper .Name}}{{end}}\n"#, &value).unwrap(), "WEB\n");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let value = json!({ "Name": "web" });
        assert!(render("{{.Nmae}}", &value).unwrap_err().message().contains("there are Name"));
        assert_eq!(render("{{range .}}", &value).unwrap_err().code(), 2);
        assert_eq!(render("{{.Name", &value).unwrap_err().code(), 2);
    }

    #[test]
    fn columns_are_headed_as_docker_heads_them() {
        let titles = ["ID", "Name", "DesiredState", "ManagerStatus", "TLSStatus", "CreatedAt", "TaskID"].map(title);
        assert_eq!(titles, ["ID", "NAME", "DESIRED STATE", "MANAGER STATUS", "TLS STATUS", "CREATED", "TASK ID"]);
    }
}
