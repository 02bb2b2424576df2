//! Tools that know no tile, protocol or file: buffers, sizes and times with units, the clock, a stop signal.
//!
//! Must never import anything from a layer above it.

#[cfg(feature = "daemon")]
pub mod admission;
#[cfg(feature = "daemon")]
pub mod aligned;
pub mod clock;
#[cfg(feature = "daemon")]
pub mod descriptors;
#[cfg(feature = "daemon")]
pub mod failpoint;
#[cfg(feature = "daemon")]
pub mod guard;
#[cfg(feature = "daemon")]
pub mod importance;
#[cfg(feature = "daemon")]
pub mod keepalive;
#[cfg(feature = "daemon")]
pub mod life;
#[cfg(feature = "daemon")]
pub mod limited_log;
pub mod limits;
#[cfg(feature = "daemon")]
pub mod live;
#[cfg(feature = "daemon")]
pub mod network;
#[cfg(feature = "daemon")]
pub mod planted;
#[cfg(feature = "daemon")]
pub mod pool;
pub mod stop;
pub mod units;
#[cfg(feature = "daemon")]
pub mod words;
