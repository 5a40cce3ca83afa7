//! What dockersamples' docker-swarm-visualizer asks for every second, and every field that it reads of the answers
//! (its server.js and src/data-provider.js): paths without a version, whole lists without filters.

use super::{Server, views};
use crate::model::task::TaskPhase;
use axum::http::StatusCode;
use serde_json::Value;

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer} of {object}"))
}

#[tokio::test]
async fn the_swarm_visualizer_finds_every_field_that_it_reads() {
    let server = Server::start(None).await;
    // One that has no container yet: reading on beneath a missing ContainerStatus stopped the visualizer.
    {
        let mut state = server.agent.state.lock().unwrap();
        let mut waiting = views::task(&state.services[0].clone(), 9, 77, views::node_id(1));
        waiting.task.node = None;
        waiting.status = None;
        state.tasks.push(waiting);
        assert!(state.tasks.iter().any(|task| task.status.as_ref().is_some_and(|s| s.phase == TaskPhase::Running)));
    }
    let list = async |path: &str| {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with("application/json"));
        answer.json().as_array().unwrap_or_else(|| panic!("{path} is no list")).clone()
    };
    let (nodes, services, tasks) = (list("/nodes").await, list("/services").await, list("/tasks").await);
    assert!(!nodes.is_empty() && !services.is_empty() && tasks.len() > 1);
    for node in &nodes {
        for pointer in
            ["/ID", "/Description/Hostname", "/Description/Platform/Architecture", "/Spec/Role", "/Status/State"]
        {
            assert!(!text(node, pointer).is_empty(), "{pointer} of {node}");
        }
        text(node, "/Description/Platform/OS");
        assert!(node.pointer("/Description/Resources/MemoryBytes").is_some_and(Value::is_u64));
        assert!(node.pointer("/Spec/Labels").is_some_and(Value::is_object));
        // It draws what it knows by these words.
        assert!(["manager", "worker"].contains(&text(node, "/Spec/Role")));
        assert!(["ready", "down", "disconnected", "unknown"].contains(&text(node, "/Status/State")));
    }
    for service in &services {
        assert!(!text(service, "/ID").is_empty() && !text(service, "/Spec/Name").is_empty());
    }
    for task in &tasks {
        for pointer in ["/ID", "/ServiceID", "/UpdatedAt", "/Spec/ContainerSpec/Image", "/Status/State"] {
            assert!(!text(task, pointer).is_empty(), "{pointer} of {task}");
        }
        text(task, "/Status/ContainerStatus/ContainerID");
        assert!(text(task, "/UpdatedAt").parse::<jiff::Timestamp>().is_ok());
        assert!(services.iter().any(|service| service["ID"] == task["ServiceID"]), "each is some service's");
        // (Without a node it isn't drawn.)
        if let Some(node) = task.get("NodeID") {
            assert!(nodes.iter().any(|known| known["ID"] == *node), "each is on some node");
        }
    }
    server.stop().await;
}
