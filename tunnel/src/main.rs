//! `towline-tunnel`.
fn main() {}
