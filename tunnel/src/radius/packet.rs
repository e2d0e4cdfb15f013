//! The packet (RFC 2865 section 3), its attributes (section 5) and what proves who has written it: the authenticator (RFC 2865
//! section 3, RFC 2866 section 3) and the Message-Authenticator (RFC 3579 section 3.2).

use zeroize::Zeroizing;

use super::attribute::{Attribute, Code, MICROSOFT, Microsoft};
use crate::crypto::hash;
use crate::suite::Hash;
use crate::wire::{Malformed, Reader, fix_length};

/// The length of a packet without attributes.
pub const HEADER: usize = 20;
/// The length of the longest packet.
pub const MAX_PACKET: usize = 4_096;
/// The length of the longest value of an attribute.
pub const MAX_VALUE: usize = 253;
/// The length of the authenticator and of the value of Message-Authenticator.
pub const AUTHENTICATOR: usize = 16;

/// Where the authenticator is.
const AUTHENTICATOR_AT: usize = 4;
/// The Type and Length fields of an attribute.
const ATTRIBUTE_HEADER: usize = 2;
/// The longest value of one of Microsoft's attributes: behind a Vendor-Id and fields of its own.
const MAX_MICROSOFT_VALUE: usize = MAX_VALUE - 4 - ATTRIBUTE_HEADER;

/// A packet that is well-formed; nothing is known of who has written it.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    /// What it is.
    pub code: Code,
    /// Which answer belongs to which request.
    pub id: u8,
    /// The authenticator as it is sent.
    pub authenticator: [u8; AUTHENTICATOR],
    /// The packet without the padding behind it.
    octets: &'a [u8],
}

/// What a Message-Authenticator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// There is none.
    Absent,
    /// It is right.
    Proved,
    /// It is wrong, too long or too short, or there is more than one.
    Refuted,
}

impl<'a> Packet<'a> {
    /// Takes a datagram apart as far as lengths go, so that every attribute can be read.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(datagram);
        let code = Code(reader.u8("code")?);
        let id = reader.u8("identifier")?;
        let length = usize::from(reader.u16("length")?);
        if !(HEADER..=MAX_PACKET).contains(&length) {
            return Err(Malformed::Invalid("length"));
        }
        let octets = datagram.get(..length).ok_or(Malformed::Truncated("packet"))?;
        let authenticator = reader.array("authenticator")?;
        let packet = Self { code, id, authenticator, octets };
        let mut attributes = packet.reader();
        while !attributes.is_empty() {
            take_attribute(&mut attributes)?;
        }
        Ok(packet)
    }

    fn reader(&self) -> Reader<'a> {
        Reader::new(self.octets.get(HEADER..).unwrap_or_default())
    }

    /// The attributes in their order.
    pub fn attributes(&self) -> impl Iterator<Item = (Attribute, &'a [u8])> + use<'a> {
        let mut reader = self.reader();
        std::iter::from_fn(move || take_attribute(&mut reader).ok())
    }

    /// The values of every attribute of a type.
    pub fn all(&self, attribute: Attribute) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.attributes().filter(move |(kind, _)| *kind == attribute).map(|(_, value)| value)
    }

    /// The value of the first attribute of a type.
    pub fn first(&self, attribute: Attribute) -> Option<&'a [u8]> {
        self.all(attribute).next()
    }

    /// The number in the first attribute of a type.
    ///
    /// # Errors
    /// When it is not four octets long.
    pub fn number(&self, attribute: Attribute) -> Result<Option<u32>, Malformed> {
        self.first(attribute).map(|value| number(value).ok_or(Malformed::Invalid("number"))).transpose()
    }

    /// The values of every attribute of a type, one behind the other; `None` without such an attribute.
    pub fn joined(&self, attribute: Attribute) -> Option<Vec<u8>> {
        self.first(attribute).map(|_| self.all(attribute).flatten().copied().collect())
    }

    /// The value of the first of Microsoft's attributes of a type (RFC 2548 section 2).
    pub fn microsoft(&self, attribute: Microsoft) -> Option<&'a [u8]> {
        self.all(Attribute::VENDOR_SPECIFIC).find_map(|value| {
            let mut reader = Reader::new(value);
            if reader.u32("vendor") != Ok(MICROSOFT) {
                return None;
            }
            let mut attributes = std::iter::from_fn(|| take_attribute(&mut reader).ok());
            attributes.find_map(|(kind, value)| (kind.0 == attribute.0).then_some(value))
        })
    }

    /// Whether the authenticator is that of somebody who has the secret: for an answer with the authenticator of its request
    /// (RFC 2865 section 3), for requests other than Access-Request with zeros (RFC 2866 section 3).
    pub fn is_from(&self, seed: &[u8; AUTHENTICATOR], secret: &[u8]) -> bool {
        let (head, attributes) = self.around_authenticator();
        hash::eq(&hash::digest(Hash::Md5, &[head, seed, attributes, secret]), &self.authenticator)
    }

    /// What the Message-Authenticator says, with the authenticator of the request for an answer, the packet's own for an
    /// Access-Request, and zeros for other requests (RFC 3579 section 3.2, RFC 5176 section 3.4).
    pub fn integrity(&self, seed: &[u8; AUTHENTICATOR], secret: &[u8]) -> Integrity {
        let mut found = self.places(Attribute::MESSAGE_AUTHENTICATOR);
        let Some((at, said)) = found.next() else { return Integrity::Absent };
        let (head, attributes) = self.around_authenticator();
        let parts = attributes.split_at_checked(at).zip(attributes.get(at.saturating_add(said.len())..));
        let Some(((before, _), behind)) = parts else { return Integrity::Refuted };
        let computed = hash::hmac(Hash::Md5, secret, &[head, seed, before, &[0; AUTHENTICATOR], behind]);
        if found.next().is_none() && hash::eq(&computed, said) { Integrity::Proved } else { Integrity::Refuted }
    }

    /// Where the values of an attribute begin, counted from the first attribute on.
    fn places(&self, attribute: Attribute) -> impl Iterator<Item = (usize, &'a [u8])> + use<'a> {
        let mut at = 0_usize;
        self.attributes().filter_map(move |(kind, value)| {
            let begin = at.saturating_add(ATTRIBUTE_HEADER);
            at = begin.saturating_add(value.len());
            (kind == attribute).then_some((begin, value))
        })
    }

    fn around_authenticator(&self) -> (&'a [u8], &'a [u8]) {
        let head = self.octets.get(..AUTHENTICATOR_AT).unwrap_or_default();
        (head, self.octets.get(HEADER..).unwrap_or_default())
    }
}

fn take_attribute<'a>(reader: &mut Reader<'a>) -> Result<(Attribute, &'a [u8]), Malformed> {
    let kind = Attribute(reader.u8("attribute type")?);
    let length = usize::from(reader.u8("attribute length")?);
    let length = length.checked_sub(ATTRIBUTE_HEADER).ok_or(Malformed::Invalid("attribute length"))?;
    Ok((kind, reader.take(length, "attribute")?))
}

/// A value of four octets.
pub fn number(value: &[u8]) -> Option<u32> {
    value.try_into().map(u32::from_be_bytes).ok()
}

/// A value does not fit into its attribute, or the attributes not into a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet would be too long")]
pub struct TooLong;

/// A packet that is written.
pub struct Builder {
    octets: Zeroizing<Vec<u8>>,
    /// The first attribute is a Message-Authenticator.
    signed: bool,
    fits: bool,
}

impl Builder {
    /// A packet without a Message-Authenticator.
    pub fn new(code: Code, id: u8) -> Self {
        let mut octets = Zeroizing::new(Vec::with_capacity(MAX_PACKET));
        octets.extend([code.0, id]);
        octets.resize(HEADER, 0);
        Self { octets, signed: false, fits: true }
    }

    /// A packet with a Message-Authenticator. It comes first, so that no attribute can be put in front of it by somebody who
    /// computes collisions of MD5 (CVE-2024-3596).
    pub fn signed(code: Code, id: u8) -> Self {
        let mut builder = Self::new(code, id);
        builder.push(Attribute::MESSAGE_AUTHENTICATOR, &[0; AUTHENTICATOR]);
        Self { signed: true, ..builder }
    }

    /// Adds an attribute.
    pub fn push(&mut self, attribute: Attribute, value: &[u8]) -> &mut Self {
        let length = ATTRIBUTE_HEADER.saturating_add(value.len());
        match u8::try_from(length) {
            Ok(field) if self.octets.len().saturating_add(length) <= MAX_PACKET => {
                self.octets.extend([attribute.0, field]);
                self.octets.extend(value);
            }
            Ok(_) | Err(_) => self.fits = false,
        }
        self
    }

    /// Adds an attribute that is a number.
    pub fn push_number(&mut self, attribute: Attribute, value: u32) -> &mut Self {
        self.push(attribute, &value.to_be_bytes())
    }

    /// Adds a value in as many attributes as it takes (RFC 3579 section 3.1).
    pub fn push_split(&mut self, attribute: Attribute, value: &[u8]) -> &mut Self {
        value.chunks(MAX_VALUE).fold(self, |builder, chunk| builder.push(attribute, chunk))
    }

    /// Adds one of Microsoft's attributes.
    pub fn push_microsoft(&mut self, attribute: Microsoft, value: &[u8]) -> &mut Self {
        match u8::try_from(ATTRIBUTE_HEADER.saturating_add(value.len())) {
            Ok(length) if value.len() <= MAX_MICROSOFT_VALUE => {
                let head = [&MICROSOFT.to_be_bytes()[..], &[attribute.0, length]].concat();
                self.push(Attribute::VENDOR_SPECIFIC, &[&head, value].concat())
            }
            Ok(_) | Err(_) => {
                self.fits = false;
                self
            }
        }
    }

    /// Completes an Access-Request, whose authenticator is a number that nobody can guess and that never comes again (RFC 2865
    /// section 3).
    ///
    /// # Errors
    /// When the packet would be too long.
    pub fn finish_access_request(
        mut self,
        authenticator: [u8; AUTHENTICATOR],
        secret: &[u8],
    ) -> Result<Vec<u8>, TooLong> {
        self.sign(authenticator, secret)?;
        Ok(std::mem::take(&mut *self.octets))
    }

    /// Completes an answer with the authenticator of its request (RFC 2865 section 3), or with zeros a request other than
    /// Access-Request (RFC 2866 section 3).
    ///
    /// # Errors
    /// When the packet would be too long.
    pub fn finish(mut self, seed: [u8; AUTHENTICATOR], secret: &[u8]) -> Result<Vec<u8>, TooLong> {
        self.sign(seed, secret)?;
        let digest = hash::digest(Hash::Md5, &[&self.octets, secret]);
        self.write(AUTHENTICATOR_AT, &digest);
        Ok(std::mem::take(&mut *self.octets))
    }

    /// Writes the length, the authenticator and, with that one, the Message-Authenticator.
    fn sign(&mut self, authenticator: [u8; AUTHENTICATOR], secret: &[u8]) -> Result<(), TooLong> {
        if !self.fits {
            return Err(TooLong);
        }
        fix_length(&mut self.octets, 2, 0);
        self.write(AUTHENTICATOR_AT, &authenticator);
        if self.signed {
            let code = hash::hmac(Hash::Md5, secret, &[&self.octets]);
            self.write(HEADER.saturating_add(ATTRIBUTE_HEADER), &code);
        }
        Ok(())
    }

    fn write(&mut self, at: usize, value: &[u8]) {
        self.octets.iter_mut().skip(at).zip(value).for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests;
