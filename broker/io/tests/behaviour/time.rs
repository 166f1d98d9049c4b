//! Rows about waiting, waking and chance.

use millrace_io::{Event, Io};

use crate::place::*;

pub(crate) fn a_deadline_ends_the_wait<P: Place>(place: &P) {
    let mut io = place.io();
    let start = io.now();
    let end = start.plus_ms(30);
    while io.now() < end {
        io.wait(Some(end)).unwrap();
        assert!(io.next_event().is_none());
    }
    assert!(io.now().ms_since(start) >= 30);
    // A deadline in the past does not wait.
    io.wait(Some(start)).unwrap();
    assert!(io.next_event().is_none());
}

pub(crate) fn a_wake_up_is_seen_once<P: Place>(place: &P) {
    let mut io = place.io();
    for _ in 0..3 {
        let waker = io.waker();
        std::thread::spawn(move || waker.wake()).join().unwrap();
        until(&mut io, |event| matches!(event, Event::Woken).then_some(()));
        assert_eq!(events_within(&mut io, 5), [""; 0]);
    }
}

pub(crate) fn a_wake_up_before_the_wait_is_not_lost<P: Place>(place: &P) {
    let mut io = place.io();
    for _ in 0..5 {
        io.waker().wake();
    }
    io.wait(None).unwrap();
    assert!(matches!(io.next_event(), Some(Event::Woken)));
    assert!(io.next_event().is_none());
}

pub(crate) fn random_numbers_differ<P: Place>(place: &P) {
    let (mut first, mut second) = (place.io(), place.io());
    let mut numbers: Vec<u64> = (0..50).map(|_| first.random_u64()).collect();
    numbers.extend((0..50).map(|_| second.random_u64()));
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 100);
}
