//! ISAKMP messages (RFC 2408 section 3), built and read apart from the product's own codec.

pub(crate) const SA: u8 = 1;
pub(crate) const KEY_EXCHANGE: u8 = 4;
pub(crate) const IDENTIFICATION: u8 = 5;
pub(crate) const HASH: u8 = 8;
pub(crate) const NONCE: u8 = 10;
pub(crate) const NOTIFICATION: u8 = 11;
pub(crate) const DELETE: u8 = 12;
pub(crate) const VENDOR_ID: u8 = 13;

const PROPOSAL: u8 = 2;
const TRANSFORM: u8 = 3;

pub(crate) const MAIN_MODE: u8 = 2;
pub(crate) const INFORMATIONAL: u8 = 5;
pub(crate) const QUICK_MODE: u8 = 32;

/// The flag of an encrypted body.
pub(crate) const ENCRYPTED: u8 = 1;

/// The Commit flag.
pub(crate) const COMMIT: u8 = 2;

/// A payload: its type and its body.
pub(crate) type Payload = (u8, Vec<u8>);

/// The header and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) cookies: [u8; 16],
    /// The type of the first payload.
    pub(crate) first: u8,
    pub(crate) exchange: u8,
    pub(crate) flags: u8,
    pub(crate) id: u32,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut out = self.cookies.to_vec();
        out.extend([self.first, 0x10, self.exchange, self.flags]);
        out.extend(self.id.to_be_bytes());
        out.extend((28 + self.body.len() as u32).to_be_bytes());
        out.extend(&self.body);
        out
    }

    /// Reads a message whose length is that of the datagram.
    pub(crate) fn read(datagram: &[u8]) -> Option<Self> {
        let (header, body) = datagram.split_at_checked(28)?;
        let length = u32::from_be_bytes(header[24..28].try_into().ok()?);
        if length as usize != datagram.len() || header[17] != 0x10 {
            return None;
        }
        Some(Self {
            cookies: header[..16].try_into().ok()?,
            first: header[16],
            exchange: header[18],
            flags: header[19],
            id: u32::from_be_bytes(header[20..24].try_into().ok()?),
            body: body.to_vec(),
        })
    }
}

/// Payloads one after the other; the type of the first goes into the header.
pub(crate) fn chain(payloads: &[Payload]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, (_, body)) in payloads.iter().enumerate() {
        out.extend([payloads.get(index + 1).map_or(0, |(next, _)| *next), 0]);
        out.extend((4 + body.len() as u16).to_be_bytes());
        out.extend(body);
    }
    out
}

/// Reads payloads; what follows the last one is padding.
pub(crate) fn payloads(first: u8, mut body: &[u8]) -> Option<Vec<Payload>> {
    let (mut kind, mut all) = (first, Vec::new());
    while kind != 0 {
        let [next, _, high, low, ..] = *body else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        all.push((kind, body.get(4..length)?.to_vec()));
        body = body.get(length..)?;
        kind = next;
    }
    Some(all)
}

/// The body of the first payload of a type.
pub(crate) fn first(payloads: &[Payload], kind: u8) -> Option<&[u8]> {
    payloads.iter().find(|(of, _)| *of == kind).map(|(_, body)| body.as_slice())
}

/// The bodies of all payloads of a type.
pub(crate) fn every(payloads: &[Payload], kind: u8) -> Vec<&[u8]> {
    payloads.iter().filter(|(of, _)| *of == kind).map(|(_, body)| body.as_slice()).collect()
}

/// An attribute as it stands on the wire: a value of two octets in place of a length, or a length and the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attribute {
    Short(u16, u16),
    Long(u16, Vec<u8>),
}

impl Attribute {
    pub(crate) fn kind(&self) -> u16 {
        match self {
            Self::Short(kind, _) | Self::Long(kind, _) => *kind,
        }
    }

    /// The value as a number.
    pub(crate) fn number(&self) -> u64 {
        match self {
            Self::Short(_, value) => u64::from(*value),
            Self::Long(_, value) => value.iter().fold(0, |number, octet| number << 8 | u64::from(*octet)),
        }
    }
}

/// A transform payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transform {
    pub(crate) number: u8,
    pub(crate) id: u8,
    pub(crate) attributes: Vec<Attribute>,
}

impl Transform {
    /// The value of the attribute of a type, if it is there.
    pub(crate) fn value(&self, kind: u16) -> Option<u64> {
        self.attributes.iter().find(|attribute| attribute.kind() == kind).map(Attribute::number)
    }

    fn write(&self) -> Vec<u8> {
        let mut out = vec![self.number, self.id, 0, 0];
        for attribute in &self.attributes {
            match attribute {
                Attribute::Short(kind, value) => {
                    out.extend((kind | 0x8000).to_be_bytes());
                    out.extend(value.to_be_bytes());
                }
                Attribute::Long(kind, value) => {
                    out.extend(kind.to_be_bytes());
                    out.extend((value.len() as u16).to_be_bytes());
                    out.extend(value);
                }
            }
        }
        out
    }

    fn read(body: &[u8]) -> Option<Self> {
        let [number, id, 0, 0, ref rest @ ..] = *body else { return None };
        let (mut rest, mut attributes) = (rest, Vec::new());
        while let [a, b, c, d, ref tail @ ..] = *rest {
            let (kind, value) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            if kind & 0x8000 != 0 {
                attributes.push(Attribute::Short(kind & 0x7fff, value));
                rest = tail;
            } else {
                let (value, tail) = tail.split_at_checked(value.into())?;
                attributes.push(Attribute::Long(kind, value.to_vec()));
                rest = tail;
            }
        }
        rest.is_empty().then_some(Self { number, id, attributes })
    }
}

/// A proposal payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) number: u8,
    /// 1 for ISAKMP, 3 for ESP.
    pub(crate) protocol: u8,
    pub(crate) spi: Vec<u8>,
    pub(crate) transforms: Vec<Transform>,
}

/// The body of an SA payload in the IPsec DOI with the situation "identity only".
pub(crate) fn sa(proposals: &[Proposal]) -> Vec<u8> {
    let body = |proposal: &Proposal| {
        let head = [proposal.number, proposal.protocol, proposal.spi.len() as u8, proposal.transforms.len() as u8];
        let transforms: Vec<Payload> = proposal.transforms.iter().map(|one| (TRANSFORM, one.write())).collect();
        (PROPOSAL, [&head, proposal.spi.as_slice(), &chain(&transforms)].concat())
    };
    let proposals: Vec<Payload> = proposals.iter().map(body).collect();
    [&[0, 0, 0, 1, 0, 0, 0, 1], chain(&proposals).as_slice()].concat()
}

/// Reads the body of an SA payload.
pub(crate) fn proposals(sa: &[u8]) -> Option<Vec<Proposal>> {
    let rest = sa.strip_prefix(&[0, 0, 0, 1, 0, 0, 0, 1])?;
    let one = |(_, body): Payload| {
        let [number, protocol, size, count, ref rest @ ..] = *body else { return None };
        let (spi, rest) = rest.split_at_checked(size.into())?;
        let transforms: Option<Vec<_>> =
            payloads(TRANSFORM, rest)?.iter().map(|(_, body)| Transform::read(body)).collect();
        let transforms = transforms.filter(|all| all.len() == usize::from(count))?;
        Some(Proposal { number, protocol, spi: spi.to_vec(), transforms })
    };
    payloads(PROPOSAL, rest)?.into_iter().map(one).collect()
}
