//! What the daemon says about itself: metrics and logs. The only place that imports `prometheus`.

mod disk_forecast;
mod http_close;
mod journald;
mod logging;
mod metrics;
mod notifications;
mod tls;
mod warnings;

pub use disk_forecast::DiskForecast;
pub use http_close::HttpCloseReason;
pub use logging::{LogFormat, LogLevel, start_logging};
pub use metrics::{CloseReason, LocalCounts, Metrics, RefusedAccess, StoredAs};
pub use notifications::{NotifyChannel, NotifyOutcome};
pub use tls::{TlsClient, TlsRefusal};
pub use warnings::{Warning, last_warning, warnings_after};
