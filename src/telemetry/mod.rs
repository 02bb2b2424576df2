//! What the daemon says about itself: metrics and logs. The only place that imports `prometheus`.

mod logging;
mod metrics;

pub use logging::{LogFormat, LogLevel, start_logging};
pub use metrics::{CloseReason, LocalCounts, Metrics, RefusedAccess, StoredAs};
