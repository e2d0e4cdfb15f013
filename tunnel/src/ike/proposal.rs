//! Security Association payloads: what is offered, and what is chosen of it (RFC 2408 sections 3.4 to 3.6, RFC 2409 section 5 and
//! appendix A, RFC 2407 section 4.5).

use std::time::Duration;

use super::Lifetime;
use super::attribute::{self, write_basic};
use super::authentication::Method;
use super::main_mode::Role;
use super::registry::{
    self, AuthenticationMethod, DOI_IPSEC, EncapsulationMode, KEY_IKE, KILOBYTES, PayloadType, Phase1Attribute,
    Phase2Attribute, ProtocolId, SECONDS, SITUATION_IDENTITY_ONLY,
};
use crate::suite::{Cipher, EspProposal, Group, Hash, IkeProposal};
use crate::wire::{Malformed, Reader, fix_length};

//= out: rfc2407 0 "Section 4.4.4.2 states, "All implememtations within the IPSEC DOI MUST support ESP_DES..."." the note of the IESG that DES is too weak, and it is not offered: RFC 8221 says MUST NOT
//= out: rfc2407 4.1 "Within the IPSEC DOI, all well-known identifiers MUST be registered with the IANA under the IPSEC DOI." a demand on those who define identifiers; none is defined here
//= out: rfc2407 4.4.1.2 "For export control considerations, confidentiality MUST NOT be provided by any PROTO_IPSEC_AH transform." AH is not spoken: it does not pass a NAT
//= out: rfc2407 4.4.3 "Note: the Authentication Algorithm attribute MUST be specified to identify the appropriate AH protection suite." AH is not spoken: it does not pass a NAT
//= out: rfc2407 4.4.3 "Note: all mandatory-to-implement algorithms are listed as "MUST" implement (e.g." says how the document marks what it demands, and demands nothing
//= out: rfc2407 4.4.3.2 "All implementations within the IPSEC DOI MUST support AH_SHA along with the Auth(HMAC-SHA) attribute." AH does not pass a NAT, and RFC 8221 no longer asks for it
//= out: rfc2407 4.4.4 "Note: all mandatory-to-implement algorithms are listed as "MUST" implement (e.g." says how the document marks what it demands, and demands nothing
//= out: rfc2407 4.5 "When negotiating ESP without confidentiality, the Auth Algorithm attribute MUST be included in the proposal and the ESP transform ID must be ESP_NULL." ESP without confidentiality is neither offered nor accepted
//= out: rfc2407 4.6.1 "The secrecy level MUST be padded with zero (0) to align on the next 32-bit boundary." labels of secrecy and integrity are not supported, so that no such field is ever written
//= out: rfc2407 4.6.1 "The bitmap MUST be padded with zero (0) to align on the next 32-bit boundary." labels of secrecy and integrity are not supported, so that no such field is ever written
//= out: rfc2407 4.6.1 "The integrity level MUST be padded with zero (0) to align on the next 32-bit boundary." labels of secrecy and integrity are not supported, so that no such field is ever written
//= out: rfc2407 7.7 "o added lifetime duration MUST follow lifetype attribute to SA Life Type and SA Life Duration attribute definition" an entry of the change log; section 4.5 has the demand, which is kept
//= out: rfc2407 7.7 "o removed Group Description default for PFS QM ([IKE] MUST)" an entry of the change log; RFC 2409 section 5.5 has the demand, which is kept
//= out: rfc2408 4.2 "If the SA establishment negotiation is for a combined protection suite consisting of multiple protocols, then there MUST be multiple Proposal payloads each with the same Proposal number." ESP alone is negotiated: no bundle with AH or IPCOMP is offered, and one of a peer is passed over
//= out: rfc2408 4.2 "If the SA establishment negotiation is for different protection suites, then there MUST be multiple Proposal payloads each with a monotonically increasing Proposal number." what is offered differs in its transforms only, which stand in one proposal
//= out: rfc2408 4.2 "The different proposals MUST be presented in the initiator's preference order." one proposal is offered; the order is that of its transforms
//= out: rfc2408 4.2.1 "The responder MUST select from the two transforms proposed for ESP." the example is a bundle of ESP and AH, of which no responder without AH can choose

/// The most transforms of all proposals together that are looked at. The longest known offers have some 60.
const MAX_TRANSFORMS: usize = 200;

/// The life of an SA for which none is stated (RFC 2407 section 4.5).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(28_800);

/// A shorter life that a peer states is not taken at its word: the SA would be renewed without a pause.
pub(super) const LEAST_LIFETIME: Duration = Duration::from_secs(20);

/// The same for a volume, in kilobytes.
const LEAST_KILOBYTES: u32 = 1024;

/// The classes Life Type and Life Duration of each phase.
const PHASE1_LIFE: [u16; 2] = [Phase1Attribute::LIFE_TYPE.0, Phase1Attribute::LIFE_DURATION.0];
const PHASE2_LIFE: [u16; 2] = [Phase2Attribute::LIFE_TYPE.0, Phase2Attribute::LIFE_DURATION.0];

/// Writes a Life Type and the Life Duration that follows it, as a basic attribute if it fits.
fn write_life(out: &mut Vec<u8>, [life_type, life_duration]: [u16; 2], unit: u16, value: u32) {
    //= rfc2407 4.5 "An SA Life Duration attribute MUST always follow an SA Life Type which describes the units of duration."
    //= test: lives_are_read_in_both_forms_and_units, a_life_follows_its_unit_and_is_basic_if_it_fits
    write_basic(out, life_type, unit);
    match u16::try_from(value) {
        Ok(value) => write_basic(out, life_duration, value),
        Err(_) => {
            out.extend_from_slice(&life_duration.to_be_bytes());
            out.extend_from_slice(&[0, 4]);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Lives stated in an attribute list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct StatedLife {
    pub(super) seconds: Option<Duration>,
    pub(super) kilobytes: Option<u32>,
}

impl StatedLife {
    fn add(&mut self, unit: Option<u64>, duration: Option<u64>) {
        let Some(duration) = duration.filter(|&duration| duration > 0) else { return };
        let duration = u32::try_from(duration).unwrap_or(u32::MAX);
        if unit == Some(u64::from(KILOBYTES)) {
            self.kilobytes = Some(self.kilobytes.map_or(duration, |before| before.min(duration)));
        } else {
            let seconds = Duration::from_secs(u64::from(duration));
            self.seconds = Some(self.seconds.map_or(seconds, |before| before.min(seconds)));
        }
    }

    /// The data of a RESPONDER-LIFETIME notification (RFC 2407 section 4.6.3.1) about an SA of that protocol.
    pub(super) fn read(data: &[u8], protocol: ProtocolId) -> Result<Self, Malformed> {
        let [life_type, life_duration] = if protocol == ProtocolId::ISAKMP { PHASE1_LIFE } else { PHASE2_LIFE };
        let (mut life, mut unit) = (Self::default(), None);
        for found in attribute::read(data)? {
            let (class, value) = (found.class, found.number());
            if class == life_type {
                unit = value;
            } else if class == life_duration {
                life.add(unit, value);
            }
        }
        Ok(life)
    }

    /// The shorter of the stated time, or what stands for none, and ours.
    pub(super) fn seconds(&self, ours: Duration) -> Duration {
        self.seconds.unwrap_or(DEFAULT_LIFETIME).max(LEAST_LIFETIME).min(ours)
    }

    /// The stated volume, but at least what is worth an exchange.
    pub(super) fn volume(&self) -> Option<u32> {
        self.kilobytes.map(|kilobytes| kilobytes.max(LEAST_KILOBYTES))
    }

    /// The shorter of this and ours.
    pub(super) fn shorten(&self, ours: Lifetime) -> Lifetime {
        Lifetime {
            seconds: self.seconds(ours.seconds),
            kilobytes: match (self.volume(), ours.kilobytes) {
                (Some(theirs), Some(ours)) => Some(theirs.min(ours)),
                (theirs, ours) => theirs.or(ours),
            },
        }
    }
}

/// One Transform payload.
#[derive(Debug, Clone, Copy)]
struct Transform<'a> {
    /// The whole payload behind its generic header, to be returned as it is.
    body: &'a [u8],
    id: u8,
    attributes: &'a [u8],
}

/// One Proposal payload.
#[derive(Debug, Clone)]
struct Proposal<'a> {
    number: u8,
    protocol: ProtocolId,
    spi: &'a [u8],
    transforms: Vec<Transform<'a>>,
}

//= rfc2408 5.4 "When a Security Association payload is received, the receiving entity (initiator or responder) MUST do the following:"
//= test: the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same, sa_payloads_of_another_domain_or_situation_are_refused, no_common_proposal_of_phase_1_is_reported_within_seconds
//= rfc2408 5.5 "When a Proposal payload is received, the receiving entity (initiator or responder) MUST do the following:"
//= test: of_the_second_example_of_rfc_2408_one_transform_of_the_second_proposal_is_chosen, a_proposal_for_another_protocol_or_with_an_spi_that_is_none_is_passed_over, next_payloads_and_reserved_fields_of_proposals_and_transforms_are_what_they_must_be
/// Reads the body of an SA payload.
fn read_sa(body: &[u8]) -> Result<Vec<Proposal<'_>>, Malformed> {
    let mut reader = Reader::new(body);
    if reader.u32("SA DOI")? != DOI_IPSEC {
        return Err(Malformed::Invalid("SA DOI"));
    }
    //= rfc2407 4.2.2 "If a responder does not support SIT_SECRECY, a SITUATION-NOT-SUPPORTED Notification Payload SHOULD be returned and the security association setup MUST be aborted."
    //= test: the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same, sa_payloads_of_another_domain_or_situation_are_refused
    //= rfc2407 4.2.3 "If a responder does not support SIT_INTEGRITY, a SITUATION-NOT-SUPPORTED Notification Payload SHOULD be returned and the security association setup MUST be aborted."
    //= test: the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same, sa_payloads_of_another_domain_or_situation_are_refused
    if reader.u32("SA situation")? != SITUATION_IDENTITY_ONLY {
        return Err(Malformed::Invalid("SA situation"));
    }
    let (mut proposals, mut total, mut more) = (Vec::new(), 0_usize, true);
    while more {
        let mut proposal = sub_payload(&mut reader, PayloadType::P, &mut more)?;
        let number = proposal.u8("proposal number")?;
        let protocol = ProtocolId(proposal.u8("proposal protocol")?);
        let spi_size = usize::from(proposal.u8("proposal SPI size")?);
        let count = usize::from(proposal.u8("number of transforms")?);
        let spi = proposal.take(spi_size, "proposal SPI")?;
        total = total.saturating_add(count);
        if total > MAX_TRANSFORMS || proposals.len() >= MAX_TRANSFORMS {
            return Err(Malformed::Invalid("number of transforms"));
        }
        let (mut transforms, mut more_transforms) = (Vec::new(), count > 0);
        while more_transforms {
            if transforms.len() >= count {
                return Err(Malformed::Invalid("number of transforms"));
            }
            let mut transform = sub_payload(&mut proposal, PayloadType::T, &mut more_transforms)?;
            let body = transform.peek();
            transform.u8("transform number")?;
            let id = transform.u8("transform ID")?;
            transform.u16("transform reserved")?;
            transforms.push(Transform { body, id, attributes: transform.rest() });
        }
        if transforms.len() != count {
            return Err(Malformed::Invalid("number of transforms"));
        }
        proposal.finish("proposal")?;
        proposals.push(Proposal { number, protocol, spi, transforms });
    }
    reader.finish("SA payload")?;
    Ok(proposals)
}

//= rfc2408 3.5 "This field MUST only contain the value "2" or "0"."
//= test: of_the_second_example_of_rfc_2408_one_transform_of_the_second_proposal_is_chosen, next_payloads_and_reserved_fields_of_proposals_and_transforms_are_what_they_must_be
//= rfc2408 3.6 "This field MUST only contain the value "3" or "0"."
//= test: every_proposal_of_phase_2_survives_the_offer_the_choice_and_the_answer, next_payloads_and_reserved_fields_of_proposals_and_transforms_are_what_they_must_be
fn sub_payload<'a>(reader: &mut Reader<'a>, kind: PayloadType, more: &mut bool) -> Result<Reader<'a>, Malformed> {
    let next = PayloadType(reader.u8("next payload")?);
    *more = match next {
        PayloadType::NONE => false,
        next if next == kind => true,
        _ => return Err(Malformed::Invalid("next payload in an SA payload")),
    };
    if reader.u8("reserved")? != 0 {
        return Err(Malformed::Invalid("reserved field of a payload"));
    }
    let length = usize::from(reader.u16("payload length")?);
    reader.sub(length.checked_sub(4).ok_or(Malformed::Invalid("payload length"))?, "payload in an SA payload")
}

//= rfc2407 4.2.2 "If an initiator does not support SIT_SECRECY, SIT_SECRECY MUST NOT be set in the Situation bitmap and no secrecy level or category bitmaps shall be included."
//= test: the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same, sa_payloads_of_another_domain_or_situation_are_refused
//= rfc2407 4.2.3 "If an initiator does not support SIT_INTEGRITY, SIT_INTEGRITY MUST NOT be set in the Situation bitmap and no integrity level or category bitmaps shall be included."
//= test: the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same, sa_payloads_of_another_domain_or_situation_are_refused
//= rfc2408 3.4 "This field MUST be present within the Security Association payload."
//= test: the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same, sa_payloads_cut_short_anywhere_are_refused
//= rfc2408 5.4 "When creating a Security Association Payload, the transmitting entity (initiator or responder) MUST do the following:"
//= test: the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same, sa_payloads_of_another_domain_or_situation_are_refused
//= rfc2408 5.5 "When creating a Proposal Payload, the transmitting entity (initiator or responder) MUST do the following:"
//= test: every_proposal_of_phase_2_survives_the_offer_the_choice_and_the_answer, an_spi_begins_with_the_bits_of_its_space_and_is_never_reserved, what_names_an_sa_is_there_where_it_must_be_and_no_flag_but_that_of_encryption
//= rfc2409 5 "To put it another way, for phase 1 exchanges there MUST NOT be multiple Proposal Payloads for a single SA payload and there MUST NOT be multiple SA payloads."
//= test: transforms_of_phase_1_are_numbered_in_our_order_in_one_proposal, an_answer_with_several_proposals_is_refused, the_sa_payload_of_phase_1_comes_first_and_alone
/// Writes the body of an SA payload with one proposal.
fn write_sa(number: u8, protocol: ProtocolId, spi: &[u8], transforms: &[Vec<u8>]) -> Vec<u8> {
    let mut out = DOI_IPSEC.to_be_bytes().to_vec();
    out.extend_from_slice(&SITUATION_IDENTITY_ONLY.to_be_bytes());
    let start = out.len();
    let count = u8::try_from(transforms.len()).expect("offers are cut to MAX_OFFERED transforms");
    let spi_size = u8::try_from(spi.len()).expect("an SPI has at most 16 octets");
    out.extend_from_slice(&[PayloadType::NONE.0, 0, 0, 0, number, protocol.0, spi_size, count]);
    out.extend_from_slice(spi);
    for (index, transform) in transforms.iter().enumerate() {
        let at = out.len();
        let next = if index + 1 < transforms.len() { PayloadType::T } else { PayloadType::NONE };
        out.extend_from_slice(&[next.0, 0, 0, 0]);
        out.extend_from_slice(transform);
        fix_length(&mut out, at + 2, at);
    }
    fix_length(&mut out, start + 2, start);
    out
}

/// The most transforms that are offered: far above what real peers stand, and it keeps the message below the path's MTU.
pub(super) const MAX_OFFERED: usize = 32;

//= rfc2408 4.2 "The multiple transforms MUST be presented with monotonically increasing numbers in the initiator's preference order."
//= test: transforms_of_phase_1_are_numbered_in_our_order_in_one_proposal, transforms_of_phase_2_are_numbered_in_our_order_in_one_proposal
//= rfc2408 5.6 "When creating a Transform Payload, the transmitting entity (initiator or responder) MUST do the following:"
//= test: transforms_of_phase_1_are_numbered_in_our_order_in_one_proposal, transforms_of_phase_2_are_numbered_in_our_order_in_one_proposal
//= rfc2409 4 "All of these attributes are mandatory and MUST be negotiated."
//= test: every_proposal_of_phase_1_survives_the_offer_the_choice_and_the_answer, a_transform_of_phase_1_lacks_none_of_its_four_attributes_and_has_no_other_group_beside
//= rfc2409 4 "The Diffie-Hellman group MUST be either specified using a defined group description (section 6) or by defining all attributes of a group (section 5.6)."
//= test: every_proposal_of_phase_1_survives_the_offer_the_choice_and_the_answer, a_transform_of_phase_1_lacks_none_of_its_four_attributes_and_has_no_other_group_beside
//= rfc2409 4 "Group attributes (such as group type or prime-- see Appendix A) MUST NOT be offered in conjunction with a previously defined group (either a reserved group description or a private use description that is established after conclusion of a New Group Mode exchange)."
//= test: the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same, a_transform_of_phase_1_lacks_none_of_its_four_attributes_and_has_no_other_group_beside
//= rfc2409 Appendix.A "This attribute MUST NOT be used when the specified Encryption Algorithm uses a fixed length key."
//= test: a_key_length_is_stated_for_aes_alone_and_in_network_order, a_key_length_beside_a_cipher_of_one_length_or_in_another_order_is_passed_over
/// The body of the SA payload that offers phase 1.
pub(super) fn offer_phase1(
    proposals: &[IkeProposal],
    method: impl Into<AuthenticationMethod>,
    lifetime: Duration,
) -> Vec<u8> {
    let method = method.into();
    let transforms: Vec<Vec<u8>> = (1..)
        .zip(proposals.iter().filter_map(|proposal| Some((proposal, registry::phase1_cipher(proposal.cipher)?))))
        .take(MAX_OFFERED)
        .map(|(number, (proposal, (cipher, key_length)))| {
            //= rfc2407 4.4.2.1 "All implementations within the IPSEC DOI MUST support KEY_IKE."
            //= test: every_proposal_of_phase_1_survives_the_offer_the_choice_and_the_answer, unknown_attributes_spoil_their_transform_only_and_aes_without_a_length_has_128_bits
            let mut out = vec![number, KEY_IKE, 0, 0];
            write_basic(&mut out, Phase1Attribute::ENCRYPTION_ALGORITHM.0, cipher);
            if let Some(bits) = key_length {
                write_basic(&mut out, Phase1Attribute::KEY_LENGTH.0, bits);
            }
            write_basic(&mut out, Phase1Attribute::HASH_ALGORITHM.0, registry::phase1_hash(proposal.hash));
            write_basic(&mut out, Phase1Attribute::GROUP_DESCRIPTION.0, registry::group(proposal.group));
            write_basic(&mut out, Phase1Attribute::AUTHENTICATION_METHOD.0, method.0);
            write_life(&mut out, PHASE1_LIFE, SECONDS, whole_seconds(lifetime));
            out
        })
        .collect();
    //= rfc2407 4.4.1.1 "All implementations within the IPSEC DOI MUST support PROTO_ISAKMP."
    //= test: every_proposal_of_phase_1_survives_the_offer_the_choice_and_the_answer, an_answer_that_was_not_offered_is_refused
    //= rfc2409 5 "If multiple offers are being made for phase 1 exchanges (Main Mode and Aggressive Mode) they MUST take the form of multiple Transform Payloads for a single Proposal Payload in a single SA payload."
    //= test: the_offer_of_a_foreign_peer_is_understood_and_ours_is_the_same, an_answer_that_was_not_offered_is_refused
    write_sa(1, ProtocolId::ISAKMP, &[], &transforms)
}

//= rfc2407 4.4.4 "Note: when authentication, integrity protection, and replay detection are required, the Authentication Algorithm attribute MUST be specified to identify the appropriate ESP protection suite."
//= test: every_proposal_of_phase_2_survives_the_offer_the_choice_and_the_answer, esp_without_authentication_is_neither_offered_nor_chosen
//= rfc2407 4.5 "When negotiating ESP without authentication, the Auth Algorithm attribute MUST NOT be included in the proposal."
//= test: a_cipher_that_authenticates_by_itself_has_no_other_algorithm_for_it, esp_without_authentication_is_neither_offered_nor_chosen
//= rfc2407 4.5 "For fixed length ciphers, the Key Length attribute MUST NOT be sent."
//= test: a_key_length_is_stated_for_aes_alone_and_in_network_order, a_key_length_beside_a_cipher_of_one_length_or_in_another_order_is_passed_over
//= rfc2407 4.5.1 "To ensure basic interoperability, all implementations MUST be prepared to negotiate all of the following attributes."
//= test: every_proposal_of_phase_2_survives_the_offer_the_choice_and_the_answer, the_chosen_transform_of_quick_mode_is_returned_octet_for_octet, esp_without_authentication_is_neither_offered_nor_chosen
/// The body of the SA payload that offers ESP with the given SPI.
pub(super) fn offer_phase2(
    proposals: &[EspProposal],
    lifetime: Lifetime,
    mode: EncapsulationMode,
    spi: u32,
) -> Vec<u8> {
    let transforms: Vec<Vec<u8>> = (1..)
        .zip(proposals)
        .take(MAX_OFFERED)
        .map(|(number, proposal)| {
            let (id, key_length) = registry::esp_transform(proposal.cipher);
            let mut out = vec![number, id, 0, 0];
            if let Some(bits) = key_length {
                write_basic(&mut out, Phase2Attribute::KEY_LENGTH.0, bits);
            }
            if let Some(hash) = proposal.integrity {
                write_basic(&mut out, Phase2Attribute::AUTHENTICATION_ALGORITHM.0, registry::esp_integrity(hash));
            }
            if let Some(group) = proposal.group {
                write_basic(&mut out, Phase2Attribute::GROUP_DESCRIPTION.0, registry::group(group));
            }
            write_basic(&mut out, Phase2Attribute::ENCAPSULATION_MODE.0, mode.0);
            write_life(&mut out, PHASE2_LIFE, SECONDS, whole_seconds(lifetime.seconds));
            if let Some(kilobytes) = lifetime.kilobytes {
                write_life(&mut out, PHASE2_LIFE, KILOBYTES, kilobytes);
            }
            out
        })
        .collect();
    write_sa(1, ProtocolId::ESP, &spi.to_be_bytes(), &transforms)
}

/// What a transform of phase 1 stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChosenIke {
    pub(super) proposal: IkeProposal,
    pub(super) method: Method,
    /// Who has to authenticate itself by XAUTH afterwards.
    pub(super) xauth: Option<Role>,
    pub(super) life: StatedLife,
}

impl ChosenIke {
    fn is_by(&self, method: AuthenticationMethod) -> bool {
        self.method.extended(self.xauth) == Some(method)
    }
}

/// What a transform of phase 1 stands for; none when it has something that is not known here.
fn phase1_meaning(transform: &Transform<'_>) -> Option<ChosenIke> {
    //= rfc2408 5.6 "If the Transform-ID field contains an unknown or unsupported value, then that Transform payload MUST be ignored and MUST NOT cause the generation of an INVALID TRANSFORM event."
    //= test: of_the_second_example_of_rfc_2408_one_transform_of_the_second_proposal_is_chosen, a_transform_with_an_unknown_number_is_passed_over_without_a_word
    //= rfc2408 5.6 "When a Transform payload is received, the receiving entity (initiator or responder) MUST do the following:"
    //= test: of_the_second_example_of_rfc_2408_one_transform_of_the_second_proposal_is_chosen, a_transform_with_an_unknown_number_is_passed_over_without_a_word, a_transform_of_phase_1_lacks_none_of_its_four_attributes_and_has_no_other_group_beside
    if transform.id != KEY_IKE {
        return None;
    }
    let (mut cipher, mut hash, mut group, mut method, mut bits) = (None, None, None, None, None);
    let (mut life, mut unit) = (StatedLife::default(), None);
    for found in attribute::read(transform.attributes).ok()? {
        let value = found.number();
        match Phase1Attribute(found.class) {
            Phase1Attribute::ENCRYPTION_ALGORITHM => once(&mut cipher, value)?,
            Phase1Attribute::HASH_ALGORITHM => once(&mut hash, value)?,
            Phase1Attribute::GROUP_DESCRIPTION => once(&mut group, value)?,
            Phase1Attribute::AUTHENTICATION_METHOD => once(&mut method, value)?,
            Phase1Attribute::KEY_LENGTH => once(&mut bits, value)?,
            Phase1Attribute::LIFE_TYPE => unit = value,
            Phase1Attribute::LIFE_DURATION => life.add(unit, value),
            _ => return None,
        }
    }
    //= rfc3193 5.1 "IPsec IKE negotiation MUST negotiate an authentication method specified in the IKE RFC 2409 [7]."
    //= test: the_method_of_the_initiator_selects_among_ours, a_client_with_a_certificate_is_not_served_with_a_key_alone
    let (method, xauth) = Method::of_number(AuthenticationMethod(u16::try_from(method?).ok()?))?;
    let wanted = Cipher::ALL.iter().find(|&&known| {
        registry::phase1_cipher(known).is_some_and(|known| same_cipher(known.0.into(), known.1, cipher, bits))
    })?;
    let hash = Hash::ALL.iter().find(|&&known| Some(u64::from(registry::phase1_hash(known))) == hash)?;
    let proposal = IkeProposal { cipher: *wanted, hash: *hash, group: group_of(group?)? };
    Some(ChosenIke { proposal, method, xauth, life })
}

/// What a transform of ESP stands for, with its encapsulation mode.
fn phase2_meaning(transform: &Transform<'_>) -> Option<(EspProposal, Option<EncapsulationMode>, StatedLife)> {
    let (mut mode, mut integrity, mut group, mut bits) = (None, None, None, None);
    let (mut life, mut unit) = (StatedLife::default(), None);
    for found in attribute::read(transform.attributes).ok()? {
        let value = found.number();
        //= rfc2407 4.5.3 "If an implementation receives a defined IPSEC DOI attribute (or attribute value) which it does not support, an ATTRIBUTES-NOT-SUPPORT SHOULD be sent and the security association setup MUST be aborted, unless the attribute value is in the reserved range."
        //= test: every_proposal_of_phase_2_survives_the_offer_the_choice_and_the_answer, unknown_attributes_spoil_their_transform_only_and_aes_without_a_length_has_128_bits
        match Phase2Attribute(found.class) {
            Phase2Attribute::ENCAPSULATION_MODE => once(&mut mode, value)?,
            Phase2Attribute::AUTHENTICATION_ALGORITHM => once(&mut integrity, value)?,
            Phase2Attribute::GROUP_DESCRIPTION => once(&mut group, value)?,
            Phase2Attribute::KEY_LENGTH => once(&mut bits, value)?,
            Phase2Attribute::LIFE_TYPE => unit = value,
            Phase2Attribute::LIFE_DURATION => life.add(unit, value),
            _ => return None,
        }
    }
    let id = Some(u64::from(transform.id));
    let cipher = *Cipher::ALL.iter().find(|&&known| {
        let known = registry::esp_transform(known);
        same_cipher(known.0.into(), known.1, id, bits)
    })?;
    let integrity = match integrity {
        // The ICV is the cipher's own (RFC 4106 section 6); some peers state the absence of another algorithm as 0.
        None | Some(0) if cipher.is_aead() => None,
        Some(value) if !cipher.is_aead() => {
            Some(*Hash::ALL.iter().find(|&&known| u64::from(registry::esp_integrity(known)) == value)?)
        }
        _ => return None,
    };
    let group = match group {
        None => None,
        Some(value) => Some(group_of(value)?),
    };
    let mode = match mode {
        None => None,
        Some(value) => Some(EncapsulationMode(u16::try_from(value).ok()?)),
    };
    Some((EspProposal { cipher, integrity, group }, mode, life))
}

/// Stores the value of a class that may stand once; a second one of another value makes the transform useless.
fn once(slot: &mut Option<u64>, value: Option<u64>) -> Option<()> {
    let value = value?;
    //= rfc2407 4.5.2 "a conforming ISAKMP implementation MUST correctly parse an attribute list that contains multiple instances of the same attribute class, so long as the different attribute entries do not conflict with one another."
    //= test: a_second_value_of_an_attribute_spoils_its_transform_and_the_same_value_twice_does_not, lives_are_read_in_both_forms_and_units
    //= rfc2407 4.5.2 "If conflicting attributes are detected, an ATTRIBUTES-NOT-SUPPORTED Notification Payload SHOULD be returned and the security association setup MUST be aborted."
    //= test: every_proposal_of_phase_1_survives_the_offer_the_choice_and_the_answer, a_second_value_of_an_attribute_spoils_its_transform_and_the_same_value_twice_does_not
    (*slot.get_or_insert(value) == value).then_some(())
}

fn same_cipher(id: u64, key_length: Option<u16>, stated: Option<u64>, bits: Option<u64>) -> bool {
    let stated_bits = match (key_length, bits) {
        // AES without a Key Length means 128 bits with the peers that leave it out.
        (Some(_), None) => Some(128),
        (None, Some(0)) => None,
        (_, bits) => bits,
    };
    stated == Some(id) && stated_bits == key_length.map(u64::from)
}

fn group_of(value: u64) -> Option<Group> {
    Group::ALL.iter().copied().find(|&known| u64::from(registry::group(known)) == value)
}

/// The answer of the responder of phase 1, read by the initiator.
pub(super) fn accept_phase1(
    offered: &[IkeProposal],
    method: impl Into<AuthenticationMethod>,
    answer: &[u8],
) -> Result<ChosenIke, &'static str> {
    let proposals = read_sa(answer).map_err(|_| "the SA payload is malformed")?;
    let transform = only_transform(&proposals, ProtocolId::ISAKMP)?.1;
    let chosen = phase1_meaning(&transform).ok_or("an attribute is unknown")?;
    //= rfc2408 4.2 "The initiator MUST verify that the Security Association payload received from the responder matches one of the proposals sent initially."
    //= test: every_proposal_of_phase_1_survives_the_offer_the_choice_and_the_answer, an_answer_that_was_not_offered_is_refused
    //= rfc2409 5 "If the initiator of an exchange notices that attribute values have changed or attributes have been added or deleted from an offer made, that response MUST be rejected."
    //= test: every_proposal_of_phase_1_survives_the_offer_the_choice_and_the_answer, an_answer_that_was_not_offered_is_refused
    if offered.contains(&chosen.proposal) && chosen.is_by(method.into()) {
        Ok(chosen)
    } else {
        Err("the attributes differ from all that were offered")
    }
}

/// What the responder of Quick Mode chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChosenEsp {
    pub(super) proposal: EspProposal,
    pub(super) life: StatedLife,
    /// The SPI that the peer receives on.
    pub(super) spi: u32,
}

/// The answer of the responder of Quick Mode, read by the initiator.
pub(super) fn accept_phase2(
    offered: &[EspProposal],
    mode: EncapsulationMode,
    answer: &[u8],
) -> Result<ChosenEsp, &'static str> {
    let proposals = read_sa(answer).map_err(|_| "the SA payload is malformed")?;
    let (proposal, transform) = only_transform(&proposals, ProtocolId::ESP)?;
    let spi = esp_spi(proposal.spi).ok_or("the SPI is not usable")?;
    let (chosen, chosen_mode, life) = phase2_meaning(&transform).ok_or("an attribute is unknown")?;
    //= rfc3193 2.1 "Transport mode MUST be supported; tunnel mode MAY be supported."
    //= test: every_proposal_of_esp_establishes_with_keys_of_the_right_size, an_answer_that_was_not_offered_is_refused
    if chosen_mode.is_some_and(|chosen| chosen != mode) {
        return Err("the encapsulation mode differs");
    }
    if !offered.contains(&chosen) {
        return Err("the attributes differ from all that were offered");
    }
    Ok(ChosenEsp { proposal: chosen, life, spi })
}

fn only_transform<'s, 'a>(
    proposals: &'s [Proposal<'a>],
    protocol: ProtocolId,
) -> Result<(&'s Proposal<'a>, Transform<'a>), &'static str> {
    //= rfc2408 4.2 "Each of the Proposal payloads MUST contain a single Transform payload associated with the Protocol."
    //= test: the_chosen_transform_of_quick_mode_is_returned_octet_for_octet, an_answer_that_was_not_offered_is_refused
    // No bundle of protocols was offered, so there is one Proposal payload.
    let [proposal] = proposals else { return Err("it holds several proposals") };
    let [transform] = proposal.transforms.as_slice() else { return Err("it holds several transforms") };
    if proposal.protocol == protocol { Ok((proposal, *transform)) } else { Err("it is for another protocol") }
}

/// An SPI of ESP; 0 to 255 are reserved (RFC 4303 section 2.1).
fn esp_spi(spi: &[u8]) -> Option<u32> {
    <[u8; 4]>::try_from(spi).ok().map(u32::from_be_bytes).filter(|&spi| spi > 255)
}

//= rfc2408 3.5 "If the SPI Size is non-zero, the content of the SPI field MUST be ignored."
//= test: an_spi_in_a_proposal_of_phase_1_is_ignored, a_proposal_for_another_protocol_or_with_an_spi_that_is_none_is_passed_over
//= rfc2408 4.1.1 "An initiator MAY provide multiple proposals for negotiation; a responder MUST reply with only one."
//= test: the_responder_follows_its_own_preference_and_returns_the_number_of_the_initiator, an_answer_that_was_not_offered_is_refused
//= rfc2409 7.1 "The initiator MAY propose several proposals; the responder MUST reply with one."
//= test: the_responder_follows_its_own_preference_and_returns_the_number_of_the_initiator, an_answer_that_was_not_offered_is_refused
/// The choice of the responder of phase 1, with the body of the SA payload to answer: ours in our order of preference, with any
/// of `methods`.
pub(super) fn choose_phase1(
    ours: &[IkeProposal],
    methods: &[impl Copy + Into<AuthenticationMethod>],
    offer: &[u8],
) -> Result<Option<(ChosenIke, Vec<u8>)>, Malformed> {
    let proposals = read_sa(offer)?;
    let meanings: Vec<_> = proposals
        .iter()
        .filter(|proposal| proposal.protocol == ProtocolId::ISAKMP)
        .flat_map(|proposal| proposal.transforms.iter().map(move |transform| (proposal, transform)))
        .filter_map(|(proposal, transform)| phase1_meaning(transform).map(|meaning| (proposal, transform, meaning)))
        .filter(|(_, _, meaning)| methods.iter().any(|&method| meaning.is_by(method.into())))
        .collect();
    //= rfc2408 4.2 "The receiving entity MUST select a single transform for each protocol in a proposal or reject the entire proposal."
    //= test: the_responder_follows_its_own_preference_and_returns_the_number_of_the_initiator, no_common_proposal_of_phase_1_is_reported_within_seconds
    //= rfc2409 3.2 "An initiator MAY provide multiple proposals for negotiation; a responder MUST reply with only one."
    //= test: the_responder_follows_its_own_preference_and_returns_the_number_of_the_initiator, an_answer_that_was_not_offered_is_refused
    //= rfc2409 5 "Responders MUST NOT modify attributes of any offer, attribute encoding excepted (see Appendix A)."
    //= test: the_chosen_transform_of_quick_mode_is_returned_octet_for_octet, an_answer_that_was_not_offered_is_refused
    let chosen = ours.iter().find_map(|wanted| meanings.iter().find(|(_, _, meaning)| meaning.proposal == *wanted));
    Ok(chosen.map(|(proposal, transform, meaning)| {
        (*meaning, write_sa(proposal.number, proposal.protocol, proposal.spi, &[transform.body.to_vec()]))
    }))
}

//= rfc2408 4.2.1 "The responder MUST select from the two different proposals."
//= test: of_the_second_example_of_rfc_2408_one_transform_of_the_second_proposal_is_chosen, a_bundle_of_protocols_is_not_taken_for_esp_alone
//= rfc2408 4.2.1 "If the second Proposal is selected, the responder MUST select from the two transforms for ESP."
//= test: of_the_second_example_of_rfc_2408_one_transform_of_the_second_proposal_is_chosen, the_chosen_transform_of_quick_mode_is_returned_octet_for_octet
/// The choice of the responder of Quick Mode: what was chosen, and the body of the SA payload to answer with `our_spi`.
///
/// A fresh exchange that the peer asks for is accepted with any group where ours asks for none: it only adds secrecy.
pub(super) fn choose_phase2(
    ours: &[EspProposal],
    modes: &[EncapsulationMode],
    offer: &[u8],
    our_spi: u32,
) -> Result<Option<(ChosenEsp, Vec<u8>)>, Malformed> {
    let proposals = read_sa(offer)?;
    //= rfc2408 4.2 "These proposals MUST be considered as a unit and MUST NOT be separated by a proposal with a different proposal number."
    //= test: every_proposal_of_phase_2_survives_the_offer_the_choice_and_the_answer, a_bundle_of_protocols_is_not_taken_for_esp_alone
    let alone = |number| proposals.iter().filter(|other| other.number == number).count() == 1;
    let meanings: Vec<_> = proposals
        .iter()
        // Proposals of one number stand for a bundle of protocols (RFC 2408 section 4.2).
        .filter(|proposal| proposal.protocol == ProtocolId::ESP && alone(proposal.number))
        .filter_map(|proposal| Some((proposal, esp_spi(proposal.spi)?)))
        .flat_map(|(proposal, spi)| proposal.transforms.iter().map(move |transform| (proposal, spi, transform)))
        .filter_map(|(proposal, spi, transform)| {
            let (meaning, mode, life) = phase2_meaning(transform)?;
            let suitable = mode.is_none_or(|mode| modes.contains(&mode));
            suitable.then_some((proposal, transform, ChosenEsp { proposal: meaning, life, spi }))
        })
        .collect();
    let matches = |wanted: &EspProposal, offered: &EspProposal| {
        //= rfc2409 5.5 "the attribute describing the Diffie-Hellman group (see section 6.1 and [Pip97]) MUST be included in every transform of every proposal of every SA being negotiated."
        //= test: every_proposal_of_phase_2_survives_the_offer_the_choice_and_the_answer, a_group_in_quick_mode_has_to_fit
        (wanted.cipher, wanted.integrity) == (offered.cipher, offered.integrity)
            && (wanted.group.is_none() || wanted.group == offered.group)
    };
    let chosen =
        ours.iter().find_map(|wanted| meanings.iter().find(|(_, _, offered)| matches(wanted, &offered.proposal)));
    Ok(chosen.map(|(proposal, transform, chosen)| {
        (*chosen, write_sa(proposal.number, proposal.protocol, &our_spi.to_be_bytes(), &[transform.body.to_vec()]))
    }))
}

#[cfg(test)]
mod form;

#[cfg(test)]
mod tests;
