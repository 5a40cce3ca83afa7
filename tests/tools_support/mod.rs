//! A command-line tool against real agents of this process over the built-in engine.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use peer::core::Core;
use peer::core::view::TaskView;
use peer::model::task::TaskPhase;
use peer::shell::demo::Demo;
use std::process::Output;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;

pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Tools {
    program: &'static str,
    pub demo: Demo,
    /// Where it runs, and what it takes for its user's settings.
    pub dir: tempfile::TempDir,
}

impl Tools {
    pub async fn start(program: &'static str, nodes: usize) -> Self {
        let demo = Demo::start(nodes).await.unwrap();
        demo.wait_formed(nodes).await.unwrap();
        Self { program, demo, dir: tempfile::tempdir().unwrap() }
    }

    pub fn file(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    /// `program` at one of the nodes, in words between spaces.
    pub fn command_of(&self, program: &str, node: usize, args: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DOCKER_CONFIG", self.dir.path()).env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
        command.env_remove("PEER_HOST").current_dir(self.dir.path()).kill_on_drop(true);
        command.arg("--host").arg(format!("unix://{}", self.demo.socket(node).display())).args(args.split(' '));
        command
    }

    pub async fn output(&self, node: usize, args: &str) -> Output {
        let running = self.command_of(self.program, node, args).output();
        tokio::time::timeout(PATIENCE, running).await.unwrap_or_else(|_| panic!("{args} hangs")).unwrap()
    }

    /// Whether it succeeded, its standard output and its standard error.
    pub async fn said(&self, node: usize, args: &str) -> (bool, String, String) {
        let output = self.output(node, args).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        println!("$ {args}\n{out}{err}");
        (output.status.success(), out, err)
    }

    /// Its standard output; it must succeed.
    pub async fn run(&self, node: usize, args: &str) -> String {
        let (success, out, err) = self.said(node, args).await;
        assert!(success, "{args}: {out}{err}");
        out
    }

    /// Its standard error; it must fail.
    pub async fn refused(&self, node: usize, args: &str) -> String {
        let (success, out, err) = self.said(node, args).await;
        assert!(!success, "{args} should fail: {out}");
        err
    }

    pub async fn ask<T: Send + 'static>(&self, node: usize, question: impl FnOnce(&Core) -> T + Send + 'static) -> T {
        self.demo.agent(node).unwrap().handle.query(question).await.unwrap()
    }

    /// The running tasks of the service, once there are as many as wanted.
    pub async fn running(&self, service: &'static str, count: usize) -> Vec<TaskView> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let tasks = self.ask(0, move |core| {
                let of_it = core.tasks().into_iter().filter(|t| t.service_name == service && t.task.desired.is_live());
                of_it.collect::<Vec<_>>()
            });
            let tasks = tasks.await;
            let runs = |t: &&TaskView| t.status.as_ref().is_some_and(|s| s.phase == TaskPhase::Running);
            if tasks.len() == count && tasks.iter().filter(runs).count() == count {
                return tasks;
            }
            assert!(Instant::now() < deadline, "{service}: {tasks:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
