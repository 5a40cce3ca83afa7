//! What the `ls` and `ps` commands share: filters, and the same rows as a table, as ids, as JSON or by a template.

use super::console::Console;
use super::error::CliError;
use super::json::Object;
use super::table;
use super::template::Format;
use clap::Args;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Show only what matches, as name=web or label=tier=front
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub filter: Vec<(String, String)>,
    /// table, json, a template as '{{.ID}}', or a table of one: 'table {{.ID}}\t{{.Name}}'
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
        format => text = by_template(format, rows)?,
    }
    console.print(&text)
}

fn by_template(format: &str, rows: Vec<Row>) -> Result<String, CliError> {
    let own_table = format.strip_prefix("table ");
    let template = Format::parse(own_table.unwrap_or(format).trim_matches(' '))?;
    // Some fields only some rows have; in the others they are empty.
    let names: BTreeSet<String> = rows.iter().flat_map(|row| row.fields.keys().cloned()).collect();
    let render = |mut row: Row| {
        for name in &names {
            row.fields.entry(name.as_str()).or_insert_with(|| json!(""));
        }
        template.render(&Value::Object(row.fields))
    };
    let lines = rows.into_iter().map(render).collect::<Result<Vec<String>, _>>()?;
    if own_table.is_none() {
        return Ok(lines.iter().map(|line| format!("{line}\n")).collect());
    }
    let cells: Vec<Vec<String>> = lines.iter().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    let titles = template.titles();
    Ok(table::table(&titles.split('\t').collect::<Vec<_>>(), &cells))
}

/// Docker shows the first twelve characters of an id.
pub fn short(id: &str, no_trunc: bool) -> String {
    if no_trunc { id.to_owned() } else { id.chars().take(12).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_by_a_template_and_as_a_table_of_one() {
        let rows = || {
            let mut second = Row::new("2".to_owned(), &["ID", "Name"], vec!["2".to_owned(), "db".to_owned()]);
            second.fields.insert("Pending".to_owned(), json!("yes"));
            vec![Row::new("1".to_owned(), &["ID", "Name"], vec!["1".to_owned(), "web".to_owned()]), second]
        };
        assert_eq!(by_template("{{.Name}}:{{.Pending}}", rows()).unwrap(), "web:\ndb:yes\n");
        assert_eq!(
            by_template("table {{.Name}}\\t{{.ID | printf \"%02s\"}}", rows()).unwrap(),
            "NAME      ID\nweb       01\ndb        02\n"
        );
        assert_eq!(by_template("table {{.Name}}\\t{{.ID}}", Vec::new()).unwrap(), "NAME      ID\n");
        assert!(by_template("{{.Nmae}}", rows()).unwrap_err().message().contains("ID, Name, Pending"));
    }

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
