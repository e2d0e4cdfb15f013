//! Userspace L2TP/IPsec.
//!
//! ```text
//!   IP packet            TUN device                                         (io)
//!     └ PPP              RFC 1661, 1332, 1334, 1994, 2759                   (ppp)
//!        └ L2TPv2        RFC 2661                                           (l2tp)
//!           └ UDP 1701
//!              └ ESP     RFC 4303, transport mode                           (esp)
//!                 └ UDP  RFC 3948, ports 500 and 4500                       (io)
//!   keys by IKEv1        RFC 2407, 2408, 2409, 3947, 3706                   (ike)
//! ```
//!
//! The four protocols are pure state machines that do not know each other; [`stack`] is the one module that knows how they
//! nest. Time, randomness and packets come in as arguments: inputs are named `handle_*`, outputs `poll_*`, and after each call
//! the caller drains every output. [`io`] is the process around it.
//!
//! Without features the crate is data only: [`config`], [`report`] and [`suite`], the types that the operator shares.

pub mod config;
pub mod report;
pub mod suite;

#[cfg(feature = "stack")]
pub mod aaa;
#[cfg(feature = "stack")]
pub mod buffer;
#[cfg(feature = "stack")]
pub mod crypto;
#[cfg(feature = "stack")]
pub mod dhcp;
#[cfg(feature = "stack")]
pub mod esp;
#[cfg(feature = "stack")]
pub mod ike;
#[cfg(feature = "stack")]
pub mod inet;
#[cfg(feature = "io")]
pub mod io;
#[cfg(feature = "stack")]
pub mod l2tp;
#[cfg(feature = "stack")]
pub mod ppp;
#[cfg(feature = "stack")]
pub mod radius;
#[cfg(feature = "stack")]
pub mod rate;
#[cfg(feature = "stack")]
pub mod stack;
#[cfg(feature = "stack")]
pub mod timer;
#[cfg(feature = "stack")]
pub mod users;
#[cfg(feature = "stack")]
pub mod wire;
