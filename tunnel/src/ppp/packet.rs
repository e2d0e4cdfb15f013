//! PPP frames as L2TP carries them (RFC 2661 section 5.3: no flags, no escapes, no FCS), control packets (RFC 1661 section 5)
//! and their options (section 6).

use crate::registry;
use crate::wire::{Malformed, Reader};

/// All-Stations and Unnumbered Information (RFC 1662 section 3.1): the address and the control field of every frame.
const ADDRESS_AND_CONTROL: [u8; 2] = [0xff, 0x03];

//= out: rfc1661 2 "Also, all Protocols MUST be assigned such that the least significant bit of the most significant octet equals "0"." a demand on those who assign numbers; a field that begins with an odd octet is read as a compressed one
//= out: rfc1661 2 "Developers of new protocols MUST obtain a number from the Internet Assigned Numbers Authority (IANA), at IANA@isi.edu." no protocol is developed here
registry! {
    /// The Protocol field (RFC 1661 section 2, and the Assigned Numbers).
    pub struct Protocol(u16) {
        IP = 0x0021,
        IPV6 = 0x0057,
        IPCP = 0x8021,
        IPV6CP = 0x8057,
        CCP = 0x80fd,
        LCP = 0xc021,
        PAP = 0xc023,
        LQR = 0xc025,
        CHAP = 0xc223,
        EAP = 0xc227,
    }
}

registry! {
    /// The Code field of LCP and of the protocols made after it (RFC 1661 section 5, RFC 1570 sections 2.1 and 2.2).
    pub struct Code(u8) {
        CONFIGURE_REQUEST = 1,
        CONFIGURE_ACK = 2,
        CONFIGURE_NAK = 3,
        CONFIGURE_REJECT = 4,
        TERMINATE_REQUEST = 5,
        TERMINATE_ACK = 6,
        CODE_REJECT = 7,
        PROTOCOL_REJECT = 8,
        ECHO_REQUEST = 9,
        ECHO_REPLY = 10,
        DISCARD_REQUEST = 11,
        IDENTIFICATION = 12,
        TIME_REMAINING = 13,
    }
}

/// Splits a frame into its protocol and its information. A compressed protocol field (RFC 1661 section 6.5) and missing address
/// and control fields (section 6.6) are always understood, for some peers send them without having negotiated them.
///
/// # Errors
/// When the frame ends before its protocol field does.
pub fn split(frame: &[u8]) -> Result<(Protocol, &[u8]), Malformed> {
    let mut reader = Reader::new(frame.strip_prefix(&ADDRESS_AND_CONTROL).unwrap_or(frame));
    let first = reader.u8("protocol field")?;
    //= rfc1661 2 "All Protocols MUST be odd; the least significant bit of the least significant octet MUST equal "1"."
    //= test: frames_are_read_with_every_kind_of_header, protocols_that_are_even_or_begin_oddly_are_rejected_as_unknown
    //= rfc1661 2 "Frames received which don't comply with these rules MUST be treated as having an unrecognized Protocol."
    //= test: frames_are_read_with_every_kind_of_header, protocols_that_are_even_or_begin_oddly_are_rejected_as_unknown
    //= rfc1661 6.5 "When negotiated, PPP implementations MUST accept PPP packets with either double-octet or single-octet Protocol fields, and MUST NOT distinguish between them."
    //= test: frames_are_read_with_every_kind_of_header, protocols_that_are_even_or_begin_oddly_are_rejected_as_unknown
    // Protocol numbers end in an odd octet and begin with an even one.
    let protocol =
        if first & 1 == 1 { u16::from(first) } else { u16::from_be_bytes([first, reader.u8("protocol field")?]) };
    Ok((Protocol(protocol), reader.rest()))
}

/// Appends what stands in front of a frame's information.
pub fn write_header(out: &mut Vec<u8>, protocol: Protocol) {
    //= rfc1661 6.5 "By default, all implementations MUST transmit packets with two octet PPP Protocol fields."
    //= test: every_packet_has_whole_address_control_and_protocol_fields_whatever_the_peer_takes, frames_are_read_with_every_kind_of_header
    //= rfc1661 6.6 "The Address and Control fields MUST NOT be compressed when sending any LCP packet."
    //= test: every_packet_has_whole_address_control_and_protocol_fields_whatever_the_peer_takes, every_packet_has_whole_address_control_and_protocol_fields_whatever_the_peer_takes
    //= rfc1661 6.5 "Compressed Protocol fields MUST NOT be transmitted unless this Configuration Option has been negotiated."
    //= test: every_packet_has_whole_address_control_and_protocol_fields_whatever_the_peer_takes, frames_are_read_with_every_kind_of_header
    //= rfc1661 6.6 "By default, all implementations MUST transmit frames with Address and Control fields appropriate to the link framing."
    //= test: every_packet_has_whole_address_control_and_protocol_fields_whatever_the_peer_takes, frames_are_read_with_every_kind_of_header
    out.extend(ADDRESS_AND_CONTROL);
    out.extend(protocol.0.to_be_bytes());
}

/// The octets that [`write_header`] appends.
pub const HEADER: usize = 4;

/// The octets of a control packet in front of its data (RFC 1661 section 5).
pub const CONTROL_HEADER: usize = 4;

/// The MRU of a peer that names none (RFC 1661 section 6.1).
pub const DEFAULT_MRU: u16 = 1500;

/// A control packet (RFC 1661 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is.
    pub code: u8,
    /// What matches a reply with its request.
    pub id: u8,
    /// What the code says.
    pub data: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet. Octets beyond its length are padding (section 5).
    ///
    /// # Errors
    /// When the length is smaller than the header or larger than the information field.
    pub fn parse(information: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(information);
        let (code, id) = (reader.u8("code")?, reader.u8("identifier")?);
        let length = reader.u16("length")?;
        let length = usize::from(length).checked_sub(CONTROL_HEADER).ok_or(Malformed::Invalid("length"))?;
        Ok(Self { code, id, data: reader.take(length, "control packet")? })
    }

    /// The whole frame.
    pub fn frame(&self, protocol: Protocol) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + CONTROL_HEADER + self.data.len());
        write_header(&mut out, protocol);
        out.extend([self.code, self.id, 0, 0]);
        out.extend(self.data);
        crate::wire::fix_length(&mut out, HEADER + 2, HEADER);
        out
    }
}

/// A configuration option (section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigOption<'a> {
    /// Its type.
    pub kind: u8,
    /// What follows type and length.
    pub data: &'a [u8],
    /// The whole of it.
    pub whole: &'a [u8],
}

/// The options of a packet, in order.
///
/// # Errors
/// When an option's length is smaller than its header or larger than the packet.
pub fn options(data: &[u8]) -> Result<Vec<ConfigOption<'_>>, Malformed> {
    let mut reader = Reader::new(data);
    let mut options = Vec::new();
    while !reader.is_empty() {
        let start = reader.peek();
        let (kind, length) = (reader.u8("option type")?, usize::from(reader.u8("option length")?));
        let data = reader.take(length.checked_sub(2).ok_or(Malformed::Invalid("option length"))?, "option")?;
        options.push(ConfigOption { kind, data, whole: start.get(..length).ok_or(Malformed::Truncated("option"))? });
    }
    Ok(options)
}

/// Appends an option.
pub fn write_option(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    let at = out.len() + 1;
    out.extend([kind, 0]);
    out.extend(data);
    let length = u8::try_from(data.len() + 2).expect("the options of this crate are a few octets long");
    if let Some(field) = out.get_mut(at) {
        *field = length;
    }
}

/// What a peer says in a packet, for a person: printable, and cut to a line.
pub fn text(data: &[u8]) -> String {
    /// The longest text, in characters.
    const MAX_TEXT: usize = 200;
    String::from_utf8_lossy(data).trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_with_every_kind_of_header() {
        let ip: &[u8] = &[0x45, 0];
        for header in [&[0xff, 0x03, 0x00, 0x21][..], &[0x00, 0x21], &[0xff, 0x03, 0x21], &[0x21]] {
            assert_eq!(split(&[header, ip].concat()), Ok((Protocol::IP, ip)));
        }
        assert_eq!(split(&[0xff, 0x03, 0xc0]), Err(Malformed::Truncated("protocol field")));
        assert_eq!(split(&[]), Err(Malformed::Truncated("protocol field")));
    }

    #[test]
    fn packets_survive_a_round_and_padding_is_cut_off() {
        let packet = Packet { code: Code::ECHO_REQUEST.0, id: 7, data: &[1, 2, 3, 4] };
        let mut frame = packet.frame(Protocol::LCP);
        assert_eq!(frame, [0xff, 0x03, 0xc0, 0x21, 9, 7, 0, 8, 1, 2, 3, 4]);
        frame.extend([0, 0]);
        let (protocol, information) = split(&frame).unwrap();
        assert_eq!((protocol, Packet::parse(information)), (Protocol::LCP, Ok(packet)));
        assert_eq!(Packet::parse(&[1, 1, 0, 3]), Err(Malformed::Invalid("length")));
        assert_eq!(Packet::parse(&[1, 1, 0, 6, 0]), Err(Malformed::Truncated("control packet")));
    }

    #[test]
    fn options_are_bounded_by_their_lengths() {
        let mut out = Vec::new();
        write_option(&mut out, 1, &[5, 0xdc]);
        write_option(&mut out, 7, &[]);
        let read = options(&out).unwrap();
        assert_eq!((read[0].kind, read[0].data, read[0].whole), (1, &[5, 0xdc][..], &[1, 4, 5, 0xdc][..]));
        assert_eq!((read[1].kind, read[1].data), (7, &[][..]));
        assert!(options(&[1, 1]).is_err());
        assert!(options(&[1, 5, 0]).is_err());
        assert!(options(&[1]).is_err());
    }

    #[test]
    fn texts_of_a_peer_are_one_short_line() {
        assert_eq!(text(b"no\r\nway \xff"), "no  way \u{fffd}");
        assert_eq!(text(&[b'a'; 900]).len(), 200);
    }
}
