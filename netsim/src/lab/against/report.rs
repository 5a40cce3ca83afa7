//! The figures of both sides as a table and as JSON. What a run didn't take stays as an earlier run left it.

use super::rows::{self, Row};
use super::side::Orchestrator;
use crate::lab::bench::median;
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- lab bench --against swarm writes from here -->";
const END: &str = "<!-- to here -->";

/// What the rounds found of one row; `None`: not within the limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    pub swarm: Vec<Option<f64>>,
    pub peer: Vec<Option<f64>>,
}

#[derive(Default)]
pub struct Report {
    found: Vec<(Row, Found)>,
    /// What couldn't be measured, and why.
    pub failures: Vec<String>,
}

impl Report {
    pub fn add(&mut self, side: Orchestrator, row: Row, figure: Option<f64>) {
        let at = self.found.iter().position(|(known, _)| *known == row).unwrap_or_else(|| {
            self.found.push((row, Found::default()));
            self.found.len() - 1
        });
        let found = &mut self.found[at].1;
        match side {
            Orchestrator::Swarm => found.swarm.push(figure),
            Orchestrator::Peer => found.peer.push(figure),
        }
    }

    /// This run's rows; for the others, those of an earlier one.
    pub fn json(&self, earlier: &Value, about: Value) -> Value {
        let ours = |row: &Row| self.found.iter().find(|(known, _)| known == row);
        let before = |row: &Row| earlier["rows"].as_array()?.iter().find(|old| old["name"] == row.name).cloned();
        let row = |row: &Row| ours(row).map(|(row, found)| row_json(*row, found)).or_else(|| before(row));
        let rows: Vec<Value> = rows::ALL.iter().filter_map(row).collect();
        let mut all = Map::from_iter([("rows".to_owned(), Value::Array(rows))]);
        all.extend(about.as_object().cloned().unwrap_or_default());
        Value::Object(all)
    }
}

fn row_json(row: Row, found: &Found) -> Value {
    let [swarm, peer] = [&found.swarm, &found.peer].map(|values| middle(values));
    // Rounded: more digits than the clock has say nothing.
    let round = |value: f64| (value * 1e3).round() / 1e3;
    let ratio = swarm.zip(peer).filter(|(swarm, _)| *swarm > 0.0).map(|(swarm, peer)| round(peer / swarm));
    let side = |values: &[Option<f64>]| {
        let known = || values.iter().flatten().copied();
        let (min, max) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
        let never = values.iter().filter(|value| value.is_none()).count();
        json!({"min": min.is_finite().then(|| round(min)), "max": max.is_finite().then(|| round(max)),
            "runs": values.len(), "never": never})
    };
    json!({
        "name": row.name,
        "unit": row.unit,
        "swarm": swarm.map(round),
        "peer": peer.map(round),
        "ratio": ratio,
        "aim": row.aim,
        "swarm_runs": side(&found.swarm),
        "peer_runs": side(&found.peer),
    })
}

/// The median, with what never was as the largest; `None` if that is the median, or there is nothing.
fn middle(values: &[Option<f64>]) -> Option<f64> {
    Some(median(values.iter().map(|value| value.unwrap_or(f64::INFINITY)))).filter(|median| median.is_finite())
}

/// In Markdown, of what [`Report::json`] made.
pub fn table(report: &Value) -> String {
    let mut text = String::from("| what | Swarm | peer | peer / Swarm | aim for peer |\n|---|---|---|---|---|\n");
    for row in report["rows"].as_array().into_iter().flatten() {
        let side = |side: &str| cell(&row[side], &row[format!("{side}_runs")], &row["unit"]);
        let ratio = row["ratio"].as_f64().map_or("-".to_owned(), ratio_text);
        let aim = match (row["aim"].as_f64(), row["peer"].as_f64()) {
            (Some(aim), Some(peer)) => format!("{} {}", figure(aim), if peer <= aim { "reached" } else { "MISSED" }),
            (Some(aim), None) => figure(aim),
            (None, _) => String::new(),
        };
        let name = row["name"].as_str().unwrap_or_default();
        text += &format!("| {name} | {} | {} | {ratio} | {aim} |\n", side("swarm"), side("peer"));
    }
    text
}

/// For the README: what there are aims for, and the rows that those belong to ("- ...").
pub fn in_short(report: &Value) -> String {
    let rows: Vec<&Value> = report["rows"].as_array().into_iter().flatten().collect();
    let name = |row: &Value| row["name"].as_str().unwrap_or_default().to_owned();
    let is_part = |row: &&&Value| name(row).starts_with('-');
    let mut text = String::from("| | Swarm | peer | peer / Swarm |\n|---|---|---|---|\n");
    for (at, row) in rows.iter().enumerate() {
        let aimed = |row: &Value| !row["aim"].is_null();
        let has_parts =
            !name(row).starts_with('-') && rows[at + 1..].iter().take_while(is_part).any(|part| aimed(part));
        if aimed(row) || has_parts {
            let side = |side: &str| match row[side].as_f64() {
                Some(median) => format!("{} {}", figure(median), row["unit"].as_str().unwrap_or_default()),
                None => "never".to_owned(),
            };
            let ratio = row["ratio"].as_f64().map_or("-".to_owned(), ratio_text);
            text += &format!("| {} | {} | {} | {ratio} |\n", name(row), side("swarm"), side("peer"));
        }
    }
    text
}

fn cell(median: &Value, runs: &Value, unit: &Value) -> String {
    let number = |name: &str| runs[name].as_f64();
    let (count, never) = (number("runs").unwrap_or(0.0), number("never").unwrap_or(0.0));
    let unit = unit.as_str().unwrap_or_default();
    match (median.as_f64(), number("min").zip(number("max"))) {
        _ if count == 0.0 => "not measured".to_owned(),
        (Some(median), Some((min, max))) => {
            let never = if never > 0.0 { format!(", never in {never} of {count}") } else { String::new() };
            format!("{} {unit} ({}-{}{never})", figure(median), figure(min), figure(max))
        }
        (_, Some((min, _))) => format!("never in {never} of {count} ({} {unit} in another)", figure(min)),
        _ => format!("never, in {count} of {count}"),
    }
}

fn ratio_text(ratio: f64) -> String {
    if ratio < 0.005 { "<0.01".to_owned() } else { format!("{ratio:.2}") }
}

/// Three digits, as far as they tell anything.
fn figure(value: f64) -> String {
    match value.abs() {
        // A count, mostly.
        _ if value.fract() == 0.0 => format!("{value:.0}"),
        v if v < 0.005 => "<0.01".to_owned(),
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Puts the section in its place in a page, or at the end of one that has none.
pub fn placed(page: &str, section: &str) -> String {
    let section = format!("{BEGIN}\n{}\n{END}", section.trim_end());
    match (page.find(BEGIN), page.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{section}{}", &page[..begin], &page[end + END.len()..])
        }
        _ => format!("{}\n\n{section}\n", page.trim_end()),
    }
}

/// What an earlier run has written, if any has.
pub fn earlier(docs: &Path) -> Result<Value> {
    let file = docs.join("benchmarks.json");
    if !file.exists() {
        return Ok(Value::Null);
    }
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged: delete it, or mend it", file.display()))
}

/// `benchmarks.json`, the section in `benchmarks.md`, and the one of the README beside the directory, if it has one.
pub fn write(docs: &Path, report: &Value, section: &str) -> Result<()> {
    let (page, data) = (docs.join("benchmarks.md"), docs.join("benchmarks.json"));
    ensure!(docs.is_dir(), "--docs {}: no such directory", docs.display());
    let old = if page.exists() { fs::read_to_string(&page)? } else { "# Benchmarks\n".to_owned() };
    fs::write(&page, placed(&old, section)).with_context(|| page.display().to_string())?;
    let readme = docs.join("../README.md");
    if let Ok(old) = fs::read_to_string(&readme)
        && old.contains(BEGIN)
    {
        fs::write(&readme, placed(&old, &in_short(report))).with_context(|| readme.display().to_string())?;
    }
    fs::write(&data, format!("{report:#}\n")).with_context(|| data.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Values<'v> = &'v [Option<f64>];

    fn report(figures: &[(Row, Values, Values)]) -> Report {
        let mut report = Report::default();
        for (row, swarm, peer) in figures {
            swarm.iter().for_each(|figure| report.add(Orchestrator::Swarm, *row, *figure));
            peer.iter().for_each(|figure| report.add(Orchestrator::Peer, *row, *figure));
        }
        report
    }

    #[test]
    fn a_row_has_both_medians_and_their_ratio() {
        let seconds = [Some(3.0), Some(1.0), Some(2.0)];
        let json =
            report(&[(rows::CREATE_1, &seconds, &[Some(0.5), Some(0.4), Some(9.0)])]).json(&Value::Null, json!({}));
        let row = &json["rows"][0];
        assert_eq!(
            (&row["name"], &row["swarm"], &row["peer"]),
            (&json!(rows::CREATE_1.name), &json!(2.0), &json!(0.5))
        );
        assert_eq!(row["ratio"], json!(0.25));
        let table = table(&json);
        let line = table.lines().last().unwrap();
        assert!(line.ends_with("| 2 s (1-3) | 0.50 s (0.40-9) | 0.25 | 0.60 reached |"), "{line}");
    }

    #[test]
    fn what_never_was_is_no_number() {
        let json = report(&[(rows::CREATE_1, &[None, None, Some(4.0)], &[Some(0.7), None, Some(0.9)])])
            .json(&Value::Null, json!({}));
        let row = &json["rows"][0];
        assert_eq!((&row["swarm"], &row["peer"], &row["ratio"]), (&Value::Null, &json!(0.9), &Value::Null));
        let table = table(&json);
        assert!(
            table.contains(
                "| never in 2 of 3 (4 s in another) | 0.90 s (0.70-0.90, never in 1 of 3) | - | 0.60 MISSED |"
            ),
            "{table}"
        );
    }

    #[test]
    fn an_earlier_runs_rows_stay_in_the_tables_order() {
        let first =
            report(&[(rows::CREATE_5, &[Some(1.0)], &[Some(1.0)]), (rows::CREATE_50, &[Some(8.0)], &[Some(6.0)])]);
        let first = first.json(&Value::Null, json!({"machine": "old"}));
        let second = report(&[(rows::CREATE_1, &[Some(1.0)], &[]), (rows::CREATE_50, &[Some(4.0)], &[Some(1.0)])]);
        let second = second.json(&first, json!({"machine": "new"}));
        let names: Vec<&Value> = second["rows"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
        assert_eq!(names, [rows::CREATE_1.name, rows::CREATE_5.name, rows::CREATE_50.name]);
        assert_eq!((&second["rows"][2]["swarm"], &second["machine"]), (&json!(4.0), &json!("new")));
        assert!(table(&second).contains("| 1 s (1-1) | not measured | - | 0.60 |"), "{}", table(&second));
    }

    #[test]
    fn the_section_takes_its_own_place_and_no_more() {
        let page = placed("# Page\n\nold words\n", "first");
        assert!(page.starts_with("# Page\n\nold words\n\n") && page.contains("first"), "{page}");
        let page = placed(&format!("{page}\n## Next\n"), "second\n");
        assert!(!page.contains("first") && page.contains("second") && page.ends_with("\n## Next\n"), "{page}");
        assert_eq!(page.matches(BEGIN).count(), 1);
    }

    #[test]
    fn the_readme_claims_what_was_measured_and_nothing_else() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let readme = fs::read_to_string(root.join("README.md")).unwrap();
        let report = earlier(&root.join("docs")).unwrap();
        assert!(readme.contains(BEGIN));
        assert_eq!(placed(&readme, &in_short(&report)), readme, "lab bench --against swarm writes it");
    }

    #[test]
    fn the_short_table_has_what_there_are_aims_for_and_what_it_belongs_to() {
        let row = |name: &str, aim: Value| json!({"name": name, "unit": "s", "swarm": 2.0, "peer": 1.0, "ratio": 0.5, "aim": aim});
        let rows = [
            row("a", json!(1)),
            row("b", json!(null)),
            row("- of b", json!(null)),
            row("c", json!(null)),
            row("- of c", json!(3)),
        ];
        let short = in_short(&json!({ "rows": rows }));
        let names: Vec<&str> = short.lines().skip(2).map(|line| line.split('|').nth(1).unwrap().trim()).collect();
        assert_eq!(names, ["a", "c", "- of c"]);
    }

    #[test]
    fn no_row_stands_twice() {
        let names: std::collections::BTreeSet<&str> = rows::ALL.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows::ALL.len());
    }
}
