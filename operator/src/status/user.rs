//! What a `VpnUser`'s status says, from what its server's pod tells. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use towline_tunnel::report::UserReport;

use super::{Pod, time};
use crate::api::condition::{ConditionType, Truth, Verdict};
use crate::api::user::{VpnUser, VpnUserStatus};

/// Of attempts that end alike within this many seconds only the first is told: somebody who tries passwords must not make the
/// operator write as fast.
const GRAIN_SECONDS: i64 = 30;
/// The longest result that is told, in characters.
const MAX_RESULT: usize = 64;

/// How the last attempt of each user ended, by name.
pub type Attempts = BTreeMap<String, UserReport>;

/// What the pods of a server tell about its users; none while they are silent.
pub fn attempts(pods: &[Pod]) -> Option<Attempts> {
    if pods.iter().any(|pod| pod.running && pod.fresh().is_none()) {
        return None;
    }
    let users = pods.iter().filter_map(Pod::fresh).flat_map(|report| &report.users);
    Some(users.map(|user| (user.name.clone(), user.clone())).collect())
}

/// The status of a user.
pub fn status(
    user: &VpnUser,
    verdict: &Verdict,
    attempts: Option<&Attempts>,
    old: Option<&VpnUserStatus>,
    now: Timestamp,
) -> VpnUserStatus {
    let (generation, username) = (user.metadata.generation, user.username());
    let old_conditions = old.map(|old| old.conditions.as_slice()).unwrap_or_default();
    // Another user may have the name of one that is not let in.
    let is_in = verdict.truth == Truth::True;
    let attempt = attempts.and_then(|attempts| attempts.get(&username)).filter(|_| is_in);
    let sessions = match (attempt, attempts) {
        (Some(attempt), _) => Some(attempt.sessions),
        (None, None) if is_in => old.and_then(|old| old.sessions),
        (None, _) => Some(0),
    };
    let kept = VpnUserStatus {
        observed_generation: generation,
        conditions: vec![verdict.condition(ConditionType::Accepted, old_conditions, generation, now)],
        username: Some(username),
        sessions,
        last_attempt_time: old.and_then(|old| old.last_attempt_time.clone()),
        last_result: old.and_then(|old| old.last_result.clone()),
    };
    let Some(attempt) = attempt else { return kept };
    let result: String = attempt.result.chars().take(MAX_RESULT).collect();
    let new =
        VpnUserStatus { last_attempt_time: time(attempt.last_attempt), last_result: Some(result), ..kept.clone() };
    let seconds = |status: &VpnUserStatus| status.last_attempt_time.as_ref().map(|Time(time)| time.as_second());
    let is_soon = seconds(&new).zip(seconds(&kept)).is_some_and(|(new, old)| new.saturating_sub(old) < GRAIN_SECONDS);
    let is_alike = Some(&kept) == old && new.last_result == kept.last_result;
    if is_soon && is_alike { kept } else { new }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use towline_tunnel::report::Reason;

    use super::*;

    fn alice() -> VpnUser {
        serde_json::from_value(json!({
            "apiVersion": "towline.dev/v1alpha1", "kind": "VpnUser",
            "metadata": {"name": "alice", "namespace": "erp", "generation": 2},
            "spec": {"tunnelName": "road"},
        }))
        .unwrap()
    }

    fn told(sessions: u32, at: u64, result: &str) -> Attempts {
        let report = UserReport {
            name: "alice".to_owned(),
            sessions,
            last_attempt: at,
            accepted: sessions > 0,
            result: result.to_owned(),
        };
        Attempts::from([(report.name.clone(), report)])
    }

    fn judged(attempts: Option<&Attempts>, old: Option<&VpnUserStatus>) -> VpnUserStatus {
        status(&alice(), &Verdict::yes(Reason::Valid, "In."), attempts, old, Timestamp::UNIX_EPOCH)
    }

    fn attempted(status: &VpnUserStatus) -> Option<i64> {
        status.last_attempt_time.as_ref().map(|time| time.0.as_second())
    }

    #[test]
    fn the_last_attempt_and_the_sessions_are_told() {
        let status = judged(Some(&told(2, 100, "accepted")), None);
        assert_eq!((status.sessions, attempted(&status)), (Some(2), Some(100)));
        assert_eq!(status.last_result.as_deref(), Some("accepted"));
        assert_eq!((status.username.as_deref(), status.observed_generation), (Some("alice"), Some(2)));
    }

    #[test]
    fn a_new_pod_has_no_sessions_and_what_came_before_it_stays() {
        let before = judged(Some(&told(2, 100, "accepted")), None);
        let after = judged(Some(&Attempts::new()), Some(&before));
        assert_eq!((after.sessions, attempted(&after)), (Some(0), Some(100)));
        let silent = judged(None, Some(&before));
        assert_eq!(silent, before);
    }

    #[test]
    fn attempts_that_end_alike_in_quick_succession_are_told_once_and_another_end_is_told_at_once() {
        let before = judged(Some(&told(0, 100, "wrong_password")), None);
        assert_eq!(judged(Some(&told(0, 129, "wrong_password")), Some(&before)), before);
        assert_eq!(attempted(&judged(Some(&told(0, 130, "wrong_password")), Some(&before))), Some(130));
        assert_eq!(attempted(&judged(Some(&told(1, 101, "accepted")), Some(&before))), Some(101));
    }

    #[test]
    fn a_user_that_is_not_let_in_does_not_show_the_sessions_of_its_namesake() {
        let refused = Verdict::no(Reason::Conflict, "bob has the name");
        let status = status(&alice(), &refused, Some(&told(2, 100, "accepted")), None, Timestamp::UNIX_EPOCH);
        assert_eq!((status.sessions, status.last_result), (Some(0), None));
    }
}
