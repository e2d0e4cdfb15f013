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

use zeroize::Zeroizing;

use super::avp::{self, Attribute, Avp, Fault};
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

/// The body of a control message that came in: its type, and those of its AVPs that are recognized, opened where hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is. An unknown type is to be ignored: it was not mandatory.
    pub message_type: MessageType,
    avps: Vec<Avp>,
}

impl Message {
    /// Reads the body of a control message that is no ZLB.
    pub fn read(body: &[u8], secret: Option<&[u8]>) -> Result<Self, MessageError> {
        let mut reader = Reader::new(body);
        // Section 4.4.1: "MUST be the first AVP in a message", not hidden, and always 8 octets long.
        let flags = reader.u16("Message Type AVP")?;
        let vendor = reader.u16("Message Type AVP")?;
        let attribute = Attribute(reader.u16("Message Type AVP")?);
        let message_type = MessageType(reader.u16("Message Type AVP")?);
        if flags & !avp::MANDATORY != 8 || vendor != 0 || attribute != Attribute::MESSAGE_TYPE {
            return Err(MessageError::Malformed(Malformed::Invalid("Message Type AVP")));
        }
        if message_type.name().is_none() {
            if flags & avp::MANDATORY != 0 {
                return Err(MessageError::UnknownType(message_type));
            }
            return Ok(Self { message_type, avps: Vec::new() });
        }
        let avps = avp::read_all(reader.rest(), secret).map_err(|error| match error {
            avp::ReadError::Malformed(malformed) => MessageError::Malformed(malformed),
            avp::ReadError::Mandatory { vendor, attribute, fault } => {
                MessageError::Avp { message: message_type, vendor, attribute, fault }
            }
        })?;
        Ok(Self { message_type, avps })
    }

    /// The value of `attribute`, if the message has it.
    pub fn value(&self, attribute: Attribute) -> Option<&[u8]> {
        self.avps.iter().find(|avp| avp.attribute == attribute).map(|avp| avp.value.as_slice())
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
        avp::encode(&mut octets, Attribute::MESSAGE_TYPE, &message_type.0.to_be_bytes());
        Self { message_type, octets, hiding: None }
    }

    /// Hides every following value that may be hidden.
    #[must_use]
    pub fn hide(mut self, hiding: Option<Hiding>) -> Self {
        if let Some(hiding) = &hiding {
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

    /// The type of the message.
    pub fn message_type(&self) -> MessageType {
        self.message_type
    }

    /// The AVPs.
    pub fn into_octets(self) -> Vec<u8> {
        self.octets
    }
}
