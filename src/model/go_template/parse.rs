//! Pieces and words into the tree.

use super::scan::{self, Piece, Word};
use super::{Call, MAX_DEPTH, Node, Pipe, Template, Term, functions};

pub fn template(text: &str, more: &[&str]) -> Result<Template, String> {
    let pieces = scan::pieces(text)?;
    let mut parser = Parser { pieces: pieces.into_iter(), more, depth: 0 };
    let (body, end) = parser.block()?;
    match end {
        Stop::Text => Ok(Template { body }),
        Stop::End => Err("{{end}} without what it ends".to_owned()),
        Stop::Else(_) => Err("{{else}} without an if".to_owned()),
    }
}

struct Parser<'t, I> {
    pieces: I,
    more: &'t [&'t str],
    depth: usize,
}

/// What a block was ended by.
enum Stop {
    Text,
    End,
    /// With what follows: `if PIPE`, or nothing.
    Else(Vec<Word>),
}

impl<'t, I: Iterator<Item = Piece<'t>>> Parser<'t, I> {
    fn block(&mut self) -> Result<(Vec<Node>, Stop), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} blocks within one another"));
        }
        let mut body = Vec::new();
        let end = loop {
            let action = match self.pieces.next() {
                None => break Stop::Text,
                Some(Piece::Text(text)) => {
                    body.push(Node::Text(text.to_owned()));
                    continue;
                }
                Some(Piece::Action(action)) => action,
            };
            let words = scan::words(action).map_err(|why| unknown(action, &why))?;
            match words.split_first() {
                Some((Word::Name(name), [])) if name == "end" => break Stop::End,
                Some((Word::Name(name), rest)) if name == "else" => break Stop::Else(rest.to_vec()),
                _ => body.push(self.node(action, &words)?),
            }
        };
        self.depth -= 1;
        Ok((body, end))
    }

    fn node(&mut self, action: &str, words: &[Word]) -> Result<Node, String> {
        let bad = |why: String| unknown(action, &why);
        match words {
            [Word::Name(name), rest @ ..] if name == "if" => self.choice(action, rest),
            [Word::Name(name), rest @ ..] if name == "with" => {
                let of = self.pipe(rest).map_err(bad)?;
                let (body, otherwise) = self.body_and_else(action)?;
                Ok(Node::With { of, body, otherwise })
            }
            [Word::Name(name), rest @ ..] if name == "range" => {
                let (key, value, rest) = match rest {
                    [Word::Variable(key, a), Word::Comma, Word::Variable(value, b), Word::Declare, rest @ ..]
                        if a.is_empty() && b.is_empty() =>
                    {
                        (Some(key.clone()), Some(value.clone()), rest)
                    }
                    [Word::Variable(value, a), Word::Declare, rest @ ..] if a.is_empty() => {
                        (None, Some(value.clone()), rest)
                    }
                    rest => (None, None, rest),
                };
                let of = self.pipe(rest).map_err(bad)?;
                let (body, otherwise) = self.body_and_else(action)?;
                Ok(Node::Range { key, value, of, body, otherwise })
            }
            [Word::Variable(name, fields), sign @ (Word::Declare | Word::Assign), rest @ ..]
                if fields.is_empty() && !name.is_empty() =>
            {
                let (name, value) = (name.clone(), self.pipe(rest).map_err(bad)?);
                let is_new = *sign == Word::Declare;
                Ok(if is_new { Node::Declare { name, value } } else { Node::Assign { name, value } })
            }
            [Word::Name(name), ..] if ["define", "template", "block", "break", "continue"].contains(&name.as_str()) => {
                Err(bad(format!("{name} is not supported")))
            }
            words => self.pipe(words).map(Node::Print).map_err(bad),
        }
    }

    fn choice(&mut self, action: &str, condition: &[Word]) -> Result<Node, String> {
        let mut arms = Vec::new();
        let mut condition = self.pipe(condition).map_err(|why| unknown(action, &why))?;
        loop {
            let (body, end) = self.block()?;
            arms.push((condition, body));
            match end {
                Stop::Text => return Err(without_end(action)),
                Stop::End => return Ok(Node::If { arms, otherwise: Vec::new() }),
                Stop::Else(words) => match words.as_slice() {
                    [] => break,
                    [Word::Name(name), rest @ ..] if name == "if" => {
                        condition = self.pipe(rest).map_err(|why| unknown(action, &why))?;
                    }
                    _ => return Err(unknown(action, "want {{else}} or {{else if ...}}")),
                },
            }
        }
        let (otherwise, end) = self.block()?;
        match end {
            Stop::End => Ok(Node::If { arms, otherwise }),
            _ => Err(without_end(action)),
        }
    }

    fn body_and_else(&mut self, action: &str) -> Result<(Vec<Node>, Vec<Node>), String> {
        let (body, end) = self.block()?;
        match end {
            Stop::End => return Ok((body, Vec::new())),
            Stop::Else(words) if words.is_empty() => {}
            _ => return Err(without_end(action)),
        }
        match self.block()? {
            (otherwise, Stop::End) => Ok((body, otherwise)),
            _ => Err(without_end(action)),
        }
    }

    fn pipe(&self, words: &[Word]) -> Result<Pipe, String> {
        let mut words = words.iter();
        let pipe = self.pipe_until(&mut words, 0)?.0;
        Ok(pipe)
    }

    /// Up to the end, or to the bracket that closes it, whose fields come with it.
    fn pipe_until(&self, words: &mut std::slice::Iter<'_, Word>, depth: usize) -> Result<(Pipe, Vec<String>), String> {
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} brackets within one another"));
        }
        let (mut calls, mut terms, mut after) = (Vec::new(), Vec::new(), Vec::new());
        let mut closed = depth == 0;
        for_each_word(words, |words, word| {
            match word {
                Word::Bar => calls.push(self.call(std::mem::take(&mut terms))?),
                Word::Open => {
                    let (inner, names) = self.pipe_until(words, depth + 1)?;
                    terms.push(Term::Inner(inner, names));
                }
                Word::Close(_) if depth == 0 => return Err("a ) without its (".to_owned()),
                Word::Close(names) => {
                    (closed, after) = (true, names.clone());
                    return Ok(false);
                }
                Word::Field(names) => terms.push(Term::Field(names.clone())),
                Word::Variable(name, names) => terms.push(Term::Variable(name.clone(), names.clone())),
                Word::Literal(value) => terms.push(Term::Literal(value.clone())),
                Word::Name(name) if functions::is_known(name) || self.more.contains(&name.as_str()) => {
                    terms.push(Term::Function(name.clone()));
                }
                Word::Name(name) => return Err(format!("there is no function {name}")),
                Word::Declare | Word::Assign | Word::Comma => return Err("unexpected := or ,".to_owned()),
            }
            Ok(true)
        })?;
        if !closed {
            return Err("a ( without its )".to_owned());
        }
        calls.push(self.call(terms)?);
        let literal_later = calls.iter().skip(1).any(|call| !matches!(call.head, Term::Function(_)));
        if literal_later {
            return Err("want a function behind |".to_owned());
        }
        Ok((Pipe(calls), after))
    }

    fn call(&self, mut terms: Vec<Term>) -> Result<Call, String> {
        if terms.is_empty() {
            return Err("empty: want a field, as .Name".to_owned());
        }
        let head = terms.remove(0);
        let takes_args = match &head {
            Term::Function(_) => true,
            // Docker's one method with an argument.
            Term::Field(names) | Term::Variable(_, names) => names.last().is_some_and(|name| name == "Label"),
            Term::Literal(_) | Term::Inner(..) => false,
        };
        if !terms.is_empty() && !takes_args {
            return Err("only a function takes arguments".to_owned());
        }
        Ok(Call { head, args: terms })
    }
}

/// Until `each` says false. It may take further words itself.
fn for_each_word<'w>(
    words: &mut std::slice::Iter<'w, Word>,
    mut each: impl FnMut(&mut std::slice::Iter<'w, Word>, &Word) -> Result<bool, String>,
) -> Result<(), String> {
    while let Some(word) = words.next() {
        if !each(words, word)? {
            break;
        }
    }
    Ok(())
}

fn unknown(action: &str, why: &str) -> String {
    let shown: String = action.chars().take(80).collect();
    format!("template \"{{{{{shown}}}}}\" is not understood: {why}")
}

fn without_end(action: &str) -> String {
    let shown: String = action.chars().take(80).collect();
    format!("template \"{{{{{shown}}}}}\" has no {{{{end}}}}")
}
