//! What the files of a server's configuration hold. One that cannot be read takes away what it is for, and nothing else: a user
//! without a password cannot come in, and everybody else can.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::PppAuth;
use crate::config::server::Server as Config;
use crate::ike;
use crate::io::certificate;
use crate::io::dial::{Unusable, read_secret, read_text};
use crate::io::lifecycle::seed;
use crate::report::Reason;
use crate::stack::server::Secrets;
use crate::users::{User, Users};

/// Reads every file; returns what is wrong as well, or with [`Reason::CredentialsRead`] what is neglected.
pub(super) fn read(config: &Config) -> (Secrets, Option<(Reason, String)>) {
    let mut problems: Vec<Unusable> = Vec::new();
    let mut keys = Vec::new();
    for key in &config.credentials.pre_shared_keys {
        match read_secret(&key.file) {
            Ok(secret) => keys.push(ike::PreSharedKey {
                name: key.file.source.clone().unwrap_or_else(|| key.file.path.display().to_string()),
                key: secret,
                addresses: key.addresses.clone(),
                remote_id: key.remote_id.as_ref().map(ike::Identity::from),
            }),
            Err(problem) => problems.push(problem),
        }
    }
    let mut warnings = Vec::new();
    let certificate = config.credentials.certificate.as_ref().and_then(|files| {
        let names = files.remote_id.as_ref().map(ike::Identity::from).into_iter().collect();
        match certificate::read(files, names) {
            Ok(certificate) => {
                warnings = certificate::warnings(files, &certificate);
                Some(certificate)
            }
            Err(problem) => {
                problems.push(problem);
                None
            }
        }
    });
    let tunnel = config.credentials.tunnel_secret.as_ref().map(read_secret).transpose();
    let tunnel = tunnel.unwrap_or_else(|problem| {
        problems.push(problem);
        // With none at all everybody would come in, and with one that nobody has nobody does.
        seed().ok().map(|secret| Zeroizing::new(secret.to_vec()))
    });
    let eap = config.ppp.auth.contains(&PppAuth::Eap);
    let eap_tls = config.credentials.certificate.as_ref().filter(|_| eap).and_then(|files| {
        let read = certificate::read_eap_tls(files);
        read.map_err(|problem| problems.push(problem)).ok()
    });
    let mut users = Vec::new();
    for user in &config.users {
        let password = user.password.as_ref().map(read_text).transpose().unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        users.push(User::new(user, password));
    }
    let neglected = (!warnings.is_empty()).then_some(Reason::CredentialsRead);
    let reason = problems.first().map(|problem| problem.reason).or(neglected);
    let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).chain(warnings).collect();
    let ike = Arc::new(ike::Credentials { pre_shared_keys: keys, certificate, xauth: None });
    let secrets = Secrets { ike, tunnel, users: Users::new(users), eap_tls };
    (secrets, reason.map(|reason| (reason, messages.join(" "))))
}
