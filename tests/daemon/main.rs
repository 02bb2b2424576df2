//! The built binary on real sockets and real files. One test program, so that it links once.

#![allow(missing_docs)]

mod bad_input;
mod capture;
mod client;
mod compaction;
mod export;
mod http;
mod kill;
mod offline;
mod readers;
mod stop;
mod support;
