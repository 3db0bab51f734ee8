//! What came of a scenario: figures, which checks did not hold, and both as a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use chorus_protocol::Priority;
use serde_json::{Value, json};

use crate::load::{Ending, Noticed};
use crate::scenario::Checks;

/// What came of one scenario. Durations are in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Its name.
    pub name: &'static str,
    /// How requests reached the fleet.
    pub clients: Vec<&'static str>,
    /// Requests that were asked.
    pub requests: u64,
    /// Those that ended with exact audio.
    pub exact: u64,
    /// Those that ended with one typed, retryable error inside their deadline, by reason.
    pub errors: BTreeMap<String, u64>,
    /// Those that ended without audio as their load wants it: their listener went away, or they were to be refused.
    pub wanted: u64,
    /// Those that ended with anything else, or not at all.
    pub lost: u64,
    /// Samples heard more than once.
    pub duplicated_samples: u64,
    /// Samples of a success that were not heard, or not where they belong.
    pub missing_samples: u64,
    /// Samples of another text or another place.
    pub mixed: u64,
    /// For each segment that was interrupted: from the blow to its begin on another worker.
    pub resume_ms: Vec<f64>,
    /// Segments that were interrupted and of which no further run was heard (their request may have ended with an error).
    pub not_resumed: u64,
    /// Runs begun though another one of their segment was under way or had ended well, and nothing had happened to its worker.
    pub superseded: u64,
    /// Attempts that failed and were made again.
    pub retries: u64,
    /// Workers that managers declared lost.
    pub losses: u64,
    /// Engines that were renewed though they were well.
    pub recycled: u64,
    /// Median time to a refusal, where there was one.
    pub refusal_p50_ms: f64,
    /// The longest that a native listener waited for its next audio.
    pub max_pause_ms: f64,
    /// From asking to end, by priority: median and 99th percentile.
    pub latency_ms: BTreeMap<&'static str, (f64, f64)>,
    /// Requests of each priority that were exact while those of every other priority were still asked.
    pub exact_by_priority: BTreeMap<&'static str, u64>,
    /// Exact requests per second.
    pub per_second: f64,
    /// How long the load took, in seconds.
    pub seconds: f64,
    /// Growth of the memory of workers and managers, in bytes per 1,000 requests, where it was watched.
    pub rss_slope: Option<f64>,
    /// Growth of their open files per 1,000 requests, where it was watched.
    pub fd_slope: Option<f64>,
    /// Checks that did not hold, one sentence each.
    pub faults: Vec<String>,
}

/// What [`Report::new`] is made of.
pub(crate) struct Findings {
    pub(crate) name: &'static str,
    pub(crate) clients: Vec<&'static str>,
    pub(crate) checks: Checks,
    pub(crate) noticed: Vec<Noticed>,
    pub(crate) resumed: Vec<Duration>,
    pub(crate) not_resumed: usize,
    pub(crate) superseded: u64,
    pub(crate) losses: u64,
    pub(crate) recycled: u64,
    pub(crate) slopes: Option<(f64, f64)>,
    pub(crate) took: Duration,
}

impl Report {
    pub(crate) fn new(findings: &Findings) -> Self {
        let noticed = &findings.noticed;
        let exact = noticed.iter().filter(|one| one.ending == Ending::Exact).count() as u64;
        let pauses = noticed.iter().filter_map(|one| one.pause);
        let refused = noticed.iter().filter(|one| matches!(one.ending, Ending::Refused { .. }));
        let refused: Vec<f64> = refused.map(|one| ms(one.took)).collect();
        let seconds = findings.took.as_secs_f64();
        let mut report = Self {
            name: findings.name,
            clients: findings.clients.clone(),
            requests: noticed.len() as u64,
            exact,
            errors: BTreeMap::new(),
            wanted: 0,
            lost: 0,
            duplicated_samples: 0,
            missing_samples: 0,
            mixed: 0,
            resume_ms: findings.resumed.iter().copied().map(ms).collect(),
            not_resumed: findings.not_resumed as u64,
            superseded: findings.superseded,
            retries: noticed.iter().map(|one| u64::from(one.retries)).sum(),
            losses: findings.losses,
            recycled: findings.recycled,
            refusal_p50_ms: percentile(&refused, 50.0),
            max_pause_ms: pauses.max().map_or(0.0, ms),
            latency_ms: BTreeMap::new(),
            exact_by_priority: BTreeMap::new(),
            per_second: exact as f64 / seconds.max(0.001),
            seconds,
            rss_slope: findings.slopes.map(|(rss, _)| rss),
            fd_slope: findings.slopes.map(|(_, files)| files),
            faults: Vec::new(),
        };
        for one in noticed {
            report.count(&one.ending);
        }
        report.by_priority(noticed);
        report.check(&findings.checks);
        report
    }

    fn count(&mut self, ending: &Ending) {
        match ending {
            Ending::Exact => {}
            Ending::Wanted => self.wanted += 1,
            Ending::Lost => self.lost += 1,
            Ending::Damaged(damage) => {
                self.lost += 1;
                self.duplicated_samples += damage.duplicated;
                self.missing_samples += damage.missing + damage.garbled;
                self.mixed += damage.mixed;
            }
            Ending::Refused { reason, retryable, in_time, damage } => {
                self.duplicated_samples += damage.duplicated;
                self.missing_samples += damage.missing + damage.garbled;
                self.mixed += damage.mixed;
                if *retryable && *in_time {
                    *self.errors.entry(reason.clone()).or_default() += 1;
                } else {
                    self.lost += 1;
                    let how = if *retryable { "too late" } else { "not retryable" };
                    self.faults.push(format!("a request ended with {reason}, {how}"));
                }
            }
        }
    }

    fn by_priority(&mut self, noticed: &[Noticed]) {
        let priorities = [Priority::High, Priority::Normal, Priority::Low];
        let heard = |one: &&Noticed| one.ending != Ending::Wanted;
        let of = |priority| noticed.iter().filter(heard).filter(move |one| one.priority == priority);
        // Until the first of the priorities has nothing more to ask, all compete.
        let lasts = priorities.iter().filter_map(|priority| of(*priority).map(|one| one.at).max());
        let contested = lasts.min().unwrap_or_default();
        for priority in priorities {
            let name = name_of(priority);
            let took: Vec<f64> = of(priority).map(|one| ms(one.took)).collect();
            if took.is_empty() {
                continue;
            }
            self.latency_ms.insert(name, (percentile(&took, 50.0), percentile(&took, 99.0)));
            let advanced = of(priority).filter(|one| one.ending == Ending::Exact && one.at <= contested);
            self.exact_by_priority.insert(name, advanced.count() as u64);
        }
    }

    fn check(&mut self, checks: &Checks) {
        let mut faults = Vec::new();
        let mut demand = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        let errors: u64 = self.errors.values().sum();
        let damaged = self.duplicated_samples + self.missing_samples + self.mixed;
        demand(self.requests > 0, "nothing was asked".to_owned());
        demand(self.lost == 0, format!("{} requests were lost", self.lost));
        demand(damaged == 0, format!("{damaged} samples are not what they must be"));
        demand(
            errors <= u64::from(checks.max_errors),
            format!("{errors} requests failed: {:?}", self.errors),
        );
        let pause = checks.max_pause.map_or(f64::INFINITY, ms);
        demand(self.max_pause_ms <= pause, format!("a listener waited for {:.0} ms", self.max_pause_ms));
        let rate = self.per_second;
        demand(rate >= checks.min_per_second, format!("only {rate:.1} requests per second"));
        if let Some((priority, limit)) = checks.max_p50 {
            let name = name_of(priority);
            let p50 = self.latency_ms.get(name).map_or(0.0, |(p50, _)| *p50);
            demand(p50 <= ms(limit), format!("requests of {name} priority took {p50:.1} ms (median)"));
        }
        let refusal = self.refusal_p50_ms;
        let limit = checks.max_refusal_p50.map_or(f64::INFINITY, ms);
        demand(refusal <= limit, format!("refusals took {refusal:.0} ms (median)"));
        let resume = percentile(&self.resume_ms, 99.0);
        let limit = checks.max_resume_p99.map_or(f64::INFINITY, ms);
        demand(resume <= limit, format!("segments were begun elsewhere only after {resume:.0} ms (p99)"));
        let losses = self.losses;
        let (least, most) = checks.losses.unwrap_or((0, u64::MAX));
        demand((least..=most).contains(&losses), format!("{losses} workers were declared lost"));
        let superseded = self.superseded;
        let most = checks.max_superseded.unwrap_or(u64::MAX);
        demand(
            superseded <= most,
            format!("{superseded} segments were begun anew though their workers were well"),
        );
        let recycled = self.recycled;
        demand(recycled >= checks.min_recycled, format!("only {recycled} engines were renewed"));
        let retries = self.retries;
        let (least, most) = checks.retries.unwrap_or((0, u64::MAX));
        demand((least..=most).contains(&retries), format!("{retries} attempts were made again"));
        let idle = self.exact_by_priority.iter().find(|(_, exact)| **exact == 0 && errors == 0);
        demand(idle.is_none(), format!("no request got through at this priority: {idle:?}"));
        for (what, slope, limit) in [
            ("bytes of memory", self.rss_slope, checks.max_rss_slope),
            ("open files", self.fd_slope, checks.max_fd_slope),
        ] {
            let (Some(slope), Some(limit)) = (slope, limit) else { continue };
            demand(slope <= limit, format!("{slope:.1} more {what} with every 1,000 requests"));
        }
        self.faults.append(&mut faults);
        self.faults.sort();
        self.faults.dedup();
    }

    /// Whether every check held.
    pub fn passed(&self) -> bool {
        self.faults.is_empty()
    }

    /// As one JSON object.
    pub fn to_json(&self) -> Value {
        let latency: serde_json::Map<_, _> = self
            .latency_ms
            .iter()
            .map(|(name, (p50, p99))| {
                ((*name).to_owned(), json!({"p50_ms": tenths(*p50), "p99_ms": tenths(*p99)}))
            })
            .collect();
        let mut object = json!({
            "name": self.name,
            "clients": self.clients,
            "passed": self.passed(),
            "faults": self.faults,
            "requests": self.requests,
            "exact": self.exact,
            "errors": self.errors,
            "wanted": self.wanted,
            "refusal_p50_ms": tenths(self.refusal_p50_ms),
            "latency": latency,
            "exact_by_priority": self.exact_by_priority,
            "max_pause_ms": tenths(self.max_pause_ms),
            "superseded": self.superseded,
            "retries": self.retries,
            "workers_lost": self.losses,
            "recycled": self.recycled,
            "per_second": tenths(self.per_second),
            "seconds": tenths(self.seconds),
            "rss_slope_bytes_per_1000": self.rss_slope.map(tenths),
            "fd_slope_per_1000": self.fd_slope.map(tenths),
        });
        if let (Some(object), Value::Object(figures)) = (object.as_object_mut(), figures(&[self])) {
            object.extend(figures);
        }
        object
    }

    /// A few lines for people.
    pub fn lines(&self) -> Vec<String> {
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        let errors: u64 = self.errors.values().sum();
        let mut lines = vec![format!(
            "{:<20} {verdict:<6} ({}) {} of {} exact, {errors} errors, {} lost, {:.1}/s in {:.1} s, longest pause {:.0} ms",
            self.name,
            self.clients.join(", "),
            self.exact,
            self.requests,
            self.lost,
            self.per_second,
            self.seconds,
            self.max_pause_ms
        )];
        if !self.resume_ms.is_empty() || self.not_resumed > 0 {
            let at = |percent| percentile(&self.resume_ms, percent);
            let count = self.resume_ms.len();
            lines.push(format!(
                "  resumed elsewhere    p50 {:.1} ms, p99 {:.1} ms ({count} segments, {} not resumed)",
                at(50.0),
                at(99.0),
                self.not_resumed
            ));
        }
        let (retries, losses, recycled) = (self.retries, self.losses, self.recycled);
        lines.push(format!(
            "  {retries} attempts made again, {losses} workers declared lost, {recycled} engines renewed"
        ));
        if self.wanted > 0 {
            lines.push(format!("  {} ended without audio, as they had to", self.wanted));
        }
        for (name, (p50, p99)) in &self.latency_ms {
            lines.push(format!("  {name:<20} p50 {p50:.1} ms, p99 {p99:.1} ms"));
        }
        if let (Some(rss), Some(files)) = (self.rss_slope, self.fd_slope) {
            let kilobytes = rss / 1024.0;
            lines.push(format!(
                "  per 1,000 requests   {kilobytes:+.1} KiB of memory, {files:+.2} open files"
            ));
        }
        lines.extend(self.errors.iter().map(|(reason, count)| format!("  {count} ended with {reason}")));
        lines.extend(self.faults.iter().map(|fault| format!("  FAILED: {fault}")));
        lines
    }
}

/// All scenarios as one JSON object, with the figures in total.
pub fn to_json(reports: &[Report]) -> Value {
    let mut object = figures(&reports.iter().collect::<Vec<_>>());
    object["passed"] = reports.iter().all(Report::passed).into();
    object["scenarios"] = reports.iter().map(Report::to_json).collect();
    object
}

fn figures(reports: &[&Report]) -> Value {
    let sum = |figure: fn(&Report) -> u64| reports.iter().map(|report| figure(report)).sum::<u64>();
    let resume: Vec<f64> = reports.iter().flat_map(|report| report.resume_ms.iter().copied()).collect();
    let at = |percent| (!resume.is_empty()).then(|| tenths(percentile(&resume, percent)));
    json!({
        "lost": sum(|report| report.lost),
        "duplicated_samples": sum(|report| report.duplicated_samples),
        "missing_samples": sum(|report| report.missing_samples),
        "mixed": sum(|report| report.mixed),
        "resumed": resume.len(),
        "not_resumed": sum(|report| report.not_resumed),
        "resume_p50_ms": at(50.0),
        "resume_p99_ms": at(99.0),
    })
}

fn name_of(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

/// The nearest-rank percentile; 0 of nothing.
fn percentile(figures: &[f64], percent: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn tenths(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkable::Damage;

    fn report(endings: &[Ending], checks: Checks) -> Report {
        let noticed = |ending: &Ending| Noticed {
            priority: Priority::Normal,
            ending: ending.clone(),
            took: Duration::from_millis(20),
            pause: Some(Duration::from_millis(10)),
            retries: 1,
            at: Duration::from_millis(20),
        };
        Report::new(&Findings {
            name: "test",
            clients: vec!["native session"],
            checks,
            noticed: endings.iter().map(noticed).collect(),
            resumed: vec![Duration::from_millis(40), Duration::from_millis(60)],
            not_resumed: 0,
            superseded: 0,
            losses: 1,
            recycled: 1,
            slopes: Some((10.0, 2.0)),
            took: Duration::from_secs(1),
        })
    }

    fn refused(retryable: bool, in_time: bool) -> Ending {
        Ending::Refused { reason: "no_worker".into(), retryable, in_time, damage: Damage::default() }
    }

    #[test]
    fn exact_audio_and_allowed_errors_pass_and_nothing_else_does() {
        let lenient = Checks { max_errors: 1, ..Checks::default() };
        assert!(report(&[Ending::Exact], Checks::default()).passed());
        assert!(report(&[Ending::Exact, refused(true, true)], lenient).passed());
        assert!(!report(&[Ending::Exact, refused(true, true)], Checks::default()).passed());
        let mixed = Damage { mixed: 8, ..Damage::default() };
        let bad = [Ending::Lost, Ending::Damaged(mixed), refused(false, true), refused(true, false)];
        for ending in bad {
            assert!(!report(&[Ending::Exact, ending.clone()], lenient).passed(), "{ending:?}");
        }
        assert!(!report(&[], Checks::default()).passed());
        let quick = Checks { max_refusal_p50: Some(Duration::from_millis(19)), ..lenient };
        assert_eq!(report(&[refused(true, true)], quick).faults, ["refusals took 20 ms (median)"]);
        assert!(report(&[Ending::Exact, Ending::Wanted], quick).passed());
    }

    #[test]
    fn every_limit_is_kept() {
        let limits = [
            Checks { max_pause: Some(Duration::from_millis(5)), ..Checks::default() },
            Checks { min_per_second: 2.0, ..Checks::default() },
            Checks { max_rss_slope: Some(5.0), ..Checks::default() },
            Checks { max_fd_slope: Some(1.0), ..Checks::default() },
            Checks { max_resume_p99: Some(Duration::from_millis(50)), ..Checks::default() },
            Checks { losses: Some((0, 0)), ..Checks::default() },
            Checks { retries: Some((2, 9)), ..Checks::default() },
            Checks { min_recycled: 2, ..Checks::default() },
        ];
        for checks in limits {
            assert_eq!(report(&[Ending::Exact], checks).faults.len(), 1, "{checks:?}");
        }
    }

    #[test]
    fn the_figures_in_total_are_those_of_all_scenarios() {
        let one = report(&[Ending::Exact, Ending::Lost], Checks::default());
        let all = to_json(&[one.clone(), one]);
        assert_eq!((all["lost"].as_u64(), all["resumed"].as_u64()), (Some(2), Some(4)));
        assert_eq!(all["resume_p50_ms"].as_f64(), Some(40.0));
        assert_eq!(all["scenarios"][0]["resume_p99_ms"].as_f64(), Some(60.0));
        assert_eq!(all["passed"], false);
    }
}
