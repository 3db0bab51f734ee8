//! What this process and all that it started have computed so far.

use std::collections::HashMap;
use std::fs;

/// Ticks per second of the times in `/proc/PID/stat`: 100 on every Linux that we run on.
const TICKS_PER_S: f64 = 100.0;

/// Seconds of processor time of this process and its living descendants; 0 where there is no `/proc`.
pub fn used_s() -> f64 {
    let processes: HashMap<u32, (u32, f64)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse(&stat)?))
        })
        .collect();
    let own = std::process::id();
    let is_ours = |mut pid: u32| {
        // No chain of parents is longer than there are processes.
        for _ in 0..processes.len() {
            if pid == own {
                return true;
            }
            let Some((parent, _)) = processes.get(&pid) else { return false };
            pid = *parent;
        }
        false
    };
    processes.iter().filter(|(pid, _)| is_ours(**pid)).map(|(_, (_, seconds))| seconds).sum()
}

/// The parent and the seconds in a line of `/proc/PID/stat` (proc(5): pid (comm) state ppid …, utime and stime being the
/// 14th and 15th).
fn parse(stat: &str) -> Option<(u32, f64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
    Some((fields.get(1)?.parse().ok()?, (ticks(11)? + ticks(12)?) / TICKS_PER_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_past_a_name_with_brackets() {
        let line = "42 (a) b) S 7 42 42 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(parse(line), Some((7, 2.0)));
        assert_eq!(parse("42 (a"), None);
    }
}
