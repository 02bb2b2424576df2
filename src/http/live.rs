//! What those who look on share: the status, made once a second for all of them, and the end of their streams.

use super::AppState;
use super::peers::PerPeer;
use super::status::{self, Known};
use crate::catalog::SUBSCRIBERS_MAX;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval};

/// Time between two statuses of a stream.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Pictures of mosaics that are made at a time: each takes up to 4 million places.
const PICTURES_AT_ONCE: usize = 2;

/// Shared by all who look on.
pub(super) struct Live {
    /// The last status, as an event; those who watch it are the streams.
    pub(super) status: watch::Sender<Bytes>,
    /// True once streams are to end.
    pub(super) ended: watch::Sender<bool>,
    /// What the last status knew.
    pub(super) known: Arc<Mutex<Known>>,
    pub(super) pictures: Semaphore,
    /// Half of the streams that there may be, for each address.
    pub(super) of_peers: PerPeer,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            status: watch::Sender::new(Bytes::new()),
            ended: watch::Sender::new(false),
            known: Arc::default(),
            pictures: Semaphore::new(PICTURES_AT_ONCE),
            of_peers: PerPeer::new(SUBSCRIBERS_MAX / 2),
        }
    }
}

/// Makes the status every second as long as somebody looks. When the port stops, a last one says so, and all streams end.
pub(super) async fn run(state: AppState, mut stopping: watch::Receiver<bool>) {
    let work = async {
        let mut every = interval(STATUS_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if state.live.status.receiver_count() > 0 {
                status::tell(&state).await;
            }
        }
    };
    tokio::select! {
        _ = stopping.wait_for(|stopping| *stopping) => {}
        () = work => {}
    }
    status::tell_last(&state).await;
    state.live.ended.send_replace(true);
}
