//! Clocks: the wall clock, for what is shown and stored, and the processor's. Timeouts use `std::time::Instant`, never
//! these; leases, which outlive the process, the wall clock made steady.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970-01-01 UTC; 0 for a clock that stands before it.
#[must_use]
pub fn unix_ns() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX))
}

/// Nanoseconds since 1970-01-01 UTC as the wall clock stood when this was first asked, and steady from then on: for what
/// is due at a time, and must not be when somebody sets the clock. A clock that is set counts from the next start on.
#[must_use]
pub fn steady_unix_ns() -> i64 {
    static BEGAN: OnceLock<(i64, Instant)> = OnceLock::new();
    let (wall_ns, began) = BEGAN.get_or_init(|| (unix_ns(), Instant::now()));
    wall_ns.saturating_add(i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX))
}

/// Processor time that this process has used; `None` where the system does not say.
#[cfg(unix)]
#[must_use]
pub fn process_cpu() -> Option<Duration> {
    cpu(rustix::time::ClockId::ProcessCPUTime)
}

/// Processor time that this process has used: not known here.
#[cfg(not(unix))]
#[must_use]
pub fn process_cpu() -> Option<Duration> {
    None
}

/// Processor time that this thread has used; `None` where the system does not say.
#[cfg(unix)]
#[must_use]
pub fn thread_cpu() -> Option<Duration> {
    cpu(rustix::time::ClockId::ThreadCPUTime)
}

/// Processor time that this thread has used: not known here.
#[cfg(not(unix))]
#[must_use]
pub fn thread_cpu() -> Option<Duration> {
    None
}

#[cfg(unix)]
fn cpu(clock: rustix::time::ClockId) -> Option<Duration> {
    let time = rustix::time::clock_gettime(clock);
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}
