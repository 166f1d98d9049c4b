//! Random interleavings of everything that can happen to a group, and what must hold after each.
//!
//! A failing seed prints its actions, in the words of a scenario.

use std::collections::BTreeMap;

use fastrand::Rng;
use millrace_coordinator::{GroupsConfig, State};

use crate::world::{GROUP, World, config};

/// A few seconds in a debug build; `MILLRACE_SEEDS` asks for more.
const SEEDS_DEFAULT: u64 = 60;
const STEPS: usize = 250;
const MEMBERS_MAX: usize = 4;

#[test]
fn invariants_hold_in_random_interleavings() {
    let seeds = std::env::var("MILLRACE_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(SEEDS_DEFAULT) {
        Run::new(seed).play();
    }
}

struct Run {
    seed: u64,
    random: Rng,
    world: World,
    now_ms: u64,
    /// What happened, for the message of a failure.
    script: Vec<String>,
    nonce: u32,
    /// The assignment of each generation that was handed out.
    assigned: BTreeMap<i32, String>,
    /// Some seeds never fail a write, so that log and memory can be compared in full.
    may_fail: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let config = GroupsConfig {
            members_max: MEMBERS_MAX,
            initial_rebalance_delay_ms: if seed.is_multiple_of(3) { 0 } else { 500 },
            offsets_retention_ms: 60_000,
            retention_check_interval_ms: 10_000,
            ..config()
        };
        Self {
            seed,
            random: Rng::with_seed(seed),
            world: World::new(config),
            now_ms: 0,
            script: Vec::new(),
            nonce: 0,
            assigned: BTreeMap::new(),
            may_fail: seed.is_multiple_of(2),
        }
    }

    fn play(&mut self) {
        if self.random.bool() {
            self.act("hold".to_owned());
        }
        for _ in 0..STEPS {
            self.now_ms += match self.random.u8(..) {
                0..8 => self.random.u64(1_000..15_000),
                8..100 => self.random.u64(1..400),
                _ => 0,
            };
            let action = self.choose();
            self.act(action);
            self.check();
        }
        self.wind_down();
    }

    fn act(&mut self, action: String) {
        self.script.push(format!("({}, {action:?}, ", self.now_ms));
        let said = self.world.act(self.now_ms, &action);
        self.script.push(format!("{said:?}),\n"));
    }

    fn choose(&mut self) -> String {
        let client = ["a", "b", "c", "d", "e", "f"][self.random.usize(..6)];
        let writes = self.world.unfinished().1;
        match self.random.u8(..100) {
            0..30 => {
                let version = [3, 5, 9][self.random.usize(..3)];
                let instance = match client {
                    "a" => " instance=i",
                    "b" => " instance=j",
                    // Two clients of one name fence each other.
                    "c" if self.random.bool() => " instance=i",
                    _ => "",
                };
                let id = if self.random.u8(..3) == 0 { " id=new" } else { "" };
                let protocols = ["range:t,rr:t", "range:t", "range:u,rr:x"][self.random.usize(..3)];
                let kind = if self.random.u8(..40) == 0 { " type=connect" } else { "" };
                let session_ms = self.random.u32(6_000..12_000);
                let rebalance_ms = self.random.u32(0..15_000);
                format!(
                    "{client} join v={version} session={session_ms} rebalance={rebalance_ms} \
                     protocols={protocols}{instance}{id}{kind}"
                )
            }
            30..55 => {
                self.nonce += 1;
                let assignments: String = ["a", "b", "c", "d", "e"]
                    .map(|name| format!(" {name}={}", self.nonce))
                    .concat();
                format!("{client} sync{assignments}")
            }
            55..70 => format!("{client} heartbeat"),
            70..74 => format!("{client} leave"),
            74..82 => {
                let offset = self.random.u32(..);
                let partition = self.random.u8(..4);
                let topic = if self.random.bool() { "t" } else { "u" };
                let who = if self.random.u8(..3) == 0 { "-" } else { client };
                let retention = if self.random.u8(..6) == 0 { " retention=20000" } else { "" };
                format!("{who} commit {topic}-{partition}={offset}{retention}")
            }
            82..92 if writes > 0 => {
                let fails = self.may_fail && self.random.u8(..8) == 0;
                if fails { "failed 56" } else { "written" }.to_owned()
            }
            92..95 => format!("{client} cancel"),
            95 => "delete".to_owned(),
            96 => "deleteoffsets t-0 u-1".to_owned(),
            97 => "droptopic u".to_owned(),
            98 if self.random.u8(..4) == 0 => "restart".to_owned(),
            _ => "time".to_owned(),
        }
    }

    fn check(&mut self) {
        let described = self.world.groups.describe(GROUP);
        let forgotten = described.as_ref().is_none_or(|group| group.protocol_type.is_empty());
        for (generation, assignment) in std::mem::take(&mut self.world.assigned) {
            if !assignment.is_empty() {
                let known = self.assigned.insert(generation, assignment.clone());
                let same = known.is_none_or(|known| known == assignment);
                assert!(same, "two assignments in one generation; {}", self.story());
            }
        }
        if forgotten {
            // Its generations begin again.
            self.assigned.clear();
        }
        let (waiting, writes) = self.world.unfinished();
        assert_eq!(self.world.groups.parked_count(), waiting, "{}", self.story());
        if writes == 0 {
            self.check_replay();
        }
    }

    /// What is in the log is what is in memory.
    fn check_replay(&self) {
        let (replayed, _) = self.world.replay();
        let groups = &self.world.groups;
        let no_offsets = millrace_coordinator::Offsets::default();
        let offsets = groups.fetch(GROUP).unwrap_or(&no_offsets);
        let replayed_offsets = replayed.fetch(GROUP).unwrap_or(&no_offsets);
        assert_eq!(offsets, replayed_offsets, "{}", self.story());
        if self.world.any_write_failed {
            return;
        }
        let described = groups.describe(GROUP);
        match &described {
            // A round is running: the log has the last one, or none.
            Some(group) if !matches!(group.state, State::Stable | State::Empty) => {}
            // Static members that were late to a round count beyond the limit; replay starts a
            // round.
            Some(group) if group.members.len() > MEMBERS_MAX => {}
            // Only its offsets, if any, are in the log.
            Some(group) if group.protocol_type.is_empty() => {}
            _ => assert_eq!(described, replayed.describe(GROUP), "{}", self.story()),
        }
    }

    /// Nobody does anything any more: every request gets its answer, and everything expires.
    fn wind_down(&mut self) {
        for minute in 1..10 {
            while self.world.unfinished().1 > 0 {
                self.act("written".to_owned());
                self.check();
            }
            self.now_ms += minute * 60_000;
            self.act("time".to_owned());
            self.check();
        }
        assert_eq!(self.world.unfinished(), (0, 0), "{}", self.story());
        assert_eq!(self.world.groups.describe(GROUP), None, "{}", self.story());
        assert_eq!(self.world.groups.bytes(), 0, "{}", self.story());
    }

    fn story(&self) -> String {
        let from = self.script.len().saturating_sub(120);
        format!("seed {}:\n{}", self.seed, self.script[from..].concat())
    }
}
