//! A copy-on-write view of a file: reads come from it, writes stay in memory. redb repairs a file when it opens it;
//! through this it can do so, and we can look inside, before we decide whether the file is ours to touch.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use redb::StorageBackend;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PAGE: u64 = 4_096;

#[derive(Debug)]
pub struct Overlay {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    len: u64,
    /// How much of the file still shows through: what was cut off stays cut off.
    file_len: u64,
    written: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
}

impl Overlay {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file, state: Mutex::new(State { len, file_len: len, written: BTreeMap::new() }) })
    }

    pub fn is_empty(&self) -> bool {
        self.state().len == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, state: &State, number: u64) -> io::Result<Box<[u8; PAGE as usize]>> {
        if let Some(page) = state.written.get(&number) {
            return Ok(page.clone());
        }
        let mut page = Box::new([0; PAGE as usize]);
        let start = number * PAGE;
        let there = state.file_len.saturating_sub(start).min(PAGE) as usize;
        self.file.read_exact_at(&mut page[..there], start)?;
        Ok(page)
    }
}

/// The part of each page that a range covers: page number, range within the page.
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let end = offset.saturating_add(len as u64);
    let mut at = offset;
    std::iter::from_fn(move || {
        (at < end).then(|| {
            let number = at / PAGE;
            let stop = end.min((number + 1).saturating_mul(PAGE));
            let range = (at - number * PAGE) as usize..(stop - number * PAGE) as usize;
            at = stop;
            (number, range)
        })
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.len) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut rest = out;
        for (number, range) in pages(offset, rest.len()) {
            let (part, after) = rest.split_at_mut(range.len());
            part.copy_from_slice(&self.page(&state, number)?[range]);
            rest = after;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        if len < state.len {
            state.file_len = state.file_len.min(len);
            state.written.split_off(&len.div_ceil(PAGE));
            if let Some(last) = state.written.get_mut(&(len / PAGE)) {
                last[(len % PAGE) as usize..].fill(0);
            }
        }
        state.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let mut rest = data;
        for (number, range) in pages(offset, data.len()) {
            let (part, after) = rest.split_at(range.len());
            let mut page = self.page(&state, number)?;
            page[range].copy_from_slice(part);
            state.written.insert(number, page);
            rest = after;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_show_and_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let original: Vec<u8> = (0..10_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &original).unwrap();
        let overlay = Overlay::open(&path).unwrap();
        let read = |offset, len| {
            let mut out = vec![0; len];
            overlay.read(offset, &mut out).map(|()| out)
        };
        assert_eq!(read(0, 10_000).unwrap(), original);
        assert!(read(9_999, 2).is_err());
        overlay.write(4_090, &[0xee; 20]).unwrap();
        let mut want = original.clone();
        want[4_090..4_110].fill(0xee);
        assert_eq!(read(0, 10_000).unwrap(), want);
        // Cut and grown again: zeros, not the old bytes.
        overlay.set_len(4_100).unwrap();
        overlay.set_len(10_000).unwrap();
        want[4_100..].fill(0);
        assert_eq!(read(0, 10_000).unwrap(), want);
        assert_eq!(std::fs::read(&path).unwrap(), original);
    }
}
