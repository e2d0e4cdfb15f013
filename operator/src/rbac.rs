//! What the chart's roles let the operator do, for tests: the scripted API server refuses the rest.

use serde::Deserialize;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/towline/templates/rbac.yaml");
/// What stands for each value that Helm fills in: the name of the release and of its objects.
const RELEASE: &str = "towline";
/// Where the release is.
const NAMESPACE: &str = "towline-system";

#[derive(Debug, Deserialize)]
struct Role {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
}

/// A rule of a role.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
    verbs: Vec<String>,
}

/// A request, as the API server judges it.
struct Attributes<'a> {
    verb: &'a str,
    group: &'a str,
    namespace: Option<&'a str>,
    resource: String,
    name: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    /// Of `METHOD /api/VERSION/…` or `METHOD /apis/GROUP/VERSION/…`.
    fn of(question: &'a str) -> Option<Self> {
        let (method, path) = question.split_once(' ')?;
        let mut parts = path.trim_start_matches('/').split('/');
        let group = if parts.next()? == "api" { "" } else { parts.next()? };
        let mut parts = parts.skip(1).peekable();
        let namespace = parts.next_if_eq(&"namespaces").and_then(|_| parts.next());
        let (kind, name, part) = (parts.next()?, parts.next(), parts.next());
        let resource = part.map_or_else(|| kind.to_owned(), |part| format!("{kind}/{part}"));
        let verb = match (method, name) {
            ("GET", Some(_)) => "get",
            ("GET", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", _) => "delete",
            _ => return None,
        };
        Some(Self { verb, group, namespace, resource, name })
    }
}

impl Rule {
    fn allows(&self, asked: &Attributes<'_>) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|entry| entry == word);
        has(&self.api_groups, asked.group)
            && has(&self.resources, &asked.resource)
            && has(&self.verbs, asked.verb)
            && (self.resource_names.is_empty() || asked.name.is_some_and(|name| has(&self.resource_names, name)))
    }
}

/// The operator's own roles, with everything that a value can switch on.
fn roles() -> Vec<Role> {
    let text = std::fs::read_to_string(CHART).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("{{-")).map(filled);
    let documents = lines.collect::<Vec<_>>().join("\n");
    let roles = documents.split("\n---\n").map(|document| serde_saphyr::from_str::<Role>(document).unwrap());
    roles.filter(|role| role.kind.ends_with("Role") && role.metadata.name == RELEASE).collect()
}

fn filled(line: &str) -> String {
    let mut filled = line.to_owned();
    while let (Some(begin), Some(end)) = (filled.find("{{"), filled.find("}}")) {
        filled.replace_range(begin..end + 2, RELEASE);
    }
    filled
}

/// Whether the operator may ask the API server this, a `METHOD path`.
pub(crate) fn allows(question: &str) -> bool {
    let Some(asked) = Attributes::of(question) else { return false };
    let reaches = |role: &Role| role.kind == "ClusterRole" || asked.namespace == Some(NAMESPACE);
    roles().iter().filter(|role| reaches(role)).any(|role| role.rules.iter().any(|rule| rule.allows(&asked)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_a_user_can_be_read_and_nothing_of_a_user_can_be_removed() {
        for (question, is_allowed) in [
            ("GET /api/v1/namespaces/erp/secrets/oslo-vpn", false),
            ("GET /api/v1/namespaces/towline-system/secrets", false),
            ("GET /api/v1/namespaces/towline-system/secrets/other", false),
            ("GET /api/v1/namespaces/towline-system/secrets/towline-tls", true),
            ("DELETE /apis/towline.dev/v1alpha1/namespaces/erp/vpntunnels/oslo", false),
            ("PATCH /apis/towline.dev/v1alpha1/namespaces/erp/vpntunnels/oslo", false),
            ("PATCH /apis/towline.dev/v1alpha1/namespaces/erp/vpntunnels/oslo/status", true),
            ("DELETE /apis/towline.dev/v1alpha1/namespaces/erp/vpnusers/alice", false),
            ("PATCH /apis/towline.dev/v1alpha1/namespaces/erp/vpnusers/alice", false),
            ("PATCH /apis/towline.dev/v1alpha1/namespaces/erp/vpnusers/alice/status", true),
            ("DELETE /api/v1/namespaces/erp/services/oslo-web", true),
            ("DELETE /api/v1/namespaces/erp/configmaps/towline-oslo", false),
            ("DELETE /apis/apps/v1/namespaces/erp/deployments/towline-oslo", false),
            ("DELETE /api/v1/namespaces/erp/pods/web-1", false),
            ("POST /api/v1/namespaces/erp/pods/web-1/exec", false),
        ] {
            assert_eq!(allows(question), is_allowed, "{question}");
        }
    }

    #[test]
    fn every_rule_names_what_it_is_about() {
        for role in roles() {
            for rule in &role.rules {
                assert!(
                    [&rule.api_groups, &rule.resources, &rule.verbs]
                        .iter()
                        .all(|list| !list.iter().any(|word| word == "*"))
                );
                let is_secret = rule.resources.iter().any(|resource| resource == "secrets");
                assert!(!is_secret || role.kind == "Role", "Secrets of every namespace: {rule:?}");
            }
        }
        assert_eq!(roles().len(), 2);
    }
}
