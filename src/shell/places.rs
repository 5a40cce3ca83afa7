//! Places for those who have not proven who they are: so many at a time. Where all are taken and one address has a crowd of
//! them, whoever comes gets that of its oldest caller. Who is honest is done in milliseconds; so a
//! crowd that says nothing only turns out its own. And how much may be logged about them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// So many of one address are a crowd. A cluster that comes up all at once has one or two of each.
const CROWD: usize = 8;

#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    next: u64,
    /// Per network, in the order in which they came.
    by_source: BTreeMap<IpAddr, BTreeMap<u64, CancellationToken>>,
}

/// Given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    source: IpAddr,
    number: u64,
    lost: CancellationToken,
}

impl Places {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), taken: Mutex::default() })
    }

    /// None if all are taken, and by no crowd: then whoever came first is served first.
    pub fn take(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let source = network(source);
        let mut taken = self.taken();
        if taken.count >= self.most && !taken.turn_one_out() {
            return None;
        }
        let (number, lost) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.count += 1;
        taken.by_source.entry(source).or_default().insert(number, lost.clone());
        Some(Place { places: self.clone(), source, number, lost })
    }

    pub fn free(&self) -> usize {
        self.most.saturating_sub(self.taken().count)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Whether there was a crowd to turn one out of.
    fn turn_one_out(&mut self) -> bool {
        let greediest = self.by_source.iter().max_by_key(|(_, callers)| callers.len());
        let oldest = greediest.filter(|(_, callers)| callers.len() >= CROWD).and_then(|(source, callers)| {
            let (number, _) = callers.first_key_value()?;
            Some((*source, *number))
        });
        if let Some((source, number)) = oldest {
            self.remove(source, number);
        }
        oldest.is_some()
    }

    fn remove(&mut self, source: IpAddr, number: u64) {
        let Some(callers) = self.by_source.get_mut(&source) else { return };
        if let Some(lost) = callers.remove(&number) {
            lost.cancel();
            self.count -= 1;
        }
        if callers.is_empty() {
            self.by_source.remove(&source);
        }
    }
}

impl Place {
    /// When somebody else got it.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(self.source, self.number);
    }
}

/// One customer usually has 2^64 IPv6 addresses at hand: they count as one.
pub fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Lines in the log about strangers: some now and then, whatever they do.
#[derive(Debug, Default)]
pub struct Complaints {
    begun: Option<Instant>,
    made: u32,
}

impl Complaints {
    const AT_MOST: u32 = 20;
    const WITHIN: Duration = Duration::from_secs(10);

    pub fn may_complain(&mut self, now: Instant) -> bool {
        if self.begun.is_none_or(|begun| now >= begun + Self::WITHIN) {
            *self = Self { begun: Some(now), made: 0 };
        }
        self.made += 1;
        self.made <= Self::AT_MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_crowd_turns_out_its_own_and_the_oldest_first() {
        let places = Places::new(CROWD + 1);
        let honest = places.take(ip("10.0.0.1")).unwrap();
        let crowd: Vec<Place> = (0..CROWD + 2).map(|_| places.take(ip("10.0.0.66")).unwrap()).collect();
        let lost = crowd.iter().filter(|place| place.lost.is_cancelled()).count();
        assert!(lost == 2 && crowd[0].lost.is_cancelled() && crowd[1].lost.is_cancelled());
        assert_eq!(places.free(), 0);
        let second = places.take(ip("10.0.0.2")).unwrap();
        assert!(crowd[2].lost.is_cancelled() && !honest.lost.is_cancelled() && !second.lost.is_cancelled());
    }

    #[test]
    fn where_nobody_is_a_crowd_who_came_first_stays() {
        let places = Places::new(CROWD);
        let all: Vec<Place> = (0..CROWD).map(|n| places.take(ip(&format!("10.0.0.{n}"))).unwrap()).collect();
        assert!(places.take(ip("10.0.1.1")).is_none());
        assert!(all.iter().all(|place| !place.lost.is_cancelled()));
    }

    #[test]
    fn a_place_comes_back_once_whoever_it_was_taken_from() {
        let places = Places::new(CROWD);
        let network: Vec<Place> = (0..CROWD).map(|n| places.take(ip(&format!("2001:db8::{n}"))).unwrap()).collect();
        let other = places.take(ip("10.0.0.1")).unwrap();
        assert!(network[0].lost.is_cancelled(), "all are of one network");
        drop(network);
        assert_eq!(places.free(), CROWD - 1);
        drop(other);
        assert_eq!(places.free(), CROWD);
        assert!(places.taken().by_source.is_empty());
    }

    #[test]
    fn complaints_are_rationed() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        let made = |complaints: &mut Complaints, at| (0..100).filter(|_| complaints.may_complain(at)).count();
        assert_eq!(made(&mut complaints, start), 20);
        assert_eq!(made(&mut complaints, start + Duration::from_secs(9)), 0);
        assert_eq!(made(&mut complaints, start + Duration::from_secs(10)), 20);
    }
}
