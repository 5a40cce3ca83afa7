//! `peer demo` as a newcomer meets it: the commands that it prints are run as they stand, a node is killed as it says,
//! and after Ctrl-C nothing is left. Over the built-in engine, and over a real Docker Engine where there is root for one.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
use netsim::lab::{Lab, LabConfig, wait_until};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);

/// The peer binary of this build: cargo puts it two levels above the test's own.
fn peer_binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("peer")
}

/// A running `peer demo`, and what it printed so far.
struct Demo {
    process: Child,
    /// Runs a command where the demo's addresses are.
    inside: Vec<String>,
    log: PathBuf,
    ended: bool,
}

impl Demo {
    fn start(engine: &str, inside: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port().to_string();
        let log = std::env::temp_dir().join(format!("peer-demo-test-{}-{port}.log", std::process::id()));
        let peer = peer_binary().display().to_string();
        let words = [inside, &[&peer, "demo", "--engine", engine, "--port", &port]].concat();
        let process = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(fs::File::create(&log).unwrap())
            .stderr(fs::File::options().append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let inside = inside.iter().map(|word| (*word).to_owned()).collect();
        let mut demo = Self { process, inside, log, ended: false };
        wait_until("the demo is up", PATIENCE, || demo.said("Ctrl-C ends the demo") || demo.has_ended()).unwrap();
        assert!(demo.said("Ctrl-C ends the demo"), "{}", demo.text());
        demo
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn said(&self, words: &str) -> bool {
        self.text().contains(words)
    }

    fn has_ended(&mut self) -> bool {
        self.ended = self.ended || self.process.try_wait().unwrap().is_some();
        self.ended
    }

    /// The line that it printed for the user to run, up to its comment.
    fn line(&self, begins: &str) -> String {
        let text = self.text();
        let line = text.lines().filter_map(|line| line.strip_prefix("  ")).find(|line| line.starts_with(begins));
        let line = line.unwrap_or_else(|| panic!("no line {begins:?} in\n{text}"));
        line.split("   #").next().unwrap().trim().to_owned()
    }

    /// Runs a printed line in a shell that has done the printed `export`.
    fn run(&self, begins: &str) -> Output {
        let script = format!("{}; {}", self.line("export "), self.line(begins));
        let words = [&self.inside[..], &["bash".to_owned(), "-c".to_owned(), script]].concat();
        Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output().unwrap()
    }

    fn ok(&self, begins: &str) -> String {
        let output = self.run(begins);
        assert!(output.status.success(), "{begins}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn dir(&self) -> PathBuf {
        let line = self.line("export ");
        let socket = line.split("unix://").nth(1).unwrap();
        Path::new(socket).ancestors().nth(2).unwrap().to_owned()
    }

    fn until(&self, what: &str, is_so: impl FnMut() -> bool) {
        wait_until(what, PATIENCE, is_so).unwrap_or_else(|error| panic!("{error}\n{}", self.text()));
    }

    /// Ctrl-C.
    fn end(mut self) {
        let dir = self.dir();
        signal("INT", self.process.id());
        wait_until("the demo ends", PATIENCE, || self.has_ended()).unwrap();
        assert!(self.process.wait().unwrap().success(), "{}", self.text());
        assert!(!dir.exists(), "{} is left", dir.display());
        assert_eq!(agents_in(&dir), Vec::<String>::new());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if !self.has_ended() {
            // A failed test: the demo cleans up after itself here, too.
            signal("INT", self.process.id());
            let _ = self.process.wait();
        }
        let _ = fs::remove_file(&self.log);
    }
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

/// Command lines of the agents whose data lies there.
fn agents_in(dir: &Path) -> Vec<String> {
    let lines = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(&format!("--data-dir {}", dir.display()))).collect()
}

/// Every printed command in its order, the kill included.
fn follow_the_printed_lines(demo: &Demo) {
    assert_eq!(demo.ok("peer node ls").matches(" Ready ").count(), 4);
    assert!(demo.ok("curl http://127.0.0.1:").starts_with("Hello from greeter 1 "));
    assert!(demo.ok("curl http://127.0.0.4:").starts_with("Hello from greeter 1 "));
    demo.ok("peer service scale");
    // The first of the two.
    assert!(demo.line("peer service update").contains("greeter:2 "));
    demo.ok("peer service update");
    assert!(demo.ok("curl http://127.0.0.4:").starts_with("Hello from greeter 2 "));

    let update = demo.text().lines().find(|line| line.contains("greeter:bad")).unwrap().trim_start().to_owned();
    let paused = demo.run(&update);
    assert_eq!(paused.status.code(), Some(1), "{paused:?}");
    assert!(demo.ok("peer service ps").contains("non-zero exit (1)"));
    demo.ok("peer service rollback");
    demo.ok("peer node update --availability drain");
    demo.ok("peer node update --availability active");

    demo.ok("kill -9");
    demo.until("the killed node is down", || demo.ok("peer node ls").contains(" Down "));
    demo.until("it is back", || demo.said("node2 is back"));
    demo.until("all are ready", || demo.ok("peer node ls").matches(" Ready ").count() == 4);
    assert!(demo.ok("curl http://127.0.0.1:").starts_with("Hello from greeter 2 "));
}

#[test]
#[cfg(target_os = "linux")]
fn the_demo_over_the_built_in_engine() {
    if !peer_binary().exists() {
        eprintln!("SKIPPED: the demo did not run: {} is not built", peer_binary().display());
        return;
    }
    let demo = Demo::start("demo", &["env"]);
    follow_the_printed_lines(&demo);
    demo.end();
}

#[test]
#[cfg(target_os = "linux")]
fn agents_do_not_outlive_a_killed_demo() {
    if !peer_binary().exists() {
        eprintln!("SKIPPED: the demo did not run: {} is not built", peer_binary().display());
        return;
    }
    let mut demo = Demo::start("demo", &["env"]);
    let dir = demo.dir();
    assert_eq!(agents_in(&dir).len(), 4);
    signal("KILL", demo.process.id());
    demo.process.wait().unwrap();
    demo.ended = true;
    demo.until("the agents have ended", || agents_in(&dir).is_empty());
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_demo_over_a_real_docker_engine() {
    let missing = Lab::missing().or_else(|| (!peer_binary().exists()).then(|| "peer is not built".to_owned()));
    if let Some(why) = missing {
        eprintln!("SKIPPED: the demo over a real Docker Engine did not run: {why}");
        return;
    }
    let dir = PathBuf::from(format!("/tmp/pd{}", std::process::id()));
    let mut lab = Lab::up(LabConfig { nodes: 1, dir: dir.clone(), peer: None }).unwrap();
    let socket = dir.join("1/docker.sock").display().to_string();
    let docker = |args: &[&str]| {
        let output = Command::new("docker").arg("-H").arg(format!("unix://{socket}")).args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Its containers are in the engine's network, so the demo is, too. `auto` finds the engine by DOCKER_HOST.
    let inside = ["ip", "netns", "exec", "peerlab1", "env", &format!("DOCKER_HOST=unix://{socket}")];
    // From outside of that network the containers are out of reach: the demo says so and plays them itself.
    let outside = Demo::start("auto", &["env", &format!("DOCKER_HOST=unix://{socket}")]);
    assert!(outside.said("its containers can't be reached from here"), "{}", outside.text());
    assert!(outside.ok("curl http://127.0.0.1:").starts_with("Hello from greeter 1 "));
    assert!(!docker(&["images"]).contains("demo/greeter"));
    outside.end();

    let foreign = docker(&["create", &netsim::lab::image("1")]);
    let demo = Demo::start("auto", &inside);
    assert!(demo.said(&format!("Using the Docker Engine at {socket}")), "{}", demo.text());
    follow_the_printed_lines(&demo);
    assert!(docker(&["ps", "--filter", "label=peer.demo"]).contains("greeters.1."));
    demo.end();
    assert_eq!(docker(&["ps", "-aq", "--no-trunc"]).trim(), foreign.trim(), "only what isn't the demo's is left");
    assert!(!docker(&["images"]).contains("demo/greeter"));
    lab.down().unwrap();
}
