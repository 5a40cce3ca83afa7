//! Docker Swarm and peer on the same nodes, engines and images, in turns: `lab bench --against swarm`. Each round takes
//! every figure of Swarm, then of peer; both are driven through Docker's API by the same code.

mod cluster;
mod report;
mod rows;
mod side;
mod steps;

use super::bench::BusyTime;
use super::process::{sh_ok, shell};
use super::{Lab, LabConfig};
use anyhow::{Context, Result, bail, ensure};
use cluster::Cluster;
use report::Report;
use rows::Row;
use serde_json::{Value, json};
use side::Orchestrator;
use std::path::PathBuf;
use steps::Step;

const NODES: usize = 5;
/// Exits at once on SIGTERM.
const TAG: &str = "exit";

#[derive(Debug, Clone)]
pub struct AgainstConfig {
    pub dir: PathBuf,
    pub peer: PathBuf,
    pub rounds: usize,
    /// By name; empty: all.
    pub steps: Vec<String>,
    /// Where `benchmarks.md` and `benchmarks.json` are written.
    pub docs: PathBuf,
}

/// Says at the end what couldn't be measured; the rest is written all the same.
pub fn run(config: &AgainstConfig) -> Result<()> {
    ensure!(config.rounds > 0, "--rounds wants at least 1");
    ensure!(config.docs.is_dir(), "--docs {}: no such directory", config.docs.display());
    let steps = chosen(&config.steps)?;
    let earlier = report::earlier(&config.docs)?;
    let lab = LabConfig { nodes: NODES, dir: config.dir.clone(), peer: Some(config.peer.clone()) };
    let mut lab = Lab::up_bare(lab)?;
    let image = cluster::preload(&lab, TAG)?;
    let (mut report, busy) = (Report::default(), BusyTime::now()?);
    let before = lab_cpu_s(&lab);
    let mut section = String::new();
    for round in 1..=config.rounds {
        for side in Orchestrator::BOTH {
            eprintln!("Round {round} of {}, {}:", config.rounds, side.name());
            go(&lab, side, &steps, &image, &mut report)?;
        }
        // Each time: a run takes hours, and may be ended.
        let ours = before.zip(lab_cpu_s(&lab)).map(|(before, after)| after - before);
        let others = ours.map(|ours| ((busy.spent().unwrap_or(ours) - ours) / busy.elapsed_s()).max(0.0));
        let json = report.json(&earlier, about(config, others)?);
        section = written(&json, &report);
        report::write(&config.docs, &json, &section)?;
    }
    lab.down()?;
    print!("{section}");
    if !report.failures.is_empty() {
        bail!("{} measurements failed:\n{}", report.failures.len(), report.failures.join("\n"));
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Step>> {
    let step = |name: &String| {
        let known = || steps::ALL.iter().map(|step| step.name).collect::<Vec<_>>().join(", ");
        steps::ALL
            .iter()
            .find(|step| step.name == name)
            .with_context(|| format!("--steps {name}: want some of {}", known()))
    };
    if names.is_empty() { Ok(steps::ALL.iter().collect()) } else { names.iter().map(step).collect() }
}

/// All steps on one side. A step that fails costs its own figures and the cluster, not the run.
fn go(lab: &Lab, side: Orchestrator, steps: &[&Step], image: &str, report: &mut Report) -> Result<()> {
    let mut cluster: Option<Cluster> = None;
    for step in steps {
        let reusable = cluster.take().filter(|cluster| cluster.nodes == step.nodes);
        let took = reusable.map_or_else(|| form(lab, side, step.nodes, image, report), Ok).and_then(|cluster| {
            let figures = (step.take)(&cluster)?;
            Ok((cluster, figures))
        });
        match took {
            Ok((used, figures)) => {
                figures.into_iter().for_each(|(row, figure)| tell(report, side, row, figure));
                cluster = (!step.spoils).then_some(used);
            }
            Err(error) => {
                eprintln!("  {} {}: FAILED: {error:#}", side.name(), step.name);
                report.failures.push(format!("{}, {}: {error:#}", side.name(), step.name));
            }
        }
    }
    side::blank(lab)
}

fn form<'l>(lab: &'l Lab, side: Orchestrator, nodes: usize, image: &str, report: &mut Report) -> Result<Cluster<'l>> {
    side::blank(lab)?;
    side.stand_by(lab)?;
    let formed = side.form(lab, nodes, image)?;
    if nodes == NODES {
        tell(report, side, rows::FORMED, Some(formed.ready.as_secs_f64()));
        tell(report, side, rows::SETTLED, Some(formed.settled.as_secs_f64()));
    }
    Ok(formed.cluster)
}

fn tell(report: &mut Report, side: Orchestrator, row: Row, figure: Option<f64>) {
    let told = figure.map_or("never".to_owned(), |figure| format!("{figure:.3} {}", row.unit));
    eprintln!("  {:<6} {:<90} {told}", side.name(), row.name);
    report.add(side, row, figure);
}

fn lab_cpu_s(lab: &Lab) -> Option<f64> {
    (1..=lab.config.nodes).map(|node| lab.cpu_s(node)).sum()
}

/// Versions and machine.
fn about(config: &AgainstConfig, others: Option<f64>) -> Result<Value> {
    let told = |command: &str| -> Result<String> {
        let output = shell(command)?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
    };
    Ok(json!({
        "command": "lab bench --against swarm",
        "rounds": config.rounds,
        "versions": {
            "peer": told(&format!("{} --version", config.peer.display()))?,
            "dockerd": told("dockerd --version")?,
            "containerd": told("containerd --version || docker-containerd --version")?,
            "runc": told("runc --version")?,
            "docker_cli": told("docker --version")?,
            "registry": told("docker-registry --version")?,
        },
        "machine": {
            "system": told(". /etc/os-release && echo $PRETTY_NAME")?,
            "kernel": told("uname -sr")?,
            "processors": told("nproc")?,
            "processor": told("sed -n 's/^model name[^:]*: //p' /proc/cpuinfo")?,
            "memory": told("sed -n 's/^MemTotal: *//p' /proc/meminfo")?,
            "ip_vs": sh_ok("test -e /proc/net/ip_vs"),
            "others_busy_cores": others.map(|cores| (cores * 100.0).round() / 100.0),
        },
    }))
}

/// The section of the page.
fn written(json: &Value, report: &Report) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let list = |of: &Value| {
        let words = of.as_object().into_iter().flatten().map(|(name, value)| format!("{name}: {}", text(value)));
        words.collect::<Vec<_>>().join("; ")
    };
    let failures: String = report.failures.iter().map(|failure| format!("- Not measured: {failure}\n")).collect();
    format!(
        "{}\n\n{}\nVersions: {}.\nMachine: {}.\n{failures}",
        include_str!("about.md").trim_end(),
        report::table(json),
        list(&json["versions"]),
        list(&json["machine"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_chosen_by_name() {
        assert_eq!(chosen(&[]).unwrap().len(), steps::ALL.len());
        assert_eq!(chosen(&["scale".to_owned()]).unwrap()[0].name, "scale");
        let error = chosen(&["nap".to_owned()]).err().unwrap().to_string();
        assert!(error.starts_with("--steps nap: want some of create, scale"), "{error}");
    }
}
