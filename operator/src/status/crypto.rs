//! The condition `WeakCrypto`: what of all that the pods have agreed on is weak.

use towline_tunnel::report::Reason;

use super::{Input, Pod};
use crate::api::condition::{ConditionType, Verdict, find};
use crate::api::tunnel::Mode;

/// Whether anything is weak that any of the pods has agreed on. While none has agreed on anything it stays as it was: a tunnel that
/// comes back as it went is no news.
pub(super) fn weak(input: &Input<'_>) -> Option<Verdict> {
    let reports = || input.pods.iter().filter(|pod| pod.running).filter_map(Pod::fresh);
    if input.tunnel.spec.mode == Mode::Server {
        let weak: Vec<_> = reports().filter_map(|report| report.weak_sessions.as_ref()).collect();
        let sum = |counts: &mut dyn Iterator<Item = u32>| counts.fold(0, u32::saturating_add);
        let all = sum(&mut reports().filter_map(|report| report.sessions));
        let count = sum(&mut weak.iter().map(|weak| weak.count));
        return match weak.first() {
            Some(first) => {
                let message = format!(
                    "{count} of {all} sessions are weak: {}. Which they are tells towline-tunnel status --sessions in the pod.",
                    first.weakness
                );
                Some(Verdict::yes(Reason::WeakCrypto, message))
            }
            None if reports().next().is_some() => Some(Verdict::no(Reason::NoWeakness, "No session is weak.")),
            None => unknown(input),
        };
    }
    // All of it is known as soon as there is an address.
    let agreed = || reports().filter(|report| report.assigned_address.is_some());
    let negotiated = || agreed().filter_map(|report| report.negotiated.as_ref());
    let weak: Vec<&str> = negotiated().filter_map(|negotiated| negotiated.weakness.as_deref()).collect();
    match weak.first() {
        Some(weakness) => {
            let pods = input.pods.len();
            let pods = if pods > 1 { format!("{} of {pods} pods: ", weak.len()) } else { String::new() };
            let advice = "Ask the gateway's administrator for better, and raise ike.security or name proposals then.";
            Some(Verdict::yes(Reason::WeakCrypto, format!("{pods}{weakness}. {advice}")))
        }
        None if negotiated().next().is_some() => {
            Some(Verdict::no(Reason::NoWeakness, "Nothing that was agreed on is weak."))
        }
        None => unknown(input),
    }
}

/// The condition as it is, or that nothing is known yet.
fn unknown(input: &Input<'_>) -> Option<Verdict> {
    let is_known = input.old.is_some_and(|old| find(&old.conditions, ConditionType::WeakCrypto).is_some());
    (!is_known).then(|| Verdict::unknown(Reason::Pending, "Nothing is agreed on yet."))
}
