//! Committed offsets: who may commit, what is kept, what goes.

use millrace_coordinator::GroupsConfig;

use crate::world::{config, play};

fn at_once() -> GroupsConfig {
    GroupsConfig { initial_rebalance_delay_ms: 0, ..config() }
}

/// Offsets live for a minute and are looked at every ten seconds.
fn short_retention() -> GroupsConfig {
    GroupsConfig { offsets_retention_ms: 60_000, retention_check_interval_ms: 10_000, ..at_once() }
}

#[test]
fn who_may_commit_depends_on_the_state() {
    play(
        at_once(),
        &[
            // No group yet: only a commit that claims nothing makes one.
            (0, "a commit t-0=1 gen=0", "a commit t-0=ILLEGAL_GENERATION"),
            (0, "a commit t-0=1 gen=0 v=9", "a commit t-0=GROUP_ID_NOT_FOUND"),
            (0, "describe", "Dead"),
            (0, "- commit t-0=1", "writes t-0; - commit t-0"),
            (0, "describe", "Empty"),
            (0, "a commit t-0=1 gen=0", "a commit t-0=UNKNOWN_MEMBER_ID"),
            // PreparingRebalance.
            (1, "a join", ""),
            (1, "- commit t-0=2", "- commit t-0=UNKNOWN_MEMBER_ID"),
            // CompletingRebalance.
            (2, "time", "a joined 1 range as a#1 leads [a#1]"),
            (3, "a commit t-0=2", "a commit t-0=REBALANCE_IN_PROGRESS"),
            (3, "a commit t-0=2 gen=0", "a commit t-0=ILLEGAL_GENERATION"),
            // Stable.
            (4, "a sync a=X", "writes group; a synced X"),
            (5, "a commit t-0=2 u-3=4", "writes t-0 u-3; a commit t-0 u-3"),
            (5, "a commit t-0=9 gen=0", "a commit t-0=ILLEGAL_GENERATION"),
            (5, "- commit t-0=9", "- commit t-0=UNKNOWN_MEMBER_ID"),
            // PreparingRebalance with the generation still current: what was read may be committed.
            (6, "b join", ""),
            (7, "a commit t-0=5", "writes t-0; a commit t-0"),
            (8, "fetch t-0", "5"),
            (8, "fetch u-3", "4"),
            (8, "fetch u-4", "-1"),
        ],
    );
}

#[test]
fn offsets_show_up_when_they_are_written() {
    play(
        at_once(),
        &[
            (0, "hold", ""),
            (1, "- commit t-0=1", "writes t-0"),
            (2, "fetch t-0", "-1"),
            (3, "- commit t-0=2", "writes t-0"),
            (4, "written", "- commit t-0"),
            (5, "fetch t-0", "1"),
            (6, "failed 56", "- commit t-0=NOT_COORDINATOR"),
            (7, "fetch t-0", "1"),
            (8, "- commit t-0=3", "writes t-0"),
            (9, "failed 10", "- commit t-0=INVALID_COMMIT_OFFSET_SIZE"),
        ],
    );
}

#[test]
fn metadata_has_a_limit_in_utf16_units() {
    let config = GroupsConfig { offset_metadata_max: 4, ..at_once() };
    play(
        config,
        &[
            (0, "- commit t-0=1 meta=abcd", "writes t-0; - commit t-0"),
            (1, "fetch t-0", "1abcd"),
            (2, "- commit t-0=2 meta=abcde", "- commit t-0=OFFSET_METADATA_TOO_LARGE"),
            (3, "- commit t-0=3 meta=äöüß", "writes t-0; - commit t-0"),
            (4, "- commit t-0=4 meta=😀😀", "writes t-0; - commit t-0"),
            (5, "- commit t-0=5 meta=😀😀x", "- commit t-0=OFFSET_METADATA_TOO_LARGE"),
        ],
    );
}

#[test]
fn offsets_expire_after_the_last_member_left() {
    play(
        short_retention(),
        &[
            (0, "a join protocols=range:t", ""),
            (1, "time", "a joined 1 range as a#1 leads [a#1]"),
            (2, "a sync a=X", "writes group; a synced X"),
            (3, "a commit t-0=5 u-0=6", "writes t-0 u-0; a commit t-0 u-0"),
            (8_000, "a heartbeat", "NONE"),
            (16_000, "a heartbeat", "NONE"),
            (24_000, "a heartbeat", "NONE"),
            (32_000, "a heartbeat", "NONE"),
            (40_000, "a heartbeat", "NONE"),
            (48_000, "a heartbeat", "NONE"),
            (56_000, "a heartbeat", "NONE"),
            (64_000, "a heartbeat", "NONE"),
            // u is not read by anyone any more: it goes a minute after its commit.
            (70_000, "fetch u-0", "writes -u-0; -1"),
            (70_001, "a heartbeat", "NONE"),
            (75_000, "a leave", "NONE; writes group"),
            (134_999, "fetch t-0", "5"),
            (140_000, "time", "writes -t-0 -group"),
            (140_001, "describe", "Dead"),
        ],
    );
}

#[test]
fn offsets_of_a_simple_group_expire_after_their_commit() {
    play(
        short_retention(),
        &[
            (0, "- commit t-0=1", "writes t-0; - commit t-0"),
            (30_000, "- commit t-1=1", "writes t-1; - commit t-1"),
            (31_000, "- commit t-2=1 retention=9000", "writes t-2; - commit t-2"),
            (39_999, "time", ""),
            (40_000, "time", "writes -t-2"),
            (60_000, "time", "writes -t-0"),
            (90_000, "time", "writes -t-1 -group"),
            (90_001, "list", ""),
        ],
    );
}

#[test]
fn offsets_of_other_protocol_types_stay_while_there_are_members() {
    play(
        short_retention(),
        &[
            (0, "a join type=connect session=600000", ""),
            (1, "time", "a joined 1 range as a#1 leads [a#1]"),
            (2, "a sync a=X", "writes group; a synced X"),
            (3, "a commit t-0=5", "writes t-0; a commit t-0"),
            (300_000, "fetch t-0", "5"),
        ],
    );
}

#[test]
fn a_group_that_nobody_completed_leaves_without_a_trace() {
    play(
        short_retention(),
        &[
            (0, "a join v=5", "a join MEMBER_ID_REQUIRED"),
            (1, "list", "g:Empty"),
            (10_000, "list", ""),
        ],
    );
}

#[test]
fn groups_are_deleted_when_they_are_empty() {
    play(
        at_once(),
        &[
            (0, "delete", "delete GROUP_ID_NOT_FOUND"),
            (0, "- commit t-0=1 u-0=2", "writes t-0 u-0; - commit t-0 u-0"),
            (0, "list", "g:Empty"),
            (0, "list states=empty types=Classic", "g:Empty"),
            (0, "list states=stable,dead", ""),
            (0, "list types=consumer", ""),
            (1, "a join", ""),
            (2, "time", "a joined 1 range as a#1 leads [a#1]"),
            (3, "delete", "delete NON_EMPTY_GROUP"),
            (4, "a leave", "NONE; writes group"),
            (5, "delete", "writes -t-0 -u-0 -group; delete NONE"),
            (6, "describe", "Dead"),
            (6, "fetch t-0", "-1"),
            (7, "restart", ""),
            (8, "describe", "Dead"),
        ],
    );
}

#[test]
fn deletion_reaches_commits_that_are_being_written() {
    play(
        at_once(),
        &[
            (0, "hold", ""),
            (1, "- commit t-0=1", "writes t-0"),
            (2, "delete", "writes -t-0 -group"),
            (3, "written", "- commit t-0"),
            (4, "- commit u-0=1", "writes u-0"),
            (5, "written", "delete NONE"),
            (6, "fetch t-0", "-1"),
            (7, "written", "- commit u-0"),
            (8, "fetch u-0", "1"),
            (9, "delete", "writes -u-0 -group"),
            (10, "failed 56", "delete NOT_COORDINATOR"),
            (11, "fetch u-0", "1"),
        ],
    );
}

#[test]
fn offsets_of_topics_in_use_are_not_deleted() {
    play(
        at_once(),
        &[
            (0, "deleteoffsets t-0", "deleteoffsets GROUP_ID_NOT_FOUND"),
            (0, "- commit t-0=1 u-0=2", "writes t-0 u-0; - commit t-0 u-0"),
            (0, "a join protocols=range:t", ""),
            (1, "time", "a joined 1 range as a#1 leads [a#1]"),
            (2, "a sync a=X", "writes group; a synced X"),
            (
                3,
                "deleteoffsets t-0 u-0 u-9",
                "writes -u-0; deleteoffsets t-0=GROUP_SUBSCRIBED_TO_TOPIC u-0 u-9",
            ),
            (4, "fetch t-0", "1"),
            (4, "fetch u-0", "-1"),
            // Metadata that is no subscription may read anything.
            (5, "a join protocols=range:opaque", "a joined 2 range as a#1 leads [a#1]"),
            (6, "a sync a=X", "writes group; a synced X"),
            (7, "deleteoffsets u-0", "deleteoffsets u-0=GROUP_SUBSCRIBED_TO_TOPIC"),
            (8, "a leave", "NONE; writes group"),
            (9, "b join type=connect", ""),
            (10, "time", "b joined 4 range as b#3 leads [b#3]"),
            (11, "deleteoffsets t-0", "deleteoffsets NON_EMPTY_GROUP"),
            (11, "droptopic t", "writes -t-0"),
            (12, "fetch t-0", "-1"),
        ],
    );
}

#[test]
fn a_restart_keeps_members_generation_and_offsets() {
    play(
        at_once(),
        &[
            (0, "a join instance=i", ""),
            (0, "b join", ""),
            (2, "time", "b joined 1 range as b#2 follows; a joined 1 range as i#1 leads [b#2 i#1]"),
            (3, "a sync a=X b=Y", "writes group; a synced X"),
            (4, "b commit t-0=5 meta=m", "writes t-0; b commit t-0"),
            (5, "- commit t-1=5", "- commit t-1=UNKNOWN_MEMBER_ID"),
            (6, "restart", ""),
            (7, "describe", "Stable consumer range b#2=Y i#1=X"),
            (8, "a heartbeat", "NONE"),
            (8, "b sync", "b synced Y"),
            (8, "b commit t-0=6 meta=n", "writes t-0; b commit t-0"),
            (9, "fetch t-0", "6n"),
            (10, "b leave", "NONE"),
            // What was not written is not there: the round begins again.
            (11, "restart", ""),
            (12, "describe", "Stable consumer range b#2=Y i#1=X"),
            // Sessions start anew.
            (10_010, "describe", "Stable consumer range b#2=Y i#1=X"),
            (10_011, "describe", "writes group; Empty consumer"),
            (10_012, "restart", ""),
            (10_013, "describe", "Empty consumer"),
        ],
    );
}

#[test]
fn memory_is_bounded_by_refusing_what_would_be_added() {
    // A group, a member, and a little.
    let config = GroupsConfig { bytes_max: 1_900, ..at_once() };
    play(
        config,
        &[
            (0, "a join", ""),
            (1, "time", "a joined 1 range as a#1 leads [a#1]"),
            (2, "a sync a=X", "writes group; a synced X"),
            (3, "b join", "b join GROUP_MAX_SIZE_REACHED"),
            (4, "a commit t-0=1", "writes t-0; a commit t-0"),
            (5, "a commit t-1=1", "a commit t-1=INVALID_COMMIT_OFFSET_SIZE"),
            (6, "a commit t-0=2", "writes t-0; a commit t-0"),
        ],
    );
}
