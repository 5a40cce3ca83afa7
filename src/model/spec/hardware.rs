//! What Swarm refuses and users ask for: devices of the node, privileges, the size of /dev/shm, GPUs. Docker's spec has no
//! place for them, so they stand in labels of the service, which every client of its API can set:
//! `peer.devices=/dev/ttyUSB0,/dev/fuse:/dev/fuse:rw`, `peer.privileged=true`, `peer.shm-size=256m`, `peer.gpus=all`.
//! They become part of what the container is: a change of them replaces tasks.

use super::SpecError;
use super::read::quoted;
use std::collections::BTreeMap;
use std::fmt;

pub const DEVICES: &str = "peer.devices";
pub const PRIVILEGED: &str = "peer.privileged";
pub const SHM_SIZE: &str = "peer.shm-size";
pub const GPUS: &str = "peer.gpus";

/// More of a label's entries are somebody's mistake.
const MAX_DEVICES: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hardware {
    pub devices: Vec<Device>,
    pub privileged: bool,
    /// Of /dev/shm; nothing leaves it to the engine.
    pub shm_bytes: Option<u64>,
    pub gpus: Option<Gpus>,
}

/// `HOST[:CONTAINER[:PERMISSIONS]]`, or `HOST:PERMISSIONS`, as docker run takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub host: String,
    pub container: String,
    /// Of r, w and m (mknod).
    pub permissions: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpus {
    All,
    Count(u32),
    /// By the ids or numbers that their driver has for them.
    Named(Vec<String>),
}

impl Hardware {
    pub(super) fn of(labels: &BTreeMap<String, String>) -> Result<Self, SpecError> {
        fn read<T: std::str::FromStr<Err = String>>(
            labels: &BTreeMap<String, String>,
            key: &str,
        ) -> Result<Option<T>, SpecError> {
            let bad = |why| SpecError { field: format!("Labels.{key}"), why };
            labels.get(key).map(|text| text.parse::<T>()).transpose().map_err(bad)
        }
        Ok(Self {
            devices: read::<Devices>(labels, DEVICES)?.unwrap_or_default().0,
            privileged: read::<Truth>(labels, PRIVILEGED)?.is_some_and(|truth| truth.0),
            shm_bytes: read::<Size>(labels, SHM_SIZE)?.map(|size| size.0).filter(|bytes| *bytes > 0),
            gpus: read(labels, GPUS)?,
        })
    }
}

#[derive(Default)]
struct Devices(Vec<Device>);

impl std::str::FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let devices = entries.map(str::parse).collect::<Result<Vec<Device>, _>>()?;
        if devices.len() > MAX_DEVICES {
            return Err(format!("{} devices, more than the {MAX_DEVICES} allowed", devices.len()));
        }
        for (n, device) in devices.iter().enumerate() {
            if devices.iter().take(n).any(|other| other.container == device.container) {
                return Err(format!("two devices are to be {} in the container", device.container));
            }
        }
        Ok(Self(devices))
    }
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_mode = |word: &str| {
            (1..=3).contains(&word.len())
                && word.chars().all(|c| "rwm".contains(c))
                && word.chars().enumerate().all(|(n, c)| !word.chars().take(n).any(|before| before == c))
        };
        let bad = |why: &str| Err(format!("device {}: {why}", quoted(text)));
        let parts: Vec<&str> = text.split(':').collect();
        let (host, container, permissions) = match parts.as_slice() {
            [host] => (*host, *host, "rwm"),
            [host, mode] if is_mode(mode) => (*host, *host, *mode),
            [host, container] => (*host, *container, "rwm"),
            [host, container, mode] if is_mode(mode) => (*host, *container, *mode),
            [_, _, _] => return bad("the permissions are of r, w and m, as rw"),
            _ => return bad("want HOST[:CONTAINER[:PERMISSIONS]], as /dev/ttyUSB0:/dev/modem:rw"),
        };
        if !host.starts_with('/') || !container.starts_with('/') || text.contains(',') {
            return bad("want absolute paths, as /dev/ttyUSB0:/dev/modem");
        }
        Ok(Self { host: host.to_owned(), container: container.to_owned(), permissions: permissions.to_owned() })
    }
}

/// As the label has them.
pub fn list(devices: &[Device]) -> String {
    devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.host, self.container, self.permissions)
    }
}

impl std::str::FromStr for Gpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("GPUs {}: want all, a number, or device=ID[,ID...]", quoted(text));
        if text == "all" {
            return Ok(Self::All);
        }
        if let Some(ids) = text.strip_prefix("device=") {
            let ids: Vec<String> = ids.split(',').map(|id| id.trim().to_owned()).collect();
            let all_there = ids.len() <= MAX_DEVICES && ids.iter().all(|id| !id.is_empty());
            return if all_there { Ok(Self::Named(ids)) } else { Err(bad()) };
        }
        text.parse().ok().filter(|count| *count > 0).map(Self::Count).ok_or_else(bad)
    }
}

struct Truth(bool);

impl std::str::FromStr for Truth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self(true)),
            "false" => Ok(Self(false)),
            _ => Err(format!("{}: want true or false", quoted(text))),
        }
    }
}

struct Size(u64);

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!("{} is no size: want a whole number with b, k, m, g or nothing behind it, as 256m", quoted(text))
        };
        let (number, shift) = match text.to_ascii_lowercase().chars().last() {
            Some('b') => (&text[..text.len() - 1], 0),
            Some('k') => (&text[..text.len() - 1], 10),
            Some('m') => (&text[..text.len() - 1], 20),
            Some('g') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
        bytes.filter(|bytes| i64::try_from(*bytes).is_ok()).map(Self).ok_or_else(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, value: &str) -> Result<Hardware, String> {
        Hardware::of(&BTreeMap::from([(key.to_owned(), value.to_owned())])).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_become_what_a_container_is_given() {
        let devices = |text: &str| -> Vec<String> {
            read(DEVICES, text).unwrap().devices.iter().map(ToString::to_string).collect()
        };
        assert_eq!(devices("/dev/fuse, /dev/a:/dev/b"), ["/dev/fuse:/dev/fuse:rwm", "/dev/a:/dev/b:rwm"]);
        assert_eq!(devices("/dev/a:r,/dev/c:/dev/d:mw"), ["/dev/a:/dev/a:r", "/dev/c:/dev/d:mw"]);
        assert!(read(PRIVILEGED, "true").unwrap().privileged && !read(PRIVILEGED, "false").unwrap().privileged);
        let shm = |text: &str| read(SHM_SIZE, text).unwrap().shm_bytes;
        assert_eq!(
            [shm("64m"), shm("1G"), shm("100"), shm("8kb".trim_end_matches('b')), shm("0")],
            [Some(64 << 20), Some(1 << 30), Some(100), Some(8 << 10), None]
        );
        assert_eq!(read(GPUS, "all").unwrap().gpus, Some(Gpus::All));
        assert_eq!(read(GPUS, "2").unwrap().gpus, Some(Gpus::Count(2)));
        assert_eq!(read(GPUS, "device=0,GPU-1").unwrap().gpus, Some(Gpus::Named(vec!["0".into(), "GPU-1".into()])));
        assert_eq!(Hardware::of(&BTreeMap::new()).unwrap(), Hardware::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_label() {
        for (key, value, why) in [
            (DEVICES, "fuse", "absolute paths"),
            (DEVICES, "/dev/a:/dev/b:x", "of r, w and m"),
            (DEVICES, "/dev/a:/dev/b:rr", "of r, w and m"),
            (DEVICES, "/a:/b:r:w", "want HOST"),
            (DEVICES, "/dev/a,/dev/b:/dev/a", "two devices are to be /dev/a"),
            (PRIVILEGED, "yes", "want true or false"),
            (SHM_SIZE, "much", "is no size"),
            (SHM_SIZE, "99999999999g", "is no size"),
            (SHM_SIZE, "é", "is no size"),
            (GPUS, "0", "want all"),
            (GPUS, "", "want all"),
            (GPUS, "device=", "want all"),
        ] {
            let error = read(key, value).unwrap_err();
            assert!(error.starts_with(&format!("Labels.{key}: ")) && error.contains(why), "{key}={value}: {error}");
        }
    }
}
