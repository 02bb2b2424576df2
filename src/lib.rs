//! tilecatcher
pub mod base;
pub mod catalog;
pub mod index;
pub mod ingest;
pub mod journal;
pub mod model;
pub mod telemetry;
pub mod wire;
