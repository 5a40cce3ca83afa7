//! Bodies of the API: a specification is refused with a reason, or a lone node takes it and goes on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peer::core::face::Request;
use peer::model::object::ObjectKind;
use peer_fuzz::{Node, frames};
use std::time::Duration;

fuzz_target!(|data: &[u8]| {
    let mut node = Node::founder();
    node.wait(Duration::from_secs(5));
    for (tag, body) in frames(data).take(8) {
        let Ok(spec_json) = String::from_utf8(body.to_vec()) else { continue };
        let service = node.core.services().first().map(|view| view.service.id);
        node.ask(match (tag & 7, service) {
            (0, Some(id)) => Request::RollbackService { id, version: None, to: None },
            (1, Some(id)) => Request::RemoveService { id },
            (2 | 3, Some(id)) => Request::UpdateService { id, version: None, spec_json, auth: None },
            (4, _) => Request::CreateObject { kind: ObjectKind::Secret, spec_json, data: b"x".to_vec() },
            (5, _) => Request::CreateObject { kind: ObjectKind::Network, spec_json, data: Vec::new() },
            _ => Request::CreateService { spec_json, auth: None },
        });
        node.wait(Duration::from_secs(2));
    }
});
