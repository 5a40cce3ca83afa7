use super::*;
use clap::Parser;

#[derive(Debug, Parser)]
struct Only {
    #[command(flatten)]
    start: StartArgs,
}

const TOKEN: &str = "PEERTKN-1-00000000000000000000000000000000000000000000000000-0000000000000000000000000";

/// With the token in its place.
fn with_token(line: &str) -> String {
    line.replace("TOKEN", TOKEN)
}

fn around() -> Surroundings {
    Surroundings { data_dir: "/var/lib/peer".into(), token: None, socket: |dir| dir.join("peer.sock") }
}

fn args(line: &str) -> StartArgs {
    Only::try_parse_from(std::iter::once("start").chain(line.split_whitespace())).unwrap().start
}

fn options_in(around: &Surroundings, line: &str) -> Result<StartOptions, CliError> {
    args(&with_token(line)).options(around)
}

fn options(line: &str) -> Result<StartOptions, CliError> {
    options_in(&around(), line)
}

#[test]
fn nothing_needs_to_be_said() {
    let options = options("").unwrap();
    assert_eq!((options.listen, options.advertise, options.engine, options.socket), (None, None, None, None));
    assert!(options.join.is_none() && options.hostname.is_none() && options.labels.is_empty());
    assert_eq!(options.data_dir, Path::new("/var/lib/peer"));
    assert_eq!(options.default_socket, Path::new("/var/lib/peer/peer.sock"));
    assert_eq!(options.availability, None);
}

#[test]
fn everything_can_be_said() {
    let line = "--join 10.0.0.1:7400 --token TOKEN --advertise-addr 10.0.0.2 --listen-addr 10.0.0.2:7401 \
         --data-dir /tmp/p --engine demo --socket /tmp/p.sock --hostname n2 --label zone=east --label ssd \
         --availability drain --publish-addr 127.0.0.1 --mesh kernel --mesh-transport quic";
    let options = options(line).unwrap();
    assert_eq!(options.publish_on, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let join = options.join.unwrap();
    assert_eq!((join.host.as_str(), join.token.as_str()), ("10.0.0.1:7400", TOKEN));
    assert_eq!(options.advertise, Some(("10.0.0.2".parse().unwrap(), None)));
    assert_eq!(options.listen, Some("10.0.0.2:7401".parse().unwrap()));
    assert_eq!(options.engine, Some(EngineChoice::Demo));
    assert_eq!(
        options.labels.into_iter().collect::<Vec<_>>(),
        [("ssd".into(), "".into()), ("zone".into(), "east".into())]
    );
    assert_eq!(options.availability, Some(Availability::Drain));
    assert_eq!((options.mesh, options.mesh_transport), (Some(MeshChoice::Kernel), Some(MeshTransport::Quic)));
    assert_eq!(advertise("::1").unwrap(), ("::1".parse().unwrap(), None));
    assert_eq!(address("--listen-addr", "::1", 7373).unwrap(), "[::1]:7373".parse().unwrap());
    assert_eq!(address("--listen-addr", ":7400", 7373).unwrap(), "0.0.0.0:7400".parse().unwrap());
    assert_eq!(advertise("10.0.0.2:9").unwrap(), ("10.0.0.2".parse().unwrap(), Some(9)));
    assert_eq!(engine("/run/docker.sock").unwrap(), EngineChoice::Docker("/run/docker.sock".into()));
}

#[test]
fn a_node_that_was_removed_is_told_apart() {
    assert_eq!(over(Ended::Removed).unwrap_err().code(), 3);
    let left = over(Ended::Left).unwrap_err();
    assert_eq!((left.code(), left.message()), (3, ""), "a unit file must not start it again");
    assert!(over(Ended::Stopped).is_ok());
    assert_eq!(failed(anyhow::anyhow!("disk full")).code(), 1);
}

#[test]
fn one_error_names_the_flag() {
    for (line, flag) in [
        ("--listen-addr nowhere", "--listen-addr"),
        ("--listen-addr 1.2.3.4:0", "--listen-addr"),
        ("--listen-addr :x", "--listen-addr"),
        ("--advertise-addr 0.0.0.0", "--advertise-addr"),
        ("--advertise-addr ::", "--advertise-addr"),
        ("--engine tcp://10.0.0.1:2375", "--engine"),
        ("--engine podman", "--engine"),
        ("--api 10.0.0.1:2376", "--api"),
        ("--api tcp://nowhere", "--api"),
        ("--hostname my_node!", "--hostname"),
        ("--label =x", "--label"),
        ("--availability sleepy", "--availability"),
        ("--publish-addr lo", "--publish-addr"),
        ("--mesh ipvs", "--mesh"),
        ("--mesh-transport tcp", "--mesh-transport"),
        ("--socket tcp://x", "--socket"),
        ("--join http://x --token TOKEN", "--join"),
        ("--join host:99999 --token TOKEN", "--join"),
        ("--join host:0 --token TOKEN", "--join"),
        ("--join host", "--join"),
        ("--token TOKEN", "--token"),
        ("--join host --token SWMTKN-1-a-b", "--token"),
        ("--join host --token hunter2", "--token"),
        ("--join host --token PEERTKN-1-hunter2", "--token: the token is cut short"),
    ] {
        let error = options(line).unwrap_err();
        assert!(error.message().starts_with(flag), "{line}: {error}");
        assert_eq!(error.code(), 2, "{line}");
        assert!(!error.message().contains("hunter2"), "a token is a secret");
    }
}

#[test]
fn the_token_may_come_from_a_file_or_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let line = format!("--join host --token-file {}", file.display());
    assert_eq!(options(&line).unwrap().join.unwrap().token, TOKEN);
    let around = Surroundings { token: Some(TOKEN.to_owned()), ..around() };
    assert_eq!(options_in(&around, "--join host").unwrap().join.unwrap().token, TOKEN);
    assert!(
        options_in(&around, "").unwrap().join.is_none(),
        "a token that lies about in the environment is no mistake"
    );
}

/// A unit file says `--join` at every start; but what is no token at all is a mistake, whoever says it.
#[test]
fn a_member_starts_again_without_its_token_and_says_what_it_passes_over() {
    let dir = tempfile::tempdir().unwrap();
    let (data, none, cut) = (dir.path().join("data"), dir.path().join("none"), dir.path().join("cut"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(&cut, &TOKEN[..40]).unwrap();
    let line = |said: &str| format!("--join host {said} --data-dir {}", data.display());
    let with_file = |file: &Path| line(&format!("--token-file {}", file.display()));
    let error = options(&with_file(&none)).unwrap_err();
    assert!(error.message().ends_with("/none: no such file") && error.hint_text().is_some(), "{error}");

    std::fs::write(data.join("identity.json"), "{}").unwrap();
    for line in [line(""), with_file(&none)] {
        let args = args(&line);
        let passed_over = args.passed_over(&args.options(&around()).unwrap()).unwrap();
        assert!(passed_over.contains("--join host is passed over"), "{passed_over}");
    }
    let args = args(&with_token(&line("--token TOKEN")));
    assert_eq!(args.passed_over(&args.options(&around()).unwrap()), None, "whose token it is, the agent looks at");
    for bad in [line("--token hunter2"), line("--token SWMTKN-1-a-b"), with_file(&cut)] {
        assert_eq!(options(&bad).unwrap_err().code(), 2, "{bad}");
    }
}
