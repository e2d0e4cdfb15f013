//! Imitations of devices that no test can have: each dials our server, or is dialled by our client, with its own offers, encodings,
//! identities, NAT payloads, AVPs and PPP options. Their messages are built and read apart from the product's own code; it lends the
//! cryptographic primitives.
//!
//! | device that dials | what is played |
//! |---|---|
//! | Windows 10 and 11 | offers in its order with lifetimes of four octets, a proposal for each transform, a lifetime in kilobytes; refuses a server behind a NAT; callback and MRRU in LCP, WINS in IPCP, CCP, IPV6CP; no dead peer detection; the Commit bit |
//! | Windows XP | drafts of NAT traversal, a name in place of an address in Quick Mode |
//! | macOS and iOS | 17/500 as identity, a port of its own for L2TP, INITIAL-CONTACT, ACSP, result codes in little-endian order, other identities when it renews |
//! | Mac OS X 10.4 | NAT-D in the other order, Hello without an answer |
//! | Android 4 to 11 | 17/0 in Quick Mode, window 1, the ZLB after SCCCN, SHA2-256 of 96 bits, sleep through Hello |
//! | ChromeOS | offers and encodings of charon, AES-GCM; AES without Key Length |
//! | RouterOS, Cisco, SEIL | perfect forward secrecy; NAT-D of the drafts beside those of RFC 3947; vendor IDs in message 3; frames without address and control |
//! | Yamaha RTX | IPCP without an address |
//!
//! Gateways that are dialled, each with where its habits are known from, are in [`gateway`].
//!
//! What only devices can prove: that these are their habits in each of their versions, how they repeat and give up, and what their
//! users see.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it is")]

mod client;
mod device;
mod esp;
mod gateway;
mod ike;
mod isakmp;
mod keys;
mod l2tp;
mod negotiation;
mod ppp;
mod recorded;
mod session;
mod table;
mod world;
