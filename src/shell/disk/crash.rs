//! A disk under the test's control. Unsynced sectors are kept, dropped or torn at random when the power is cut; writes
//! fail when it is full or broken. What was reported done must survive every cut, and nothing half-applied may show.

use super::{Disk, DiskEvent, Opener, Reopen, Writes, builder, fill, read};
use crate::core::face::PersistId;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use redb::{Database, StorageBackend};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct Platter {
    /// As the system shows it.
    seen: Vec<u8>,
    /// As it would be after a cut that loses everything unsynced.
    durable: Vec<u8>,
    /// Operations until the power fails.
    cut_after: Option<u64>,
    fail_with: Option<ErrorKind>,
    syncs: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct TestDisk(Arc<Mutex<Platter>>);

impl TestDisk {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    pub fn open(&self) -> Result<Database, redb::DatabaseError> {
        builder().create_with_backend(self.clone())
    }

    /// Every operation fails so, or none does.
    pub fn set_failing(&self, with: Option<ErrorKind>) {
        self.platter().fail_with = with;
    }

    /// The power comes back: each sector that was not synced is old or new.
    pub fn after_cut(&self, rng: &mut ChaCha8Rng) -> TestDisk {
        let platter = self.platter();
        let len = if rng.random() { platter.seen.len() } else { platter.durable.len() };
        let keep_p = [0.0, 0.5, 1.0][rng.random_range(0..3usize)];
        let mut bytes = vec![0; len];
        for (n, sector) in bytes.chunks_mut(SECTOR).enumerate() {
            let source = if rng.random_bool(keep_p) { &platter.seen } else { &platter.durable };
            let from = source.get(n * SECTOR..).unwrap_or_default();
            let there = from.len().min(sector.len());
            sector[..there].copy_from_slice(&from[..there]);
        }
        TestDisk(Arc::new(Mutex::new(Platter { seen: bytes.clone(), durable: bytes, ..Platter::default() })))
    }
}

impl Platter {
    fn step(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.cut_after {
            *left = left.checked_sub(1).ok_or(ErrorKind::BrokenPipe)?;
        }
        self.fail_with.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

impl StorageBackend for TestDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.platter();
        let start = offset as usize;
        out.copy_from_slice(platter.seen.get(start..start + out.len()).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.platter();
        platter.step()?;
        platter.seen.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter();
        platter.step()?;
        platter.syncs += 1;
        platter.durable = platter.seen.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.platter();
        platter.step()?;
        let start = offset as usize;
        platter.seen[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }
}

pub(super) fn formatted() -> TestDisk {
    let disk = TestDisk::default();
    fill(&disk.open().unwrap(), &BTreeMap::new()).unwrap();
    disk
}

pub(super) fn start(
    disk: &TestDisk,
    mut on_reopen: impl FnMut(Reopen) + Send + 'static,
) -> (Disk, Receiver<DiskEvent>) {
    let (events, reports) = channel();
    let again = disk.clone();
    let reopen: Opener = Box::new(move |how| {
        on_reopen(how);
        again.open().map_err(|e| super::explain(Path::new("test"), e))
    });
    let disk = Disk::start(disk.open().unwrap(), reopen, move |event| {
        // The test may have seen enough.
        let _ = events.send(event);
    });
    (disk.unwrap(), reports)
}

pub(super) fn next(reports: &Receiver<DiskEvent>) -> DiskEvent {
    reports.recv_timeout(Duration::from_secs(20)).expect("a report of the disk")
}

/// Every write puts its number under two keys.
fn pair(n: u64) -> Writes {
    let value = [n.to_be_bytes().as_slice(), &[n as u8; 300]].concat();
    vec![(b"left".to_vec(), Some(value.clone())), (b"right".to_vec(), Some(value))]
}

fn stored(disk: &TestDisk) -> Option<u64> {
    let database = disk.open().expect("the file opens after a cut");
    let contents = read(Path::new("test"), &database).expect("and reads");
    assert_eq!(contents.get(b"left".as_slice()), contents.get(b"right".as_slice()), "half a write shows");
    contents.get(b"left".as_slice()).map(|v| u64::from_be_bytes(v[..8].try_into().unwrap()))
}

#[test]
fn no_cut_of_the_power_loses_what_was_reported_done() {
    let mut cuts_that_hit = 0;
    for seed in 0..40 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut disk = formatted();
        let mut number = 0;
        // Several lives of one file, each ended by a cut; some while the last one is being repaired.
        for life in 0..4 {
            let floor = number;
            disk.platter().cut_after = Some(rng.random_range(0..40));
            let mut done = floor;
            if let Ok(database) = disk.open() {
                drop(database);
                if let Ok(database) = disk.open() {
                    let (events, reports) = channel();
                    let reopen: Opener =
                        Box::new(|_| Err(super::DiskError::Busy { path: Path::new("gone").to_owned() }));
                    let report = move |event| events.send(event).unwrap();
                    let writer = Disk::start(database, reopen, report).unwrap();
                    for _ in 0..rng.random_range(1..20) {
                        number += 1;
                        writer.persist(PersistId(number), pair(number));
                        if rng.random_bool(0.5) {
                            break;
                        }
                    }
                    drop(writer);
                    let reported: Vec<u64> = reports
                        .try_iter()
                        .filter_map(|event| match event {
                            DiskEvent::Done(id) => Some(id.0),
                            DiskEvent::Failed { .. } => None,
                        })
                        .collect();
                    assert!(reported.is_sorted(), "seed {seed}");
                    done = reported.last().copied().unwrap_or(floor);
                }
            }
            cuts_that_hit += u32::from(disk.platter().cut_after == Some(0));
            let after = disk.after_cut(&mut rng);
            let found = stored(&after).unwrap_or(0);
            assert!((done..=number).contains(&found), "seed {seed} life {life}: {found} of {done}..={number}");
            number = found;
            disk = after;
        }
    }
    assert!(cuts_that_hit > 60, "{cuts_that_hit}");
}

#[test]
fn a_full_disk_fails_each_write_in_order_and_works_again_once_there_is_room() {
    let disk = formatted();
    let (writer, reports) = start(&disk, |how| assert_eq!(how, Reopen::Plain));
    writer.persist(PersistId(1), pair(1));
    assert_eq!(next(&reports), DiskEvent::Done(PersistId(1)));
    disk.platter().fail_with = Some(ErrorKind::StorageFull);
    for n in 2..=4 {
        writer.persist(PersistId(n), pair(n));
    }
    for n in 2..=4 {
        assert!(matches!(next(&reports), DiskEvent::Failed { id, .. } if id == PersistId(n)));
    }
    disk.platter().fail_with = None;
    writer.persist(PersistId(5), pair(5));
    assert_eq!(next(&reports), DiskEvent::Done(PersistId(5)));
    drop(writer);
    assert_eq!(stored(&disk), Some(5));
}

#[test]
fn a_broken_device_is_not_trusted_with_the_old_file() {
    let disk = formatted();
    let (asked, reopened) = channel();
    let (writer, reports) = start(&disk, move |how| asked.send(how).unwrap());
    disk.platter().fail_with = Some(ErrorKind::Other);
    writer.persist(PersistId(1), pair(1));
    assert!(matches!(next(&reports), DiskEvent::Failed { .. }));
    // Out of room as well, on top: still not to be trusted.
    disk.platter().fail_with = Some(ErrorKind::StorageFull);
    writer.persist(PersistId(2), pair(2));
    assert!(matches!(next(&reports), DiskEvent::Failed { .. }));
    disk.platter().fail_with = None;
    writer.persist(PersistId(3), pair(3));
    assert_eq!(next(&reports), DiskEvent::Done(PersistId(3)));
    assert!(reopened.try_iter().all(|how| how == Reopen::Rebuild));
}

#[test]
fn a_crowd_shares_one_sync() {
    let disk = formatted();
    let (writer, reports) = start(&disk, |_| {});
    let before = disk.platter().syncs;
    for n in 0..1_000 {
        writer.persist(PersistId(n), pair(n));
    }
    for n in 0..1_000 {
        assert_eq!(next(&reports), DiskEvent::Done(PersistId(n)));
    }
    let syncs = disk.platter().syncs - before;
    assert!(syncs < 500, "{syncs} syncs for 1000 writes");
}
