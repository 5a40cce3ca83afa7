//! What this machine's engine has of the tasks: the log of each of their containers, one attempt after the other.

use super::{LogAsk, LogItem, LogStream, WAITING_LINES, merge};
use crate::ids::TaskId;
use crate::model::container::{ObservedContainer, Owner};
use crate::shell::engine::{AnyEngine, Engine};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often a followed task is looked at for another attempt.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) fn open(engine: AnyEngine, owner: Owner, ask: LogAsk) -> LogStream {
    let mut streams = Vec::with_capacity(ask.tasks.len());
    for task in ask.tasks.clone() {
        let (out, stream) = mpsc::channel(WAITING_LINES);
        streams.push(stream);
        tokio::spawn(read(engine.clone(), owner, task, ask.clone(), out));
    }
    if streams.len() == 1 {
        return streams.remove(0);
    }
    let (_, nothing_later) = mpsc::channel(1);
    let (out, merged) = mpsc::channel(WAITING_LINES);
    tokio::spawn(merge(streams, nothing_later, out));
    merged
}

async fn read(engine: AnyEngine, owner: Owner, task: TaskId, ask: LogAsk, out: mpsc::Sender<LogItem>) {
    let mut read = BTreeSet::new();
    loop {
        let containers = match engine.list(owner).await {
            Ok(containers) => containers,
            Err(error) => {
                let why = format!("its container's log can't be read: {error}");
                // Whoever asked may have gone.
                let _ = out.send(LogItem::Trouble { task, why }).await;
                return;
            }
        };
        let mut mine: Vec<ObservedContainer> =
            containers.into_iter().filter(|c| c.task == task && !read.contains(&c.name)).collect();
        mine.sort_by_key(|container| container.attempt);
        for container in mine {
            if let Err(error) = engine.container_logs(owner, &container, &ask, &out).await {
                let why = format!("the log of container {} can't be read: {error}", container.name);
                let _ = out.send(LogItem::Trouble { task, why }).await;
            }
            read.insert(container.name);
        }
        if !ask.follow {
            return;
        }
        tokio::select! {
            () = out.closed() => return,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}
