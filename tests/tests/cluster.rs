//! The chart on a real Kubernetes, with a foreign gateway: what a user does, and what goes wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it is")]

mod cluster {
    mod admission;
    mod gateway;
    mod removal;
    mod sidecar;
    mod world;
}
