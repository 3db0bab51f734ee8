//! Who looks after whom: rendezvous (highest random weight) hashing of workers over the managers that live.
//!
//! Pure. Every manager weighs each pair of worker and manager with the same hash and gives the worker to the heaviest, so
//! managers that hear of the same peers agree without asking one another. When a manager goes, only its own workers
//! change hands; when one comes, it takes its share and nothing else moves (Thaler and Ravishankar, 1998).

use chorus_protocol::{ManagerId, WorkerId};

/// The manager that looks after `worker`; `None` without managers. The order in which they are given does not matter.
pub fn owner<'m>(
    worker: &WorkerId,
    managers: impl IntoIterator<Item = &'m ManagerId>,
) -> Option<&'m ManagerId> {
    // Two managers of the same weight are told apart by their names.
    managers.into_iter().max_by_key(|manager| (weight(worker.as_str(), manager.as_str()), *manager))
}

/// FNV-1a over both names, mixed by the finalizer of splitmix64, since FNV alone leaves the high bits of short names alike.
/// Part of the protocol between managers: a change of it moves every worker.
fn weight(worker: &str, manager: &str) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    // Names hold no zero byte, so that no two pairs read the same.
    let bytes = worker.bytes().chain([0]).chain(manager.bytes());
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn managers(names: &BTreeSet<u16>) -> Vec<ManagerId> {
        names.iter().map(|n| ManagerId::new(format!("m{n}")).unwrap()).collect()
    }

    fn workers(count: usize) -> Vec<WorkerId> {
        (0..count).map(|n| WorkerId::new(format!("w-host-{n}")).unwrap()).collect()
    }

    /// The figure is from a second implementation, in Python.
    #[test]
    fn the_hash_stays_what_it_is() {
        assert_eq!(weight("w1", "m1"), 0x1601_a540_bbd3_ca88);
    }

    #[test]
    fn shares_are_about_even() {
        let managers = managers(&(0..4).collect());
        let mut shares = [0; 4];
        for worker in workers(4_000) {
            let owner = owner(&worker, &managers).unwrap();
            shares[managers.iter().position(|m| m == owner).unwrap()] += 1;
        }
        assert!(shares.iter().all(|share| (850..1_150).contains(share)), "{shares:?}");
    }

    proptest! {
        /// In whatever order a manager has heard of the others, it names the same owner.
        #[test]
        fn all_managers_agree(names in proptest::collection::btree_set(0u16..500, 1..12), turn in 0usize..12) {
            let known = managers(&names);
            let mut turned = known.clone();
            turned.rotate_left(turn % known.len());
            turned.reverse();
            for worker in workers(50) {
                prop_assert_eq!(owner(&worker, &known), owner(&worker, &turned));
            }
        }

        /// A manager that goes hands on its own workers and no others; one that comes takes only for itself.
        #[test]
        fn least_is_moved(names in proptest::collection::btree_set(0u16..500, 2..12), gone in 0usize..12) {
            let all = managers(&names);
            let gone = &all[gone % all.len()];
            let left: Vec<ManagerId> = all.iter().filter(|m| *m != gone).cloned().collect();
            for worker in workers(200) {
                let before = owner(&worker, &all).unwrap();
                let after = owner(&worker, &left).unwrap();
                if before != gone {
                    prop_assert_eq!(before, after);
                } else {
                    prop_assert_ne!(after, gone);
                }
            }
        }
    }
}
