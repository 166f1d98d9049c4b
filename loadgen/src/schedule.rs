//! Intended send times: an endless sequence per connection that the broker can never slow down.
//!
//! A connection of an open loop asks for the time of its n-th arrival that has not been sent yet.
//! The sequence depends on rate, seed and the connection's place only, so a send that leaves late
//! is measured from when it was due.

use std::collections::VecDeque;

/// How arrivals are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Equal distances.
    Uniform,
    /// Independent arrivals: exponentially distributed distances.
    Poisson,
}

/// The arrivals of one connection, in clock nanoseconds, never decreasing.
#[derive(Debug)]
pub struct Schedule {
    period_ns: f64,
    start_ns: f64,
    /// Arrivals consumed so far.
    taken: u64,
    poisson: Option<Poisson>,
}

#[derive(Debug)]
struct Poisson {
    random: fastrand::Rng,
    last_ns: f64,
    ahead: VecDeque<u64>,
}

impl Schedule {
    /// The arrivals of connection `place` out of `connections`, which share `per_second` arrivals
    /// from `start_ns` on.
    pub fn new(
        spread: Spread,
        per_second: f64,
        start_ns: u64,
        place: usize,
        connections: usize,
        seed: u64,
    ) -> Self {
        assert!(per_second > 0.0, "an open loop has a rate");
        assert!(place < connections, "a connection is one of all");
        let shared_period_ns = 1e9 / per_second;
        let period_ns = shared_period_ns * connections as f64;
        let start_ns = start_ns as f64;
        match spread {
            Spread::Uniform => Self {
                period_ns,
                start_ns: start_ns + shared_period_ns * place as f64,
                taken: 0,
                poisson: None,
            },
            Spread::Poisson => Self {
                period_ns,
                start_ns,
                taken: 0,
                poisson: Some(Poisson {
                    random: fastrand::Rng::with_seed(seed ^ (place as u64).wrapping_mul(0x9e37)),
                    last_ns: start_ns,
                    ahead: VecDeque::new(),
                }),
            },
        }
    }

    /// The time of the arrival `ahead` places after the next one.
    pub fn arrival_ns(&mut self, ahead: usize) -> u64 {
        match &mut self.poisson {
            None => (self.start_ns + (self.taken + ahead as u64) as f64 * self.period_ns) as u64,
            Some(poisson) => {
                while poisson.ahead.len() <= ahead {
                    // 1 - f64() is never zero, so the logarithm is finite.
                    poisson.last_ns += -(1.0 - poisson.random.f64()).ln() * self.period_ns;
                    poisson.ahead.push_back(poisson.last_ns as u64);
                }
                poisson.ahead[ahead]
            }
        }
    }

    /// Consumes the next `count` arrivals.
    pub fn take(&mut self, count: usize) {
        if let Some(poisson) = &mut self.poisson {
            assert!(poisson.ahead.len() >= count, "arrivals are looked at before they are taken");
            poisson.ahead.drain(..count);
        }
        self.taken += count as u64;
    }

    /// How many arrivals, at most `count_max`, lie at or before `now_ns`.
    pub fn due(&mut self, now_ns: u64, count_max: usize) -> usize {
        (0..count_max).take_while(|&ahead| self.arrival_ns(ahead) <= now_ns).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(spread: Spread, per_second: f64, connections: usize, until_ns: u64) -> Vec<u64> {
        let mut all: Vec<u64> = (0..connections)
            .flat_map(|place| {
                let mut schedule = Schedule::new(spread, per_second, 1_000, place, connections, 7);
                let mut times = Vec::new();
                while schedule.arrival_ns(0) < until_ns {
                    times.push(schedule.arrival_ns(0));
                    schedule.take(1);
                }
                assert!(times.is_sorted());
                times
            })
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn uniform_connections_interleave_to_equal_distances() {
        let all = arrivals(Spread::Uniform, 1_000.0, 4, 1_000_001_000);
        assert_eq!(all.len(), 1_000);
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] == 1_000_000));
        assert_eq!(all[0], 1_000);
    }

    #[test]
    fn poisson_keeps_the_rate_and_has_the_variance_of_independent_arrivals() {
        let all = arrivals(Spread::Poisson, 100_000.0, 3, 1_000_001_000);
        let count = all.len() as f64;
        // 5 standard deviations of a Poisson count of 100,000.
        assert!((count - 100_000.0).abs() < 5.0 * 316.2, "{count}");
        let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let variation = variance.sqrt() / mean;
        assert!((0.95..1.05).contains(&variation), "{variation}");
    }

    #[test]
    fn due_counts_what_has_arrived_and_take_consumes_it() {
        let mut schedule = Schedule::new(Spread::Uniform, 1e6, 0, 0, 1, 0);
        assert_eq!(schedule.due(2_500, 100), 3);
        assert_eq!(schedule.due(2_500, 2), 2);
        schedule.take(3);
        assert_eq!(schedule.due(2_500, 100), 0);
        assert_eq!(schedule.arrival_ns(0), 3_000);
    }
}
