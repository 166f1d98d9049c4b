//! Keys: which there are, how often each comes, and in which partition it lives.
//!
//! A key is eight hexadecimal digits. Its partition is the one that Kafka's Java client would
//! choose for it, so that a keyed topic looks as real producers would leave it.

use millrace_client::partitioner::partition_of;

/// Bytes of a key.
pub const KEY_BYTES: usize = 8;

/// How often each key comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySpread {
    /// All equally often, at random.
    Uniform,
    /// One after the other, in each partition.
    RoundRobin,
    /// The n-th key n times less often than the first.
    Zipf,
}

impl KeySpread {
    /// Whether it is another than the default.
    pub fn is_chosen(self) -> bool {
        self != Self::Uniform
    }
}

/// All keys of a run, by partition.
#[derive(Debug)]
pub struct Keys {
    spread: KeySpread,
    partitions: Vec<Part>,
}

/// The keys of one partition. Invariant: there is at least one.
#[derive(Debug, Default)]
struct Part {
    keys: Vec<u32>,
    /// Sums of the weights up to each key; empty where all weigh the same.
    sums: Vec<f64>,
    /// How often its keys come, all together; 0 if none is among those asked for.
    weight: f64,
}

/// The text of a key.
pub fn text(key: u32) -> [u8; KEY_BYTES] {
    std::array::from_fn(|index| b"0123456789abcdef"[(key >> (28 - 4 * index)) as usize & 0xf])
}

impl Keys {
    /// The keys 0 to `count` over `partitions` partitions. A partition that none of them belongs to
    /// has one more.
    pub fn new(count: u32, partitions: usize, spread: KeySpread) -> Self {
        let home = |key: u32| partition_of(&text(key), partitions) as usize;
        let mut parts: Vec<Part> = (0..partitions).map(|_| Part::default()).collect();
        for key in 0..count {
            let weight = match spread {
                KeySpread::Zipf => 1.0 / (f64::from(key) + 1.0),
                KeySpread::Uniform | KeySpread::RoundRobin => 1.0,
            };
            let part = &mut parts[home(key)];
            part.keys.push(key);
            part.weight += weight;
            if spread == KeySpread::Zipf {
                part.sums.push(part.weight);
            }
        }
        let mut empty = parts.iter().filter(|part| part.keys.is_empty()).count();
        for key in count.. {
            if empty == 0 {
                break;
            }
            let part = &mut parts[home(key)];
            if part.keys.is_empty() {
                part.keys.push(key);
                empty -= 1;
            }
        }
        Self { spread, partitions: parts }
    }

    /// A key for the record of this sequence in a partition.
    pub fn pick(&self, partition: u32, sequence: u64, random: &mut fastrand::Rng) -> u32 {
        let Part { keys, sums, weight } = &self.partitions[partition as usize];
        let place = match self.spread {
            KeySpread::RoundRobin => (sequence % keys.len() as u64) as usize,
            KeySpread::Zipf if !sums.is_empty() => {
                let at = random.f64() * weight;
                sums.partition_point(|sum| *sum <= at).min(keys.len() - 1)
            }
            KeySpread::Uniform | KeySpread::Zipf => random.usize(..keys.len()),
        };
        keys[place]
    }

    /// How often keys of a partition come, relative to the others.
    pub fn weight(&self, partition: u32) -> f64 {
        self.partitions[partition as usize].weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_key_is_in_the_partition_where_kafka_puts_it() {
        for spread in [KeySpread::Uniform, KeySpread::RoundRobin, KeySpread::Zipf] {
            let keys = Keys::new(100, 7, spread);
            let mut random = fastrand::Rng::with_seed(1);
            let mut seen = BTreeMap::<u32, u32>::new();
            for sequence in 0..2_000 {
                for partition in 0..7 {
                    let key = keys.pick(partition, sequence, &mut random);
                    assert_eq!(partition_of(&text(key), 7), partition as i32, "{key}");
                    *seen.entry(key).or_default() += 1;
                }
            }
            assert_eq!(seen.len(), 100, "{spread:?}: all of them come, and no others");
            let (most, fewest) = (seen.values().max(), seen.values().min());
            let ratio = f64::from(*most.expect("keys")) / f64::from(*fewest.expect("keys"));
            // Partitions have 9 to 20 keys each, so that equal chances there differ by two.
            assert_eq!(ratio > 5.0, spread == KeySpread::Zipf, "{spread:?}: {ratio}");
        }
    }

    #[test]
    fn few_keys_leave_no_partition_without_one_but_weigh_nothing_there() {
        let keys = Keys::new(2, 8, KeySpread::Zipf);
        let mut random = fastrand::Rng::with_seed(1);
        let weights: Vec<f64> = (0..8).map(|partition| keys.weight(partition)).collect();
        assert!((weights.iter().sum::<f64>() - 1.5).abs() < 1e-9, "{weights:?}");
        for partition in 0..8 {
            let key = keys.pick(partition, 0, &mut random);
            assert_eq!(partition_of(&text(key), 8), partition as i32);
            assert_eq!(key >= 2, keys.weight(partition) == 0.0);
        }
        assert_eq!(&text(0x12ab), b"000012ab");
    }
}
