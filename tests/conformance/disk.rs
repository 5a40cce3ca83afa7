//! A disk takes groups of writes, reports each in order, and forgets nothing that it reported as done.

use peer::core::face::PersistId;
use std::collections::BTreeMap;

pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;
pub type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    Done(PersistId),
    Failed(PersistId),
}

pub trait Subject {
    fn persist(&mut self, id: PersistId, writes: Writes);
    fn next(&mut self) -> Report;
    /// The process dies at this very instant, whatever is under way; what the next life finds.
    fn crash(&mut self) -> Contents;
    /// While it is full nothing that needs room gets any.
    fn set_full(&mut self, full: bool);
}

fn key(n: u64) -> Vec<u8> {
    format!("key {n:06}").into_bytes()
}

/// One group: a key of its own, and one that all of them write.
fn group(n: u64) -> Writes {
    vec![(key(n), Some(n.to_be_bytes().to_vec())), (b"last".to_vec(), Some(n.to_be_bytes().to_vec()))]
}

fn last(contents: &Contents) -> u64 {
    contents.get(b"last".as_slice()).map_or(0, |bytes| u64::from_be_bytes(bytes.as_slice().try_into().unwrap()))
}

fn await_done(disk: &mut impl Subject, ids: std::ops::RangeInclusive<u64>) {
    for id in ids {
        assert_eq!(disk.next(), Report::Done(PersistId(id)));
    }
}

pub fn writes_are_reported_in_their_order(disk: &mut impl Subject) {
    for n in 1..=200 {
        disk.persist(PersistId(n), group(n));
    }
    await_done(disk, 1..=200);
}

pub fn what_was_reported_survives_and_of_the_rest_a_beginning(disk: &mut impl Subject) {
    for n in 1..=300 {
        disk.persist(PersistId(n), group(n));
    }
    await_done(disk, 1..=40);
    let contents = disk.crash();
    let kept = last(&contents);
    assert!((40..=300).contains(&kept), "40 were reported, {kept} are there");
    let numbers: Vec<Vec<u8>> = contents.keys().filter(|k| k.starts_with(b"key")).cloned().collect();
    assert!(numbers.into_iter().eq((1..=kept).map(key)), "whole groups, none left out");
}

pub fn what_is_replaced_or_deleted_stays_so(disk: &mut impl Subject) {
    disk.persist(PersistId(1), group(1));
    disk.persist(PersistId(2), vec![(key(1), Some(b"another".to_vec())), (key(2), Some(b"x".to_vec()))]);
    disk.persist(PersistId(3), vec![(key(2), None), (key(3), None)]);
    await_done(disk, 1..=3);
    let contents = disk.crash();
    assert_eq!(contents.get(&key(1)).map(Vec::as_slice), Some(b"another".as_slice()));
    assert!(!contents.contains_key(&key(2)) && !contents.contains_key(&key(3)));
}

pub fn the_next_life_goes_on_from_what_it_found(disk: &mut impl Subject) {
    disk.persist(PersistId(1), group(1));
    await_done(disk, 1..=1);
    assert_eq!(last(&disk.crash()), 1);
    // Ids are a life's own.
    disk.persist(PersistId(1), group(2));
    await_done(disk, 1..=1);
    let contents = disk.crash();
    assert_eq!((last(&contents), contents.len()), (2, 3));
}

pub fn a_full_disk_says_so_and_takes_writes_again_once_freed(disk: &mut impl Subject) {
    disk.persist(PersistId(1), group(1));
    await_done(disk, 1..=1);
    disk.set_full(true);
    let large = vec![(key(2), Some(vec![7; 4 << 20])), (b"with it".to_vec(), Some(vec![1]))];
    disk.persist(PersistId(2), large);
    assert_eq!(disk.next(), Report::Failed(PersistId(2)));
    disk.set_full(false);
    disk.persist(PersistId(3), group(3));
    await_done(disk, 3..=3);
    let contents = disk.crash();
    assert_eq!(last(&contents), 3);
    assert!(contents.contains_key(&key(1)), "what was there before stays");
    let (half, other) = (contents.contains_key(&key(2)), contents.contains_key(b"with it".as_slice()));
    assert_eq!(half, other, "what was refused is there whole or not at all");
}
