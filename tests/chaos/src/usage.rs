//! Memory and open files of the fleet over the time of a load, and how they grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::proc;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// What comes before is warm-up: caches fill, pools grow to their size.
const WARM_UP_SHARE: f64 = 0.3;

/// One look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    requests: f64,
    rss_bytes: f64,
    files: f64,
}

/// Looks at these processes once a second until it is dropped.
pub(crate) async fn watch(pids: Vec<u32>, ended: Arc<AtomicU32>, samples: &mut Vec<Sample>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        let (mut rss_bytes, mut files) = (0.0, 0.0);
        for (rss, open) in pids.iter().filter_map(|&pid| proc::usage(pid)) {
            rss_bytes += rss as f64;
            files += open as f64;
        }
        samples.push(Sample { requests: f64::from(ended.load(Ordering::Relaxed)), rss_bytes, files });
    }
}

/// Growth of memory (bytes) and of open files, each per 1,000 requests: the least-squares slope after the warm-up.
pub(crate) fn slopes(samples: &[Sample]) -> Option<(f64, f64)> {
    let skipped = (samples.len() as f64 * WARM_UP_SHARE).ceil() as usize;
    let settled = samples.get(skipped..)?;
    let of =
        |figure: fn(&Sample) -> f64| slope(settled.iter().map(|sample| (sample.requests, figure(sample))));
    Some((of(|sample| sample.rss_bytes)? * 1000.0, of(|sample| sample.files)? * 1000.0))
}

fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
    let count = points.clone().count() as f64;
    let mean = |pick: fn((f64, f64)) -> f64| points.clone().map(pick).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|(x, _)| x), mean(|(_, y)| y));
    let spread: f64 = points.clone().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let common: f64 = points.map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    (count >= 3.0 && spread > 0.0).then_some(common / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_settled_part() {
        let sample = |requests: f64| Sample {
            requests,
            rss_bytes: if requests < 300.0 { 5e9 } else { 1e6 + 2.0 * requests },
            files: 40.0,
        };
        let samples: Vec<_> = (0..100).map(|n| sample(f64::from(n) * 10.0)).collect();
        let (rss, files) = slopes(&samples).unwrap();
        assert!((rss - 2000.0).abs() < 1e-3 && files.abs() < 1e-9, "{rss} {files}");
        assert_eq!(slopes(&samples[..2]), None);
    }
}
