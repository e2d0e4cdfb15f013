//! A SEIL as the server.
//!
//! | habit | known from |
//! |---|---|
//! | AVPs of SCCRP with their order, all of them mandatory, the vendor IIJ; a ZLB for SCCCN and ICCN and none elsewhere; PPP begins before ICCN is acknowledged; result codes of two octets | source of npppd, which is IIJ's |
//! | LCP: MRU, PFC, ACFC, magic number, authentication; rejects all but MRU, magic number, PFC and ACFC | the same |
//! | IPCP with its own address, which must not be refused; rejects name servers that it has not before it corrects the rest | the same |
//! | MS-CHAPv2, then CHAP; echoes and Hellos as settings | its manual |
//! | AES and 3DES with SHA-1 and MD5 for an hour, MODP-1536, MODP-1024 or MODP-768 for a fresh exchange | its manual, of its client |
//! | racoon, which sends under the older SAs as long as they live | assumed, as that was the way of KAME |
//! | MPPE that it would like, its MRU, the intervals | assumed |

use std::net::Ipv4Addr;
use std::time::Duration;

use towline_tunnel::suite::{Group, Hash};

use super::world::{Place, World};
use super::{Contact, Gateway, L2tp, Pfs, Policy, Ppp, Preference, Renewal, must, racoon_ids};
use crate::device::{Auth, DhGroup, Encoding, Integrity, NatFlavour, Phase1, Phase2};
use crate::table::{AES128, AES256, TRIPLE_DES, ccp, magic, mru, option};

/// A SEIL/X with its PPP access concentrator.
pub(crate) fn seil() -> Gateway {
    let sha1 = Integrity::Of(Hash::Sha1);
    let groups = [Group::Modp1536, Group::Modp1024].map(DhGroup::Of);
    let phase1 = |cipher| groups.map(|group| Phase1(cipher, Hash::Sha1, group));
    Gateway {
        name: "SEIL",
        ike: Policy {
            phase1: [AES256, AES128, TRIPLE_DES].into_iter().flat_map(phase1).collect(),
            phase2: vec![Phase2(AES128, sha1), Phase2(TRIPLE_DES, sha1)],
            preference: [Preference::Peers; 2],
            pfs: Pfs::Obeys,
            encoding: Encoding::Racoon,
            vendor_ids: [racoon_ids(), Vec::new(), Vec::new()],
            nat: NatFlavour::Rfc,
            strict: true,
            identity: [(17, 500); 2],
            life: (3_600, None),
            claims_life: false,
            original_addresses: 2,
            initial_contact: Contact::Afterwards,
            dpd: Some(20),
            renewal: Renewal::Peers,
            prefers_old: true,
            ignores_deletes: false,
        },
        l2tp: L2tp {
            sccrp: vec![
                must(2, &[1, 0]),
                must(3, &[0, 0, 0, 1]),
                must(7, b"seil"),
                must(9, &[]),
                must(6, &[1, 1]),
                must(8, b"IIJ"),
                must(10, &[0, 8]),
            ],
            icrp: Vec::new(),
            secret: None,
            hides: false,
            acknowledges_first: false,
            begins_early: true,
            length_in_data: true,
            hello: Some(60),
            cdn: Some((3, Vec::new())),
        },
        ppp: Ppp {
            waits: false,
            lcp: vec![mru(1400), option(7, &[]), option(8, &[]), magic(), option(3, &[])],
            auth: vec![Auth::MsChapV2, Auth::ChapMd5],
            name: "seil",
            greeting: "",
            rejects: Vec::new(),
            ipcp: vec![option(3, &[10, 20, 5, 1])],
            dns: vec![[10, 20, 4, 11]],
            others: vec![ccp(0x0100_00e0)],
            address_and_control: true,
            echo: Some(60),
        },
    }
}

#[test]
fn a_seil_with_one_name_server_rejects_the_question_for_a_second_one() {
    let world = World::up(&seil(), Place::Client);
    assert_eq!(world.gateway.ppp.refused, [131], "{}", world.story());
    assert_eq!(world.link.as_ref().unwrap().dns, [Ipv4Addr::new(10, 20, 4, 11)]);
}

#[test]
fn a_seil_that_goes_on_under_the_older_sas_after_a_renewal_is_heard() {
    let mut gateway = seil();
    // Nothing says that a Delete has arrived: an Informational exchange goes one way (RFC 2408 section 4.8).
    gateway.ike.ignores_deletes = true;
    let mut world = World::up(&gateway, Place::Client);
    while world.gateway.agreed[0] < 2 {
        world.run(Duration::from_secs(10));
        world.assert_up();
    }
    // Until they are gone at this end, too.
    for _ in 0..60 {
        world.run(Duration::from_secs(10));
        world.assert_up();
    }
    assert_eq!((world.downs, world.gateway.expired), (0, 0), "{}", world.story());
}
