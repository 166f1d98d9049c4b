//! Groups, scenario by scenario: time, action, and everything that happens.

use millrace_coordinator::GroupsConfig;

use crate::world::{config, play};

/// Without the delay of a first generation, so that scenarios come to their point sooner.
fn at_once() -> GroupsConfig {
    GroupsConfig { initial_rebalance_delay_ms: 0, ..config() }
}

/// Rows that make `a` and `b` a stable group of generation 2, led by `a`, at 100 ms.
const STABLE: &[(u64, &str, &str)] = &[
    (0, "a join", ""),
    (1, "time", "a joined 1 range as a#1 leads [a#1]"),
    (2, "a sync a=X", "writes group; a synced X"),
    (3, "b join", ""),
    (4, "a heartbeat", "REBALANCE_IN_PROGRESS"),
    (5, "a join", "a joined 2 range as a#1 leads [a#1 b#2]; b joined 2 range as b#2 follows"),
    (6, "b sync", ""),
    (7, "a sync a=X b=Y", "writes group; a synced X; b synced Y"),
];

fn play_stable(rows: &[(u64, &str, &str)]) {
    play(at_once(), &[STABLE, rows].concat());
}

#[test]
fn first_generation_waits_for_more_members() {
    play(
        config(),
        &[
            (0, "a join", ""),
            (900, "b join", ""),
            // b extended the delay by another second; nobody came in it.
            (1_999, "time", ""),
            (
                2_000,
                "time",
                "a joined 1 range as a#1 leads [a#1 b#2]; b joined 1 range as b#2 follows",
            ),
            (2_100, "b sync", ""),
            (2_200, "b heartbeat", "NONE"),
            (2_300, "a sync a=X b=Y", "writes group; a synced X; b synced Y"),
            (2_400, "describe", "Stable consumer range a#1=X b#2=Y"),
            (2_500, "b sync", "b synced Y"),
        ],
    );
}

#[test]
fn delay_ends_with_the_rebalance_timeout() {
    let config = GroupsConfig { initial_rebalance_delay_ms: 3_000, ..config() };
    play(
        config,
        &[
            (0, "a join rebalance=7000", ""),
            (2_000, "b join rebalance=7000", ""),
            (5_000, "c join rebalance=7000", ""),
            (6_500, "d join rebalance=7000", ""),
            (6_999, "time", ""),
            (
                7_000,
                "time",
                "a joined 1 range as a#1 leads [a#1 b#2 c#3 d#4]; \
                 b joined 1 range as b#2 follows; c joined 1 range as c#3 follows; \
                 d joined 1 range as d#4 follows",
            ),
        ],
    );
}

#[test]
fn version_4_demands_a_known_member_id() {
    play(
        at_once(),
        &[
            (0, "a join v=4", "a join MEMBER_ID_REQUIRED"),
            (1, "describe", "Empty"),
            (2, "a join v=4", ""),
            (3, "time", "a joined 1 range as a#1 leads [a#1]"),
            (4, "a sync a=X", "writes group; a synced X"),
            (10, "b join v=5", "b join MEMBER_ID_REQUIRED"),
            // A pending member is waited for, until its session ends.
            (20, "a join", ""),
            (9_000, "a heartbeat", "REBALANCE_IN_PROGRESS"),
            (10_010, "time", "a joined 2 range as a#1 leads [a#1]"),
            (10_020, "b join v=5", "b join UNKNOWN_MEMBER_ID"),
            // One that says good-bye is not waited for.
            (10_030, "a sync a=X", "writes group; a synced X"),
            (10_040, "c join v=5", "c join MEMBER_ID_REQUIRED"),
            (10_050, "a join", ""),
            (10_060, "c leave", "NONE; a joined 3 range as a#1 leads [a#1]"),
        ],
    );
}

#[test]
fn joins_are_checked() {
    let config = GroupsConfig { members_max: 1, ..at_once() };
    play(
        config,
        &[
            (0, "a join session=5999", "a join INVALID_SESSION_TIMEOUT"),
            (0, "a join session=1800001", "a join INVALID_SESSION_TIMEOUT"),
            (0, "a join type=", "a join INCONSISTENT_GROUP_PROTOCOL"),
            (0, "a join protocols=", "a join INCONSISTENT_GROUP_PROTOCOL"),
            (0, "a join", ""),
            (1, "time", "a joined 1 range as a#5 leads [a#5]"),
            (2, "b join type=connect", "b join GROUP_MAX_SIZE_REACHED"),
            (3, "a join type=connect", "a join INCONSISTENT_GROUP_PROTOCOL"),
            (4, "a join protocols=rr:m", "a join INCONSISTENT_GROUP_PROTOCOL"),
            (5, "a leave", "NONE; writes group"),
            (6, "describe", "Empty consumer"),
            // An empty group takes any type.
            (7, "b join type=connect protocols=v1:x", ""),
            (8, "time", "b joined 3 v1 as b#9 leads [b#9]"),
            (9, "a join id=new type=consumer", "a join GROUP_MAX_SIZE_REACHED"),
        ],
    );
}

#[test]
fn unknown_members_and_wrong_generations_are_told() {
    play_stable(&[
        (10, "x heartbeat", "UNKNOWN_MEMBER_ID"),
        (10, "x sync", "x sync UNKNOWN_MEMBER_ID"),
        (10, "x leave", "UNKNOWN_MEMBER_ID"),
        (10, "b heartbeat gen=1", "ILLEGAL_GENERATION"),
        (10, "b sync gen=3", "b sync ILLEGAL_GENERATION"),
        (10, "b sync type=connect", "b sync INCONSISTENT_GROUP_PROTOCOL"),
        (10, "b sync protocol=rr", "b sync INCONSISTENT_GROUP_PROTOCOL"),
        (10, "b sync type=consumer protocol=range", "b synced Y"),
    ]);
}

#[test]
fn silence_ends_a_session() {
    play_stable(&[
        (9_000, "a heartbeat", "NONE"),
        // b was last heard of when it got its assignment, at 7.
        (10_006, "time", ""),
        (10_007, "time", ""),
        (10_008, "describe", "PreparingRebalance consumer a#1=X"),
        (10_009, "a join", "a joined 3 range as a#1 leads [a#1]"),
        (10_010, "b heartbeat", "UNKNOWN_MEMBER_ID"),
    ]);
}

#[test]
fn commits_keep_a_session_alive() {
    play_stable(&[
        (9_000, "a heartbeat", "NONE"),
        (9_000, "b commit t-0=1", "writes t-0; b commit t-0"),
        (18_999, "a heartbeat", "NONE"),
        (18_999, "describe", "Stable consumer range a#1=X b#2=Y"),
        (19_000, "describe", "PreparingRebalance consumer a#1=X"),
    ]);
}

#[test]
fn members_that_do_not_rejoin_in_time_are_dropped() {
    play_stable(&[
        (10, "c join rebalance=3000", ""),
        (20, "a join rebalance=3000", ""),
        (20, "b heartbeat", "REBALANCE_IN_PROGRESS"),
        // The slowest timeout counts: b still has 60 s, but its session ends without heartbeats.
        (9_000, "b heartbeat", "REBALANCE_IN_PROGRESS"),
        (18_000, "b heartbeat", "REBALANCE_IN_PROGRESS"),
        (27_000, "b heartbeat", "REBALANCE_IN_PROGRESS"),
        (36_000, "b heartbeat", "REBALANCE_IN_PROGRESS"),
        (45_000, "b heartbeat", "REBALANCE_IN_PROGRESS"),
        (54_000, "b heartbeat", "REBALANCE_IN_PROGRESS"),
        (60_009, "time", ""),
        (
            60_010,
            "time",
            "a joined 3 range as a#1 leads [a#1 c#4]; c joined 3 range as c#4 follows",
        ),
        (60_011, "b heartbeat", "UNKNOWN_MEMBER_ID"),
    ]);
}

#[test]
fn another_member_leads_when_the_leader_is_late_or_leaves() {
    play_stable(&[
        (10, "b join protocols=range:n rebalance=7000", ""),
        (11, "a leave", "NONE; b joined 3 range as b#2 leads [b#2]"),
        (12, "b sync b=Z", "writes group; b synced Z"),
        (13, "c join rebalance=7000", ""),
        (7_013, "time", "c joined 4 range as c#5 leads [c#5]"),
    ]);
}

#[test]
fn rejoining_unchanged_tells_a_follower_the_generation_again() {
    play_stable(&[
        (10, "b join", "b joined 2 range as b#2 follows"),
        (11, "b sync", "b synced Y"),
        (12, "b join protocols=range:other", ""),
        (13, "describe", "PreparingRebalance consumer a#1=X b#2=Y"),
        (14, "a join", "a joined 3 range as a#1 leads [a#1 b#2]; b joined 3 range as b#2 follows"),
        // Both missed their answers.
        (15, "a join", "a joined 3 range as a#1 leads [a#1 b#2]"),
        (15, "b join protocols=range:other", "b joined 3 range as b#2 follows"),
        (16, "b sync", ""),
        (17, "a sync a=P b=Q", "writes group; a synced P; b synced Q"),
        // The leader asks for a rebalance by joining again.
        (18, "a join", ""),
        (19, "b heartbeat", "REBALANCE_IN_PROGRESS"),
        (19, "b sync", "b sync REBALANCE_IN_PROGRESS"),
    ]);
}

#[test]
fn a_change_while_assigning_starts_over() {
    play_stable(&[
        (10, "a join", ""),
        (11, "b join", "a joined 3 range as a#1 leads [a#1 b#2]; b joined 3 range as b#2 follows"),
        (12, "b sync", ""),
        (13, "c join", "b sync REBALANCE_IN_PROGRESS"),
        (14, "a sync a=P", "a sync REBALANCE_IN_PROGRESS"),
        (15, "b join", ""),
        (
            16,
            "a join",
            "a joined 4 range as a#1 leads [a#1 b#2 c#6]; b joined 4 range as b#2 follows; \
             c joined 4 range as c#6 follows",
        ),
    ]);
}

#[test]
fn members_that_do_not_sync_are_removed() {
    play(
        at_once(),
        &[
            (0, "a join rebalance=2000", ""),
            (0, "b join rebalance=2000", ""),
            (2, "time", "a joined 1 range as a#1 leads [a#1 b#2]; b joined 1 range as b#2 follows"),
            (3, "b sync", ""),
            (2_002, "time", "b sync REBALANCE_IN_PROGRESS"),
            (2_003, "describe", "PreparingRebalance consumer b#2="),
            (2_004, "b join", "b joined 2 range as b#2 leads [b#2]"),
        ],
    );
}

#[test]
fn the_protocol_most_members_prefer_is_chosen_among_the_common_ones() {
    play(
        config(),
        &[
            (0, "a join protocols=sticky:m,range:m,rr:m", ""),
            (1, "b join protocols=rr:m,range:m", ""),
            (2, "c join protocols=rr:m,range:m", ""),
            (3, "d join protocols=sticky:m", "d join INCONSISTENT_GROUP_PROTOCOL"),
            (
                2_000,
                "time",
                "a joined 1 rr as a#1 leads [a#1 b#2 c#3]; b joined 1 rr as b#2 follows; \
                 c joined 1 rr as c#3 follows",
            ),
        ],
    );
}

#[test]
fn an_assignment_is_given_out_when_it_is_written() {
    play_stable(&[
        (10, "a join", ""),
        (11, "b join", "a joined 3 range as a#1 leads [a#1 b#2]; b joined 3 range as b#2 follows"),
        (11, "hold", ""),
        (12, "a sync a=P", "writes group"),
        (13, "b sync", ""),
        (14, "describe", "CompletingRebalance consumer a#1=X b#2=Y"),
        (15, "written", "a synced P; b synced "),
        (16, "describe", "Stable consumer range a#1=P b#2="),
        // A failed write starts the round again.
        (20, "a join", ""),
        (21, "b join", "a joined 4 range as a#1 leads [a#1 b#2]; b joined 4 range as b#2 follows"),
        (22, "b sync", ""),
        (23, "a sync a=P b=Q", "writes group"),
        (24, "failed 56", "a sync NOT_COORDINATOR; b sync NOT_COORDINATOR"),
        (25, "describe", "PreparingRebalance consumer a#1= b#2="),
        // An assignment of a round that is over has no effect.
        (30, "a join", ""),
        (31, "b join", "a joined 5 range as a#1 leads [a#1 b#2]; b joined 5 range as b#2 follows"),
        (32, "a sync a=P b=Q", "writes group"),
        (33, "c join", "a sync REBALANCE_IN_PROGRESS"),
        (34, "written", ""),
        (35, "describe", "PreparingRebalance consumer a#1= b#2= c#a="),
    ]);
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    play(
        at_once(),
        &[
            (0, "a join instance=i protocols=range:m,rr:m", ""),
            (0, "b join protocols=range:m,rr:m", ""),
            (2, "time", "b joined 1 range as b#2 follows; a joined 1 range as i#1 leads [b#2 i#1]"),
            (3, "b sync", ""),
            (4, "a sync a=X b=Y", "writes group; b synced Y; a synced X"),
            // Version 9 may be told that it leads and has nothing to assign.
            (
                10,
                "a join v=9 id=new instance=i protocols=range:m,rr:m",
                "writes group; a joined 1 range as i#3 leads skip [b#2 i#3]",
            ),
            (11, "a sync", "a synced X"),
            // Older versions must not know that they lead.
            (
                20,
                "a join v=5 id=new instance=i protocols=range:m,rr:m",
                "writes group; a joined 1 range as i#4 follows",
            ),
            (21, "a sync", "a synced X"),
            (22, "describe", "Stable consumer range b#2=Y i#4=X"),
            (23, "b heartbeat", "NONE"),
            // With what it offers now, the generation would have another protocol: a rebalance.
            (30, "a join v=5 id=new instance=i protocols=rr:m", ""),
            (
                31,
                "b join protocols=range:m,rr:m",
                "b joined 2 rr as b#2 follows; a joined 2 rr as i#5 leads [b#2 i#5]",
            ),
            (32, "b sync", ""),
            (33, "a sync a=P b=Q", "writes group; b synced Q; a synced P"),
            // Without heartbeats it is kept until its session ends, also through a rebalance.
            (40, "b join protocols=rr:x rebalance=1000 session=30000", ""),
            (9_000, "b heartbeat", "REBALANCE_IN_PROGRESS"),
            (10_032, "describe", "PreparingRebalance consumer b#2=Q i#5=P"),
            (10_033, "time", "b joined 3 rr as b#2 leads [b#2]"),
        ],
    );
}

#[test]
fn the_second_of_two_static_members_of_one_name_fences_the_first() {
    play(
        at_once(),
        &[
            (0, "a join instance=i", ""),
            (0, "b join instance=i", "a join FENCED_INSTANCE_ID"),
            (2, "time", "b joined 1 range as i#2 leads [i#2]"),
            (3, "hold", ""),
            (4, "b sync b=X", "writes group"),
            (
                5,
                "c join instance=i",
                "b sync FENCED_INSTANCE_ID; c joined 2 range as i#3 leads [i#3]",
            ),
            (6, "written", ""),
            (7, "b heartbeat", "FENCED_INSTANCE_ID"),
            (7, "b join instance=i", "b join FENCED_INSTANCE_ID"),
            (7, "b sync", "b sync FENCED_INSTANCE_ID"),
            (7, "b commit t-0=1", "b commit t-0=FENCED_INSTANCE_ID"),
            (7, "b leave", "FENCED_INSTANCE_ID"),
            (8, "c sync c=Y", "writes group"),
            (9, "written", "c synced Y"),
            // Writing the new id fails: the old one is back.
            (10, "d join instance=i id=new", "writes group"),
            (11, "failed 56", "d join NOT_COORDINATOR"),
            (12, "c heartbeat", "NONE"),
            // An administrator removes it by name.
            (13, "- leave instance=other", "UNKNOWN_MEMBER_ID"),
            (14, "- leave instance=i", "NONE; writes group"),
            (15, "describe", "Empty consumer"),
        ],
    );
}

#[test]
fn lost_connections_only_lose_their_answers() {
    play(
        at_once(),
        &[
            (0, "a join session=6000", ""),
            (0, "b join session=6000", ""),
            (1, "b cancel", ""),
            (2, "time", "a joined 1 range as a#1 leads [a#1 b#2]"),
            (3, "a sync a=X", "writes group; a synced X"),
            (4_000, "a heartbeat", "NONE"),
            // b has the session of a member that was heard of when the generation began.
            (6_002, "describe", "PreparingRebalance consumer a#1=X"),
            (6_003, "a join session=6000", "a joined 2 range as a#1 leads [a#1]"),
            (6_004, "hold", ""),
            (6_005, "a sync a=X", "writes group"),
            (6_006, "a cancel", ""),
            (6_007, "written", ""),
            (6_008, "describe", "Stable consumer range a#1=X"),
            (6_009, "a commit t-0=3", "writes t-0"),
            (6_010, "a cancel", ""),
            (6_011, "written", ""),
            (6_012, "fetch t-0", "3"),
        ],
    );
}

#[test]
fn a_parked_new_member_that_is_cut_off_is_gone_after_its_session() {
    play_stable(&[
        (10, "c join session=6000", ""),
        (20, "c cancel", ""),
        (5_000, "a heartbeat", "REBALANCE_IN_PROGRESS"),
        (5_000, "b heartbeat", "REBALANCE_IN_PROGRESS"),
        (6_020, "describe", "PreparingRebalance consumer a#1=X b#2=Y"),
    ]);
}

#[test]
fn a_second_request_of_one_member_takes_the_place_of_the_first() {
    play_stable(&[
        (10, "a join", ""),
        (11, "a join", "a join REBALANCE_IN_PROGRESS"),
        (12, "b join", "a joined 3 range as a#1 leads [a#1 b#2]; b joined 3 range as b#2 follows"),
        (13, "b sync", ""),
        (14, "b sync", "b sync REBALANCE_IN_PROGRESS"),
        (15, "a sync b=Z", "writes group; a synced ; b synced Z"),
    ]);
}

#[test]
fn leaving_while_a_request_is_parked_answers_it() {
    play_stable(&[
        (10, "a join", ""),
        (11, "b join", "a joined 3 range as a#1 leads [a#1 b#2]; b joined 3 range as b#2 follows"),
        (12, "b sync", ""),
        (13, "b leave", "NONE; b sync UNKNOWN_MEMBER_ID"),
        (14, "a join", "a joined 4 range as a#1 leads [a#1]"),
        (15, "b join id=new", ""),
        (16, "b leave", "UNKNOWN_MEMBER_ID"),
    ]);
}

#[test]
fn unloading_tells_everyone_who_waits() {
    play_stable(&[
        (10, "hold", ""),
        (11, "a commit t-0=1", "writes t-0"),
        (12, "c join", ""),
        (13, "unload", "a commit t-0=NOT_COORDINATOR; c join NOT_COORDINATOR"),
        (14, "written", ""),
        (15, "describe", "Dead"),
    ]);
}
