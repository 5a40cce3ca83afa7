//! What this node must not forget, in one redb file: keys and values that the core chose, and nothing of their meaning.
//!
//! One writer thread commits in groups: whatever is queued when it comes round goes into one transaction and one
//! fsync, then each id is reported in order. A commit that fails is reported for every id in it and the next one is
//! tried afresh. A file that is corrupt, foreign or newer is refused before a single byte of it is changed: it is
//! first opened, checked and read through a copy-on-write view in memory.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash;
mod overlay;

use crate::core::face::PersistId;
use crate::shell::identity::data_dir::{create_private_file, sync_dir};
use overlay::Overlay;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

const KV: TableDefinition<&[u8], &[u8]> = TableDefinition::new("kv");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
const FORMAT: &[u8] = b"peer state";
const VERSION_KEY: &str = "version";
const VERSION: u32 = 1;

/// A group commit takes at most this many requests, so that the first of them does not wait for ever.
const MAX_GROUP: usize = 4_096;
/// And about this many bytes.
const MAX_GROUP_BYTES: usize = 16 * 1024 * 1024;
const CACHE_BYTES: usize = 32 * 1024 * 1024;

pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;
/// Put (`Some`) or delete (`None`) each key.
pub type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskEvent {
    Done(PersistId),
    /// Not known to be durable; it may be on disk all the same.
    Failed {
        id: PersistId,
        why: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: {why}; it was left as it is", path.display())]
    Corrupt { path: PathBuf, why: String },
    #[error("{} has version {found}, but this build reads only version {VERSION}: upgrade peer on this node", path.display())]
    Newer { path: PathBuf, found: u32 },
    #[error("{} is open in another process", path.display())]
    Busy { path: PathBuf },
}

/// The only handle to the writer thread. Dropping it finishes what is queued.
#[derive(Debug)]
pub struct Disk {
    queue: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job {
    id: PersistId,
    writes: Writes,
}

impl Disk {
    /// Opens or creates the file and returns what it holds. `report` is called on the writer thread, in the order of
    /// the ids, and must not wait for whoever drops the `Disk`.
    pub fn open(
        path: impl AsRef<Path>,
        report: impl FnMut(DiskEvent) + Send + 'static,
    ) -> Result<(Self, Contents), DiskError> {
        let path = path.as_ref().to_owned();
        if !exists(&path)? {
            create(&path, &Contents::new())?;
        }
        let contents = inspect(&path)?;
        let database = open_file(&path)?;
        let reopen = Box::new(move |how| match how {
            Reopen::Plain => open_file(&path),
            Reopen::Rebuild => rebuild(&path),
        });
        let disk = Self::start(database, reopen, report).map_err(|(path, error)| DiskError::Io { path, error })?;
        Ok((disk, contents))
    }

    /// Never blocks. Ids complete in the order in which they were given.
    pub fn persist(&self, id: PersistId, writes: Writes) {
        if let Some(queue) = &self.queue {
            // The writer outlives its queue, so this can't fail.
            let _ = queue.send(Job { id, writes });
        }
    }

    fn start(
        database: Database,
        reopen: Opener,
        report: impl FnMut(DiskEvent) + Send + 'static,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let (queue, jobs) = mpsc::channel();
        let mut writer = Writer { database: Some(database), reopen, next_open: Reopen::Plain };
        let writer = std::thread::Builder::new()
            .name("peer-disk".to_owned())
            .spawn(move || writer.run(&jobs, report))
            .map_err(|e| (PathBuf::from("the disk writer thread"), e))?;
        Ok(Self { queue: Some(queue), writer: Some(writer) })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.queue.take();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so on stderr.
            let _ = writer.join();
        }
    }
}

/// How to get a database back after a commit failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reopen {
    /// There was no room: the file is as the last commit left it.
    Plain,
    /// The device failed. After a failed fsync the kernel calls pages clean that never reached the disk, so what
    /// it shows us is not what a power cut would leave: everything is written again, into a new file.
    Rebuild,
}

type Opener = Box<dyn FnMut(Reopen) -> Result<Database, DiskError> + Send>;

struct Writer {
    database: Option<Database>,
    reopen: Opener,
    next_open: Reopen,
}

impl Writer {
    fn run(&mut self, jobs: &mpsc::Receiver<Job>, mut report: impl FnMut(DiskEvent)) {
        while let Ok(first) = jobs.recv() {
            let group = gather(first, jobs);
            let result = self.commit(&group);
            if let Err(why) = &result {
                tracing::error!(requests = group.len(), "writing the state failed: {why}");
            }
            for Job { id, .. } in group {
                report(match &result {
                    Ok(()) => DiskEvent::Done(id),
                    Err(why) => DiskEvent::Failed { id, why: why.clone() },
                });
            }
        }
    }

    /// After a failure the database is dropped: redb refuses to go on with one that has seen an I/O error.
    fn commit(&mut self, group: &[Job]) -> Result<(), String> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.reopen)(self.next_open).map_err(|e| e.to_string())?,
        };
        let attempt = catch_unwind(AssertUnwindSafe(|| apply(&database, group)));
        match attempt {
            Ok(Ok(())) => {
                self.database = Some(database);
                self.next_open = Reopen::Plain;
                Ok(())
            }
            Ok(Err(error)) if is_out_of_space(&error) => {
                drop_quietly(database);
                Err(error.to_string())
            }
            Ok(Err(error)) => {
                self.next_open = Reopen::Rebuild;
                drop_quietly(database);
                Err(error.to_string())
            }
            Err(panic) => {
                self.next_open = Reopen::Rebuild;
                drop_quietly(database);
                Err(format!("the database gave up: {}", panic_text(&*panic)))
            }
        }
    }
}

fn gather(first: Job, jobs: &mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.bytes();
    let mut group = vec![first];
    while group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
        let Ok(job) = jobs.try_recv() else { break };
        bytes += job.bytes();
        group.push(job);
    }
    group
}

impl Job {
    fn bytes(&self) -> usize {
        self.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
    }
}

fn apply(database: &Database, group: &[Job]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(KV)?;
        for (key, value) in group.iter().flat_map(|job| &job.writes) {
            match value {
                Some(value) => table.insert(key.as_slice(), value.as_slice())?,
                None => table.remove(key.as_slice())?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Dropping a database writes, too, and may fail in its own ways.
fn drop_quietly(database: Database) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
}

fn is_out_of_space(error: &redb::Error) -> bool {
    let redb::Error::Io(error) = error else { return false };
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given")
}

fn exists(path: &Path) -> Result<bool, DiskError> {
    path.try_exists().map_err(|error| DiskError::Io { path: path.to_owned(), error })
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn open_file(path: &Path) -> Result<Database, DiskError> {
    builder().open(path).map_err(|e| explain(path, e))
}

/// A cut while redb lays out a new file leaves one that doesn't open, so that happens under another name.
fn create(path: &Path, contents: &Contents) -> Result<(), DiskError> {
    let io_error = |error| DiskError::Io { path: path.to_owned(), error };
    let temporary = path.with_extension("redb.new");
    let file = create_private_file(&temporary).map_err(io_error)?;
    let database = builder().create(&temporary).map_err(|e| explain(&temporary, e))?;
    fill(&database, contents).map_err(|e| DiskError::Io { path: temporary.clone(), error: io::Error::other(e) })?;
    drop(database);
    file.sync_all().map_err(io_error)?;
    fs::rename(&temporary, path).map_err(io_error)?;
    // A relative name alone has an empty parent.
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(parent).map_err(io_error)
}

fn fill(database: &Database, contents: &Contents) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT_KEY, FORMAT)?;
        meta.insert(VERSION_KEY, VERSION.to_le_bytes().as_slice())?;
        let mut table = transaction.open_table(KV)?;
        for (key, value) in contents {
            table.insert(key.as_slice(), value.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn rebuild(path: &Path) -> Result<Database, DiskError> {
    let contents = inspect(path)?;
    create(path, &contents)?;
    tracing::warn!(path = %path.display(), "the state was written into a new file after the disk had failed");
    open_file(path)
}

/// Repairs (in memory), checks and reads the whole file without changing it.
fn inspect(path: &Path) -> Result<Contents, DiskError> {
    let io_error = |error| DiskError::Io { path: path.to_owned(), error };
    let corrupt = |why: String| DiskError::Corrupt { path: path.to_owned(), why };
    let overlay = Overlay::open(path).map_err(io_error)?;
    if overlay.is_empty() {
        return Err(corrupt("an empty file".to_owned()));
    }
    // redb reports most damage as an error, but not all.
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let mut builder = builder();
        builder.set_check_integrity_on_open(true);
        let database = builder.create_with_backend(overlay).map_err(|e| explain(path, e))?;
        read(path, &database)
    }));
    attempt.unwrap_or_else(|panic| Err(corrupt(format!("damaged: {}", panic_text(&*panic)))))
}

fn read(path: &Path, database: &Database) -> Result<Contents, DiskError> {
    let corrupt = |why: String| DiskError::Corrupt { path: path.to_owned(), why };
    let transaction = database.begin_read().map_err(|e| corrupt(e.to_string()))?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::Storage(e)) => return Err(corrupt(e.to_string())),
        Err(_) => return Err(corrupt("a redb database, but not one of peer".to_owned())),
    };
    let value = |key| match meta.get(key) {
        Ok(value) => Ok(value.map(|v| v.value().to_vec())),
        Err(e) => Err(corrupt(e.to_string())),
    };
    if value(FORMAT_KEY)?.as_deref() != Some(FORMAT) {
        return Err(corrupt("a redb database, but not one of peer".to_owned()));
    }
    let version = value(VERSION_KEY)?.and_then(|v| v.try_into().ok()).map(u32::from_le_bytes);
    match version {
        Some(VERSION) => {}
        Some(found) => return Err(DiskError::Newer { path: path.to_owned(), found }),
        None => return Err(corrupt("without a version".to_owned())),
    }
    let table = transaction.open_table(KV).map_err(|e| corrupt(e.to_string()))?;
    let mut contents = Contents::new();
    for entry in table.iter().map_err(|e| corrupt(e.to_string()))? {
        let (key, value) = entry.map_err(|e| corrupt(e.to_string()))?;
        contents.insert(key.value().to_vec(), value.value().to_vec());
    }
    Ok(contents)
}

fn explain(path: &Path, error: DatabaseError) -> DiskError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => DiskError::Busy { path },
        // redb says so of a file that doesn't begin like one of its own.
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() == ErrorKind::InvalidData => {
            DiskError::Corrupt { path, why: format!("not a state file of peer: {e}") }
        }
        DatabaseError::Storage(StorageError::Io(error)) => DiskError::Io { path, error },
        other => DiskError::Corrupt { path, why: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    fn put(key: &str, value: &str) -> Writes {
        vec![(key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()))]
    }

    fn open(path: &Path) -> (Disk, Contents, Receiver<DiskEvent>) {
        let (events, reports) = channel();
        let (disk, contents) = Disk::open(path, move |event| events.send(event).unwrap()).unwrap();
        (disk, contents, reports)
    }

    fn next(reports: &Receiver<DiskEvent>) -> DiskEvent {
        reports.recv_timeout(Duration::from_secs(20)).expect("a report of the disk")
    }

    fn text(contents: &Contents) -> Vec<(String, String)> {
        let text = |b: &Vec<u8>| String::from_utf8(b.clone()).unwrap();
        contents.iter().map(|(k, v)| (text(k), text(v))).collect()
    }

    #[test]
    fn what_was_reported_done_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let (disk, contents, reports) = open(&path);
        assert!(contents.is_empty());
        disk.persist(PersistId(1), [put("a", "1"), put("b", "1")].concat());
        disk.persist(PersistId(2), vec![(b"a".to_vec(), None), (b"c".to_vec(), Some(b"2".to_vec()))]);
        assert_eq!(next(&reports), DiskEvent::Done(PersistId(1)));
        assert_eq!(next(&reports), DiskEvent::Done(PersistId(2)));
        drop(disk);
        let (_disk, contents, _) = open(&path);
        assert_eq!(text(&contents), [("b".into(), "1".into()), ("c".into(), "2".into())]);
        assert!(!dir.path().join("state.redb.new").exists());
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_crowd_of_writes_completes_in_order_and_the_last_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let (disk, _, reports) = open(&path);
        for n in 0..5_000u64 {
            disk.persist(PersistId(n), put("k", &n.to_string()));
        }
        for n in 0..5_000 {
            assert_eq!(next(&reports), DiskEvent::Done(PersistId(n)));
        }
        drop(disk);
        assert_eq!(text(&open(&path).1), [("k".into(), "4999".into())]);
    }

    #[test]
    fn dropping_the_disk_finishes_what_is_queued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let (disk, _, _reports) = open(&path);
        for n in 0..100 {
            disk.persist(PersistId(n), put(&format!("k{n:03}"), "v"));
        }
        drop(disk);
        assert_eq!(open(&path).1.len(), 100);
    }

    #[test]
    fn a_start_cut_short_leaves_nothing_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        fs::write(dir.path().join("state.redb.new"), b"half a file").unwrap();
        assert!(open(&path).1.is_empty());
    }

    fn assert_refused_untouched(path: &Path, is: impl Fn(&DiskError) -> bool) {
        let before = fs::read(path).unwrap();
        let error = Disk::open(path, |_| {}).unwrap_err();
        assert!(is(&error), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert_eq!(fs::read(path).unwrap(), before, "the file was changed");
    }

    fn is_corrupt(error: &DiskError) -> bool {
        matches!(error, DiskError::Corrupt { .. })
    }

    #[test]
    fn what_is_foreign_or_corrupt_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        for bytes in [&b""[..], b"short", &[7; 100_000]] {
            fs::write(&path, bytes).unwrap();
            assert_refused_untouched(&path, is_corrupt);
        }
        fs::remove_file(&path).unwrap();
        drop(Database::create(&path).unwrap());
        assert_refused_untouched(&path, is_corrupt);
    }

    #[test]
    fn a_flipped_byte_anywhere_is_refused_or_harmless_but_never_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let (disk, _, reports) = open(&path);
        disk.persist(PersistId(0), (0..200).flat_map(|n| put(&format!("key{n}"), &"v".repeat(300))).collect());
        next(&reports);
        drop(disk);
        let good = fs::read(&path).unwrap();
        let contents = inspect(&path).unwrap();
        let mut refused = 0;
        // Most of the file is room to grow.
        let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
        for at in used.into_iter().step_by(397) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            fs::write(&path, &bad).unwrap();
            match inspect(&path) {
                Ok(read) => assert_eq!(read, contents, "byte {at}"),
                Err(error) => {
                    assert!(is_corrupt(&error), "byte {at}: {error:?}");
                    refused += 1;
                }
            }
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
        assert!(refused > 100, "{refused}");
    }

    #[test]
    fn a_newer_version_is_refused_by_name_even_after_a_crash_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        create(&path, &Contents::new()).unwrap();
        let database = open_file(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert(VERSION_KEY, 2u32.to_le_bytes().as_slice()).unwrap();
        transaction.commit().unwrap();
        // The copy is taken while the database is open: it looks as if its writer had been killed.
        let crashed = dir.path().join("crashed.redb");
        fs::copy(&path, &crashed).unwrap();
        drop(database);
        for path in [path, crashed] {
            assert_refused_untouched(&path, |e| matches!(e, DiskError::Newer { found: 2, .. }));
        }
    }

    #[test]
    fn a_rebuilt_file_holds_the_same_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        create(&path, &Contents::from([(b"a".to_vec(), b"1".to_vec())])).unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        // Kept open, so that its number isn't given to the new one.
        let _old = fs::File::open(&path).unwrap();
        let before = inode(&path);
        let database = rebuild(&path).unwrap();
        assert_ne!(inode(&path), before);
        apply(&database, &[Job { id: PersistId(1), writes: put("b", "2") }]).unwrap();
        drop(database);
        assert_eq!(text(&open(&path).1), [("a".into(), "1".into()), ("b".into(), "2".into())]);
    }

    #[test]
    fn a_file_in_use_is_told_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let (_disk, _, _) = open(&path);
        let error = Disk::open(&path, |_| {}).unwrap_err();
        assert!(matches!(error, DiskError::Busy { .. }), "{error:?}");
    }
}
