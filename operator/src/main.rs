//! `towline-operator`.
fn main() {}
