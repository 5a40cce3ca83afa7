//! The demo's HTTP server: `GET /` greets, `GET /slow?ms=N` greets after that long.
//!
//! It is as graceful as a server can be: told to end, it takes what already knocked, answers what it has begun,
//! closes idle connections, and exits with 0.

use futures_util::FutureExt;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

const LONGEST_SLOW: Duration = Duration::from_secs(60);
const AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(10);
pub(super) const KILLED: i64 = 137;

/// What a process was told, by signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::shell) enum Order {
    Run,
    Term,
    Kill,
}

/// Waits for an order that is at least this grave.
pub(super) async fn told(orders: &mut watch::Receiver<Order>, grave: Order) {
    // Fails only when nobody can give orders any more, which ends the process too.
    let _ = orders.wait_for(|order| *order >= grave).await;
}

/// Serves until it is told to end; the exit code.
pub(in crate::shell) async fn serve(
    doors: Vec<TcpListener>,
    greeting: &str,
    mut orders: watch::Receiver<Order>,
) -> i64 {
    let text = Bytes::copy_from_slice(greeting.as_bytes());
    let all = join_all(doors.into_iter().map(|door| serve_one(door, text.clone(), orders.clone())));
    tokio::select! {
        // Dropping the servers closes their connections, in whatever state they are.
        () = told(&mut orders, Order::Kill) => KILLED,
        // Idle ones end well at any order; a SIGKILL was still a SIGKILL.
        _ = all => if *orders.borrow() == Order::Kill { KILLED } else { 0 },
    }
}

async fn serve_one(door: TcpListener, text: Bytes, orders: watch::Receiver<Order>) {
    let mut connections = JoinSet::new();
    let mut ending = orders.clone();
    loop {
        tokio::select! {
            () = told(&mut ending, Order::Term) => break,
            accepted = door.accept() => match accepted {
                Ok((socket, _)) => { connections.spawn(converse(socket, text.clone(), orders.clone())); }
                // Out of file descriptors, most likely: it passes.
                Err(_) => sleep(AFTER_ACCEPT_ERROR).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    while let Some(Ok((socket, _))) = door.accept().now_or_never() {
        connections.spawn(converse(socket, text.clone(), orders.clone()));
    }
    drop(door);
    while connections.join_next().await.is_some() {}
}

async fn converse(socket: TcpStream, text: Bytes, mut orders: watch::Receiver<Order>) {
    // A refused socket option costs speed, nothing else.
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request| answer(request, text.clone()));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = told(&mut orders, Order::Term) => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        // How the peer ends the conversation is its affair.
        let _ = connection.await;
    }
}

async fn answer(request: Request<Incoming>, text: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => (StatusCode::OK, text),
        (&Method::GET, "/slow") => {
            sleep(slowness(request.uri().query())).await;
            (StatusCode::OK, text)
        }
        _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"only / and /slow?ms=N\n")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn slowness(query: Option<&str>) -> Duration {
    let ms = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("ms=")?.parse().ok());
    Duration::from_millis(ms.unwrap_or(0)).min(LONGEST_SLOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn greeter() -> (std::net::SocketAddr, watch::Sender<Order>, tokio::task::JoinHandle<i64>) {
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = door.local_addr().unwrap();
        let (orders, heard) = watch::channel(Order::Run);
        (at, orders, tokio::spawn(async move { serve(vec![door], "hi\n", heard).await }))
    }

    async fn ask(at: std::net::SocketAddr, path: &str) -> TcpStream {
        let mut socket = TcpStream::connect(at).await.unwrap();
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        socket
    }

    #[tokio::test]
    async fn a_request_in_flight_is_finished_after_sigterm() {
        let (at, orders, server) = greeter().await;
        let mut slow = ask(at, "/slow?ms=150").await;
        let mut idle = ask(at, "/").await;
        let mut first = [0; 64];
        assert!(idle.read(&mut first).await.unwrap() > 0);
        orders.send_replace(Order::Term);
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hi\n"), "{answer}");
        assert_eq!(server.await.unwrap(), 0);
        assert!(TcpStream::connect(at).await.is_err());
    }

    #[tokio::test]
    async fn sigkill_waits_for_nothing() {
        let (at, orders, server) = greeter().await;
        let _slow = ask(at, "/slow?ms=60000").await;
        orders.send_replace(Order::Kill);
        assert_eq!(server.await.unwrap(), KILLED);
    }
}
