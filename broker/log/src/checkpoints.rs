//! Kafka's checkpoint files of a data folder: an offset for each partition, as text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;

use millrace_io::Io;

/// Records below are durable.
pub const RECOVERY_POINT: &str = "recovery-point-offset-checkpoint";
/// Where each log starts, when records were deleted below its first segment's end.
pub const LOG_START: &str = "log-start-offset-checkpoint";
/// What is below was cleaned, in compacted logs.
pub const CLEANED: &str = "cleaner-offset-checkpoint";
/// High watermarks: a hint.
pub const HIGH_WATERMARK: &str = "replication-offset-checkpoint";

/// Offsets by topic and partition.
pub type Checkpoint = BTreeMap<(String, i32), i64>;

/// Reads a checkpoint of the data folder; empty when it is missing. A damaged one is an error of
/// kind `InvalidData`.
pub fn read_checkpoint<I: Io>(io: &mut I, data_dir: &Path, name: &str) -> io::Result<Checkpoint> {
    let bytes = match io.read_file(&data_dir.join(name)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Checkpoint::new()),
        Err(error) => return Err(error),
    };
    let parsed = std::str::from_utf8(&bytes).ok().and_then(parse);
    parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a damaged checkpoint"))
}

/// Replaces a checkpoint of the data folder, durably.
pub fn write_checkpoint<'a, I: Io>(
    io: &mut I,
    data_dir: &Path,
    name: &str,
    entries: impl ExactSizeIterator<Item = (&'a str, i32, i64)>,
) -> io::Result<()> {
    let mut text = format!("0\n{}\n", entries.len());
    for (topic, partition, offset) in entries {
        writeln!(text, "{topic} {partition} {offset}").expect("a string takes everything");
    }
    io.replace_file(&data_dir.join(name), text.as_bytes())
}

fn parse(text: &str) -> Option<Checkpoint> {
    let mut lines = text.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let mut entries = Checkpoint::new();
    for line in lines {
        let mut words = line.split(' ');
        let topic = words.next()?.to_owned();
        let partition = words.next()?.parse().ok()?;
        entries.insert((topic, partition), words.next()?.parse().ok()?);
        if words.next().is_some() {
            return None;
        }
    }
    (entries.len() == count).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kafkas_and_damage_is_noticed() {
        let entries = parse("0\n2\norders 0 17\na.b 12 0\n").expect("whole");
        assert_eq!(entries[&("orders".to_owned(), 0)], 17);
        assert_eq!(entries[&("a.b".to_owned(), 12)], 0);
        assert_eq!(parse("0\n0\n"), Some(Checkpoint::new()));
        for text in ["", "1\n0\n", "0\n2\na 0 1\n", "0\n1\na 0\n", "0\n1\na 0 1 2\n", "0\nx\n"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
