//! A node as placement sees it: its own word, its operators', and how membership sees it.

use crate::ids::NodeId;
use crate::model::node::{Availability, EngineState, Liveness, NodeFact, NodePolicy};
use crate::model::spec::{Constraint, NodeAttribute, parse_network};
use std::borrow::Cow;
use std::net::IpAddr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    pub id: NodeId,
    pub fact: NodeFact,
    pub policy: NodePolicy,
    pub liveness: Liveness,
}

/// Why a node takes no new work at all. The order is that in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unready {
    Removed,
    Down,
    Away,
    Suspect,
    Draining,
    Paused,
    EngineUnreachable,
    /// The agent has started and not reached its engine yet.
    EngineUnknown,
}

impl NodeInfo {
    /// New work goes only to a node that is alive, whose engine answers, and which its operators let work.
    /// What runs already is judged more gently: see `Placer::check` and `Placer::eligible`.
    pub fn is_ready(&self) -> bool {
        self.unready().is_none()
    }

    pub fn unready(&self) -> Option<Unready> {
        if self.policy.removed {
            return Some(Unready::Removed);
        }
        match self.liveness {
            Liveness::Down => return Some(Unready::Down),
            Liveness::Away => return Some(Unready::Away),
            Liveness::Suspect => return Some(Unready::Suspect),
            Liveness::Alive => {}
        }
        match self.policy.availability {
            Availability::Drain => return Some(Unready::Draining),
            Availability::Pause => return Some(Unready::Paused),
            Availability::Active => {}
        }
        match self.fact.engine {
            EngineState::Ready => None,
            EngineState::Unreachable(_) => Some(Unready::EngineUnreachable),
            EngineState::Unknown => Some(Unready::EngineUnknown),
        }
    }

    /// The attribute as text; empty where the node hasn't got it. Spreading groups nodes by it.
    pub fn attribute<'n>(&'n self, attribute: &NodeAttribute) -> Cow<'n, str> {
        let text = |found: Option<&'n String>| Cow::Borrowed(found.map_or("", String::as_str));
        match attribute {
            NodeAttribute::Id => Cow::Owned(self.id.to_string()),
            NodeAttribute::Hostname => Cow::Borrowed(&self.fact.hostname),
            NodeAttribute::Ip => Cow::Owned(self.fact.addr.ip().to_canonical().to_string()),
            // Every node is both; as a single word it is what it can do most.
            NodeAttribute::Role => Cow::Borrowed("manager"),
            NodeAttribute::Os => Cow::Borrowed(&self.fact.os),
            NodeAttribute::Arch => Cow::Borrowed(plain_arch(&self.fact.arch)),
            NodeAttribute::Label(key) => text(self.policy.labels.get(key)),
            NodeAttribute::EngineLabel(key) => text(self.fact.engine_labels.get(key)),
        }
    }

    /// Does the constraint hold here? Values are compared without regard to case, as in Swarm, and:
    ///
    /// - `node.role`: every node here is manager and worker at once, so `==` either holds, and `!=` excludes none.
    /// - `node.ip` takes an address or a network.
    /// - `node.platform.arch` knows both of the names that one architecture goes by.
    /// - What only the engine can tell counts as met while it doesn't answer: nothing is moved for want of knowledge,
    ///   and new work doesn't come here anyhow.
    pub fn meets(&self, constraint: &Constraint) -> bool {
        let want = constraint.value.as_str();
        let same = match &constraint.attribute {
            NodeAttribute::Role => return true,
            NodeAttribute::Os | NodeAttribute::Arch | NodeAttribute::EngineLabel(_)
                if self.fact.engine != EngineState::Ready =>
            {
                return true;
            }
            NodeAttribute::Id => is_id(self.id, want),
            NodeAttribute::Hostname => self.fact.hostname.eq_ignore_ascii_case(want),
            NodeAttribute::Ip => is_within(self.fact.addr.ip(), want),
            NodeAttribute::Os => self.fact.os.eq_ignore_ascii_case(want),
            NodeAttribute::Arch => same_arch(&self.fact.arch, want),
            NodeAttribute::Label(key) => is_text(self.policy.labels.get(key), want),
            NodeAttribute::EngineLabel(key) => is_text(self.fact.engine_labels.get(key), want),
        };
        same == constraint.equal
    }

    /// May an image for one of these (os, architecture) pairs run here? None at all means any; so does an empty part,
    /// on either side.
    pub fn runs_platform(&self, platforms: &[(String, String)]) -> bool {
        let matches = |have: &str, want: &str, same: fn(&str, &str) -> bool| {
            have.is_empty() || want.is_empty() || same(have, want)
        };
        platforms.is_empty()
            || platforms.iter().any(|(os, arch)| {
                matches(&self.fact.os, os, |a, b| a.eq_ignore_ascii_case(b))
                    && matches(&self.fact.arch, arch, same_arch)
            })
    }
}

fn is_text(have: Option<&String>, want: &str) -> bool {
    have.is_some_and(|have| have.eq_ignore_ascii_case(want))
}

fn is_id(id: NodeId, want: &str) -> bool {
    let parsed = match want.bytes().any(|b| b.is_ascii_uppercase()) {
        true => want.to_ascii_lowercase().parse::<NodeId>(),
        false => want.parse(),
    };
    parsed == Ok(id)
}

fn is_within(address: IpAddr, network: &str) -> bool {
    let Some((base, bits)) = parse_network(network) else { return false };
    match (address.to_canonical(), base) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            a.to_bits() & mask == b.to_bits() & mask
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            a.to_bits() & mask == b.to_bits() & mask
        }
        _ => false,
    }
}

fn same_arch(a: &str, b: &str) -> bool {
    plain_arch(a).eq_ignore_ascii_case(plain_arch(b))
}

/// Images say amd64 and arm64 (Go's names), engines x86_64 and aarch64 (the kernel's).
fn plain_arch(name: &str) -> &str {
    const ALIASES: [(&str, &str); 8] = [
        ("x86_64", "amd64"),
        ("x86-64", "amd64"),
        ("aarch64", "arm64"),
        ("armv6l", "arm"),
        ("armv7l", "arm"),
        ("armhf", "arm"),
        ("i386", "386"),
        ("i686", "386"),
    ];
    ALIASES.iter().find(|(alias, _)| name.eq_ignore_ascii_case(alias)).map_or(name, |(_, plain)| plain)
}

#[cfg(test)]
mod tests {
    use crate::model::node::{Availability, EngineState, Liveness};
    use crate::model::spec::Constraint;
    use crate::schedule::Unready;
    use crate::schedule::testing::node;

    #[test]
    fn constraints_as_in_swarm() {
        let mut n = node(1);
        n.fact.hostname = "Alpha".into();
        n.fact.addr = "10.1.2.3:7000".parse().unwrap();
        n.policy.labels.insert("zone".into(), "East".into());
        n.fact.engine_labels.insert("ssd".into(), "yes".into());
        let id = n.id.to_string();
        for (text, holds) in [
            (format!("node.id=={id}"), true),
            (format!("node.id=={}", id.to_uppercase()), true),
            (format!("node.id!={id}"), false),
            ("node.id==other".into(), false),
            ("node.hostname==alpha".into(), true),
            ("node.hostname!=alpha".into(), false),
            ("node.ip==10.1.2.3".into(), true),
            ("node.ip==10.1.0.0/16".into(), true),
            ("node.ip==0.0.0.0/0".into(), true),
            ("node.ip!=10.1.2.0/24".into(), false),
            ("node.ip==10.2.0.0/16".into(), false),
            ("node.ip==fd00::/8".into(), false),
            ("node.role==manager".into(), true),
            ("node.role==worker".into(), true),
            ("node.role!=manager".into(), true),
            ("node.role!=worker".into(), true),
            ("node.platform.os==Linux".into(), true),
            ("node.platform.arch==amd64".into(), true),
            ("node.platform.arch==x86_64".into(), true),
            ("node.platform.arch==arm64".into(), false),
            ("node.labels.zone==east".into(), true),
            ("node.labels.Zone==east".into(), false),
            ("node.labels.zone!=east".into(), false),
            ("node.labels.none!=x".into(), true),
            ("node.labels.none==x".into(), false),
            ("engine.labels.ssd==YES".into(), true),
            ("engine.labels.ssd!=yes".into(), false),
        ] {
            assert_eq!(n.meets(&text.parse::<Constraint>().unwrap()), holds, "{text}");
        }
    }

    #[test]
    fn what_a_silent_engine_would_have_to_tell_counts_as_met() {
        let mut n = node(1);
        n.fact.engine = EngineState::Unknown;
        n.fact.os = String::new();
        for text in ["node.platform.os==linux", "engine.labels.ssd==yes"] {
            assert!(n.meets(&text.parse().unwrap()), "{text}");
        }
        assert!(!n.meets(&"node.labels.zone==east".parse().unwrap()));
        assert!(n.runs_platform(&[("linux".into(), "amd64".into())]));
    }

    #[test]
    fn platforms_go_by_two_names() {
        let mut n = node(1);
        let pair = |os: &str, arch: &str| (os.to_owned(), arch.to_owned());
        assert!(n.runs_platform(&[]));
        assert!(n.runs_platform(&[pair("linux", "amd64")]));
        assert!(n.runs_platform(&[pair("linux", "")]));
        assert!(n.runs_platform(&[pair("", "x86_64")]));
        assert!(n.runs_platform(&[pair("linux", "arm64"), pair("Linux", "AMD64")]));
        assert!(!n.runs_platform(&[pair("linux", "arm64")]));
        assert!(!n.runs_platform(&[pair("windows", "amd64")]));
        n.fact.arch = "aarch64".into();
        assert!(n.runs_platform(&[pair("linux", "arm64")]));
    }

    #[test]
    fn ready_means_alive_active_and_with_an_engine() {
        assert!(node(1).is_ready());
        for (liveness, why) in
            [(Liveness::Down, Unready::Down), (Liveness::Away, Unready::Away), (Liveness::Suspect, Unready::Suspect)]
        {
            let mut n = node(1);
            n.liveness = liveness;
            assert_eq!(n.unready(), Some(why));
        }
        let mut n = node(1);
        n.fact.engine = EngineState::Unreachable("no socket".into());
        assert_eq!(n.unready(), Some(Unready::EngineUnreachable));
        n.policy.availability = Availability::Pause;
        assert_eq!(n.unready(), Some(Unready::Paused));
        n.policy.availability = Availability::Drain;
        assert_eq!(n.unready(), Some(Unready::Draining));
        n.policy.removed = true;
        assert_eq!(n.unready(), Some(Unready::Removed));
    }
}
