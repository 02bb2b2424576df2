//! tilecatcher
pub mod base;
pub mod model;
pub mod wire;
