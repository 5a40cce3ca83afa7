//! The comma separated fields of docker's long flags, with quotes as in CSV, and the words of a command line.

/// `a=1,"b=2,3"` are two fields.
pub fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(c),
        }
    }
    if quoted {
        return Err(format!("a quote in {text:?} is not closed"));
    }
    fields.push(field);
    Ok(fields)
}

/// Words as a shell splits them, without its variables: `--args "sh -c 'echo hi'"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

impl std::str::FromStr for Words {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut chars = text.chars();
        let open = || format!("a quote in {text:?} is not closed");
        while let Some(c) = chars.next() {
            match c {
                c if c.is_whitespace() => words.extend(word.take()),
                '\'' => loop {
                    let word = word.get_or_insert_default();
                    match chars.next().ok_or_else(open)? {
                        '\'' => break,
                        c => word.push(c),
                    }
                },
                '"' => loop {
                    let word = word.get_or_insert_default();
                    match chars.next().ok_or_else(open)? {
                        '"' => break,
                        '\\' => match chars.next().ok_or_else(open)? {
                            c @ ('"' | '\\' | '$' | '`') => word.push(c),
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                },
                '\\' => word.get_or_insert_default().extend(chars.next()),
                c => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        Ok(Self(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_keep_their_commas() {
        assert_eq!(fields("type=tmpfs,target=/run").unwrap(), ["type=tmpfs", "target=/run"]);
        assert_eq!(fields(r#"a,"b=1,2","say ""hi""""#).unwrap(), ["a", "b=1,2", "say \"hi\""]);
        assert!(fields("\"a").is_err());
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        let words = |text: &str| text.parse::<Words>().map(|words| words.0);
        assert_eq!(
            words(r#"sh -c 'echo "a b"' x\ y "p \"q\" \n" "" "#).unwrap(),
            ["sh", "-c", "echo \"a b\"", "x y", "p \"q\" \\n", ""]
        );
        assert_eq!(words("").unwrap(), [""; 0]);
        assert!(words("'open").is_err());
    }
}
