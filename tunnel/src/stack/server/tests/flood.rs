//! A flood of first messages under which somebody is served all the same.

use super::*;

/// First messages in each second of virtual time.
const RATE: u32 = 10_000;
/// Between two packets of the tunnel.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the flood lasts, in pauses.
const PAUSES: u32 = 1_000;
/// First messages in each pause.
const BURST: u32 = RATE / 100;

/// The first message of a client that dials and is not heard.
fn first_message() -> Vec<u8> {
    let mut town = Town::new();
    town.open = false;
    town.first = Some(Vec::new());
    town.dial("alice", "alice's password");
    town.first.unwrap()
}

/// The same in the name of somebody else: with a cookie and a source of its own, and another life each time.
fn forged(template: &[u8], number: u32) -> (SocketAddr, Vec<u8>) {
    let mut message = template.to_vec();
    message[..4].copy_from_slice(&number.to_be_bytes());
    // Life Type seconds and Life Duration, as basic attributes (RFC 2409 appendix A).
    let life = message.windows(6).position(|octets| octets == [0x80, 11, 0, 1, 0x80, 12]).unwrap() + 6;
    message[life..life + 2].copy_from_slice(&(number as u16 | 0x8000).to_be_bytes());
    // One in a hundred comes in the name of the NAT that the client is behind.
    let source = if number.is_multiple_of(100) { NAT } else { Ipv4Addr::from_bits(0x1000_0000 + number) };
    (SocketAddr::new(source.into(), 500), message)
}

#[test]
fn a_flood_of_first_messages_costs_an_established_tunnel_no_packet_and_the_server_no_memory() {
    let template = first_message();
    let mut town = Town::new();
    let alice = town.dial("alice", "alice's password");
    let address = town.address(alice);
    let (port, local) = (Port::Ike, SocketAddr::new(SERVER.into(), 500));
    let cookies = town.server.slots.cookies();
    for pause in 0..PAUSES {
        for number in pause * BURST..(pause + 1) * BURST {
            let (source, mut message) = forged(&template, number);
            town.server.handle_datagram(town.now, port, local, source, &mut message);
        }
        assert!(town.server.replies.len() <= MAX_REPLIES);
        town.send(alice, &packet(address, SERVICE, 100));
        town.arrive(&packet(SERVICE, address, 200));
        town.run(PAUSE);
    }
    assert_eq!(town.device.len() as u32, PAUSES);
    assert_eq!(town.clients[alice].received.len() as u32, PAUSES);
    assert_eq!(town.server.peers(), (0, 1), "a first message makes no peer");
    assert_eq!((town.server.slots.cookies(), town.sessions()), (cookies, 1));
    let (kept, most) = town.server.responder.kept_offers();
    assert_eq!(kept, most, "the flood has filled the table, and it is no larger than it may be");
    let statistics = town.server.responder();
    assert!(statistics.answered >= u64::from(PAUSES * BURST - PAUSES), "{statistics:?}");
    // Who comes after the flood is let in.
    let bob = town.dial("bob", "bob's password");
    town.address(bob);
}
