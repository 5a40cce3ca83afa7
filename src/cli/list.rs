//! What the `ls` and `ps` commands share: filters, and the same rows as a table, as ids, as JSON or by a template.

use super::console::Console;
use super::error::CliError;
use super::json::Object;
use super::{table, template};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Show only what matches, as name=web or label=tier=front
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub filter: Vec<(String, String)>,
    /// table, json, or a template as '{{.ID}}'
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    pub format: String,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Don't shorten anything
    #[arg(long)]
    pub no_trunc: bool,
}

pub fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("want KEY=VALUE")?;
    Ok((key.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// Docker's `filters` parameter, as its CLI writes it.
pub fn filters(pairs: &[(String, String)]) -> Option<String> {
    if pairs.is_empty() {
        return None;
    }
    let mut map: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    for (key, value) in pairs {
        map.entry(key).or_default().insert(value, true);
    }
    Some(json!(map).to_string())
}

/// One row: its cells for the table, its fields for everything else.
pub struct Row {
    pub id: String,
    pub cells: Vec<String>,
    pub fields: Object,
}

impl Row {
    /// `names` are those of the JSON fields, in the order of the cells.
    pub fn new(id: String, names: &[&str], cells: Vec<String>) -> Self {
        let fields = names.iter().zip(&cells).map(|(name, cell)| ((*name).to_owned(), json!(cell))).collect();
        Self { id, cells, fields }
    }
}

pub fn show(args: &ListArgs, header: &[&str], rows: Vec<Row>, console: &mut Console) -> Result<(), CliError> {
    let mut text = String::new();
    match args.format.as_str() {
        "table" | "" if args.quiet => rows.iter().for_each(|row| text.push_str(&format!("{}\n", row.id))),
        "table" | "" => {
            let cells: Vec<Vec<String>> = rows.into_iter().map(|row| row.cells).collect();
            text = table::table(header, &cells);
        }
        "json" => rows.into_iter().for_each(|row| text.push_str(&format!("{}\n", Value::Object(row.fields)))),
        format if format.starts_with("table ") => {
            return Err(CliError::misuse(format!("--format {format:?}: own tables are not supported"))
                .hint("use a template without \"table\", as '{{.ID}}\\t{{.Name}}'"));
        }
        format => {
            for row in rows {
                text.push_str(&template::render(format, &Value::Object(row.fields))?);
                text.push('\n');
            }
        }
    }
    console.print(&text)
}

/// Docker shows the first twelve characters of an id.
pub fn short(id: &str, no_trunc: bool) -> String {
    if no_trunc { id.to_owned() } else { id.chars().take(12).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_written_as_docker_writes_them() {
        let pair = |text: &str| key_value(text).unwrap();
        assert_eq!(filters(&[]), None);
        assert_eq!(
            filters(&[pair("name=web"), pair("label=a=b"), pair("name=db")]).unwrap(),
            r#"{"label":{"a=b":true},"name":{"db":true,"web":true}}"#
        );
        assert!(key_value("web").is_err());
    }
}
