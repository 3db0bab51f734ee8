//! Who is below a process, as `/proc` tells. On other systems than Linux nobody is.

use std::fs;

/// The children of a process, those of all its threads.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let told = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let mut found = Vec::new();
    for line in told {
        found.extend(line.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

/// All below a process: its children, theirs, and so on.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = children(pid);
    let mut looked_at = 0;
    while let Some(&next) = found.get(looked_at) {
        looked_at += 1;
        // Ids that are used again meanwhile must not lead in a circle.
        let fresh = children(next).into_iter().filter(|child| !found.contains(child));
        let fresh: Vec<_> = fresh.collect();
        found.extend(fresh);
    }
    found
}
