//! The IP Encapsulating Security Payload (RFC 4303): one security association (SA) for each direction, in transport mode.
//!
//! An [`OutboundSa`] turns the payload of an IP packet into an ESP packet, an [`InboundSa`] turns it back, in place. Both
//! know neither addresses nor ports: the packet travels in UDP (RFC 3948, [`classify`]) or as an IP protocol, and SAs are
//! found by their SPI alone.
//!
//! | RFC | what is kept of it |
//! |---|---|
//! | 4303 | transport mode, sequence numbers of 32 bits, anti-replay, padding, dummy packets; tunnel mode, extended sequence numbers and sending of traffic flow confidentiality padding are left out: L2TP needs none of them |
//! | 3948 | UDP encapsulation, keepalives, the demultiplexing of port 4500 |
//! | 2403, 2404, 4868 | HMAC-MD5-96, HMAC-SHA1-96, HMAC-SHA2-256-128 and what its drafts had, -384-192, -512-256 |
//! | 2451, 3602, 4106 | triple DES and AES in CBC mode, AES-GCM with a 16-octet ICV |
//!
//! Integrity is never left out, because without it a replay window protects nothing. A lifetime in seconds belongs to IKE;
//! [`Lifetime`] counts packets and octets.

//= out: rfc4303 1 "Integrity-only ESP MUST be offered as a service selection option, e.g., it must be negotiable in SA management protocols and MUST be configurable via management interfaces." a tunnel over the Internet without confidentiality is not offered
//= out: rfc4303 2.2.1 "Use of an ESN MUST be negotiated by an SA management protocol." extended sequence numbers are not offered: a pair is renewed long before 2^32 packets
//= out: rfc4303 2.6 "A transmitter MUST be capable of generating dummy packets marked with this value in the next protocol field" traffic flow confidentiality is not offered
//= out: rfc4303 3.4.1 "If a packet offered to ESP for processing appears to be an IP fragment, i.e., the OFFSET field is non-zero or the MORE FRAGMENTS flag is set, the receiver MUST discard the packet; this is an auditable event." the kernel reassembles the packets of IP that ESP comes in
//= out: rfc4303 1 "- integrity only (MUST be supported)" a tunnel over the Internet without confidentiality is not offered
//= out: rfc4303 2 "ESP does not contain a version number, therefore if there are concerns about backward compatibility, they MUST be addressed by using a signaling mechanism between the two IPsec peers to ensure compatible versions of ESP (e.g., Internet Key Exchange (IKEv2) [Kau05]) or an out-of-band configuration mechanism." IKEv1 negotiates algorithms and no version of ESP; nothing that versions differ in is sent unasked
//= out: rfc4303 2.1 "If an IPsec implementation supports multicast, then it MUST support multicast SAs using the algorithm below for mapping inbound IPsec datagrams to SAs." multicast is left out: an L2TP tunnel has two ends
//= out: rfc4303 2.1 "A multicast-capable IPsec implementation MUST correctly de-multiplex inbound traffic even in the context of SPI collisions." multicast is left out: an L2TP tunnel has two ends
//= out: rfc4303 2.1 "The indication of whether source and destination address matching is required to map inbound IPsec traffic to SAs MUST be set either as a side effect of manual SA configuration or via negotiation using an SA management protocol, e.g., IKE or Group Domain of Interpretation (GDOI) [RFC3547]." multicast is left out: an L2TP tunnel has two ends
//= out: rfc4303 2.3 "Any encryption algorithm that requires such explicit, per-packet synchronization data MUST indicate the length, any structure for such data, and the location of this data as part of an RFC specifying how the algorithm is used with ESP." a demand on those who specify algorithms
//= out: rfc4303 2.3 "If such synchronization data is implicit, the algorithm for deriving the data MUST be part of the algorithm definition RFC." a demand on those who specify algorithms
//= out: rfc4303 2.3 "In these cases, the algorithm specification MUST address how alignment of the (real) ciphertext is to be achieved." a demand on those who specify algorithms
//= out: rfc4303 2.4 "If an encryption or combined mode algorithm imposes constraints on the values of the bytes used for padding, they MUST be specified by the RFC defining how the algorithm is employed with ESP." a demand on those who specify algorithms
//= out: rfc4303 2.4 "If the algorithm requires checking of the values of the bytes used for padding, this too MUST be specified in that RFC." a demand on those who specify algorithms
//= out: rfc4303 2.6 "All other ESP header and trailer fields (SPI, Sequence Number, Padding, Pad Length, Next Header, and ICV) MUST be present in dummy packets, but the plaintext portion of the payload, other than this Next Header field, need not be well-formed, e.g., the rest of the Payload Data may consist of only random bytes." no dummy packet is sent
//= out: rfc4303 2.7 "Accordingly, if TFC padding is added, the field containing the specification of the length of the IP datagram MUST NOT be modified to reflect this padding." no padding of traffic flow confidentiality is added
//= out: rfc4303 2.7 "However, because receivers may not have been prepared to deal with this padding, the SA management protocol MUST negotiate this service prior to a transmitter employing it, to ensure backward compatibility." no padding of traffic flow confidentiality is added
//= out: rfc4303 2.8 "The integrity algorithm specification MUST specify the length of the ICV and the comparison rules and processing steps for validation." a demand on those who specify algorithms
//= out: rfc4303 3.3.2.1 "If the length of ESP packet (as described above) does not match the block size requirements for the algorithm, implicit padding MUST be appended to the end of the ESP packet." HMAC needs no padding of the packet (RFC 2403, 2404 and 4868), and there is no other integrity algorithm
//= out: rfc4303 3.3.2.1 "The document that defines an integrity algorithm MUST be consulted to determine if implicit padding is required as described above." HMAC needs no padding of the packet (RFC 2403, 2404 and 4868), and there is no other integrity algorithm
//= out: rfc4303 3.3.2.1 "If padding bytes are needed but the algorithm does not specify the padding contents, then the padding octets MUST have a value of zero." HMAC needs no padding of the packet (RFC 2403, 2404 and 4868), and there is no other integrity algorithm
//= out: rfc4303 3.3.2.2 "The location of any integrity fields, and the means by which the Sequence Number and SPI are included in the integrity computation, MUST be defined in an RFC that defines the use of the combined mode algorithm with ESP." a demand on those who specify algorithms
//= out: rfc4303 3.3.3 "If a user chooses to employ anti-replay in conjunction with SAs that are manually keyed, the sequence number counter at the sender MUST be correctly maintained across local reboots, etc., until the key is replaced." no SA is keyed by hand
//= out: rfc4303 4 "However, if ESP is incorporated into a system that supports auditing, then the ESP implementation MUST also support auditing and MUST allow a system administrator to enable or disable auditing for ESP." there is no audit log to take part in; refused packets are counted by their reasons in the metrics
//= out: rfc4303 5 "Implementations that claim conformance or compliance with this specification MUST implement the ESP syntax and processing described here for unicast traffic, and MUST comply with all additional packet processing requirements levied by the Security Architecture document [Ken-Arch]." what L2TP needs of both is kept; what is left out of this RFC is listed here, and the policy of RFC 4301 is one rule: UDP for port 1701
//= out: rfc4303 5 "Additionally, if an implementation claims to support multicast traffic, it MUST comply with the additional requirements specified for support of such traffic." multicast is left out: an L2TP tunnel has two ends
//= out: rfc4303 5 "If an implementation offers this service, it MUST also support the negotiation of the "NULL" integrity algorithm." the service of confidentiality alone is not offered
//= out: rfc4303 7 "o Confidentiality-only service -- now a MAY, not a MUST." it says what RFC 2406 demanded and this RFC does not
mod lifetime;
mod packet;
mod replay;
mod suite;
mod udp;

use rand::Rng as _;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

pub use lifetime::{Lifetime, Usage};
pub use replay::WINDOW;
pub use suite::{Truncation, inner_udp_payload, packet_size};
pub use udp::{Datagram, KEEPALIVE, NON_ESP_MARKER, classify};

use crate::buffer::MAX_PACKET;
use crate::crypto::InvalidKey;
use crate::suite::EspProposal;
use lifetime::Meter;
use replay::ReplayWindow;
use suite::{MAX_IV, Transform};

/// "No next header": what a dummy packet carries (RFC 4303 section 2.6).
pub const NEXT_HEADER_NONE: u8 = 59;

/// SPIs up to this one are reserved by IANA, and 0 is for local use (RFC 4303 section 2.1).
pub const LAST_RESERVED_SPI: u32 = 255;

/// The keys of one SA.
#[derive(Clone)]
pub struct Keys {
    /// The algorithms that the keys are for.
    pub proposal: EspProposal,
    /// The key of the cipher, followed with AES-GCM by the salt (RFC 4106 section 8.1).
    pub encryption: Zeroizing<Vec<u8>>,
    /// The key of the HMAC; empty with AES-GCM.
    pub integrity: Zeroizing<Vec<u8>>,
}

impl Keys {
    /// Cuts the keys from keying material of exactly the sum of [`EspProposal::key_sizes`]: the key of the cipher is taken first (RFC 4301
    /// section 4.5.2).
    pub fn from_keymat(proposal: EspProposal, keymat: &[u8]) -> Result<Self, InvalidKey> {
        let (encryption, integrity) = keymat.split_at_checked(proposal.key_sizes().0).ok_or(InvalidKey)?;
        if integrity.len() != proposal.key_sizes().1 {
            return Err(InvalidKey);
        }
        let [encryption, integrity] = [encryption, integrity].map(|key| Zeroizing::new(key.to_vec()));
        Ok(Self { proposal, encryption, integrity })
    }
}

/// Why an SA cannot be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSa {
    /// The SPI is one that no SA may have.
    #[error("SPI {0} is reserved")]
    ReservedSpi(u32),
    /// A key does not fit, or the proposal is not a cipher with integrity.
    #[error("keys of the security association: {0}")]
    Key(#[from] InvalidKey),
}

/// Why a packet was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The sequence numbers or the lifetime are used up.
    #[error("the security association is exhausted")]
    Exhausted,
    /// The packet would not fit into a UDP datagram.
    #[error("the payload is too long for a datagram")]
    TooLong,
}

/// Why a packet was not opened. All of them mean that it is dropped in silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum OpenError {
    /// The lifetime is used up.
    #[error("the security association is expired")]
    Expired,
    /// Too short, not of whole blocks, or with sequence number 0.
    #[error("the packet is malformed")]
    Malformed,
    /// A packet with this sequence number was already accepted.
    #[error("the packet is a replay")]
    Replayed,
    /// The sequence number lies to the left of the replay window.
    #[error("the packet is older than the replay window")]
    Stale,
    /// The ICV does not match.
    #[error("the integrity check failed")]
    Authentication,
    /// The peer's padding is not the one that RFC 4303 section 2.4 prescribes.
    #[error("the padding is invalid")]
    Padding,
    /// A dummy packet, discarded without prejudice (RFC 4303 section 2.6).
    #[error("the packet is a dummy")]
    Dummy,
}

impl OpenError {
    /// Every reason.
    pub const ALL: [Self; 7] =
        [Self::Expired, Self::Malformed, Self::Replayed, Self::Stale, Self::Authentication, Self::Padding, Self::Dummy];

    /// The reason as the label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Malformed => "malformed",
            Self::Replayed => "replayed",
            Self::Stale => "stale",
            Self::Authentication => "authentication",
            Self::Padding => "padding",
            Self::Dummy => "dummy",
        }
    }
}

/// The SA that protects what we send.
pub struct OutboundSa {
    spi: u32,
    transform: Transform,
    /// The sequence number of the last packet; the first packet has 1 (RFC 4303 section 3.3.3).
    sequence_number: u32,
    meter: Meter,
    rng: StdRng,
}

impl OutboundSa {
    /// Sets up an SA that has not sent anything. `rng` makes the initialization vectors of CBC, which nobody may foresee.
    pub fn new(spi: u32, keys: &Keys, lifetime: Lifetime, rng: StdRng) -> Result<Self, InvalidSa> {
        check_spi(spi)?;
        Ok(Self { spi, transform: Transform::new(keys)?, sequence_number: 0, meter: Meter::new(lifetime), rng })
    }

    /// The peer's name for the SA.
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// How much of its code travels, with HMAC-SHA2-256.
    pub fn truncation(&self) -> Option<Truncation> {
        self.transform.truncation()
    }

    /// Sends as much of the code of HMAC-SHA2-256 as the peer does; with other algorithms nothing changes.
    pub fn set_truncation(&mut self, truncation: Truncation) {
        self.transform.set_truncation(truncation);
    }

    /// Appends the ESP packet whose payload is the concatenation of `payload`; appends nothing if it fails.
    pub fn seal(&mut self, out: &mut Vec<u8>, next_header: u8, payload: &[&[u8]]) -> Result<(), SealError> {
        let octets = payload.iter().map(|part| part.len()).sum();
        if octets > MAX_PACKET || self.transform.sizes().packet(octets) > MAX_PACKET {
            return Err(SealError::TooLong);
        }
        // RFC 4303 section 3.3.3: "the sender MUST NOT send a packet on an SA if doing so would cause the sequence number to cycle."
        //= rfc4303 2.2 "For a unicast SA or a single-sender multicast SA, the sender MUST increment this field for every transmitted packet."
        //= test: the_first_packet_has_number_1_and_vectors_never_repeat, sequence_numbers_do_not_cycle
        //= rfc4303 3.3.3 "In other words, the sender MUST NOT send a packet on an SA if doing so would cause the sequence number to cycle."
        //= test: the_first_packet_has_number_1_and_vectors_never_repeat, sequence_numbers_do_not_cycle
        //= rfc4303 2.2 "Processing of the Sequence Number field is at the discretion of the receiver, but all ESP implementations MUST be capable of performing the processing described in Sections 3.3.3 and 3.4.3."
        //= test: sequence_numbers_do_not_cycle, the_window_moves_only_for_authentic_packets_and_takes_each_once
        //= rfc4303 2.2 "Thus, the sender's counter and the receiver's counter MUST be reset (by establishing a new SA and thus a new key) prior to the transmission of the 2^32nd packet on an SA."
        //= test: a_pair_that_is_used_up_is_left_at_once_for_a_newer_one, sequence_numbers_do_not_cycle
        let Some(sequence_number) = self.sequence_number.checked_add(1) else { return Err(SealError::Exhausted) };
        if self.meter.is_exhausted() {
            return Err(SealError::Exhausted);
        }
        let iv = self.initialization_vector(sequence_number);
        self.write(out, sequence_number, &iv, next_header, payload);
        self.sequence_number = sequence_number;
        self.meter.count(octets);
        Ok(())
    }

    /// What was sent.
    pub fn usage(&self) -> Usage {
        self.meter.usage()
    }

    /// Lowers the most octets that the SA may carry.
    pub fn limit_octets(&mut self, octets: u64) {
        self.meter.limit_octets(octets);
    }

    /// Whether it is time to negotiate a successor: the lifetime or the sequence numbers are used up for the most part.
    pub fn needs_rekey(&self) -> bool {
        self.meter.needs_rekey() || lifetime::is_low(self.sequence_number.into(), u32::MAX.into())
    }

    /// Whether nothing more can be sent.
    pub fn is_exhausted(&self) -> bool {
        self.meter.is_exhausted() || self.sequence_number == u32::MAX
    }

    fn initialization_vector(&mut self, sequence_number: u32) -> [u8; MAX_IV] {
        let mut iv = [0; MAX_IV];
        if self.transform.is_aead() {
            // RFC 4106 section 3.1: the IV only has to be unique under one key, which the sequence number is.
            let (iv, _) = iv.split_at_mut(size_of::<u64>());
            iv.copy_from_slice(&u64::from(sequence_number).to_be_bytes());
        } else {
            // RFC 3602 section 3: "The IV MUST be chosen at random, and MUST be unpredictable."
            self.rng.fill_bytes(&mut iv);
        }
        iv
    }

    fn write(&self, out: &mut Vec<u8>, sequence_number: u32, iv: &[u8], next_header: u8, payload: &[&[u8]]) {
        let sizes = self.transform.sizes();
        let start = out.len();
        out.reserve(sizes.packet(payload.iter().map(|part| part.len()).sum()));
        packet::write_header(out, self.spi, sequence_number);
        out.extend(iv.iter().take(sizes.iv));
        let plaintext = out.len();
        payload.iter().for_each(|part| out.extend_from_slice(part));
        packet::write_trailer(out, plaintext, sizes.block, next_header);
        let (_, packet) = out.split_at_mut(start);
        let icv = self.transform.seal(packet);
        out.extend_from_slice(&icv);
    }
}

/// The SA that protects what we receive.
pub struct InboundSa {
    spi: u32,
    transform: Transform,
    /// What authentic packets had. Somebody on the path can cut 128 bits to 96, which is why 128 may follow 96, but never the
    /// other way round.
    truncation: Option<Truncation>,
    window: ReplayWindow,
    meter: Meter,
}

/// A packet that was opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The protocol of the payload.
    pub next_header: u8,
    /// The payload, in the place where it arrived. The peer may have appended octets that hide its length (RFC 4303 section
    /// 2.7): the length field of the protocol inside decides.
    pub payload: &'a mut [u8],
}

impl InboundSa {
    /// Sets up an SA that has not received anything.
    pub fn new(spi: u32, keys: &Keys, lifetime: Lifetime) -> Result<Self, InvalidSa> {
        check_spi(spi)?;
        //= rfc4303 3.4.3 "If the receiver has enabled the anti-replay service for this SA, the receive packet counter for the SA MUST be initialized to zero when the SA is established."
        //= test: the_window_moves_only_for_authentic_packets_and_takes_each_once, sequence_number_zero_is_malformed_though_authentic
        //= rfc4303 3.4.3 "This service MUST NOT be enabled unless the ESP integrity service also is enabled for the SA, because otherwise the Sequence Number field has not been integrity protected."
        //= test: what_one_end_seals_the_other_opens_under_every_suite, reserved_spis_and_unfit_keys_are_refused
        let window = ReplayWindow::default();
        Ok(Self { spi, transform: Transform::new(keys)?, truncation: None, window, meter: Meter::new(lifetime) })
    }

    /// Our name for the SA.
    pub fn spi(&self) -> u32 {
        self.spi
    }

    /// How much of its code the peer sends, with HMAC-SHA2-256 and once an authentic packet has come.
    pub fn truncation(&self) -> Option<Truncation> {
        self.truncation
    }

    /// Opens a packet that bears the SPI of this SA, in place. After an error its octets are of no use.
    ///
    /// RFC 4303 section 3.4.3: the replay window is asked first and moved last, once the ICV was found to be right.
    pub fn open<'a>(&mut self, packet: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        if self.meter.is_exhausted() {
            return Err(OpenError::Expired);
        }
        let sequence_number = packet::sequence_number(packet).ok_or(OpenError::Malformed)?;
        self.window.check(sequence_number)?;
        if self.truncation != Some(Truncation::Bits128) {
            self.transform.fit(packet.len());
        }
        //= rfc4303 3.4.3 "In either case, if the integrity check fails, the receiver MUST discard the received IP datagram as invalid; this is an auditable event."
        //= test: what_one_end_seals_the_other_opens_under_every_suite, every_changed_or_missing_octet_is_noticed
        //= rfc4303 3.4.4.1 "If integrity checking and encryption are performed in parallel, integrity checking MUST be completed before the decrypted packet is passed on for further processing."
        //= test: what_one_end_seals_the_other_opens_under_every_suite, every_changed_or_missing_octet_is_noticed
        //= rfc4303 3.4.4.2 "If the integrity check performed by the combined mode algorithm fails, the receiver MUST discard the received IP datagram as invalid; this is an auditable event."
        //= test: packets_of_linux_with_aes_gcm_are_opened_and_made, every_changed_or_missing_octet_is_noticed
        //= rfc4303 3.4.4.1 "If the test fails, then the receiver MUST discard the received IP datagram as invalid; this is an auditable event."
        //= test: what_one_end_seals_the_other_opens_under_every_suite, every_changed_or_missing_octet_is_noticed
        let plaintext = self.transform.open(packet)?;
        self.truncation = self.transform.truncation();
        self.window.accept(sequence_number);
        self.meter.count(plaintext.len());
        let (next_header, length) = packet::read_trailer(plaintext)?;
        let payload = plaintext.get_mut(..length).ok_or(OpenError::Padding)?;
        Ok(Opened { next_header, payload })
    }

    /// What was received and authentic.
    pub fn usage(&self) -> Usage {
        self.meter.usage()
    }

    /// Lowers the most octets that the SA may carry.
    pub fn limit_octets(&mut self, octets: u64) {
        self.meter.limit_octets(octets);
    }

    /// Whether it is time to negotiate a successor: the lifetime or the sequence numbers are used up for the most part.
    pub fn needs_rekey(&self) -> bool {
        self.meter.needs_rekey() || lifetime::is_low(self.window.highest().into(), u32::MAX.into())
    }

    /// Whether nothing more is accepted.
    pub fn is_exhausted(&self) -> bool {
        self.meter.is_exhausted()
    }
}

//= rfc3948 1 "An IKE implementation supporting this protocol specification MUST NOT use the ESP SPI field zero for ESP packets."
//= test: an_spi_begins_with_the_bits_of_its_space_and_is_never_reserved, reserved_spis_and_unfit_keys_are_refused
//= rfc4303 2.1 "The SPI value of zero (0) is reserved for local, implementation-specific use and MUST NOT be sent on the wire."
//= test: an_spi_begins_with_the_bits_of_its_space_and_is_never_reserved, reserved_spis_and_unfit_keys_are_refused
fn check_spi(spi: u32) -> Result<(), InvalidSa> {
    if spi <= LAST_RESERVED_SPI { Err(InvalidSa::ReservedSpi(spi)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
