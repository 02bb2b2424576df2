//! tilecatcher
pub mod base;
pub mod index;
pub mod journal;
pub mod model;
pub mod wire;
