//! No request fails while services change, and what fails as something breaks (issue 4, "must show" 1 and 2), on real engines,
//! with fewer requests than the whole (`lab stories`, `lab mesh-faults`; docs/mesh.md). Skipped, loudly, where there is no root or no dockerd.

mod common;

use common::Cluster;
use netsim::lab::load::faults::{self, Fault};
use netsim::lab::load::stories::{self, Story, StoryConfig};
use std::time::Duration;

/// A load without rests takes every CPU of a small machine: agents of a debug build then wait for theirs, and what they do late
/// is what is told (`lab stories` does that).
const REST: Duration = Duration::from_millis(20);
const AT_MOST: Duration = Duration::from_secs(40);

fn none_fails(cluster: Option<Cluster>, tag: &str, told: &[Story]) {
    let Some(cluster) = cluster else { return };
    let config = StoryConfig { tag: tag.to_owned(), clients: 2, rest: REST, requests: 20_000, at_most: AT_MOST };
    let rows = stories::run(&cluster.lab, told, &config).unwrap();
    let broken: Vec<String> = rows
        .iter()
        .filter(|row| row.is_broken())
        .map(|row| {
            format!("{:?} {} {:?}: {}\n{}", row.story, row.port, row.mode, row.report, row.report.told.join("\n"))
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(rows.iter().all(|row| row.report.answered > 0), "every load has asked");
    cluster.end();
}

/// Where the kernel carries the plain port.
#[test]
fn no_request_fails_while_services_scale_and_update_and_agents_restart() {
    let told = [Story::Scale, Story::StopFirst, Story::StartFirst, Story::Drain, Story::Restart, Story::Lease];
    none_fails(Cluster::up(3), "1", &told);
}

/// New connections on every port, kept ones on HTTP-aware ones. Through the agents.
#[test]
fn replicas_that_die_at_once_cost_no_request_that_could_be_spared() {
    none_fails(
        Cluster::up_on(3, "userspace"),
        "exit",
        &[Story::Scale, Story::StopFirst, Story::StartFirst, Story::Drain],
    );
}

/// A connection to what is gone can't be saved on a plain port; on an HTTP-aware one what it asked is asked of another replica.
/// The kernel goes on without its agent.
#[test]
fn what_breaks_costs_only_what_was_under_way_on_a_plain_port() {
    let Some(cluster) = Cluster::up(3) else { return };
    let config = StoryConfig { tag: "1".to_owned(), clients: 2, rest: REST, requests: 0, at_most: Duration::ZERO };
    let rows = faults::run(&cluster.lab, &[Fault::Node, Fault::Agent], &config).unwrap();
    for row in &rows {
        let may_fail = row.fault == Fault::Node && row.port == "tcp";
        let failed = row.report.failures();
        assert!(failed == 0 || may_fail, "{:?} {} {:?}: {:?}", row.fault, row.port, row.mode, row.report.told);
        assert!(row.report.answered > 0, "every load has asked");
    }
    cluster.end();
}
