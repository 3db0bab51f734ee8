//! Loads: clients that ask again as soon as they are answered, and arrivals that wait for nobody.

use std::future::Future;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt, TryStreamExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::stats::Sorted;
use crate::error::CliError;

/// What a load took.
#[derive(Debug, Clone)]
pub struct Load {
    /// Each request's time, in milliseconds.
    pub latency_ms: Sorted,
    /// Requests answered per second, from the first asking to the last answer.
    pub per_s: f64,
}

impl Load {
    fn new(figures: Vec<f64>, took: Duration) -> Self {
        let per_s = figures.len() as f64 / took.as_secs_f64().max(1e-9);
        Self { latency_ms: Sorted::new(figures), per_s }
    }
}

/// `clients` at once, each asking again as soon as it is answered, until `requests` were asked. `ask` gets the number of the
/// request and gives its time in milliseconds.
///
/// # Errors
/// The first that a request ends with.
pub async fn closed<F, Answer>(clients: usize, requests: u32, ask: F) -> Result<Load, CliError>
where
    F: Fn(u32) -> Answer,
    Answer: Future<Output = Result<f64, CliError>>,
{
    let begun = Instant::now();
    let asked = stream::iter(0..requests).map(ask).buffer_unordered(clients);
    let figures: Vec<f64> = asked.try_collect().await?;
    Ok(Load::new(figures, begun.elapsed()))
}

/// `requests` arrivals of a Poisson process of `per_s` a second, the same for the same seed. Each is timed from when it was
/// due, so that a slow asker flatters nobody.
///
/// # Errors
/// The first that a request ends with.
pub async fn poisson<F, Answer>(per_s: f64, requests: u32, seed: u64, ask: F) -> Result<Load, CliError>
where
    F: Fn(u32) -> Answer,
    Answer: Future<Output = Result<(), CliError>> + Send + 'static,
{
    let begun = Instant::now();
    let mut due = begun;
    let mut random = StdRng::seed_from_u64(seed);
    let mut asked = JoinSet::new();
    for number in 0..requests {
        due += exponential(per_s, random.random());
        tokio::time::sleep_until(due.into()).await;
        let (answer, due) = (ask(number), due);
        asked.spawn(async move { answer.await.map(|()| due.elapsed().as_secs_f64() * 1000.0) });
    }
    let mut figures = Vec::with_capacity(requests as usize);
    while let Some(ended) = asked.join_next().await {
        let ended = ended.map_err(|error| CliError::Fleet { part: "load", why: error.to_string() })?;
        figures.push(ended?);
    }
    Ok(Load::new(figures, begun.elapsed()))
}

/// The time to the next arrival, for a number from 0 up to 1.
fn exponential(per_s: f64, uniform: f64) -> Duration {
    Duration::from_secs_f64(-(1.0 - uniform).ln() / per_s.max(1e-3))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_clients_ask_at_once_than_there_are() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let load = closed(3, 20, async |_number| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(1.0)
        });
        assert_eq!(load.await.unwrap().latency_ms.median(), 1.0);
        assert_eq!(most.into_inner(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn arrivals_wait_for_nobody_and_come_at_their_rate() {
        let begun = tokio::time::Instant::now();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let ask = move |_number| {
            counter.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Ok(())
            }
        };
        poisson(10.0, 1000, 7, ask).await.unwrap();
        let took = begun.elapsed().as_secs_f64() - 3600.0;
        assert_eq!(asked.load(Ordering::SeqCst), 1000);
        assert!((80.0..125.0).contains(&took), "1000 arrivals at 10 a second took {took} s");
    }

    #[test]
    fn the_mean_time_between_arrivals_is_that_of_the_rate() {
        let mean: f64 =
            (0..1000).map(|n| exponential(4.0, f64::from(n) / 1000.0).as_secs_f64()).sum::<f64>() / 1000.0;
        assert!((0.24..0.26).contains(&mean), "{mean}");
    }
}
