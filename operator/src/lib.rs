//! Shim.
pub mod api;
pub mod build;
pub mod endpoint;
pub mod leader;
#[cfg(test)]
mod mock;
pub mod reports;
pub mod tls;
pub mod verify;
pub mod webhook;
