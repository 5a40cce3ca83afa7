//! The bridge, a namespace and a cable for each node, and their faults.
//!
//! What the lab makes carries the lab's directory as its alias, and stands in the state file before it exists: only what
//! both say is ours is ever removed.

use super::process::{has_life, sh_ok, shell};
use super::{BRIDGE, Lab, LabConfig, NODES_MAX, SUBNET, address, link, namespace};
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// In front of the lab's directory in an alias.
const MARKED: &str = "peerlab ";

/// A namespace or a link.
struct Thing {
    is_namespace: bool,
    /// Its alias.
    mark: Option<String>,
}

impl Lab {
    /// The names of everything that the network is to be made of.
    pub(super) fn names(nodes: usize) -> impl Iterator<Item = String> {
        std::iter::once(BRIDGE.to_owned()).chain((1..=nodes).flat_map(|node| [namespace(node), link(node)]))
    }

    /// Nothing of these names may be there before the lab makes it.
    pub(super) fn check_names(nodes: usize) -> Result<()> {
        for name in Self::names(nodes) {
            let there = Self::look_at(&name).is_some();
            ensure!(!there, "{name} exists: another lab is up (end it with: lab down), or somebody else made it");
        }
        Ok(())
    }

    /// Takes away what is left of labs that died together with their guards, as when everything on a machine is ended at
    /// once: it stands in the way of every later lab, and nobody else will.
    pub(super) fn bury_the_dead() -> Result<()> {
        let names: Vec<String> = Self::names(NODES_MAX).collect();
        let mark = |name: &String| Self::look_at(name)?.mark?.strip_prefix(MARKED).map(PathBuf::from);
        let dirs: BTreeSet<PathBuf> = names.iter().filter_map(mark).collect();
        for dir in dirs.into_iter().filter(|dir| !has_life(dir)) {
            if let Ok(mut dead) = Self::attach(dir.clone()) {
                dead.down()?;
            } else {
                // Its directory was cleared away, and is not ours to guess at.
                let made = names.iter().filter(|name| mark(name).as_ref() == Some(&dir)).cloned().collect();
                let config = LabConfig { nodes: 0, dir, peer: None };
                let bare = false;
                Self { config, traced: false, mesh: None, bare, made, owned: false, guard: None }.remove_network()?;
            }
        }
        Ok(())
    }

    /// `None` if there is no namespace or link of this name.
    fn look_at(name: &str) -> Option<Thing> {
        let is_namespace = sh_ok(&format!("ip netns list | grep -qE '^{name}( |$)'"));
        let look = if is_namespace { format!("ip -n {name} link show lo") } else { format!("ip link show {name}") };
        let shown = shell(&look).ok()?;
        let text = String::from_utf8_lossy(&shown.stdout);
        let mark = text.lines().find_map(|line| line.trim().strip_prefix("alias ")).map(str::to_owned);
        (is_namespace || shown.status.success()).then_some(Thing { is_namespace, mark })
    }

    fn alias(&self) -> String {
        format!("{MARKED}{}", self.config.dir.display())
    }

    pub(super) fn make_bridge(&self) -> Result<()> {
        let alias = self.alias();
        self.sh(&format!(
            "ip link add {BRIDGE} type bridge && ip link set {BRIDGE} alias '{alias}' \
             && ip addr add {SUBNET}.254/24 dev {BRIDGE} && ip link set {BRIDGE} up"
        ))
    }

    pub(super) fn make_node(&self, node: usize) -> Result<()> {
        let (ns, veth, alias) = (namespace(node), link(node), self.alias());
        self.sh(&format!(
            "ip netns add {ns} && ip -n {ns} link set lo alias '{alias}' up \
             && ip link add {veth} type veth peer name eth0 netns {ns} && ip link set {veth} alias '{alias}' \
             && ip link set {veth} master {BRIDGE} up && ip -n {ns} addr add {}/24 dev eth0 \
             && ip -n {ns} link set eth0 up && ip -n {ns} route add default via {SUBNET}.254",
            address(node)
        ))
    }

    /// Removes what the lab made; what carries another lab's mark stays, and is an error.
    pub(super) fn remove_network(&self) -> Result<()> {
        for name in &self.made {
            let Some(Thing { is_namespace, mark }) = Self::look_at(name) else { continue };
            // Without a mark: it was made, and its maker ended before it could mark it.
            ensure!(mark.as_ref().is_none_or(|mark| *mark == self.alias()), "{name} is not this lab's: {mark:?}");
            sh_ok(&if is_namespace { format!("ip netns del {name}") } else { format!("ip link del {name}") });
        }
        Ok(())
    }

    /// Pulls or plugs a node's cable.
    pub fn set_link(&self, node: usize, up: bool) -> Result<()> {
        self.sh(&format!("ip link set {} {}", link(node), if up { "up" } else { "down" }))
    }

    /// Nothing passes between the two, in either direction, and neither is told.
    pub fn cut(&self, a: usize, b: usize) -> Result<()> {
        ensure!(a != b, "a node can't be cut from itself");
        self.deafen(a, b)?;
        self.deafen(b, a)
    }

    /// What `from` sends doesn't arrive at `node`, and neither is told.
    pub fn deafen(&self, node: usize, from: usize) -> Result<()> {
        // In front of everything that dockerd does, for what is delivered here and what is passed on.
        self.drop_rule("-I", node, from)
    }

    /// Undoes one [`Lab::deafen`].
    pub fn undeafen(&self, node: usize, from: usize) -> Result<()> {
        self.drop_rule("-D", node, from)
    }

    fn drop_rule(&self, change: &str, node: usize, from: usize) -> Result<()> {
        let rule = format!("-s {} -m comment --comment peerlab -j DROP", address(from));
        self.sh(&format!(
            "for chain in INPUT FORWARD; do ip netns exec {} iptables -w {change} $chain {rule} || exit 1; done",
            namespace(node)
        ))
    }

    /// Undoes cuts and pulled cables.
    pub fn heal(&self) -> Result<()> {
        for node in 1..=self.config.nodes {
            let ns = namespace(node);
            self.sh(&format!(
                "ip netns exec {ns} iptables -w -S | grep -- '--comment peerlab' | sed 's/^-A/-D/' | \
                 while read -r rule; do ip netns exec {ns} iptables -w $rule; done; ip link set {} up",
                link(node)
            ))?;
        }
        Ok(())
    }

    /// What a node's cable has carried, both ways.
    pub(super) fn cable_bytes(&self, node: usize) -> Result<u64> {
        let count = |name: &str| -> Result<u64> {
            let text = std::fs::read_to_string(format!("/sys/class/net/{}/statistics/{name}", link(node)))?;
            Ok(text.trim().parse()?)
        };
        Ok(count("rx_bytes")? + count("tx_bytes")?)
    }

    pub(super) fn is_plugged(&self, node: usize) -> bool {
        sh_ok(&format!("ip link show {} | grep -q 'state UP'", link(node)))
    }
}
