//! Imitations of devices that no test can have: each dials with its own offers, encodings, identities, NAT payloads, AVPs and
//! PPP options. Their messages are built and read apart from the product's own code; it lends the cryptographic primitives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it is")]

mod client;
mod device;
mod esp;
mod ike;
mod isakmp;
mod keys;
mod l2tp;
mod negotiation;
mod ppp;
mod recorded;
mod session;
mod table;
mod world;
