//! L2TPv2.
