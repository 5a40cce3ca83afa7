//! Streams that are each in the order of time, as one. Nobody says when a followed stream has told all of its past,
//! so one that keeps silent for a moment is no longer waited for until it speaks again.

use super::{LogItem, LogStream};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

/// For a stream's first word: its node may have to be dialled.
const FIRST_WORD: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_millis(200);

struct Source {
    stream: LogStream,
    head: Option<LogItem>,
    spoken: bool,
    /// Silent for so long that the others don't wait for it.
    quiet: bool,
    ended: bool,
}

impl Source {
    fn new(stream: LogStream) -> Self {
        Self { stream, head: None, spoken: false, quiet: false, ended: false }
    }

    fn take(&mut self, item: Option<LogItem>) {
        match item {
            Some(item) => (self.head, self.spoken, self.quiet) = (Some(item), true, false),
            None => self.ended = true,
        }
    }

    fn look(&mut self) {
        if self.head.is_none() && !self.ended {
            match self.stream.try_recv() {
                Ok(item) => self.take(Some(item)),
                Err(TryRecvError::Disconnected) => self.take(None),
                Err(TryRecvError::Empty) => {}
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        if self.head.is_some() || self.ended {
            return false;
        }
        match self.stream.poll_recv(context) {
            Poll::Ready(item) => {
                self.take(item);
                true
            }
            Poll::Pending => false,
        }
    }

    fn is_awaited(&self) -> bool {
        self.head.is_none() && !self.quiet
    }
}

fn at(item: &LogItem) -> u64 {
    match item {
        LogItem::Line(line) => line.at_ns,
        // As soon as it is known.
        LogItem::Trouble { .. } => 0,
    }
}

/// Until all have ended and `more` is closed, or nobody listens any more.
pub async fn merge(sources: Vec<LogStream>, mut more: mpsc::Receiver<LogStream>, out: mpsc::Sender<LogItem>) {
    let mut sources: Vec<Source> = sources.into_iter().map(Source::new).collect();
    let mut open = true;
    loop {
        sources.iter_mut().for_each(Source::look);
        sources.retain(|source| source.head.is_some() || !source.ended);
        if sources.is_empty() && !open {
            return;
        }
        let ready = sources.iter().any(|source| source.head.is_some());
        if ready && !sources.iter().any(Source::is_awaited) {
            let speaking = sources.iter_mut().filter(|source| source.head.is_some());
            let first = speaking.min_by_key(|source| source.head.as_ref().map(at));
            if let Some(item) = first.and_then(|source| source.head.take())
                && out.send(item).await.is_err()
            {
                return;
            }
            continue;
        }
        let unheard = sources.iter().any(|source| source.is_awaited() && !source.spoken);
        let patience = if unheard { FIRST_WORD } else { SILENCE };
        tokio::select! {
            () = out.closed() => return,
            stream = more.recv(), if open => match stream {
                Some(stream) => sources.push(Source::new(stream)),
                None => open = false,
            },
            () = any_news(&mut sources) => {}
            () = tokio::time::sleep(patience), if ready => {
                sources.iter_mut().filter(|source| source.head.is_none()).for_each(|source| source.quiet = true);
            }
        }
    }
}

async fn any_news(sources: &mut [Source]) {
    poll_fn(|context| {
        // All of them, so that each knows whom to wake.
        let news = sources.iter_mut().filter_map(|source| source.poll(context).then_some(())).count();
        if news > 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::super::LogLine;
    use super::*;
    use crate::ids::TaskId;

    fn line(at_ns: u64) -> LogItem {
        LogItem::Line(LogLine { task: TaskId::from_u128(1), stderr: false, at_ns, text: Vec::new() })
    }

    fn started(sources: Vec<LogStream>) -> (mpsc::Sender<LogStream>, LogStream) {
        let (more, later) = mpsc::channel(4);
        let (out, merged) = mpsc::channel(4);
        tokio::spawn(merge(sources, later, out));
        (more, merged)
    }

    async fn next(merged: &mut LogStream) -> Option<u64> {
        merged.recv().await.map(|item| at(&item))
    }

    #[tokio::test(start_paused = true)]
    async fn ended_streams_come_out_in_the_order_of_time() {
        let mut sources = Vec::new();
        for times in [[1, 4, 9], [2, 3, 10], [5, 6, 7]] {
            let (send, stream) = mpsc::channel(8);
            for time in times {
                send.send(line(time)).await.unwrap();
            }
            sources.push(stream);
        }
        let (more, mut merged) = started(sources);
        drop(more);
        for want in [1, 2, 3, 4, 5, 6, 7, 9, 10] {
            assert_eq!(next(&mut merged).await, Some(want));
        }
        assert_eq!(next(&mut merged).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_holds_up_the_others_only_once() {
        let (silent, stream) = mpsc::channel(8);
        let (chatty, other) = mpsc::channel(8);
        let (_more, mut merged) = started(vec![stream, other]);
        let began = tokio::time::Instant::now();
        for time in 1..50 {
            chatty.send(line(time)).await.unwrap();
            assert_eq!(next(&mut merged).await, Some(time));
        }
        assert!(began.elapsed() <= FIRST_WORD + SILENCE, "{:?}", began.elapsed());
        // And is heard as soon as it speaks.
        silent.send(line(1)).await.unwrap();
        assert_eq!(next(&mut merged).await, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_comes_later_is_merged_in() {
        let (first, stream) = mpsc::channel(8);
        let (more, mut merged) = started(vec![stream]);
        first.send(line(5)).await.unwrap();
        assert_eq!(next(&mut merged).await, Some(5));
        let (second, stream) = mpsc::channel(8);
        more.send(stream).await.unwrap();
        second.send(line(3)).await.unwrap();
        assert_eq!(next(&mut merged).await, Some(3));
        drop((first, second, more));
        assert_eq!(next(&mut merged).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_nobody_listens() {
        let (first, stream) = mpsc::channel(8);
        let (_more, merged) = started(vec![stream]);
        drop(merged);
        tokio::time::timeout(Duration::from_secs(5), first.closed()).await.expect("the source is let go");
    }
}
