//! Follows a daemon on a thread of its own: the status, the selected acquisition's mosaic, and the events that change both.
//! Comes back by itself when the daemon was away, and says so.

use super::mosaic::Picture;
use crate::client::{DaemonStatus, HttpClient, HttpClientError, WarningStatus};
use crate::model::AcqId;
use crossbeam_channel::{Receiver, Sender, bounded};
use serde::Deserialize;
use std::io::{self, BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What waits for the screen at most.
const QUEUE: usize = 1024;
/// A stream is asked for so long, and asked for again: one that silently broke is noticed by that.
const STREAM_S: u64 = 60;
/// What a stream may take longer than that.
const SLACK: Duration = Duration::from_secs(10);
/// Pause before another attempt.
const PAUSE: Duration = Duration::from_secs(1);
/// No acquisition is selected: no number of one, for they end before it.
const NOTHING: u64 = u64::MAX;

/// Something new.
#[derive(Debug)]
pub(super) enum News {
    /// The status with its history.
    Whole(Box<DaemonStatus>),
    /// The status of this second.
    Second(Box<DaemonStatus>),
    /// The selected acquisition's mosaic.
    Picture(Picture),
    /// It can not be shown, and why.
    NoPicture(String),
    /// Cells of it that changed.
    Cells(Cells),
    /// A warning.
    Warning(WarningStatus),
    /// Nobody answers, and why.
    Lost(String),
}

/// Cells that changed: column, row, cell.
#[derive(Debug, Deserialize)]
pub(super) struct Cells {
    pub(super) acquisition: u64,
    pub(super) cells: Vec<(u32, u32, u8)>,
}

/// The following thread's other end.
pub(super) struct Follower {
    news: Receiver<News>,
    wanted: Arc<AtomicU64>,
}

impl Follower {
    pub(super) fn start(client: HttpClient) -> io::Result<Self> {
        let (sender, news) = bounded(QUEUE);
        let wanted = Arc::new(AtomicU64::new(NOTHING));
        let thread = Following { client, news: sender, wanted: Arc::clone(&wanted) };
        std::thread::Builder::new().name("follow".into()).spawn(move || thread.run())?;
        Ok(Self { news, wanted })
    }

    /// What has come since the last call.
    pub(super) fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter()
    }

    /// The acquisition whose mosaic is wanted.
    pub(super) fn watch(&self, acquisition: Option<u64>) {
        self.wanted.store(acquisition.unwrap_or(NOTHING), Ordering::Relaxed);
    }
}

struct Following {
    client: HttpClient,
    news: Sender<News>,
    wanted: Arc<AtomicU64>,
}

/// The screen is gone.
struct Over;

impl Following {
    fn run(self) {
        loop {
            let wanted = self.wanted.load(Ordering::Relaxed);
            let told = match self.follow(wanted) {
                Ok(told) => told,
                Err(error) => {
                    let told = self.tell(News::Lost(error.to_string()));
                    std::thread::sleep(PAUSE);
                    told
                }
            };
            if told.is_err() {
                return;
            }
        }
    }

    /// Follows until the stream's time is over or another acquisition is wanted.
    fn follow(&self, wanted: u64) -> Result<Result<(), Over>, HttpClientError> {
        let acquisition = if wanted == NOTHING { String::new() } else { format!("&acquisition={wanted}") };
        let path = format!("/api/v1/events?for={STREAM_S}{acquisition}");
        // First the stream, then what it changes: nothing falls between the two.
        let stream = match self.client.stream(&path, Duration::from_secs(STREAM_S) + SLACK) {
            // The acquisition was deleted: what else there is goes on.
            Err(HttpClientError::Refused { status: 404, .. }) if wanted != NOTHING => {
                self.client.stream(&format!("/api/v1/events?for={STREAM_S}"), Duration::from_secs(STREAM_S) + SLACK)?
            }
            stream => stream?,
        };
        if self.tell(News::Whole(Box::new(self.client.status()?))).is_err() || self.fetch_picture(wanted).is_err() {
            return Ok(Err(Over));
        }
        let mut event = String::new();
        for line in BufReader::new(stream).lines() {
            // A stream that breaks is opened again, and that says why it can not be.
            let Ok(line) = line else { break };
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut event);
            } else if let Some(data) = line.strip_prefix("data: ")
                && self.on_event(&event, data, wanted).is_err()
            {
                return Ok(Err(Over));
            }
            if self.wanted.load(Ordering::Relaxed) != wanted {
                break;
            }
        }
        Ok(Ok(()))
    }

    fn on_event(&self, event: &str, data: &str, wanted: u64) -> Result<(), Over> {
        let news = match event {
            "status" => serde_json::from_str(data).ok().map(|status| News::Second(Box::new(status))),
            "tiles" => serde_json::from_str(data).ok().map(News::Cells),
            "warning" => serde_json::from_str(data).ok().map(News::Warning),
            "lagged" => return self.fetch_picture(wanted),
            _ => None,
        };
        news.map_or(Ok(()), |news| self.tell(news))
    }

    fn fetch_picture(&self, wanted: u64) -> Result<(), Over> {
        if wanted == NOTHING {
            return Ok(());
        }
        let problem = |error: HttpClientError| match error {
            HttpClientError::Refused { message, .. } => message,
            other => other.to_string(),
        };
        let mosaic = self.client.mosaic(AcqId(wanted)).map_err(problem);
        let picture = mosaic.and_then(|mosaic| Picture::of(&mosaic).ok_or_else(|| "it contradicts itself".to_owned()));
        self.tell(picture.map_or_else(News::NoPicture, News::Picture))
    }

    fn tell(&self, news: News) -> Result<(), Over> {
        self.news.send(news).map_err(|_| Over)
    }
}
