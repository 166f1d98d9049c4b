//! The priority of a thread.

/// Makes the calling thread give way to others on its CPU. Returns whether the system allowed it.
pub fn lower_priority() -> bool {
    const NICE: libc::c_int = 10;
    // SAFETY: takes no pointers. On Linux, 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) == 0 }
}
