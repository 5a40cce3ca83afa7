//! The rules on a kernel: a node with two containers behind a bridge, another node and a client on a LAN, each a network
//! namespace made here. It takes root, `ip`, `unshare` and `nft`, and is skipped, loudly, without.

use super::*;
use crate::routes::{Backend, Reach};
use crate::shell::mesh::TunnelFuture;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc as channel;

const DEADLINE: Duration = Duration::from_secs(30);
const WEB: Port = (Protocol::Tcp, 9000);
const DNS: Port = (Protocol::Udp, 5353);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 9);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
const ONE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
const TWO: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 3);
const THREE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 4);
const DELIVERY: u16 = 61_005;

/// Ends with the process that holds it.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let mut holder = Command::new("unshare");
        holder.args(["-n", "sh", "-c", "echo; exec sleep 600"]).stdout(Stdio::piped());
        let mut child = holder.spawn().unwrap();
        // It has its namespace once it says something.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let space = Self(child);
        space.sh("ip link set lo up");
        space
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn sh(&self, script: &str) {
        let mut shell = Command::new("nsenter");
        let at = format!("PATH=$PATH:/usr/sbin:/sbin; {script}");
        let output = shell.args(["-t", &self.pid().to_string(), "-n", "sh", "-ec", &at]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// In a thread of this namespace; what that starts is in it too.
    fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
        let space = std::fs::File::open(format!("/proc/{}/ns/net", self.pid())).unwrap();
        std::thread::spawn(move || {
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            use std::os::fd::AsFd;
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().unwrap()
    }

    /// A cable from `bridge` here to `eth0` there.
    fn plug(&self, bridge: &str, other: &Namespace, address: Ipv4Addr, gateway: Ipv4Addr) {
        let (cable, pid) = (format!("v{}", other.pid()), other.pid());
        self.sh(&format!(
            "ip link add {cable} type veth peer name eth0 netns {pid}; ip link set {cable} master {bridge} up"
        ));
        other
            .sh(&format!("ip addr add {address}/24 dev eth0; ip link set eth0 up; ip route add default via {gateway}"));
    }

    /// What a new connection gets to read first: who answers, and whom they see.
    fn ask(&self, at: Ipv4Addr, port: u16) -> Result<String, ErrorKind> {
        self.run(move || ask(SocketAddr::new(at.into(), port)))
    }

    /// Who answered so many connections, in order of name.
    fn ask_times(&self, times: usize, at: Ipv4Addr, port: u16) -> Vec<String> {
        let name = |answer: String| answer.split(' ').next().unwrap_or_default().to_owned();
        let mut names: Vec<String> = (0..times).map(|_| name(self.ask(at, port).unwrap())).collect();
        names.sort();
        names
    }

    /// Answers connections with its name until it is told to end; then its port refuses.
    fn replica(&self, name: &'static str, port: u16) -> channel::Sender<()> {
        let (end, ended) = channel::channel::<()>();
        let (up, is_up) = channel::channel::<()>();
        self.spawn(move || {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            up.send(()).unwrap();
            let mut open = Vec::new();
            // Whether it is told to end by a word or by nobody being there to say it.
            while let Err(channel::TryRecvError::Empty) = ended.try_recv() {
                match listener.accept() {
                    Ok((mut client, from)) => {
                        // One may have reset its connection by now.
                        let _ = client.write_all(format!("{name} {}", from.ip()).as_bytes());
                        open.push(client);
                    }
                    Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
                }
            }
        });
        is_up.recv().unwrap();
        end
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(at: SocketAddr) -> Result<String, ErrorKind> {
    let mut client = TcpStream::connect_timeout(&at, Duration::from_secs(5)).map_err(|e| e.kind())?;
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answer = [0; 64];
    let got = client.read(&mut answer).map_err(|e| e.kind())?;
    Ok(String::from_utf8_lossy(&answer[..got]).into_owned())
}

struct NoTunnels;

impl Tunnels for NoTunnels {
    fn open(&self, _: NodeId, _: SocketAddr) -> TunnelFuture {
        Box::pin(async { Err(ErrorKind::Unsupported.into()) })
    }
}

fn missing() -> Option<String> {
    let ok = |script: &str| {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let output = Command::new("sh").args(["-c", script]).env("PATH", path).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !ok("test \"$(id -u)\" = 0") {
        return Some("it takes root".to_owned());
    }
    let tools = ["ip", "unshare", "nsenter", "nft", "iptables"];
    let gone = tools.iter().find(|tool| !ok(&format!("command -v {tool}"))).map(|tool| format!("no {tool}"));
    gone.or_else(|| (!ok("unshare -n nft list ruleset")).then(|| "the kernel has no nftables here".to_owned()))
}

fn task(ip: Ipv4Addr) -> TaskId {
    TaskId::from_u128(u128::from(u32::from(ip)))
}

fn backend(ip: Ipv4Addr, target: u16) -> Backend {
    let reach = match ip {
        OTHER => Reach::Remote { agent: SocketAddr::new(ip.into(), 7373), delivery: Some(61_000) },
        _ => Reach::Local(ip.into()),
    };
    Backend { task: task(ip), node: NodeId::from_u128(1), target, reach }
}

fn table(behind: &[Ipv4Addr]) -> Arc<RouteTable> {
    let local = [ONE, TWO].map(|ip| ((task(ip), 80), SocketAddr::new(ip.into(), 80)));
    Arc::new(RouteTable {
        ports: BTreeMap::from([
            (WEB, behind.iter().map(|ip| backend(*ip, 80)).collect()),
            (DNS, [backend(ONE, 53)].into()),
        ]),
        local: local.into(),
        deliveries: BTreeMap::from([((Protocol::Tcp, DELIVERY), SocketAddr::new(ONE.into(), 80))]),
        members: Arc::new(BTreeMap::from([(OTHER.into(), true)])),
        options: BTreeMap::new(),
    })
}

/// The plane under test, in the node's namespace.
struct Node {
    plane: Option<Kernel>,
    events: mpsc::Receiver<MeshEvent>,
    stop: CancellationToken,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    /// To be called in its namespace: everything of the runtime is in it then.
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (sink, events) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let style = Style { publish_on: None, own: Some(NODE), plain: true };
        let plane = runtime.block_on(async {
            let found = examine(style.clone()).await.unwrap();
            let second = examine(style).await.err().unwrap();
            assert!(second.contains("another agent"), "{second}");
            Kernel::start(found, Ipv4Addr::UNSPECIFIED.into(), Arc::new(NoTunnels), sink, stop.clone()).await.unwrap()
        });
        Self { plane: Some(plane), events, stop, runtime }
    }

    fn await_event(&mut self, wanted: &MeshEvent) {
        let events = &mut self.events;
        let found = self.runtime.block_on(async {
            tokio::time::timeout(DEADLINE, async { while events.recv().await.expect("it runs") != *wanted {} }).await
        });
        found.unwrap_or_else(|_| panic!("waited in vain for {wanted:?}"));
    }

    fn apply(&mut self, version: u64, behind: &[Ipv4Addr]) {
        self.plane.as_ref().unwrap().apply(version, table(behind));
        self.await_event(&MeshEvent::Applied { version });
    }

    /// As a process that ends: nothing is cleared away.
    fn end(self) {
        self.stop.cancel();
        drop(self.plane);
        self.runtime.shutdown_timeout(DEADLINE);
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + DEADLINE;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn has_table(node: &Namespace) -> bool {
    node.run(|| {
        let mut nft = Command::new("nft");
        nft.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").args(["list", "table", "ip", rules::TABLE]);
        nft.output().unwrap().status.success()
    })
}

#[test]
fn the_story_of_a_node_whose_kernel_carries_the_mesh() {
    if let Some(why) = missing() {
        eprintln!("SKIPPED: the kernel path was not tried: {why}");
        return;
    }
    let [node, one, two, three, other, client] = std::array::from_fn(|_| Namespace::new());
    node.sh(&format!(
        "ip link add lan type bridge; ip addr add {NODE}/24 dev lan; ip link set lan up; \
         ip link add br0 type bridge; ip addr add {GATEWAY}/24 dev br0; ip link set br0 up"
    ));
    node.plug("br0", &one, ONE, GATEWAY);
    node.plug("br0", &two, TWO, GATEWAY);
    node.plug("br0", &three, THREE, GATEWAY);
    node.plug("lan", &other, OTHER, NODE);
    node.plug("lan", &client, CLIENT, NODE);
    let _one = one.replica("one", 80);
    let end_two = two.replica("two", 80);
    let _other = other.replica("other", 61_000);

    let mut here = node.run(Node::start);
    here.apply(1, &[ONE, TWO, OTHER]);
    let everybody = ["one", "one", "other", "other", "two", "two"];
    assert_eq!(client.ask_times(6, NODE, WEB.1), everybody, "from outside");
    assert_eq!(node.ask_times(6, NODE, WEB.1), everybody, "from the machine itself");
    assert_eq!(three.ask_times(6, NODE, WEB.1), everybody, "from a container");
    assert_eq!(three.ask_times(6, GATEWAY, WEB.1), everybody, "by another address of the machine");
    let seen: BTreeSet<String> = (0..3).map(|_| client.ask(NODE, WEB.1).unwrap()).collect();
    let wanted = [format!("one {CLIENT}"), format!("two {CLIENT}"), format!("other {NODE}")];
    assert_eq!(seen, wanted.into(), "whom they see");
    // These are the listener's, which here has no tunnels to reach the other node by.
    let local = ["one", "one", "two", "two"];
    assert_eq!(one.ask_times(4, NODE, WEB.1), local, "from a replica, itself among them");
    for loopback in ["127.0.0.1:9000", "[::1]:9000"] {
        let answer = node.run(move || ask(loopback.parse().unwrap())).unwrap();
        assert!(local.iter().any(|name| answer.starts_with(name)), "{loopback}: {answer}");
    }
    assert_eq!(other.ask(NODE, DELIVERY), Ok(format!("one {OTHER}")));
    assert_eq!(client.ask(NODE, DELIVERY), Err(ErrorKind::ConnectionRefused), "not a member");

    // A withdrawn replica gets nothing new and keeps what it has, until that is quiet.
    let mut old = client.run(|| {
        let mut of_one = None;
        while of_one.is_none() {
            let mut stream = TcpStream::connect((NODE, WEB.1)).unwrap();
            let mut name = [0; 3];
            stream.read_exact(&mut name).unwrap();
            of_one = (&name == b"one").then_some(stream);
        }
        of_one.unwrap()
    });
    // One that is over: it must be forgotten before the container ends.
    client.run(|| {
        for _ in 0..3 {
            let stream = TcpStream::connect((NODE, WEB.1)).unwrap();
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    });
    let over_to_one = || {
        node.run(|| {
            let mut netlink = Netlink::open().unwrap();
            // The kernel's filters find what we would have found.
            let all = conntrack::ours(&mut netlink, Which::All).unwrap();
            let of_one: Vec<&Entry> = all.iter().filter(|e| *e.at.ip() == ONE).collect();
            assert_eq!(conntrack::ours(&mut netlink, Which::At(ONE)).unwrap().len(), of_one.len());
            let unanswered = all.iter().filter(|e| !e.replied).count();
            assert_eq!(conntrack::ours(&mut netlink, Which::Unanswered).unwrap().len(), unanswered);
            of_one.iter().filter(|e| e.is_over()).count()
        })
    };
    assert_eq!(over_to_one(), 1, "one of three, by turns");
    here.apply(2, &[TWO, OTHER]);
    let asked = std::time::Instant::now();
    here.plane.as_ref().unwrap().await_drained(task(ONE), true);
    assert_eq!(client.ask_times(4, NODE, WEB.1), ["other", "other", "two", "two"]);
    here.await_event(&MeshEvent::Drained { task: task(ONE) });
    assert!(asked.elapsed() > Duration::from_secs(2), "it had carried something a moment ago");
    assert_eq!(over_to_one(), 0);
    old.write_all(b"still there?").unwrap();
    assert_eq!(old.peer_addr().unwrap().port(), WEB.1);

    // A replica that refuses costs a second try, not an error.
    end_two.send(()).unwrap();
    until("it has closed its port", || two.ask(TWO, 80) == Err(ErrorKind::ConnectionRefused));
    assert_eq!(client.ask_times(2, NODE, WEB.1), ["other", "other"]);

    let echo = one.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap());
    let asks = client.run(|| UdpSocket::bind((CLIENT, 0)).unwrap());
    asks.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut word = [0; 5];
    for _ in 0..2 {
        asks.send_to(b"hello", (NODE, DNS.1)).unwrap();
        let (_, from) = echo.recv_from(&mut word).unwrap();
        echo.send_to(&word, from).unwrap();
        assert_eq!(asks.recv_from(&mut word).unwrap().1, SocketAddr::new(NODE.into(), DNS.1));
        assert_eq!(from.ip(), IpAddr::V4(CLIENT));
    }

    node.sh("nft flush ruleset");
    until("flushed rules are back", || has_table(&node));
    assert_eq!(client.ask_times(2, NODE, WEB.1), ["other", "other"]);

    // The agent ends and the rules do not; its next life takes them over, and leaves nothing when it leaves.
    here.end();
    assert_eq!(client.ask_times(2, NODE, WEB.1), ["other", "other"], "without an agent");
    let mut here = node.run(Node::start);
    assert!(has_table(&node));
    here.apply(1, &[ONE]);
    assert_eq!(client.ask_times(2, NODE, WEB.1), ["one", "one"]);
    // By a thread of the runtime, which is in the namespace as this one is not.
    let retiring = here.runtime.spawn(here.plane.as_ref().unwrap().retire());
    here.runtime.block_on(retiring).unwrap();
    assert!(!has_table(&node));
    here.end();
}
