use rand::SeedableRng;
use zeroize::Zeroizing;

use super::*;
use crate::esp::{Lifetime, OpenError};
use std::net::Ipv4Addr;

const PATH: (IpAddr, IpAddr) = (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 60)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)));

/// Our SPI and the peer's of the pair with that number.
fn spis(pair: u32) -> [u32; 2] {
    [0x1000 + pair, 0x2000 + pair]
}

fn sa(pair: u32, inbound: bool, initiator: bool) -> ike::Sa {
    let [ours, theirs] = spis(pair);
    let (spi, pair) = if inbound { (ours, theirs) } else { (theirs, ours) };
    ike::Sa {
        spi,
        proposal: "aes128gcm16".parse().unwrap(),
        encryption_key: Zeroizing::new(vec![spi as u8; 20]),
        integrity_key: Zeroizing::default(),
        lifetime: ike::Lifetime { seconds: Duration::from_secs(3600), kilobytes: None },
        pair,
        initiator,
        encapsulated: true,
    }
}

fn datapath(limits: Lifetime) -> Datapath {
    Datapath::new(limits, StdRng::seed_from_u64(1))
}

fn install(datapath: &mut Datapath, now: Instant, pair: u32, initiator: bool) {
    datapath.install_inbound(&sa(pair, true, initiator)).unwrap();
    datapath.install_outbound(now, &sa(pair, false, initiator)).unwrap();
}

/// The SPI of the packet that leaves.
fn sends_on(datapath: &mut Datapath) -> Option<u32> {
    let mut out = Vec::new();
    datapath.seal(PATH, [b"header", b"frame"], &mut out).ok()?;
    out.first_chunk().map(|spi| u32::from_be_bytes(*spi))
}

/// The peer's outbound SA of a pair.
fn peer(pair: u32) -> OutboundSa {
    let sa = sa(pair, true, true);
    OutboundSa::new(sa.spi, &keys(&sa), Lifetime::default(), StdRng::seed_from_u64(2)).unwrap()
}

fn udp(from: u16, to: u16, length: u16) -> Vec<u8> {
    [from, to, length, 0].iter().flat_map(|field| field.to_be_bytes()).collect()
}

/// Takes a packet of the peer with that UDP header and five octets behind it.
fn open(datapath: &mut Datapath, from: &mut OutboundSa, next_header: u8, header: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut packet = Vec::new();
    from.seal(&mut packet, next_header, &[header, b"hello"]).unwrap();
    datapath.open(from.spi(), &mut packet).map(<[u8]>::to_vec)
}

fn open_well(datapath: &mut Datapath, from: &mut OutboundSa) {
    assert_eq!(open(datapath, from, PROTOCOL_UDP, &udp(1701, 1701, 13)), Ok(b"hello".to_vec()));
}

#[test]
fn only_udp_for_port_1701_is_taken() {
    let mut datapath = datapath(Lifetime::default());
    install(&mut datapath, Instant::now(), 1, true);
    let mut from = peer(1);
    open_well(&mut datapath, &mut from);
    // The length field decides what belongs to the message.
    assert_eq!(open(&mut datapath, &mut from, PROTOCOL_UDP, &udp(1701, 1701, 10)), Ok(b"he".to_vec()));
    for (next_header, header) in [
        (4, udp(1701, 1701, 13)),
        (6, udp(1701, 1701, 13)),
        (PROTOCOL_UDP, udp(1701, 1702, 13)),
        (PROTOCOL_UDP, udp(1701, 53, 13)),
        (PROTOCOL_UDP, udp(1701, 1701, 14)),
        (PROTOCOL_UDP, udp(1701, 1701, 7)),
        (PROTOCOL_UDP, vec![0; 2]),
    ] {
        assert_eq!(open(&mut datapath, &mut from, next_header, &header), Err(Refused::NotL2tp), "{header:?}");
    }
    assert_eq!(datapath.open(0x9999, &mut [0; 60]), Err(Refused::UnknownSpi));
    assert_eq!(datapath.open(spis(1)[0], &mut [0; 60]), Err(Refused::Esp(OpenError::Malformed)));
}

#[test]
fn packets_are_sent_with_as_much_of_hmac_sha2_256_as_the_peer_sends_and_so_they_are_after_a_rekey() {
    let with_sha2 = |pair, inbound| ike::Sa {
        proposal: "aes128-sha256".parse().unwrap(),
        encryption_key: Zeroizing::new(vec![1; 16]),
        integrity_key: Zeroizing::new(vec![2; 32]),
        ..sa(pair, inbound, false)
    };
    let sent = |datapath: &mut Datapath| {
        let mut out = Vec::new();
        datapath.seal(PATH, [b"header", b"frame"], &mut out).unwrap();
        out.len() % 16
    };
    let (mut datapath, now) = (datapath(Lifetime::default()), Instant::now());
    datapath.install_inbound(&with_sha2(1, true)).unwrap();
    datapath.install_outbound(now, &with_sha2(1, false)).unwrap();
    assert_eq!((sent(&mut datapath), datapath.is_truncated()), ((8 + 16) % 16, false));
    let from = with_sha2(1, true);
    let mut from = OutboundSa::new(from.spi, &keys(&from), Lifetime::default(), StdRng::seed_from_u64(2)).unwrap();
    from.set_truncation(Truncation::Bits96);
    open_well(&mut datapath, &mut from);
    assert_eq!((sent(&mut datapath), datapath.is_truncated()), ((8 + 12) % 16, true));
    datapath.install_inbound(&with_sha2(2, true)).unwrap();
    datapath.install_outbound(now, &with_sha2(2, false)).unwrap();
    assert_eq!(sent(&mut datapath), (8 + 12) % 16);
}

#[test]
fn the_port_that_the_peer_answers_from_is_the_one_that_it_is_sent_to() {
    let mut datapath = datapath(Lifetime::default());
    install(&mut datapath, Instant::now(), 1, true);
    assert_eq!(udp_header(PATH, datapath.peer_port, [b"", b""])[2..4], 1701u16.to_be_bytes());
    assert!(open(&mut datapath, &mut peer(1), PROTOCOL_UDP, &udp(40_001, 1701, 13)).is_ok());
    let mut packet = Vec::new();
    datapath.seal(PATH, [b"header", b"frame"], &mut packet).unwrap();
    let outbound = sa(1, false, true);
    let mut at_peer = InboundSa::new(outbound.spi, &keys(&outbound), Lifetime::default()).unwrap();
    let payload = at_peer.open(&mut packet).unwrap().payload.to_vec();
    assert_eq!(payload[..8], udp(1701, 40_001, 19));
    assert_eq!(&payload[8..], b"headerframe");
}

#[test]
fn packets_move_to_a_new_pair_when_the_peer_uses_it_or_after_a_while() {
    let now = Instant::now();
    for peer_speaks in [true, false] {
        let mut datapath = datapath(Lifetime::default());
        install(&mut datapath, now, 1, true);
        install(&mut datapath, now, 2, true);
        assert_eq!(sends_on(&mut datapath), Some(spis(1)[1]));
        if peer_speaks {
            open_well(&mut datapath, &mut peer(2));
        } else {
            assert_eq!(datapath.poll_timeout(), Some(now + SWITCH_AFTER));
            datapath.handle_timeout(now + SWITCH_AFTER);
        }
        assert_eq!(sends_on(&mut datapath), Some(spis(2)[1]));
        assert_eq!(datapath.poll_timeout(), None);
    }
}

#[test]
fn packets_move_at_once_to_a_pair_that_the_peer_asked_for() {
    let mut datapath = datapath(Lifetime::default());
    install(&mut datapath, Instant::now(), 1, true);
    install(&mut datapath, Instant::now(), 2, false);
    assert_eq!(sends_on(&mut datapath), Some(spis(2)[1]));
}

#[test]
fn a_pair_that_becomes_ready_late_takes_nothing_from_a_newer_one() {
    let now = Instant::now();
    for peer_speaks in [true, false] {
        let mut datapath = datapath(Lifetime::default());
        install(&mut datapath, now, 1, true);
        install(&mut datapath, now, 2, true);
        install(&mut datapath, now, 3, false);
        if peer_speaks {
            open_well(&mut datapath, &mut peer(2));
        } else {
            datapath.handle_timeout(now + SWITCH_AFTER);
        }
        assert_eq!(sends_on(&mut datapath), Some(spis(3)[1]));
    }
}

#[test]
fn the_newest_pair_that_is_left_takes_over() {
    let mut datapath = datapath(Lifetime::default());
    for pair in 1..=3 {
        install(&mut datapath, Instant::now(), pair, false);
    }
    for expected in [Some(spis(2)[1]), Some(spis(1)[1]), None] {
        datapath.remove(datapath.current.unwrap());
        assert_eq!(sends_on(&mut datapath), expected);
        assert_eq!(datapath.can_send(), expected.is_some());
    }
}

#[test]
fn a_peer_that_repeats_its_spi_does_not_lose_the_new_sa_with_the_old_one() {
    let mut datapath = datapath(Lifetime::default());
    install(&mut datapath, Instant::now(), 1, false);
    datapath.install_inbound(&sa(2, true, false)).unwrap();
    let same = spis(1)[1];
    datapath.install_outbound(Instant::now(), &ike::Sa { spi: same, ..sa(2, false, false) }).unwrap();
    datapath.remove(spis(1)[0]);
    assert_eq!(sends_on(&mut datapath), Some(same));
}

#[test]
fn the_pair_in_use_is_never_the_one_that_makes_room() {
    let now = Instant::now();
    let mut datapath = datapath(Lifetime::default());
    let pairs = u32::try_from(MAX_PAIRS).unwrap() + 5;
    for pair in 1..=pairs {
        install(&mut datapath, now, pair, true);
    }
    assert_eq!(datapath.pairs.len(), MAX_PAIRS);
    assert_eq!(sends_on(&mut datapath), Some(spis(1)[1]));
    open_well(&mut datapath, &mut peer(1));
    open_well(&mut datapath, &mut peer(pairs));
    let gone = open(&mut datapath, &mut peer(2), PROTOCOL_UDP, &udp(1701, 1701, 13));
    assert_eq!(gone, Err(Refused::UnknownSpi));
}

#[test]
fn each_direction_asks_for_a_successor_once_before_its_packets_or_octets_are_used_up() {
    let packets = Lifetime { packets: Some(10), octets: None };
    let octets = Lifetime { packets: None, octets: Some(10 * 19) };
    for limits in [packets, octets] {
        let mut datapath = datapath(limits);
        install(&mut datapath, Instant::now(), 1, true);
        let asked: Vec<bool> = (0..10)
            .map(|_| {
                assert!(sends_on(&mut datapath).is_some());
                datapath.take_rekey_request()
            })
            .collect();
        assert_eq!(asked, [false, false, false, false, false, false, false, true, false, false], "{limits:?}");
        assert_eq!(sends_on(&mut datapath), None, "{limits:?}");
    }
    let mut datapath = datapath(packets);
    install(&mut datapath, Instant::now(), 1, true);
    let mut from = peer(1);
    let asked = (0..10).filter(|_| {
        open_well(&mut datapath, &mut from);
        datapath.take_rekey_request()
    });
    assert_eq!(asked.count(), 1);
    let over = open(&mut datapath, &mut from, PROTOCOL_UDP, &udp(1701, 1701, 13));
    assert_eq!(over, Err(Refused::Esp(OpenError::Expired)));
}

#[test]
fn the_least_of_the_configured_and_the_agreed_octets_counts() {
    for (configured, agreed, limit) in [(Some(4096), Some(2), 2048), (Some(1024), Some(2), 1024), (None, Some(1), 1024)]
    {
        let datapath = datapath(Lifetime { packets: Some(7), octets: configured });
        let mut sa = sa(1, true, true);
        sa.lifetime.kilobytes = agreed;
        assert_eq!(datapath.lifetime(&sa), Lifetime { packets: Some(7), octets: Some(limit) });
    }
}

#[test]
fn a_peer_may_lower_the_octets_of_a_pair_in_both_directions() {
    let mut datapath = datapath(Lifetime { packets: None, octets: Some(1 << 20) });
    install(&mut datapath, Instant::now(), 1, true);
    datapath.limit(spis(1)[0], 1);
    datapath.limit(spis(1)[0], 2);
    let sent = (0..100).take_while(|_| sends_on(&mut datapath).is_some()).count();
    // 19 octets each.
    assert_eq!(sent, 1024 / 19 + 1);
    let mut from = peer(1);
    let header = udp(1701, 1701, 13);
    let taken = (0..100).take_while(|_| open(&mut datapath, &mut from, PROTOCOL_UDP, &header).is_ok()).count();
    // 16 octets each with padding and trailer.
    assert_eq!(taken, 1024 / 16);
}

#[test]
fn a_pair_that_is_used_up_is_left_at_once_for_a_newer_one() {
    let now = Instant::now();
    let mut datapath = datapath(Lifetime { packets: Some(10), octets: None });
    install(&mut datapath, now, 1, true);
    (0..9).for_each(|_| assert_eq!(sends_on(&mut datapath), Some(spis(1)[1])));
    install(&mut datapath, now, 2, true);
    assert_eq!(sends_on(&mut datapath), Some(spis(1)[1]));
    assert_eq!(sends_on(&mut datapath), Some(spis(2)[1]));
}

#[test]
fn over_ipv6_the_udp_checksum_is_computed_and_over_ipv4_it_is_none() {
    let path: (IpAddr, IpAddr) = ("2001:db8::60".parse().unwrap(), "2001:db8:1::10".parse().unwrap());
    let parts: [&[u8]; 2] = [&[0xc8, 0x02, 0x00], &[0x0c, 0, 0, 0]];
    // Computed by hand in Python over the pseudo header of RFC 8200 section 8.1.
    assert_eq!(udp_header(path, 1701, parts), [0x06, 0xa5, 0x06, 0xa5, 0, 15, 0xce, 0x94]);
    assert_eq!(udp_header(PATH, 1701, parts)[6..], [0, 0]);
}

#[test]
fn a_packet_of_an_unknown_sa_is_dropped() {
    let mut datapath = datapath(Lifetime::default());
    install(&mut datapath, Instant::now(), 1, true);
    let header = udp(L2TP_PORT, L2TP_PORT, 13);
    assert_eq!(open(&mut datapath, &mut peer(2), PROTOCOL_UDP, &header), Err(Refused::UnknownSpi));
    assert_eq!(open(&mut datapath, &mut peer(1), PROTOCOL_UDP, &header), Ok(b"hello".to_vec()));
}

#[test]
fn without_an_sa_nothing_is_sent() {
    let mut datapath = datapath(Lifetime::default());
    let mut out = Vec::new();
    assert_eq!(datapath.seal(PATH, [b"header", b"frame"], &mut out), Err(esp::SealError::Exhausted));
    assert!(out.is_empty() && !datapath.can_send());
    install(&mut datapath, Instant::now(), 1, true);
    assert_eq!(sends_on(&mut datapath), Some(spis(1)[1]));
}
