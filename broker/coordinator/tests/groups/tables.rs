//! Many groups at once: each keeps its own time, and one does not disturb another.

use millrace_coordinator::{
    CommitPartition, CommitRequest, CommitTopic, Effect, Groups, GroupsConfig, JoinRequest,
    MemberRequest, Now, State, WaiterId,
};
use millrace_wire::{ErrorCode, Uuid};

const GROUPS: i32 = 300;

fn now(ms: u64) -> Now {
    Now { monotonic_ms: ms, wall_ms: ms.try_into().expect("tests are short") }
}

fn name(index: i32) -> String {
    format!("group-{index}")
}

fn join(groups: &mut Groups, at_ms: u64, index: i32, session_timeout_ms: i32) -> Vec<Effect> {
    let request = JoinRequest {
        version: 3,
        group_id: &name(index),
        member_id: "",
        instance_id: None,
        client_id: "c",
        client_host: "/127.0.0.1",
        protocol_type: "consumer",
        protocols: &[("range", b"m")],
        session_timeout_ms,
        rebalance_timeout_ms: 1_000_000,
        random: u128::try_from(index).expect("positive"),
    };
    groups.join(now(at_ms), WaiterId(u64::try_from(index).expect("positive")), &request)
}

fn state(groups: &Groups, index: i32) -> Option<State> {
    groups.describe(&name(index)).map(|group| group.state)
}

/// Runs the timers up to `at_ms` and finishes every write.
fn pass_time(groups: &mut Groups, at_ms: u64) {
    while groups.next_deadline() <= at_ms {
        let at = now(groups.next_deadline());
        for effect in groups.on_time(at) {
            if let Effect::Persist { on_done, .. } = effect {
                groups.persisted(at, on_done, Ok(()));
            }
        }
    }
}

#[test]
fn every_group_keeps_its_own_time() {
    let config = GroupsConfig { initial_rebalance_delay_ms: 100, ..GroupsConfig::default() };
    let mut groups = Groups::new(config, now(0));
    for index in 0..GROUPS {
        assert_eq!(join(&mut groups, 0, index, 10_000 + index), []);
    }
    pass_time(&mut groups, 100);
    // Each session began at 100 and ends at its own time.
    for index in 0..GROUPS {
        assert_eq!(state(&groups, index), Some(State::CompletingRebalance));
        let end_ms = 10_100 + u64::try_from(index).expect("positive");
        pass_time(&mut groups, end_ms - 1);
        assert_ne!(state(&groups, index), Some(State::Empty), "group {index} ended early");
        pass_time(&mut groups, end_ms);
        assert_eq!(state(&groups, index), Some(State::Empty), "group {index} ended late");
    }
    let listed = groups.list(&["empty"], &[]);
    assert_eq!(listed.len(), usize::try_from(GROUPS).expect("positive"));
    pass_time(&mut groups, 1_000_000);
    assert_eq!((groups.list(&[], &[]).len(), groups.bytes()), (0, 0));
}

#[test]
fn unloading_some_groups_leaves_the_others_waiting() {
    let mut groups = Groups::new(GroupsConfig::default(), now(0));
    for index in 0..10 {
        join(&mut groups, 0, index, 10_000);
    }
    let effects = groups.unload(|group| group < "group-5");
    let told: Vec<u64> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Reply { waiter, .. } => waiter.0,
            Effect::Persist { .. } => panic!("unloading writes nothing"),
        })
        .collect();
    assert_eq!(told, [0, 1, 2, 3, 4]);
    assert_eq!((groups.parked_count(), groups.list(&[], &[]).len()), (5, 5));
}

#[test]
fn a_commit_for_a_group_without_memory_is_refused() {
    let mut groups = Groups::new(GroupsConfig { bytes_max: 10, ..GroupsConfig::default() }, now(0));
    let partition = |index, refused| CommitPartition {
        index,
        refused,
        offset: 1,
        leader_epoch: -1,
        metadata: "",
        timestamp_ms: None,
    };
    let known = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    let request = CommitRequest {
        version: 8,
        member: MemberRequest { group_id: "g", member_id: "", instance_id: None, generation: -1 },
        retention_ms: None,
        topics: vec![CommitTopic {
            name: "t",
            topic_id: Uuid::ZERO,
            partitions: vec![partition(0, ErrorCode::NONE), partition(1, known)],
        }],
    };
    let effects = groups.commit(now(0), WaiterId(1), &request);
    let [Effect::Reply { answer: millrace_coordinator::Answer::Commit(answer), .. }] = &effects[..]
    else {
        panic!("one reply, not {effects:?}");
    };
    // What the caller had refused keeps its own code.
    let codes = [(0, ErrorCode::INVALID_COMMIT_OFFSET_SIZE), (1, known)];
    assert_eq!(answer.topics[0].partitions, codes);
    assert_eq!((groups.fetch("g"), groups.parked_count()), (None, 0));
}
