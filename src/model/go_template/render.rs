//! The tree and the data into text.

use super::functions::{self, go_text, is_true};
use super::{Call, Node, Pipe, Template, Term};
use serde_json::Value;

/// A range in a range in a range over long lists is somebody's mistake. What is taken of the data counts by its entries.
const MAX_STEPS: usize = 1_000_000;
/// What a rendering yields at most: more than any secret or config holds.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Functions by their names; `None` for any that isn't among them.
pub type Functions<'d> = &'d dyn Fn(&str, &[Value]) -> Option<Result<Value, String>>;

/// What a template is rendered with.
pub struct Data<'d> {
    pub top: &'d Value,
    /// What is printed for a value that isn't there.
    pub nothing: &'d str,
    /// A field that `top` hasn't is an error, if it stands alone (`.Nmae`) and isn't asked for by an `if` or `with`.
    pub strict: bool,
    /// Those whose names were given to [`Template::parse`].
    pub call: Functions<'d>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Branches {
    Taken,
    All,
}

pub fn render(template: &Template, data: &Data<'_>, branches: Branches) -> Result<String, String> {
    let mut run = Run { data, branches, steps: 0, asking: 0, variables: Vec::new(), out: String::new() };
    run.nodes(&template.body, data.top)?;
    Ok(run.out)
}

struct Run<'d> {
    data: &'d Data<'d>,
    branches: Branches,
    steps: usize,
    /// Within so many conditions.
    asking: usize,
    variables: Vec<(String, Value)>,
    out: String,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        for node in nodes {
            self.take(1)?;
            self.node(node, dot)?;
            if self.out.len() > MAX_BYTES {
                return Err(format!("it yields more than the {MAX_BYTES} bytes allowed"));
            }
        }
        Ok(())
    }

    fn take(&mut self, steps: usize) -> Result<(), String> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS { Err(format!("it takes more than the {MAX_STEPS} steps allowed")) } else { Ok(()) }
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        let all = self.branches == Branches::All;
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipe) => {
                let value = self.pipe(pipe, dot)?;
                let text = if value.is_null() { self.data.nothing.to_owned() } else { go_text(&value) };
                self.out.push_str(&text);
            }
            Node::Declare { name, value } => {
                let value = self.pipe(value, dot)?;
                self.variables.push((name.clone(), value));
            }
            Node::Assign { name, value } => {
                let value = self.pipe(value, dot)?;
                let found = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                let (_, old) = found.ok_or_else(|| no_variable(name))?;
                *old = value;
            }
            Node::If { arms, otherwise } => {
                for (condition, body) in arms {
                    let holds = is_true(&self.asked(condition, dot)?);
                    if holds || all {
                        self.scope(body, dot)?;
                    }
                    if holds && !all {
                        return Ok(());
                    }
                }
                self.scope(otherwise, dot)?;
            }
            Node::With { of, body, otherwise } => {
                let value = self.asked(of, dot)?;
                if is_true(&value) || all {
                    self.scope(body, &value)?;
                }
                if !is_true(&value) || all {
                    self.scope(otherwise, dot)?;
                }
            }
            Node::Range { key, value, of, body, otherwise } => {
                let list = entries(self.asked(of, dot)?)?;
                if list.is_empty() || all {
                    self.scope(otherwise, dot)?;
                }
                for (at, item) in list {
                    let before = self.variables.len();
                    for (name, bound) in [(key, &at), (value, &item)] {
                        self.variables.extend(name.iter().map(|name| (name.clone(), bound.clone())));
                    }
                    self.nodes(body, &item)?;
                    self.variables.truncate(before);
                }
            }
        }
        Ok(())
    }

    fn scope(&mut self, body: &[Node], dot: &Value) -> Result<(), String> {
        let before = self.variables.len();
        self.nodes(body, dot)?;
        self.variables.truncate(before);
        Ok(())
    }

    /// For a condition: what isn't there is merely false.
    fn asked(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, String> {
        self.asking += 1;
        let value = self.pipe(pipe, dot);
        self.asking -= 1;
        value
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for call in &pipe.0 {
            last = Some(self.call(call, last, dot)?);
        }
        Ok(last.unwrap_or_default())
    }

    fn call(&mut self, call: &Call, piped: Option<Value>, dot: &Value) -> Result<Value, String> {
        self.take(1)?;
        let mut args = Vec::new();
        for arg in &call.args {
            args.push(self.term(arg, dot)?);
        }
        args.extend(piped);
        match &call.head {
            Term::Function(name) => self.function(name, &args),
            Term::Field(names) if !args.is_empty() => label(names, &args, dot),
            head => self.term(head, dot),
        }
    }

    fn function(&self, name: &str, args: &[Value]) -> Result<Value, String> {
        // The caller's own go before those that are always there.
        let result = (self.data.call)(name, args).unwrap_or_else(|| functions::call(name, args));
        result.map_err(|why| format!("{name}: {why}"))
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Result<Value, String> {
        let value = self.value_of(term, dot)?;
        let entries = match &value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        };
        self.take(entries)?;
        Ok(value)
    }

    fn value_of(&mut self, term: &Term, dot: &Value) -> Result<Value, String> {
        match term {
            Term::Literal(value) => Ok(value.clone()),
            Term::Field(names) => {
                self.refuse_missing(names, dot)?;
                fields(dot, names)
            }
            Term::Variable(name, names) if name.is_empty() => {
                self.refuse_missing(names, self.data.top)?;
                fields(self.data.top, names)
            }
            Term::Variable(name, names) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = found.ok_or_else(|| no_variable(name))?;
                fields(value, names)
            }
            Term::Function(name) => self.function(name, &[]),
            Term::Inner(pipe, names) => fields(&self.pipe(pipe, dot)?, names),
        }
    }

    fn refuse_missing(&self, names: &[String], dot: &Value) -> Result<(), String> {
        let ([name], Value::Object(map)) = (names, dot) else { return Ok(()) };
        let is_top = std::ptr::eq(dot, self.data.top);
        if self.data.strict && self.asking == 0 && is_top && !map.contains_key(name) {
            let known: Vec<&str> = map.keys().map(String::as_str).collect();
            return Err(format!("there is no field {name} (there are {})", known.join(", ")));
        }
        Ok(())
    }
}

fn no_variable(name: &str) -> String {
    format!("there is no variable ${name}")
}

fn fields(from: &Value, names: &[String]) -> Result<Value, String> {
    let mut found = from;
    for name in names {
        found = match found {
            Value::Object(map) => map.get(name).unwrap_or(&Value::Null),
            Value::Null => &Value::Null,
            other => return Err(format!("can't take .{name} of {}", functions::kind(other))),
        };
    }
    Ok(found.clone())
}

/// `.Label "key"`, of docker's lists: their labels are one text, `a=b,c=d`.
fn label(names: &[String], args: &[Value], dot: &Value) -> Result<Value, String> {
    let (above, [Value::String(key)]) = (&names[..names.len().saturating_sub(1)], args) else {
        return Err("Label: want one label's name, as .Label \"tier\"".to_owned());
    };
    let mut path = above.to_vec();
    path.push("Labels".to_owned());
    Ok(match fields(dot, &path)? {
        Value::Object(map) => map.get(key).cloned().unwrap_or_else(|| Value::String(String::new())),
        Value::String(text) => {
            let pairs = text.split(',').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let found = pairs.into_iter().find(|(name, _)| name == key).map(|(_, value)| value.to_owned());
            Value::String(found.unwrap_or_default())
        }
        _ => Value::String(String::new()),
    })
}

fn entries(value: Value) -> Result<Vec<(Value, Value)>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => Ok(list.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect()),
        Value::Object(map) => Ok(map.into_iter().map(|(key, item)| (Value::String(key), item)).collect()),
        other => Err(format!("can't range over {}", functions::kind(&other))),
    }
}
