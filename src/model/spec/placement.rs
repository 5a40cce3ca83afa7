//! Where tasks may run: constraints, spread preferences, platforms. The grammar is that of
//! moby/swarmkit manager/constraint; what can never match there is refused here.

use super::read::{Field, quoted};
use super::{Constraint, NodeAttribute, Placement, SpecError};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

pub(super) fn placement(field: &Field<'_>) -> Result<Placement, SpecError> {
    let mut out = Placement { max_replicas: field.at("MaxReplicas")?.count(u64::MAX)?, ..Placement::default() };
    for item in field.at("Constraints")?.items()? {
        out.constraints.push(item.text()?.parse().map_err(|why: String| item.bad(why))?);
    }
    for item in field.at("Preferences")?.items()? {
        let spread = item.at("Spread")?;
        let descriptor = spread.at("SpreadDescriptor")?;
        if descriptor.text()?.is_empty() {
            return Err(descriptor.bad("missing: want a node attribute to spread over, as node.labels.zone"));
        }
        out.spread.push(descriptor.text()?.parse().map_err(|why: String| descriptor.bad(why))?);
    }
    for item in field.at("Platforms")?.items()? {
        out.platforms.push((item.at("OS")?.text()?.to_owned(), item.at("Architecture")?.text()?.to_owned()));
    }
    Ok(out)
}

impl FromStr for Constraint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let operator = [("==", true), ("!=", false)]
            .into_iter()
            .filter_map(|(sign, equal)| Some((text.find(sign)?, equal)))
            .min_by_key(|(at, _)| *at);
        let Some((at, equal)) = operator else {
            return Err(format!("constraint {} has no operator: want == or !=", quoted(text)));
        };
        let attribute = text[..at].trim().parse()?;
        let value = text[at + 2..].trim();
        check_value(&attribute, value).map_err(|why| format!("constraint {}: {why}", quoted(text)))?;
        Ok(Constraint { attribute, equal, value: value.to_owned() })
    }
}

fn check_value(attribute: &NodeAttribute, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("nothing to compare with".to_owned());
    }
    if value.contains('=') || value.chars().any(char::is_control) {
        return Err(format!("{} is no value to compare with", quoted(value)));
    }
    match attribute {
        NodeAttribute::Ip if parse_network(value).is_none() => {
            Err(format!("{} is neither an IP address nor a network as 10.0.0.0/8", quoted(value)))
        }
        NodeAttribute::Role if !["manager", "worker"].iter().any(|role| value.eq_ignore_ascii_case(role)) => {
            Err(format!("unknown role {}: want manager or worker", quoted(value)))
        }
        _ => Ok(()),
    }
}

/// "10.1.2.3" or "10.0.0.0/8" as an address and the number of leading bits that count.
pub fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(width), |b| b.parse().ok())?;
    (bits <= width).then_some((address, bits))
}

const ATTRIBUTES: [(&str, NodeAttribute); 6] = [
    ("node.id", NodeAttribute::Id),
    ("node.hostname", NodeAttribute::Hostname),
    ("node.ip", NodeAttribute::Ip),
    ("node.role", NodeAttribute::Role),
    ("node.platform.os", NodeAttribute::Os),
    ("node.platform.arch", NodeAttribute::Arch),
];
const NODE_LABELS: &str = "node.labels.";
const ENGINE_LABELS: &str = "engine.labels.";

impl FromStr for NodeAttribute {
    type Err = String;

    /// Names match without regard to case, keys of labels with it.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, attribute)) = ATTRIBUTES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
            return Ok(attribute.clone());
        }
        let key_after = |prefix: &str| {
            let (head, key) = text.split_at_checked(prefix.len())?;
            (head.eq_ignore_ascii_case(prefix) && is_label_key(key)).then(|| key.to_owned())
        };
        if let Some(key) = key_after(NODE_LABELS) {
            return Ok(NodeAttribute::Label(key));
        }
        if let Some(key) = key_after(ENGINE_LABELS) {
            return Ok(NodeAttribute::EngineLabel(key));
        }
        let known: Vec<&str> = ATTRIBUTES.iter().map(|(name, _)| *name).collect();
        Err(format!(
            "unknown node attribute {}: want {}, {NODE_LABELS}KEY or {ENGINE_LABELS}KEY",
            quoted(text),
            known.join(", ")
        ))
    }
}

fn is_label_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

impl fmt::Display for NodeAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeAttribute::Label(key) => write!(f, "{NODE_LABELS}{key}"),
            NodeAttribute::EngineLabel(key) => write!(f, "{ENGINE_LABELS}{key}"),
            plain => {
                f.write_str(ATTRIBUTES.iter().find(|(_, attribute)| attribute == plain).map_or("", |(name, _)| name))
            }
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.attribute, if self.equal { "==" } else { "!=" }, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_swarm_reads() {
        for (text, shown) in [
            ("node.role==worker", "node.role==worker"),
            (" node.labels.zone  !=  east coast ", "node.labels.zone!=east coast"),
            ("Node.Labels.Zone==e", "node.labels.Zone==e"),
            ("engine.labels.com.example/x==1", "engine.labels.com.example/x==1"),
            ("node.ip==10.0.0.0/8", "node.ip==10.0.0.0/8"),
            ("node.ip!=fd00::1", "node.ip!=fd00::1"),
            ("NODE.PLATFORM.ARCH==x86_64", "node.platform.arch==x86_64"),
        ] {
            let constraint: Constraint = text.parse().unwrap();
            assert_eq!(constraint.to_string(), shown);
            assert_eq!(shown.parse::<Constraint>().unwrap(), constraint);
        }
    }

    #[test]
    fn refuses_the_rest() {
        for (text, why) in [
            ("", "has no operator"),
            ("node.role=worker", "has no operator"),
            ("node.labels.a>=3", "has no operator"),
            ("node.role==", "nothing to compare with"),
            ("==x", "unknown node attribute \"\""),
            ("node.labels.==x", "unknown node attribute"),
            ("node.labels.a b==x", "unknown node attribute"),
            ("node.color==red", "want node.id, node.hostname, node.ip"),
            ("node.role==leader", "want manager or worker"),
            ("node.ip==10.0.0.0/33", "neither an IP address nor a network"),
            ("node.labels.a==b==c", "is no value"),
            ("é==x", "unknown node attribute"),
        ] {
            let found = text.parse::<Constraint>().unwrap_err();
            assert!(found.contains(why), "{text}: {found}");
        }
    }
}
