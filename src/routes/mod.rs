//! Who is routable: the endpoint table that every node's data plane follows, as a pure function of the records.
//!
//! The law it keeps (DESIGN rule 6): a task gets connections only while it is wanted and seen running, and a
//! task that is to stop leaves the table before it is stopped. A replica on a node in doubt is left out while
//! a better one remains, and kept when it is the last: doubt alone never empties a port.
//! It knows nothing of sockets, of how a table is applied, or of which nodes have applied it.

use crate::ids::{NodeId, ServiceId, TaskId};
use crate::model::node::Liveness;
use crate::model::spec::{PortOptions, Protocol, PublishMode, PublishedPort};
use crate::model::task::{Task, TaskPhase, TaskStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub type Port = (Protocol, u16);

/// Published port -> the replicas behind it, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    /// Every service's ports. One without a routable replica is there with no backend: it is open, and clients wait.
    pub ports: BTreeMap<Port, Arc<[Backend]>>,
    /// Every local replica's published targets, withdrawn ones too while their connections last: the only
    /// places this agent will connect a tunnel from another node to.
    pub local: BTreeMap<(TaskId, u16), SocketAddr>,
    /// Of the ports that ask for something out of the ordinary.
    pub options: BTreeMap<Port, PortOptions>,
}

impl RouteTable {
    pub fn options(&self, port: Port) -> PortOptions {
        self.options.get(&port).copied().unwrap_or_default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub task: TaskId,
    pub node: NodeId,
    pub target: u16,
    pub reach: Reach,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// A container of this node.
    Local(IpAddr),
    /// Through the agent of `Backend::node` at this address.
    Remote(SocketAddr),
}

/// One task of a service that publishes ports, as the records and membership have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub task: TaskId,
    pub node: NodeId,
    /// Where the agent of `node` is reached.
    pub node_addr: SocketAddr,
    /// How this node sees `node`: a replica behind an [`Liveness::Alive`] one is preferred.
    pub liveness: Liveness,
    /// [`is_routable`]'s answer.
    pub routable: bool,
    /// Where this machine reaches the container, for a task of this node whose container runs.
    pub local_ip: Option<IpAddr>,
}

/// New connections may go to this task. `Suspect` and `Away` nodes count here: the [`Router`] uses them only
/// where nothing better is left.
pub fn is_routable(task: &Task, status: Option<&TaskStatus>, node: Liveness) -> bool {
    let serves = |s: &TaskStatus| s.task == task.id && task.node == Some(s.node) && s.phase == TaskPhase::Running;
    task.desired.is_live() && status.is_some_and(serves) && node != Liveness::Down
}

/// Keeps the table that a node is to follow, service by service, so that what concerns one service costs no more than
/// that service. The same services make the same table, whatever the order in which they were told.
#[derive(Debug)]
pub struct Router {
    me: NodeId,
    shares: BTreeMap<ServiceId, Share>,
    /// Two partitions may have given one port to two services: until that is settled both are behind it.
    services: BTreeMap<Port, BTreeSet<ServiceId>>,
    /// What services ask for their ports, by port first: of two services the first one's word counts.
    options: BTreeMap<Port, BTreeMap<ServiceId, PortOptions>>,
    table: Arc<RouteTable>,
}

/// What one service adds to the table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Share {
    ports: BTreeMap<Port, Vec<(Liveness, Backend)>>,
    local: BTreeMap<(TaskId, u16), SocketAddr>,
}

impl Router {
    pub fn new(me: NodeId) -> Self {
        Self { me, shares: BTreeMap::new(), services: BTreeMap::new(), options: BTreeMap::new(), table: Arc::default() }
    }

    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// The service as it is now: its published ports, numbers chosen, which are there before its first replica
    /// runs, and its tasks. One that is gone has neither. True if the table is another one now.
    pub fn update(
        &mut self,
        service: ServiceId,
        published: &[PublishedPort],
        endpoints: impl Iterator<Item = Endpoint>,
    ) -> bool {
        let share = self.share(published, endpoints);
        let old = self.shares.remove(&service).unwrap_or_default();
        if old == share {
            if !share.ports.is_empty() {
                self.shares.insert(service, share);
            }
            return false;
        }
        let mut table = RouteTable::clone(&self.table);
        table.local.retain(|target, _| !old.local.contains_key(target));
        table.local.extend(share.local.iter().map(|(target, at)| (*target, *at)));
        let ports: BTreeSet<Port> = old.ports.into_keys().chain(share.ports.keys().copied()).collect();
        if !share.ports.is_empty() {
            self.shares.insert(service, share);
        }
        for port in ports {
            let of = self.services.entry(port).or_default();
            if self.shares.get(&service).is_some_and(|s| s.ports.contains_key(&port)) {
                of.insert(service);
            } else {
                of.remove(&service);
            }
            let shares = of.iter().filter_map(|s| self.shares.get(s)?.ports.get(&port));
            let backends = best(shares.flatten().cloned().collect());
            if of.is_empty() {
                self.services.remove(&port);
                table.ports.remove(&port);
            } else {
                table.ports.insert(port, backends.into());
            }
        }
        let changed = table != *self.table;
        if changed {
            self.table = Arc::new(table);
        }
        changed
    }

    /// What the service asks for its ports; what isn't named is asked no more. True if the table is another one now.
    pub fn set_options(&mut self, service: ServiceId, asked: &BTreeMap<Port, PortOptions>) -> bool {
        for of in self.options.values_mut() {
            of.remove(&service);
        }
        for (port, options) in asked.iter().filter(|(_, options)| **options != PortOptions::default()) {
            self.options.entry(*port).or_default().insert(service, *options);
        }
        self.options.retain(|_, of| !of.is_empty());
        let options = self.options.iter().filter_map(|(port, of)| Some((*port, *of.values().next()?))).collect();
        let changed = options != self.table.options;
        if changed {
            self.table = Arc::new(RouteTable { options, ..RouteTable::clone(&self.table) });
        }
        changed
    }

    fn share(&self, published: &[PublishedPort], endpoints: impl Iterator<Item = Endpoint>) -> Share {
        let routed: Vec<&PublishedPort> = published.iter().filter(|p| is_routed(p)).collect();
        let ports = routed.iter().map(|p| ((p.protocol, p.published), Vec::new())).collect();
        let mut share = Share { ports, local: BTreeMap::new() };
        // Without a port nobody asks for its tasks.
        for endpoint in endpoints.take(if routed.is_empty() { 0 } else { usize::MAX }) {
            let here = (endpoint.node == self.me).then_some(endpoint.local_ip).flatten();
            for port in &routed {
                if let Some(ip) = here {
                    share.local.insert((endpoint.task, port.target), SocketAddr::new(ip, port.target));
                }
                if let Some(reach) = reach(&endpoint, self.me).filter(|_| endpoint.routable) {
                    let backend = Backend { task: endpoint.task, node: endpoint.node, target: port.target, reach };
                    let backends = share.ports.entry((port.protocol, port.published)).or_default();
                    backends.push((endpoint.liveness, backend));
                }
            }
        }
        share
    }
}

/// TCP through the mesh. Ports in host mode are the container's own; UDP has no data plane yet.
fn is_routed(port: &PublishedPort) -> bool {
    port.mode == PublishMode::Ingress && port.protocol == Protocol::Tcp && port.published != 0
}

fn reach(endpoint: &Endpoint, me: NodeId) -> Option<Reach> {
    if endpoint.node == me {
        // No address, no way in: a container that has just gone.
        endpoint.local_ip.map(Reach::Local)
    } else {
        Some(Reach::Remote(endpoint.node_addr))
    }
}

/// Those on the most trusted nodes that there are, in a fixed order.
fn best(mut backends: Vec<(Liveness, Backend)>) -> Vec<Backend> {
    let trust = backends.iter().map(|(liveness, _)| *liveness).min();
    backends.retain(|(liveness, _)| Some(*liveness) == trust);
    backends.sort_by_key(|(_, b)| (b.task, b.target));
    backends.dedup();
    backends.into_iter().map(|(_, backend)| backend).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::{Hlc, RevisionId};
    use crate::model::task::{Desired, Slot};
    use crate::time::Wall;

    const ME: NodeId = NodeId::from_u128(1);

    fn node(n: u128) -> NodeId {
        NodeId::from_u128(n)
    }

    fn port(published: u16, target: u16) -> PublishedPort {
        PublishedPort { name: String::new(), protocol: Protocol::Tcp, target, published, mode: PublishMode::Ingress }
    }

    fn endpoint(task: u128, on: u128) -> Endpoint {
        Endpoint {
            task: TaskId::from_u128(task),
            node: node(on),
            node_addr: SocketAddr::from(([10, 0, 0, on as u8], 2377)),
            liveness: Liveness::Alive,
            routable: true,
            local_ip: (node(on) == ME).then_some(IpAddr::from([172, 17, 0, task as u8])),
        }
    }

    const WEB: ServiceId = ServiceId::from_u128(100);

    fn of(ports: &[PublishedPort], endpoints: &[Endpoint]) -> RouteTable {
        let mut router = Router::new(ME);
        router.update(WEB, ports, endpoints.iter().cloned());
        RouteTable::clone(router.table())
    }

    fn build(endpoints: &[Endpoint]) -> RouteTable {
        of(&[port(80, 8080)], endpoints)
    }

    fn tasks_behind(table: &RouteTable, published: u16) -> Vec<u128> {
        table.ports[&(Protocol::Tcp, published)].iter().map(|b| b.task.as_u128()).collect()
    }

    #[test]
    fn local_and_remote_replicas_stand_in_a_fixed_order_whatever_order_they_came_in() {
        let endpoints = [endpoint(3, 2), endpoint(1, 1), endpoint(2, 3)];
        let table = build(&endpoints);
        assert_eq!(tasks_behind(&table, 80), [1, 2, 3]);
        let reaches: Vec<_> = table.ports[&(Protocol::Tcp, 80)].iter().map(|b| b.reach.clone()).collect();
        assert_eq!(reaches[0], Reach::Local(IpAddr::from([172, 17, 0, 1])));
        assert_eq!(reaches[1], Reach::Remote(SocketAddr::from(([10, 0, 0, 3], 2377))));
        let mut turned = endpoints.to_vec();
        turned.reverse();
        assert_eq!(build(&turned), table);
    }

    #[test]
    fn a_withdrawn_local_replica_takes_tunnels_but_no_new_connections() {
        let leaving = Endpoint { routable: false, ..endpoint(1, 1) };
        let table = build(&[leaving, endpoint(2, 2)]);
        assert_eq!(tasks_behind(&table, 80), [2]);
        let target = SocketAddr::from(([172, 17, 0, 1], 8080));
        assert_eq!(table.local, BTreeMap::from([((TaskId::from_u128(1), 8080), target)]));
    }

    #[test]
    fn another_nodes_container_address_is_never_a_local_target() {
        let foreign = Endpoint { local_ip: Some(IpAddr::from([172, 17, 0, 9])), ..endpoint(1, 2) };
        assert!(build(&[foreign]).local.is_empty());
    }

    #[test]
    fn doubt_moves_traffic_away_but_never_empties_a_port() {
        let suspect = Endpoint { liveness: Liveness::Suspect, ..endpoint(1, 2) };
        let away = Endpoint { liveness: Liveness::Away, ..endpoint(2, 3) };
        let sure = endpoint(3, 4);
        assert_eq!(tasks_behind(&build(&[suspect.clone(), away.clone(), sure]), 80), [3]);
        assert_eq!(tasks_behind(&build(&[suspect, away.clone()]), 80), [1]);
        assert_eq!(tasks_behind(&build(&[away]), 80), [2]);
    }

    /// Of two services behind one port, too.
    #[test]
    fn doubt_is_judged_port_by_port() {
        let (both, other) = ([port(80, 8080), port(81, 8081)], ServiceId::from_u128(200));
        let suspect = Endpoint { liveness: Liveness::Suspect, ..endpoint(1, 2) };
        let mut router = Router::new(ME);
        assert!(router.update(WEB, &both, [suspect].into_iter()));
        assert!(router.update(other, &[port(80, 8080)], [endpoint(2, 3)].into_iter()));
        assert_eq!(tasks_behind(router.table(), 80), [2]);
        assert_eq!(tasks_behind(router.table(), 81), [1]);
        assert!(router.update(other, &[], std::iter::empty()), "the other is gone");
        assert_eq!(tasks_behind(router.table(), 80), [1]);
    }

    #[test]
    fn a_service_that_goes_takes_its_ports_and_targets_with_it() {
        let mut router = Router::new(ME);
        let tasks = [endpoint(1, 1), endpoint(2, 2)];
        assert!(router.update(WEB, &[port(80, 8080)], tasks.iter().cloned()));
        assert!(!router.update(WEB, &[port(80, 8080)], tasks.iter().cloned()), "nothing has changed");
        assert!(router.update(WEB, &[port(90, 8080)], tasks.iter().cloned()));
        assert_eq!(router.table().ports.keys().copied().collect::<Vec<_>>(), [(Protocol::Tcp, 90)]);
        assert!(router.update(WEB, &[], tasks.into_iter()));
        assert_eq!(**router.table(), RouteTable::default());
        assert!(router.shares.is_empty() && router.services.is_empty());
    }

    #[test]
    fn options_follow_their_service_and_of_two_the_first_one_counts() {
        let (port, other) = ((Protocol::Tcp, 80), ServiceId::from_u128(200));
        let local = PortOptions { prefer_local: true, ..PortOptions::default() };
        let sticky = PortOptions { sticky_source: true, ..PortOptions::default() };
        let mut router = Router::new(ME);
        assert!(router.set_options(other, &BTreeMap::from([(port, sticky)])));
        assert!(router.set_options(WEB, &BTreeMap::from([(port, local)])));
        assert!(!router.set_options(WEB, &BTreeMap::from([(port, local)])), "nothing has changed");
        assert_eq!(router.table().options(port), local);
        assert!(router.set_options(WEB, &BTreeMap::from([(port, PortOptions::default())])));
        assert_eq!(router.table().options(port), sticky);
        assert!(router.set_options(other, &BTreeMap::new()));
        assert_eq!(**router.table(), RouteTable::default());
        assert!(router.options.is_empty());
    }

    #[test]
    fn a_port_without_replicas_stays_open() {
        let starting = Endpoint { routable: false, ..endpoint(1, 2) };
        assert_eq!(tasks_behind(&build(&[starting]), 80), [0u128; 0]);
    }

    #[test]
    fn the_ports_of_a_service_without_tasks_are_open() {
        let host = PublishedPort { mode: PublishMode::Host, ..port(81, 80) };
        let ports = [port(80, 8080), host];
        assert_eq!(of(&ports, &[]).ports, BTreeMap::from([((Protocol::Tcp, 80), Arc::from([]))]));
    }

    #[test]
    fn host_mode_udp_and_unnumbered_ports_are_not_routed() {
        let ports = [
            PublishedPort { mode: PublishMode::Host, ..port(80, 80) },
            PublishedPort { protocol: Protocol::Udp, ..port(53, 53) },
            port(0, 8080),
        ];
        assert_eq!(of(&ports, &[endpoint(1, 1)]), RouteTable::default());
    }

    #[test]
    fn a_task_is_routable_while_it_is_wanted_and_seen_running_on_a_node_that_is_not_down() {
        let wanted = Task {
            id: TaskId::from_u128(1),
            service: ServiceId::from_u128(1),
            slot: Slot::Replica(1),
            node: Some(node(2)),
            revision: RevisionId { hlc: Hlc(1), author: ME },
            desired: Desired::Running,
            created: Wall(0),
            updated: Wall(0),
            replaces: None,
            in_rollout: false,
            message: String::new(),
        };
        let running = TaskStatus { phase: TaskPhase::Running, ..TaskStatus::new(wanted.id, node(2), Wall(0)) };
        for (liveness, routable) in
            [(Liveness::Alive, true), (Liveness::Suspect, true), (Liveness::Away, true), (Liveness::Down, false)]
        {
            assert_eq!(is_routable(&wanted, Some(&running), liveness), routable, "{liveness:?}");
        }
        let routable = |task: &Task, status: &TaskStatus| is_routable(task, Some(status), Liveness::Alive);
        assert!(!is_routable(&wanted, None, Liveness::Alive));
        assert!(!routable(&Task { desired: Desired::Shutdown, ..wanted.clone() }, &running));
        assert!(!routable(&wanted, &TaskStatus { phase: TaskPhase::Starting, ..running.clone() }));
        assert!(!routable(&wanted, &TaskStatus { phase: TaskPhase::Failed, ..running.clone() }));
        assert!(!routable(&wanted, &TaskStatus { node: node(3), ..running.clone() }), "another node's word");
    }
}
