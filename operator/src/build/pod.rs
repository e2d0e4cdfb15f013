//! Shim.
use k8s_openapi::api::core::v1::*;
use crate::api::VpnTunnel;
pub struct Settings;
#[derive(Clone, Copy)]
pub enum Usage { Sidecar }
pub const CONTAINER: &str = "towline";
pub fn tunnel_container(_: &VpnTunnel, _: &Settings, _: Usage) -> Container {
  Container { name: CONTAINER.into(), restart_policy: Some("Always".into()), startup_probe: Some(Probe::default()),
   volume_mounts: Some(vec![VolumeMount { name: "towline-config".into(), ..Default::default()}]), ..Default::default() }
}
pub fn tunnel_volumes(_: &VpnTunnel, _: Usage) -> Vec<Volume> { vec![Volume { name: "towline-config".into(), ..Default::default() }] }
#[cfg(test)]
pub mod tests { pub fn settings() -> super::Settings { super::Settings } }
