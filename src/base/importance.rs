//! How important a thread is where it competes for a CPU. Must never be what a bound rests on: a system may not allow it.

/// Niceness of the least important threads.
const LEAST: i32 = 19;

/// Makes the calling thread the least important of all; where that is not allowed it stays as it is.
pub fn yield_to_others() {
    let _ = rustix::process::setpriority_process(None, LEAST);
}
