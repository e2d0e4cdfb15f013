//! The Kubernetes API of Towline: group `towline.dev`, version `v1alpha1`.

pub mod condition;
pub mod label;
pub mod schema;
pub mod tunnel;
pub mod user;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

pub use tunnel::VpnTunnel;
pub use user::VpnUser;

/// Every custom resource definition of the group, as it is installed.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    [VpnTunnel::crd(), VpnUser::crd()].map(schema::tidy).into()
}

/// The definition as YAML, ready for `kubectl apply -f`.
///
/// # Errors
/// Never for definitions of this crate: they hold nothing that YAML cannot.
pub fn to_yaml(definition: &CustomResourceDefinition) -> anyhow::Result<String> {
    // By way of a JSON value: its keys are sorted, so that equal definitions are equal text.
    Ok(serde_saphyr::to_string(&serde_json::to_value(definition)?)?)
}

/// The name of the file that holds the definition.
pub fn file_name(definition: &CustomResourceDefinition) -> String {
    format!("{}.yaml", definition.metadata.name.as_deref().unwrap_or("unnamed"))
}

#[cfg(test)]
mod tests {
    use towline_tunnel::report::Reason;

    use super::*;

    #[test]
    fn the_committed_definitions_are_those_of_the_types() {
        for definition in definitions() {
            let path = format!("{}/../crds/{}", env!("CARGO_MANIFEST_DIR"), file_name(&definition));
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == to_yaml(&definition).unwrap(),
                "{path} differs from the types; run `cargo xtask crds`"
            );
            let path = format!("{}/../charts/towline/files/{}", env!("CARGO_MANIFEST_DIR"), file_name(&definition));
            let chart = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(chart == committed, "{path} differs from crds/; run `cargo xtask crds`");
        }
    }

    #[test]
    fn the_yaml_says_what_the_definition_says() {
        for definition in definitions() {
            let read: CustomResourceDefinition = serde_saphyr::from_str(&to_yaml(&definition).unwrap()).unwrap();
            assert_eq!(read, definition);
        }
    }

    #[test]
    fn the_first_tunnel_is_the_same_in_the_readme_and_in_the_charts_notes_and_can_be_copied() {
        let example = |path: &str| {
            let text = std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            let begun = text.split("\nkubectl apply -f - <<END\n").nth(1).unwrap().to_owned();
            begun.split("\nEND\n").next().unwrap().to_owned()
        };
        let readme = example("README.md");
        assert_eq!(readme, example("charts/towline/templates/NOTES.txt"));
        let tunnel: VpnTunnel = serde_saphyr::from_str(&readme).unwrap();
        assert_eq!(tunnel.spec.exports[0].name, "web");
    }

    #[test]
    fn the_readme_explains_every_reason_and_no_other() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
        let table = readme.split("| reason | what it means | what to do |\n|---|---|---|\n").nth(1).unwrap();
        let mut rows = table.lines();
        for reason in Reason::ALL {
            let row = rows.next().unwrap_or_default();
            let begin = format!("| `{reason}` | {} | ", reason.description());
            let advice = row.strip_prefix(&begin);
            assert!(
                advice.is_some_and(|advice| advice.len() > 2),
                "the row of {reason} begins with {begin}, and is {row}"
            );
        }
        assert_eq!(rows.next(), Some(""), "a row of no reason");
    }
}
