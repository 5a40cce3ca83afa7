//! Why a task failed, on one line of a table or of the progress: the engine's words without what stands around them, since
//! what is cut off is their end, and that is where the reason stands.

/// What engines put before the reason.
const AROUND: [&str; 8] = [
    "Error response from daemon: ",
    "starting container failed: ",
    "failed to create task for container: ",
    "failed to create shim task: ",
    "OCI runtime create failed: ",
    "runc create failed: ",
    "unable to start container process: ",
    "container init: ",
];

/// The first `chars` characters that say most; all of it where it fits.
pub fn short(error: &str, chars: usize) -> String {
    let line = error.replace('\n', " ");
    if line.chars().count() <= chars {
        return line;
    }
    let told = gist(&line);
    match told.char_indices().nth(chars.saturating_sub(1)) {
        Some((end, last)) if end + last.len_utf8() < told.len() => {
            format!("{}…", told.get(..end).unwrap_or_default())
        }
        _ => told,
    }
}

/// The image's name stands in the column beside it, and may fill this one.
fn gist(error: &str) -> String {
    let mut told = error;
    while let Some(rest) = AROUND.iter().find_map(|around| told.strip_prefix(around)) {
        told = rest;
    }
    let told = told.strip_suffix(": unknown").unwrap_or(told);
    let is_manifest = told.contains("manifest unknown") || told.contains("manifest for ");
    match () {
        () if told.contains("pull access denied for ") => "image not found, or no access to it".to_owned(),
        () if is_manifest && told.contains(" not found") => "image not found: no such tag or digest".to_owned(),
        () if told.starts_with("No such image: ") => "image not found".to_owned(),
        () => told.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_left_alone_and_what_is_cut_has_its_reason() {
        assert_eq!(short("no suitable\nnode", 50), "no suitable node");
        for (error, want) in [
            (
                "pull access denied for registry.example.com/shop/web, repository does not exist or may require 'docker login'",
                "image not found, or no access to it",
            ),
            (
                "manifest for registry.example.com/shop/web:9 not found: manifest unknown: manifest unknown",
                "image not found: no such tag or digest",
            ),
            ("No such image: registry.example.com/shop/web:1.2.3-rc1", "image not found"),
            (
                "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"webb\": executable file not found: unknown",
                "exec: \"webb\": executable file not found",
            ),
            (
                "port 5000 accepted no connection within 30s: Connection refused (os error 111)",
                "port 5000 accepted no connection within 30s: Conn…",
            ),
        ] {
            assert_eq!(short(error, 50), want);
        }
    }
}
