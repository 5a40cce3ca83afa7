//! The agents' traces, read as they grow.

use crate::lab::Lab;
use crate::law::seat::Seat;
use anyhow::{Context, Result};
use peer::core::witness::Look;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

pub struct Trace {
    path: PathBuf,
    read: u64,
    pub looks: Vec<Look>,
    /// The node as it is after all of it.
    pub seat: Seat,
}

impl Trace {
    pub fn of(lab: &Lab, node: usize) -> Self {
        Self { path: lab.trace_file(node), read: 0, looks: Vec::new(), seat: Seat::default() }
    }

    /// What has come since the last time; true if there was any record among it.
    pub fn read_on(&mut self) -> Result<bool> {
        let file = || self.path.display().to_string();
        let mut open = File::open(&self.path).with_context(file)?;
        open.seek(SeekFrom::Start(self.read))?;
        let mut text = Vec::new();
        open.read_to_end(&mut text)?;
        // The last line may be half written.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut changed = false;
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let look: Look = match serde_json::from_slice(line) {
                Ok(look) => look,
                // A line that a SIGKILL cut in two; the next life's begins behind it, and so on the same line.
                Err(_) => match after_a_cut(line) {
                    Some(look) => look,
                    None => continue,
                },
            };
            for seen in &look.seen {
                changed |= matches!(seen, peer::core::witness::Seen::Record { .. });
                self.seat.take(&look, seen);
            }
            self.looks.push(look);
        }
        self.read += whole as u64;
        Ok(changed)
    }
}

fn after_a_cut(line: &[u8]) -> Option<Look> {
    const BEGIN: &[u8] = b"{\"at\":";
    let begins = line.windows(BEGIN.len()).rposition(|window| window == BEGIN)?;
    serde_json::from_slice(&line[begins..]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_line_costs_only_itself() {
        let whole = br#"{"at":5,"wall":6,"seen":["Full"]}"#;
        let both = [&whole[..20], &whole[..]].concat();
        assert_eq!(after_a_cut(&both).map(|look| look.at), Some(5));
        assert_eq!(after_a_cut(&whole[..20]).map(|look| look.at), None);
    }
}
