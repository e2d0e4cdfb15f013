//! The tunnel process against foreign gateways: strongSwan, xl2tpd and pppd on a Linux kernel of their own, and SoftEther.

mod interop {
    mod agreement;
    mod capture;
    mod failure;
    mod lifetime;
    mod recovery;
    mod softether;
}
