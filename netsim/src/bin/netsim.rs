//! The simulator's command line. See docs/netsim.md.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use netsim::sim::chaos::{self, Profile, Size};
use netsim::sim::picture;
use netsim::sim::plan::Plan;
use netsim::sim::probes::Probes;
use netsim::sim::rates::Rates;
use netsim::sim::run::{Outcome, Tell, run};
use netsim::sim::scale;
use netsim::sim::shrink::shrink;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Parser)]
#[command(name = "netsim", about = "Whole clusters of peer on virtual time, from one seed")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args, Clone)]
struct What {
    /// calm, one, swarm or storm; a sweep also takes all
    #[arg(long, default_value = "swarm")]
    profile: String,
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// Simulated seconds with faults; what follows until the cluster has settled comes on top
    #[arg(long, default_value_t = 300)]
    secs: u64,
    /// A known bug to plant (needs the feature `plant`)
    #[arg(long)]
    plant: Option<String>,
}

#[derive(clap::Args)]
struct Sweep {
    /// A..B
    #[arg(long, required_unless_present = "commit")]
    seeds: Option<String>,
    /// A commit's hash: a slice of seeds that is its own, 500 long
    #[arg(long, conflicts_with = "seeds")]
    commit: Option<String>,
    #[command(flatten)]
    what: What,
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Begins no run after so many CPU-seconds
    #[arg(long)]
    cpu_secs: Option<f64>,
    /// Runs every n-th seed twice and compares
    #[arg(long, default_value_t = 50)]
    twice: u64,
    /// Ends after this many failing seeds
    #[arg(long, default_value_t = 10)]
    failures: u64,
    /// Fails if a probe was never hit
    #[arg(long)]
    probes: bool,
}

#[derive(Subcommand)]
enum Command {
    /// One seed, with its figures
    Run {
        seed: u64,
        #[command(flatten)]
        what: What,
    },
    /// Many seeds
    Sweep(Sweep),
    /// The story of a seed or of a plan file
    Replay {
        /// A seed or a file
        plan: String,
        #[command(flatten)]
        what: What,
        /// Single requests too
        #[arg(long)]
        verbose: bool,
    },
    /// The smallest plan that breaks the same law
    Shrink {
        plan: String,
        #[command(flatten)]
        what: What,
        #[arg(long)]
        out: Option<PathBuf>,
        #[arg(long, default_value_t = 400)]
        runs: usize,
    },
    /// The plan of a seed, as TOML; or the run as a picture
    Show {
        plan: String,
        #[command(flatten)]
        what: What,
        /// Writes a space-time picture of the run, one file that needs nothing else
        #[arg(long)]
        html: Option<PathBuf>,
    },
    /// Plants each known bug and tells in how many seeds it is caught (needs the feature `plant`)
    Planted {
        /// This one alone
        #[arg(long)]
        bug: Option<String>,
        /// Of each profile
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// The lease's own code in every order of events that a bound allows
    Model(netsim::model::cli::Cli),
    /// Figures of big clusters, as a table
    Scale {
        /// Sizes of clusters, each with rows of its own if it is to have others: 100,3000:rest+update
        #[arg(long, value_delimiter = ',', default_value = "100,1000")]
        nodes: Vec<scale::Size>,
        /// Only these: rest, update, detect, peace, stalls, halves, holder, place
        #[arg(long, value_delimiter = ',')]
        rows: Vec<String>,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Node-hours without a crash at each loss
        #[arg(long, default_value_t = 20.0)]
        hours: f64,
        #[arg(long, default_value_t = 20)]
        crashes: usize,
        /// Crashes of the lease holder
        #[arg(long, default_value_t = 20)]
        holders: usize,
        /// Packets lost, in permille, for crashes and peace
        #[arg(long, value_delimiter = ',', default_value = "0,10,50,100")]
        losses: Vec<u32>,
        #[arg(long)]
        json: bool,
    },
    /// Real nodes on this machine, and chaos on them
    Lab(netsim::lab::cli::Cli),
}

#[cfg(feature = "plant")]
fn plant(name: &str) -> Result<()> {
    let bug = peer::plant::Bug::ALL.iter().find(|b| b.name() == name).with_context(|| format!("no bug {name:?}"))?;
    peer::plant::plant(Some(*bug));
    Ok(())
}

#[cfg(not(feature = "plant"))]
fn plant(name: &str) -> Result<()> {
    bail!("to plant {name} build with --features plant")
}

fn plan_of(text: &str, what: &What) -> Result<Plan> {
    if let Ok(seed) = text.parse() {
        return drawn(seed, what);
    }
    if let Some(name) = &what.plant {
        plant(name)?;
    }
    let file = std::fs::File::open(text).with_context(|| text.to_owned())?;
    let text = std::io::read_to_string(file)?;
    Ok(Plan::parse(&text)?)
}

fn drawn(seed: u64, what: &What) -> Result<Plan> {
    if let Some(name) = &what.plant {
        plant(name)?;
    }
    let Some(profile) = Profile::parse(&what.profile) else { bail!("no profile {:?}", what.profile) };
    Ok(chaos::draw(seed, profile, Size { nodes: what.nodes, secs: what.secs }))
}

fn verdict(outcome: &Outcome) -> String {
    match &outcome.violation {
        Some(v) => format!("VIOLATION {} at {:.6} s: {}", v.law, v.at_us as f64 / 1e6, v.text),
        None => format!(
            "ok: settled {} s after the faults; {} events, {} requests ({} failed), {} messages",
            outcome.settle_secs, outcome.events, outcome.requests, outcome.failed_requests, outcome.messages
        ),
    }
}

fn main() -> Result<()> {
    // A violation is told by its text; the place of a panic in a core is told by the hook.
    match Cli::parse().command {
        Command::Run { seed, what } => {
            let outcome = run(&drawn(seed, &what)?, Tell::Nothing);
            println!("seed {seed} hash {:016x} {}", outcome.hash, verdict(&outcome));
            finish(outcome.violation.is_none())
        }
        Command::Sweep(how) => sweep(&how),
        Command::Replay { plan, what, verbose } => {
            let tell = if verbose { Tell::Everything } else { Tell::Story };
            let outcome = run(&plan_of(&plan, &what)?, tell);
            print!("{}", outcome.trace);
            println!("hash {:016x} {}", outcome.hash, verdict(&outcome));
            finish(outcome.violation.is_none())
        }
        Command::Shrink { plan, what, out, runs } => {
            let plan = plan_of(&plan, &what)?;
            let first = run(&plan, Tell::Nothing);
            let Some(broken) = first.violation else { bail!("this plan breaks nothing") };
            let mut tell = |p: &Plan| {
                eprintln!("{} faults, {} operations, {} nodes, {} s", p.faults.len(), p.ops.len(), p.nodes, p.secs);
            };
            let (mut small, took) = shrink(&plan, &broken.law, runs, &mut tell);
            small.guards.clone_from(&broken.law);
            small.story = run(&small, Tell::Nothing).violation.map(|v| v.text).unwrap_or_default();
            eprintln!("{took} runs");
            let text = small.to_toml()?;
            match out {
                Some(path) => {
                    use std::io::Write as _;
                    std::fs::File::create(path)?.write_all(text.as_bytes())?;
                }
                None => print!("{text}"),
            }
            Ok(())
        }
        Command::Model(model) => {
            if let Some(name) = &model.plant {
                plant(name)?;
            }
            finish(netsim::model::cli::run(&model)?)
        }
        Command::Scale { nodes, rows, seed, hours, crashes, holders, losses, json } => {
            measure(&nodes, &scale::Options { seed, rows, hours, crashes, holders, losses }, json)
        }
        Command::Planted { bug: Some(bug), seeds, .. } => {
            plant(&bug)?;
            let rates = Rates::measure(seeds);
            println!("{bug}: {rates}");
            finish(rates.is_caught())
        }
        Command::Planted { bug: None, seeds, jobs } => planted(seeds, jobs),
        Command::Lab(lab) => netsim::lab::cli::run(lab),
        Command::Show { plan, what, html: Some(path) } => {
            let (name, plan) = (plan.clone(), plan_of(&plan, &what)?);
            let outcome = run(&plan, Tell::Story);
            let title = format!("netsim {name}, profile {}, {} nodes", plan.profile, plan.nodes);
            let page = picture::draw(&outcome.story, &title, &verdict(&outcome), outcome.violation.is_some());
            use std::io::Write as _;
            std::fs::File::create(path)?.write_all(page.as_bytes())?;
            Ok(())
        }
        Command::Show { plan, what, html: None } => {
            print!("{}", plan_of(&plan, &what)?.to_toml()?);
            Ok(())
        }
    }
}

fn measure(sizes: &[scale::Size], options: &scale::Options, json: bool) -> Result<()> {
    let mut rows = sizes.iter().flat_map(|size| &size.rows).chain(&options.rows);
    if let Some(row) = rows.find(|row| !scale::ROWS.contains(&row.as_str())) {
        bail!("no row {row:?}; there are {}", scale::ROWS.join(", "));
    }
    let mut all = Vec::new();
    for scale::Size { nodes, rows } in sizes {
        let rows = if rows.is_empty() { &options.rows } else { rows };
        let options = &scale::Options { rows: rows.clone(), ..options.clone() };
        let began = cpu_seconds();
        let mut tell = |f: &scale::Figure| {
            eprintln!("{:>7.1} CPU-s  {} nodes, {}: {}", cpu_seconds() - began, f.nodes, f.row, f.text);
        };
        if options.rows.is_empty() || options.rows.iter().any(|row| row != "place") {
            all.extend(scale::measure(*nodes, options, &mut tell));
        }
        if options.rows.is_empty() || options.rows.iter().any(|row| row == "place") {
            let figure = scale::place(*nodes, cpu_seconds).context("a core does not boot")?;
            tell(&figure);
            all.push(figure);
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print!("{}", scale::table(&all));
    }
    finish(all.iter().all(|figure| figure.row != "VIOLATION"))
}

/// Some of the lease's are left to the model check (`netsim model`, `planted_model.rs`), one to the lease's own tests. Not
/// insisting is left to the core's: what it costs takes a coincidence that no seed meets (docs/netsim.md).
fn sought() -> impl Iterator<Item = peer::plant::Bug> {
    use peer::plant::Bug::{NoDoubt, NoInsisting};
    let elsewhere = |bug| netsim::model::hunt::is_the_model_checks(bug) || matches!(bug, NoDoubt | NoInsisting);
    peer::plant::Bug::ALL.iter().copied().filter(move |bug| !elsewhere(*bug))
}

/// A planted bug is the whole process's, so each gets one of its own.
fn planted(seeds: u64, jobs: usize) -> Result<()> {
    let me = std::env::current_exe()?;
    let bugs = Mutex::new(sought());
    let missed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(bug) = bugs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next() {
                    let mut child = std::process::Command::new(&me);
                    child.args(["planted", "--bug", bug.name(), "--seeds", &seeds.to_string()]);
                    // Panics in cores are violations here, and told by their law.
                    let ended = child.stderr(std::process::Stdio::null()).output();
                    let good = ended.as_ref().is_ok_and(|ended| ended.status.success());
                    missed.fetch_add(u64::from(!good), Ordering::Relaxed);
                    match ended {
                        Ok(ended) => print!("{}", String::from_utf8_lossy(&ended.stdout)),
                        Err(error) => println!("{}: {error}", bug.name()),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner();
    println!("{} bugs were planted, {missed} not caught", sought().count());
    finish(missed == 0)
}

fn finish(good: bool) -> Result<()> {
    if good { Ok(()) } else { std::process::exit(1) }
}

fn range(text: &str) -> Result<Range<u64>> {
    let (from, to) = text.split_once("..").context("seeds are given as A..B")?;
    Ok(from.parse()?..to.parse()?)
}

/// Seeds in the slice of a commit; how many are run, the time decides.
const COMMIT_SEEDS: u64 = 500;

#[derive(Default)]
struct Total {
    node_secs: u64,
    runs: u64,
    probes: Probes,
    slowest: (u64, u64),
    settle: Vec<u64>,
    /// By law: how long it was unmet after the faults, in each run in which it was.
    pending: BTreeMap<&'static str, Vec<u64>>,
    requests: u64,
    failed_requests: u64,
}

/// The slice of seeds that a commit names: far from those of its neighbours and from the small ones of tests.
fn slice_of(commit: &str) -> Result<Range<u64>> {
    let digits: String = commit.trim().chars().take(12).collect();
    let number = u64::from_str_radix(&digits, 16).with_context(|| format!("{commit:?} is no commit's hash"))?;
    let first = (number % 1_000_000_000 + 1) * 1_000;
    Ok(first..first + COMMIT_SEEDS)
}

fn sweep(how: &Sweep) -> Result<()> {
    let range = match (&how.seeds, &how.commit) {
        (Some(seeds), _) => range(seeds)?,
        (None, Some(commit)) => slice_of(commit)?,
        (None, None) => bail!("which seeds?"),
    };
    let what = &how.what;
    let profiles: Vec<String> = match what.profile.as_str() {
        "all" => Profile::ALL.iter().map(|p| p.name().to_owned()).collect(),
        one => vec![one.to_owned()],
    };
    let kinds: Vec<What> = profiles.iter().map(|p| What { profile: p.clone(), ..what.clone() }).collect();
    drawn(0, &kinds[0])?;
    println!("seeds {}..{} of {}", range.start, range.end, profiles.join(", "));
    let next = AtomicU64::new(0);
    let runs = (range.end.saturating_sub(range.start)) * kinds.len() as u64;
    let failures = AtomicU64::new(0);
    let total = Mutex::new(Total::default());
    let began = cpu_seconds();
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let late = how.cpu_secs.is_some_and(|most| cpu_seconds() - began >= most);
            if number >= runs || late || failures.load(Ordering::Relaxed) >= how.failures {
                return;
            }
            let seed = range.start + number / kinds.len() as u64;
            let what = &kinds[(number % kinds.len() as u64) as usize];
            let Ok(plan) = drawn(seed, what) else { return };
            let outcome = run(&plan, Tell::Nothing);
            let replay = || {
                let What { profile, nodes, secs, .. } = what;
                format!("netsim replay {seed} --profile {profile} --nodes {nodes} --secs {secs}")
            };
            if outcome.violation.is_some() {
                failures.fetch_add(1, Ordering::Relaxed);
                println!("seed {seed} {} ({})", verdict(&outcome), replay());
            }
            if how.twice > 0 && seed.is_multiple_of(how.twice) && run(&plan, Tell::Nothing).hash != outcome.hash {
                failures.fetch_add(1, Ordering::Relaxed);
                println!("seed {seed} went another way the second time ({})", replay());
            }
            let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            total.runs += 1;
            total.node_secs += outcome.node_secs;
            total.requests += outcome.requests;
            total.failed_requests += outcome.failed_requests;
            total.probes.add(&outcome.probes);
            total.slowest = total.slowest.max((outcome.events, seed));
            total.settle.push(outcome.settle_secs);
            for (law, secs) in outcome.pending {
                total.pending.entry(law).or_default().push(secs);
            }
        }
    };
    if how.jobs <= 1 {
        // The allocator is faster where there never was a second thread.
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..how.jobs {
                scope.spawn(work);
            }
        });
    }
    let mut total = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let cpu = (cpu_seconds() - began).max(0.01);
    total.settle.sort_unstable();
    let at = |share: f64| total.settle.get((total.settle.len() as f64 * share) as usize).copied().unwrap_or(0);
    let failed = failures.into_inner();
    println!(
        "{} runs of profile {}: {failed} failed; {} node-seconds in {cpu:.1} CPU-seconds: {:.0} a second",
        total.runs,
        what.profile,
        total.node_secs,
        total.node_secs as f64 / cpu
    );
    println!(
        "settled after {} s (p50), {} s (p99); {} requests, {} failed; most events: seed {} with {}",
        at(0.5),
        at(0.99),
        total.requests,
        total.failed_requests,
        total.slowest.1,
        total.slowest.0
    );
    for (law, secs) in &mut total.pending {
        secs.sort_unstable();
        let (runs, half, most) = (secs.len(), secs[secs.len() / 2], secs[secs.len() - 1]);
        println!("{law} was unmet after the faults in {runs} runs, for {half} s (p50), {most} s at most");
    }
    for (name, count) in &total.probes.0 {
        println!("{count:>8} {name}");
    }
    let never = total.probes.never(profiles.iter().any(|p| p == "rewind"));
    for name in &never {
        println!("   NEVER {name}");
    }
    finish(failed == 0 && (never.is_empty() || !how.probes))
}

/// This process's, of all its threads.
fn cpu_seconds() -> f64 {
    let Ok(file) = std::fs::File::open("/proc/self/stat") else { return 0.0 };
    let Ok(text) = std::io::read_to_string(file) else { return 0.0 };
    let after = text.rsplit(')').next().unwrap_or_default();
    let ticks = |n: usize| after.split_whitespace().nth(n).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
