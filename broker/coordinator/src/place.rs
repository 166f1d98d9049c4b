//! Which partition of `__consumer_offsets` keeps a group.

/// The partition of `partitions` that keeps `group_id`: Java's `String.hashCode` over UTF-16 units,
/// made positive the way of Kafka's `Utils.abs` (the smallest integer becomes 0).
///
/// # Panics
/// If `partitions` is not positive.
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has partitions");
    let hash = group_id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.checked_abs().unwrap_or(0) % partitions
}

#[cfg(test)]
mod tests {
    use super::partition_for;

    /// Hashes are those of `"…".hashCode()` in a Java shell.
    #[test]
    fn places_groups_where_java_does() {
        for (group, partitions, expected) in [
            ("", 50, 0),
            ("a", 50, 97 % 50),
            ("my-group", 50, 12),
            ("console-consumer-12345", 50, 6),
            ("polygenelubricants", 50, 0),
            ("ünïcode-😀", 50, 30),
            ("my-group", 1, 0),
        ] {
            assert_eq!(partition_for(group, partitions), expected, "{group:?}");
        }
    }
}
