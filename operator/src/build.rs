//! Shim.
pub mod pod;
/// n
pub fn object_name(tunnel: &str) -> String { format!("towline-{tunnel}") }
