//! L2TPv2, RFC 2661: the LAC (L2TP Access Concentrator) of one control connection that carries one session, and the LNS (L2TP
//! Network Server) of all control connections of one peer with many sessions.
//!
//! ```text
//!   UDP payload ── message   header of control and data messages            section 3.1
//!                    ├ data     sequence numbers of the data channel        section 5.4
//!                    └ channel  reliable delivery of control messages       section 5.8, appendix A
//!                        └ avp  attribute value pairs, hiding               section 4
//!                            ├ control   states of the control connection   section 7.2
//!                            ├ session   states of an incoming call         section 7.4
//!                            ├ lac       both of them driven together       sections 5 to 7
//!                            └ lns       the same at the other end          sections 5 to 7
//! ```
//!
//! Left out: outgoing calls (an OCRQ is refused with a CDN), proxy LCP and proxy authentication (the LAC has no caller of its
//! own to speak for, and the LNS lets every caller prove who it is). The LNS opens no tunnel, so that its peer has no tie to
//! break with it.
//!
//! Nothing here encrypts: messages come from, and go to, an IPsec SA (RFC 3193).

//= out: rfc2661 4.2 "Use of the M-bit with new AVPs (those not defined in this document) MUST provide the ability to configure the associated feature off, such that the AVP is either not sent, or sent with the M-bit not set." no AVP is sent that RFC 2661 does not define
//= out: rfc2661 4.4.3 "This AVP MUST be present if the sender can place outgoing calls when requested." neither end places outgoing calls, so that neither names a bearer
//= out: rfc2661 4.4.3 "Human readable text for this AVP MUST be provided in the UTF-8 charset using the Default Language [RFC2277]." no Vendor Name is sent; that of a peer is shown as far as it is printable
//= out: rfc2661 4.4.4 "Bits in the Value field of this AVP MUST only be set by the LNS for an OCRQ if it was set in the Bearer Capabilities AVP received from the LAC during control connection establishment." no OCRQ is sent
//= out: rfc2661 4.4.4 "Bits in the Value field of this AVP MUST only be set by the LNS for an OCRQ if it was set in the Framing Capabilities AVP received from the LAC during control connection establishment." no OCRQ is sent
//= out: rfc2661 4.4.5 "This AVP MUST be present if proxy authentication is to be utilized." proxy authentication is left out: the LAC has no caller of its own to speak for
//= out: rfc2661 4.4.5 "This AVP MUST be present in messages containing a Proxy Authen Type AVP with an Authen Type of 1, 2, 3 or 5." proxy authentication is left out: the LAC has no caller of its own to speak for
//= out: rfc2661 4.4.5 "This AVP MUST be present for Proxy Authen Types 2 and 5." proxy authentication is left out: the LAC has no caller of its own to speak for
//= out: rfc2661 4.4.5 "ID is a 2 octet unsigned integer, the most significant octet MUST be 0." proxy authentication is left out: the LAC has no caller of its own to speak for
//= out: rfc2661 4.4.5 "The Proxy Authen ID AVP MUST be present for Proxy authen types 2, 3 and 5." proxy authentication is left out: the LAC has no caller of its own to speak for
//= out: rfc2661 4.4.5 "This AVP MUST be present for Proxy authen types 1, 2, 3 and 5." proxy authentication is left out: the LAC has no caller of its own to speak for
//= out: rfc2661 4.4.6 "Reserved - Not used, MUST be 0" no WEN is sent: there is no line whose errors could be counted
//= out: rfc2661 6.9 "An LNS MUST have received a Bearer Capabilities AVP during tunnel establishment from an LAC in order to request an outgoing call to that LAC." no OCRQ is sent
//= out: rfc2661 6.9 "The following AVPs MUST be present in the OCRQ:" no OCRQ is sent
//= out: rfc2661 6.10 "The following AVPs MUST be present in the OCRP:" no OCRP is sent: every OCRQ is refused with a CDN
//= out: rfc2661 6.11 "The following AVPs MUST be present in the OCCN:" no OCCN is sent: every OCRQ is refused with a CDN
//= out: rfc2661 6.13 "The following AVPs MUST be present in the WEN:" no WEN is sent: there is no line whose errors could be counted
//= out: rfc2661 6.14 "These options can change at any time during the life of the call, thus the LAC MUST be able to update its internal call information and behavior on an active PPP session." an SLI is about the characters of an asynchronous line, which the LAC does not have; it is acknowledged and ignored
//= out: rfc2661 6.14 "The following AVPs MUST be present in the SLI:" no SLI is sent: the LNS asks for no escapes
//= out: rfc2661 7.5 "The LAC MUST respond to the Outgoing-Call-Request message with an Outgoing-Call-Reply message once the LAC determines that the proper facilities exist to place the call and the call is administratively authorized." the LAC places no outgoing calls: every OCRQ is refused with a CDN
//= out: rfc2661 7.5.1 "If a Call-Disconnect-Notify is received by the LAC, the telco call MUST be released via appropriate mechanisms and the session cleaned up." the LAC places no outgoing calls
//= out: rfc2661 7.5.1 "If the call is disconnected by the client or the called interface, a Call-Disconnect-Notify message MUST be sent to the LNS." the LAC places no outgoing calls
//= out: rfc2661 9.5 "If the LNS chooses to implement proxy authentication, it MUST be able to be configured off, requiring a new round a PPP authentication initiated by the LNS (which may or may not include a new round of LCP negotiation)." proxy authentication is left out: every caller proves itself to the LNS
pub mod avp;
pub mod channel;
pub mod control;
pub mod error;
pub mod message;
pub mod outcome;
pub mod session;

mod authentication;
mod config;
mod data;
mod ending;
mod introduction;
mod lac;
mod lns;

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tables;

pub use authentication::response;
pub use config::{Config, Event, NotEstablished, Peer};
pub use ending::CloseReason;
pub use error::{Authentication, Error};
pub use lac::Lac;
pub use lns::{Call, Lns, LnsConfig, LnsEvent};
