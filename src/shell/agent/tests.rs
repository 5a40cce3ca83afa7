//! Starts that must not be what they were: on directories that are another cluster's, half made, or not whole.

use super::*;
use crate::model::node::{Availability, NodePolicy};
use crate::shell::engine::DemoEngine;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn config(dir: &Path) -> AgentConfig {
    let port = UdpSocket::bind((HERE, 0)).unwrap().local_addr().unwrap().port();
    AgentConfig {
        data_dir: dir.join("data"),
        listen: SocketAddr::new(HERE, port),
        advertise: None,
        join: None,
        standby: false,
        engine: EngineChoice::Demo,
        socket: dir.join("peer.sock"),
        hostname: "one".into(),
        labels: BTreeMap::new(),
        availability: None,
        publish_on: HERE,
        mesh: MeshChoice::Userspace,
        mesh_transport: MeshTransport::Auto,
        dashboard: Dashboard::None,
        api: None,
        timing: crate::core::face::Timing::default(),
        trace_file: None,
    }
}

async fn start(config: &AgentConfig) -> anyhow::Result<Agent> {
    Agent::start(config.clone(), AnyEngine::Demo(DemoEngine::new().on_host(&config.hostname))).await
}

async fn fails(config: &AgentConfig) -> anyhow::Error {
    start(config).await.err().expect("it must not start")
}

/// Everything in the directory but its lock.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let named = files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()));
    named.filter(|(name, _)| name != "lock").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_not_made_to_join_another_cluster_and_may_be_told_to_join_its_own() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mine, other) = (config(here.path()), config(there.path()));
    let agent = start(&mine).await.unwrap();
    let own = Join { host: "127.0.0.1:1".into(), token: agent.token().await.unwrap() };
    agent.stop().await;
    let elsewhere = start(&other).await.unwrap();
    let join = Some(Join { host: elsewhere.addr.to_string(), token: elsewhere.token().await.unwrap() });
    let before = contents(&mine.data_dir);
    let error = fails(&AgentConfig { join, ..mine.clone() }).await;
    assert!(error.to_string().contains(&mine.data_dir.display().to_string()), "{error}");
    assert!(error.downcast_ref::<StartError>().unwrap().hint.contains("peer leave"));
    assert_eq!(contents(&mine.data_dir), before);
    // As a unit file does at every start.
    start(&AgentConfig { join: Some(own), ..mine }).await.unwrap().stop().await;
    elsewhere.stop().await;
}

/// It had founded a cluster all the same, and the next start never said how to join it.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let taken = UdpSocket::bind(config.listen).unwrap();
    assert!(fails(&config).await.to_string().contains(&config.listen.to_string()));
    let left: Vec<String> = contents(&config.data_dir).into_keys().filter(|name| name != "addr").collect();
    assert_eq!(left, [""; 0]);
    drop(taken);
    std::fs::write(&config.socket, "somebody's").unwrap();
    fails(&config).await;
    std::fs::remove_file(&config.socket).unwrap();
    // In this process the one that failed may not have let go of the port yet.
    let config = AgentConfig { listen: self::config(dir.path()).listen, ..config };
    let agent = start(&config).await.unwrap();
    assert!(agent.first_start && agent.founded);
    agent.stop().await;
    let again = start(&config).await.unwrap();
    assert!(!again.first_start && !again.founded);
    again.stop().await;
}

/// It once started as an empty cluster: services gone, promises forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_state_is_missing_does_not_start_as_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    start(&config).await.unwrap().stop().await;
    let state = config.data_dir.join("state.redb");
    let kept = std::fs::read(&state).unwrap();
    std::fs::remove_file(&state).unwrap();
    let error = fails(&config).await;
    assert!(error.to_string().contains("state.redb is missing"), "{error}");
    assert!(!state.exists(), "nor is a new one made");
    std::fs::write(&state, kept).unwrap();
    start(&config).await.unwrap().stop().await;
}

/// A crash between the two writes of a first start: nothing was said to anybody, so it is still the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_cut_short_before_its_state_was_written_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let held = DataDir::open(&config.data_dir).unwrap();
    let first = first::identity(&held, &config, Clock::new().now().wall).await.unwrap();
    drop(held);
    let agent = start(&config).await.unwrap();
    assert!(agent.founded);
    assert_eq!(agent.node, first.identity.node());
    agent.stop().await;
}

/// It was an error in the log, and "removed", for who had asked for just that.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_asked_to_leave_ends_without_complaint() {
    let dir = tempfile::tempdir().unwrap();
    let mut agent = start(&config(dir.path())).await.unwrap();
    let request = Request::RemoveNode { id: agent.node, force: true };
    // It may end before it has answered.
    let _ = agent.handle.request(request).await;
    let ended = tokio::time::timeout(Duration::from_secs(40), agent.ended()).await;
    assert_eq!(ended.expect("nothing is left to stop"), Ended::Left);
}

#[test]
fn flags_of_the_first_start_that_come_too_late_are_told() {
    let said = AgentConfig {
        labels: [("zone", "east"), ("ssd", "")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        availability: Some(Availability::Drain),
        ..config(Path::new("/tmp"))
    };
    let mut policy = NodePolicy::new(NodeId::from_u128(1));
    policy.labels.insert("ssd".into(), String::new());
    let told = first::unheeded(&said, &policy).unwrap();
    assert!(told.starts_with("--label zone=east --availability drain counts only at a node's first start"), "{told}");
    assert!(told.ends_with("peer node update --label-add zone=east --availability drain one"), "{told}");
    // A unit file may say what is so.
    policy.labels.insert("zone".into(), "east".into());
    policy.availability = Availability::Drain;
    assert_eq!(first::unheeded(&said, &policy), None);
    assert_eq!(first::unheeded(&config(Path::new("/tmp")), &policy), None);
}
