//! What a published port asks of the mesh beyond Docker's fields: `protocol=http,sticky=source`. They stand in labels of
//! the service, so that every client of Docker's API can set them and the spec's stored form stays Docker's:
//! `peer.port.80` for the published port 80, `peer.port.target.8080` for every published port with that target (one whose
//! number is chosen by the cluster has no other name). The number's own label goes before its target's, whole.

use super::{PublishMode, PublishedPort};
use std::collections::BTreeMap;
use std::fmt;

/// What the labels begin with.
pub const LABEL: &str = "peer.port.";
const BY_TARGET: &str = "target.";
/// What anybody could mean takes less.
const MAX_TEXT_BYTES: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PortOptions {
    pub protocol: AppProtocol,
    /// All connections of one client address go to one replica while it is routable.
    pub sticky_source: bool,
    /// A replica on the node that took the connection goes before all others.
    pub prefer_local: bool,
    /// Connections to a replica begin with this header, which tells it the client's address.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// What is spoken on a port, as far as the mesh is to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum AppProtocol {
    /// Bytes, balanced by connection.
    #[default]
    Tcp,
    /// HTTP/1.1 and h2c from clients, HTTP/1.1 to replicas; balanced by request.
    Http,
    /// The same clients, h2c (prior knowledge) to replicas, as gRPC servers speak it.
    H2c,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyProtocol {
    V1,
    V2,
}

impl PortOptions {
    /// `key=value` pairs separated by commas, each key once.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(format!("{} bytes, more than the {MAX_TEXT_BYTES} allowed", text.len()));
        }
        let mut options = Self::default();
        let mut seen = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?}: want key=value"))?;
            let (key, value) = (key.trim(), value.trim());
            if seen.contains(&key) {
                return Err(format!("{key} is given twice"));
            }
            seen.push(key);
            let bad = |want: &str| Err(format!("invalid {key} {value:?}: want {want}"));
            match (key, value) {
                ("protocol", "tcp") => options.protocol = AppProtocol::Tcp,
                ("protocol", "http") => options.protocol = AppProtocol::Http,
                ("protocol", "h2c") => options.protocol = AppProtocol::H2c,
                ("protocol", _) => return bad("tcp, http or h2c"),
                ("sticky", "source") => options.sticky_source = true,
                ("sticky", "none") => options.sticky_source = false,
                ("sticky", _) => return bad("source or none"),
                ("prefer", "local") => options.prefer_local = true,
                ("prefer", "none") => options.prefer_local = false,
                ("prefer", _) => return bad("local or none"),
                ("proxy-protocol", "v1") => options.proxy_protocol = Some(ProxyProtocol::V1),
                ("proxy-protocol", "v2") => options.proxy_protocol = Some(ProxyProtocol::V2),
                ("proxy-protocol", "none") => options.proxy_protocol = None,
                ("proxy-protocol", _) => return bad("v1, v2 or none"),
                _ => return Err(format!("unknown option {key:?}: want protocol, sticky, prefer or proxy-protocol")),
            }
        }
        if options.is_http() && options.proxy_protocol.is_some() {
            return Err("proxy-protocol doesn't go with an HTTP-aware port, whose connections to replicas carry the \
                 requests of many clients: X-Forwarded-For tells the address"
                .to_owned());
        }
        Ok(options)
    }

    pub fn is_http(&self) -> bool {
        self.protocol != AppProtocol::Tcp
    }

    /// The label that gives a port its options.
    pub fn label(published: u16, target: u16) -> String {
        if published == 0 { format!("{LABEL}{BY_TARGET}{target}") } else { format!("{LABEL}{published}") }
    }

    /// Those of one port among a service's labels. What can't be read counts as nothing: it was refused at the edge.
    pub fn of(labels: &BTreeMap<String, String>, port: &PublishedPort) -> Self {
        let by_number = labels.get(&Self::label(port.published, port.target));
        let label = by_number.or_else(|| labels.get(&Self::label(0, port.target)));
        label.and_then(|text| Self::parse(text).ok()).unwrap_or_default()
    }

    /// Of one label: whether it is well-formed and fits what is published; an error names what to mend, a warning says that it
    /// has no effect.
    pub(super) fn check(key: &str, value: &str, ports: &[PublishedPort]) -> Result<Option<String>, String> {
        let Some(name) = key.strip_prefix(LABEL) else { return Ok(None) };
        let (number, by_target) = match name.strip_prefix(BY_TARGET) {
            Some(number) => (number, true),
            None => (name, false),
        };
        // As it is written, so that no two labels mean one port.
        let number = number.parse::<u16>().ok().filter(|n| *n > 0 && n.to_string() == number).ok_or_else(|| {
            format!("want {LABEL}80 for the published port 80, or {LABEL}{BY_TARGET}80 for ports with that target")
        })?;
        let options = Self::parse(value)?;
        let named = |p: &&PublishedPort| if by_target { p.target == number } else { p.published == number };
        let routed: Vec<&PublishedPort> =
            ports.iter().filter(named).filter(|p| p.mode == PublishMode::Ingress).collect();
        if routed.is_empty() {
            return Ok(Some("has no effect: no such port is published in ingress mode".to_owned()));
        }
        let needs_tcp = options.is_http() || options.proxy_protocol.is_some();
        if needs_tcp && routed.iter().all(|p| p.protocol != super::Protocol::Tcp) {
            return Err("protocol and proxy-protocol are for TCP ports, and this one is not".to_owned());
        }
        Ok(None)
    }
}

/// What differs from the defaults, as [`PortOptions::parse`] reads it.
impl fmt::Display for PortOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            AppProtocol::Tcp => None,
            AppProtocol::Http => Some("protocol=http"),
            AppProtocol::H2c => Some("protocol=h2c"),
        };
        let proxy = self.proxy_protocol.map(|version| match version {
            ProxyProtocol::V1 => "proxy-protocol=v1",
            ProxyProtocol::V2 => "proxy-protocol=v2",
        });
        let sticky = self.sticky_source.then_some("sticky=source");
        let prefer = self.prefer_local.then_some("prefer=local");
        let words: Vec<&str> = [protocol, sticky, prefer, proxy].into_iter().flatten().collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_option_is_read_and_what_is_wrong_is_named() {
        let all = PortOptions::parse("protocol=tcp, sticky=source,prefer=local,proxy-protocol=v2").unwrap();
        assert!(all.sticky_source && all.prefer_local && all.proxy_protocol == Some(ProxyProtocol::V2));
        assert_eq!(all.to_string(), "sticky=source,prefer=local,proxy-protocol=v2");
        assert_eq!(PortOptions::parse("").unwrap(), PortOptions::default());
        for (text, word) in [
            ("protocol=smtp", "want tcp, http or h2c"),
            ("colour=red", "unknown option \"colour\""),
            ("sticky=cookie", "want source or none"),
            ("prefer", "want key=value"),
            ("sticky=source,sticky=none", "given twice"),
            ("protocol=http,proxy-protocol=v1", "X-Forwarded-For"),
            (&"x".repeat(257), "more than the 256"),
        ] {
            let error = PortOptions::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    fn port(published: u16, target: u16) -> PublishedPort {
        PublishedPort { name: String::new(), protocol: Protocol::Tcp, target, published, mode: PublishMode::Ingress }
    }

    #[test]
    fn the_numbers_label_goes_before_the_targets() {
        let label = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
        let labels = [("peer.port.80", "protocol=http"), ("peer.port.target.8080", "prefer=local")].map(label).into();
        assert!(PortOptions::of(&labels, &port(80, 8080)).is_http());
        assert!(!PortOptions::of(&labels, &port(80, 8080)).prefer_local);
        assert!(PortOptions::of(&labels, &port(30_001, 8080)).prefer_local);
        assert_eq!(PortOptions::of(&labels, &port(81, 81)), PortOptions::default());
    }

    #[test]
    fn a_label_must_name_a_port_and_better_one_that_is_published() {
        let ports = [port(80, 8080), PublishedPort { protocol: Protocol::Udp, ..port(53, 53) }];
        let check = |key: &str, value: &str| PortOptions::check(key, value, &ports);
        assert_eq!(check("tier", "nonsense"), Ok(None));
        assert_eq!(check("peer.port.80", "protocol=http"), Ok(None));
        assert_eq!(check("peer.port.target.8080", "protocol=http"), Ok(None));
        assert!(check("peer.port.81", "protocol=http").unwrap().unwrap().contains("no effect"));
        assert!(check("peer.port.53", "protocol=http").unwrap_err().contains("TCP"));
        assert_eq!(check("peer.port.53", "sticky=source"), Ok(None));
        for key in ["peer.port.", "peer.port.http", "peer.port.080", "peer.port.0", "peer.port.70000", "peer.port.+80"]
        {
            assert!(check(key, "prefer=local").unwrap_err().contains("want peer.port.80"), "{key}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,300}") {
            let _ = PortOptions::parse(&text);
        }

        #[test]
        fn what_is_shown_reads_back(
            protocol in 0..3usize, sticky: bool, local: bool, proxy in 0..3usize
        ) {
            let options = PortOptions {
                protocol: [AppProtocol::Tcp, AppProtocol::Http, AppProtocol::H2c][protocol],
                sticky_source: sticky,
                prefer_local: local,
                proxy_protocol: [None, Some(ProxyProtocol::V1), Some(ProxyProtocol::V2)][proxy],
            };
            let read = PortOptions::parse(&options.to_string());
            prop_assert_eq!(read.is_ok(), !(options.is_http() && options.proxy_protocol.is_some()));
            prop_assert!(read.is_err() || read == Ok(options));
        }

        /// Words that are nearly right.
        #[test]
        fn only_known_words_are_taken(
            key in "protocol|sticky|prefer|proxy-protocol|proxy|Protocol", value in "http|h2c|tcp|source|local|v1|v2|none|HTTP|"
        ) {
            let known = matches!(
                (key.as_str(), value.as_str()),
                ("protocol", "http" | "h2c" | "tcp") | ("sticky", "source" | "none") | ("prefer", "local" | "none")
                    | ("proxy-protocol", "v1" | "v2" | "none")
            );
            prop_assert_eq!(PortOptions::parse(&format!("{key}={value}")).is_ok(), known);
        }
    }
}
