//! The built binary on real sockets and real files. One test program, so that it links once.

#![allow(missing_docs)]

mod access;
mod admin;
mod backup;
mod bad_http;
mod bad_input;
mod capture;
#[cfg(feature = "tls")]
mod certificates;

mod compaction;
mod completeness;
mod deletion;
mod doctor;
mod drain;
mod export;
mod folders;
mod hostile;
mod hot_restart;
mod http;
mod io_errors;
mod kill;
mod legacy_capture;
mod legacy_distribution;
mod legacy_files;
mod legacy_listings;
mod legacy_rois;
mod live;
mod manager;
mod metrics;
mod mirror;
mod notifications;
mod odd_directories;
mod offline;
mod overload;
mod overload_http;
mod previews;
mod quality;
mod readers;
mod replay;
mod rot;
mod same_answers;
mod send;
mod service;
mod stop;
mod support;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "top")]
mod top;
mod unit;
mod watch;
mod web;
mod why;
