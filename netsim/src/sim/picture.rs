//! A run as one picture: time runs down, a column is a node. Its line is drawn while its agent lives; beside it the lease
//! (a bar in the term's colour) and its containers (a bar each, in the colour of their image); behind it the faults that
//! name it. Dots are what it said; lines between columns are elections and goodbyes. Everything tells more when it is
//! pointed at. One file, which needs nothing else.

use super::trace::{Mark, Trace};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

const LEFT: f64 = 70.0;
const TOP: f64 = 46.0;
const COLUMN: f64 = 190.0;
/// Pixels for a second; the first and the last run into minutes.
const SECOND: f64 = 9.0;
const CONTAINER: f64 = 7.0;

const STYLE: &str = "body{margin:0;font:12px system-ui,sans-serif;background:#fff;color:#222}\
h1{font-size:16px;margin:12px 16px 2px}p{margin:2px 16px 6px;max-width:110ch}.bad{color:#b00020;font-weight:600}\
svg text{font:11px system-ui,sans-serif}.head{position:sticky;top:0;background:#fffffff0;border-bottom:1px solid #ccc}\
.grid{stroke:#eee}.life{stroke:#333;stroke-width:1.5}.off{stroke:#bbb;stroke-dasharray:2 4}.dot{fill:#555}.warn{fill:#c60}\
.sent{stroke:#36c;stroke-width:.8;opacity:.55}.fault{fill:#f6c453;opacity:.22}.all{fill:#b48ead;opacity:.13}\
.here{stroke:#b00020;stroke-width:2}:is(rect,circle,line):hover{stroke:#000;opacity:1}";

fn y(at: u64) -> f64 {
    TOP + at as f64 / 1e6 * SECOND
}

fn x(node: usize) -> f64 {
    LEFT + COLUMN * node as f64 + 40.0
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The same word always in the same colour, its neighbours in others.
fn colour(of: &str, light: u32) -> String {
    let hash = of.bytes().fold(7u32, |h, b| h.wrapping_mul(131).wrapping_add(u32::from(b)));
    format!("hsl({} 62% {light}%)", hash.wrapping_mul(137) % 360)
}

struct Bar<'a> {
    at: u64,
    until: u64,
    x: f64,
    width: f64,
    style: &'a str,
    tip: &'a str,
}

/// The page for one run: `verdict` stands in its head.
pub fn draw(trace: &Trace, title: &str, verdict: &str, broken: bool) -> String {
    let mut page = String::new();
    // Writing into a String can't fail.
    let _ = page_of(&mut page, trace, title, verdict, broken);
    page
}

fn page_of(out: &mut String, trace: &Trace, title: &str, verdict: &str, broken: bool) -> fmt::Result {
    let end = trace.lines.iter().map(|l| l.at).chain(trace.marks.iter().map(|(at, _)| *at)).max().unwrap_or(0);
    let of_lines = trace.lines.iter().filter_map(|l| l.node);
    let of_marks = trace.marks.iter().filter_map(|(_, m)| if let Mark::Lives(n, _) = m { Some(*n) } else { None });
    let nodes = of_lines.chain(of_marks).max().map_or(1, |n| n + 1);
    let (width, height) = (LEFT + COLUMN * nodes as f64, y(end) + 30.0);
    write!(out, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{}</title>", escaped(title))?;
    write!(out, "<style>{STYLE}</style><h1>{}</h1>", escaped(title))?;
    write!(out, "<p{}>{}</p>", if broken { " class=\"bad\"" } else { "" }, escaped(verdict))?;
    write!(
        out,
        "<p>Time runs down, in seconds. Black: the agent lives; dashed: it doesn't. Left of it the lease, by term; right of it \
         containers, by image. Yellow: a fault of this node; mauve: of all. Dots: what it said (orange: a warning). Blue: \
         elections and goodbyes. Point at anything.</p>"
    )?;
    write!(out, "<svg class=\"head\" width=\"{width}\" height=\"24\">")?;
    for node in 0..nodes {
        write!(out, "<text x=\"{}\" y=\"16\" font-weight=\"600\">n{node}</text>", x(node) - 6.0)?;
    }
    write!(out, "</svg><br><svg width=\"{width}\" height=\"{height}\">")?;
    for second in (0..=end / 1_000_000).step_by(10) {
        let at = y(second * 1_000_000);
        write!(out, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{width}\" y1=\"{at}\" y2=\"{at}\"/>")?;
        write!(out, "<text x=\"8\" y=\"{}\">{second} s</text>", at + 4.0)?;
    }
    faults(out, trace, width)?;
    bars(out, trace, nodes, end)?;
    for (at, mark) in &trace.marks {
        if let Mark::Sent { from, to, arrives, what } = mark {
            write!(
                out,
                "<line class=\"sent\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"><title>{} n{from} to n{to}, {:.3} s</title></line>",
                x(*from),
                y(*at),
                x(*to),
                y(*arrives),
                what,
                *at as f64 / 1e6
            )?;
        }
    }
    said(out, trace, width)?;
    write!(out, "</svg></html>")
}

fn bar(out: &mut String, bar: &Bar<'_>) -> fmt::Result {
    let height = (y(bar.until) - y(bar.at)).max(1.5);
    write!(
        out,
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{height:.1}\" {}><title>{} ({:.3} to {:.3} s)</title></rect>",
        bar.x,
        y(bar.at),
        bar.width,
        bar.style,
        escaped(bar.tip),
        bar.at as f64 / 1e6,
        bar.until as f64 / 1e6
    )
}

fn faults(out: &mut String, trace: &Trace, width: f64) -> fmt::Result {
    for (at, mark) in &trace.marks {
        let Mark::Fault { nodes, until, what } = mark else { continue };
        if nodes.is_empty() {
            bar(out, &Bar { at: *at, until: *until, x: LEFT, width: width - LEFT, style: "class=\"all\"", tip: what })?;
        }
        for node in nodes {
            let x = x(*node) - 36.0;
            bar(out, &Bar { at: *at, until: *until, x, width: COLUMN - 12.0, style: "class=\"fault\"", tip: what })?;
        }
    }
    Ok(())
}

/// Lives, leases and containers, each from its beginning to its end.
fn bars(out: &mut String, trace: &Trace, nodes: usize, end: u64) -> fmt::Result {
    let mut lives: BTreeMap<usize, (u64, bool)> = (0..nodes).map(|n| (n, (0, false))).collect();
    let mut leases: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    let mut running: BTreeMap<(usize, String), (u64, String, usize)> = BTreeMap::new();
    let line = |out: &mut String, node: usize, from: u64, until: u64, lives: bool| {
        let (class, x) = (if lives { "life" } else { "off" }, x(node));
        write!(out, "<line class=\"{class}\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>", y(from), y(until))
    };
    let lease = |out: &mut String, node: usize, from: u64, until: u64, term: u64| {
        let tip = format!("n{node} holds the lease, term {term}");
        let style = format!("fill=\"{}\"", colour(&format!("term {term}"), 45));
        bar(out, &Bar { at: from, until, x: x(node) - 16.0, width: 10.0, style: &style, tip: &tip })
    };
    let container =
        |out: &mut String, node: usize, name: &str, until: u64, (from, image, row): (u64, String, usize)| {
            let tip = format!("{name}: {image}");
            let style = format!("fill=\"{}\"", colour(&image, 62));
            let x = x(node) + 10.0 + row as f64 * CONTAINER;
            bar(out, &Bar { at: from, until, x, width: CONTAINER - 1.5, style: &style, tip: &tip })
        };
    for (at, mark) in &trace.marks {
        match mark {
            Mark::Lives(node, on) => {
                if let Some((from, was)) = lives.insert(*node, (*at, *on)) {
                    line(out, *node, from, *at, was)?;
                }
            }
            Mark::Holds(node, term) => {
                if let Some((from, term)) = leases.remove(node) {
                    lease(out, *node, from, *at, term)?;
                }
                if let Some(term) = term {
                    leases.insert(*node, (*at, *term));
                }
            }
            Mark::Runs { node, task, image, on } => {
                let key = (*node, task.clone());
                if let Some(began) = running.remove(&key) {
                    container(out, *node, task, *at, began)?;
                }
                if *on {
                    let taken: Vec<usize> =
                        running.iter().filter(|((n, _), _)| n == node).map(|(_, (_, _, row))| *row).collect();
                    let row = (0..).find(|row| !taken.contains(row)).unwrap_or(0);
                    running.insert(key, (*at, image.clone(), row));
                }
            }
            Mark::Sent { .. } | Mark::Fault { .. } => {}
        }
    }
    for (node, (from, on)) in lives {
        line(out, node, from, end, on)?;
    }
    for (node, (from, term)) in leases {
        lease(out, node, from, end, term)?;
    }
    for ((node, task), began) in running {
        container(out, node, &task, end, began)?;
    }
    Ok(())
}

fn said(out: &mut String, trace: &Trace, width: f64) -> fmt::Result {
    for line in &trace.lines {
        let (at, secs, text) = (y(line.at), line.at as f64 / 1e6, escaped(&line.text));
        match line.node {
            Some(node) => {
                let class = if line.text.starts_with("warns") { "dot warn" } else { "dot" };
                write!(
                    out,
                    "<circle class=\"{class}\" cx=\"{}\" cy=\"{at}\" r=\"2.6\"><title>{secs:.3} s n{node}: {text}</title></circle>",
                    x(node)
                )?;
            }
            None if line.text.starts_with("VIOLATION") || line.text.starts_with("HEALED") => {
                let class = if line.text.starts_with("VIOLATION") { "here" } else { "off" };
                let short: String = line.text.chars().take(110).collect();
                write!(
                    out,
                    "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{width}\" y1=\"{at}\" y2=\"{at}\"><title>{secs:.3} s {text}</title></line>\
                     <text x=\"{}\" y=\"{}\">{}</text>",
                    LEFT + 4.0,
                    at - 4.0,
                    escaped(&short)
                )?;
            }
            None => {}
        }
    }
    Ok(())
}
