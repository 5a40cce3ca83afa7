//! A record of what this agent believed, promised and did, for whoever judges a cluster afterwards (`netsim lab chaos`):
//! a file of JSON lines, each a [`Look`](crate::core::witness::Look). Off unless asked for; bounded; a file that can't be
//! written stops nothing.

use crate::core::Core;
use crate::core::face::Effect;
use crate::core::witness::{Look, Seen, Witness};
use crate::model::record::Term;
use crate::time::Now;
use anyhow::Context;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// One file, over all lives that write to it.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

pub struct Trace {
    witness: Witness,
    /// `None` once it is full or has failed.
    file: Option<File>,
    left: u64,
}

impl Trace {
    /// Goes on behind what an earlier life wrote.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || {
            // Service specs are in it: nobody else's business.
            let file = File::options().create(true).append(true).mode(0o600).open(path)?;
            let written = file.metadata()?.len();
            Ok::<_, std::io::Error>((file, written))
        };
        let (file, written) = open().with_context(|| format!("--trace-file {}", path.display()))?;
        Ok(Self { witness: Witness::default(), file: Some(file), left: MAX_BYTES.saturating_sub(written) })
    }

    pub fn boot(&mut self, core: &Core, promised: Term, now: Now) {
        let look = self.witness.boot(core, promised, now);
        self.write(look);
    }

    /// After an event, before its effects.
    pub fn look(&mut self, core: &Core, now: Now) {
        if let Some(look) = self.witness.look(core, now) {
            self.write(look);
        }
    }

    pub fn effect(&mut self, effect: &Effect, now: Now) {
        if let Some(look) = self.witness.effect(effect, now) {
            self.write(look);
        }
    }

    fn write(&mut self, look: Look) {
        let Some(file) = self.file.as_mut() else { return };
        let line = |look: &Look| serde_json::to_vec(look).map(|bytes| [bytes.as_slice(), b"\n"].concat());
        let written = line(&look).map_err(std::io::Error::from).and_then(|bytes| {
            let len = bytes.len() as u64;
            let fits = self.left >= len;
            self.left = self.left.saturating_sub(len);
            if fits {
                return file.write_all(&bytes).map(|()| true);
            }
            file.write_all(&line(&Look { seen: vec![Seen::Full], ..look })?).map(|()| false)
        });
        match written {
            Ok(true) => {}
            Ok(false) => self.file = None,
            Err(error) => {
                tracing::warn!(%error, "the trace file can't be written: the trace ends here");
                self.file = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::Hlc;
    use crate::time::Wall;

    #[test]
    fn a_file_is_bounded_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trace");
        let mut trace = Trace::open(&path).unwrap();
        let look = || Look { at: 1, wall: Wall(2), seen: vec![Seen::Accepted { index: Hlc(3), pending: false }] };
        trace.left = 200;
        for _ in 0..10 {
            trace.write(look());
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Vec<Look> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(read.len() > 1 && text.len() < 300, "{text}");
        assert_eq!(read[0], look());
        assert_eq!(read.last().unwrap().seen, [Seen::Full]);
        // A later life goes on in the same file.
        Trace::open(&path).unwrap().write(look());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), read.len() + 1);
    }
}
