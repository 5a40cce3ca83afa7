//! `extends`: a service that begins as another one, of this file or of a file beside it.

use super::{Report, Variables, fill, merge, read};
use crate::cli::error::CliError;
use serde_json::Value;
use std::path::Path;

/// One that extends one that extends one.
const MAX_DEPTH: usize = 8;
/// What isn't taken over, as Compose has it.
const OWN: [&str; 1] = ["depends_on"];

pub fn resolve(file: &mut Value, path: &Path, variables: &Variables, report: &mut Report) -> Result<(), CliError> {
    let Some(services) = file.get("services").and_then(Value::as_object) else { return Ok(()) };
    let names: Vec<String> =
        services.iter().filter(|(_, s)| s.get("extends").is_some()).map(|(name, _)| name.clone()).collect();
    for name in names {
        let whole = extended(file, &name, path, variables, report, 0)?;
        file["services"][&name] = whole;
    }
    Ok(())
}

fn extended(
    file: &Value,
    name: &str,
    path: &Path,
    variables: &Variables,
    report: &mut Report,
    depth: usize,
) -> Result<Value, CliError> {
    let at = format!("{}: services.{name}.extends", path.display());
    let Some(mut own) = file.get("services").and_then(|services| services.get(name)).cloned() else {
        return Err(CliError::new(format!("{at}: there is no service {name}")));
    };
    let Some(extends) = own.as_object_mut().and_then(|own| own.remove("extends")) else { return Ok(own) };
    if depth >= MAX_DEPTH {
        return Err(CliError::new(format!("{at}: more than {MAX_DEPTH} deep")));
    }
    let word = |key: &str| extends.get(key).and_then(Value::as_str);
    let Some(of) = word("service").or(extends.as_str()) else {
        return Err(CliError::new(format!("{at}: want the service's name")));
    };
    let mut base = match word("file") {
        None => extended(file, of, path, variables, report, depth + 1)?,
        Some(other) => {
            let other = path.parent().unwrap_or(Path::new(".")).join(other);
            let mut value = read(&other)?;
            fill(&mut value, variables, report, &mut String::new())
                .map_err(|why| CliError::new(format!("{}: {why}", other.display())))?;
            extended(&value, of, &other, variables, report, depth + 1)?
        }
    };
    if let Some(base) = base.as_object_mut() {
        OWN.iter().for_each(|key| drop(base.remove(*key)));
    }
    merge(&mut base, own, "");
    Ok(base)
}
