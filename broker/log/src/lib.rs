//! One partition on disk and in memory: segments, tail, flushes, recovery.
//!
//! | module | what it holds |
//! |---|---|
//! | [`partition`] | [`PartitionLog`], which the modules below extend by one ability each |
//! | [`open`], [`recovery`] | making, opening and closing a folder; finding the end after a crash |
//! | [`append`], [`tail`] | batches into memory: the two doors, the chunks |
//! | [`writer`], [`flush`], [`flush_plan`] | memory into files; what is durable |
//! | [`read`] | what a fetch gets |
//! | [`timestamps`] | offsets by time |
//! | [`truncate`], [`retention`] | cutting the new end and the old one |
//! | [`compaction`], [`cleaner`], [`rewrite`], [`key_map`] | keeping the last record of each key |
//! | [`moving`] | going to another folder |
//! | [`segment`], [`index`] | one `.log` file with its sparse indexes |
//! | [`epochs`], [`producers`] | what batches say about leaders and idempotent producers |
//! | [`ends`], [`config`] | the four offsets; settings |
//! | [`token`], [`header`] | names of operations; headers that may be believed |
//! | [`checkpoints`] | the offset files of a data folder |

pub mod append;
pub mod checkpoints;
pub mod cleaner;
pub mod compaction;
pub mod config;
pub mod ends;
mod epochs;
pub mod flush;
pub mod flush_plan;
mod header;
mod index;
mod key_map;
pub mod moving;
pub mod open;
pub mod partition;
mod producers;
pub mod read;
pub mod recovery;
pub mod retention;
mod rewrite;
mod segment;
mod tail;
pub mod timestamps;
pub mod token;
mod truncate;
pub mod writer;

pub use append::{AppendAs, AppendError, Appended};
pub use cleaner::{CleanLimits, CleanStep, Cleaned, CleanedSegment, Cleaner};
pub use compaction::Dirt;
pub use config::{Compaction, LogConfig, READ_AHEAD_BYTES, WriteMode};
pub use ends::Ends;
pub use flush::{FlushDue, FlushTicket};
pub use flush_plan::{FlushPlan, flush_plan};
pub use millrace_wire::Uuid;
pub use moving::{Copier, Finished};
pub use open::OpenHints;
pub use partition::{PartitionLog, Poison};
pub use producers::{ProducerCheck, ProducerState};
pub use read::{FileRange, ReadData, ReadPlan, ReadRequest};
pub use recovery::{Cut, CutReason, Recovered};
pub use retention::{DeleteError, Retired};
pub use timestamps::TimedOffset;
pub use writer::LogProgress;

/// A log's failure, with the file it is about.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system said no.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: std::path::PathBuf,
        /// Its words.
        source: std::io::Error,
    },
    /// A file that cannot be made anew does not hold what it should.
    #[error("{path}: {what}")]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Operations are in flight, or the log stopped: see each method.
    #[error("the log is busy or has stopped")]
    Busy,
}
