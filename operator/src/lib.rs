//! Towline's operator: reconciles `VpnTunnel` and `VpnUser` resources into tunnel pods and sidecars, and tells how they are.
//!
//! ```text
//!   api         the resources, their schemas, conditions, labels
//!   build       from a VpnTunnel and its VpnUsers to objects             pure
//!   status      from pods and reports to conditions                      pure
//!   controller  dereference, validate, build, apply, status              cache
//!   endpoint    reports of pods, and the webhook's requests, over TLS    reports, webhook, tls
//!   run         one replica: lease, leader, admin, metrics
//! ```

pub mod admin;
pub mod api;
pub mod build;
pub mod cache;
pub mod controller;
pub mod endpoint;
pub mod leader;
pub mod lease;
pub mod metrics;
pub mod reports;
pub mod run;
pub mod status;
pub mod tls;
pub mod verify;
pub mod webhook;

#[cfg(test)]
mod mock;
#[cfg(test)]
mod rbac;
