//! Is this an image reference? `[host[:port]/]path[:tag][@algorithm:hex]`, after the grammar of
//! distribution/reference. The engine has the last word; here only what can't be one is refused early.

const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// What is wrong with it, if anything.
pub(super) fn problem(text: &str) -> Option<&'static str> {
    let (name_and_tag, digest) = match text.split_once('@') {
        Some((before, digest)) => (before, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|d| !is_digest(d)) {
        return Some("want a digest like sha256:<hex> after the @");
    }
    // A colon after the last slash begins the tag; one before it the registry's port.
    let slash = name_and_tag.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match name_and_tag[slash..].find(':') {
        Some(colon) => (&name_and_tag[..slash + colon], Some(&name_and_tag[slash + colon + 1..])),
        None => (name_and_tag, None),
    };
    if tag.is_some_and(|t| !is_tag(t)) {
        return Some("want a tag of letters, digits, _ . - after the colon, at most 128");
    }
    if name.len() > MAX_NAME {
        return Some("the name is longer than 255 characters");
    }
    let path = match name.split_once('/') {
        Some((first, rest)) if is_host_like(first) => {
            if !is_host(first) {
                return Some("the registry's host is malformed");
            }
            rest
        }
        _ => name,
    };
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Some("the repository's name must be lower case");
    }
    if !path.split('/').all(is_component) {
        return Some("want [HOST[:PORT]/]NAME[:TAG][@DIGEST]");
    }
    None
}

/// The first part of a name is a host if it couldn't be a component of a path.
fn is_host_like(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':', '[']) || first.chars().any(|c| c.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((v6, rest)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => {
                (None, rest.strip_prefix(':').or(if rest.is_empty() { None } else { Some("") }))
            }
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    host.is_none_or(|h| h.split('.').all(label)) && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

/// Runs of lower-case letters and digits joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let joined = |run: &str| run.is_empty() || matches!(run, "." | "_" | "__") || run.chars().all(|c| c == '-');
    text.starts_with(plain) && text.ends_with(plain) && text.split(plain).all(joined)
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= MAX_TAG && text.starts_with(word) && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    algorithm.starts_with(|c: char| c.is_ascii_alphabetic())
        && algorithm.chars().all(|c| c.is_ascii_alphanumeric() || "+._-".contains(c))
        && hex.len() >= 32
        && hex.len() <= 256
        && hex.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn takes_what_docker_takes() {
        let digest = "sha256:89bf70a62683777aabfb609f05f83103e0ec999a04dd4c6d596a1e8e77070ec8";
        for image in [
            "nginx",
            "nginx:1",
            "library/nginx:1.27-alpine",
            "localhost/a/b/c",
            "registry.example:5555/greeter:1",
            "10.0.0.1:5000/x__y/z-w--v:T_1.0",
            "[2001:db8::1]:5000/x",
            "[::1]/x",
            "HOST/x",
        ] {
            assert_eq!(problem(image), None, "{image}");
            assert_eq!(problem(&format!("{image}@{digest}")), None, "{image}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for image in [
            "",
            " nginx",
            "Nginx",
            "a/B",
            "nginx:",
            "nginx:la test",
            "nginx@sha256:123",
            "nginx@",
            "/nginx",
            "a//b",
            "a/",
            "-a",
            "a..b",
            "a___b",
            "host.:80/x",
            "h:99999/x",
            "[::1/x",
            "[::1]x/y",
            "https://host.example/x",
            "ünïx",
        ] {
            assert!(problem(image).is_some(), "{image}");
        }
        assert!(problem(&"a".repeat(256)).is_some());
        assert!(problem(&format!("a:{}", "t".repeat(129))).is_some());
    }
}
