//! Gateways that refuse every way of dialling but one, and what is remembered of it.

use std::time::Duration;

use towline_tunnel::buffer::{Carrier, Port};
use towline_tunnel::crypto::hash;
use towline_tunnel::ike::Identity;
use towline_tunnel::report::{Layer, Reason, State};
use towline_tunnel::suite::Hash;

use crate::network::Datagram;
use crate::world::{CLIENT, Setting, World};

/// NAT-D by the RFC and by its drafts (RFC 3947 section 3.2, draft-ietf-ipsec-nat-t-ike-02).
const NAT_D: [u8; 2] = [20, 130];
/// Identity Protection (RFC 2408 section 3.1).
const MAIN_MODE: u8 = 2;

/// Payloads with their types.
type Payloads<'a> = Vec<(u8, &'a [u8])>;

/// A client whose configuration names no proposals. Presets have MODP groups, which take their time.
const PRESETS: (&str, &str) = ("/esp", "{}");
const NAMED: (&str, &str) = ("/ike/localId", r#"{"type": "KeyId", "value": "branch.example.com"}"#);

/// A gateway that knows the client by the same text as another kind.
fn wants_a_name() -> Setting {
    let name = || Identity::Fqdn("branch.example.com".to_owned());
    Setting { config: &[NAMED], gateway_takes: Some(name), ..Setting::default() }
}

fn climbs(world: &World, facet: &str) -> u64 {
    world.client.counters().climbs.get(facet).copied().unwrap_or_default()
}

/// Lets the tunnel come up; returns the rung by which it did.
fn rung(world: &mut World) -> String {
    let ready = world.run(Duration::from_secs(400), |world| world.client.report().is_ready());
    assert!(ready, "{:#?}", world.client.report());
    world.negotiated().rung.clone().expect("a tunnel came up by some rung")
}

/// The gateway goes and comes back as `setting` has it, and the client notices.
fn replaced(world: &mut World, setting: &Setting) {
    world.gateway = None;
    assert!(world.run(Duration::from_secs(60), |world| world.reason(Layer::Peer).0 == State::Down));
    world.revive(setting);
}

/// The payloads of message 3 of Main Mode with their types, and the cookies; none of any other message.
fn message_3(datagram: &Datagram) -> Option<(Payloads<'_>, &[u8])> {
    let octets = datagram.octets.as_slice();
    let is_plain = octets.get(19)? & 1 == 0;
    let begins = octets.get(8..16)? == [0; 8];
    if datagram.carrier != Carrier::Udp(Port::Ike)
        || datagram.to != crate::network::Side::Gateway
        || begins
        || !is_plain
    {
        return None;
    }
    if *octets.get(18)? != MAIN_MODE {
        return None;
    }
    let (mut kind, mut rest, mut payloads) = (*octets.get(16)?, octets.get(28..)?, Vec::new());
    while kind != 0 {
        let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
        payloads.push((kind, rest.get(4..length)?));
        (kind, rest) = (*rest.first()?, rest.get(length..)?);
    }
    Some((payloads, octets.get(..16)?))
}

fn nat_d<'a>(payloads: &[(u8, &'a [u8])], kind: u8) -> Vec<&'a [u8]> {
    payloads.iter().filter(|(found, _)| *found == kind).map(|(_, body)| *body).collect()
}

/// Nobody hears a message with the numbers of the RFC.
fn deaf_to_the_rfc(datagram: &Datagram) -> bool {
    message_3(datagram).is_some_and(|(payloads, _)| !nat_d(&payloads, NAT_D[0]).is_empty())
}

/// Nobody hears a client whose own NAT-D says that there is a NAT, where there is none.
fn deaf_to_what_is_made_up(datagram: &Datagram) -> bool {
    message_3(datagram).is_some_and(|(payloads, cookies)| {
        let ports = [500].into_iter().chain(40_001..40_010);
        let true_ones: Vec<Vec<u8>> =
            ports.map(|port: u16| hash::digest(Hash::Sha1, &[cookies, &CLIENT, &port.to_be_bytes()])).collect();
        let said = NAT_D.iter().flat_map(|kind| nat_d(&payloads, *kind)).collect::<Vec<_>>();
        !said.iter().any(|body| true_ones.iter().any(|end| end == body))
    })
}

#[test]
fn the_first_rung_is_the_strongest_and_says_so() {
    let mut world = World::new(&Setting::default());
    assert_eq!(rung(&mut world), "configured proposals");
    assert!(world.client.counters().climbs.is_empty());
    let config = &[("/ike", r#"{"security": "Legacy"}"#), PRESETS];
    let gateway_proposals = &["aes256-sha1-modp1024", "aes256-sha256-modp2048"];
    let mut world = World::new(&Setting { config, gateway_proposals, ..Setting::default() });
    assert_eq!(rung(&mut world), "Strong proposals");
    assert_eq!(world.negotiated().ike.to_string(), "aes256-sha256-modp2048");
}

#[test]
fn older_algorithms_are_offered_after_a_refusal_and_never_beyond_what_is_allowed() {
    let old = &["aes256-sha1-modp1536"];
    let config = &[("/ike", r#"{"security": "Compatible"}"#), PRESETS];
    let mut world = World::new(&Setting { config, gateway_proposals: old, ..Setting::default() });
    assert_eq!(rung(&mut world), "Compatible proposals in phase 1 and Strong ones for ESP");
    assert_eq!((climbs(&world, "level"), world.client.counters().dials), (1, 2));
    // The climb is no outage.
    assert!(world.history.iter().all(|(_, state, _)| *state != State::Down), "{:?}", world.history);

    let config = &[("/ike", r#"{"security": "Strong"}"#), PRESETS];
    let mut world = World::new(&Setting { config, gateway_proposals: old, ..Setting::default() });
    assert!(world.run(Duration::from_secs(60), |world| world.reason(Layer::Ike).0 == State::Down));
    assert_eq!(world.reason(Layer::Ike).1, Reason::NoProposalChosen);
    assert_eq!((climbs(&world, "level"), world.client.counters().dials), (0, 1));
}

#[test]
fn older_algorithms_of_esp_are_no_reason_for_older_ones_of_phase_1() {
    let config = &[("/ike", r#"{"security": "Legacy"}"#), PRESETS];
    let gateway_proposals = &["aes256-sha1-modp1024", "aes256-sha256-modp2048"];
    let setting = Setting { config, gateway_proposals, gateway_esp: &["3des-sha1"], ..Setting::default() };
    let mut world = World::new(&setting);
    assert_eq!(rung(&mut world), "Strong proposals in phase 1 and Legacy ones for ESP");
    assert_eq!(world.negotiated().ike.to_string(), "aes256-sha256-modp2048");
}

#[test]
fn an_identity_that_is_refused_is_told_in_another_form() {
    let mut world = World::new(&wants_a_name());
    assert_eq!(rung(&mut world), "configured proposals, identity as Fqdn");
    assert_eq!((climbs(&world, "identity"), world.client.counters().dials, world.again), (1, 2, 1));
    // The last form is the address, and whoever wants something that is not true has to be told by a person.
    let address = || Identity::Address(CLIENT.into());
    let mut world = World::new(&Setting { gateway_takes: Some(address), ..wants_a_name() });
    assert_eq!(rung(&mut world), "configured proposals, identity as own Address");
    assert_eq!(world.client.counters().dials, 3);
}

#[test]
fn a_gateway_that_takes_no_form_of_the_identity_is_told_with_all_that_was_tried_and_each_climb_is_bounded() {
    let other = || Identity::Fqdn("somebody-else.example.com".to_owned());
    let mut world = World::new(&Setting { gateway_takes: Some(other), ..wants_a_name() });
    assert!(world.run(Duration::from_secs(60), |world| world.reason(Layer::Ike).0 == State::Down));
    assert_eq!(world.reason(Layer::Ike).1, Reason::InvalidIdentity);
    let message = world.message(Layer::Ike).to_owned();
    assert!(message.contains("INVALID-ID-INFORMATION") && message.contains("ike.localId"), "{message}");
    assert!(message.ends_with("Tried as well: identity as Fqdn; identity as own Address."), "{message}");
    assert_eq!((world.client.counters().dials, world.client.report().failed_attempts), (3, 1));
    // The second climb is another three after a wait, from the first form on, and says the same.
    assert!(world.run(Duration::from_secs(60), |world| world.client.report().failed_attempts == 2));
    assert_eq!((world.client.counters().dials, climbs(&world, "identity"), world.again), (6, 4, 4));
    assert_eq!(world.message(Layer::Ike), message);
    let downs = world.history.iter().filter(|(layer, state, _)| (*layer, *state) == (Layer::Ike, State::Down)).count();
    assert_eq!(downs, 1);
}

#[test]
fn a_tunnel_without_an_identity_of_its_own_has_no_other_form_to_try() {
    let name = || Identity::Fqdn("branch.example.com".to_owned());
    let mut world = World::new(&Setting { gateway_takes: Some(name), ..Setting::default() });
    assert!(world.run(Duration::from_secs(60), |world| world.reason(Layer::Ike).0 == State::Down));
    assert_eq!((world.reason(Layer::Ike).1, world.client.counters().dials), (Reason::InvalidIdentity, 1));
}

#[test]
fn the_numbers_of_the_drafts_are_for_those_who_do_not_hear_those_of_the_rfc() {
    let mut world = World::new(&Setting::default());
    world.network.blocked = deaf_to_the_rfc;
    assert_eq!(rung(&mut world), "configured proposals, NAT payloads of the drafts");
    assert_eq!(climbs(&world, "nat_payloads"), 1);
}

#[test]
fn the_truth_about_nats_is_for_those_who_do_not_hear_anything_else() {
    let mut world = World::new(&Setting::default());
    world.network.blocked = deaf_to_what_is_made_up;
    assert_eq!(rung(&mut world), "configured proposals, NAT payloads that make no NAT up");
    assert_eq!(climbs(&world, "nat_payloads"), 2);
    assert!(world.exchange());
}

#[test]
fn a_fresh_exchange_is_a_rung_of_its_own_and_needs_no_second_dial() {
    let mut world =
        World::new(&Setting { config: &[PRESETS], gateway_esp: &["aes128-sha256-ecp256"], ..Setting::default() });
    assert_eq!(rung(&mut world), "Strong proposals for ESP, ecp256 in phase 2 (PFS)");
    assert_eq!((climbs(&world, "pfs"), world.client.counters().dials), (1, 1));
}

#[test]
fn other_source_ports_are_a_rung_that_is_remembered() {
    let mut world = World::new(&Setting::default());
    world.network.blocked = |datagram| datagram.client_port == 500;
    assert_eq!(rung(&mut world), "configured proposals, fresh source ports");
    let port = world.client_port;
    replaced(&mut world, &Setting::default());
    assert_eq!(rung(&mut world), "configured proposals, fresh source ports");
    assert!(world.client_port > port, "fresh ones each time");
}

#[test]
fn the_next_dial_begins_with_the_rung_that_worked() {
    let mut world = World::new(&wants_a_name());
    let first = rung(&mut world);
    replaced(&mut world, &wants_a_name());
    assert_eq!(rung(&mut world), first);
    assert_eq!(climbs(&world, "identity"), 1, "nothing was refused a second time");
    // A new Secret says nothing about the gateway.
    world.gateway = None;
    assert!(world.run(Duration::from_secs(60), |world| world.reason(Layer::Peer).0 == State::Down));
    world.client.credentials_changed(world.now);
    world.drain();
    world.revive(&wants_a_name());
    assert_eq!(rung(&mut world), first);
    assert_eq!(climbs(&world, "identity"), 1);
}

#[test]
fn a_rung_that_works_no_more_is_forgotten_and_all_begins_with_the_first() {
    let mut world = World::new(&wants_a_name());
    rung(&mut world);
    let as_configured = || Identity::KeyId(b"branch.example.com".to_vec());
    replaced(&mut world, &Setting { gateway_takes: Some(as_configured), ..wants_a_name() });
    assert_eq!(rung(&mut world), "configured proposals");
    assert_eq!((climbs(&world, "identity"), climbs(&world, "memory")), (1, 1));
}

#[test]
fn a_new_configuration_begins_with_the_first_rung() {
    let mut world = World::new(&wants_a_name());
    rung(&mut world);
    let config = Setting { lives: (600, 100), ..wants_a_name() }.config();
    world.client.apply(world.now, &config);
    world.drain();
    assert!(world.run(Duration::from_secs(60), |world| climbs(world, "identity") == 2));
    assert_eq!(rung(&mut world), "configured proposals, identity as Fqdn");
}

#[test]
fn a_wrong_key_is_no_reason_to_climb() {
    let mut world = World::new(&Setting { gateway_psk: "another", config: &[NAMED], ..Setting::default() });
    assert!(world.run(Duration::from_secs(120), |world| world.reason(Layer::Ike).0 == State::Down));
    assert_eq!(world.reason(Layer::Ike).1, Reason::AuthenticationFailed);
    assert_eq!((world.client.counters().dials, world.client.counters().climbs.len()), (1, 0));
}
