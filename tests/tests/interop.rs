//! The tunnel process against foreign gateways: strongSwan, xl2tpd and pppd on a Linux kernel of their own, and SoftEther.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it is")]

mod interop {
    mod aggressive;
    mod agreement;
    mod capture;
    mod certificate;
    mod encapsulation;
    mod failure;
    mod ipv6;
    mod ladder;
    mod lifetime;
    mod radius;
    mod recovery;
    mod server;
    mod softether;
    mod transfer;
    mod world;
    mod xauth;
}
