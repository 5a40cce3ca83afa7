//! Why an agent didn't start, in the words of who started it: the flag that it hangs on, and what to do about it.

use super::{CliError, SHOW_TOKEN};
use crate::shell::agent::StartError;
use crate::shell::identity::DataDirError;
use crate::shell::net::{JoinError, NetError};
use std::io::ErrorKind;

/// The whole chain of causes in one line.
pub fn failed(error: anyhow::Error) -> CliError {
    let failed = CliError::new(format!("{error:#}"));
    if let Some(error) = error.downcast_ref::<StartError>() {
        return failed.hint(error.hint);
    }
    if let Some(DataDirError::Io { .. }) = error.downcast_ref() {
        return CliError::new(format!("--data-dir: {error:#}"))
            .hint("want a directory that this user can write: --data-dir DIR (or run it as root)");
    }
    if let Some(DataDirError::InUse { .. }) = error.downcast_ref() {
        return CliError::new(format!("--data-dir: {error:#}"))
            .hint("a second agent beside it: another --data-dir, --socket and --listen-addr");
    }
    if let Some(NetError::Listen { error: why, .. }) = error.downcast_ref() {
        return match why.kind() {
            ErrorKind::AddrInUse => failed.hint("another agent may run here already; beside it: --listen-addr IP:PORT, with its own --data-dir and --socket"),
            ErrorKind::AddrNotAvailable => failed.hint("want an address of this machine: --listen-addr IP[:PORT]"),
            _ => failed,
        };
    }
    match error.downcast_ref::<JoinError>() {
        Some(JoinError::Unreachable { .. }) => {
            failed.hint("want a node whose agent is up, and a way for UDP to it: look there with peer status")
        }
        Some(JoinError::Unknown { .. }) => {
            failed.hint("want the name or address of one of the cluster's nodes: --join HOST[:PORT]")
        }
        Some(JoinError::OtherCluster { .. }) => failed.hint(SHOW_TOKEN),
        // The one that was meant may have been replaced: peer token --rotate.
        Some(JoinError::Refused { why, .. }) if why.contains("token") => failed.hint(SHOW_TOKEN),
        Some(_) => failed,
        None if is_taken(&error) => failed.hint("something else listens there: want another port"),
        None => failed,
    }
}

fn is_taken(error: &anyhow::Error) -> bool {
    error.root_cause().downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::net::SocketAddr;

    #[test]
    fn what_helps_stands_below() {
        let addr = SocketAddr::from(([10, 0, 0, 1], 7373));
        let listen = |kind: ErrorKind| NetError::Listen { addr, error: io::Error::from(kind) }.into();
        let join = |error: JoinError| anyhow::Error::new(error).context("--join n1");
        let refused = |why: &str| join(JoinError::Refused { addr, why: why.to_owned() });
        let unknown = JoinError::Unknown { host: "n1".to_owned(), why: "no address".to_owned() };
        let taken = anyhow::Error::new(io::Error::from(ErrorKind::AddrInUse)).context("--dashboard 10.0.0.1:80");
        let in_use = DataDirError::InUse { dir: "/d".into(), pid: Some(7) };
        let errors: [(anyhow::Error, &str, Option<&str>); 9] = [
            (listen(ErrorKind::AddrInUse), "can't listen on 10.0.0.1:7373", Some("--listen-addr")),
            (listen(ErrorKind::AddrNotAvailable), "can't listen on 10.0.0.1:7373", Some("--listen-addr")),
            (join(JoinError::Unreachable { addr, why: "silence".to_owned() }), "--join n1: no answer", Some("UDP")),
            (join(JoinError::OtherCluster { addr }), "--join n1: 10.0.0.1:7373: the cluster's CA", Some("peer token")),
            (taken, "--dashboard 10.0.0.1:80: ", Some("another port")),
            (in_use.into(), "--data-dir: /d is in use by another agent (pid 7)", Some("--listen-addr")),
            (join(unknown), "--join n1: no such host: n1: no", Some("--join HOST")),
            (refused("wrong token"), "--join n1: refused by", Some("peer token")),
            (refused("there is a twin already"), "--join n1: refused by", None),
        ];
        for (error, message, hint) in errors {
            let error = failed(error);
            assert!(error.message().starts_with(message), "{error}");
            assert_eq!(error.hint_text().is_some(), hint.is_some(), "{error}");
            assert!(hint.is_none_or(|hint| error.hint_text().unwrap().contains(hint)), "{error}");
        }
    }
}
