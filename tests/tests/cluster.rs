//! The chart on a real Kubernetes, with foreign gateways: what a user does, and what goes wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it is")]

mod cluster {
    mod admission;
    mod encapsulation;
    mod evidence;
    mod gateway;
    mod liveness;
    mod operator;
    mod pair;
    mod rollout;
    mod security;
    mod server;
    mod sidecar;
    mod uninstall;
    mod world;
}
