//! A world with a cache: what it holds of each segment, and what becomes of a session that is told of it.

use chorus_protocol::takes::StoredTake;

use super::*;

/// The tag of audio out of the cache.
pub(super) const CACHED: u8 = 255;

impl World {
    pub(super) fn bits(&self, segment: u32) -> u32 {
        self.cache >> (2 * segment % 32) & 3
    }

    /// What the cache holds for a segment: nothing, a take, one that is being spoken, or one that is damaged.
    pub(super) fn find(&self, segment: u32) -> Option<Disposition> {
        let StoredTake { samples, crc32, sample_rate, warnings } = self.cached(segment).0;
        match self.bits(segment) {
            0 => None,
            2 => Some(Disposition::Awaited { key: "k".into(), wait_ms: 300 }),
            _ => Some(Disposition::Stored {
                bucket: names::CACHE_BUCKET.into(),
                key: "k".into(),
                samples,
                crc32,
                sample_rate,
                warnings,
            }),
        }
    }

    pub(super) fn cached(&self, segment: u32) -> (StoredTake, Bytes) {
        let pcm: Vec<u8> = (0..CHUNKS as u8).flat_map(|c| [segment as u8, CACHED, c, 1]).collect();
        let (samples, crc32) = (pcm.len() as u64 / 2, crc32fast::hash(&pcm));
        (StoredTake { samples, crc32, sample_rate: 16_000, warnings: vec![] }, pcm.into())
    }

    pub(super) fn deliver_fetched(&mut self, fetch: &Fetch) {
        let (take, mut pcm) = self.cached(fetch.segment);
        if self.bits(fetch.segment) == 3 {
            pcm = pcm.slice(2..);
        }
        self.session.on_fetched(fetch, Some((take, pcm)), self.now);
    }
}

#[test]
fn what_is_stored_is_not_spoken_and_what_is_damaged_is() {
    let mut world = World::with_cache(3, 0b01_10_01);
    world.turn_fair();
    world.check();
    assert!(world.runs.is_empty(), "no worker was needed");
    let metadata = world.ended.unwrap().metadata.unwrap();
    assert_eq!((metadata.cache_hit, metadata.cached_segments, metadata.retries), (true, 3, 0));

    let mut world = World::with_cache(3, 0b01_11_01);
    world.turn_fair();
    world.check();
    assert_eq!(world.runs.len(), 1);
    let metadata = world.ended.unwrap().metadata.unwrap();
    assert_eq!((metadata.cache_hit, metadata.cached_segments, metadata.retries), (false, 2, 0));
}

#[test]
fn a_take_that_never_comes_is_spoken_when_its_time_is_up() {
    let mut world = World::with_cache(1, 0b10);
    let opened = world.mail.remove(0);
    world.deliver(opened);
    world.mail.clear();
    let wait = Duration::from_millis(300) + SessionHostConfig::default().takes.fetch_within * 2;
    assert!(world.session.timer().unwrap() <= world.now + wait);
    world.turn_fair();
    world.check();
    assert_eq!((world.runs.len(), world.heard.len()), (1, 1));
}
