//! Recorded conversations of the docker CLI with a real swarm: what it was told, what it printed, what it sent.

use serde_json::Value;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

macro_rules! recorded {
    ($($name:ident = $file:literal;)*) => {
        $(pub fn $name() -> Value { parsed(include_str!(concat!("fixtures/", $file))) })*
    };
}

recorded! {
    nodes = "nodes.json";
    node_self = "node_self.json";
    service_greeters = "service_greeters.json";
    services_two = "services_two.json";
    service_updated = "service_updated.json";
    tasks_five = "tasks_five.json";
    tasks_on_node = "tasks_on_node.json";
    tasks_rich = "tasks_rich.json";
    create_publish = "create_publish.json";
    create_rich = "create_rich.json";
    update_before = "update_before.json";
    update_after = "update_after.json";
}

pub const NODE_LS: &str = include_str!("fixtures/node_ls.txt");
pub const NODE_PS: &str = include_str!("fixtures/node_ps.txt");
pub const NODE_PRETTY: &str = include_str!("fixtures/node_pretty.txt");
pub const SERVICE_LS: &str = include_str!("fixtures/service_ls.txt");
pub const SERVICE_LS_TWO: &str = include_str!("fixtures/service_ls_two.txt");
pub const SERVICE_PS_FIVE: &str = include_str!("fixtures/service_ps_five.txt");
pub const SERVICE_PS_RICH: &str = include_str!("fixtures/service_ps_rich.txt");
pub const SERVICE_PRETTY: &str = include_str!("fixtures/service_pretty.txt");
