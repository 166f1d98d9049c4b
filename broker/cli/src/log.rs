//! `millrace log`: the files of a partition, read without a broker.

use crate::print::{Table, shown};
use crate::{Failure, Printer, Result};
use clap::Args;
use millrace_wire::batch::{Batch, BatchError, BatchHeader, HEADER_BYTES};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "Examples:
  millrace log millrace-data/orders-0
      the segments of a partition in a table
  millrace log millrace-data/orders-0/00000000000000000000.log
      its batches, one a line
  millrace log --files orders-0/00000000000000000000.log --print-data-log
      its records, with keys and values
  millrace log orders-0/00000000000000000000.index
      the entries of an index, each checked against the log

Checksums, offsets and index entries are checked; the exit status is 1 if something is wrong. What a
running broker has not written yet is not there to be seen.";

/// More than a batch may have.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// Print the segments, batches and indexes of a partition's folder (Kafka: kafka-dump-log).
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Log {
    /// Folders of partitions, and files in them: .log, .index, .timeindex.
    #[arg(value_name = "FOLDER|FILE", required_unless_present = "files")]
    paths: Vec<PathBuf>,
    /// The same with commas between them, as in Kafka's tool.
    #[arg(long, value_delimiter = ',', value_name = "FILE,...")]
    files: Vec<PathBuf>,
    /// Print records, not only batches.
    #[arg(long)]
    deep_iteration: bool,
    /// Print records with keys and values.
    #[arg(long)]
    print_data_log: bool,
    /// Stop in each file after so many bytes.
    #[arg(long)]
    max_bytes: Option<u64>,
    /// JSON for programs, one object a line.
    #[arg(long)]
    json: bool,
}

/// What was found in a `.log` file.
#[derive(Default)]
struct Sum {
    batches: u64,
    records: i64,
    last_offset: Option<i64>,
    max_timestamp: Option<i64>,
    bytes: u64,
    prepared: u64,
}

impl Log {
    pub(crate) fn run(&self, printer: &mut Printer<'_>) -> Result {
        let mut faults = Vec::new();
        for path in self.paths.iter().chain(&self.files) {
            let is_folder = fs::metadata(path).map_err(|source| in_file(path, source))?.is_dir();
            match is_folder && !self.deep_iteration && !self.print_data_log {
                true => self.summarise(path, printer, &mut faults)?,
                false if is_folder => {
                    for file in files_in(path, "log")? {
                        self.file(&file, printer, &mut faults)?;
                    }
                }
                false => self.file(path, printer, &mut faults)?,
            }
        }
        match &faults[..] {
            [] => Ok(()),
            faults => Err(Failure::Usage(format!("damaged:\n  {}", faults.join("\n  ")))),
        }
    }

    /// A table of the segments, everything being checked.
    fn summarise(
        &self,
        folder: &Path,
        printer: &mut Printer<'_>,
        faults: &mut Vec<String>,
    ) -> Result {
        let mut table = Table::new(&[
            "SEGMENT",
            "LAST-OFFSET",
            "BATCHES",
            "RECORDS",
            "BYTES",
            "PREPARED",
            "MAX-TIMESTAMP",
            "INDEX",
            "TIMEINDEX",
        ]);
        for path in files_in(folder, "log")? {
            let mut sum = Sum::default();
            self.each_batch(&path, faults, &mut |batch, position, _| {
                sum.add(batch.header(), position);
                Ok(())
            })
            .map(|prepared| sum.prepared = prepared)?;
            let mut count = |extension: &str| -> Result<usize> {
                let path = path.with_extension(extension);
                if path.exists() { Ok(entries(&path, faults)?.len()) } else { Ok(0) }
            };
            let (index, times) = (count("index")?, count("timeindex")?);
            table.row([
                json!(base_of(&path)?),
                json!(sum.last_offset),
                json!(sum.batches),
                json!(sum.records),
                json!(sum.bytes),
                json!(sum.prepared),
                json!(sum.max_timestamp),
                json!(index),
                json!(times),
            ]);
        }
        if table.is_empty() {
            return Err(Failure::Usage(format!("{}: no .log file is there", folder.display())));
        }
        Ok(printer.table(&table, self.json)?)
    }

    fn file(&self, path: &Path, printer: &mut Printer<'_>, faults: &mut Vec<String>) -> Result {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => {
                if !self.json {
                    printer.line(format_args!("Dumping {}", path.display()))?;
                }
                let prepared =
                    self.each_batch(path, faults, &mut |batch, position, is_valid| {
                        self.batch(batch, position, is_valid, printer)
                    })?;
                if prepared > 0 {
                    printer.note(format_args!("{prepared} bytes of prepared space follow"));
                }
                Ok(())
            }
            Some("index" | "timeindex") => {
                let is_time = path.extension().is_some_and(|extension| extension == "timeindex");
                for (first, second) in entries(path, faults)? {
                    let fields = match is_time {
                        true => [("timestamp", json!(first)), ("offset", json!(second))],
                        false => [("offset", json!(first)), ("position", json!(second))],
                    };
                    self.fields(&fields, printer)?;
                }
                Ok(())
            }
            _ => Err(Failure::Usage(format!(
                "{}: a partition's folder, or a .log, .index or .timeindex file in it",
                path.display()
            ))),
        }
    }

    /// Reads the batches of a file; the bytes of prepared space after the last one.
    fn each_batch(
        &self,
        path: &Path,
        faults: &mut Vec<String>,
        take: &mut dyn FnMut(&Batch<'_>, u64, bool) -> Result,
    ) -> Result<u64> {
        let in_file = |source| in_file(path, source);
        let file = File::open(path).map_err(in_file)?;
        let end = file.metadata().map_err(in_file)?.len().min(self.max_bytes.unwrap_or(u64::MAX));
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let (mut position, mut next, mut bytes) = (0, base_of(path)?, Vec::new());
        while position < end {
            bytes.clear();
            let head = reader.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut bytes);
            head.map_err(in_file)?;
            if bytes.iter().all(|byte| *byte == 0) {
                return Ok(end - position);
            }
            let mut fault = |what: String| {
                faults.push(format!("{} at {position}: {what}", path.display()));
            };
            let header = match BatchHeader::parse(&bytes) {
                Ok(header) => header,
                Err(error) => {
                    fault(error.to_string());
                    return Ok(0);
                }
            };
            let rest = (header.bytes() - HEADER_BYTES) as u64;
            reader.by_ref().take(rest).read_to_end(&mut bytes).map_err(in_file)?;
            let batch = match Batch::parse(&bytes) {
                Ok((batch, _)) => batch,
                Err(error) => {
                    fault(error.to_string());
                    return Ok(0);
                }
            };
            let crc = batch.verify_crc();
            if header.base_offset < next {
                fault(format!("offset {} after {}", header.base_offset, next - 1));
            }
            if let Err(error) = &crc {
                fault(error.to_string());
            }
            take(&batch, position, crc.is_ok())?;
            next = header.last_offset() + 1;
            position += header.bytes() as u64;
        }
        Ok(0)
    }

    fn batch(
        &self,
        batch: &Batch<'_>,
        position: u64,
        is_valid: bool,
        printer: &mut Printer<'_>,
    ) -> Result {
        let header = batch.header();
        let codec = header.compression().map_or("unknown", |compression| compression.name());
        let time = if header.is_log_append_time() { "LogAppendTime" } else { "CreateTime" };
        self.fields(
            &[
                ("baseOffset", json!(header.base_offset)),
                ("lastOffset", json!(header.last_offset())),
                ("count", json!(header.record_count)),
                ("baseSequence", json!(header.base_sequence)),
                ("lastSequence", json!(header.last_sequence())),
                ("producerId", json!(header.producer_id)),
                ("producerEpoch", json!(header.producer_epoch)),
                ("partitionLeaderEpoch", json!(header.partition_leader_epoch)),
                ("isTransactional", json!(header.is_transactional())),
                ("isControl", json!(header.is_control())),
                ("position", json!(position)),
                (time, json!(header.max_timestamp)),
                ("size", json!(header.bytes())),
                ("magic", json!(header.magic)),
                ("compresscodec", json!(codec)),
                ("crc", json!(header.crc)),
                ("isvalid", json!(is_valid)),
            ],
            printer,
        )?;
        if !is_valid || !(self.deep_iteration || self.print_data_log) {
            return Ok(());
        }
        self.records(batch, time, printer)
    }

    fn records(&self, batch: &Batch<'_>, time: &str, printer: &mut Printer<'_>) -> Result {
        let damaged = |error: BatchError| Failure::Usage(format!("damaged: {error}"));
        let bytes = |bytes: Option<&[u8]>| json!(bytes.map_or(-1, |bytes| bytes.len() as i64));
        let text = |bytes: Option<&[u8]>| json!(bytes.map(String::from_utf8_lossy));
        let header = batch.header();
        let sequence = |offset: i64| match header.base_sequence {
            -1 => -1,
            base => (i64::from(base) + offset - header.base_offset) & i64::from(i32::MAX),
        };
        let mut scratch = Vec::new();
        for record in batch.records(&mut scratch, BATCH_BYTES_MAX).map_err(damaged)? {
            let record = record.map_err(damaged)?;
            let headers = record.headers.iter();
            let headers: Vec<_> = headers.map(|(name, _)| String::from_utf8_lossy(name)).collect();
            let mut fields = vec![
                ("offset", json!(record.offset)),
                (time, json!(record.timestamp)),
                ("keySize", bytes(record.key)),
                ("valueSize", bytes(record.value)),
                ("sequence", json!(sequence(record.offset))),
                ("headerKeys", json!(headers)),
            ];
            if self.print_data_log {
                fields.extend([("key", text(record.key)), ("payload", text(record.value))]);
            }
            if !self.json {
                write!(printer.out, "| ")?;
            }
            self.fields(&fields, printer)?;
        }
        Ok(())
    }

    /// One line of names and values, as in Kafka's tool.
    fn fields(&self, fields: &[(&str, Value)], printer: &mut Printer<'_>) -> Result {
        if self.json {
            let object: serde_json::Map<String, Value> =
                fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            return Ok(printer.line(Value::Object(object))?);
        }
        let shown = |(name, value): &(&str, Value)| match value {
            Value::Array(_) => format!("{name}: [{}]", shown(value)),
            value => format!("{name}: {}", shown(value)),
        };
        let fields = fields.iter().filter(|(_, value)| !value.is_null());
        Ok(printer.line(fields.map(shown).collect::<Vec<_>>().join(" "))?)
    }
}

impl Sum {
    fn add(&mut self, header: &BatchHeader, position: u64) {
        self.batches += 1;
        self.records += i64::from(header.record_count);
        self.last_offset = Some(header.last_offset());
        self.max_timestamp = self.max_timestamp.max(Some(header.max_timestamp));
        self.bytes = position + header.bytes() as u64;
    }
}

fn in_file(path: &Path, source: io::Error) -> Failure {
    Failure::File { path: path.display().to_string(), source }
}

/// Files of that extension, by rising offset.
fn files_in(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let in_folder = |source| in_file(folder, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(in_folder)? {
        let path = entry.map_err(in_folder)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The first offset, which is the file's name.
fn base_of(path: &Path) -> Result<i64> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.and_then(|stem| stem.parse().ok()).ok_or_else(|| {
        Failure::Usage(format!("{}: the name is not that of a segment", path.display()))
    })
}

/// The entries of an index: offset and position, or timestamp and offset. Each is compared with the
/// batch it leads to; Kafka leaves zeros behind the last one.
fn entries(path: &Path, faults: &mut Vec<String>) -> Result<Vec<(i64, i64)>> {
    let in_file = |source| in_file(path, source);
    let bytes = fs::read(path).map_err(in_file)?;
    let base = base_of(path)?;
    let is_time = path.extension().is_some_and(|extension| extension == "timeindex");
    let mut log = File::open(path.with_extension("log")).map_err(in_file)?;
    let mut entries: Vec<(i64, i64)> = Vec::new();
    for entry in bytes.chunks_exact(if is_time { 12 } else { 8 }) {
        if entry.iter().all(|byte| *byte == 0) {
            break;
        }
        let u32_at = |at: usize| {
            let bytes = entry[at..at + 4].try_into().expect("an entry has 8 or 12 bytes");
            i64::from(u32::from_be_bytes(bytes))
        };
        let (first, second) = match is_time {
            true => ((u32_at(0) << 32) | u32_at(4), base + u32_at(8)),
            false => (base + u32_at(0), u32_at(4)),
        };
        let is_rising = entries.last().is_none_or(|last| last.0 < first && last.1 <= second);
        let leads_to_batch = is_time || {
            let mut head = [0; HEADER_BYTES];
            let at = SeekFrom::Start(second as u64);
            let read = log.seek(at).and_then(|_| log.read_exact(&mut head));
            let header = read.ok().and_then(|()| BatchHeader::parse(&head).ok());
            header.is_some_and(|header| header.base_offset <= first)
        };
        if !is_rising || !leads_to_batch {
            faults.push(format!("{}: entry {} {first} {second}", path.display(), entries.len()));
        }
        entries.push((first, second));
    }
    Ok(entries)
}
