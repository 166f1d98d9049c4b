//! Consumers as members of a group: each has a thread that joins, sends heartbeats and commits, and
//! tells the connections of its member which partitions are theirs.
//!
//! A partition is read on where the group's committed offset says. What was seen of it goes from
//! member to member, so that a record which a rebalance delivers twice counts as seen twice.

use crate::cluster::{Cluster, ClusterError};
use crate::histogram::{Latencies, Percentiles};
use crate::verify::Tracker;
use millrace_client::{Client, Member, TopicPartition};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a member looks whether something is due.
const STEP: Duration = Duration::from_millis(20);
/// All members must have joined within this time.
const JOIN_PATIENCE: Duration = Duration::from_secs(90);
/// Connections must have let go of their partitions within this time.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);

/// What the group did, as in report.json.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GroupFound {
    /// Members.
    pub members: u32,
    /// From the first join to the moment when all partitions had a reader.
    pub join_ms: f64,
    /// Generations that the members went through after that, at most.
    pub rebalances: u64,
    /// Commits that the coordinator took.
    pub commits: u64,
    /// Those that failed.
    pub commits_failed: u64,
    /// How long a commit took.
    pub commit_us: Percentiles,
}

/// What a member's thread and its connections tell each other.
#[derive(Debug, Default)]
pub struct Claim {
    /// Grows with each change of `assigned`.
    version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Partition -> offset to read from.
    assigned: BTreeMap<u32, i64>,
    /// The version in which the member last got partitions.
    since: u64,
    /// By connection: the version it has taken over, and how far it has read what it had since.
    positions: HashMap<u64, (u64, BTreeMap<u32, i64>)>,
}

impl Claim {
    /// The partitions of `led` that are the member's, when they have changed since `version`; the
    /// new version.
    pub fn changed_since(&self, version: u64, led: &[u32]) -> Option<(u64, BTreeMap<u32, i64>)> {
        if self.version.load(Ordering::Acquire) == version {
            return None;
        }
        let state = self.state();
        let mut mine = state.assigned.clone();
        mine.retain(|partition, _| led.contains(partition));
        Some((self.version.load(Ordering::Acquire), mine))
    }

    /// A connection says what it has taken over and how far it has read. What it has let go of is
    /// remembered: it is yet to be committed.
    pub fn report(&self, connection: u64, version: u64, positions: BTreeMap<u32, i64>) {
        let mut state = self.state();
        let is_of_now = version >= state.since;
        let (taken, read) = state.positions.entry(connection).or_default();
        *taken = version;
        if is_of_now {
            read.extend(positions);
        }
    }

    fn assign(&self, assigned: BTreeMap<u32, i64>) {
        let mut state = self.state();
        let version = self.version.load(Ordering::Acquire) + 1;
        if !assigned.is_empty() {
            state.since = version;
            state.positions.values_mut().for_each(|(_, read)| read.clear());
        }
        state.assigned = assigned;
        self.version.store(version, Ordering::Release);
    }

    /// How far the member has read.
    fn positions(&self) -> BTreeMap<u32, i64> {
        self.state().positions.values().flat_map(|(_, read)| read.clone()).collect()
    }

    /// Waits until every connection has taken over the present version.
    fn wait_until_taken(&self) {
        let (start, version) = (Instant::now(), self.version.load(Ordering::Acquire));
        let is_taken = || self.state().positions.values().all(|(taken, _)| *taken >= version);
        while !is_taken() && start.elapsed() < RELEASE_PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was seen of partitions that nobody reads at the moment.
#[derive(Debug, Default)]
pub struct Seen(Mutex<BTreeMap<u32, Tracker>>);

impl Seen {
    /// Takes what was seen of a partition, or begins anew.
    pub fn take(&self, run: Option<u32>, partition: u32) -> Tracker {
        let kept = self.lock().remove(&partition);
        kept.unwrap_or_else(|| Tracker::new(run, partition))
    }

    /// Keeps it for the next reader.
    pub fn put(&self, partition: u32, tracker: Tracker) {
        self.lock().insert(partition, tracker);
    }

    /// What is left when all readers are gone.
    pub fn drain(&self) -> BTreeMap<u32, Tracker> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Tracker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a group is asked to do.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    /// Its name.
    pub name: String,
    /// What it reads.
    pub topic: String,
    /// Where partitions without a committed offset are read from.
    pub begin: BTreeMap<u32, i64>,
    /// How many members.
    pub members: u32,
    /// How often they commit.
    pub commit_every: Duration,
}

/// A group whose members have joined.
#[derive(Debug)]
pub struct Group {
    /// By member.
    pub claims: Vec<Arc<Claim>>,
    /// What was seen and has no reader.
    pub seen: Arc<Seen>,
    join_ms: f64,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Kept, ClusterError>>>,
}

/// What a member's thread counted.
#[derive(Default)]
struct Kept {
    rebalances: u64,
    failed: u64,
    commits: Latencies,
}

impl Group {
    /// Joins all members, and waits until every partition has one.
    pub fn join(plan: &GroupPlan, cluster: &Cluster) -> Result<Self, ClusterError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (start, mut claims, mut threads) = (Instant::now(), Vec::new(), Vec::new());
        for _ in 0..plan.members {
            let cluster = cluster.again()?;
            let (claim, plan, stop) = (Arc::<Claim>::default(), plan.clone(), Arc::clone(&stop));
            claims.push(Arc::clone(&claim));
            threads.push(thread::spawn(move || live(&plan, cluster, &claim, &stop)));
        }
        let has_all = |claims: &[Arc<Claim>]| {
            let read: usize = claims.iter().map(|claim| claim.state().assigned.len()).sum();
            read == plan.begin.len()
        };
        let mut group = Self { claims, seen: Arc::default(), join_ms: 0.0, stop, threads };
        while !has_all(&group.claims) {
            let has_ended = group.threads.iter().any(JoinHandle::is_finished);
            if has_ended || start.elapsed() > JOIN_PATIENCE || crate::interrupt::is_requested() {
                group.leave()?;
                return Err(ClusterError::Stopped);
            }
            thread::sleep(Duration::from_millis(1));
        }
        group.join_ms = start.elapsed().as_secs_f64() * 1e3;
        Ok(group)
    }

    /// Commits, leaves, and sums up.
    pub fn leave(self) -> Result<GroupFound, ClusterError> {
        self.stop.store(true, Ordering::Release);
        let (mut all, members) = (Kept::default(), self.threads.len() as u32);
        for thread in self.threads {
            let kept = thread.join().expect("a panic of a thread ends the program")?;
            all.rebalances = all.rebalances.max(kept.rebalances);
            all.failed += kept.failed;
            all.commits.add(&kept.commits);
        }
        Ok(GroupFound {
            members,
            join_ms: self.join_ms,
            rebalances: all.rebalances,
            commits: all.commits.count(),
            commits_failed: all.failed,
            commit_us: all.commits.percentiles(),
        })
    }
}

/// The life of a member.
fn live(
    plan: &GroupPlan,
    mut cluster: Cluster,
    claim: &Claim,
    stop: &AtomicBool,
) -> Result<Kept, ClusterError> {
    let mut member = Member::new(&plan.name, std::slice::from_ref(&plan.topic));
    let mut kept = Kept::default();
    let client = cluster.client();
    join(plan, &mut member, client, claim)?;
    let mut committed = Instant::now();
    while !stop.load(Ordering::Acquire) {
        thread::sleep(STEP);
        if member.must_rejoin(client)? {
            // Let go, commit what was read, and only then let others have it.
            claim.assign(BTreeMap::new());
            claim.wait_until_taken();
            commit(plan, &mut member, client, claim, &mut kept)?;
            join(plan, &mut member, client, claim)?;
            kept.rebalances += 1;
        } else if committed.elapsed() >= plan.commit_every {
            commit(plan, &mut member, client, claim, &mut kept)?;
            committed = Instant::now();
        }
    }
    commit(plan, &mut member, client, claim, &mut kept)?;
    member.leave(client)?;
    Ok(kept)
}

fn join(
    plan: &GroupPlan,
    member: &mut Member,
    client: &mut Client,
    claim: &Claim,
) -> Result<(), ClusterError> {
    member.join(client)?;
    let committed = member.committed(client)?;
    let assigned = member.assigned().iter().map(|at| {
        let partition = at.partition.unsigned_abs();
        let begin = plan.begin.get(&partition).copied().unwrap_or(0);
        (partition, committed.get(at).copied().unwrap_or(begin))
    });
    claim.assign(assigned.collect());
    Ok(())
}

fn commit(
    plan: &GroupPlan,
    member: &mut Member,
    client: &mut Client,
    claim: &Claim,
    kept: &mut Kept,
) -> Result<(), ClusterError> {
    let ours = member.assigned().to_vec();
    let positions = claim.positions().into_iter().map(|(partition, offset)| {
        (TopicPartition::new(&plan.topic, partition.cast_signed()), offset)
    });
    let offsets: BTreeMap<_, _> = positions.filter(|(at, _)| ours.contains(at)).collect();
    if offsets.is_empty() {
        return Ok(());
    }
    let start = Instant::now();
    if member.commit(client, &offsets)? {
        kept.commits.record(crate::clock::nanos(start.elapsed()));
    } else {
        kept.failed += 1;
    }
    Ok(())
}
