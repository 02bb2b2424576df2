//! What happens when a thread panics: the daemon stops in order. A daemon that has lost one of its threads must not
//! look alive.

use super::stop::{Stop, StopReason};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does a thread's work. A panic in it stops the daemon; `None` then.
pub fn stop_on_panic<T>(thread: &str, stop: &Stop, work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    if done.is_err() {
        tracing::error!(thread, "a thread panicked: the daemon stops; a restart recovers all that was acknowledged");
        stop.raise(StopReason::Panicked);
    }
    done.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_stops_the_daemon_and_the_end_of_work_does_not() {
        let stop = Stop::default();
        assert_eq!(stop_on_panic("test", &stop, || 5), Some(5));
        assert_eq!(stop.reason(), None);
        assert_eq!(stop_on_panic::<()>("test", &stop, || panic!("as planned")), None);
        assert_eq!(stop.reason(), Some(StopReason::Panicked));
    }
}
