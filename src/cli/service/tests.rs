//! Flags against the bodies that the docker CLI sent for them, and whole commands against a fake agent.

use super::*;
use crate::cli::fixtures;
use crate::cli::json::number;
use crate::cli::testing::{FakeAgent, console};
use serde_json::json;

fn line(args: &[&str]) -> Result<crate::cli::Command, clap::Error> {
    let words = ["peer", "service"].iter().chain(args).map(std::ffi::OsString::from);
    crate::cli::parse(words).map(|(cli, _)| cli.command)
}

fn parsed(args: &[&str]) -> ServiceCommand {
    match line(args).unwrap_or_else(|error| panic!("{error}")) {
        crate::cli::Command::Service(command) => command,
        other => panic!("{other:?}"),
    }
}

fn refused(args: &[&str]) -> String {
    line(args).unwrap_err().to_string()
}

fn created(args: &[&str]) -> Result<Value, CliError> {
    match parsed(&[&["create"], args].concat()) {
        ServiceCommand::Create(create) => create.spec().map(Value::Object),
        other => panic!("{other:?}"),
    }
}

fn edited(mut spec: Value, args: &[&str]) -> Result<Value, CliError> {
    let ServiceCommand::Update(update) = parsed(&[&["update"], args, &["web"]].concat()) else { panic!() };
    update.edit(spec.as_object_mut().unwrap())?;
    Ok(spec)
}

const IMAGE: &str = "hub.example:5000/greeter-exit:1";
const DIGEST: &str = "sha256:89bf70a62683777aabfb609f05f83103e0ec999a04dd4c6d596a1e8e77070ec8";

/// What the registry adds to a spec.
fn pinned(mut spec: Value) -> Value {
    spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!(format!("{IMAGE}@{DIGEST}"));
    spec["TaskTemplate"]["Placement"]["Platforms"] = json!([{ "Architecture": "amd64", "OS": "linux" }]);
    spec
}

#[test]
fn a_small_create_is_what_docker_sends() {
    let spec = created(&["--publish", "9000:5000", "--name", "greeters", IMAGE]).unwrap();
    assert_eq!(pinned(spec), fixtures::create_publish());
}

#[test]
fn a_wide_create_is_what_docker_sends() {
    let line = "-d --name rich --replicas 2 --publish mode=host,published=9002,target=5000,protocol=tcp --env GREETING=Rich \
        --mount type=volume,source=data,target=/data --mount type=tmpfs,target=/run --constraint node.role==worker \
        --placement-pref spread=node.labels.zone --limit-cpu 0.5 --limit-memory 64M --reserve-memory 16M \
        --restart-condition on-failure --restart-max-attempts 3 --stop-grace-period 5s --stop-signal SIGTERM --update-delay 2s \
        --update-parallelism 1 --update-failure-action rollback --rollback-parallelism 0 --label tier=front --container-label c=d \
        --host db:10.0.0.9 --hostname h-{{.Task.Slot}} --user 0 --workdir / --no-healthcheck --endpoint-mode dnsrr";
    let args: Vec<&str> = line.split_whitespace().chain([IMAGE, "/greeter"]).collect();
    let mut want = fixtures::create_rich();
    // Networks, secrets and configs are looked up first: see below.
    want["TaskTemplate"].as_object_mut().unwrap().remove("Networks");
    for gone in ["Secrets", "Configs"] {
        want["TaskTemplate"]["ContainerSpec"].as_object_mut().unwrap().remove(gone);
    }
    assert_eq!(pinned(created(&args).unwrap()), want);
}

#[test]
fn an_update_changes_what_docker_changes() {
    let before = fixtures::update_before()["Spec"].clone();
    let args = [
        "--env-add",
        "GREETING=Env",
        "--update-parallelism",
        "2",
        "--update-delay",
        "1s",
        "--update-order",
        "start-first",
        "--limit-memory",
        "64M",
        "--label-add",
        "a=b",
        "--detach",
    ];
    assert_eq!(edited(before, &args).unwrap(), fixtures::update_after());
}

#[test]
fn what_follows_the_image_is_the_containers() {
    let spec = created(&["--env", "-X=1", "--init", "alpine", "sh", "-c", "--env", "-d"]).unwrap();
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Args"], json!(["sh", "-c", "--env", "-d"]));
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Init"], true);
    assert!(refused(&["create", "--frobnicate", "alpine"]).contains("--frobnicate"));
    assert!(refused(&["create", "--replicas", "2"]).contains("IMAGE"));
}

#[test]
fn a_monitor_of_zero_is_sent_as_zero() {
    let spec = created(&["--update-monitor", "0", "--rollback-monitor", "0s", "x"]).unwrap();
    assert_eq!(spec["UpdateConfig"]["Monitor"], 0);
    assert_eq!(spec["RollbackConfig"]["Monitor"], 0);
    assert_eq!(created(&["x"]).unwrap().get("UpdateConfig"), None);
}

#[test]
fn a_flag_with_an_optional_value_doesnt_swallow_the_image() {
    let ServiceCommand::Create(create) =
        parsed(&["create", "-d", "-q", "--with-registry-auth", "--read-only=false", "-t", "nginx"])
    else {
        panic!()
    };
    let waiting = create.settings.how.waiting;
    assert_eq!((waiting.detach, waiting.quiet), (Some(true), Some(true)));
    let container = create.spec().unwrap()["TaskTemplate"]["ContainerSpec"].clone();
    assert_eq!(
        (&container["Image"], &container["TTY"], container.get("ReadOnly")),
        (&json!("nginx"), &json!(true), None)
    );
    let ServiceCommand::Create(create) = parsed(&["create", "--detach=false", "nginx"]) else { panic!() };
    assert_eq!(create.settings.how.waiting.detach, Some(false));
}

#[test]
fn health_checks() {
    let check = |args: &[&str]| {
        created(&[args, &["x"]].concat()).map(|spec| spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"].clone())
    };
    let all = [
        "--health-cmd",
        "curl -f localhost",
        "--health-interval",
        "5s",
        "--health-timeout",
        "1s",
        "--health-retries",
        "3",
        "--health-start-period",
        "10s",
        "--health-start-interval",
        "500ms",
    ];
    assert_eq!(
        check(&all).unwrap(),
        json!({ "Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 5_000_000_000u64,
        "Timeout": 1_000_000_000, "Retries": 3, "StartPeriod": 10_000_000_000u64, "StartInterval": 500_000_000 })
    );
    assert_eq!(check(&["--no-healthcheck", "--health-cmd", "x"]).unwrap_err().code(), 2);
    let none = json!({ "TaskTemplate": { "ContainerSpec": { "Healthcheck": { "Test": ["NONE"] } } } });
    let spec = edited(none, &["--health-interval", "2s"]).unwrap();
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Healthcheck"], json!({ "Interval": 2_000_000_000 }));
}

#[test]
fn lists_are_edited_entry_by_entry() {
    let spec = json!({ "Labels": { "a": "1", "b": "2" }, "Unknown": { "kept": [1.5] }, "TaskTemplate": {
        "ForceUpdate": 3,
        "ContainerSpec": { "Image": "x", "Env": ["A=1", "B=2", "C=3"], "Hosts": ["10.0.0.9 db alias", "10.0.0.8 web"],
            "Mounts": [{ "Type": "volume", "Source": "s", "Target": "/data" }, { "Type": "tmpfs", "Target": "/run" }],
            "CapabilityAdd": ["CAP_NET_ADMIN"], "Sysctls": { "k": "v" }, "DNSConfig": { "Nameservers": ["1.1.1.1"], "Options": ["ndots:1"] } },
        "Placement": { "Constraints": ["node.role==worker"], "Preferences": [{ "Spread": { "SpreadDescriptor": "node.labels.rack" } }] } },
        "EndpointSpec": { "Mode": "vip", "Ports": [{ "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress" }] } });
    let line = "--env-add B=two --env-add D=4 --env-rm A --label-rm a --label-add c --host-rm db --host-add api:10.0.0.7 --mount-rm /run \
        --mount-add type=bind,source=/srv,target=/data --cap-drop net_admin --sysctl-rm k --dns-add 8.8.8.8 --dns-rm 1.1.1.1 \
        --constraint-rm node.role==worker --constraint-add node.labels.x==1 --placement-pref-rm spread=node.labels.rack \
        --placement-pref-add spread=node.labels.zone --publish-rm 80 --publish-add 443:8443 --publish-add 80:8080 --force --ulimit-add nofile=5";
    let got = edited(spec, &line.split_whitespace().collect::<Vec<_>>()).unwrap();
    let port = |published: u16, target: u16| json!({ "Protocol": "tcp", "TargetPort": target, "PublishedPort": published, "PublishMode": "ingress" });
    assert_eq!(
        got,
        json!({ "Labels": { "b": "2", "c": "" }, "Unknown": { "kept": [1.5] }, "TaskTemplate": {
        "ForceUpdate": 4,
        "ContainerSpec": { "Image": "x", "Env": ["B=two", "C=3", "D=4"], "Hosts": ["10.0.0.8 web", "10.0.0.7 api"],
            "Mounts": [{ "Type": "bind", "Source": "/srv", "Target": "/data" }],
            "DNSConfig": { "Nameservers": ["8.8.8.8"], "Options": ["ndots:1"] },
            "Ulimits": [{ "Name": "nofile", "Soft": 5, "Hard": 5 }] },
        "Placement": { "Constraints": ["node.labels.x==1"], "Preferences": [{ "Spread": { "SpreadDescriptor": "node.labels.zone" } }] } },
        "EndpointSpec": { "Mode": "vip", "Ports": [port(443, 8443), port(80, 8080)] } })
    );
}

#[test]
fn capabilities_cancel_each_other_out() {
    let caps = |add: &[&str], drop: &[&str], line: &str| {
        let spec = json!({ "TaskTemplate": { "ContainerSpec": { "CapabilityAdd": add, "CapabilityDrop": drop } } });
        let spec = edited(spec, &line.split_whitespace().collect::<Vec<_>>()).unwrap();
        let list = |key: &str| crate::cli::json::texts(&spec, &format!("/TaskTemplate/ContainerSpec/{key}")).join(" ");
        (list("CapabilityAdd"), list("CapabilityDrop"))
    };
    let want = |add: &str, drop: &str| (add.to_owned(), drop.to_owned());
    assert_eq!(caps(&["CAP_A"], &["CAP_B"], "--cap-add b"), want("CAP_A", ""));
    assert_eq!(caps(&["CAP_A"], &["CAP_B"], "--cap-drop a --cap-add c"), want("CAP_C", "CAP_B"));
    assert_eq!(caps(&[], &[], "--cap-drop a --cap-add a"), want("CAP_A", ""));
    assert_eq!(caps(&["CAP_A"], &[], "--cap-add all"), want("ALL", ""));
    assert_eq!(caps(&["CAP_A"], &["CAP_B"], "--cap-add RESET"), want("", "CAP_B"));
}

#[test]
fn an_update_without_flags_changes_nothing() {
    let spec = fixtures::update_before()["Spec"].clone();
    assert_eq!(edited(spec.clone(), &[]).unwrap(), spec);
    assert_eq!(edited(json!({ "Mode": { "Global": {} } }), &["--replicas", "2"]).unwrap_err().code(), 2);
}

#[test]
fn a_job_s_numbers_are_those_that_docker_sends() {
    let mode =
        |args: &[&str]| created(&[&["--mode", "replicated-job"], args, &["x"]].concat()).unwrap()["Mode"].clone();
    let job =
        |concurrent, total| json!({ "ReplicatedJob": { "MaxConcurrent": concurrent, "TotalCompletions": total } });
    assert_eq!(mode(&[]), job(1, 1));
    assert_eq!(mode(&["--replicas", "5"]), job(5, 5));
    assert_eq!(mode(&["--replicas", "5", "--max-concurrent", "2"]), job(2, 5));
    assert_eq!(created(&["--mode", "global-job", "x"]).unwrap()["Mode"], json!({ "GlobalJob": {} }));
    let edit = |args: &[&str]| edited(json!({ "Mode": job(2, 5) }), args).unwrap()["Mode"].clone();
    assert_eq!(edit(&["--replicas", "9"]), job(2, 9));
    assert_eq!(edit(&["--max-concurrent", "3"]), job(3, 5));
    let replicated = json!({ "Mode": { "Replicated": { "Replicas": 2 } } });
    assert_eq!(edited(replicated, &["--max-concurrent", "3"]).unwrap_err().code(), 2);
}

#[test]
fn nonsense_is_a_usage_error_that_names_the_flag() {
    for (args, flag) in [
        (&["create", "--update-delay", "-1s", "x"][..], "--update-delay"),
        (&["create", "--limit-memory", "lots", "x"], "--limit-memory"),
        (&["create", "--publish", "80:80:80", "x"], "--publish"),
        (&["create", "--mode", "job", "x"], "--mode"),
        (&["create", "--max-concurrent", "-2", "x"], "--max-concurrent"),
        (&["create", "--mount", "type=bind", "x"], "--mount"),
        (&["create", "--update-order", "sideways", "x"], "--update-order"),
        (&["scale", "web"], "SERVICE=N"),
        (&["scale", "web=-1"], "web=5"),
    ] {
        let error = refused(args);
        assert!(error.contains(flag), "{args:?}: {error}");
    }
}

async fn ran(agent: &FakeAgent, args: &[&str]) -> (Result<(), CliError>, String, String) {
    let (mut console, out, err) = console(false);
    let result = run(parsed(args), &agent.client(), &mut console).await;
    (result, out.text(), err.text())
}

#[tokio::test]
async fn a_create_resolves_the_image_writes_and_waits() {
    let agent = FakeAgent::start(|request| match request.path.as_str() {
        "/distribution/hub.example:5000/greeter-exit:1/json" => (
            200,
            json!({ "Descriptor": { "digest": DIGEST }, "Platforms": [{ "architecture": "amd64", "os": "linux" }] }),
        ),
        "/services/create" => {
            assert_eq!(request.body, fixtures::create_publish());
            (201, json!({ "ID": "abc", "Warnings": null }))
        }
        "/services/abc" => (200, json!({ "ID": "abc", "Spec": { "Mode": { "Replicated": { "Replicas": 0 } } } })),
        _ => (200, json!([])),
    });
    let (result, out, err) = ran(&agent, &["create", "--publish", "9000:5000", "--name", "greeters", IMAGE]).await;
    assert_eq!(result, Ok(()));
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("abc\noverall progress: 0 out of 0 tasks\nverify: Service abc converged\n", "")
    );
}

#[tokio::test]
async fn a_write_that_no_majority_has_is_told_and_not_waited_for() {
    let agent = FakeAgent::start(|request| match request.path.as_str() {
        "/services/create" => {
            (201, json!({ "ID": "abc", "Warnings": ["pending: held by 1 of 5 nodes; spreads when they return"] }))
        }
        path => panic!("{path}"),
    });
    let (result, out, err) = ran(&agent, &["create", "--no-resolve-image", "nginx"]).await;
    assert_eq!((result, out.as_str()), (Ok(()), "abc\n"));
    assert_eq!(err, "warning: pending: held by 1 of 5 nodes; spreads when they return\n");
}

#[tokio::test]
async fn a_scale_goes_through_when_somebody_else_wrote_in_between() {
    let mut writes = 0;
    let agent = FakeAgent::start(move |request| match request.method.as_str() {
        "GET" => (
            200,
            json!({ "ID": "abc", "Version": { "Index": 5 + writes }, "Spec": { "Name": "web", "Mode": { "Replicated": { "Replicas": 1 } } } }),
        ),
        _ => {
            writes += 1;
            assert_eq!(request.body, json!({ "Name": "web", "Mode": { "Replicated": { "Replicas": 5 } } }));
            if writes == 1 {
                return (500, json!({ "message": "rpc error: code = Unknown desc = update out of sequence" }));
            }
            (200, json!({ "Warnings": null }))
        }
    });
    let (result, out, _) = ran(&agent, &["scale", "-d", "web=5"]).await;
    assert_eq!((result, out.as_str()), (Ok(()), "web scaled to 5\n"));
    assert_eq!(agent.asked().last().unwrap(), "POST /services/abc/update?version=6");
}

#[tokio::test]
async fn an_update_asks_the_registry_only_for_a_new_image() {
    let agent = FakeAgent::start(|request| match request.method.as_str() {
        "GET" => (200, fixtures::update_before()),
        _ => (200, json!({ "Warnings": null })),
    });
    let (result, out, _) = ran(&agent, &["update", "-d", "--env-add", "A=1", "greeters"]).await;
    assert_eq!((result, out.as_str()), (Ok(()), "greeters\n"));
    let index = fixtures::update_before()["Version"]["Index"].to_string();
    assert_eq!(
        agent.asked(),
        [
            "GET /services/greeters",
            &format!("POST /services/6i7dqo2au2r1cxy823ykljwec/update?registryAuthFrom=spec&version={index}")
        ]
    );
    let (_, _, err) = ran(&agent, &["update", "-d", "--image", "acme/web", "greeters"]).await;
    assert_eq!(agent.asked().get(3).unwrap(), "GET /distribution/acme/web:latest/json");
    assert!(err.starts_with("image acme/web:latest could not be accessed on a registry"));
}

#[tokio::test]
async fn rollbacks_name_their_revision() {
    let agent = FakeAgent::start(|request| match request.method.as_str() {
        "GET" => (200, json!({ "ID": "abc", "Version": { "Index": 9 }, "Spec": fixtures::update_before()["Spec"] })),
        _ if request.path.contains("to=7") => (404, json!({ "message": "service web has no revision 7 (kept: 1, 2)" })),
        _ => (200, json!({})),
    });
    assert_eq!(ran(&agent, &["rollback", "-d", "--to", "2", "web"]).await.0, Ok(()));
    assert_eq!(agent.asked().last().unwrap(), "POST /peer/services/abc/rollback?version=9&to=2");
    assert_eq!(ran(&agent, &["update", "-d", "--rollback", "web"]).await.0, Ok(()));
    assert_eq!(agent.asked().last().unwrap(), "POST /peer/services/abc/rollback?version=9");
    let error = ran(&agent, &["rollback", "-d", "--to", "7", "web"]).await.0.unwrap_err();
    assert_eq!(error.message(), "service web has no revision 7 (kept: 1, 2)");
    assert_eq!(error.hint_text(), Some("see the kept revisions with: peer service history web"));
    let mixed = ran(&agent, &["update", "--rollback", "--force", "web"]).await.0.unwrap_err();
    assert_eq!(mixed.message(), "other flags may not be combined with --rollback");
}

#[tokio::test]
async fn the_others_are_removed_when_one_is_missing() {
    let agent = FakeAgent::start(|request| match request.path.as_str() {
        "/services/missing" => (404, json!({ "message": "service missing not found" })),
        _ => (200, json!({})),
    });
    let (result, out, _) = ran(&agent, &["rm", "rich", "missing", "glob"]).await;
    assert_eq!(out, "rich\nglob\n");
    assert_eq!(result.unwrap_err().message(), "no such service: missing");
}

/// Knows the secret, config and network of the recorded spec.
fn keeper() -> FakeAgent {
    FakeAgent::start(|request| match request.path.as_str() {
        r#"/secrets?filters={"name":{"token":true}}"# => {
            let other = json!({ "ID": "other", "Spec": { "Name": "token2" } });
            (200, json!([other, { "ID": "zdc70b6my1rq90l953qsl6ipg", "Spec": { "Name": "token" } }]))
        }
        r#"/configs?filters={"name":{"motd":true}}"# => {
            (200, json!([{ "ID": "dbjvnyrzp5iw0t0wepguadkgl", "Spec": { "Name": "motd" } }]))
        }
        "/networks/back" => (200, json!({ "Name": "back", "Id": "h6ep4hweyhmq9vhwvm2kldbkc" })),
        path if path.starts_with("/networks/") => (404, json!({ "message": "network x not found" })),
        "/services/web" => {
            let mut found = json!({ "ID": "abc", "Version": { "Index": 9 }, "Spec": fixtures::create_rich() });
            found["Spec"]["Name"] = "web".into();
            (200, found)
        }
        path if path.starts_with("/services/") => (200, json!({ "ID": "abc", "body": request.body })),
        _ => (200, json!([])),
    })
}

async fn referring(args: &[&str]) -> Result<Value, CliError> {
    let ServiceCommand::Create(create) = parsed(&[&["create"], args, &["x"]].concat()) else { panic!() };
    let (mut spec, agent) = (create.spec()?, keeper());
    create.refs.apply(&mut spec, &agent.client()).await?;
    Ok(Value::Object(spec))
}

#[tokio::test]
async fn secrets_configs_and_networks_are_named_and_sent_as_docker_sends_them() {
    let want = fixtures::create_rich();
    let args = ["--secret", "token", "--config", "source=motd,target=/etc/motd", "--network", "back"];
    let spec = referring(&args).await.unwrap();
    for list in ["/TaskTemplate/ContainerSpec/Secrets", "/TaskTemplate/ContainerSpec/Configs", "/TaskTemplate/Networks"]
    {
        assert_eq!(spec.pointer(list), want.pointer(list), "{list}");
    }
    let args = ["--secret", "src=token,target=t,uid=7,gid=8,mode=0400", "--network", "name=back,alias=a,alias=b"];
    let spec = referring(&args).await.unwrap();
    let secret = json!({ "File": { "Name": "t", "UID": "7", "GID": "8", "Mode": 0o400 },
        "SecretID": "zdc70b6my1rq90l953qsl6ipg", "SecretName": "token" });
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Secrets"], json!([secret]));
    assert_eq!(
        spec["TaskTemplate"]["Networks"],
        json!([{ "Target": "h6ep4hweyhmq9vhwvm2kldbkc", "Aliases": ["a", "b"] }])
    );
    for (args, what) in [
        (["--secret", "missing"], "no such secret: missing"),
        (["--config", "missing"], "no such config: missing"),
        (["--network", "missing"], "no such network: missing"),
    ] {
        let error = referring(&args).await.unwrap_err();
        assert_eq!(error.message(), what);
        assert!(error.hint_text().unwrap().starts_with("make it with: "), "{error:?}");
    }
}

#[tokio::test]
async fn what_a_service_refers_to_can_be_edited() {
    let changed = async |args: &[&str]| {
        let agent = keeper();
        let ServiceCommand::Update(update) = parsed(&[&["update"], args, &["web"]].concat()) else { panic!() };
        let Value::Object(mut spec) = fixtures::create_rich() else { panic!() };
        update.refs.apply(&mut spec, &agent.client()).await.unwrap();
        Value::Object(spec)
    };
    assert_eq!(changed(&[]).await, fixtures::create_rich());
    let spec = changed(&["--secret-rm", "token", "--config-rm", "motd", "--network-rm", "back"]).await;
    assert!(spec.pointer("/TaskTemplate/Networks").is_none(), "{spec}");
    assert!(spec.pointer("/TaskTemplate/ContainerSpec/Secrets").is_none(), "{spec}");
    let spec = changed(&["--secret-add", "source=token,target=again", "--secret-add", "source=token,mode=0400"]).await;
    let secrets = spec["TaskTemplate"]["ContainerSpec"]["Secrets"].as_array().unwrap();
    let shown: Vec<_> = secrets.iter().map(|s| (text(s, "/File/Name"), number(s, "/File/Mode"))).collect();
    assert_eq!(shown, [("again", 0o444), ("token", 0o400)]);
    let agent = keeper();
    assert_eq!(ran(&agent, &["update", "-d", "--network-rm", "back", "web"]).await.0, Ok(()));
    assert_eq!(agent.asked()[1], "GET /networks/back");
}

#[test]
fn flags_of_docker_that_have_no_counterpart_are_refused_by_name() {
    for (args, says) in [
        (&["create", "--isolation", "hyperv", "x"][..], "Windows"),
        (&["create", "--secret", "target=x", "x"], "the field source is missing"),
        (&["create", "--config", "source=x,mode=rw", "x"], "as 0440"),
        (&["create", "--network", "name=x,driver-opt=a=b", "x"], "not supported yet"),
    ] {
        let error = refused(args);
        assert!(error.contains(says) && error.contains(args[1]), "{args:?}: {error}");
    }
}

#[tokio::test]
async fn logs_are_printed_as_docker_prints_them() {
    let agent = FakeAgent::start(|request| match request.path.as_str() {
        "/services/web" => (200, json!({ "ID": "abc", "Spec": { "Name": "web" } })),
        "/services/abc" => (200, json!({ "ID": "abc", "Spec": { "Name": "web" } })),
        "/nodes" => (200, json!([{ "ID": "n1", "Description": { "Hostname": "node1" } }])),
        "/tasks/0123456789abcdef" => (200, json!({ "ID": "0123456789abcdef", "ServiceID": "abc", "Slot": 2 })),
        path if path.starts_with("/services/abc/logs?") => {
            assert!(path.contains("stdout=1&stderr=1&follow=0&tail=5&timestamps=0&details=1"), "{path}");
            let details =
                "com.docker.swarm.node.id=n1,com.docker.swarm.service.id=abc,com.docker.swarm.task.id=0123456789abcdef";
            let frame = |stream: u8, line: &str| {
                let line = format!("{details} {line}\n");
                let length = u32::try_from(line.len()).unwrap().to_be_bytes();
                [&[stream, 0, 0, 0], &length[..], line.as_bytes()].concat()
            };
            let bytes = [frame(1, "hello there"), frame(2, "oh no")].concat();
            (200, crate::cli::testing::frames(&bytes))
        }
        path => (404, json!({ "message": format!("{path} not found") })),
    });
    let (result, out, err) = ran(&agent, &["logs", "--tail", "5", "web"]).await;
    assert_eq!(result, Ok(()));
    assert_eq!(
        (out.as_str(), err.as_str()),
        ("web.2.0123456789ab@node1    | hello there\n", "web.2.0123456789ab@node1    | oh no\n")
    );
    let error = ran(&agent, &["logs", "missing"]).await.0.unwrap_err();
    assert_eq!(error.message(), "no such task or service: missing");
}

#[tokio::test]
async fn an_update_that_changes_nothing_says_only_that_and_sends_the_spec_as_it_is() {
    let agent = FakeAgent::start(|request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", path @ ("/services/web" | "/services/stuck" | "/services/open")) => {
            let mut spec = json!({ "Name": "web", "TaskTemplate": { "ContainerSpec": { "Image": "web:1" } } });
            if path.ends_with("open") {
                spec["EndpointSpec"] = json!({ "Ports": [{ "Protocol": "tcp", "TargetPort": 5000, "PublishedPort": 9000, "PublishMode": "ingress" }] });
            }
            let update = if path.ends_with("stuck") { "paused" } else { "completed" };
            let update = json!({ "State": update });
            (200, json!({ "ID": "abc", "Version": { "Index": 4 }, "Spec": spec, "UpdateStatus": update }))
        }
        ("POST", path) => {
            assert_eq!(path, "/services/abc/update?registryAuthFrom=spec&version=4");
            let same =
                request.body == json!({ "Name": "web", "TaskTemplate": { "ContainerSpec": { "Image": "web:1" } } });
            let limited = request.body.pointer("/TaskTemplate/Placement/MaxReplicas").is_some();
            let open = request.body.pointer("/EndpointSpec/Ports/0").is_some();
            assert!(same || limited || open, "{}", request.body);
            (200, json!({ "Warnings": [] }))
        }
        other => panic!("{other:?}"),
    });
    for flags in [&[][..], &["--env-rm", "NOPE"], &["--publish-rm", "7"]] {
        // Without -d, too: nothing is there to wait for.
        let (result, out, err) = ran(&agent, &[&["update"], flags, &["web"]].concat()).await;
        assert_eq!((result, out.as_str()), (Ok(()), ""));
        assert!(err.starts_with("nothing to change: ") && err.lines().count() == 1, "{flags:?}: {err}");
    }
    let (_, _, err) = ran(&agent, &["update", "--publish-rm", "9000", "open"]).await;
    assert!(err.contains("--publish-rm 5000 for what is published on 9000"), "{err}");
    // What has paused is tried again by the same spec.
    let (result, out, err) = ran(&agent, &["update", "-d", "stuck"]).await;
    assert_eq!((result, out.as_str(), err.as_str()), (Ok(()), "stuck\n", ""));
    let (_, _, err) = ran(&agent, &["update", "-d", "--replicas-max-per-node", "2", "web"]).await;
    assert_eq!(err, "");
}

#[test]
fn what_docker_has_no_flag_for_stands_in_labels_and_what_it_has_in_its_spec() {
    let args = "--label a=b --device /dev/fuse --device /dev/a:/dev/b:r --privileged --shm-size 64m --gpus 2 \
        --generic-resource ssd=1 x";
    let spec = created(&args.split_whitespace().collect::<Vec<_>>()).unwrap();
    assert_eq!(
        spec["Labels"],
        json!({ "a": "b", "peer.devices": "/dev/fuse:/dev/fuse:rwm,/dev/a:/dev/b:r", "peer.privileged": "true",
                "peer.shm-size": "67108864", "peer.gpus": "2" })
    );
    let ssd = |count| json!({ "DiscreteResourceSpec": { "Kind": "ssd", "Value": count } });
    let reserved = |spec: &Value| spec["TaskTemplate"]["Resources"]["Reservations"]["GenericResources"].clone();
    assert_eq!(reserved(&spec), json!([ssd(1)]));
    let args = "--device-rm /dev/b --device-add /dev/c:/dev/fuse --privileged=false --shm-size 0 --gpus none \
        --generic-resource-add ssd=2 --generic-resource-rm gpu";
    let spec = edited(spec, &args.split_whitespace().collect::<Vec<_>>()).unwrap();
    assert_eq!(spec["Labels"], json!({ "a": "b", "peer.devices": "/dev/c:/dev/fuse:rwm" }));
    assert_eq!(reserved(&spec), json!([ssd(2)]));
    let spec = edited(spec, &["--device-rm", "/dev/c", "--generic-resource-rm", "ssd"]).unwrap();
    assert_eq!((&spec["Labels"], reserved(&spec)), (&json!({ "a": "b" }), Value::Null));
    for (args, why) in [
        (["create", "--device", "fuse", "x"], "want absolute paths"),
        (["create", "--gpus", "some", "x"], "want all, a number"),
        (["create", "--generic-resource", "gpu=UUID1", "x"], "want a whole number"),
        (["create", "--shm-size", "much", "x"], "is no size"),
    ] {
        assert!(refused(&args).contains(why), "{args:?}: {}", refused(&args));
    }
}
