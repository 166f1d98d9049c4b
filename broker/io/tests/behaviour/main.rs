//! What every `Io` must do: the same rows against the simulated world and against Linux.

#![allow(clippy::unwrap_used, reason = "a failed step of a row is a failed test")]

mod files;
mod place;
mod sockets;
mod time;

use place::{Linux, Place, Simulated};

/// One module of tests per implementation, with one test per row.
macro_rules! rows {
    ($($area:ident: $($row:ident)+;)+) => {
        mod simulated {
            $(mod $area { $(
                #[test]
                fn $row() { crate::$area::$row(&<crate::Simulated as crate::Place>::new()); }
            )+ })+
        }
        mod linux {
            $(mod $area { $(
                #[test]
                fn $row() { crate::$area::$row(&<crate::Linux as crate::Place>::new()); }
            )+ })+
        }
    };
}

rows! {
    sockets:
        a_new_connection_is_accepted_with_its_address
        bytes_that_came_before_adoption_are_reported
        each_arrival_is_reported
        a_short_read_before_the_end_is_followed_by_an_event
        bytes_are_received_whole_or_not_at_all
        the_end_alone_is_reported
        a_full_connection_says_so_and_becomes_writable
        slices_are_sent_in_order
        a_file_range_is_sent_from_the_middle
        a_closed_socket_ends_the_client_and_raises_no_event
        a_connection_nobody_adopts_is_closed
        a_connection_may_go_to_another_shard
        many_connections_are_served_side_by_side
        a_client_that_left_is_an_error_to_send_to
        a_closed_listener_refuses
        a_port_in_use_is_refused;
    files:
        written_blocks_are_read_back
        direct_and_cached_writes_of_a_file_follow_each_other
        many_writes_each_complete_once
        allocated_space_reads_as_zeros
        fetched_pages_are_cached
        all_is_flushed_at_once
        reads_stop_at_the_end_of_the_file
        a_missing_file_is_not_made_by_reading
        a_replaced_file_has_its_new_content
        names_are_made_listed_renamed_and_removed
        a_file_open_elsewhere_can_be_read_there
        an_io_may_be_dropped_with_operations_on_their_way;
    time:
        a_deadline_ends_the_wait
        a_wake_up_is_seen_once
        a_wake_up_before_the_wait_is_not_lost
        random_numbers_differ;
}

#[test]
fn places_do_not_share_folders() {
    assert_ne!(Linux::new().dir(), Linux::new().dir());
    assert_eq!(Simulated::new().dir(), Simulated::new().dir());
}
