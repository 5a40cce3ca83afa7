//! Addresses as people say them: an IP address, or the network interface that has it, with or without a port.

use std::net::{IpAddr, SocketAddr};

/// IP, IP:PORT, [IPv6]:PORT, INTERFACE or INTERFACE:PORT.
///
/// # Errors
/// It is none of these, or the interface has no address, or several that would do; in words.
pub fn ip_and_port(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok((addr.ip(), Some(addr.port())));
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok((ip, None));
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(port.parse().map_err(|_| format!("{port:?} is no port"))?)),
        None => (text, None),
    };
    let interfaces = if_addrs::get_if_addrs().map_err(|error| format!("can't list the interfaces: {error}"))?;
    let all: Vec<(String, IpAddr)> = interfaces.into_iter().map(|i| (i.name.clone(), i.ip())).collect();
    Ok((the_one_of(name, &all)?, port))
}

/// As Swarm chooses: the only IPv4 address, or without any the only IPv6 address.
fn the_one_of(name: &str, all: &[(String, IpAddr)]) -> Result<IpAddr, String> {
    let of_it = || all.iter().filter(|(of, _)| of == name).map(|(_, ip)| *ip);
    let v4: Vec<IpAddr> = of_it().filter(IpAddr::is_ipv4).collect();
    let v6: Vec<IpAddr> = of_it().filter(|ip| matches!(ip, IpAddr::V6(ip) if !ip.is_unicast_link_local())).collect();
    let candidates = if v4.is_empty() { v6 } else { v4 };
    match candidates[..] {
        [ip] => Ok(ip),
        [] if of_it().next().is_some() => Err(format!("the interface {name} has no address that others could use")),
        [] => {
            let mut names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            Err(format!("neither an IP address nor a network interface of this machine ({})", names.join(", ")))
        }
        _ => {
            let told: Vec<String> = candidates.iter().map(IpAddr::to_string).collect();
            Err(format!("the interface {name} has several addresses, say which: {}", told.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_as_they_stand() {
        assert_eq!(ip_and_port("10.0.0.1"), Ok((ip("10.0.0.1"), None)));
        assert_eq!(ip_and_port("10.0.0.1:80"), Ok((ip("10.0.0.1"), Some(80))));
        assert_eq!(ip_and_port("::1"), Ok((ip("::1"), None)));
        assert_eq!(ip_and_port("[::1]:80"), Ok((ip("::1"), Some(80))));
    }

    #[test]
    fn an_interface_stands_for_its_only_address() {
        let all = [
            "lo 127.0.0.1",
            "lo ::1",
            "eth0 10.0.0.5",
            "eth0 fe80::1",
            "eth1 10.0.1.5",
            "eth1 10.0.1.6",
            "six fd00::7",
            "link fe80::2",
        ];
        let all: Vec<(String, IpAddr)> = all
            .iter()
            .map(|text| text.split_once(' ').unwrap())
            .map(|(name, text)| (name.to_owned(), ip(text)))
            .collect();
        let found = |name| the_one_of(name, &all);
        assert_eq!(found("lo"), Ok(ip("127.0.0.1")));
        assert_eq!(found("eth0"), Ok(ip("10.0.0.5")));
        assert_eq!(found("six"), Ok(ip("fd00::7")));
        assert!(found("eth1").unwrap_err().ends_with("say which: 10.0.1.5, 10.0.1.6"));
        assert!(found("link").unwrap_err().contains("no address that others could use"));
        assert!(found("wlan0").unwrap_err().ends_with("(eth0, eth1, link, lo, six)"));
    }

    #[test]
    fn this_machines_interfaces_are_asked() {
        assert_eq!(ip_and_port("lo:7"), Ok((ip("127.0.0.1"), Some(7))));
        assert!(ip_and_port("lo:http").unwrap_err().contains("no port"));
        assert!(ip_and_port("nowhere").unwrap_err().starts_with("neither"));
    }
}
