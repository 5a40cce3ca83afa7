//! Secrets and configs as files that containers bind: in memory, under a directory that only this agent reads, gone
//! with their container. Nothing of them touches a disk; where no memory-backed directory can be had, a container
//! that wants one is refused and told so.
//!
//! `BASE/NODE/CONTAINER/N` is the N-th file of a container. The engine must see the agent's mounts, which it does
//! where both run on one machine as its socket implies.

use super::refused;
use crate::model::container::{ContainerPlan, ObservedContainer, OpError, Owner};
use crate::model::object::PlannedFile;
use bollard::models::{Mount, MountType};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Types of file systems that keep what they hold in memory (statfs(2)).
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

#[derive(Default)]
pub(super) struct Files {
    base: OnceLock<Result<PathBuf, String>>,
    swept: AtomicBool,
    /// Held while directories come and go: the node's own goes with its last container.
    changing: Mutex<()>,
}

impl Files {
    /// Puts the plan's files in place; doing it twice comes to the same.
    pub fn put(&self, owner: Owner, plan: &ContainerPlan) -> Result<Vec<Mount>, OpError> {
        if plan.files.is_empty() {
            return Ok(Vec::new());
        }
        let dir = self.dir(owner, &plan.name).map_err(refused)?;
        let written = plan.files.iter().enumerate().map(|(number, file)| place(&dir, number, file));
        let mounts: Result<Vec<Mount>, String> = written.collect();
        mounts.map_err(|why| {
            self.remove(owner, &plan.name);
            refused(why)
        })
    }

    /// The container's own directory, empty.
    fn dir(&self, owner: Owner, name: &str) -> Result<PathBuf, String> {
        if !is_one_step(name) {
            return Err(format!("no place for the container's secrets: {name:?} is no container's name"));
        }
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = self.base()?.join(owner.node.to_string()).join(name);
        let trouble = |error: io::Error| format!("no place for the container's secrets at {}: {error}", dir.display());
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(trouble(error)),
            _ => {}
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(trouble)?;
        Ok(dir)
    }

    pub fn remove(&self, owner: Owner, name: &str) {
        if !is_one_step(name) {
            return;
        }
        // Where there is no base there are no files.
        let Ok(base) = self.base() else { return };
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let all = base.join(owner.node.to_string());
        let dir = all.join(name);
        if let Err(error) = fs::remove_dir_all(&dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "a container's secrets could not be removed");
        }
        // Refused while others' are in it.
        let _ = fs::remove_dir(&all);
    }

    /// Once in the agent's life, with its first list and before it creates anything: what belongs to containers that
    /// went while nobody looked.
    pub fn sweep(&self, owner: Owner, containers: &[ObservedContainer]) {
        if self.swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let Ok(base) = self.base() else { return };
        let known: BTreeSet<&str> = containers.iter().map(|c| c.name.as_str()).collect();
        let Ok(entries) = fs::read_dir(base.join(owner.node.to_string())) else { return };
        for entry in entries.flatten() {
            if let Some(name) = entry.file_name().to_str()
                && !known.contains(name)
            {
                self.remove(owner, name);
            }
        }
    }

    fn base(&self) -> Result<&Path, String> {
        match self.base.get_or_init(find_base) {
            Ok(base) => Ok(base),
            Err(why) => Err(why.clone()),
        }
    }
}

/// A name comes from a record, which another node wrote: nothing is made or removed elsewhere on its word.
fn is_one_step(name: &str) -> bool {
    let mut steps = Path::new(name).components();
    matches!((steps.next(), steps.next()), (Some(Component::Normal(_)), None)) && !name.contains('/')
}

/// The first of the usual places that is memory.
fn find_base() -> Result<PathBuf, String> {
    let user = rustix::process::geteuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = [Some(PathBuf::from("/run")), runtime, Some(PathBuf::from("/dev/shm"))];
    let mut tried = Vec::new();
    for place in places.into_iter().flatten() {
        let base = place.join(format!("peer-files-{user}"));
        match claim(&place, &base, user) {
            Ok(()) => return Ok(base),
            Err(why) => tried.push(format!("{}: {why}", place.display())),
        }
    }
    Err(format!("secrets and configs need a directory in memory, and there is none ({})", tried.join("; ")))
}

/// Makes `base` ours alone; somebody else's directory of that name is not.
fn claim(place: &Path, base: &Path, user: u32) -> Result<(), String> {
    let kind = rustix::fs::statfs(place).map_err(|error| error.to_string())?.f_type;
    #[allow(clippy::cast_sign_loss)]
    let in_memory = [TMPFS, RAMFS].contains(&(kind as u64 & 0xffff_ffff));
    if !in_memory {
        return Err("not in memory".to_owned());
    }
    match DirBuilder::new().mode(0o700).create(base) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.to_string()),
        _ => {}
    }
    let found = fs::symlink_metadata(base).map_err(|error| error.to_string())?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        return Err(format!("{} is not ours alone", base.display()));
    }
    Ok(())
}

fn place(dir: &Path, number: usize, planned: &PlannedFile) -> Result<Mount, String> {
    let file = &planned.file;
    let (what, name) = (file.kind.as_str(), &file.name);
    let bytes = planned.bytes()?;
    let path = dir.join(number.to_string());
    write(&path, bytes, file.uid, file.gid, file.mode).map_err(|error| {
        format!("{what} {name} can't be given to user {} and group {}: {error}", file.uid, file.gid)
    })?;
    Ok(Mount {
        typ: Some(MountType::BIND),
        source: Some(path.display().to_string()),
        target: Some(file.target.clone()),
        read_only: Some(true),
        ..Default::default()
    })
}

fn write(path: &Path, bytes: &[u8], uid: u32, gid: u32, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (uid, gid) {
        chown(path, Some(uid), Some(gid))?;
    }
    // Last: giving a file away clears some of its bits.
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ObjectId;
    use crate::model::object::{Content, FileRef, ObjectKind};

    fn planned(content: Content) -> PlannedFile {
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        let file = FileRef {
            kind: ObjectKind::Secret,
            object: ObjectId::from_u128(1),
            name: "token".into(),
            target: "/run/secrets/token".into(),
            uid: user,
            gid: group,
            mode: 0o440,
        };
        PlannedFile { file, content, is_template: false }
    }

    #[test]
    fn a_file_has_its_owner_and_mode_and_is_bound_read_only() {
        let dir = tempfile::tempdir().unwrap();
        let mount = place(dir.path(), 0, &planned(Content::Plain(b"hush".to_vec()))).unwrap();
        let path = dir.path().join("0");
        assert_eq!(fs::read(&path).unwrap(), b"hush");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o440);
        assert_eq!((mount.source, mount.read_only), (Some(path.display().to_string()), Some(true)));
        assert_eq!(mount.target.as_deref(), Some("/run/secrets/token"));
    }

    #[test]
    fn a_name_that_leads_elsewhere_gets_no_place() {
        for name in ["..", ".", "", "/etc", "../../etc/cron.d/x.1.id", "a/..", "a/b", "a/"] {
            assert!(!is_one_step(name), "{name}");
        }
        assert!(is_one_step("web.1.abc") && is_one_step("..web"));
        let owner = Owner { cluster: crate::ids::ClusterId::from_u128(1), node: crate::ids::NodeId::from_u128(2) };
        assert!(Files::default().dir(owner, "../x").unwrap_err().contains("no container's name"));
    }

    #[test]
    fn what_is_sealed_or_gone_is_never_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let gone = place(dir.path(), 0, &planned(Content::Gone)).unwrap_err();
        assert_eq!(gone, "secret token was removed");
        let unfilled = place(dir.path(), 0, &planned(Content::Unfilled("no secret x".into()))).unwrap_err();
        assert_eq!(unfilled, "the template in secret token can't be filled in: no secret x");
        assert!(place(dir.path(), 0, &planned(Content::Sealed(vec![1]))).unwrap_err().contains("opened"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_disk_and_a_strangers_directory_are_no_place_for_secrets() {
        let user = rustix::process::geteuid().as_raw();
        let open = tempfile::tempdir_in("/dev/shm");
        let Ok(shm) = open else { return println!("skipped: no /dev/shm here") };
        let base = shm.path().join("base");
        claim(shm.path(), &base, user).unwrap();
        claim(shm.path(), &base, user).unwrap();
        assert!(claim(shm.path(), &base, user + 1).unwrap_err().contains("not ours alone"));
        fs::set_permissions(&base, Permissions::from_mode(0o755)).unwrap();
        assert!(claim(shm.path(), &base, user).unwrap_err().contains("not ours alone"));
        assert_eq!(claim(Path::new("/proc"), &base, user).unwrap_err(), "not in memory");
    }
}
