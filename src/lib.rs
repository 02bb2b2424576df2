//! tilecatcher
pub mod audit;
pub mod base;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod config;
pub mod formats;
pub mod http;
pub mod index;
pub mod ingest;
pub mod journal;
pub mod model;
pub mod server;
pub mod simulate;
pub mod telemetry;
pub mod wire;
