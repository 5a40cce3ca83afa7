//! What a task's container is to be: its name, labels, and the spec's text with Docker's placeholders filled in.
//! Derived from the assignment alone, so that making the plan twice makes the same container.

use super::Assignment;
use crate::model::container::*;
use crate::model::generic;
use crate::model::spec::template::{self, TemplateContext};
use crate::model::spec::{ServiceSpec, TaskSpec};
use crate::model::task::{Slot, Task};
use serde_json::Value;
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
        spec: Arc::new(task_spec(&spec.task, &context)),
        hostname: container.hostname.as_deref().map(|text| fill(text, &context)),
        env: env(spec, &context),
        host_ports: spec.host_ports().cloned().collect(),
        files: order.files.clone(),
        networks: order.networks.clone(),
        context,
    }
}

/// With how many of each generic resource are its own, as Swarm tells them; ours win over the spec's.
fn env(spec: &ServiceSpec, context: &TemplateContext) -> Vec<String> {
    let own: Vec<(String, u64)> = spec
        .task
        .resources
        .reserve_generic
        .iter()
        .map(|(kind, count)| (format!("{}{}", generic::ENV, kind.to_uppercase()), *count))
        .collect();
    let is_own = |text: &str| own.iter().any(|(name, _)| text.split('=').next() == Some(name));
    let said = spec.task.container.env.iter().map(|text| fill(text, context)).filter(|text| !is_own(text));
    said.chain(own.iter().map(|(name, count)| format!("{name}={count}"))).collect()
}

/// As it was asked for, with the templates in its mounts filled in.
fn task_spec(spec: &TaskSpec, context: &TemplateContext) -> TaskSpec {
    let mut spec = spec.clone();
    for mount in &mut spec.container.mounts {
        mount.target = fill(&mount.target, context);
        if let Some(source) = &mut mount.source {
            *source = fill(source, context);
        }
        // Swarm's places for them among a volume's options.
        for at in ["/Labels", "/DriverConfig/Options"] {
            let options = mount.options.get_mut("VolumeOptions").and_then(|options| options.pointer_mut(at));
            let texts = options.and_then(Value::as_object_mut).into_iter().flat_map(|map| map.values_mut());
            for text in texts {
                if let Value::String(text) = text {
                    *text = fill(text, context);
                }
            }
        }
    }
    spec
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
