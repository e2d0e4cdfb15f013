//! Status: what people see of a tunnel, its conditions first and then the events about them.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use towline_tunnel::report::Reason;
use tracing::{debug, info};

use super::{Context, Error, api};
use crate::api::condition::{ConditionType, Truth, Verdict, find};
use crate::api::label;
use crate::api::tunnel::VpnTunnelStatus;
use crate::api::user::VpnUserStatus;
use crate::api::{VpnTunnel, VpnUser};
use crate::cache::{Tunnel, User};

/// The longest note of an event, in characters; the API server takes 1024 octets.
const MAX_NOTE: usize = 500;

/// Numbers of sessions that changed are written as often as this at most: people come and go all the time.
const PACE: Duration = Duration::from_secs(30);

/// What passes by itself while a tunnel comes up is no news.
const PASSING: [Reason; 9] = [
    Reason::Pending,
    Reason::PodsPending,
    Reason::RollingOut,
    Reason::NoPods,
    Reason::Negotiating,
    Reason::WaitingForLowerLayer,
    Reason::ResolvingPeer,
    Reason::BackingOff,
    Reason::AddressPending,
];

/// The status that was written last.
#[derive(Default)]
pub(super) struct Told {
    status: Option<VpnTunnelStatus>,
    /// When.
    at: Option<Instant>,
    /// The version of the tunnel that it was made from: until the watch brings another, the tunnel's own status is older.
    of: Option<String>,
    /// Of what was written about a tunnel that cannot be read.
    unreadable: Option<u64>,
}

impl Told {
    /// The status of `tunnel`, also when the watch has not brought it yet.
    pub(super) fn status<'a>(&'a self, tunnel: &'a VpnTunnel) -> Option<&'a VpnTunnelStatus> {
        let newer = self.status.as_ref().filter(|_| self.of.is_some() && self.of == tunnel.resource_version());
        newer.or(tunnel.status.as_ref())
    }

    /// How long `new` has to wait because nothing of it is new but the number of sessions.
    fn pause(&self, old: Option<&VpnTunnelStatus>, new: &VpnTunnelStatus, now: Instant) -> Option<Duration> {
        let is_same = old.is_some_and(|old| *new == counted_as(new, old));
        let left = PACE.saturating_sub(now.saturating_duration_since(self.at.filter(|_| is_same)?));
        (!left.is_zero()).then_some(left)
    }
}

/// The status `old` with the numbers of sessions of `new`: how many there are, and how many are weak, if any were.
fn counted_as(new: &VpnTunnelStatus, old: &VpnTunnelStatus) -> VpnTunnelStatus {
    let mut counted = VpnTunnelStatus { sessions: new.sessions, ..old.clone() };
    let kind = ConditionType::WeakCrypto;
    let weak = counted.conditions.iter_mut().find(|condition| condition.type_ == kind.name());
    if let Some((weak, now)) = weak.zip(find(&new.conditions, kind))
        && new.sessions.is_some()
    {
        weak.message.clone_from(&now.message);
    }
    counted
}

/// Writes the status if it is another than before, and tells people what changed. Returns how long it waits with a new number of
/// sessions.
pub(super) async fn status(
    tunnel: &VpnTunnel,
    context: &Context,
    new: VpnTunnelStatus,
    told: &mut Told,
) -> Result<Option<Duration>, Error> {
    let old = told.status(tunnel);
    if old == Some(&new) {
        return Ok(None);
    }
    if let Some(pause) = told.pause(old, &new, Instant::now()) {
        return Ok(Some(pause));
    }
    let events = events(old, &new);
    write::<Tunnel>(&tunnel.namespace().unwrap_or_default(), &tunnel.name_any(), context, &new).await?;
    *told = Told { status: Some(new), at: Some(Instant::now()), of: tunnel.resource_version(), unreadable: None };
    for event in events {
        info!(namespace = tunnel.namespace(), tunnel = tunnel.name_any(), reason = event.reason, "told as an event");
        publish(context, &event, &tunnel.object_ref(&())).await;
    }
    Ok(None)
}

/// The statuses of users that were written last, by the names of their objects, each with the version that it was made from.
pub(super) type ToldUsers = BTreeMap<String, (Option<String>, VpnUserStatus)>;

/// Writes the status of each user that is another than before, and tells people who is not let in any more.
pub(super) async fn users(
    users: &[Arc<User>],
    context: &Context,
    new: impl Fn(&VpnUser, Option<&VpnUserStatus>) -> VpnUserStatus,
    told: &mut ToldUsers,
) -> Result<(), Error> {
    told.retain(|name, _| users.iter().any(|user| user.name_any() == *name));
    for user in users.iter().filter_map(|user| user.0.as_ref().ok()) {
        let (name, version) = (user.name_any(), user.resource_version());
        let newer = told.get(&name).filter(|(of, _)| of.is_some() && *of == version).map(|(_, status)| status);
        let old = newer.or(user.status.as_ref());
        let new = new(user, old);
        if old == Some(&new) {
            continue;
        }
        let event = user_event(old, &new);
        write::<User>(&user.namespace().unwrap_or_default(), &name, context, &new).await?;
        told.insert(name, (version, new));
        if let Some(event) = event {
            info!(namespace = user.namespace(), user = user.name_any(), reason = event.reason, "told as an event");
            publish(context, &event, &user.object_ref(&())).await;
        }
    }
    Ok(())
}

/// What people are told of a user: that it is not let in, and why.
fn user_event(old: Option<&VpnUserStatus>, new: &VpnUserStatus) -> Option<Event> {
    let now = find(&new.conditions, ConditionType::Accepted)?;
    let before = old.and_then(|old| find(&old.conditions, ConditionType::Accepted));
    let is_known = before.is_some_and(|before| before.status == now.status && before.reason == now.reason);
    (now.status != Truth::True.name() && !is_known).then(|| event(now, "Accept"))
}

/// Says of a tunnel that it cannot be read.
pub(super) async fn unreadable(tunnel: &InvalidObject, context: &Context, told: &mut Told) -> Result<Action, Error> {
    let mut hasher = DefaultHasher::new();
    (&tunnel.error, tunnel.metadata.generation).hash(&mut hasher);
    let digest = Some(hasher.finish());
    if told.unreadable != digest {
        let problem = format!(
            "This version of the operator cannot read the VpnTunnel: {}. Correct the field, or upgrade the operator.",
            tunnel.error
        );
        let verdict = Verdict::no(Reason::InvalidSpec, problem);
        let condition = |kind| verdict.condition(kind, &[], tunnel.metadata.generation, Timestamp::now());
        let conditions = json!({"conditions": [condition(ConditionType::Accepted), condition(ConditionType::Ready)]});
        let (namespace, name) = (&tunnel.metadata.namespace, &tunnel.metadata.name);
        let of = |part: &Option<String>| part.clone().unwrap_or_default();
        write::<Tunnel>(&of(namespace), &of(name), context, &conditions).await?;
        *told = Told { unreadable: digest, ..Told::default() };
    }
    Ok(Action::await_change())
}

/// Writes the status of a tunnel or of a user, which both may be such as cannot be read: neither can the answer then.
async fn write<K>(namespace: &str, name: &str, context: &Context, status: &impl Serialize) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let objects: Api<K> = Api::namespaced(context.client.clone(), namespace);
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply(label::OPERATOR).force();
    match objects.patch_status(name, &params, &Patch::Apply(patch)).await {
        // Deleted meanwhile.
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(()),
        written => written.map(drop).map_err(api("write the status")),
    }
}

async fn publish(context: &Context, event: &Event, object: &ObjectReference) {
    if let Err(error) = context.recorder.publish(event, object).await {
        debug!(%error, "an event could not be written");
    }
}

/// What people are told of a change: a specification that is refused, objects that cannot be written, `Ready`, and what is weak.
fn events(old: Option<&VpnTunnelStatus>, new: &VpnTunnelStatus) -> Vec<Event> {
    let before = |kind| old.and_then(|old| find(&old.conditions, kind));
    let changed = |kind| {
        let now = find(&new.conditions, kind)?;
        let same = before(kind).is_some_and(|old| old.status == now.status && old.reason == now.reason);
        (!same).then_some(now)
    };
    let mut events = Vec::new();
    for kind in [ConditionType::Accepted, ConditionType::Provisioned] {
        if let Some(condition) = changed(kind)
            && [Reason::InvalidSpec, Reason::ApplyFailed].iter().any(|reason| reason.name() == condition.reason)
            && !events.iter().any(|event: &Event| event.reason == condition.reason)
        {
            events.push(event(condition, "Apply"));
        }
    }
    if let Some(ready) = changed(ConditionType::Ready) {
        let is_up = ready.status == Truth::True.name();
        let was_up = before(ConditionType::Ready).is_some_and(|old| old.status == Truth::True.name());
        let passes = PASSING.iter().any(|reason| reason.name() == ready.reason);
        let known = events.iter().any(|event| event.reason == ready.reason);
        if !known && (is_up || was_up || !passes) {
            events.push(event(ready, if is_up { "Connect" } else { "Disconnect" }));
        }
    }
    if let Some(weak) = changed(ConditionType::WeakCrypto).filter(|weak| weak.status == Truth::True.name()) {
        events.push(Event { type_: EventType::Warning, ..event(weak, "Negotiate") });
    }
    events
}

fn event(condition: &Condition, action: &str) -> Event {
    Event {
        type_: if condition.status == Truth::True.name() { EventType::Normal } else { EventType::Warning },
        reason: condition.reason.clone(),
        note: Some(condition.message.chars().take(MAX_NOTE).collect()),
        action: action.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(verdicts: &[(ConditionType, Verdict)]) -> VpnTunnelStatus {
        let condition =
            |(kind, verdict): &(ConditionType, Verdict)| verdict.condition(*kind, &[], None, Timestamp::UNIX_EPOCH);
        VpnTunnelStatus { conditions: verdicts.iter().map(condition).collect(), ..VpnTunnelStatus::default() }
    }

    /// Reasons of the events of a change.
    fn told(old: Option<&VpnTunnelStatus>, new: &VpnTunnelStatus) -> Vec<String> {
        events(old, new).into_iter().map(|event| event.reason).collect()
    }

    #[test]
    fn ready_is_told_when_it_comes_and_goes_and_what_passes_by_itself_is_not() {
        use ConditionType::Ready;
        let up = status(&[(Ready, Verdict::yes(Reason::ProbeSucceeded, ""))]);
        let waits = status(&[(Ready, Verdict::no(Reason::Negotiating, ""))]);
        let down = status(&[(Ready, Verdict::no(Reason::PeerSilent, ""))]);
        assert_eq!(told(None, &waits), [""; 0]);
        assert_eq!(told(Some(&waits), &up), ["ProbeSucceeded"]);
        assert_eq!(told(Some(&up), &up), [""; 0]);
        assert_eq!(told(Some(&up), &waits), ["Negotiating"]);
        assert_eq!(told(Some(&waits), &down), ["PeerSilent"]);
        // A load balancer takes its time.
        assert_eq!(told(Some(&waits), &status(&[(Ready, Verdict::no(Reason::AddressPending, ""))])), [""; 0]);
    }

    #[test]
    fn a_refused_specification_and_objects_that_cannot_be_written_are_told_once() {
        use ConditionType::{Accepted, Provisioned, Ready};
        let invalid = |text: &str| Verdict::no(Reason::InvalidSpec, text);
        let refused =
            status(&[(Accepted, invalid("fix it")), (Provisioned, invalid("fix it")), (Ready, invalid("fix it"))]);
        assert_eq!(told(None, &refused), ["InvalidSpec"]);
        let good = |provisioned| status(&[(Accepted, Verdict::yes(Reason::Valid, "")), (Provisioned, provisioned)]);
        let rejected = good(invalid("the pod refuses it"));
        assert_eq!(told(Some(&good(Verdict::yes(Reason::PodsReady, ""))), &rejected), ["InvalidSpec"]);
        let failed = good(Verdict::no(Reason::ApplyFailed, "quota"));
        assert_eq!(told(Some(&rejected), &failed), ["ApplyFailed"]);
        assert_eq!(told(Some(&failed), &failed), [""; 0]);
    }

    #[test]
    fn a_number_of_sessions_waits_its_turn_and_whatever_else_is_new_does_not() {
        let began = Instant::now();
        let with = |sessions| VpnTunnelStatus { sessions: Some(sessions), ..VpnTunnelStatus::default() };
        let told = Told { status: Some(with(1)), at: Some(began), ..Told::default() };
        let pause =
            |new: &VpnTunnelStatus, seconds| told.pause(Some(&with(1)), new, began + Duration::from_secs(seconds));
        assert_eq!(pause(&with(2), 12), Some(Duration::from_secs(18)));
        assert_eq!(pause(&with(2), 30), None);
        assert_eq!(pause(&VpnTunnelStatus { observed_generation: Some(2), ..with(2) }, 1), None);
        assert_eq!(Told::default().pause(Some(&with(1)), &with(2), began), None);
    }

    #[test]
    fn weak_crypto_is_a_warning_once_and_its_end_is_none() {
        use ConditionType::{Ready, WeakCrypto};
        let with = |verdict| status(&[(Ready, Verdict::yes(Reason::ProbeSucceeded, "")), (WeakCrypto, verdict)]);
        let weak = |words: &str| with(Verdict::yes(Reason::WeakCrypto, words));
        let sound = with(Verdict::no(Reason::NoWeakness, ""));
        let unknown = with(Verdict::unknown(Reason::Pending, ""));
        for before in [&sound, &unknown] {
            let events = events(Some(before), &weak("2 of 3 sessions"));
            assert_eq!(events.len(), 1);
            assert!(matches!(events[0].type_, EventType::Warning));
            assert_eq!((events[0].reason.as_str(), events[0].note.as_deref()), ("WeakCrypto", Some("2 of 3 sessions")));
        }
        assert_eq!(told(Some(&weak("2 of 3 sessions")), &weak("1 of 3 sessions")), [""; 0]);
        assert_eq!(told(Some(&weak("")), &sound), [""; 0]);
    }

    #[test]
    fn a_number_of_weak_sessions_waits_with_the_others_and_the_first_of_them_does_not() {
        let began = Instant::now();
        let with = |sessions, verdict| VpnTunnelStatus {
            sessions: Some(sessions),
            ..status(&[(ConditionType::WeakCrypto, verdict)])
        };
        let weak = |sessions| with(sessions, Verdict::yes(Reason::WeakCrypto, format!("1 of {sessions} sessions")));
        let told = Told { status: Some(weak(1)), at: Some(began), ..Told::default() };
        assert_eq!(told.pause(Some(&weak(1)), &weak(2), began), Some(PACE));
        let sound = with(1, Verdict::no(Reason::NoWeakness, "No session is weak."));
        let told = Told { status: Some(sound.clone()), at: Some(began), ..Told::default() };
        assert_eq!(told.pause(Some(&sound), &weak(1), began), None);
    }

    #[test]
    fn a_note_is_short_enough_for_the_api_server() {
        let long = status(&[(ConditionType::Ready, Verdict::no(Reason::PeerSilent, "ä".repeat(3_000)))]);
        assert!(events(None, &long)[0].note.as_ref().unwrap().len() <= 1_024);
    }
}
