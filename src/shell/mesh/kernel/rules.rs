//! What stands in our table, as a pure function of the route table: `ip peer`, one chain for each published port that the
//! kernel carries, one for what other nodes deliver here. (IPv4: what comes over IPv6 meets no rule and is taken by the
//! userspace listener of the same port.)

use crate::model::spec::{PortOptions, Protocol};
use crate::routes::{Backend, Port, Reach, RouteTable};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

pub const TABLE: &str = "peer";
/// Set on every connection that our rules have led somewhere.
pub const MARK: u32 = 0x1000_0000;

/// How this node's rules are to be, whatever the routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// The address that ports are published on, if not on all.
    pub publish_on: Option<Ipv4Addr>,
    /// What this node sends to others carries this address, by which they know it; otherwise whatever it leaves by.
    pub own: Option<Ipv4Addr>,
    /// Whether connections may go to other nodes, and be taken from them, outside of tunnels.
    pub plain: bool,
}

/// Everything that the rules are made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    pub ports: BTreeMap<Port, Vec<SocketAddrV4>>,
    pub deliveries: BTreeMap<Port, SocketAddrV4>,
    pub members: BTreeSet<Ipv4Addr>,
    /// The networks that local replicas are in: what comes from one and goes back into it must pass here on its way back too.
    pub networks: BTreeSet<Network>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    pub address: Ipv4Addr,
    pub prefix: u32,
}

/// Where the kernel leads a port's connections, or nothing if it doesn't carry the port: with a replica that can be had
/// through a tunnel only, TCP is for the userspace listener, which reaches all of them. UDP has no tunnels.
pub fn carried(port: Port, backends: &[Backend], plain: bool) -> Option<Vec<SocketAddrV4>> {
    let at = |backend: &Backend| led_to(backend, plain);
    let targets: Vec<SocketAddrV4> = match port.0 {
        Protocol::Tcp => backends.iter().map(at).collect::<Option<_>>()?,
        Protocol::Udp => backends.iter().filter_map(at).collect(),
        Protocol::Sctp => return None,
    };
    (!targets.is_empty()).then_some(targets)
}

/// Where the kernel finds this replica.
pub fn led_to(backend: &Backend, plain: bool) -> Option<SocketAddrV4> {
    match &backend.reach {
        Reach::Local(IpAddr::V4(ip)) => Some(SocketAddrV4::new(*ip, backend.target)),
        Reach::Remote { agent: SocketAddr::V4(agent), delivery: Some(delivery) } if plain => {
            Some(SocketAddrV4::new(*agent.ip(), *delivery))
        }
        Reach::Local(_) | Reach::Remote { .. } => None,
    }
}

/// The kernel's rules are for IPv4 alone.
pub fn v4(at: &SocketAddr) -> Option<SocketAddrV4> {
    match at {
        SocketAddr::V4(at) => Some(*at),
        SocketAddr::V6(_) => None,
    }
}

impl Rules {
    /// Of the ports those that are `open` here; `routes` is the machine's routing table as `/proc/net/route` has it.
    pub fn of(table: &RouteTable, style: &Style, open: &BTreeSet<Port>, routes: &str) -> Self {
        // What asks for more than the kernel can give is the userspace listener's.
        let plain = |port: &Port| table.options(*port) == PortOptions::default();
        let ports = table.ports.iter().filter(|(port, _)| open.contains(port) && plain(port));
        let ports: BTreeMap<_, _> =
            ports.filter_map(|(port, backends)| Some((*port, carried(*port, backends, style.plain)?))).collect();
        let deliveries = table.deliveries.iter().filter(|_| style.plain);
        let deliveries = deliveries.filter_map(|(port, at)| Some((*port, v4(at)?))).collect();
        let members = table.members.keys().filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        let networks =
            table.local.values().filter_map(v4).filter_map(|at| Network::holding(*at.ip(), routes)).collect();
        Self { ports, deliveries, members: members.collect(), networks }
    }

    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.deliveries.is_empty()
    }

    /// Whether some connection may still be led here.
    pub fn leads_to(&self, at: SocketAddrV4) -> bool {
        self.ports.values().flatten().chain(self.deliveries.values()).any(|target| *target == at)
    }

    fn is_local(&self, ip: Ipv4Addr) -> bool {
        !self.members.contains(&ip)
    }

    /// One transaction that puts these rules in the place of whatever our table had.
    pub fn text(&self, style: &Style) -> String {
        let mut text = format!("add table ip {TABLE}\ndelete table ip {TABLE}\n");
        if self.is_empty() {
            return text;
        }
        // Writing to a String can't fail.
        let _ = self.write(&mut text, style);
        text
    }

    fn write(&self, out: &mut String, style: &Style) -> std::fmt::Result {
        writeln!(out, "table ip {TABLE} {{")?;
        let members: Vec<String> = self.members.iter().map(Ipv4Addr::to_string).collect();
        group(out, "set members", "ipv4_addr", &members)?;
        let chain = |port: &Port| format!("{}_{}", port.0.as_str(), port.1);
        let ports = self.ports.keys().map(|port| format!("{} : goto {}", element(port), chain(port)));
        group(out, "map ports", "inet_proto . inet_service : verdict", &ports.collect::<Vec<_>>())?;
        let deliveries = self.deliveries.keys().map(|port| format!("{} : goto deliver", element(port)));
        group(out, "map deliveries", "inet_proto . inet_service : verdict", &deliveries.collect::<Vec<_>>())?;
        let delivered = self.deliveries.iter().map(|(port, at)| format!("{} : {}", element(port), pair(at)));
        let kind = "inet_proto . inet_service : ipv4_addr . inet_service";
        group(out, "map delivered", kind, &delivered.collect::<Vec<_>>())?;

        for (port, targets) in &self.ports {
            let slots: Vec<String> = targets.iter().enumerate().map(|(n, at)| format!("{n} : {}", pair(at))).collect();
            let (count, slots) = (targets.len(), slots.join(", "));
            let dnat = format!("meta l4proto {} dnat to numgen inc mod {count} map {{ {slots} }}", port.0.as_str());
            // A bridge doesn't send back by the port that a packet came by: a replica's own are the listener's.
            let here: Vec<String> = targets
                .iter()
                .map(SocketAddrV4::ip)
                .filter(|ip| self.is_local(**ip))
                .map(Ipv4Addr::to_string)
                .collect();
            let own = format!("ip saddr {{ {} }} return", here.join(", "));
            let own = (!here.is_empty()).then_some(own.as_str());
            let (mark, dnat) = (set_mark(), dnat);
            lines(out, &chain(port), &own.into_iter().chain([mark.as_str(), &dnat]).collect::<Vec<_>>())?;
        }
        lines(out, "deliver", &[&set_mark(), "dnat to meta l4proto . th dport map @delivered"])?;

        let here = match style.publish_on {
            Some(address) => format!("ip daddr != {address} return"),
            None => "fib daddr type != local return".to_owned(),
        };
        // Loopback's own would need the whole machine to route such addresses: the userspace listener has it.
        let loopback = "ip daddr 127.0.0.0/8 return";
        let ports = "meta l4proto . th dport vmap @ports";
        lines(
            out,
            "prerouting",
            &[
                "type nat hook prerouting priority dstnat - 5",
                "fib daddr type != local return",
                loopback,
                "ip saddr @members meta l4proto . th dport vmap @deliveries",
                &here,
                ports,
            ],
        )?;
        lines(out, "output", &["type nat hook output priority -105", &here, loopback, ports])?;
        let mark = format!("ct mark & {MARK:#x} != {MARK:#x} return");
        let leave = match style.own {
            Some(own) => format!("ip daddr @members snat to {own}"),
            None => "ip daddr @members masquerade".to_owned(),
        };
        let turn = |n: &Network| {
            let Network { address, prefix } = n;
            format!("ip saddr {address}/{prefix} ip daddr {address}/{prefix} masquerade")
        };
        let turns: Vec<String> = self.networks.iter().map(turn).collect();
        let mut postrouting = vec!["type nat hook postrouting priority srcnat - 5", &mark, &leave];
        postrouting.extend(turns.iter().map(String::as_str));
        lines(out, "postrouting", &postrouting)?;
        // The answer of a replica that isn't there any more, or not yet: without it the client asks again a second later,
        // and is led to another one, since the kernel has forgotten this try.
        let refused = format!(
            "ct mark & {MARK:#x} == {MARK:#x} ct direction reply tcp flags & (syn | rst | ack) == (rst | ack) tcp sequence 0 drop"
        );
        lines(out, "refused", &["type filter hook prerouting priority mangle", &refused])?;
        writeln!(out, "}}")
    }
}

/// The delivery ports in a table of ours, as `nft` lists it.
pub fn deliveries_in(listing: &str) -> BTreeSet<Port> {
    let words: Vec<&str> = listing.split([' ', '\t', '\n', ',']).filter(|word| !word.is_empty()).collect();
    let element = |words: &[&str]| match *words {
        [protocol, ".", number, ":", "goto", "deliver"] => {
            let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|p| p.as_str() == protocol)?;
            Some((protocol, number.parse().ok()?))
        }
        _ => None,
    };
    words.windows(6).filter_map(element).collect()
}

/// One of everything, to ask whether the kernel takes it.
pub fn sample() -> Rules {
    let at = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 80);
    Rules {
        ports: BTreeMap::from([((Protocol::Tcp, 80), vec![at, at]), ((Protocol::Udp, 80), vec![at])]),
        deliveries: BTreeMap::from([((Protocol::Tcp, 61_000), at)]),
        members: BTreeSet::from([*at.ip()]),
        networks: BTreeSet::from([Network { address: *at.ip(), prefix: 32 }]),
    }
}

fn element(port: &Port) -> String {
    format!("{} . {}", port.0.as_str(), port.1)
}

fn pair(at: &SocketAddrV4) -> String {
    format!("{} . {}", at.ip(), at.port())
}

fn set_mark() -> String {
    format!("ct mark set ct mark | {MARK:#x}")
}

fn group(out: &mut String, name: &str, kind: &str, elements: &[String]) -> std::fmt::Result {
    writeln!(out, "\t{name} {{\n\t\ttype {kind}")?;
    if !elements.is_empty() {
        writeln!(out, "\t\telements = {{ {} }}", elements.join(", "))?;
    }
    writeln!(out, "\t}}")
}

fn lines(out: &mut String, name: &str, lines: &[&str]) -> std::fmt::Result {
    writeln!(out, "\tchain {name} {{")?;
    for line in lines {
        writeln!(out, "\t\t{line};")?;
    }
    writeln!(out, "\t}}")
}

impl Network {
    /// The narrowest one without a gateway that holds the address, in the words of `/proc/net/route`.
    pub fn holding(address: Ipv4Addr, routes: &str) -> Option<Self> {
        let line = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let hex = |n: usize| u32::from_str_radix(fields.get(n)?, 16).ok().map(u32::from_be);
            let (to, gateway, mask) = (hex(1)?, hex(2)?, hex(7)?);
            let holds = gateway == 0 && mask != 0 && u32::from(address) & mask == to;
            holds.then(|| Self { address: to.into(), prefix: mask.leading_ones() })
        };
        routes.lines().filter_map(line).max_by_key(|network| network.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeId, TaskId};
    use std::sync::Arc;

    const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010A000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000000A\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
";

    fn style() -> Style {
        Style { publish_on: None, own: Some([10, 0, 0, 1].into()), plain: true }
    }

    fn local(n: u8) -> Backend {
        let reach = Reach::Local([172, 17, 0, n].into());
        Backend { task: TaskId::from_u128(n.into()), node: NodeId::from_u128(1), target: 80, reach }
    }

    fn remote(n: u8, delivery: Option<u16>) -> Backend {
        let reach = Reach::Remote { agent: SocketAddr::from(([10, 0, 0, n], 7373)), delivery };
        Backend { task: TaskId::from_u128(n.into()), node: NodeId::from_u128(n.into()), target: 80, reach }
    }

    const WEB: Port = (Protocol::Tcp, 9000);
    const DNS: Port = (Protocol::Udp, 53);

    #[test]
    fn a_port_is_the_kernels_only_if_it_reaches_every_replica() {
        let both = [local(2), remote(3, Some(61_000))];
        let at: Vec<SocketAddrV4> = ["172.17.0.2:80", "10.0.0.3:61000"].map(|at| at.parse().unwrap()).into();
        assert_eq!(carried(WEB, &both, true), Some(at));
        assert_eq!(carried(WEB, &both, false), None, "nothing outside of tunnels");
        assert_eq!(carried(WEB, &both[..1], false).map(|t| t.len()), Some(1));
        assert_eq!(carried(WEB, &[local(2), remote(3, None)], true), None);
        assert_eq!(carried(WEB, &[], true), None, "clients wait at the listener");
        assert_eq!(carried(DNS, &[local(2), remote(3, None)], true).map(|t| t.len()), Some(1));
        let sixth = Backend { reach: Reach::Local(std::net::Ipv6Addr::LOCALHOST.into()), ..local(2) };
        assert_eq!(carried(WEB, &[sixth], true), None);
    }

    #[test]
    fn the_whole_table() {
        let table = RouteTable {
            ports: BTreeMap::from([
                (WEB, [local(2), remote(3, Some(61_000))].into()),
                (DNS, [local(2)].into()),
                ((Protocol::Tcp, 9001), [local(2)].into()),
            ]),
            local: BTreeMap::from([((TaskId::from_u128(2), 80), SocketAddr::from(([172, 17, 0, 2], 80)))]),
            deliveries: BTreeMap::from([((Protocol::Tcp, 61_005), SocketAddr::from(([172, 17, 0, 2], 80)))]),
            members: Arc::new(BTreeMap::from([([10, 0, 0, 3].into(), true)])),
            options: BTreeMap::new(),
        };
        let rules = Rules::of(&table, &style(), &BTreeSet::from([WEB, DNS]), ROUTES);
        assert!(rules.leads_to("10.0.0.3:61000".parse().unwrap()));
        assert!(!rules.leads_to("10.0.0.3:61005".parse().unwrap()));
        assert_eq!(rules.text(&style()), include_str!("rules.nft"));
        assert_eq!(deliveries_in(&rules.text(&style())), BTreeSet::from([(Protocol::Tcp, 61_005)]));
        let sealed = Style { plain: false, ..style() };
        let rules = Rules::of(&table, &sealed, &BTreeSet::from([WEB, DNS]), ROUTES);
        assert_eq!(rules.ports.keys().collect::<Vec<_>>(), [&DNS]);
        assert!(rules.deliveries.is_empty());
        let text = Rules::default().text(&style());
        assert_eq!(text, "add table ip peer\ndelete table ip peer\n");
    }

    #[test]
    fn the_narrowest_network_without_a_gateway_holds_an_address() {
        let holding = |ip: [u8; 4]| Network::holding(ip.into(), ROUTES).map(|n| (n.address.octets(), n.prefix));
        assert_eq!(holding([172, 17, 3, 4]), Some(([172, 17, 0, 0], 16)));
        assert_eq!(holding([10, 1, 2, 3]), Some(([10, 0, 0, 0], 8)));
        assert_eq!(holding([192, 168, 0, 1]), None, "only by the default route");
        assert_eq!(Network::holding([10, 0, 0, 1].into(), "garbage\nx y z 1 2 3 4 5"), None);
    }
}
