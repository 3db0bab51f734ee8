//! What a guard takes away, from itself and so from the program it starts: memory, processors, the way to more rights.
//!
//! Nothing here needs privileges. What the guard keeps is enough for its work: its data is some hundred kilobytes, it
//! sleeps nearly always, and its signals are to processes of its own user.

use std::ffi::OsString;

/// What makes a guard limit its program, on its command line.
const LIMITED: &str = "--limited";
const MAX_MEMORY_BYTES: &str = "--max-memory-bytes";
const MAX_CPUS: &str = "--max-cpus";

/// Limits of a program and of all that it starts. It gains no rights (`no_new_privs`) and leaves no core dump; the rest
/// as set. A guard applies them before it starts the program, on Linux; what it cannot apply it tells of in the
/// program's log and goes on. Nobody applies them to an unguarded program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProgramLimits {
    /// Data that each process may have, in bytes (`RLIMIT_DATA`: address space without data, as CUDA reserves it, does
    /// not count).
    pub max_memory_bytes: Option<u64>,
    /// Processors that it may run on.
    pub max_cpus: Option<u32>,
}

impl ProgramLimits {
    /// As a guard is told.
    pub(super) fn arguments(self) -> Vec<OsString> {
        let numbers = [(MAX_MEMORY_BYTES, self.max_memory_bytes), (MAX_CPUS, self.max_cpus.map(u64::from))];
        let set = numbers.into_iter().filter_map(|(name, number)| Some((name, number?)));
        let words = set.flat_map(|(name, number)| [name.into(), number.to_string().into()]);
        std::iter::once(LIMITED.into()).chain(words).collect()
    }

    /// The limits in a guard's arguments, up to and with the `--` before its program; `None` when there is more or less.
    pub(super) fn parse(args: &mut impl Iterator<Item = OsString>) -> Option<Option<Self>> {
        let mut limits = None;
        loop {
            let word = args.next()?;
            let mut number = || args.next()?.to_str()?.parse::<u64>().ok();
            match word.to_str()? {
                "--" => return Some(limits),
                LIMITED => limits = Some(Self::default()),
                MAX_MEMORY_BYTES => limits.as_mut()?.max_memory_bytes = Some(number()?),
                MAX_CPUS => limits.as_mut()?.max_cpus = Some(number()?.try_into().ok()?),
                _ => return None,
            }
        }
    }

    /// Applies them to this process, which has one thread, and to all that it starts from now on. What could not be
    /// applied, in words.
    #[cfg(target_os = "linux")]
    pub(super) fn apply(self) -> Vec<String> {
        use rustix::process::Resource;
        let memory = self.max_memory_bytes.map(|bytes| ("memory limit", linux::limit(Resource::Data, bytes)));
        let cpus = self.max_cpus.map(|most| ("limit of processors", linux::keep_to(most)));
        let always = [
            ("no_new_privs", rustix::thread::set_no_new_privs(true)),
            ("limit of core dumps", linux::limit(Resource::Core, 0)),
        ];
        let all = always.into_iter().chain(memory).chain(cpus);
        all.filter_map(|(what, done)| Some(format!("{what} not applied: {}", done.err()?))).collect()
    }

    /// Nothing is applied here.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn apply(self) -> Vec<String> {
        if self == Self::default() { Vec::new() } else { vec!["no limits on this platform".to_owned()] }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::io;
    use rustix::process::{Resource, Rlimit, getpid, getrlimit, setrlimit};
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub(super) fn limit(resource: Resource, most: u64) -> io::Result<()> {
        let most = Some(getrlimit(resource).maximum.map_or(most, |hard| hard.min(most)));
        setrlimit(resource, Rlimit { current: most, maximum: most })
    }

    /// Stays on so many of the processors that it may use; programs spread, for the process decides which.
    pub(super) fn keep_to(most: u32) -> io::Result<()> {
        let usable = sched_getaffinity(None)?;
        let usable: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&cpu| usable.is_set(cpu)).collect();
        let first = getpid().as_raw_nonzero().get().unsigned_abs() as usize % usable.len().max(1);
        let mut kept = CpuSet::new();
        for &cpu in usable.iter().cycle().skip(first).take(usable.len().min(most as usize)) {
            kept.set(cpu);
        }
        sched_setaffinity(None, &kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_told_all_limits_and_nothing_else() {
        let some = ProgramLimits { max_memory_bytes: Some(5_000_000_000), max_cpus: Some(2) };
        for limits in [ProgramLimits::default(), some, ProgramLimits { max_cpus: None, ..some }] {
            let words = limits.arguments().into_iter().chain(["--".into(), "sh".into()]);
            let mut words = words.collect::<Vec<_>>().into_iter();
            assert_eq!(ProgramLimits::parse(&mut words), Some(Some(limits)));
            assert_eq!(words.next(), Some("sh".into()));
        }
        let parsed = |text: &str| {
            let words: Vec<OsString> = text.split(' ').map(Into::into).collect();
            ProgramLimits::parse(&mut words.into_iter())
        };
        assert_eq!(parsed("-- --limited"), Some(None));
        for wrong in ["--limited", "--max-cpus 1 --", "--limited --max-cpus --", "--limited --max-cpu 1 --"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
