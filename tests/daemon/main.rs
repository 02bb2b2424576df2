//! The built binary on real sockets and real files. One test program, so that it links once.

#![allow(missing_docs)]

mod access;
mod bad_http;
mod bad_input;
mod capture;

mod compaction;
mod completeness;
mod deletion;
mod doctor;
mod export;
mod folders;
mod http;
mod kill;
mod legacy_capture;
mod legacy_distribution;
mod legacy_files;
mod legacy_listings;
mod legacy_rois;
mod offline;
mod readers;
mod replay;
mod same_answers;
mod send;
mod stop;
mod support;
mod watch;
mod web;
