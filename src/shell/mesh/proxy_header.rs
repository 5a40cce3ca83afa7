//! The PROXY protocol's header (haproxy.org, proxy-protocol.txt, versions 1 and 2): the first bytes of a connection to a
//! replica whose port asks for it, telling whom the connection is from. We only write it: the connections of a published
//! port come from clients, whose word about who they are would be worth nothing.

use crate::model::spec::ProxyProtocol;
use std::net::{IpAddr, SocketAddr};

const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, a connection on behalf of another.
const V2_PROXY: u8 = 0x21;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// `from` is the client's address, `to` the one that it connected to.
pub fn encode(version: ProxyProtocol, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (source, destination) = alike(from.ip().to_canonical(), to.ip().to_canonical());
    match version {
        ProxyProtocol::V1 => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {source} {destination} {} {}\r\n", from.port(), to.port()).into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut header = V2_SIGNATURE.to_vec();
            header.push(V2_PROXY);
            let mut addresses = Vec::new();
            for ip in [source, destination] {
                match ip {
                    IpAddr::V4(ip) => addresses.extend(ip.octets()),
                    IpAddr::V6(ip) => addresses.extend(ip.octets()),
                }
            }
            addresses.extend(from.port().to_be_bytes());
            addresses.extend(to.port().to_be_bytes());
            header.push(if source.is_ipv4() { V2_TCP4 } else { V2_TCP6 });
            // 12 or 36 bytes.
            header.extend(u16::try_from(addresses.len()).unwrap_or_default().to_be_bytes());
            header.extend(addresses);
            header
        }
    }
}

/// Both of one family, as the header wants them.
fn alike(source: IpAddr, destination: IpAddr) -> (IpAddr, IpAddr) {
    let wide = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    };
    if source.is_ipv4() == destination.is_ipv4() { (source, destination) } else { (wide(source), wide(destination)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// A reader of our own, from the specification: what a replica understands. `None` for what is no header.
    fn decode(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, usize)> {
        if let Some(rest) = bytes.strip_prefix(&V2_SIGNATURE) {
            let (&[version, family, high, low], rest) = rest.split_first_chunk::<4>()?;
            let length = usize::from(u16::from_be_bytes([high, low]));
            let addresses = rest.get(..length).filter(|_| version == V2_PROXY)?;
            let port = |at: usize| Some(u16::from_be_bytes(*addresses.get(at..at + 2)?.first_chunk()?));
            let (from, to, ports): (IpAddr, IpAddr, usize) = match family {
                V2_TCP4 => {
                    let ip = |at: usize| Some(Ipv4Addr::from(*addresses.get(at..at + 4)?.first_chunk::<4>()?));
                    (ip(0)?.into(), ip(4)?.into(), 8)
                }
                V2_TCP6 => {
                    let ip = |at: usize| Some(Ipv6Addr::from(*addresses.get(at..at + 16)?.first_chunk::<16>()?));
                    (ip(0)?.into(), ip(16)?.into(), 32)
                }
                _ => return None,
            };
            return Some((SocketAddr::new(from, port(ports)?), SocketAddr::new(to, port(ports + 2)?), 16 + length));
        }
        // A line of version 1 has at most 107 bytes, its end counted.
        let end = bytes.iter().take(107).position(|b| *b == b'\n')?;
        let line = std::str::from_utf8(bytes.get(..end)?).ok()?.strip_suffix('\r')?;
        let words: Vec<&str> = line.split(' ').collect();
        let &["PROXY", family, from, to, from_port, to_port] = words.as_slice() else { return None };
        let (from, to): (IpAddr, IpAddr) = (from.parse().ok()?, to.parse().ok()?);
        let right = match family {
            "TCP4" => from.is_ipv4() && to.is_ipv4(),
            "TCP6" => from.is_ipv6() && to.is_ipv6(),
            _ => false,
        };
        let at = |ip, port: &str| Some(SocketAddr::new(ip, port.parse().ok()?));
        Some((at(from, from_port)?, at(to, to_port)?, end + 1)).filter(|_| right)
    }

    #[test]
    fn as_the_specification_shows_them() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let v1 = encode(ProxyProtocol::V1, addr("192.168.0.1:56324"), addr("192.168.0.11:443"));
        assert_eq!(v1, b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
        let mapped = encode(ProxyProtocol::V1, addr("[::ffff:192.168.0.1]:56324"), addr("192.168.0.11:443"));
        assert_eq!(mapped, v1, "an IPv4 client of an IPv6 socket is an IPv4 client");
        let v2 = encode(ProxyProtocol::V2, addr("[2001:db8::1]:1"), addr("[2001:db8::2]:2"));
        assert_eq!(
            (&v2[..12], v2[12], v2[13], &v2[14..16], v2.len()),
            (&V2_SIGNATURE[..], 0x21, 0x21, &[0, 36][..], 52)
        );
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
        let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
        (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    proptest! {
        #[test]
        fn a_reader_finds_the_client_and_where_its_bytes_begin(from in address(), to in address(), v2: bool, rest: Vec<u8>) {
            let version = if v2 { ProxyProtocol::V2 } else { ProxyProtocol::V1 };
            let header = encode(version, from, to);
            let (read_from, read_to, length) = decode(&[&header[..], &rest].concat()).unwrap();
            let same = |a: SocketAddr, b: SocketAddr| (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port());
            prop_assert!(same(read_from, from) && same(read_to, to), "{read_from} {read_to}");
            prop_assert_eq!(length, header.len());
            for cut in 0..header.len() {
                prop_assert_eq!(decode(&header[..cut]), None, "cut at {}", cut);
            }
        }

        #[test]
        fn the_reader_takes_any_bytes(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = decode(&[&V2_SIGNATURE[..], &bytes].concat());
        }
    }
}
