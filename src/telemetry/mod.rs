//! What the daemon says about itself: metrics and logs. The only place that imports `prometheus`.

mod acquisitions;
mod counts;
mod disk_forecast;
mod http_close;
mod journald;
mod logging;
mod maker;
mod metrics;
mod notifications;
mod reasons;
mod stages;
mod tls;
mod warnings;

pub use acquisitions::AcquisitionState;
pub use counts::LocalCounts;
pub use disk_forecast::DiskForecast;
pub use http_close::HttpCloseReason;
pub use logging::{LogFormat, LogLevel, log_level, set_log_level, start_logging};
pub use metrics::Metrics;
pub use notifications::{NotifyChannel, NotifyOutcome};
pub use reasons::{CloseReason, RefusedAccess, StoredAs};
pub use stages::{LaneTimes, LocalTimes, Stamp};
pub use tls::{TlsClient, TlsRefusal};
pub use warnings::{Warning, last_warning, warnings_after};
