//! Intended send times: an endless sequence per connection that the broker can never slow down.
//!
//! A connection of an open loop asks for the time of its n-th arrival that has not been sent yet.
//! The sequence depends on rate, seed and the connection's place only, so a send that leaves late
//! is measured from when it was due.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

/// How arrivals are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Equal distances.
    Uniform,
    /// Independent arrivals: exponentially distributed distances.
    Poisson,
    /// --burst of them at once, at equal distances.
    Bursts,
}

/// When the records of all connections are due.
#[derive(Clone, Debug)]
pub enum Arrivals {
    /// At a rate.
    Rate {
        /// Records a second over all connections.
        per_second: f64,
        /// Their distances.
        spread: Spread,
        /// Arrivals of a connection at once, for [`Spread::Bursts`].
        burst: u32,
    },
    /// At these times, nanoseconds from the start, in order; connections take turns.
    Replay(Arc<[u64]>),
}

impl Arrivals {
    /// How many times of a replay lie before the measured time, and how many after it.
    pub fn unmeasured(&self, [from_ns, to_ns]: [u64; 2]) -> [usize; 2] {
        let Self::Replay(times) = self else { return [0, 0] };
        let before = |ns: u64| times.partition_point(|at_ns| *at_ns < ns);
        [before(from_ns), times.len() - before(to_ns)]
    }
}

/// The arrivals of one connection, in clock nanoseconds, never decreasing.
#[derive(Debug)]
pub struct Schedule {
    period_ns: f64,
    start_ns: f64,
    /// Arrivals consumed so far.
    taken: u64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// So many at once.
    Even(u64),
    Poisson(Poisson),
    /// All times, our place, and how many connections take turns.
    Replay(Arc<[u64]>, u64, u64),
}

#[derive(Debug)]
struct Poisson {
    random: fastrand::Rng,
    last_ns: f64,
    ahead: VecDeque<u64>,
}

/// Reads a schedule: a number of seconds a line, in order; empty lines and those with # are passed
/// over.
pub fn read(path: &Path) -> Result<Arc<[u64]>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("--schedule {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    parse(&text).map_err(|error| wrong(&error))
}

fn parse(text: &str) -> Result<Arc<[u64]>, String> {
    let mut times: Vec<u64> = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let seconds = line.parse().ok().filter(|seconds| (0.0..1e9).contains(seconds));
        let seconds: f64 = seconds.ok_or(format!("line {number}: '{line}' is not seconds"))?;
        let at_ns = (seconds * 1e9) as u64;
        if times.last().is_some_and(|last| *last > at_ns) {
            return Err(format!("line {number}: {line} is before the line above"));
        }
        times.push(at_ns);
    }
    if times.is_empty() { Err("it has no times".to_owned()) } else { Ok(times.into()) }
}

impl Schedule {
    /// The arrivals of one connection (its place, and how many there are) from `start_ns` on; each
    /// stands for so many records.
    pub fn new(
        arrivals: &Arrivals,
        records_per_arrival: usize,
        start_ns: u64,
        (place, connections): (usize, usize),
        seed: u64,
    ) -> Self {
        assert!(place < connections, "a connection is one of all");
        let start_ns = start_ns as f64;
        let (per_second, spread, burst) = match arrivals {
            Arrivals::Rate { per_second, spread, burst } => (*per_second, *spread, *burst),
            Arrivals::Replay(times) => {
                let kind = Kind::Replay(Arc::clone(times), place as u64, connections as u64);
                return Self { period_ns: 0.0, start_ns, taken: 0, kind };
            }
        };
        assert!(per_second > 0.0, "an open loop has a rate");
        let shared_period_ns = 1e9 / per_second * records_per_arrival as f64;
        let period_ns = shared_period_ns * connections as f64;
        let offset_ns = shared_period_ns * place as f64;
        let (start_ns, kind) = match spread {
            Spread::Uniform => (start_ns + offset_ns, Kind::Even(1)),
            Spread::Bursts => (start_ns + offset_ns, Kind::Even(u64::from(burst))),
            Spread::Poisson => {
                let random = fastrand::Rng::with_seed(seed ^ (place as u64).wrapping_mul(0x9e37));
                let ahead = VecDeque::new();
                (start_ns, Kind::Poisson(Poisson { random, last_ns: start_ns, ahead }))
            }
        };
        Self { period_ns, start_ns, taken: 0, kind }
    }

    /// The time of the arrival `ahead` places after the next one; `u64::MAX` after the last.
    pub fn arrival_ns(&mut self, ahead: usize) -> u64 {
        let number = self.taken + ahead as u64;
        match &mut self.kind {
            Kind::Even(burst) => {
                (self.start_ns + (number / *burst * *burst) as f64 * self.period_ns) as u64
            }
            Kind::Poisson(poisson) => {
                while poisson.ahead.len() <= ahead {
                    // 1 - f64() is never zero, so the logarithm is finite.
                    poisson.last_ns += -(1.0 - poisson.random.f64()).ln() * self.period_ns;
                    poisson.ahead.push_back(poisson.last_ns as u64);
                }
                poisson.ahead[ahead]
            }
            Kind::Replay(times, place, connections) => {
                let at = *place + number * *connections;
                let time = usize::try_from(at).ok().and_then(|at| times.get(at));
                time.map_or(u64::MAX, |time| self.start_ns as u64 + time)
            }
        }
    }

    /// Consumes the next `count` arrivals.
    pub fn take(&mut self, count: usize) {
        if let Kind::Poisson(poisson) = &mut self.kind {
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

    fn at(per_second: f64, spread: Spread) -> Arrivals {
        Arrivals::Rate { per_second, spread, burst: 4 }
    }

    fn arrivals(arrivals: &Arrivals, connections: usize, until_ns: u64) -> Vec<u64> {
        let mut all: Vec<u64> = (0..connections)
            .flat_map(|place| {
                let mut schedule = Schedule::new(arrivals, 1, 1_000, (place, connections), 7);
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
        let all = arrivals(&at(1_000.0, Spread::Uniform), 4, 1_000_001_000);
        assert_eq!(all.len(), 1_000);
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] == 1_000_000));
        assert_eq!(all[0], 1_000);
    }

    #[test]
    fn poisson_keeps_the_rate_and_has_the_variance_of_independent_arrivals() {
        let all = arrivals(&at(100_000.0, Spread::Poisson), 3, 1_000_001_000);
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
        let mut schedule = Schedule::new(&at(1e6, Spread::Uniform), 1, 0, (0, 1), 0);
        assert_eq!(schedule.due(2_500, 100), 3);
        assert_eq!(schedule.due(2_500, 2), 2);
        schedule.take(3);
        assert_eq!(schedule.due(2_500, 100), 0);
        assert_eq!(schedule.arrival_ns(0), 3_000);
    }

    #[test]
    fn bursts_keep_the_rate_and_come_at_once() {
        let all = arrivals(&at(1_000.0, Spread::Bursts), 1, 1_000_001_000);
        assert_eq!(all.len(), 1_000);
        let gaps = all.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 0);
        assert!(gaps.clone().all(|gap| gap == 4_000_000) && gaps.count() == 249);
    }

    #[test]
    fn a_replay_is_what_the_file_says_whoever_sends() {
        let text = "# seconds\n0\n0.001\n\n 0.001 \n2.5\n";
        let times = parse(text).expect("a sound file");
        assert_eq!(*times, [0, 1_000_000, 1_000_000, 2_500_000_000]);
        let replay = Arrivals::Replay(Arc::clone(&times));
        assert_eq!(replay.unmeasured([1_000_000, 2_500_000_000]), [1, 1]);
        for connections in [1, 2, 3, 9] {
            let all = arrivals(&Arrivals::Replay(Arc::clone(&times)), connections, u64::MAX);
            assert_eq!(all, [1_000, 1_001_000, 1_001_000, 2_500_001_000], "{connections}");
        }
        let rows = [
            ("0\nx", "line 2: 'x' is not seconds"),
            ("1\n0.5", "line 2: 0.5 is before"),
            ("-1", "line 1"),
            ("# nothing", "no times"),
        ];
        for (text, words) in rows {
            assert!(parse(text).expect_err(words).contains(words), "{words}");
        }
    }
}
