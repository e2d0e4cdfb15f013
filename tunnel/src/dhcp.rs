//! DHCPINFORM answered inside a link (RFC 2131 section 4.3.5, RFC 2132, RFC 3442): a client that has its address by IPCP asks for
//! name servers, the domain and routes.
//!
//! Windows asks so after each dial, and takes the routes of a split tunnel from the answer alone. No address is leased: every
//! other message is ignored.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::inet::{Checksum, IPV4_HEADER, PROTOCOL_UDP, UDP_HEADER, checksum, set_checksum};
use crate::wire::{Malformed, Reader, fix_length};

/// The port of servers (RFC 2131 section 4.1).
const SERVER_PORT: u16 = 67;
/// The port of clients (RFC 2131 section 4.1).
const CLIENT_PORT: u16 = 68;
/// `op` of a client's message (RFC 2131 section 2).
const BOOTREQUEST: u8 = 1;
/// `op` of a server's message (RFC 2131 section 2).
const BOOTREPLY: u8 = 2;
/// Octets from `chaddr` to the end of `file`.
const HARDWARE_ADDRESS: usize = 16;
/// Octets of `sname` and `file`.
const NAMES: usize = 64 + 128;
/// What stands before the options (RFC 2131 section 3).
const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];
/// The shortest message that every client takes (RFC 951 section 3, RFC 1542 section 2.1).
const SHORTEST_MESSAGE: usize = 300;
/// The longest message, with the headers of IP and UDP: what every link takes.
const LONGEST_MESSAGE: usize = 1_280;
/// What every client takes of that (RFC 2131 section 2), whatever it says.
const MINIMUM_MESSAGE: usize = 576;
/// The longest value of one option (RFC 2132 section 2); a longer one goes on in the next of the same code (RFC 3396).
const LONGEST_OPTION: usize = 255;
/// Our hop limit: the default of most systems.
const TIME_TO_LIVE: u8 = 64;

/// Options (RFC 2132, RFC 3442).
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const NAME_SERVERS: u8 = 6;
    pub(super) const DOMAIN_NAME: u8 = 15;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER_IDENTIFIER: u8 = 54;
    pub(super) const PARAMETER_REQUEST_LIST: u8 = 55;
    pub(super) const MAXIMUM_MESSAGE: u8 = 57;
    pub(super) const CLASSLESS_ROUTES: u8 = 121;
    /// The same, of a number for private use; Windows XP knows no other.
    pub(super) const MICROSOFT_CLASSLESS_ROUTES: u8 = 249;
    pub(super) const END: u8 = 255;
}

/// Messages (RFC 2132 section 9.6).
mod message {
    pub(super) const ACK: u8 = 5;
    pub(super) const INFORM: u8 = 8;
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our own address inside the link.
    pub local: Ipv4Addr,
    /// Name servers in order of preference.
    pub dns: Vec<Ipv4Addr>,
    /// The domain that names are searched in.
    pub domain: Option<String>,
    /// What is sent through the link.
    pub routes: Vec<Ipv4Net>,
}

/// What matters of a DHCPINFORM.
struct Inform<'a> {
    client: Ipv4Addr,
    htype_hlen: [u8; 2],
    xid: [u8; 4],
    flags: [u8; 2],
    ciaddr: [u8; 4],
    chaddr: [u8; HARDWARE_ADDRESS],
    /// Codes of options in the client's order; none if it does not say.
    wanted: Option<&'a [u8]>,
    /// Octets that it takes.
    longest: usize,
}

/// The answer to `packet`, which a client sent over its link from its own address: an IPv4 packet for the same link. None to
/// anything but a DHCPINFORM.
pub fn answer(packet: &[u8], settings: &Settings) -> Option<Vec<u8>> {
    let (client, message) = datagram(packet, settings.local)?;
    let inform = Inform::parse(client, message).ok()??;
    Some(inform.answer(settings))
}

/// Who sent it and the payload, if `packet` is a whole datagram from a client's port to the server's (RFC 791, 768).
fn datagram(packet: &[u8], local: Ipv4Addr) -> Option<(Ipv4Addr, &[u8])> {
    let header: &[u8; IPV4_HEADER] = packet.first_chunk()?;
    let [version, _, l1, l2, _, _, flags, offset, _, PROTOCOL_UDP, _, _, s1, s2, s3, s4, d1, d2, d3, d4] = *header
    else {
        return None;
    };
    let (source, destination) = (Ipv4Addr::new(s1, s2, s3, s4), Ipv4Addr::new(d1, d2, d3, d4));
    let fragment = (flags & 0x3f) | offset;
    if version >> 4 != 4 || fragment != 0 || !(destination.is_broadcast() || destination == local) {
        return None;
    }
    let packet = packet.get(..usize::from(u16::from_be_bytes([l1, l2])))?;
    let (header, datagram) = packet.split_at_checked(usize::from(version & 0x0f).saturating_mul(4))?;
    let &[p1, p2, q1, q2, u1, u2, c1, c2] = datagram.first_chunk::<UDP_HEADER>()?;
    let ports = [u16::from_be_bytes([p1, p2]), u16::from_be_bytes([q1, q2])];
    if ports != [CLIENT_PORT, SERVER_PORT] || header.len() < IPV4_HEADER || checksum(header) != 0 {
        return None;
    }
    let datagram = datagram.get(..usize::from(u16::from_be_bytes([u1, u2])))?;
    let unchecked = [c1, c2] == [0, 0];
    let right = unchecked || udp_checksum(source, destination, datagram) == 0;
    right.then(|| datagram.get(UDP_HEADER..)).flatten().map(|message| (source, message))
}

/// The checksum over a datagram and its pseudo header (RFC 768).
fn udp_checksum(source: Ipv4Addr, destination: Ipv4Addr, datagram: &[u8]) -> u16 {
    let length = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
    let sum = Checksum::default().with(&source.octets()).with(&destination.octets()).with(&[0, PROTOCOL_UDP]);
    sum.with(&length.to_be_bytes()).with(datagram).finish()
}

impl<'a> Inform<'a> {
    /// None of another message.
    fn parse(client: Ipv4Addr, message: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let mut reader = Reader::new(message);
        let [op, htype, hlen, _hops] = reader.array("op")?;
        let xid = reader.array("xid")?;
        let [_, _, flags @ ..] = reader.array::<4>("secs and flags")?;
        let ciaddr = reader.array("ciaddr")?;
        reader.array::<8>("yiaddr and siaddr")?;
        let giaddr = reader.array::<4>("giaddr")?;
        let chaddr = reader.array("chaddr")?;
        reader.take(NAMES, "sname and file")?;
        // One that another relay has sent on is not from this link, and one for another address not from this client.
        let own = [[0; 4], client.octets()].contains(&ciaddr) && giaddr == [0; 4];
        if op != BOOTREQUEST || !own || reader.array("magic cookie")? != MAGIC_COOKIE {
            return Ok(None);
        }
        let (mut kind, mut wanted, mut longest) = (None, None, LONGEST_MESSAGE);
        while !reader.is_empty() {
            match reader.u8("option")? {
                option::PAD => {}
                option::END => break,
                code => {
                    let length = reader.u8("length of an option")?.into();
                    let value = reader.take(length, "option")?;
                    match code {
                        option::MESSAGE_TYPE => kind = Some(value),
                        option::PARAMETER_REQUEST_LIST => wanted = Some(value),
                        option::MAXIMUM_MESSAGE => {
                            longest = Reader::new(value).u16("maximum message size")?.into();
                        }
                        _ => {}
                    }
                }
            }
        }
        let longest = longest.clamp(MINIMUM_MESSAGE, LONGEST_MESSAGE);
        let inform = Self { client, htype_hlen: [htype, hlen], xid, flags, ciaddr, chaddr, wanted, longest };
        Ok((kind == Some(&[message::INFORM])).then_some(inform))
    }

    /// The DHCPACK (RFC 2131 table 3): no lease, no address.
    fn answer(&self, settings: &Settings) -> Vec<u8> {
        // Version 4 and five words of header, no type of service; a length, an identification and a checksum to come.
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, TIME_TO_LIVE, PROTOCOL_UDP, 0, 0];
        packet.extend(settings.local.octets());
        packet.extend(self.client.octets());
        packet.extend([SERVER_PORT, CLIENT_PORT, 0, 0].into_iter().flat_map(u16::to_be_bytes));
        self.write(settings, &mut packet);
        fix_length(&mut packet, 2, 0);
        fix_length(&mut packet, IPV4_HEADER + 4, IPV4_HEADER);
        if let Some((header, datagram)) = packet.split_at_mut_checked(IPV4_HEADER) {
            set_checksum(header, 10);
            // Zero would say that there is none.
            let sum = match udp_checksum(settings.local, self.client, datagram) {
                0 => u16::MAX,
                sum => sum,
            };
            if let Some(field) = datagram.get_mut(6..UDP_HEADER) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
        }
        packet
    }

    /// The message, behind the headers.
    fn write(&self, settings: &Settings, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(BOOTREPLY);
        out.extend(self.htype_hlen);
        out.push(0);
        out.extend(self.xid);
        out.extend([0, 0]);
        out.extend(self.flags);
        out.extend(self.ciaddr);
        out.extend([0; 12]);
        out.extend(self.chaddr);
        out.extend([0; NAMES]);
        out.extend(MAGIC_COOKIE);
        push(out, option::MESSAGE_TYPE, &[message::ACK]);
        push(out, option::SERVER_IDENTIFIER, &settings.local.octets());
        let routes = [option::CLASSLESS_ROUTES, option::MICROSOFT_CLASSLESS_ROUTES];
        let all = [option::SUBNET_MASK, option::NAME_SERVERS, option::DOMAIN_NAME];
        let wanted = self.wanted.unwrap_or(&all);
        // Clients that know what to do with routes do not always say so.
        let unasked = routes.into_iter().filter(|code| !wanted.contains(code));
        let mut written = [false; 256];
        for code in wanted.iter().copied().chain(unasked) {
            let value = settings.option(code);
            let first = written.get_mut(usize::from(code)).is_some_and(|written| !std::mem::replace(written, true));
            let fits = out.len().saturating_add(encoded(&value)) < self.longest;
            if first && fits && !value.is_empty() {
                push(out, code, &value);
            }
        }
        out.push(option::END);
        out.resize(out.len().max(start.saturating_add(SHORTEST_MESSAGE)), option::PAD);
    }
}

impl Settings {
    /// The value of an option; empty if there is none.
    fn option(&self, code: u8) -> Vec<u8> {
        match code {
            // A link has no other hosts.
            option::SUBNET_MASK => vec![255; 4],
            option::NAME_SERVERS => self.dns.iter().flat_map(Ipv4Addr::octets).collect(),
            option::DOMAIN_NAME => self.domain.as_ref().map(|domain| domain.clone().into_bytes()).unwrap_or_default(),
            option::CLASSLESS_ROUTES | option::MICROSOFT_CLASSLESS_ROUTES => {
                self.routes.iter().flat_map(|route| self.route(*route)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A route (RFC 3442): the length of the prefix, the octets of it that matter, the gateway.
    fn route(&self, route: Ipv4Net) -> impl Iterator<Item = u8> + use<> {
        let significant = usize::from(route.prefix_len().div_ceil(8));
        let destination = route.network().octets().into_iter().take(significant);
        std::iter::once(route.prefix_len()).chain(destination).chain(self.local.octets())
    }
}

/// Octets of an option of this value.
fn encoded(value: &[u8]) -> usize {
    value.len().saturating_add(value.len().div_ceil(LONGEST_OPTION).saturating_mul(2))
}

fn push(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    for part in value.chunks(LONGEST_OPTION) {
        out.extend([code, u8::try_from(part.len()).unwrap_or(u8::MAX)]);
        out.extend(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    /// Where the message begins.
    const MESSAGE: usize = IPV4_HEADER + UDP_HEADER;
    /// Where the options begin.
    const OPTIONS: usize = MESSAGE + 240;

    /// A message of 300 octets in all, by the layouts of RFC 791, 768, 2131 and 2132.
    fn packet(headers: [u8; 28], start: [u8; 12], addresses: [u8; 16], options: &[u8]) -> Vec<u8> {
        let hardware = hex!("00534500000000000000000000000000");
        let mut packet = [&headers[..], &start, &addresses, &hardware, &[0; NAMES], &MAGIC_COOKIE, options].concat();
        packet.resize(packet.len().max(MESSAGE + SHORTEST_MESSAGE), 0);
        packet
    }

    /// What Windows 10 asks after a dial: 10.9.0.5 to everybody.
    fn inform() -> Vec<u8> {
        packet(
            hex!("45000148 1c2b0000 8011136d 0a090005 ffffffff 00440043 013403fe"),
            hex!("01080600 5a17c0de 0000 0000"),
            hex!("0a090005 00000000 00000000 00000000"),
            &hex!(
                "350108" "3d0708005345000000" "0c064c4150544f50" "3c084d53465420352e30"
                "370e0103060f1f212b2c2e2f7779f9fc" "ff"
            ),
        )
    }

    fn settings() -> Settings {
        Settings {
            local: [10, 9, 0, 1].into(),
            dns: vec![[10, 20, 0, 53].into(), [10, 20, 1, 53].into()],
            domain: Some("corp.example".to_owned()),
            routes: ["10.20.0.0/16", "192.0.2.128/25", "0.0.0.0/0"].map(|route| route.parse().unwrap()).to_vec(),
        }
    }

    /// Gives a changed packet its checksums, and answers it.
    fn answer_to(mut packet: Vec<u8>, settings: &Settings) -> Option<Vec<u8>> {
        packet[10..12].fill(0);
        packet[26..28].fill(0);
        set_checksum(&mut packet[..IPV4_HEADER], 10);
        answer(&packet, settings)
    }

    /// The message with other options; one that is longer needs other lengths.
    fn with_options(options: &[u8]) -> Vec<u8> {
        let mut packet = inform();
        packet.truncate(OPTIONS);
        packet.extend(options);
        fix_length(&mut packet, 2, 0);
        fix_length(&mut packet, IPV4_HEADER + 4, IPV4_HEADER);
        packet
    }

    /// Codes and lengths of the options of an answer.
    fn options(packet: &[u8]) -> Vec<(u8, usize)> {
        let mut reader = Reader::new(&packet[OPTIONS..]);
        let mut found = Vec::new();
        loop {
            match reader.u8("code").unwrap() {
                option::END => return found,
                code => {
                    let length = usize::from(reader.u8("length").unwrap());
                    reader.take(length, "value").unwrap();
                    found.push((code, length));
                }
            }
        }
    }

    #[test]
    fn windows_is_told_name_servers_domain_and_routes() {
        let expected = packet(
            hex!("45000162 00000000 40116574 0a090001 0a090005 00430044 014e7a56"),
            hex!("02080600 5a17c0de 0000 0000"),
            hex!("0a090005 00000000 00000000 00000000"),
            &hex!(
                "350105" "36040a090001" "0104ffffffff" "06080a1400350a140135" "0f0c636f72702e6578616d706c65"
                "7915" "100a140a090001" "19c00002800a090001" "000a090001"
                "f915" "100a140a090001" "19c00002800a090001" "000a090001" "ff"
            ),
        );
        assert_eq!(answer(&inform(), &settings()), Some(expected));
    }

    #[test]
    fn a_client_gets_what_it_asks_for_in_its_order_and_routes_in_any_case() {
        let asks = |list: &[u8]| {
            let list = [&[option::PARAMETER_REQUEST_LIST, list.len() as u8], list].concat();
            let packet = with_options(&[&[53, 1, 8][..], &list, &[255]].concat());
            options(&answer_to(packet, &settings()).unwrap())
        };
        assert_eq!(asks(&[15, 6, 15]), [(53, 1), (54, 4), (15, 12), (6, 8), (121, 21), (249, 21)]);
        assert_eq!(asks(&[249, 1, 51]), [(53, 1), (54, 4), (249, 21), (1, 4), (121, 21)]);
        let bare = Settings { dns: Vec::new(), domain: None, routes: Vec::new(), ..settings() };
        let packet = with_options(&[53, 1, 8]);
        assert_eq!(options(&answer_to(packet, &bare).unwrap()), [(53, 1), (54, 4), (1, 4)]);
    }

    #[test]
    fn many_routes_go_on_in_a_second_option_as_far_as_the_client_takes_them() {
        let routes = (0..64).map(|index| Ipv4Net::new([10, 0, 0, index].into(), 32).unwrap()).collect();
        let settings = Settings { routes, ..settings() };
        for (maximum, expected) in [(1280, vec![(121, 255), (121, 255), (121, 66)]), (576, Vec::new())] {
            let [high, low] = u16::to_be_bytes(maximum);
            let packet = with_options(&[53, 1, 8, 57, 2, high, low, 55, 1, 121, 255]);
            let answer = answer_to(packet, &settings).unwrap();
            assert!(answer.len() <= usize::from(maximum), "{}", answer.len());
            assert_eq!(options(&answer)[2..], expected);
        }
    }

    #[test]
    fn nothing_else_is_answered() {
        let settings = settings();
        let changes: [(&str, usize, u8); 12] = [
            ("IPv6", 0, 0x65),
            ("a header that is too short", 0, 0x44),
            ("a fragment", 6, 0x20),
            ("TCP", 9, 6),
            ("to another host", 16, 10),
            ("from another port", 21, 69),
            ("to another port", 23, 68),
            ("a reply", MESSAGE, 2),
            ("for another address", MESSAGE + 15, 6),
            ("of another link", MESSAGE + 24, 10),
            ("BOOTP", MESSAGE + 236, 98),
            ("a request for a lease", OPTIONS + 2, 3),
        ];
        assert!(answer_to(inform(), &settings).is_some());
        for (what, at, octet) in changes {
            let mut packet = inform();
            packet[at] = octet;
            assert_eq!(answer_to(packet, &settings), None, "{what}");
        }
        for at in [12, MESSAGE + 4] {
            let mut packet = inform();
            packet[at] ^= 1;
            assert_eq!(answer(&packet, &settings), None, "a wrong checksum at {at}");
        }
        // To us alone, and from a client that does not say its address.
        let mut packet = inform();
        packet[16..20].copy_from_slice(&[10, 9, 0, 1]);
        packet[MESSAGE + 12..MESSAGE + 16].fill(0);
        assert!(answer_to(packet, &settings).is_some());
    }

    #[test]
    fn what_is_cut_short_is_not_answered() {
        let settings = settings();
        let whole = inform();
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length], &settings), None);
        }
        for options in [&[53][..], &[53, 1], &[53, 1, 8, 55, 9, 1], &[53, 1, 8, 57, 1, 9], &[53, 0], &[0, 0]] {
            assert_eq!(answer_to(with_options(options), &settings), None, "{options:?}");
        }
    }
}
