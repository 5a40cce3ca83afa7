//! What a task's container is to be: its name, labels, and the spec's text with Docker's placeholders filled in.
//! Derived from the assignment alone, so that making the plan twice makes the same container.

use super::Assignment;
use crate::model::container::*;
use crate::model::spec::ServiceSpec;
use crate::model::spec::template::{self, TemplateContext};
use crate::model::task::{Slot, Task};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The node that makes plans.
#[derive(Debug, Clone)]
pub(super) struct ThisNode {
    pub owner: Owner,
    pub hostname: String,
    /// Docker's names, empty until the engine was reached.
    pub os: String,
    pub arch: String,
}

/// `service.slot.task`, what users see as the task's name.
pub(super) fn task_name(service_name: &str, task: &Task) -> String {
    format!("{service_name}.{}.{}", slot_text(task.slot), task.id)
}

/// The task's name, and the attempt after the first: each attempt has a container of its own.
pub(super) fn container_name(service_name: &str, task: &Task, attempt: u32) -> String {
    let name = task_name(service_name, task);
    if attempt == 0 { name } else { format!("{name}.{attempt}") }
}

pub(super) fn plan(order: &Assignment, spec: &ServiceSpec, attempt: u32, node: &ThisNode) -> ContainerPlan {
    let task = &order.task;
    let context = TemplateContext {
        service_id: task.service,
        service_name: order.service_name.clone(),
        service_labels: spec.labels.clone(),
        node_id: node.owner.node,
        node_hostname: node.hostname.clone(),
        node_os: node.os.clone(),
        node_arch: node.arch.clone(),
        task_id: task.id,
        task_name: task_name(&order.service_name, task),
        slot: task.slot,
    };
    let container = &spec.task.container;
    ContainerPlan {
        name: container_name(&order.service_name, task, attempt),
        service: task.service,
        task: task.id,
        attempt,
        labels: labels(&container.labels, &context, attempt, node.owner),
        spec: Arc::new(spec.task.clone()),
        hostname: container.hostname.as_deref().map(|text| fill(text, &context)),
        env: container.env.iter().map(|text| fill(text, &context)).collect(),
        host_ports: spec.host_ports().cloned().collect(),
        files: order.files.clone(),
        networks: order.networks.clone(),
    }
}

/// Ours come last: a spec can't forge whose container it is.
fn labels(
    spec: &BTreeMap<String, String>,
    context: &TemplateContext,
    attempt: u32,
    owner: Owner,
) -> BTreeMap<String, String> {
    let mut labels = spec.clone();
    let own = [
        ("com.docker.swarm.task", String::new()),
        ("com.docker.swarm.task.id", context.task_id.to_string()),
        ("com.docker.swarm.task.name", context.task_name.clone()),
        ("com.docker.swarm.node.id", context.node_id.to_string()),
        ("com.docker.swarm.service.id", context.service_id.to_string()),
        ("com.docker.swarm.service.name", context.service_name.clone()),
        (LABEL_CLUSTER, owner.cluster.to_string()),
        (LABEL_NODE, owner.node.to_string()),
        (LABEL_TASK, context.task_id.to_string()),
        (LABEL_ATTEMPT, attempt.to_string()),
        (LABEL_SERVICE, context.service_id.to_string()),
    ];
    labels.extend(own.map(|(key, value)| (key.to_owned(), value)));
    labels
}

fn slot_text(slot: Slot) -> String {
    match slot {
        Slot::Replica(number) => number.to_string(),
        Slot::Node(node) => node.to_string(),
    }
}

/// Fills in the placeholders. What is no template was refused when the spec was parsed; should a newer version
/// know more of them, the text goes through as it is.
fn fill(text: &str, context: &TemplateContext) -> String {
    template::expand(text, context).unwrap_or_else(|_| text.to_owned())
}
