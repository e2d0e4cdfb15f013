//! PPP.
