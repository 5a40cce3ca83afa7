//! The suite that the simulator's network passes too, on real QUIC over loopback.
#![cfg(feature = "shell")]

mod conformance;
mod net_support;

use conformance::net::{Heard, Subject};
use net_support::{DEADLINE, Life, Node, founder, loopback, member_of, set, start_mortal};
use peer::shell::net::NetEvent;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// Each node in a runtime of its own, so that one can be killed.
struct OnLoopback {
    nodes: Vec<(Life, Node)>,
    runtime: Runtime,
}

impl OnLoopback {
    fn new() -> Option<Self> {
        let founder = founder();
        let identities = [founder.clone(), member_of(&founder), member_of(&founder)];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(Self { nodes: identities.iter().map(|id| start_mortal(id, loopback())).collect(), runtime })
    }

    fn number(&self, id: peer::ids::NodeId) -> usize {
        self.nodes.iter().position(|(_, node)| node.id() == id).expect("one of the three")
    }
}

impl Subject for OnLoopback {
    fn send(&mut self, from: usize, to: usize, datagram: bool, bytes: &[u8]) {
        let (to, (life, node)) = (&self.nodes[to].1, &self.nodes[from]);
        let _inside = life.enter();
        node.net.send(to.id(), to.addr, bytes.to_vec(), datagram);
    }

    fn next(&mut self, at: usize) -> Heard {
        loop {
            let event = self.runtime.block_on(async { timeout(DEADLINE, self.nodes[at].1.events.recv()).await });
            match event.unwrap_or_else(|_| panic!("node {at} heard nothing")).expect("the net runs") {
                NetEvent::Message { from, bytes } => return Heard::Message { from: self.number(from), bytes },
                NetEvent::LinkLost { node } => return Heard::Lost(self.number(node)),
                NetEvent::LinkUp { .. } | NetEvent::Refused { .. } => {}
                NetEvent::Tunnel { .. } => panic!("nobody opened a tunnel"),
            }
        }
    }

    fn close(&mut self, node: usize) {
        self.runtime.block_on(self.nodes[node].1.net.close());
    }

    fn bounce(&mut self, node: usize) {
        let (life, old) = self.nodes.remove(node);
        let (identity, addr) = (old.identity.clone(), old.addr);
        drop((life, old));
        self.nodes.insert(node, start_mortal(&identity, addr));
    }

    fn ban(&mut self, by: usize, node: usize) {
        let _inside = self.nodes[by].0.enter();
        self.nodes[by].1.net.ban(&set(self.nodes[node].1.id()));
    }
}

conformance::stories!(net, OnLoopback::new());
