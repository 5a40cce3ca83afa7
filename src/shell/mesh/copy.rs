//! Copies between a client and a replica, and notes when bytes last moved.
//!
//! A connection holds a buffer only while it has bytes that the other side hasn't taken: ten thousand idle ones hold none,
//! and one that is slow to take them stops the reading, so that the sender waits, not our memory.

use super::table::Counted;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A connection that has carried nothing for this long is closed: nobody remembers it, or a way between has lost it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The kernel asks after a silent end, so that one that is gone without a word is found out sooner.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_TRIES: u32 = 3;
const BUFFER_BYTES: usize = 16 * 1024;
/// Spare buffers that a thread keeps.
const MAX_SPARE: usize = 16;
/// Reads in a row before others get their turn.
const MAX_ROUNDS: u32 = 16;

/// What every TCP connection of the mesh is set to, on both sides.
pub fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_TRIES);
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Closing it will reset it: what broke elsewhere must not look whole at its other end.
pub fn break_off(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

type Buffer = Box<[u8]>;

thread_local! {
    static SPARE: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

fn buffer() -> Buffer {
    SPARE.with(|spare| spare.borrow_mut().pop()).unwrap_or_else(|| vec![0; BUFFER_BYTES].into())
}

fn give_back(buffer: Buffer) {
    SPARE.with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            spare.push(buffer);
        }
    });
}

/// One direction.
#[derive(Default)]
struct Way {
    /// Read and not yet taken: from, to.
    held: Option<(Buffer, usize, usize)>,
    unflushed: bool,
    /// The source has said that nothing more comes.
    ended: bool,
    /// And the other side was told.
    done: bool,
}

impl Way {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &mut impl FnMut(usize),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.done {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..MAX_ROUNDS {
            while let Some((bytes, at, end)) = &mut self.held {
                let count = ready!(Pin::new(&mut *to).poll_write(cx, bytes.get(*at..*end).unwrap_or_default()))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                *at += count;
                self.unflushed = true;
                if at >= end
                    && let Some((bytes, ..)) = self.held.take()
                {
                    give_back(bytes);
                }
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            let mut bytes = buffer();
            let mut into = ReadBuf::new(&mut bytes);
            let polled = Pin::new(&mut *from).poll_read(cx, &mut into);
            let count = into.filled().len();
            if count > 0 {
                moved(count);
                self.held = Some((bytes, 0, count));
            } else {
                give_back(bytes);
            }
            match polled {
                Poll::Ready(Ok(())) => self.ended = count == 0,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some((bytes, ..)) = self.held.take() {
            give_back(bytes);
        }
    }
}

/// Both directions until both have ended, or nothing has moved for [`IDLE_TIMEOUT`]; half-closes are passed on. An error on
/// either side ends both, and is returned: what was passed on until then may be half of something.
pub async fn copy<A, B>(counted: Counted, client: A, replica: B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    copy_for(&counted, client, replica, IDLE_TIMEOUT).await
}

pub(super) async fn copy_for<A, B>(counted: &Counted, mut client: A, mut replica: B, idle: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    // Two streams that are read and written in turns, never at once.
    let (client, replica) = (&mut client, &mut replica);
    let (mut up, mut down) = (Way::default(), Way::default());
    counted.touch();
    let mut timer = std::pin::pin!(tokio::time::sleep(idle));
    poll_fn(|cx| {
        let mut sent = |count| {
            counted.touch();
            counted.sent(count);
        };
        let there = up.poll(cx, client, replica, &mut sent)?;
        let mut received = |count| {
            counted.touch();
            counted.received(count);
        };
        let back = down.poll(cx, replica, client, &mut received)?;
        if there.is_ready() && back.is_ready() {
            return Poll::Ready(Ok(()));
        }
        while timer.as_mut().poll(cx).is_ready() {
            let Some(left) = idle.checked_sub(counted.idle()).filter(|left| !left.is_zero()) else {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            };
            timer.as_mut().reset(Instant::now() + left);
        }
        Poll::Pending
    })
    .await
}
