//! Who is routable: the endpoint table that every node's data plane follows, as a pure function of the records.
//!
//! The law it keeps (DESIGN rule 6): a task gets connections only while it is wanted and seen running, and a
//! task that is to stop leaves the table before it is stopped. A replica on a node in doubt is left out while
//! a better one remains, and kept when it is the last: doubt alone never empties a port.
//! It knows nothing of sockets, of how a table is applied, or of which nodes have applied it.

use crate::ids::{NodeId, TaskId};
use crate::model::node::Liveness;
use crate::model::spec::{Protocol, PublishMode, PublishedPort};
use crate::model::task::{Task, TaskPhase, TaskStatus};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Published port -> the replicas behind it, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    /// Every service's ports. One without a routable replica is there with no backend: it is open, and clients wait.
    pub ports: BTreeMap<(Protocol, u16), Vec<Backend>>,
    /// Every local replica's published targets, withdrawn ones too while their connections last: the only
    /// places this agent will connect a tunnel from another node to.
    pub local: BTreeMap<(TaskId, u16), SocketAddr>,
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
    /// The service's published ports, numbers chosen.
    pub ports: Vec<PublishedPort>,
    /// Where this machine reaches the container, for a task of this node whose container runs.
    pub local_ip: Option<IpAddr>,
}

/// New connections may go to this task. `Suspect` and `Away` nodes count here: [`table`] uses them only where
/// nothing better is left.
pub fn is_routable(task: &Task, status: Option<&TaskStatus>, node: Liveness) -> bool {
    let serves = |s: &TaskStatus| s.task == task.id && task.node == Some(s.node) && s.phase == TaskPhase::Running;
    task.desired.is_live() && status.is_some_and(serves) && node != Liveness::Down
}

/// The table that `me` is to follow: `published` are the ports of all services, those without a task yet too, since
/// the word of a service is here before its first replica runs. The same input in any order makes the same table.
pub fn table<'a>(
    published: impl Iterator<Item = &'a PublishedPort>,
    input: impl Iterator<Item = Endpoint>,
    me: NodeId,
) -> RouteTable {
    let mut ports: BTreeMap<(Protocol, u16), Vec<(Liveness, Backend)>> =
        published.filter(|p| is_routed(p)).map(|p| ((p.protocol, p.published), Vec::new())).collect();
    let mut local = BTreeMap::new();
    for endpoint in input {
        let here = (endpoint.node == me).then_some(endpoint.local_ip).flatten();
        for port in endpoint.ports.iter().filter(|p| is_routed(p)) {
            let backends = ports.entry((port.protocol, port.published)).or_default();
            if let Some(ip) = here {
                local.insert((endpoint.task, port.target), SocketAddr::new(ip, port.target));
            }
            if let Some(reach) = reach(&endpoint, me).filter(|_| endpoint.routable) {
                let backend = Backend { task: endpoint.task, node: endpoint.node, target: port.target, reach };
                backends.push((endpoint.liveness, backend));
            }
        }
    }
    RouteTable { ports: ports.into_iter().map(|(port, backends)| (port, best(backends))).collect(), local }
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
    use crate::ids::ServiceId;
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
            ports: vec![port(80, 8080)],
            local_ip: (node(on) == ME).then_some(IpAddr::from([172, 17, 0, task as u8])),
        }
    }

    fn build(endpoints: &[Endpoint]) -> RouteTable {
        table(std::iter::empty(), endpoints.iter().cloned(), ME)
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

    #[test]
    fn doubt_is_judged_port_by_port() {
        let mut suspect = Endpoint { liveness: Liveness::Suspect, ..endpoint(1, 2) };
        suspect.ports.push(port(81, 8081));
        let table = build(&[suspect, endpoint(2, 3)]);
        assert_eq!(tasks_behind(&table, 80), [2]);
        assert_eq!(tasks_behind(&table, 81), [1]);
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
        let table = table(ports.iter(), std::iter::empty(), ME);
        assert_eq!(table.ports, BTreeMap::from([((Protocol::Tcp, 80), Vec::new())]));
    }

    #[test]
    fn host_mode_udp_and_unnumbered_ports_are_not_routed() {
        let mut e = endpoint(1, 1);
        e.ports = vec![
            PublishedPort { mode: PublishMode::Host, ..port(80, 80) },
            PublishedPort { protocol: Protocol::Udp, ..port(53, 53) },
            port(0, 8080),
        ];
        assert_eq!(build(&[e]), RouteTable::default());
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
