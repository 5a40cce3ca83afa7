//! The part of Go's templates that scripts use with `--format`: `{{.Name}}`, `{{.Spec.Name}}`, `{{json .Spec}}`,
//! with `\t` and `\n`. Anything more is refused by name; `--format json` and a JSON tool do the rest.

use super::error::CliError;
use serde_json::Value;

pub fn render(template: &str, value: &Value) -> Result<String, CliError> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, tail)) = rest.split_once("{{") {
        out.push_str(&unescaped(before));
        let (action, tail) = tail.split_once("}}").ok_or_else(|| refused(template, "a {{ without its }}"))?;
        out.push_str(&filled(template, action.trim(), value)?);
        rest = tail;
    }
    out.push_str(&unescaped(rest));
    Ok(out)
}

fn filled(template: &str, action: &str, value: &Value) -> Result<String, CliError> {
    if let Some(path) = action.strip_prefix("json ") {
        return Ok(at(template, path.trim(), value)?.to_string());
    }
    Ok(match at(template, action, value)? {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".to_owned(),
        other => other.to_string(),
    })
}

fn at<'a>(template: &str, path: &str, value: &'a Value) -> Result<&'a Value, CliError> {
    let Some(path) = path.strip_prefix('.') else {
        return Err(refused(
            template,
            &format!("{path:?} is not understood: want {{{{.Field}}}} or {{{{json .Field}}}}"),
        ));
    };
    let mut found = value;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        found = match found {
            Value::Object(map) => map.get(name).unwrap_or(&Value::Null),
            _ => &Value::Null,
        };
    }
    if found.is_null() && value.is_object() && !path.contains('.') && value.get(path).is_none() && !path.is_empty() {
        let fields: Vec<&str> = value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        return Err(refused(template, &format!("there is no field {path} (there are {})", fields.join(", "))));
    }
    Ok(found)
}

fn unescaped(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
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
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let value = json!({ "Name": "web" });
        assert!(render("{{.Nmae}}", &value).unwrap_err().message().contains("there are Name"));
        assert_eq!(render("{{range .}}", &value).unwrap_err().code(), 2);
        assert_eq!(render("{{.Name", &value).unwrap_err().code(), 2);
    }
}
