//! Keys and certificates of a cluster, made by `openssl`: one authority that signs for everything.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::Settings;
use crate::process::run;

/// Validity. A local cluster is younger; the harness makes new ones each time.
const DAYS: &str = "30";

/// Arguments for a new unencrypted P-256 key: signing with it is ten times faster than with RSA.
const NEW_KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"];

/// The smallest configuration that `openssl req` takes: it adds no extension by itself.
const CONFIGURATION: &str = "[req]\ndistinguished_name = name\n[name]\n";

/// Who gets a certificate from the cluster's authority.
struct Holder {
    /// Name of its files.
    file: &'static str,
    common_name: String,
    organisation: Option<&'static str>,
    /// Names and addresses that it serves, as `subjectAltName` takes them.
    serves: Option<String>,
}

/// Writes `ca`, one pair per holder, and the key that signs ServiceAccount tokens, each as `.key` and `.crt` or `.pub`.
pub(super) fn write(folder: &Path, settings: &Settings) -> Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    fs::write(folder.join("openssl.cnf"), CONFIGURATION)?;

    let mut authority = request(folder, "ca", &format!("/CN={}", settings.node));
    authority.args(["-addext", "basicConstraints=critical,CA:TRUE"]);
    run(authority.args(["-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature"]))?;

    for holder in holders(settings) {
        let organisation = holder.organisation.map(|name| format!("/O={name}")).unwrap_or_default();
        let mut leaf = request(folder, holder.file, &format!("{organisation}/CN={}", holder.common_name));
        leaf.args(["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]);
        leaf.args(["-addext", "extendedKeyUsage=serverAuth,clientAuth"]);
        if let Some(names) = holder.serves {
            leaf.args(["-addext", &format!("subjectAltName={names}")]);
        }
        run(&mut leaf)?;
    }

    let openssl = |arguments: &[&str]| run(Command::new("openssl").current_dir(folder).args(arguments));
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "sa.key"])?;
    openssl(&["pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub"])?;
    Ok(())
}

fn request(folder: &Path, file: &str, subject: &str) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(["req", "-x509", "-config", "openssl.cnf", "-days", DAYS]).args(NEW_KEY);
    command.args(["-keyout", &format!("{file}.key"), "-out", &format!("{file}.crt"), "-subj", subject]);
    command
}

fn holders(settings: &Settings) -> Vec<Holder> {
    let Settings { name, address, .. } = settings;
    let api = format!(
        "IP:{address},IP:127.0.0.1,IP:{},DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,\
         DNS:kubernetes.default.svc.cluster.local",
        settings.api_service()
    );
    let client = |file, common_name: &str, organisation| Holder {
        file,
        common_name: common_name.to_owned(),
        organisation,
        serves: None,
    };
    vec![
        Holder { serves: Some(api), ..client("apiserver", "kube-apiserver", None) },
        Holder {
            serves: Some(format!("IP:{address},DNS:{name}")),
            ..client("kubelet", &format!("system:node:{name}"), Some("system:nodes"))
        },
        client("admin", "admin", Some("system:masters")),
        client("controller-manager", "system:kube-controller-manager", None),
        client("scheduler", "system:kube-scheduler", None),
        client("proxy", "system:kube-proxy", None),
        // The API server itself, when it passes requests on to an aggregated one.
        client("front-proxy", "front-proxy", None),
    ]
}
