//! The built binary on real sockets and real files. One test program, so that it links once.

#![allow(missing_docs)]

mod bad_input;
mod capture;
mod client;
mod export;
mod http;
mod kill;
mod offline;
mod stop;
mod support;
