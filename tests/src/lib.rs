//! The harness of Towline's tests: network namespaces, processes, images and a local Kubernetes cluster.
//!
//! It drives the machine's own programs (`ip`, `nsenter`, `tar`, `go`, `buildah`) and needs root where they do.

pub mod bench;
pub mod check;
pub mod cluster;
pub mod demo;
pub mod image;
pub mod interrupt;
pub mod ledger;
pub mod netns;
pub mod package;
pub mod peer;
pub mod preflight;
pub mod process;
pub mod product;
pub mod release;
pub mod server;
pub mod site;
pub mod tool;
pub mod tunnel;
