//! Which replica a connection or request goes to: in turn, or always the same for one client, and to this node's own first
//! where that is asked for.

use crate::ids::TaskId;
use crate::model::spec::PortOptions;
use crate::routes::{Backend, Reach};
use std::net::IpAddr;

/// `turn` grows with every pick of the port. None of `tried` is chosen again.
pub fn choose<'a>(
    backends: &'a [Backend],
    options: &PortOptions,
    turn: usize,
    client: IpAddr,
    tried: &[TaskId],
) -> Option<&'a Backend> {
    let is_local = |b: &Backend| matches!(b.reach, Reach::Local(_));
    let untried = |b: &Backend| !tried.contains(&b.task);
    let only_local = options.prefer_local && backends.iter().any(|b| is_local(b) && untried(b));
    let fits = |b: &&Backend| untried(b) && (!only_local || is_local(b));
    if options.sticky_source {
        // Rendezvous: the same on every node, and a replica that goes or comes moves its own clients only.
        return backends.iter().filter(fits).max_by_key(|b| weight(client, b.task));
    }
    if only_local {
        // In turn among those that fit: the neighbour of many that don't would get all of theirs.
        let count = backends.iter().filter(fits).count();
        return backends.iter().filter(fits).nth(turn % count.max(1));
    }
    (0..backends.len()).filter_map(|n| backends.get(turn.wrapping_add(n) % backends.len())).find(fits)
}

/// The client and the task mixed, every bit of both in every bit of it (the finish of SplitMix64).
fn weight(client: IpAddr, task: TaskId) -> u64 {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let bits = match client.to_canonical() {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let halves = [bits, task.as_u128()].into_iter().flat_map(|x| [x as u64, (x >> 64) as u64]);
    halves.fold(0x9e37_79b9_7f4a_7c15, |seed, half| mix(seed.wrapping_mul(31) ^ mix(half.wrapping_add(seed))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::NodeId;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    fn backend(task: u128, local: bool) -> Backend {
        let here = IpAddr::from([127, 0, 0, 1]);
        let reach = if local { Reach::Local(here) } else { Reach::Remote(SocketAddr::new(here, 1)) };
        Backend { task: TaskId::from_u128(task), node: NodeId::from_u128(1), target: 80, reach }
    }

    fn client(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn local_ones_take_turns_before_all_others_and_others_serve_when_they_fail() {
        let backends = [backend(1, false), backend(2, true), backend(3, false), backend(4, true)];
        let options = PortOptions { prefer_local: true, ..PortOptions::default() };
        let mut counts = BTreeMap::<u128, usize>::new();
        for turn in 0..100 {
            let chosen = choose(&backends, &options, turn, client(1), &[]).unwrap();
            *counts.entry(chosen.task.as_u128()).or_default() += 1;
        }
        assert_eq!(counts, BTreeMap::from([(2, 50), (4, 50)]));
        let both = [TaskId::from_u128(2), TaskId::from_u128(4)];
        assert_eq!(choose(&backends, &options, 0, client(1), &both[..1]).unwrap().task.as_u128(), 4);
        assert!([1, 3].contains(&choose(&backends, &options, 0, client(1), &both).unwrap().task.as_u128()));
    }

    /// Measured: of 10,000 clients over ten replicas each gets 1,000 give or take 10 %.
    #[test]
    fn clients_stick_spread_evenly_and_only_those_of_a_gone_replica_move() {
        let options = PortOptions { sticky_source: true, ..PortOptions::default() };
        let ten: Vec<Backend> = (1..=10).map(|n| backend(n, false)).collect();
        let nine: Vec<Backend> = ten.iter().filter(|b| b.task.as_u128() != 4).cloned().collect();
        let mut counts = BTreeMap::<u128, usize>::new();
        for n in 0..10_000 {
            let of =
                |backends: &[Backend], turn| choose(backends, &options, turn, client(n), &[]).unwrap().task.as_u128();
            let (before, after) = (of(&ten, 0), of(&nine, 7));
            assert_eq!(before, of(&ten, 5), "the turn doesn't count");
            assert!(before == after || before == 4, "client {n} moved from {before} to {after}");
            *counts.entry(before).or_default() += 1;
        }
        assert!(counts.values().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }
}
