//! Access-Request and what its answers mean (RFC 2865 sections 4 and 5, RFC 2548 section 2.3, RFC 3579).

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use rand::Rng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::SessionInfo;
use super::attribute::{Attribute, Code, FramedProtocol, Microsoft, ServiceType, TunnelType};
use super::exchange::Ask;
use super::packet::{AUTHENTICATOR, Builder, Packet, TooLong, number};
use crate::aaa::{self, Cause, Grant, Proof, Refusal, Verdict};
use crate::config::server::MAX_NETWORKS;
use crate::crypto::hash;
use crate::suite::Hash;
use crate::wire::Malformed;

/// The longest password that can be hidden (RFC 2865 section 5.2).
const MAX_PASSWORD: usize = 128;
/// The pieces in which a password is hidden.
const BLOCK: usize = 16;
/// The most Class attributes that are repeated in accounting.
pub(super) const MAX_CLASSES: usize = 8;
/// The shortest time between interim updates, in seconds (RFC 2869 section 5.16).
const MIN_INTERIM: u32 = 60;
/// The header of an EAP packet (RFC 3748 section 4).
const EAP_HEADER: usize = 4;
/// The Code of an EAP-Request (RFC 3748 section 4.1).
const EAP_REQUEST: u8 = 1;

/// A request for a session.
pub(super) struct Access {
    pub(super) request: aaa::Request,
    pub(super) session: SessionInfo,
    pub(super) session_id: String,
    pub(super) nas_identifier: Arc<str>,
    /// The server of the conversation that the request goes on with, and its State.
    pub(super) conversation: Option<(usize, Option<Vec<u8>>)>,
}

impl Ask for Access {
    const ANSWERS: &'static [Code] = &[Code::ACCESS_ACCEPT, Code::ACCESS_REJECT, Code::ACCESS_CHALLENGE];
    const DEMANDS_INTEGRITY: bool = true;
    const DIFFERS: bool = false;

    fn write(&self, _now: Instant, id: u8, secret: &[u8], rng: &mut StdRng) -> Result<Vec<u8>, TooLong> {
        let mut authenticator = [0; AUTHENTICATOR];
        rng.fill_bytes(&mut authenticator);
        let mut builder = Builder::signed(Code::ACCESS_REQUEST, id);
        builder.push(Attribute::USER_NAME, self.request.name.as_bytes());
        self.session.write(&self.nas_identifier, &self.session_id, &mut builder);
        push_proof(&self.request.proof, &authenticator, secret, &mut builder)?;
        if let Proof::Eap { .. } = self.request.proof {
            builder.push_number(Attribute::FRAMED_MTU, self.session.mtu.into());
        }
        if let Some((_, Some(state))) = &self.conversation {
            builder.push(Attribute::STATE, state);
        }
        builder.finish_access_request(authenticator, secret)
    }

    fn server(&self) -> Option<usize> {
        self.conversation.as_ref().map(|(server, _)| *server)
    }
}

fn push_proof(
    proof: &Proof,
    authenticator: &[u8; AUTHENTICATOR],
    secret: &[u8],
    builder: &mut Builder,
) -> Result<(), TooLong> {
    match proof {
        Proof::Pap { password } => {
            builder.push(Attribute::USER_PASSWORD, &hide(password, authenticator, secret)?);
        }
        Proof::Chap { id, challenge, response } => {
            builder.push(Attribute::CHAP_PASSWORD, &[&[*id], &response[..]].concat());
            builder.push(Attribute::CHAP_CHALLENGE, challenge);
        }
        Proof::MsChapV2 { id, authenticator_challenge, peer_challenge, nt_response } => {
            /// The Flags and Reserved fields (RFC 2548 section 2.3.2).
            const FLAGS: u8 = 0;
            const RESERVED: [u8; 8] = [0; 8];
            builder.push_microsoft(Microsoft::MS_CHAP_CHALLENGE, authenticator_challenge);
            let response = [&[*id, FLAGS], &peer_challenge[..], &RESERVED, &nt_response[..]].concat();
            builder.push_microsoft(Microsoft::MS_CHAP2_RESPONSE, &response);
        }
        Proof::Eap { packet } => {
            builder.push_split(Attribute::EAP_MESSAGE, packet);
        }
        Proof::Certificate => {}
    }
    Ok(())
}

/// Hides a password (RFC 2865 section 5.2).
fn hide(password: &[u8], authenticator: &[u8; AUTHENTICATOR], secret: &[u8]) -> Result<Zeroizing<Vec<u8>>, TooLong> {
    if password.len() > MAX_PASSWORD {
        return Err(TooLong);
    }
    let mut hidden = Zeroizing::new(password.to_vec());
    hidden.resize(password.len().next_multiple_of(BLOCK).max(BLOCK), 0);
    let mut previous = authenticator.to_vec();
    for block in hidden.chunks_mut(BLOCK) {
        let mask = Zeroizing::new(hash::digest(Hash::Md5, &[secret, &previous]));
        block.iter_mut().zip(mask.iter()).for_each(|(octet, mask)| *octet ^= mask);
        previous = block.to_vec();
    }
    Ok(hidden)
}

impl Access {
    /// Whether a server can decide about it at all.
    pub(super) fn obstacle(&self) -> Option<Cause> {
        match &self.request.proof {
            _ if self.request.name.is_empty() => Some(Cause::UnknownUser),
            // The certificate proves who it is, and no attribute says so to a server.
            Proof::Certificate => Some(Cause::UnknownUser),
            Proof::Pap { password } if password.len() > MAX_PASSWORD => Some(Cause::NoCredentials),
            _ => None,
        }
    }

    /// What an answer means. Whatever cannot be used is a refusal (RFC 2865 section 4.4 and section 5).
    pub(super) fn verdict(&self, packet: &Packet<'_>, interim: Option<Duration>) -> Verdict {
        let speaks_eap = matches!(self.request.proof, Proof::Eap { .. });
        let eap = packet.joined(Attribute::EAP_MESSAGE).filter(|packet| speaks_eap && is_eap(packet));
        match packet.code {
            Code::ACCESS_ACCEPT => match self.grant(packet, eap, interim) {
                Ok(grant) => Verdict::Accept(Box::new(grant)),
                Err(unusable) => {
                    tracing::warn!(user = %self.request.name.escape_debug(), %unusable, "Access-Accept cannot be used");
                    Verdict::Reject(Refusal::new(Cause::RadiusReject))
                }
            },
            Code::ACCESS_CHALLENGE => match eap.filter(|packet| packet.first() == Some(&EAP_REQUEST)) {
                Some(packet) => Verdict::Challenge { packet },
                None => Verdict::Reject(Refusal::new(Cause::RadiusReject)),
            },
            _ => Verdict::Reject(Refusal { cause: Cause::RadiusReject, eap }),
        }
    }

    fn grant(&self, packet: &Packet<'_>, eap: Option<Vec<u8>>, interim: Option<Duration>) -> Result<Grant, Malformed> {
        self.check_service(packet)?;
        let name = packet.first(Attribute::USER_NAME).and_then(|name| std::str::from_utf8(name).ok());
        let name = name.filter(|name| !name.is_empty()).unwrap_or(&self.request.name);
        let authenticator_response = match self.request.proof {
            Proof::MsChapV2 { .. } => Some(authenticator_response(packet)?),
            _ => None,
        };
        let seconds = |attribute| -> Result<Option<Duration>, Malformed> {
            let seconds = packet.number(attribute)?.filter(|seconds| *seconds > 0);
            Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
        };
        let asked = packet.number(Attribute::ACCT_INTERIM_INTERVAL)?;
        let asked = asked.map(|seconds| Duration::from_secs(seconds.max(MIN_INTERIM).into()));
        let routes = packet.all(Attribute::FRAMED_ROUTE).filter_map(route).take(MAX_NETWORKS);
        Ok(Grant {
            name: name.to_owned(),
            authenticator_response,
            eap,
            address: address(packet)?,
            networks: routes.collect(),
            destinations: None,
            idle: seconds(Attribute::IDLE_TIMEOUT)?,
            total: seconds(Attribute::SESSION_TIMEOUT)?,
            class: packet.all(Attribute::CLASS).map(<[u8]>::to_vec).take(MAX_CLASSES).collect(),
            interim: asked.or(interim),
        })
    }

    /// Another service than PPP over L2TP must not be given (RFC 2865 sections 5.6 and 5.7, RFC 2868 section 3.1).
    fn check_service(&self, packet: &Packet<'_>) -> Result<(), Malformed> {
        if packet.number(Attribute::SERVICE_TYPE)?.is_some_and(|service| ServiceType(service) != ServiceType::FRAMED) {
            return Err(Malformed::Invalid("Service-Type"));
        }
        let protocol = packet.number(Attribute::FRAMED_PROTOCOL)?;
        if protocol.is_some_and(|protocol| FramedProtocol(protocol) != FramedProtocol::PPP) {
            return Err(Malformed::Invalid("Framed-Protocol"));
        }
        // The first octet is a tag.
        let is_ours = |value: &[u8]| number(value).is_some_and(|n| TunnelType(n & 0x00ff_ffff) == TunnelType::L2TP);
        let mut tunnels = packet.all(Attribute::TUNNEL_TYPE).peekable();
        if tunnels.peek().is_some() && !tunnels.any(is_ours) {
            return Err(Malformed::Invalid("Tunnel-Type"));
        }
        Ok(())
    }
}

/// `S=` and 40 hexadecimal digits behind the identifier (RFC 2548 section 2.3.3).
fn authenticator_response(packet: &Packet<'_>) -> Result<String, Malformed> {
    /// The number of digits.
    const DIGITS: usize = 40;
    let value = packet.microsoft(Microsoft::MS_CHAP2_SUCCESS).ok_or(Malformed::Truncated("MS-CHAP2-Success"))?;
    let text = value.get(1..).and_then(|text| std::str::from_utf8(text).ok());
    let digits = text.and_then(|text| text.strip_prefix("S=")?.get(..DIGITS));
    match digits {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
            Ok(format!("S={}", digits.to_ascii_uppercase()))
        }
        Some(_) | None => Err(Malformed::Invalid("MS-CHAP2-Success")),
    }
}

/// The user's own address; none if this end, or the user, is to choose one (RFC 2865 section 5.8).
fn address(packet: &Packet<'_>) -> Result<Option<Ipv4Addr>, Malformed> {
    const USER_CHOOSES: u32 = 0xffff_ffff;
    const NAS_CHOOSES: u32 = 0xffff_fffe;
    let address = packet.number(Attribute::FRAMED_IP_ADDRESS)?;
    let address = address.filter(|address| ![0, USER_CHOOSES, NAS_CHOOSES].contains(address)).map(Ipv4Addr::from_bits);
    match address {
        Some(address) if address.is_loopback() || address.is_multicast() => {
            Err(Malformed::Invalid("Framed-IP-Address"))
        }
        address => Ok(address),
    }
}

/// `192.168.1.0/24 192.168.1.1 1`: the network; without a length that of its class (RFC 2865 section 5.22).
fn route(text: &[u8]) -> Option<Ipv4Net> {
    let text = std::str::from_utf8(text).ok()?;
    let network = text.split_ascii_whitespace().next()?;
    let network: Ipv4Net = if network.contains('/') {
        network.parse().ok()?
    } else {
        let address: Ipv4Addr = network.parse().ok()?;
        let length = match address.octets() {
            [0..128, ..] => 8,
            [128..192, ..] => 16,
            [192..224, ..] => 24,
            _ => return None,
        };
        Ipv4Net::new(address, length).ok()?
    };
    Some(network.trunc())
}

/// Whether the Length field of an EAP packet is right (RFC 3579 section 2.2).
fn is_eap(packet: &[u8]) -> bool {
    let length = packet.get(2..EAP_HEADER).and_then(|field| field.try_into().ok()).map(u16::from_be_bytes);
    length.is_some_and(|length| usize::from(length) == packet.len())
}

/// The Identifier of an EAP packet.
pub(super) fn eap_id(packet: &[u8]) -> Option<u8> {
    packet.get(1).copied()
}

#[cfg(test)]
mod tests;
