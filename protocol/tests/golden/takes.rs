//! What is said of stored takes: the records that workers keep, and what managers tell of the whole.

use chorus_protocol::service::{CacheCleared, CacheStatus};
use chorus_protocol::takes::{StoredTake, TakeRecord};

use super::vectors::golden;
use super::{run, warning, worker};

#[test]
fn what_is_said_of_stored_takes() {
    golden("take_claimed", TakeRecord::Claimed { run: run().run, worker: worker() });
    golden(
        "take_stored",
        TakeRecord::Stored(StoredTake {
            samples: 2,
            crc32: 7,
            sample_rate: 22_050,
            warnings: vec![warning()],
        }),
    );
    golden(
        "cache_status",
        CacheStatus {
            enabled: true,
            takes: 12,
            bytes: 1_058_400,
            max_bytes: 1_073_741_824,
            hits: 7,
            joins: 1,
            misses: 20,
            failures: 0,
        },
    );
    golden("cache_cleared", CacheCleared { takes: 12, bytes: 1_058_400 });
}
