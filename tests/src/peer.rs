//! Foreign L2TP/IPsec peers: guests with strongSwan, xl2tpd and pppd on a Linux kernel of their own, and SoftEther;
//! and the RADIUS server that a server asks.

mod guest;
pub mod pki;
mod radius;
mod softether;

pub use guest::{Exchanges, Guest, GuestPings, INNER, Lac, Lns, PppAuth, end_kept, is_kept, outer_ipv6};
pub use radius::FreeRadius;
pub use softether::SoftEther;

/// The Debian packages that guests need.
pub const GUEST_PACKAGES: &[&str] = &[
    "busybox",
    "curl",
    "dhcping",
    "gcc",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libc6-dev",
    "libcharon-extauth-plugins",
    "libcharon-extra-plugins",
    "libstrongswan-extra-plugins",
    "libstrongswan-standard-plugins",
    "openssl",
    "ppp",
    "python3-scapy",
    "socat",
    "strongswan",
    "strongswan-swanctl",
    "user-mode-linux",
    "util-linux",
    "xl2tpd",
];

/// Those of charon on this machine, which the benchmark measures.
pub const CHARON_PACKAGES: &[&str] = &[
    "gcc",
    "libc6-dev",
    "libcharon-extra-plugins",
    "libstrongswan-standard-plugins",
    "strongswan-charon",
    "strongswan-swanctl",
];

/// Those that the networks around them and captures need.
pub const NETWORK_PACKAGES: &[&str] = &["conntrack", "nftables", "tcpdump", "tshark"];

/// Those of the other peers.
pub const OTHER_PACKAGES: &[&str] =
    &["dnsmasq-base", "freeradius", "freeradius-utils", "softether-vpncmd", "softether-vpnserver"];
