//! The states of an incoming call (RFC 2661 section 7.4): at the LAC that announces it, and at the LNS that takes it.

pub mod lac;
pub mod lns;
