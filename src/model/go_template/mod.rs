//! The part of Go's text/template that Docker's users write: in `--format`, in environment variables, hostnames and mounts,
//! and in secrets and configs. Fields, variables, pipelines, `if`, `with`, `range` and the functions in [`functions`].
//! What isn't understood is an error that names it, when the text is parsed wherever that can be told then.
//!
//! Everything is bounded: how deep blocks stand in one another, how many steps a rendering takes, how much it yields.

mod functions;
mod parse;
mod render;
mod scan;

pub use functions::go_text;
pub use render::Data;

use serde_json::Value;

/// Blocks and brackets within one another; more is somebody's mistake.
const MAX_DEPTH: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    body: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Print(Pipe),
    Declare { name: String, value: Pipe },
    Assign { name: String, value: Pipe },
    If { arms: Vec<(Pipe, Vec<Node>)>, otherwise: Vec<Node> },
    With { of: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
    Range { key: Option<String>, value: Option<String>, of: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
}

/// Each call's result is the last argument of the next.
#[derive(Debug, Clone, PartialEq)]
struct Pipe(Vec<Call>);

#[derive(Debug, Clone, PartialEq)]
struct Call {
    head: Term,
    args: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq)]
enum Term {
    /// `.A.B`; `.` alone has no names.
    Field(Vec<String>),
    /// `$x.A.B`; `$` alone is the variable "" and means what the template is rendered with.
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    /// `(...).A`
    Inner(Pipe, Vec<String>),
}

impl Template {
    /// `more`: names of functions that [`Data::call`] knows beside those that are always there.
    pub fn parse(text: &str, more: &[&str]) -> Result<Self, String> {
        parse::template(text, more)
    }

    /// The titles of a table whose rows it renders: each field that is printed, by its last name.
    pub fn printed_fields(&self) -> Vec<&str> {
        let printed = self.body.iter().filter_map(|node| match node {
            Node::Print(pipe) => pipe.first_field(),
            _ => None,
        });
        printed.collect()
    }

    /// With every printed field replaced by what `title` makes of its name: the head of such a table.
    pub fn titles(&self, title: impl Fn(&str) -> String) -> String {
        let part = |node: &Node| match node {
            Node::Text(text) => text.clone(),
            Node::Print(pipe) => pipe.first_field().map(&title).unwrap_or_default(),
            _ => String::new(),
        };
        self.body.iter().map(part).collect()
    }

    pub fn render(&self, data: &Data<'_>) -> Result<String, String> {
        render::render(self, data, render::Branches::Taken)
    }

    /// Tries every branch with data that stand for all: an error is one that some data would meet, too, where all of them
    /// have the types of these.
    pub fn try_all(&self, data: &Data<'_>) -> Result<(), String> {
        render::render(self, data, render::Branches::All).map(|_| ())
    }

    /// The first chain of fields of what the template is rendered with that `known` doesn't know.
    pub fn unknown_field(&self, known: &dyn Fn(&[String]) -> bool) -> Option<String> {
        unknown_in(&self.body, true, known)
    }
}

impl Pipe {
    fn first_field(&self) -> Option<&str> {
        let call = self.0.first()?;
        let terms = std::iter::once(&call.head).chain(&call.args);
        terms.into_iter().find_map(|term| match term {
            Term::Field(names) | Term::Variable(_, names) => names.last().map(String::as_str),
            Term::Inner(pipe, _) => pipe.first_field(),
            Term::Literal(_) | Term::Function(_) => None,
        })
    }

    /// `at_top`: the dot is what the template is rendered with.
    fn unknown(&self, at_top: bool, known: &dyn Fn(&[String]) -> bool) -> Option<String> {
        let terms = self.0.iter().flat_map(|call| std::iter::once(&call.head).chain(&call.args));
        terms.into_iter().find_map(|term| match term {
            Term::Field(names) if at_top && !names.is_empty() && !known(names) => Some(format!(".{}", names.join("."))),
            Term::Variable(name, names) if name.is_empty() && !names.is_empty() && !known(names) => {
                Some(format!("$.{}", names.join(".")))
            }
            Term::Inner(pipe, _) => pipe.unknown(at_top, known),
            _ => None,
        })
    }
}

fn unknown_in(nodes: &[Node], at_top: bool, known: &dyn Fn(&[String]) -> bool) -> Option<String> {
    nodes.iter().find_map(|node| match node {
        Node::Text(_) => None,
        Node::Print(pipe) | Node::Declare { value: pipe, .. } | Node::Assign { value: pipe, .. } => {
            pipe.unknown(at_top, known)
        }
        Node::If { arms, otherwise } => arms
            .iter()
            .find_map(|(pipe, body)| pipe.unknown(at_top, known).or_else(|| unknown_in(body, at_top, known)))
            .or_else(|| unknown_in(otherwise, at_top, known)),
        Node::With { of, body, otherwise } | Node::Range { of, body, otherwise, .. } => of
            .unknown(at_top, known)
            .or_else(|| unknown_in(body, false, known))
            .or_else(|| unknown_in(otherwise, at_top, known)),
    })
}

#[cfg(test)]
mod tests;
