//! The chart on a real Kubernetes, with a foreign gateway: what a user does, and what goes wrong.

mod cluster {
    mod admission;
    mod gateway;
    mod removal;
    mod sidecar;
    mod world;
}
