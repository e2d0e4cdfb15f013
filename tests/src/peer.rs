//! Foreign L2TP/IPsec peers: guests with strongSwan, xl2tpd and pppd on a Linux kernel of their own, and SoftEther.

mod guest;
mod softether;

pub use guest::{Guest, INNER, Lac, Lns, PppAuth};
pub use softether::SoftEther;

/// The Debian packages that the peers and their networks need.
pub const PACKAGES: &[&str] = &[
    "busybox",
    "conntrack",
    "curl",
    "gcc",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libc6-dev",
    "libcharon-extra-plugins",
    "libstrongswan-extra-plugins",
    "libstrongswan-standard-plugins",
    "nftables",
    "ppp",
    "softether-vpncmd",
    "softether-vpnserver",
    "strongswan",
    "strongswan-swanctl",
    "tcpdump",
    "tshark",
    "user-mode-linux",
    "util-linux",
    "xl2tpd",
];
