//! The data directory (0700): who this node is, and its state. One agent at a time, held by a lock that the kernel
//! drops with the process. Every file is private (0600) and replaced whole: written beside, fsynced, renamed.
//! `identity.json` is written last, so it vouches for the others. What can't be understood is named and left alone.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use super::{Identity, IdentityError, NodeName, Part, Pem};
use crate::ids::{ClusterId, NodeId};
use crate::time::Wall;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const IDENTITY: &str = "identity.json";
const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const CERT: &str = "node.pem";
const KEY: &str = "node-key.pem";
const STATE: &str = "state.redb";
const LOCK: &str = "lock";
/// There while an identity is being given up: whoever opens the directory next goes on with it.
const FORGETTING: &str = "forgetting";
/// Files of other modules that mean nothing without the identity.
pub const FIRST: &str = "first.bin";
pub const ADDR: &str = "addr";
pub const MEMBER: &str = "member.json";

const VERSION: u64 = 1;
/// None of our files comes near this (the largest may hold a list of members).
const MAX_FILE_BYTES: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} is in use by another agent{}", dir.display(), pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    InUse { dir: PathBuf, pid: Option<u32> },
    #[error("{}: {why}; it was left as it is", path.display())]
    Corrupt { path: PathBuf, why: String },
    #[error("{} has version {found}, but this build reads only version {VERSION}: upgrade peer on this node", path.display())]
    Newer { path: PathBuf, found: u64 },
    #[error("{} is missing, though {IDENTITY} is there: restore it, or start with an empty directory", path.display())]
    Missing { path: PathBuf },
    #[error("{} holds a node's state, but {IDENTITY} is missing: restore it, or start with an empty directory", dir.display())]
    LostIdentity { dir: PathBuf },
}

/// Held for as long as the agent runs.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    version: u64,
    cluster_id: ClusterId,
    node_id: NodeId,
    /// Milliseconds since 1970.
    created_ms: u64,
}

impl DataDir {
    /// Creates the directory if need be and takes its lock.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataDirError> {
        let path = path.as_ref().to_owned();
        create_private_dir(&path)?;
        let lock = take_lock(&path)?;
        let dir = Self { path, _lock: lock };
        if dir.read_private(FORGETTING)?.is_some() {
            dir.forget()?;
        }
        Ok(dir)
    }

    /// Whether a node lives in it.
    pub fn is_member(&self) -> bool {
        self.path.join(IDENTITY).exists()
    }

    /// `None`: a fresh directory, in which no node has lived yet.
    pub fn load(&self) -> Result<Option<Identity>, DataDirError> {
        let Some(text) = self.read_if_there(IDENTITY)? else {
            let lost = self.state_path().exists();
            return if lost { Err(DataDirError::LostIdentity { dir: self.path.clone() }) } else { Ok(None) };
        };
        let file = self.parse_identity(&text)?;
        let pem = Pem { ca: self.read(CA)?, ca_key: self.read(CA_KEY)?, cert: self.read(CERT)?, key: self.read(KEY)? };
        let name = NodeName { node: file.node_id, cluster: file.cluster_id };
        Identity::assemble(name, Wall(file.created_ms), pem).map(Some).map_err(|e| self.corrupt_part(e))
    }

    /// Writes everything, `identity.json` last; also how a renewed certificate is kept.
    pub fn save(&self, identity: &Identity) -> Result<(), DataDirError> {
        let pem = identity.pem();
        for (name, text) in [(CA, &pem.ca), (CA_KEY, &pem.ca_key), (KEY, &pem.key), (CERT, &pem.cert)] {
            self.write_private(name, text.as_bytes())?;
        }
        let file = IdentityFile {
            version: VERSION,
            cluster_id: identity.cluster(),
            node_id: identity.node(),
            created_ms: identity.created().0,
        };
        let text = serde_json::to_string_pretty(&file).map_err(|e| self.io(IDENTITY, e.into()))?;
        self.write_private(IDENTITY, text.as_bytes())
    }

    /// Removes the identity, which goes first as it came last, the state, and what belongs to them. Begun, it is
    /// finished: by the next who opens the directory if need be.
    pub fn forget(&self) -> Result<(), DataDirError> {
        self.write_private(FORGETTING, &[])?;
        let all = [IDENTITY, CA, CA_KEY, CERT, KEY, STATE, FIRST, ADDR, MEMBER, FORGETTING];
        all.into_iter().try_for_each(|name| self.remove_private(name))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn state_path(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// Replaces a file of this directory whole and durably; only this user can read it.
    pub fn write_private(&self, name: &str, bytes: &[u8]) -> Result<(), DataDirError> {
        let temporary = format!("{name}.new");
        let write = || -> io::Result<()> {
            let mut file = create_private_file(&self.path.join(&temporary))?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(self.path.join(&temporary), self.path.join(name))?;
            sync_dir(&self.path)
        };
        write().map_err(|e| self.io(name, e))
    }

    /// A file written with [`Self::write_private`], if it is there.
    pub fn read_private(&self, name: &str) -> Result<Option<Vec<u8>>, DataDirError> {
        let file = match File::open(self.path.join(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.io(name, e)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| self.io(name, e))?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(self.corrupt(name, format!("longer than the {MAX_FILE_BYTES} bytes allowed")));
        }
        Ok(Some(bytes))
    }

    pub fn remove_private(&self, name: &str) -> Result<(), DataDirError> {
        match fs::remove_file(self.path.join(name)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.io(name, e)),
            _ => sync_dir(&self.path).map_err(|e| self.io(name, e)),
        }
    }

    /// Gives the directory up, as if nobody had opened it. Whoever opens it now takes a lock of its own.
    pub fn remove_lock(self) -> Result<(), DataDirError> {
        self.remove_private(LOCK)
    }

    fn parse_identity(&self, text: &str) -> Result<IdentityFile, DataDirError> {
        // The version alone first: a newer file may look different in every other respect.
        let value: serde_json::Value = serde_json::from_str(text).map_err(|e| self.corrupt(IDENTITY, e.to_string()))?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(VERSION) => {}
            Some(found) => return Err(DataDirError::Newer { path: self.path.join(IDENTITY), found }),
            None => return Err(self.corrupt(IDENTITY, "not an identity file of peer: it has no version".to_owned())),
        }
        serde_json::from_value(value).map_err(|e| self.corrupt(IDENTITY, e.to_string()))
    }

    fn read(&self, name: &str) -> Result<String, DataDirError> {
        self.read_if_there(name)?.ok_or_else(|| DataDirError::Missing { path: self.path.join(name) })
    }

    fn read_if_there(&self, name: &str) -> Result<Option<String>, DataDirError> {
        let Some(bytes) = self.read_private(name)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| self.corrupt(name, "not text".to_owned()))
    }

    fn corrupt_part(&self, error: IdentityError) -> DataDirError {
        let name = match &error {
            IdentityError::Part { part: Part::Ca, .. } => CA,
            IdentityError::Part { part: Part::CaKey, .. } => CA_KEY,
            IdentityError::Part { part: Part::Key, .. } => KEY,
            IdentityError::Part { part: Part::Cert, .. } | IdentityError::Cert(_) | IdentityError::NotOfItsKey => CERT,
        };
        self.corrupt(name, error.to_string())
    }

    fn corrupt(&self, name: &str, why: String) -> DataDirError {
        DataDirError::Corrupt { path: self.path.join(name), why }
    }

    fn io(&self, name: &str, error: io::Error) -> DataDirError {
        DataDirError::Io { path: self.path.join(name), error }
    }
}

/// An empty file that only this user can open; whatever lay there before (a write cut short) is gone.
pub(crate) fn create_private_file(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// Makes renames and creations in this directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn create_private_dir(path: &Path) -> Result<(), DataDirError> {
    let io_error = |error| DataDirError::Io { path: path.to_owned(), error };
    match fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => Err(io_error(ErrorKind::NotADirectory.into())),
        Ok(meta) => {
            // Our own files are private whatever this says. Somebody else's directory isn't ours to close.
            let ours = path.join(LOCK).exists() || is_empty(path).map_err(io_error)?;
            if meta.permissions().mode() & 0o077 != 0 && ours {
                fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io_error)?;
            }
            Ok(())
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error)?;
            path.parent().filter(|p| !p.as_os_str().is_empty()).map_or(Ok(()), sync_dir).map_err(io_error)
        }
        Err(e) => Err(io_error(e)),
    }
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(dir)?.next().is_none())
}

fn take_lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK);
    let io_error = |error| DataDirError::Io { path: path.clone(), error };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let read = (&file).take(32).read_to_string(&mut holder);
            let pid = read.ok().and_then(|_| holder.trim().parse().ok());
            return Err(DataDirError::InUse { dir: dir.to_owned(), pid });
        }
        Err(e) => return Err(io_error(e.into())),
    }
    // The number is for people who read the error; the lock itself is the kernel's.
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io_error)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::clock::wall;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn fresh() -> (tempfile::TempDir, DataDir, Identity) {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::open(root.path().join("deep/data")).unwrap();
        let identity = Identity::found(wall()).unwrap();
        dir.save(&identity).unwrap();
        (root, dir, identity)
    }

    #[test]
    fn a_fresh_directory_holds_nobody_and_then_whom_we_saved() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let dir = DataDir::open(&path).unwrap();
        assert!(dir.load().unwrap().is_none());
        let identity = Identity::found(wall()).unwrap();
        dir.save(&identity).unwrap();
        let loaded = dir.load().unwrap().expect("saved");
        assert_eq!(loaded.name(), identity.name());
        assert_eq!(loaded.created(), identity.created());
        assert_eq!(mode(&path), 0o700);
        for entry in fs::read_dir(&path).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn two_agents_cannot_share_a_directory() {
        let (_root, dir, _) = fresh();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::InUse { pid, .. } if pid == Some(std::process::id())), "{error}");
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
        let path = dir.path().to_owned();
        drop(dir);
        DataDir::open(path).unwrap();
    }

    #[test]
    fn a_first_start_cut_short_is_a_fresh_directory() {
        let (_root, dir, _) = fresh();
        fs::remove_file(dir.path().join(IDENTITY)).unwrap();
        assert!(dir.load().unwrap().is_none());
        let next = Identity::found(wall()).unwrap();
        dir.save(&next).unwrap();
        assert_eq!(dir.load().unwrap().expect("saved").name(), next.name());
    }

    #[test]
    fn state_without_an_identity_is_not_taken_for_a_fresh_directory() {
        let (_root, dir, _) = fresh();
        fs::remove_file(dir.path().join(IDENTITY)).unwrap();
        fs::write(dir.state_path(), b"x").unwrap();
        assert!(matches!(dir.load(), Err(DataDirError::LostIdentity { .. })));
    }

    #[test]
    fn what_is_corrupt_foreign_or_newer_is_named_and_left_alone() {
        let newer = br#"{"version": 2, "shape": "unknown"}"#.as_slice();
        let cases: [(&str, &[u8]); 8] = [
            (IDENTITY, b""),
            (IDENTITY, b"[1]"),
            (IDENTITY, b"\xff\xfe"),
            (IDENTITY, br#"{"version": 1, "cluster_id": "x"}"#),
            (IDENTITY, newer),
            (CERT, b"not a certificate"),
            (KEY, b""),
            (CA, &[b'x'; 1_100_000]),
        ];
        for (name, bytes) in cases {
            let (_root, dir, _) = fresh();
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            let error = dir.load().unwrap_err();
            assert_eq!(matches!(error, DataDirError::Newer { found: 2, .. }), bytes == newer, "{error}");
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn a_missing_part_and_a_part_of_another_cluster_are_named() {
        let (_root, dir, _) = fresh();
        let other = Identity::found(wall()).unwrap();
        dir.write_private(KEY, other.pem().key.as_bytes()).unwrap();
        let error = dir.load().unwrap_err().to_string();
        assert!(error.contains(KEY) && error.contains("does not fit"), "{error}");
        fs::remove_file(dir.path().join(CA_KEY)).unwrap();
        let error = dir.load().unwrap_err().to_string();
        assert!(error.contains(CA_KEY) && error.contains("is missing"), "{error}");
    }

    #[test]
    fn a_full_directory_of_somebody_else_keeps_its_mode() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(root.path().join("theirs"), b"x").unwrap();
        DataDir::open(root.path()).unwrap();
        assert_eq!(mode(root.path()), 0o755);
    }

    /// As many crashes in the middle of it as it has steps.
    #[test]
    fn an_identity_whose_removal_was_begun_is_removed_by_the_next_who_opens() {
        let all = [IDENTITY, CA, CA_KEY, CERT, KEY, STATE, FIRST, ADDR, MEMBER];
        for gone in 0..=all.len() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("data");
            let open = DataDir::open(&path).unwrap();
            open.save(&Identity::found(Wall(1_780_000_000_000)).unwrap()).unwrap();
            open.write_private(STATE, b"state").unwrap();
            open.write_private("settings.json", b"{}").unwrap();
            open.write_private(FORGETTING, &[]).unwrap();
            drop(open);
            all[..gone].iter().for_each(|name| drop(fs::remove_file(path.join(name))));
            let open = DataDir::open(&path).unwrap();
            assert!(open.load().unwrap().is_none() && !open.is_member());
            let left: Vec<_> = fs::read_dir(&path).unwrap().map(|f| f.unwrap().file_name()).collect();
            assert!(left.iter().all(|name| name == LOCK || name == "settings.json"), "{left:?}");
        }
    }
}
