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
