//! The tunnel process as the server: foreign clients dial in, strongSwan, xl2tpd and pppd on a Linux kernel of their own.

mod accounts;
mod agreement;
mod capture;
mod certificate;
mod eap_tls;
mod fragmentation;
mod ipv6;
mod lifetime;
mod nat;
mod policy;
mod recovery;
mod refusal;
mod site;
mod world;
