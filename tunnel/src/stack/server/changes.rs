//! A changed configuration or a changed secret under sessions that are up: what can stay stays.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use super::session::EndCause;
use super::{SPARE_PEERS, Secrets, Server};
use crate::config::server::Server as Config;
use crate::stack::settings;

/// Addresses that no client of a pool gets: ours, and those of users.
pub(super) fn reserved(config: &Config) -> BTreeSet<Ipv4Addr> {
    config.users.iter().filter_map(|user| user.address).chain([config.addresses.local]).collect()
}

impl Server {
    /// Takes on a new configuration with its secrets. What was negotiated stays as it is; users who may not come in any more, or
    /// whose address or networks are others, go.
    pub fn apply(&mut self, now: Instant, config: Config, secrets: Secrets) {
        self.report.revision.clone_from(&config.revision);
        self.report.rejected_revision = None;
        self.report_changed = true;
        self.pool.configure(&config.addresses.pools, reserved(&config));
        self.prefixes.configure(config.addresses.ipv6_pool);
        self.slots.set_most(usize::try_from(config.limits.sessions).unwrap_or(usize::MAX).saturating_add(SPARE_PEERS));
        let gone: Vec<String> =
            self.results.keys().filter(|name| !config.users.iter().any(|user| user.name == **name)).cloned().collect();
        gone.iter().for_each(|name| drop(self.results.remove(name)));
        *self.config = config;
        self.secrets_changed(now, secrets);
    }

    /// Takes on changed secrets: for those who come from here on, and for renewals of phase 1.
    pub fn secrets_changed(&mut self, now: Instant, secrets: Secrets) {
        let known: Vec<u64> = self.by_user.values().flatten().copied().collect();
        let old = std::mem::replace(&mut self.secrets, secrets);
        self.dhcp = settings::dhcp(&self.config);
        self.lns = Arc::new(settings::lns(&self.config, self.secrets.tunnel.clone()));
        self.responder.configure(settings::responder(&self.config, &self.secrets.ike, self.export_keys));
        for slot in self.slots.all() {
            let credentials = Arc::clone(&self.secrets.ike);
            if let Some(peer) = self.slots.get_mut(slot) {
                peer.set_credentials(credentials);
            }
        }
        for session in known {
            self.review(now, session, &old);
        }
        self.count_sessions();
    }

    /// Ends a session whose user may not have it any more, or changes what the user may do.
    fn review(&mut self, now: Instant, session: u64, old: &Secrets) {
        let unix = self.unix(now);
        let Some(slot) = self.sessions.get(&session).copied() else { return };
        let peer = self.slots.get_mut(slot);
        let Some(admitted) = peer.and_then(|peer| peer.session_mut(session)).and_then(|held| held.admitted.as_mut())
        else {
            return;
        };
        let name = &admitted.grant.name;
        match self.secrets.users.grant(unix, name) {
            // A user of a RADIUS server, which has its own way to end a session.
            None if old.users.grant(unix, name).is_none() => {}
            Some(Ok(grant)) if grant.address == admitted.grant.address && grant.networks == admitted.grant.networks => {
                admitted.renew(now, grant);
            }
            None | Some(_) => drop(self.end_session(now, session, EndCause::Revoked)),
        }
    }
}
