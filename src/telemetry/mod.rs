//! What the daemon says about itself: metrics and logs. The only place that imports `prometheus`.

mod http_close;
mod journald;
mod logging;
mod metrics;
mod notifications;
mod tls;

pub use http_close::HttpCloseReason;
pub use logging::{LogFormat, LogLevel, start_logging};
pub use metrics::{CloseReason, LocalCounts, Metrics, RefusedAccess, StoredAs};
pub use notifications::{NotifyChannel, NotifyOutcome};
pub use tls::{TlsClient, TlsRefusal};
