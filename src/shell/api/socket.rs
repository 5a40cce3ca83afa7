//! The unix socket: only root and the group `peer` may speak to it, because whoever does owns the cluster.

use anyhow::{Context, bail};
use std::fs::{DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

const MODE: u32 = 0o660;
const GROUP: &str = "peer";

pub struct Socket {
    pub listener: UnixListener,
    pub file: SocketFile,
}

/// The file that the listener is bound to, known by its inode and when that last changed (inodes are used again).
pub struct SocketFile {
    path: PathBuf,
    identity: Option<[u64; 4]>,
}

impl SocketFile {
    /// Takes it away, unless another agent has put its own there by now.
    pub fn remove(self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<[u64; 4]> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some([meta.dev(), meta.ino(), meta.ctime().cast_unsigned(), meta.ctime_nsec().cast_unsigned()])
}

pub async fn bind(path: &Path) -> anyhow::Result<Socket> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .with_context(|| format!("creating {} for the API's socket", parent.display()))?;
    }
    clear_stale(path).await?;
    let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
    // The group first: until the mode allows it, nobody but us gets in.
    give_to_group(path);
    std::fs::set_permissions(path, Permissions::from_mode(MODE))
        .with_context(|| format!("setting the mode of {}", path.display()))?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path) };
    Ok(Socket { listener, file })
}

/// Removes the socket of an agent that was killed; refuses to touch anything else.
async fn clear_stale(path: &Path) -> anyhow::Result<()> {
    let meta: Metadata = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("looking at {}", path.display())),
    };
    if !meta.file_type().is_socket() {
        bail!(
            "{} exists and is not a socket: move it away or choose another place for the API's socket",
            path.display()
        );
    }
    match UnixStream::connect(path).await {
        Ok(_) => bail!("--socket {}: another agent answers there: choose another place for this one", path.display()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).with_context(|| format!("removing the stale socket {}", path.display()))
        }
        Err(error) => Err(error).with_context(|| format!("asking who listens on {}", path.display())),
    }
}

fn give_to_group(path: &Path) {
    let Some(gid) = std::fs::read_to_string("/etc/group").ok().and_then(|text| group_id(&text, GROUP)) else {
        return;
    };
    if let Err(error) = std::os::unix::fs::chown(path, None, Some(gid)) {
        tracing::warn!(socket = %path.display(), %error, "can't give the API's socket to the group {GROUP}");
    }
}

/// From the text of group(5).
fn group_id(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_by_its_whole_name() {
        let text = "root:x:0:\npeers:x:7:\npeer:x:998:ann,bob\n";
        assert_eq!(group_id(text, "peer"), Some(998));
        assert_eq!(group_id(text, "pee"), None);
    }

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/peer.sock");
        let first = bind(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(bind(&path).await.err().unwrap().to_string().contains("another agent answers"));
        drop(first.listener);
        let second = bind(&path).await.unwrap();
        first.file.remove();
        assert!(path.exists(), "the first agent must not take the second one's socket away");
        second.file.remove();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        assert!(bind(&path).await.err().unwrap().to_string().contains("not a socket"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }
}
