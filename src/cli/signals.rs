//! Signals that ask a command to end.

use super::COULD_NOT_RUN;
use crate::base::stop::{Stop, StopReason};

/// Ctrl-C, and SIGTERM where there is one, raise the stop; a second one ends the process at once.
pub(super) fn watch_signals(stop: &Stop) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    let stop = stop.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(signals.next());
        stop.raise(StopReason::Requested);
        runtime.block_on(signals.next());
        eprintln!("tilecatcher: second signal: stopped at once; everything that was acknowledged is stored");
        std::process::exit(i32::from(COULD_NOT_RUN));
    })?;
    Ok(())
}

/// From now on SIGHUP, where there is one, does not end the process but does this.
#[cfg(feature = "daemon")]
pub(super) fn on_hangup(reload: impl Fn() + Send + 'static) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut hangup = {
            let _inside = runtime.enter();
            signal(SignalKind::hangup())?
        };
        std::thread::Builder::new().name("hangup".into()).spawn(move || {
            while runtime.block_on(hangup.recv()).is_some() {
                reload();
            }
        })?;
    }
    #[cfg(not(unix))]
    drop(reload);
    Ok(())
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! { _ = self.terminate.recv() => {}, _ = self.interrupt.recv() => {} }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
