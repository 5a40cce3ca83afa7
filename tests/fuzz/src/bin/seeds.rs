//! Writes what the targets start from, `seeds DIR`: what two nodes said to each other, what one wrote, specifications.

use peer::core::face::{Event, Request};
use peer_fuzz::{Node, frame, id};
use std::io;
use std::path::Path;
use std::time::Duration;

const SPECS: [&str; 4] = [
    r#"{"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}, "Mode": {"Replicated": {"Replicas": 3}}}"#,
    r#"{"Name": "all", "Labels": {"peer.port.80": "protocol=http"}, "TaskTemplate": {"ContainerSpec": {"Image": "nginx:1",
        "Env": ["A={{.Node.Hostname}}"], "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 4096}}],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000}}, "Placement": {"Constraints": ["node.labels.a!=b"],
        "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}], "MaxReplicas": 1},
        "Resources": {"Limits": {"NanoCPUs": 500000000}, "Reservations": {"MemoryBytes": 1048576}},
        "RestartPolicy": {"Condition": "on-failure", "Delay": 1, "MaxAttempts": 3, "Window": 5}},
        "Mode": {"Global": {}}, "UpdateConfig": {"Parallelism": 2, "Order": "start-first", "FailureAction": "rollback",
        "MaxFailureRatio": 0.5, "Monitor": 100000000}, "EndpointSpec": {"Ports": [{"Protocol": "tcp", "TargetPort": 80,
        "PublishedPort": 80, "PublishMode": "ingress"}]}}"#,
    r#"{"Name": "job", "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}, "Mode": {"ReplicatedJob": {"MaxConcurrent": 2,
        "TotalCompletions": 5}}}"#,
    r#"{"Name": "net", "Driver": "overlay", "Labels": {"a": "b"}, "IPAM": {"Config": [{"Subnet": "10.1.0.0/24"}]}}"#,
];

const COMPOSE: &str = r"
x-common: &common {restart: always}
services:
  web:
    <<: *common
    image: nginx:${TAG:-1}
    ports: ['8080:80/tcp', {target: 81, published: 8081, mode: host}]
    environment: {A: b, C: null}
    secrets: [token, {source: token, target: /t, mode: 0400}]
    volumes: ['data:/data:ro', {type: tmpfs, target: /x, tmpfs: {size: 1m}}]
    healthcheck: {test: [CMD, 'true'], interval: 1m30s, retries: 3}
    depends_on: [worker]
    deploy:
      replicas: 3
      update_config: {parallelism: 2, order: start-first, delay: 10s, failure_action: rollback}
      placement: {constraints: [node.role==worker], preferences: [{spread: node.labels.zone}]}
      resources: {limits: {cpus: '0.5', memory: 50M}}
  worker: {extends: {service: web}, command: sh -c 'exit 0', deploy: {mode: global}}
networks: {front: {driver: overlay}}
volumes: {data: {}}
secrets: {token: {external: true}}
";

fn main() -> io::Result<()> {
    let dir = std::env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: seeds DIR"))?;
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let dir = Path::new(&dir).join(target);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join(name), bytes)
    };
    let (heard, disk) = conversation();
    for (number, (_, bytes)) in heard.iter().enumerate() {
        write("wire", &number.to_string(), bytes)?;
    }
    // The whole of it, and the first words alone.
    for (name, words) in [("hello", 4), ("half", heard.len() / 2), ("all", heard.len())] {
        let mut input = Vec::new();
        for (waited, bytes) in heard.iter().take(words).filter(|(_, bytes)| bytes.len() < usize::from(u16::MAX)) {
            frame(&mut input, 1, &vec![0; waited.as_millis() as usize]);
            frame(&mut input, 4, bytes);
        }
        write("member", name, &input)?;
    }
    let mut input = Vec::new();
    for (key, value) in disk {
        frame(&mut input, u8::try_from(key.len()).map_err(io::Error::other)?, &[key, value].concat());
    }
    write("disk", "all", &input)?;
    for (number, spec) in SPECS.iter().enumerate() {
        let mut input = Vec::new();
        frame(&mut input, if number == 3 { 5 } else { 6 }, spec.as_bytes());
        frame(&mut input, 2, spec.replace("nginx", "caddy").as_bytes());
        frame(&mut input, 0, b"");
        frame(&mut input, 1, b"");
        write("request", &number.to_string(), &input)?;
    }
    write("compose", "all", COMPOSE.as_bytes())?;
    let token = format!("PEERTKN-1-{}-{}", "0".repeat(50), "a".repeat(25));
    write("token", "good", token.as_bytes())
}

/// What the founder heard of a second node while services came and went, and after which wait; and its disk at the end.
fn conversation() -> (Vec<(Duration, Vec<u8>)>, peer_fuzz::Disk) {
    let step = Duration::from_millis(50);
    let (mut one, mut two) = (Node::founder(), Node::joined());
    let (mut heard, mut waited) = (Vec::new(), Duration::ZERO);
    for round in 0..400 {
        one.wait(step);
        two.wait(step);
        waited += step;
        if let Some(spec) = (round % 100 == 50).then(|| SPECS.get(round / 100)).flatten() {
            two.ask(Request::CreateService { spec_json: (*spec).to_owned(), auth: None });
        }
        // Answers come within the round.
        for _ in 0..8 {
            for (to, bytes) in std::mem::take(&mut two.sent) {
                if to == id(1) {
                    heard.push((std::mem::take(&mut waited), bytes.clone()));
                    one.feed(Event::Message { from: id(2), bytes });
                }
            }
            for (to, bytes) in std::mem::take(&mut one.sent) {
                if to == id(2) {
                    two.feed(Event::Message { from: id(1), bytes });
                }
            }
        }
    }
    (heard, one.disk)
}
