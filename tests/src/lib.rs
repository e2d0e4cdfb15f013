//! The harness of Towline's tests: network namespaces, processes, images and a local Kubernetes cluster.
//!
//! It drives the machine's own programs (`ip`, `nsenter`, `tar`, `go`, `buildah`) and needs root where they do.

pub mod netns;
pub mod process;
