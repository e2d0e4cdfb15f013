//! The header of L2TP messages (RFC 2661 section 3.1) and the body of control messages (sections 3.2 and 4.4.1).
//!
//! ```text
//!    0                   1                   2                   3
//!    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//!   |T|L|x|x|S|x|O|P|x|x|x|x|  Ver  |          Length (opt)         |
//!   |           Tunnel ID           |           Session ID          |
//!   |             Ns (opt)          |             Nr (opt)          |
//!   |      Offset Size (opt)        |    Offset pad... (opt)        |
//!   +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! ```

use rand::Rng;
use zeroize::Zeroizing;

use super::avp::{self, Attribute, Avps, Fault, Strictness};
use crate::registry;
use crate::wire::{Malformed, Reader};

const TYPE: u16 = 0x8000;
const LENGTH: u16 = 0x4000;
const SEQUENCE: u16 = 0x0800;
const OFFSET: u16 = 0x0200;
const VERSION_MASK: u16 = 0x000f;
const VERSION: u16 = 2;

/// The length of the header of every control message.
pub const CONTROL_HEADER: usize = 12;

/// The length of a data header with the Length field, without and with Ns and Nr.
pub const DATA_HEADER: usize = 8;
/// See [`DATA_HEADER`].
pub const SEQUENCED_DATA_HEADER: usize = 12;

registry! {
    /// The Message Type of a control message (section 3.2).
    pub struct MessageType(u16) {
        SCCRQ = 1, SCCRP = 2, SCCCN = 3, STOPCCN = 4, HELLO = 6, OCRQ = 7, OCRP = 8, OCCN = 9, ICRQ = 10, ICRP = 11, ICCN = 12,
        CDN = 14, WEN = 15, SLI = 16,
    }
}

impl MessageType {
    /// Whether the message belongs to one session and not to the tunnel as a whole.
    pub fn is_of_session(self) -> bool {
        matches!(
            self,
            Self::OCRQ
                | Self::OCRP
                | Self::OCCN
                | Self::ICRQ
                | Self::ICRP
                | Self::ICCN
                | Self::CDN
                | Self::WEN
                | Self::SLI
        )
    }
}

/// The name that the recipient of a message has given to the tunnel; zero while it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TunnelId(pub u16);

/// The name that the recipient of a message has given to the session; zero for the tunnel as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub u16);

/// The header of a control message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlHeader {
    /// The recipient's tunnel.
    pub tunnel_id: TunnelId,
    /// The recipient's session.
    pub session_id: SessionId,
    /// The number of this message.
    pub ns: u16,
    /// The number of the message that the sender expects next.
    pub nr: u16,
}

impl ControlHeader {
    /// A whole control message: this header in front of `body`.
    pub fn encode(&self, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(CONTROL_HEADER + body.len());
        //= rfc2661 3.1 "The S bit MUST be set to 1 for control messages."
        //= test: messages_are_written_as_xl2tpd_writes_them, headers_that_are_not_of_l2tpv2_are_refused
        //= rfc2661 3.1 "The O bit MUST be set to 0 (zero) for control messages."
        //= test: messages_are_written_as_xl2tpd_writes_them, headers_that_are_not_of_l2tpv2_are_refused
        //= rfc2661 3.1 "The P bit MUST be set to 0 for all control messages."
        //= test: messages_are_written_as_xl2tpd_writes_them, android_gets_its_call_with_a_window_of_one_and_bare_acknowledgments
        //= rfc2661 3.1 "This bit MUST be set to 1 for control messages."
        //= test: messages_are_written_as_xl2tpd_writes_them, headers_that_are_not_of_l2tpv2_are_refused
        //= rfc2661 3.1 "All reserved bits MUST be set to 0 on outgoing messages and ignored on incoming messages."
        //= test: reserved_bits_of_a_header_are_ignored_and_never_set, android_gets_its_call_with_a_window_of_one_and_bare_acknowledgments
        //= rfc2661 3.1 "Ver MUST be 2, indicating the version of the L2TP data message header described in this document."
        //= test: messages_are_written_as_xl2tpd_writes_them, headers_that_are_not_of_l2tpv2_are_refused
        //= rfc2661 6.0 "Any "reserved" or "empty" fields MUST be sent as 0 values to allow for protocol extensibility."
        //= test: messages_are_written_as_xl2tpd_writes_them, reserved_bits_of_a_header_are_ignored_and_never_set
        for field in [TYPE | LENGTH | SEQUENCE | VERSION, 0, self.tunnel_id.0, self.session_id.0, self.ns, self.nr] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        out.extend_from_slice(body);
        crate::wire::fix_length(&mut out, 2, 0);
        out
    }
}

/// The header of a data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHeader {
    /// The recipient's tunnel.
    pub tunnel_id: TunnelId,
    /// The recipient's session.
    pub session_id: SessionId,
    /// The number of this message, where the data channel is sequenced.
    pub ns: Option<u16>,
}

impl DataHeader {
    /// Appends the header of a data message whose payload will have `payload` octets. It has a Length field, as long as the
    /// message is one that UDP can carry, and never an Offset Size.
    pub fn encode(&self, out: &mut Vec<u8>, payload: usize) {
        let sequence = if self.ns.is_some() { SEQUENCE } else { 0 };
        let header = if self.ns.is_some() { SEQUENCED_DATA_HEADER } else { DATA_HEADER };
        match u16::try_from(payload.saturating_add(header)) {
            Ok(length) => {
                out.extend_from_slice(&(LENGTH | sequence | VERSION).to_be_bytes());
                out.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => out.extend_from_slice(&(sequence | VERSION).to_be_bytes()),
        }
        out.extend_from_slice(&self.tunnel_id.0.to_be_bytes());
        out.extend_from_slice(&self.session_id.0.to_be_bytes());
        if let Some(ns) = self.ns {
            // "In data messages, Nr is reserved".
            out.extend_from_slice(&ns.to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        }
    }
}

/// A message as it comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A control message and its body, which is empty for a ZLB.
    Control(ControlHeader, &'a [u8]),
    /// A data message and the PPP frame in it.
    Data(DataHeader, &'a [u8]),
}

impl<'a> Packet<'a> {
    /// Reads a UDP payload. Whatever is refused here "should be discarded" (section 7.1): it says nothing about a tunnel.
    pub fn read(input: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(input);
        let flags = reader.u16("L2TP header")?;
        //= rfc2661 3.1 "Packets received with an unknown Ver field MUST be discarded."
        //= test: every_form_of_the_data_header_is_read, headers_that_are_not_of_l2tpv2_are_refused
        //= rfc2661 8.1 "An L2TP implementation running on a system which does not support L2F MUST silently discard all L2F packets."
        //= test: every_form_of_the_data_header_is_read, an_l2f_packet_gets_no_answer
        if flags & VERSION_MASK != VERSION {
            return Err(Malformed::Invalid("L2TP version"));
        }
        let control = flags & TYPE != 0;
        if control && (flags & (LENGTH | SEQUENCE) != LENGTH | SEQUENCE || flags & OFFSET != 0) {
            return Err(Malformed::Invalid("flags of an L2TP control message"));
        }
        if flags & LENGTH != 0 {
            // Octets behind the Length are padding of a lower layer.
            let length = usize::from(reader.u16("L2TP Length")?);
            let rest = length.checked_sub(4).ok_or(Malformed::Invalid("L2TP Length"))?;
            reader = reader.sub(rest, "L2TP message")?;
        }
        let tunnel_id = TunnelId(reader.u16("Tunnel ID")?);
        let session_id = SessionId(reader.u16("Session ID")?);
        let numbers = if flags & SEQUENCE != 0 { Some((reader.u16("Ns")?, reader.u16("Nr")?)) } else { None };
        if let (true, Some((ns, nr))) = (control, numbers) {
            return Ok(Self::Control(ControlHeader { tunnel_id, session_id, ns, nr }, reader.rest()));
        }
        if flags & OFFSET != 0 {
            let offset = reader.u16("Offset Size")?;
            reader.take(usize::from(offset), "Offset pad")?;
        }
        //= rfc2661 3.1 "MUST be ignored upon receipt"
        //= test: every_form_of_the_data_header_is_read, nr_of_a_data_message_changes_nothing
        Ok(Self::Data(DataHeader { tunnel_id, session_id, ns: numbers.map(|(ns, _)| ns) }, reader.rest()))
    }
}

/// What is wrong with the body of a control message that must not be ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The AVPs cannot be told apart, or the first one is no Message Type.
    #[error("malformed control message: {0}")]
    Malformed(#[from] Malformed),
    /// The Message Type is marked mandatory and unknown.
    #[error("unknown mandatory message type {}", .0.0)]
    UnknownType(MessageType),
    /// An AVP that is marked mandatory cannot be used.
    #[error("{message}: {attribute} of vendor {vendor}: {fault}")]
    Avp {
        /// The message.
        message: MessageType,
        /// Zero, or the vendor whose attribute it is.
        vendor: u16,
        /// The attribute.
        attribute: Attribute,
        /// What is wrong with it.
        fault: Fault,
    },
}

impl MessageError {
    /// Whether the message belongs to one session, which is all that ends because of it.
    pub(super) fn is_of_session(&self) -> bool {
        match self {
            Self::Malformed(_) | Self::UnknownType(_) => false,
            Self::Avp { message, .. } => message.is_of_session(),
        }
    }
}

/// The body of a control message that came in: its type, and those of its AVPs that are recognized, opened where hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is. An unknown type is to be ignored: it was not mandatory.
    pub message_type: MessageType,
    avps: Avps,
}

impl Message {
    /// Reads the body of a control message that is no ZLB.
    pub fn read(body: &[u8], secret: Option<&[u8]>) -> Result<Self, MessageError> {
        Self::read_with(body, secret, Strictness::Refuse)
    }

    fn read_with(body: &[u8], secret: Option<&[u8]>, strictness: Strictness) -> Result<Self, MessageError> {
        let mut reader = Reader::new(body);
        // Section 4.4.1: "MUST be the first AVP in a message", not hidden, and always 8 octets long.
        let flags = reader.u16("Message Type AVP")?;
        let vendor = reader.u16("Message Type AVP")?;
        let attribute = Attribute(reader.u16("Message Type AVP")?);
        let message_type = MessageType(reader.u16("Message Type AVP")?);
        //= rfc2661 4.4.1 "The Message Type AVP MUST be the first AVP in a message"
        //= test: messages_of_xl2tpd_are_read, message_type_must_come_first_in_the_clear
        if flags & !avp::MANDATORY != 8 || vendor != 0 || attribute != Attribute::MESSAGE_TYPE {
            return Err(MessageError::Malformed(Malformed::Invalid("Message Type AVP")));
        }
        if message_type.name().is_none() {
            if flags & avp::MANDATORY != 0 {
                //= rfc2661 4.4.1 "unknown to the implementation, the tunnel MUST be cleared."
                //= test: an_unknown_message_type_is_ignored_unless_it_is_mandatory, an_unknown_message_type_ends_the_tunnel_only_if_it_is_mandatory
                return Err(MessageError::UnknownType(message_type));
            }
            return Ok(Self { message_type, avps: Avps::default() });
        }
        let strictness = match message_type {
            MessageType::STOPCCN | MessageType::CDN => Strictness::Tolerate,
            _ => strictness,
        };
        let avps = avp::read_all(reader.rest(), secret, strictness).map_err(|error| match error {
            avp::ReadError::Malformed(malformed) => MessageError::Malformed(malformed),
            avp::ReadError::Mandatory { vendor, attribute, fault } => {
                MessageError::Avp { message: message_type, vendor, attribute, fault }
            }
        })?;
        Ok(Self { message_type, avps })
    }

    /// Reads a message that is refused in any case: for the ID that the refusal is addressed to.
    pub(super) fn read_for_refusal(body: &[u8], secret: Option<&[u8]>) -> Result<Self, MessageError> {
        Self::read_with(body, secret, Strictness::Tolerate)
    }

    /// Whether the sender has hidden a value.
    pub fn is_hidden(&self) -> bool {
        self.avps.hidden
    }

    /// The value of `attribute`, if the message has it.
    pub fn value(&self, attribute: Attribute) -> Option<&[u8]> {
        self.avps.list.iter().find(|avp| avp.attribute == attribute).map(|avp| avp.value.as_slice())
    }

    /// The value of an attribute of two octets.
    pub fn u16(&self, attribute: Attribute) -> Option<u16> {
        self.value(attribute)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// The value of an attribute of four octets.
    pub fn u32(&self, attribute: Attribute) -> Option<u32> {
        self.value(attribute)?.try_into().ok().map(u32::from_be_bytes)
    }
}

/// How the values of a message that goes out are hidden (section 4.3).
#[derive(Clone)]
pub struct Hiding {
    /// The secret of the tunnel.
    pub secret: Zeroizing<Vec<u8>>,
    /// The Random Vector of the message.
    pub random_vector: [u8; 16],
}

impl Hiding {
    /// For one message of an end that has a secret.
    pub(super) fn new(secret: Option<&Zeroizing<Vec<u8>>>, rng: &mut impl Rng) -> Option<Self> {
        //= rfc2661 4.3 "The H bit MUST only be set if a shared secret exists between the LAC and LNS."
        //= test: values_are_hidden_from_a_lac_that_hides_its_own, values_are_hidden_from_an_lns_that_hides_its_own_and_never_in_the_sccrq
        let secret = secret?.clone();
        let mut random_vector = [0; 16];
        rng.fill_bytes(&mut random_vector);
        Some(Self { secret, random_vector })
    }
}

/// The body of a control message that goes out. The M bit of each AVP is the one that the RFC sets for it.
#[derive(Clone)]
pub struct Body {
    message_type: MessageType,
    octets: Vec<u8>,
    hiding: Option<Hiding>,
}

impl Body {
    /// Starts a message with its Message Type.
    pub fn new(message_type: MessageType) -> Self {
        let mut octets = Vec::new();
        //= rfc2661 4.4.1 "The M-bit MUST be set to 1 for all message types defined in this document."
        //= test: the_m_bit_of_each_attribute_is_that_of_the_rfc, android_gets_its_call_with_a_window_of_one_and_bare_acknowledgments
        //= rfc2661 4.4.1 "This AVP may not be hidden (the H-bit MUST be 0)."
        //= test: values_that_must_not_be_hidden_are_never_hidden, message_type_must_come_first_in_the_clear
        //= rfc2661 6.3 "The following AVP MUST be present in the SCCCN:"
        //= test: a_session_is_established_in_the_order_of_the_rfc, message_type_must_come_first_in_the_clear
        //= rfc2661 6.5 "The Following AVP MUST be present in the HELLO message:"
        //= test: a_probe_sends_one_hello_at_once, message_type_must_come_first_in_the_clear
        avp::encode(&mut octets, Attribute::MESSAGE_TYPE, &message_type.0.to_be_bytes());
        Self { message_type, octets, hiding: None }
    }

    /// Hides every following value that may be hidden.
    #[must_use]
    pub fn hide(mut self, hiding: Option<Hiding>) -> Self {
        if let Some(hiding) = &hiding {
            //= rfc2661 4.3 "MUST precede the first AVP having an H bit of 1."
            //= test: values_are_hidden_from_a_lac_that_hides_its_own, the_m_bit_decides_about_what_cannot_be_used
            //= rfc2661 4.4.1 "This AVP MUST precede the first AVP with the H bit set."
            //= test: values_that_must_not_be_hidden_are_never_hidden, a_hidden_avp_uses_the_random_vector_before_it
            avp::encode(&mut self.octets, Attribute::RANDOM_VECTOR, &hiding.random_vector);
        }
        self.hiding = hiding;
        self
    }

    /// Appends an AVP.
    #[must_use]
    pub fn bytes(mut self, attribute: Attribute, value: &[u8]) -> Self {
        match &self.hiding {
            Some(hiding) if attribute.rules().is_some_and(|rules| rules.may_hide) => {
                avp::encode_hidden(&mut self.octets, attribute, value, &hiding.secret, &hiding.random_vector);
            }
            Some(_) | None => avp::encode(&mut self.octets, attribute, value),
        }
        self
    }

    /// Appends an AVP of two octets.
    #[must_use]
    pub fn u16(self, attribute: Attribute, value: u16) -> Self {
        self.bytes(attribute, &value.to_be_bytes())
    }

    /// Appends an AVP of four octets.
    #[must_use]
    pub fn u32(self, attribute: Attribute, value: u32) -> Self {
        self.bytes(attribute, &value.to_be_bytes())
    }

    /// Appends AVPs as octets.
    #[must_use]
    pub fn raw(mut self, avps: &[u8]) -> Self {
        self.octets.extend_from_slice(avps);
        self
    }

    /// The type of the message.
    pub fn message_type(&self) -> MessageType {
        self.message_type
    }

    /// The AVPs.
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    // Frames 12 and 15 to 18 of an exchange between xl2tpd 1.3.18 and itself.
    const SCCRP: [u8; 100] = hex!(
        "c8020064ea9a00000000000180080000000000028008000000020100800a0000000300000003800a00000004000000000008000000060690"
        "8009000000076c6e7300130000000878656c6572616e63652e636f6d800800000009f58380080000000a0004"
    );
    const ICRQ: [u8; 48] =
        hex!("c8020030f583000000020001800800000000000a80080000000ebfc0800a0000000f00000001800a0000001200000000");
    const ICRP: [u8; 28] = hex!("c802001cea9abfc000010003800800000000000b80080000000eb03f");
    const ZLB: [u8; 12] = hex!("c802000cea9a000000020003");
    const ICCN: [u8; 50] =
        hex!("c8020032f583b03f00030002800800000000000c800a0000001800000000800a0000001300000001000a0000002600000000");

    fn control(tunnel_id: u16, session_id: u16, ns: u16, nr: u16) -> ControlHeader {
        ControlHeader { tunnel_id: TunnelId(tunnel_id), session_id: SessionId(session_id), ns, nr }
    }

    #[test]
    fn messages_of_xl2tpd_are_read() {
        let Packet::Control(header, body) = Packet::read(&SCCRP).unwrap() else { panic!() };
        assert_eq!(header, control(60058, 0, 0, 1));
        let message = Message::read(body, None).unwrap();
        assert_eq!(message.message_type, MessageType::SCCRP);
        assert_eq!(message.value(Attribute::HOST_NAME), Some(&b"lns"[..]));
        assert_eq!(message.value(Attribute::VENDOR_NAME), Some(&b"xelerance.com"[..]));
        assert_eq!(message.u16(Attribute::FIRMWARE_REVISION), Some(0x0690));
        assert_eq!(message.u16(Attribute::ASSIGNED_TUNNEL_ID), Some(62851));
        assert_eq!(message.u16(Attribute::RECEIVE_WINDOW_SIZE), Some(4));
        assert_eq!(Packet::read(&ZLB), Ok(Packet::Control(control(60058, 0, 2, 3), &[])));
    }

    #[test]
    fn messages_are_written_as_xl2tpd_writes_them() {
        let sccrp = Body::new(MessageType::SCCRP)
            .u16(Attribute::PROTOCOL_VERSION, 0x0100)
            .u32(Attribute::FRAMING_CAPABILITIES, 3)
            .u32(Attribute::BEARER_CAPABILITIES, 0)
            .u16(Attribute::FIRMWARE_REVISION, 0x0690)
            .bytes(Attribute::HOST_NAME, b"lns")
            .bytes(Attribute::VENDOR_NAME, b"xelerance.com")
            .u16(Attribute::ASSIGNED_TUNNEL_ID, 62851)
            .u16(Attribute::RECEIVE_WINDOW_SIZE, 4);
        assert_eq!(control(60058, 0, 0, 1).encode(&sccrp.into_octets()), SCCRP);
        let icrq = Body::new(MessageType::ICRQ)
            .u16(Attribute::ASSIGNED_SESSION_ID, 49088)
            .u32(Attribute::CALL_SERIAL_NUMBER, 1)
            .u32(Attribute::BEARER_TYPE, 0);
        assert_eq!(control(62851, 0, 2, 1).encode(&icrq.into_octets()), ICRQ);
        let icrp = Body::new(MessageType::ICRP).u16(Attribute::ASSIGNED_SESSION_ID, 45119);
        assert_eq!(control(60058, 49088, 1, 3).encode(&icrp.into_octets()), ICRP);
        let iccn = Body::new(MessageType::ICCN)
            .u32(Attribute::TX_CONNECT_SPEED, 0)
            .u32(Attribute::FRAMING_TYPE, 1)
            .u32(Attribute::RX_CONNECT_SPEED, 0);
        assert_eq!(control(62851, 45119, 3, 2).encode(&iccn.into_octets()), ICCN);
        assert_eq!(control(60058, 0, 2, 3).encode(&[]), ZLB);
    }

    #[test]
    fn every_form_of_the_data_header_is_read() {
        let data = |ns| DataHeader { tunnel_id: TunnelId(0x0102), session_id: SessionId(0x0304), ns };
        for (input, ns) in [
            (&hex!("0002 0102 0304 aabb")[..], None),
            (&hex!("4002 000a 0102 0304 aabb ffff"), None),
            (&hex!("0802 0102 0304 0005 0000 aabb"), Some(5)),
            (&hex!("0202 0102 0304 0003 eeeeee aabb"), None),
            (&hex!("4b02 0012 0102 0304 0005 0000 0002 eeee aabb"), Some(5)),
            (&hex!("34f2 0102 0304 aabb"), None),
        ] {
            assert_eq!(Packet::read(input), Ok(Packet::Data(data(ns), &hex!("aabb")[..])), "{input:02x?}");
        }
        let mut out = Vec::new();
        data(None).encode(&mut out, 2);
        data(Some(5)).encode(&mut out, 2);
        assert_eq!(out, hex!("4002 000a 0102 0304 4802 000e 0102 0304 0005 0000"));
    }

    #[test]
    fn reserved_bits_of_a_header_are_ignored_and_never_set() {
        // All of those that are reserved, and P.
        assert_eq!(Packet::read(&hex!("fdf2000cea9a000000020003")), Packet::read(&ZLB));
        let plain = hex!("4802 000e 0102 0304 0005 0000 aabb");
        assert_eq!(Packet::read(&[&hex!("7df2")[..], &plain[2..]].concat()), Packet::read(&plain));
        for id in [0, u16::MAX] {
            assert_eq!(control(id, id, id, id).encode(&[0xff; 9])[..2], hex!("c802"));
            let mut out = Vec::new();
            DataHeader { tunnel_id: TunnelId(id), session_id: SessionId(id), ns: Some(id) }.encode(&mut out, 9);
            assert_eq!(out[..2], hex!("4802"));
        }
    }

    #[test]
    fn nr_of_a_data_message_changes_nothing() {
        let [zero, other] = [&hex!("0802 0102 0304 0005 0000 aabb"), &hex!("0802 0102 0304 0005 1234 aabb")];
        assert_eq!(Packet::read(zero), Packet::read(other));
    }

    #[test]
    fn headers_that_are_not_of_l2tpv2_are_refused() {
        for input in [
            &hex!("0001 0102 0304 aabb")[..],
            &hex!("c803 000c 0000 0000 0000 0000"),
            &hex!("c802 000b 0000 0000 0000 0000"),
            &hex!("c802 000d 0000 0000 0000 0000"),
            &hex!("8802 0000 0000 0000 0000"),
            &hex!("c002 0008 0000 0000"),
            &hex!("ca02 000e 0000 0000 0000 0000 0000"),
            &hex!("4002 0003 0102 0304"),
            &hex!("0202 0102 0304 0003 eeee"),
        ] {
            assert!(Packet::read(input).is_err(), "{input:02x?}");
        }
        for end in 0..SCCRP.len() {
            assert!(Packet::read(&SCCRP[..end]).is_err());
        }
    }

    #[test]
    fn message_type_must_come_first_in_the_clear() {
        let invalid = Err(MessageError::Malformed(Malformed::Invalid("Message Type AVP")));
        assert_eq!(Message::read(&hex!("8008 0000 0009 0001 8008 0000 0000 0001"), None), invalid);
        assert_eq!(Message::read(&hex!("c008 0000 0000 0001"), None), invalid);
        assert_eq!(Message::read(&hex!("8009 0000 0000 0001 00"), None), invalid);
        assert_eq!(Message::read(&hex!("8008 0001 0000 0001"), None), invalid);
        assert!(Message::read(&hex!("8008 0000 0000 0001"), None).is_ok());
    }
}
