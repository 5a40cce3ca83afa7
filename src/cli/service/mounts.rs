//! `--mount type=bind|volume|tmpfs,source=,target=,readonly,...` as Docker's Mount.

use super::csv;
use crate::cli::go::{Bytes, parse_bool};
use crate::cli::json::{Object, child, put, put_text, put_true};
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq)]
pub struct Mount(pub Value);

impl Mount {
    pub fn target(&self) -> &str {
        crate::cli::json::text(&self.0, "/Target")
    }
}

impl std::str::FromStr for Mount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut kind, mut source, mut target) = ("volume".to_owned(), String::new(), String::new());
        let mut mount = Object::new();
        for field in csv::fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value)),
                None => (field.trim().to_ascii_lowercase(), None),
            };
            let needed = || value.ok_or_else(|| format!("{key}: want {key}=VALUE"));
            match key.as_str() {
                "type" => kind = needed()?.to_ascii_lowercase(),
                "source" | "src" => needed()?.clone_into(&mut source),
                "target" | "dst" | "destination" => needed()?.clone_into(&mut target),
                "readonly" | "ro" => put_true(&mut mount, "ReadOnly", truth(&key, value)?),
                "consistency" => put_text(&mut mount, "Consistency", &needed()?.to_ascii_lowercase()),
                _ => option(&mut mount, &key, value)?,
            }
        }
        check(&kind, &source, &target, &mount)?;
        put(&mut mount, "Type", kind);
        put_text(&mut mount, "Source", &source);
        put(&mut mount, "Target", target);
        Ok(Self(Value::Object(mount)))
    }
}

fn truth(key: &str, value: Option<&str>) -> Result<bool, String> {
    value.map_or(Ok(true), |value| parse_bool(value).map_err(|why| format!("{key}: {why}")))
}

/// What only one type of mount has.
fn option(mount: &mut Object, key: &str, value: Option<&str>) -> Result<(), String> {
    let needed = || value.ok_or_else(|| format!("{key}: want {key}=VALUE"));
    let pair = || {
        let value = needed()?;
        Ok::<_, String>(value.split_once('=').unwrap_or((value, "")))
    };
    match key {
        "bind-propagation" => put(child(mount, "BindOptions"), "Propagation", needed()?.to_ascii_lowercase()),
        "bind-nonrecursive" => put_true(child(mount, "BindOptions"), "NonRecursive", truth(key, value)?),
        "bind-create-src" => put_true(child(mount, "BindOptions"), "CreateMountpoint", truth(key, value)?),
        "volume-nocopy" => put_true(child(mount, "VolumeOptions"), "NoCopy", truth(key, value)?),
        "volume-subpath" => put(child(mount, "VolumeOptions"), "Subpath", needed()?),
        "volume-driver" => put(child(child(mount, "VolumeOptions"), "DriverConfig"), "Name", needed()?),
        "volume-label" => {
            let (name, value) = pair()?;
            put(child(child(mount, "VolumeOptions"), "Labels"), name, value);
        }
        "volume-opt" => {
            let (name, value) = pair()?;
            put(child(child(child(mount, "VolumeOptions"), "DriverConfig"), "Options"), name, value);
        }
        "tmpfs-size" => put(child(mount, "TmpfsOptions"), "SizeBytes", needed()?.parse::<Bytes>()?.0),
        "tmpfs-mode" => {
            let mode =
                u32::from_str_radix(needed()?, 8).map_err(|_| "tmpfs-mode: want an octal mode, as 1777".to_owned())?;
            put(child(mount, "TmpfsOptions"), "Mode", mode);
        }
        _ => {
            return Err(format!(
                "unknown field {key:?}: want type, source, target, readonly or another of docker's fields, as type=bind,source=/srv,target=/data"
            ));
        }
    }
    Ok(())
}

fn check(kind: &str, source: &str, target: &str, mount: &Object) -> Result<(), String> {
    let own = match kind {
        "bind" => "BindOptions",
        "volume" => "VolumeOptions",
        "tmpfs" => "TmpfsOptions",
        _ => return Err(format!("invalid type {kind:?}: want bind, volume or tmpfs")),
    };
    if let Some(other) =
        ["BindOptions", "VolumeOptions", "TmpfsOptions"].iter().find(|o| **o != own && mount.contains_key(**o))
    {
        let prefix = other.trim_end_matches("Options").to_ascii_lowercase();
        return Err(format!("a {prefix}-* field doesn't fit type={kind}"));
    }
    // What a template yields is judged on the node.
    let relative = |path: &str| !path.starts_with('/') && !path.contains("{{");
    match () {
        () if target.is_empty() => Err("the field target is missing: it is the path inside the container".to_owned()),
        () if relative(target) => Err(format!("target {target:?} must be an absolute path")),
        () if kind == "bind" && source.is_empty() => Err("type=bind needs a source: the path on the node".to_owned()),
        () if kind == "bind" && relative(source) => {
            Err(format!("source {source:?} of a bind must be an absolute path"))
        }
        () if kind == "tmpfs" && !source.is_empty() => Err("type=tmpfs takes no source".to_owned()),
        () => Ok(()),
    }
}

/// As `--mount-add` sorts them: by source, then by target.
pub fn sort(mounts: &mut [Value]) {
    let text = |mount: &Value, key: &str| mount.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    mounts.sort_by_key(|mount| (text(mount, "Source"), text(mount, "Target")));
}

impl From<Mount> for Value {
    fn from(mount: Mount) -> Value {
        json!(mount.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Result<Value, String> {
        text.parse::<Mount>().map(|mount| mount.0)
    }

    #[test]
    fn the_three_types() {
        assert_eq!(
            mount("type=volume,source=data,target=/data").unwrap(),
            json!({ "Type": "volume", "Source": "data", "Target": "/data" })
        );
        assert_eq!(
            mount("type=tmpfs,target=/run,tmpfs-size=64m,tmpfs-mode=1770").unwrap(),
            json!({ "Type": "tmpfs", "Target": "/run", "TmpfsOptions": { "SizeBytes": 67_108_864, "Mode": 0o1770 } })
        );
        assert_eq!(
            mount("type=bind,src=/srv,dst=/srv,ro,bind-propagation=rslave").unwrap(),
            json!({ "Type": "bind", "Source": "/srv", "Target": "/srv", "ReadOnly": true, "BindOptions": { "Propagation": "rslave" } })
        );
        assert_eq!(
            mount("target=/x,readonly=false,volume-driver=local,\"volume-opt=o=addr=1.2.3.4,rw\",volume-label=a=b")
                .unwrap(),
            json!({ "Type": "volume", "Target": "/x", "VolumeOptions": { "Labels": { "a": "b" },
                "DriverConfig": { "Name": "local", "Options": { "o": "addr=1.2.3.4,rw" } } } })
        );
    }

    #[test]
    fn nonsense_is_named() {
        for (bad, why) in [
            ("type=bind,target=/x", "needs a source"),
            ("type=bind,source=rel,target=/x", "absolute"),
            ("source=data", "target is missing"),
            ("type=npipe,target=/x", "invalid type"),
            ("type=tmpfs,target=/x,volume-nocopy", "volume-*"),
            ("target=/x,colour=red", "unknown field \"colour\": want type, source, target"),
            ("garbage", "as type=bind,source=/srv,target=/data"),
            ("target=/x,readonly=perhaps", "readonly"),
            ("target", "want target=VALUE"),
        ] {
            assert!(mount(bad).unwrap_err().contains(why), "{bad}: {:?}", mount(bad));
        }
    }
}
