//! ICMP echo through the tunnel (RFC 792), built here and handed to the stack as if it had come from the TUN device: a ping
//! needs neither a raw socket nor a privilege.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::inet::{IPV4_HEADER, PROTOCOL_ICMP, checksum, set_checksum};
use crate::wire::Reader;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// Our hop limit: the default of most systems.
const TIME_TO_LIVE: u8 = 64;
/// Octets of data after the echo header; says in a capture where the packet comes from.
const DATA: &[u8; 32] = b"towline health check, RFC 792 ..";

/// Echo requests to one host, one at a time.
#[derive(Debug)]
pub struct Echo {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    identifier: u16,
    sequence: u16,
    sent: Option<Instant>,
}

impl Echo {
    /// A prober that has sent nothing. `identifier` tells its packets from those of applications.
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, identifier: u16) -> Self {
        Self { source, destination, identifier, sequence: 0, sent: None }
    }

    /// Whether the last request has had no answer.
    pub fn is_waiting(&self) -> bool {
        self.sent.is_some()
    }

    /// The host that is asked.
    pub fn destination(&self) -> Ipv4Addr {
        self.destination
    }

    /// The next request, as an IP packet; an answer to an earlier one no longer counts.
    pub fn request(&mut self, now: Instant) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        self.sent = Some(now);
        let mut icmp = vec![ECHO_REQUEST, 0, 0, 0];
        icmp.extend(self.identifier.to_be_bytes());
        icmp.extend(self.sequence.to_be_bytes());
        icmp.extend(DATA);
        set_checksum(&mut icmp, 2);

        // Version 4 and five words of header, no type of service, don't fragment.
        let length = u16::try_from(IPV4_HEADER + icmp.len()).unwrap_or(u16::MAX);
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        packet.extend(self.sequence.to_be_bytes());
        packet.extend([0x40, 0, TIME_TO_LIVE, PROTOCOL_ICMP, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        set_checksum(&mut packet, 10);
        packet.extend(icmp);
        packet
    }

    /// The round trip, if `packet` is the answer to the last request.
    pub fn reply(&mut self, now: Instant, packet: &[u8]) -> Option<Duration> {
        let sent = self.sent?;
        self.is_reply(packet).then(|| {
            self.sent = None;
            now.saturating_duration_since(sent)
        })
    }

    /// Whether `packet` answers the last request. Anything malformed does not.
    fn is_reply(&self, packet: &[u8]) -> bool {
        let mut reader = Reader::new(packet);
        let header = reader.array::<IPV4_HEADER>("IPv4 header");
        let Ok([version, _, _, _, _, _, flags, offset, _, PROTOCOL_ICMP, _, _, source @ .., d1, d2, d3, d4]) = header
        else {
            return false;
        };
        let options = usize::from(version & 0x0f).saturating_mul(4).saturating_sub(IPV4_HEADER);
        let fragment = (flags & 0x3f) | offset;
        version >> 4 == 4
            && fragment == 0
            && Ipv4Addr::from(source) == self.destination
            && Ipv4Addr::new(d1, d2, d3, d4) == self.source
            && reader.take(options, "IPv4 options").is_ok()
            && checksum(reader.peek()) == 0
            && reader.u8("type") == Ok(ECHO_REPLY)
            && reader.u8("code") == Ok(0)
            && reader.u16("checksum").is_ok()
            && reader.u16("identifier") == Ok(self.identifier)
            && reader.u16("sequence number") == Ok(self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Echo {
        Echo::new([10, 9, 0, 5].into(), [10, 20, 4, 11].into(), 0x1234)
    }

    /// What a host makes of a request (RFC 792: addresses reversed, type changed, checksum recomputed).
    fn answer(request: &[u8]) -> Vec<u8> {
        let mut packet = request.to_vec();
        packet.copy_within(12..16, 16);
        packet[12..16].copy_from_slice(&request[16..20]);
        packet[20] = ECHO_REPLY;
        packet[22..24].fill(0);
        set_checksum(&mut packet[20..], 2);
        packet
    }

    #[test]
    fn requests_have_right_checksums_and_lengths() {
        let packet = echo().request(Instant::now());
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(checksum(&packet[20..]), 0);
        assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
        assert_eq!(packet[12..20], [10, 9, 0, 5, 10, 20, 4, 11]);
    }

    #[test]
    fn the_answer_to_the_last_request_counts_once() {
        let (mut echo, now) = (echo(), Instant::now());
        let late = answer(&echo.request(now));
        let reply = answer(&echo.request(now));
        let then = now + Duration::from_millis(7);
        assert_eq!(echo.reply(then, &late), None);
        assert!(echo.is_waiting());
        assert_eq!(echo.reply(then, &reply), Some(Duration::from_millis(7)));
        assert_eq!(echo.reply(then, &reply), None);
    }

    #[test]
    fn packets_that_are_cut_or_changed_are_no_answers() {
        let (mut echo, now) = (echo(), Instant::now());
        let request = echo.request(now);
        let reply = answer(&request);
        assert_eq!(echo.reply(now, &request), None);
        for length in 0..reply.len() {
            assert_eq!(echo.reply(now, &reply[..length]), None, "{length}");
        }
        for at in (20..reply.len()).chain([9, 13, 19]) {
            let mut changed = reply.clone();
            changed[at] ^= 1;
            assert_eq!(echo.reply(now, &changed), None, "{at}");
        }
        assert!(echo.reply(now, &reply).is_some());
    }
}
