//! `${VAR}` in a Compose file's values, and the `.env` files that variables come from.

use std::collections::BTreeMap;

pub type Variables = BTreeMap<String, String>;

/// Fills in `$VAR`, `${VAR}`, `${VAR:-default}`, `${VAR-default}`, `${VAR:?error}`, `${VAR?error}`, `${VAR:+instead}` and
/// `${VAR+instead}`, whose words may hold variables themselves; `$$` is a dollar. Names that are unset are added to `unset`.
pub fn interpolate(text: &str, variables: &Variables, unset: &mut Vec<String>) -> Result<String, String> {
    fill(text, variables, unset, 0)
}

/// Defaults within defaults; more is somebody's mistake.
const MAX_DEPTH: usize = 16;

fn fill(text: &str, variables: &Variables, unset: &mut Vec<String>, depth: usize) -> Result<String, String> {
    if depth > MAX_DEPTH {
        return Err(format!("{text:?} has variables nested more than {MAX_DEPTH} deep"));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(braced) = after.strip_prefix('{') {
            let end = closing(braced).ok_or_else(|| format!("{text:?} has a ${{ without its }}"))?;
            out.push_str(&braced_value(&braced[..end], variables, unset, depth)?);
            rest = &braced[end + 1..];
        } else {
            let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
            let name = &after[..end];
            if !is_name(name) {
                return Err(format!("{text:?} has a $ that is no variable: write $$ for a dollar"));
            }
            out.push_str(&value(name, variables, unset));
            rest = &after[end..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace that was opened before is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1;
    for (at, c) in text.char_indices() {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}

fn braced_value(inside: &str, variables: &Variables, unset: &mut Vec<String>, depth: usize) -> Result<String, String> {
    let end = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inside.len());
    let (name, rest) = inside.split_at(end);
    if !is_name(name) {
        return Err(format!("${{{inside}}}: {name:?} is not a variable's name"));
    }
    let (colon, rest) = rest.strip_prefix(':').map_or((false, rest), |rest| (true, rest));
    let set = variables.get(name).filter(|value| !(colon && value.is_empty()));
    let (operator, word) = match rest.chars().next() {
        None if !colon => return Ok(value(name, variables, unset)),
        Some(operator @ ('-' | '?' | '+')) => (operator, &rest[1..]),
        _ => {
            return Err(format!(
                "${{{inside}}} is not understood: want ${{VAR}}, ${{VAR:-default}}, ${{VAR:?error}} or ${{VAR:+instead}}"
            ));
        }
    };
    match (operator, set) {
        ('-', Some(value)) | ('?', Some(value)) => Ok(value.clone()),
        ('-', None) | ('+', Some(_)) => fill(word, variables, unset, depth + 1),
        ('+', None) => Ok(String::new()),
        (_, _) => {
            let why = if word.is_empty() { "it is required" } else { word };
            Err(format!("the variable {name} is missing: {why}"))
        }
    }
}

fn value(name: &str, variables: &Variables, unset: &mut Vec<String>) -> String {
    variables.get(name).cloned().unwrap_or_else(|| {
        unset.push(name.to_owned());
        String::new()
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// The lines of a `.env` or `env_file`: NAME=VALUE, with or without `export`, quotes as a shell has them; in double quotes
/// and without any, variables of what came before and of `around` are filled in. A mere NAME takes its value from there.
pub fn dotenv(text: &str, around: &Variables) -> Result<Vec<(String, String)>, String> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut known = around.clone();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let bad = |why: String| format!("line {}: {why}", number + 1);
        let Some((name, raw)) = line.split_once('=') else {
            if let Some(value) = around.get(line) {
                found.push((line.to_owned(), value.clone()));
            }
            continue;
        };
        let name = name.trim();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(bad(format!("{name:?} is not a variable's name")));
        }
        let value = unquoted(raw.trim(), &known).map_err(bad)?;
        known.insert(name.to_owned(), value.clone());
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

fn unquoted(raw: &str, known: &Variables) -> Result<String, String> {
    if let Some(rest) = raw.strip_prefix('\'') {
        let end = rest.find('\'').ok_or("a quote is not closed")?;
        return Ok(rest[..end].to_owned());
    }
    if let Some(rest) = raw.strip_prefix('"') {
        let mut text = String::new();
        let mut chars = rest.chars();
        loop {
            match chars.next().ok_or("a quote is not closed")? {
                '"' => break,
                '\\' => match chars.next().ok_or("a quote is not closed")? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    other => text.push(other),
                },
                other => text.push(other),
            }
        }
        return interpolate(&text, known, &mut Vec::new());
    }
    // A comment behind a value needs a space before it.
    let end = raw.find(" #").unwrap_or(raw.len());
    interpolate(raw[..end].trim_end(), known, &mut Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("A", "1"), ("E", ""), ("NAME", "web")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    fn filled(text: &str) -> Result<String, String> {
        interpolate(text, &variables(), &mut Vec::new())
    }

    #[test]
    fn every_form_that_compose_knows() {
        for (text, want) in [
            ("plain", "plain"),
            ("$A-${A}", "1-1"),
            ("$$A", "$A"),
            ("${E:-d}${E-d}", "d"),
            ("${U:-d}${U-d}", "dd"),
            ("${U:-${A}${V:-x}}", "1x"),
            ("${A:+y}${U:+n}${E+z}", "yz"),
            ("${A:?no}", "1"),
            ("img:${TAG:-1.2}@${NAME}", "img:1.2@web"),
            ("{{.Task.Slot}}", "{{.Task.Slot}}"),
        ] {
            assert_eq!(filled(text).unwrap(), want, "{text}");
        }
        let mut unset = Vec::new();
        assert_eq!(interpolate("$U${V}", &variables(), &mut unset).unwrap(), "");
        assert_eq!(unset, ["U", "V"]);
    }

    #[test]
    fn what_is_missing_or_broken_is_named() {
        assert_eq!(filled("${U:?set it}").unwrap_err(), "the variable U is missing: set it");
        assert!(filled("${E:?}").unwrap_err().contains("E is missing"));
        for broken in ["${A", "${A:x}", "$", "a$ b", "${1}", "${A!}"] {
            assert!(filled(broken).is_err(), "{broken}");
        }
        let deep = format!("{}x{}", "${U:-".repeat(20), "}".repeat(20));
        assert!(filled(&deep).unwrap_err().contains("nested"));
    }

    #[test]
    fn lines_of_an_env_file() {
        let text = "# a comment\n\nexport B=2\nC = \"x ${B}\\n\" \nD='$B'\nE=a b # why\nA\nUNKNOWN\nF=\n";
        let found = dotenv(text, &variables()).unwrap();
        let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(found, [("B", "2"), ("C", "x 2\n"), ("D", "$B"), ("E", "a b"), ("A", "1"), ("F", "")]);
        assert_eq!(dotenv("x\n=1", &Variables::new()).unwrap_err(), "line 2: \"\" is not a variable's name");
        assert!(dotenv("A=\"x", &Variables::new()).unwrap_err().starts_with("line 1"));
    }
}
