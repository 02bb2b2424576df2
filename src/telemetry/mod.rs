//! What the daemon says about itself: metrics and logs. The only place that imports `prometheus`.

mod logging;
mod metrics;
mod tls;

pub use logging::{LogFormat, LogLevel, start_logging};
pub use metrics::{CloseReason, LocalCounts, Metrics, StoredAs};
pub use tls::{TlsClient, TlsRefusal};
