//! How the files that wait for durability are flushed together: one decision, one table of cases.

/// What to submit for one file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushPlan {
    /// Nothing waits.
    Nothing,
    /// `fdatasync` of each file: they run side by side.
    EachFile,
    /// One `syncfs` for all.
    FileSystem,
}

/// Up to this many files one flush each is quicker and touches nobody else's files.
pub const FILES_EACH_MAX: usize = 4;

/// Decides how `files` dirty files of one file system become durable. `flushes_in_flight` counts
/// what runs already on that file system: a `syncfs` behind others waits for them anyway, so what
/// is dirty gathers until they are done. One `fdatasync` is never taken to cover other files.
pub fn flush_plan(files: usize, flushes_in_flight: usize) -> FlushPlan {
    match files {
        0 => FlushPlan::Nothing,
        _ if flushes_in_flight >= FILES_EACH_MAX => FlushPlan::Nothing,
        1..=FILES_EACH_MAX if files + flushes_in_flight <= FILES_EACH_MAX => FlushPlan::EachFile,
        _ if flushes_in_flight > 0 => FlushPlan::Nothing,
        _ => FlushPlan::FileSystem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_are_flushed_one_by_one_and_many_together() {
        let cases = [
            // files, in flight, plan
            (0, 0, FlushPlan::Nothing),
            (0, 3, FlushPlan::Nothing),
            (1, 0, FlushPlan::EachFile),
            (4, 0, FlushPlan::EachFile),
            (5, 0, FlushPlan::FileSystem),
            (50, 0, FlushPlan::FileSystem),
            (1, 3, FlushPlan::EachFile),
            (2, 3, FlushPlan::Nothing),
            (1, 4, FlushPlan::Nothing),
            (50, 1, FlushPlan::Nothing),
        ];
        for (files, in_flight, plan) in cases {
            assert_eq!(flush_plan(files, in_flight), plan, "{files} files, {in_flight} in flight");
        }
    }
}
