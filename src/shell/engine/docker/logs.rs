//! A container's log. The engine gives each line its time in front; nobody else could put lines of several in order.

use super::{CALL_LIMIT, DockerEngine, failed, status};
use crate::ids::TaskId;
use crate::model::container::{ContainerState, ObservedContainer, OpError};
use crate::shell::logs::{LogAsk, LogItem, LogLine};
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use tokio::sync::mpsc;

impl DockerEngine {
    pub async fn container_logs(
        &self,
        container: &ObservedContainer,
        ask: &LogAsk,
        out: &mpsc::Sender<LogItem>,
    ) -> Result<(), OpError> {
        let runs = matches!(container.state, ContainerState::Running { .. });
        let tail = ask.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let options = LogsOptionsBuilder::default()
            .follow(ask.follow && runs)
            .stdout(ask.stdout)
            .stderr(ask.stderr)
            .since(i32::try_from(ask.since_ns / 1_000_000_000).unwrap_or(i32::MAX))
            .timestamps(true)
            .tail(&tail)
            .build();
        let client = self.client(CALL_LIMIT)?;
        let mut stream = Box::pin(client.logs(&container.id, Some(options)));
        loop {
            let output = tokio::select! {
                () = out.closed() => return Ok(()),
                output = stream.next() => output,
            };
            let (stderr, message) = match output {
                None => return Ok(()),
                // Removed meanwhile: so be it.
                Some(Err(error)) if status(&error) == Some(404) => return Ok(()),
                Some(Err(error)) => return Err(failed(&error)),
                Some(Ok(LogOutput::StdErr { message })) => (true, message),
                Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => (false, message),
                Some(Ok(LogOutput::StdIn { .. })) => continue,
            };
            let line = line(container.task, stderr, &message);
            if ask.takes(&line) && out.send(LogItem::Line(line)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// "2026-11-22T20:37:27.953532813Z text"; what has no time in front is as old as can be and comes at once.
fn line(task: TaskId, stderr: bool, message: &[u8]) -> LogLine {
    let space = message.iter().position(|byte| *byte == b' ');
    let stamped = space.and_then(|at| {
        let (stamp, text) = (std::str::from_utf8(&message[..at]).ok()?, &message[at + 1..]);
        let stamp: jiff::Timestamp = stamp.parse().ok()?;
        Some((u64::try_from(stamp.as_nanosecond()).ok()?, text))
    });
    let (at_ns, text) = stamped.unwrap_or((0, message));
    LogLine { task, stderr, at_ns, text: text.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_front_is_taken_off() {
        let task = TaskId::from_u128(1);
        let read = line(task, true, b"2026-11-22T20:37:27.953532813Z a b\n");
        assert_eq!(
            (read.at_ns, read.text.as_slice(), read.stderr),
            (1_795_379_847_953_532_813, b"a b\n".as_slice(), true)
        );
        let empty = line(task, false, b"2026-11-22T20:37:27Z \n");
        assert_eq!(empty.text, b"\n");
        assert_eq!(line(task, false, b"no time").text, b"no time");
    }
}
