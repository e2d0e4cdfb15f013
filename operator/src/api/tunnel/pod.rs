//! Settings of the pod that the tunnel runs in, and of its logs.

#![allow(unreachable_pub, reason = "the derived schema repeats the types in a module of its own")]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use towline_tunnel::config::{LogFormat, LogLevel};

use crate::api::schema;

const CPU_RULE: &str =
    "!has(self.cpu) || (isQuantity(string(self.cpu)) && quantity(string(self.cpu)).isGreaterThan(quantity('0')))";
const MEMORY_RULE: &str = "!has(self.memory) || \
     (isQuantity(string(self.memory)) && quantity(string(self.memory)).isGreaterThan(quantity('0')))";
const LIMITS_RULE: &str = "!(has(self.requests) && has(self.limits)) || ( \
     (!(has(self.requests.cpu) && has(self.limits.cpu)) || \
      !isQuantity(string(self.requests.cpu)) || !isQuantity(string(self.limits.cpu)) || \
      !quantity(string(self.requests.cpu)).isGreaterThan(quantity(string(self.limits.cpu)))) && \
     (!(has(self.requests.memory) && has(self.limits.memory)) || \
      !isQuantity(string(self.requests.memory)) || !isQuantity(string(self.limits.memory)) || \
      !quantity(string(self.requests.memory)).isGreaterThan(quantity(string(self.limits.memory)))))";

/// Settings of the pod that the tunnel runs in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// What the tunnel's container asks for and may use, instead of the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Labels of the nodes that the pod may run on. Gateway only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16))]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints of nodes that the pod tolerates. Gateway only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub tolerations: Option<Vec<Toleration>>,
}

/// Resources of a container.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new(LIMITS_RULE).message(
    "pod.resources.requests must not be above pod.resources.limits; raise the limit, or remove it"))]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What is set aside for it.
    #[serde(default)]
    pub requests: Amounts,
    /// What it may use at most.
    #[serde(default)]
    pub limits: Amounts,
}

/// Amounts of resources.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new(CPU_RULE).message("pod.resources: cpu must be a quantity above 0, such as 100m or 2"),
    validation = Rule::new(MEMORY_RULE).message("pod.resources: memory must be a quantity above 0, such as 128Mi")
)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    /// Processor time, such as `100m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub cpu: Option<Quantity>,
    /// Memory, such as `64Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::quantity")]
    pub memory: Option<Quantity>,
}

/// Logs of the tunnel process. A change reaches it without a new dial and without a restart.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// How much is logged. Debug adds each message with addresses and user names, Trace each packet; secrets never.
    #[serde(default)]
    #[schemars(schema_with = "schema::log_level")]
    pub level: LogLevel,
    /// Text for people or JSON for machines.
    #[serde(default)]
    #[schemars(schema_with = "schema::log_format")]
    pub format: LogFormat,
}
