//! The end of a lab: everything goes, whoever made it and however far it came.

use super::process::{end_marked, sh_ok, wait_until};
use super::{CGROUP, Lab};
use anyhow::Result;
use std::time::Duration;

const GONE_LIMIT: Duration = Duration::from_secs(30);

impl Lab {
    /// Ends everything and leaves nothing. Goes on past what fails; says at the end whether all is gone.
    pub fn down(&mut self) -> Result<()> {
        self.owned = false;
        let dir = self.config.dir.display();
        let ended = end_marked(&self.config.dir);
        let network = self.remove_network();
        sh_ok(&format!("umount -l {dir}/cg"));
        let cleared = || {
            sh_ok(&format!(
                "find /sys/fs/cgroup/*/{CGROUP} /sys/fs/cgroup/{CGROUP} -depth -type d -exec rmdir {{}} + 2>/dev/null"
            ));
            sh_ok(&format!("! mountpoint -q {dir}/cg && rm -rf --one-file-system {dir} && test ! -e {dir}"))
        };
        // The state file stays while something that it tells of does.
        ended.and(network)?;
        wait_until(&format!("{dir} is gone"), GONE_LIMIT, cleared)?;
        if let Some(mut guard) = self.guard.take() {
            guard.dismiss();
        }
        Ok(())
    }
}
