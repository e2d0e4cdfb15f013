//! The parts of the OpenAPI schema that the types alone cannot say, and what Kubernetes wants otherwise than `schemars`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use towline_tunnel::config::server::{OnLimit, SourceNat};
use towline_tunnel::config::{
    Encapsulation, Exchange, IdentityKind, LogFormat, LogLevel, MAX_PROPOSALS, PppAuth, Protocol,
};
use towline_tunnel::suite::{Cipher, Group, Hash, Security};

/// The longest text of a proposal: twice the longest proposal, so that a mistyped one meets the rule with the better words.
const MAX_PROPOSAL_LENGTH: usize = 64;

fn one_of<T: Serialize>(values: &[T]) -> Schema {
    json_schema!({ "type": "string", "enum": values })
}

pub(crate) fn security(_: &mut SchemaGenerator) -> Schema {
    one_of(&[Security::Strong, Security::Compatible, Security::Legacy])
}

pub(crate) fn exchange(_: &mut SchemaGenerator) -> Schema {
    one_of(&[Exchange::Main, Exchange::Aggressive])
}

pub(crate) fn identity_kind(_: &mut SchemaGenerator) -> Schema {
    one_of(&[IdentityKind::Address, IdentityKind::Fqdn, IdentityKind::UserFqdn, IdentityKind::KeyId])
}

pub(crate) fn encapsulation(_: &mut SchemaGenerator) -> Schema {
    one_of(&[Encapsulation::Udp, Encapsulation::Auto, Encapsulation::None])
}

pub(crate) fn protocol(_: &mut SchemaGenerator) -> Schema {
    one_of(&[Protocol::Tcp, Protocol::Udp])
}

pub(crate) fn source_nat(_: &mut SchemaGenerator) -> Schema {
    one_of(&[SourceNat::Masquerade, SourceNat::None])
}

pub(crate) fn on_limit(_: &mut SchemaGenerator) -> Schema {
    one_of(&[OnLimit::Replace, OnLimit::Refuse])
}

pub(crate) fn log_level(_: &mut SchemaGenerator) -> Schema {
    one_of(&[LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace])
}

pub(crate) fn log_format(_: &mut SchemaGenerator) -> Schema {
    one_of(&[LogFormat::Text, LogFormat::Json])
}

pub(crate) fn ppp_auth(_: &mut SchemaGenerator) -> Schema {
    let (names, most) = (one_of(&PppAuth::ALL), PppAuth::ALL.len());
    json_schema!({
        "type": "array", "items": names, "minItems": 1, "maxItems": most, "x-kubernetes-list-type": "set",
    })
}

/// An amount of a resource. People write whole numbers without quotes too.
pub(crate) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true })
}

fn joined<T: ToString>(values: &[T], separator: &str) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

/// A list of proposals that all match `pattern`; `message` is told about one that does not.
fn proposals(pattern: &str, message: String) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_PROPOSALS,
        "items": { "type": "string", "maxLength": MAX_PROPOSAL_LENGTH },
        "x-kubernetes-validations": [{ "rule": format!("self.all(p, p.matches('{pattern}'))"), "message": message }],
    })
}

/// Lists of `CIPHER-HASH-GROUP`.
pub(crate) fn ike_proposals(_: &mut SchemaGenerator) -> Schema {
    let ciphers: Vec<Cipher> = Cipher::ALL.iter().copied().filter(|cipher| !cipher.is_aead()).collect();
    proposals(
        &format!("^({})-({})-({})$", joined(&ciphers, "|"), joined(Hash::ALL, "|"), joined(Group::ALL, "|")),
        format!(
            "each of ike.proposals must be CIPHER-HASH-GROUP, such as aes256-sha256-modp2048; ciphers: {}; hashes: {}; groups: {}",
            joined(&ciphers, " "),
            joined(Hash::ALL, " "),
            joined(Group::ALL, " ")
        ),
    )
}

/// Lists of `CIPHER-HASH[-GROUP]` and `AEAD[-GROUP]`.
pub(crate) fn esp_proposals(_: &mut SchemaGenerator) -> Schema {
    let (aead, plain): (Vec<Cipher>, Vec<Cipher>) = Cipher::ALL.iter().partition(|cipher| cipher.is_aead());
    let hashes = joined(Hash::ALL, "|");
    let groups = joined(Group::ALL, "|");
    proposals(
        &format!("^(({})-({hashes})|{})(-({groups}))?$", joined(&plain, "|"), joined(&aead, "|")),
        format!(
            "each of esp.proposals must be CIPHER-HASH, such as aes256-sha256, or an AES-GCM cipher alone, and may end with -GROUP; \
             ciphers: {}; AES-GCM: {}; hashes: {}; groups: {}",
            joined(&plain, " "),
            joined(&aead, " "),
            joined(Hash::ALL, " "),
            joined(Group::ALL, " ")
        ),
    )
}

/// Makes a definition what the API server expects.
///
/// `nullable` goes: an explicit null would count as present in CEL's `has`. Without it the API server prunes the null.
/// Formats that Kubernetes does not know become those that it knows.
pub fn tidy(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            tidy_schema(schema);
        }
    }
    definition
}

fn tidy_schema(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.format = schema.format.take().map(|format| match format.as_str() {
        "uint8" | "uint16" | "int8" | "int16" => "int32".to_owned(),
        "uint32" | "uint64" | "uint" => "int64".to_owned(),
        _ => format,
    });
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        tidy_schema(property);
    }
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(items)) => tidy_schema(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(tidy_schema),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        tidy_schema(values);
    }
}
