//! Generic resources: kinds of things that a node has so many of (GPUs, licences, slots of a device), of which a task
//! reserves some. They only count in placement, as in Swarm.
//!
//! A node says what it has in the engine label [`LABEL`], `gpu=2,ssd=3`: from its engine's own `node-generic-resources`,
//! or set as a label there. (In a label, so that a node's record has the form that all agents read.)

use std::collections::BTreeMap;

pub const LABEL: &str = "peer.generic-resources";
/// In a container's environment: how many of a kind are its own.
pub const ENV: &str = "DOCKER_RESOURCE_";

const MAX_KINDS: usize = 50;
const MAX_KIND_CHARS: usize = 64;

/// How many of each kind.
pub type Generic = BTreeMap<String, u64>;

/// `gpu=2,ssd=3`, each kind once.
pub fn parse(text: &str) -> Result<Generic, String> {
    let mut out = Generic::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (kind, count) = entry.split_once('=').ok_or_else(|| format!("{entry:?}: want KIND=NUMBER, as gpu=2"))?;
        let count = count.trim().parse::<u64>().ok().filter(|count| i64::try_from(*count).is_ok());
        let count = count.ok_or_else(|| format!("{entry:?}: want a whole number, as {}=2", kind.trim()))?;
        add(&mut out, kind.trim(), count)?;
    }
    Ok(out)
}

/// Each kind once; none of a kind is nothing.
pub fn add(to: &mut Generic, kind: &str, count: u64) -> Result<(), String> {
    let fits = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if kind.is_empty() || kind.chars().count() > MAX_KIND_CHARS || !kind.chars().all(fits) {
        return Err(format!("{kind:?} is no kind of resource: want letters, digits, - _ ., {MAX_KIND_CHARS} at most"));
    }
    if count > 0 && to.insert(kind.to_owned(), count).is_some() {
        return Err(format!("{kind} is given twice"));
    }
    if to.len() > MAX_KINDS {
        return Err(format!("more than the {MAX_KINDS} kinds allowed"));
    }
    Ok(())
}

pub fn text(generic: &Generic) -> String {
    generic.iter().map(|(kind, count)| format!("{kind}={count}")).collect::<Vec<_>>().join(",")
}

/// What a node with these engine labels has. What can't be read counts as nothing.
pub fn of_node(engine_labels: &BTreeMap<String, String>) -> Generic {
    engine_labels.get(LABEL).and_then(|text| parse(text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let generic = parse("ssd=3, gpu=2,none=0").unwrap();
        assert_eq!(text(&generic), "gpu=2,ssd=3");
        assert_eq!(parse(&text(&generic)).unwrap(), generic);
        assert_eq!(parse("").unwrap(), Generic::new());
        for (bad, why) in [
            ("gpu", "want KIND=NUMBER"),
            ("gpu=UUID1", "want a whole number"),
            ("gpu=-1", "want a whole number"),
            ("gpu=1,gpu=2", "given twice"),
            ("=1", "no kind"),
            ("a b=1", "no kind"),
        ] {
            assert!(parse(bad).unwrap_err().contains(why), "{bad}");
        }
        let labels = BTreeMap::from([(LABEL.to_owned(), "gpu=x".to_owned())]);
        assert_eq!(of_node(&labels), Generic::new());
    }
}
