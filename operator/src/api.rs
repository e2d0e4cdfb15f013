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
    use kube::ResourceExt;
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};
    use towline_tunnel::report::Reason;

    use super::*;
    use crate::api::condition::Truth;
    use crate::build::users::roll;
    use crate::build::{objects, pod};

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

    /// The object of a manifest, of which nothing may be a field that is not there.
    fn object<T: DeserializeOwned + Serialize>(mut manifest: Value) -> T {
        fn holds(whole: &Value, part: &Value) -> bool {
            match (whole, part) {
                (Value::Object(whole), Value::Object(part)) => {
                    part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| holds(whole, part)))
                }
                (Value::Array(whole), Value::Array(part)) => {
                    whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| holds(whole, part))
                }
                (whole, part) => whole == part,
            }
        }
        manifest["metadata"]["namespace"] = json!("erp");
        manifest["metadata"]["uid"] = json!("u-1");
        let object: T = serde_json::from_value(manifest.clone()).unwrap();
        let whole = serde_json::to_value(&object).unwrap();
        assert!(holds(&whole, &manifest), "a field of {manifest:#} is not in {whole:#}");
        object
    }

    #[test]
    fn the_manifests_of_the_documentation_can_be_carried_out_as_they_stand() {
        let mut carried = 0;
        for path in ["README.md", "charts/towline/docs/remote-access.md", "charts/towline/docs/site-to-site.md"] {
            let text = std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            let between = |begin, end| text.split(begin).skip(1).filter_map(move |rest| rest.split(end).next());
            for block in between("```yaml\n", "\n```").chain(between("<<END\n", "\nEND\n")) {
                let manifests = block.split("\n---\n").map(|text| serde_saphyr::from_str::<Value>(text).unwrap());
                let (tunnels, rest): (Vec<_>, Vec<_>) = manifests.partition(|manifest| manifest["kind"] == "VpnTunnel");
                let users: Vec<VpnUser> =
                    rest.into_iter().filter(|manifest| manifest["kind"] == "VpnUser").map(object).collect();
                for tunnel in tunnels.into_iter().map(object::<VpnTunnel>) {
                    let roll = roll(&tunnel, users.iter().filter(|user| user.spec.tunnel_name == tunnel.name_any()));
                    assert_eq!(roll.verdicts.len(), users.len(), "a user of {path} names another tunnel");
                    assert!(roll.verdicts.values().all(|verdict| verdict.truth == Truth::True), "{:?}", roll.verdicts);
                    let built = objects(&tunnel, &roll, &pod::tests::settings(), "PEM");
                    let built = built.unwrap_or_else(|error| panic!("{path}: {error:?}\n{block}"));
                    assert!(built.homeless.is_empty(), "{path}: {:?}", built.homeless);
                    carried += 1;
                }
            }
        }
        assert_eq!(carried, 7);
    }

    #[test]
    fn the_server_that_runs_by_hand_in_the_readme_has_a_configuration_that_can_be_used() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
        let file = readme.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        towline_tunnel::config::parse_server(file).unwrap_or_else(|error| panic!("{error}"));
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
