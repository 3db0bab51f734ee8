//! Percentiles of a list of figures.

/// Figures in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts them; what is not a number is left out.
    pub fn new(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().filter(|figure| !figure.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        Self(sorted)
    }

    /// The nearest-rank percentile, 0 to 100; 0 of nothing.
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = (self.0.len() as f64 * percent / 100.0).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.percentile(50.0)
    }
}

/// Rounded to a microsecond, for output.
pub fn rounded(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let sorted = Sorted::new((1..=100).rev().map(f64::from));
        assert_eq!((sorted.median(), sorted.percentile(99.0), sorted.percentile(100.0)), (50.0, 99.0, 100.0));
        assert_eq!(Sorted::new([f64::NAN]).median(), 0.0);
        assert_eq!(rounded(1.23456), 1.235);
    }

    proptest! {
        #[test]
        fn a_percentile_is_one_of_the_figures(figures in prop::collection::vec(-1e6f64..1e6, 1..200), percent in 0.0f64..=100.0) {
            let sorted = Sorted::new(figures.clone());
            prop_assert!(figures.contains(&sorted.percentile(percent)));
        }
    }
}
