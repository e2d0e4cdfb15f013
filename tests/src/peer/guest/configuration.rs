//! What guests are set to: the parameters of a gateway and of a client, and the files that strongSwan, xl2tpd and pppd read.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::peer::pki::Certificate;

/// PPP authentication that a gateway insists on, and the only one that a client takes part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PppAuth {
    /// MS-CHAPv2.
    MsChapV2,
    /// CHAP with MD5.
    Chap,
    /// PAP.
    Pap,
    /// EAP; (clients) with MS-CHAPv2 inside, or with TLS where there is a certificate for it.
    Eap,
}

impl PppAuth {
    pub(super) fn options(self, demand: bool) -> &'static [&'static str] {
        match (self, demand) {
            (Self::MsChapV2, true) => {
                &["require-mschap-v2", "refuse-mschap", "refuse-chap", "refuse-pap", "refuse-eap"]
            }
            (Self::Chap, true) => &["require-chap", "refuse-mschap", "refuse-mschap-v2", "refuse-pap", "refuse-eap"],
            (Self::Pap, true) => &["require-pap", "refuse-mschap", "refuse-mschap-v2", "refuse-chap", "refuse-eap"],
            (Self::Eap, true) => &["require-eap", "refuse-mschap", "refuse-mschap-v2", "refuse-chap", "refuse-pap"],
            (Self::MsChapV2, false) => &["noauth", "refuse-mschap", "refuse-chap", "refuse-pap", "refuse-eap"],
            (Self::Chap, false) => &["noauth", "refuse-mschap", "refuse-mschap-v2", "refuse-pap", "refuse-eap"],
            (Self::Pap, false) => &["noauth", "refuse-mschap", "refuse-mschap-v2", "refuse-chap", "refuse-eap"],
            (Self::Eap, false) => &["noauth", "refuse-mschap", "refuse-mschap-v2", "refuse-chap", "refuse-pap"],
        }
    }
}

/// A gateway: what it accepts.
#[derive(Debug, Clone)]
pub struct Lns {
    /// The pre-shared key.
    pub psk: String,
    /// (Gateways.) The only identity that a client may have, in strongSwan's notation.
    pub remote_id: Option<String>,
    /// A certificate in place of the pre-shared key.
    pub certificate: Option<Certificate>,
    /// The user and the password of XAUTH, which a gateway asks for after phase 1.
    pub xauth: Option<(String, String)>,
    /// (Gateways.) Whether it knows Aggressive Mode, and no other.
    pub aggressive: bool,
    /// Proposals in strongSwan's notation, comma-separated.
    pub ike: String,
    /// Those of phase 2, likewise.
    pub esp: String,
    /// Lifetimes in seconds.
    pub ike_life: u32,
    /// That of phase 2.
    pub esp_life: u32,
    /// Whether this end begins rekeys itself, at 80 % of the lifetimes.
    pub rekey: bool,
    /// Seconds between DPD messages; zero for none.
    pub dpd: u32,
    /// Fragmentation of IKE messages in strongSwan's words: `yes` where the other end announces it, `force`, or `no`.
    pub fragmentation: &'static str,
    /// Whether it claims to be behind a NAT.
    pub force_encapsulation: bool,
    /// The PPP authentication that it insists on.
    pub auth: PppAuth,
    /// Its only user.
    pub user: String,
    /// The password of that user.
    pub password: String,
    /// Whether pppd offers compression (CCP), which is refused.
    pub compression: bool,
    /// Whether pppd speaks IPV6CP.
    pub ipv6: bool,
    /// (Gateways.) Whether IKE, ESP and L2TP go over IPv6.
    pub outer_ipv6: bool,
    /// The secret of L2TP tunnel authentication.
    pub tunnel_secret: Option<String>,
    /// Whether xl2tpd has only one address to give; it refuses further calls.
    pub single_address: bool,
    /// What its web page says.
    pub page: String,
}

impl Default for Lns {
    fn default() -> Self {
        Self {
            psk: "test-preshared-key".to_owned(),
            remote_id: None,
            certificate: None,
            xauth: None,
            aggressive: false,
            ike: "aes256-sha256-modp2048".to_owned(),
            esp: "aes256-sha256".to_owned(),
            ike_life: 10_800,
            esp_life: 3_600,
            rekey: false,
            dpd: 0,
            fragmentation: "yes",
            force_encapsulation: false,
            auth: PppAuth::MsChapV2,
            user: "alice".to_owned(),
            password: "wonderland".to_owned(),
            compression: false,
            ipv6: false,
            outer_ipv6: false,
            tunnel_secret: None,
            single_address: false,
            page: "the page behind the gateway".to_owned(),
        }
    }
}

/// A client.
#[derive(Debug, Clone)]
pub struct Lac {
    /// The gateway's address. One of IPv6 is dialled from [`outer_ipv6`] of the client.
    pub server: String,
    /// What the user proves itself with by EAP-TLS, in place of the password.
    pub eap_tls: Option<Certificate>,
    /// Networks that are routed into the link.
    pub routes: Vec<String>,
    /// A site: the address of a host behind this client, in a /24, with a web page.
    pub behind: Option<String>,
    /// The rest is as the gateway has it.
    pub like: Lns,
}

impl Lac {
    /// A client of the gateway at `server`.
    pub fn new(server: &str, like: Lns) -> Self {
        Self { server: server.to_owned(), routes: vec!["10.20.4.0/24".to_owned()], behind: None, eap_tls: None, like }
    }

    /// Whether IKE, ESP and L2TP go over IPv6.
    pub(super) fn is_ipv6(&self) -> bool {
        self.server.contains(':')
    }
}

/// The IPv6 address of the guest with this IPv4 address, in the same network: `2001:db8::20` of `192.0.2.20`.
pub fn outer_ipv6(address: &str) -> String {
    format!("2001:db8::{}", address.rsplit('.').next().unwrap_or_default())
}

/// Where xl2tpd, which speaks no IPv6, finds the relay that carries its datagrams to a gateway with an IPv6 address.
const RELAY: &str = "127.0.0.2:1702";

/// Configuration files, by their path below `/etc`.
#[derive(Default)]
pub(super) struct Files(Vec<(&'static str, String)>);

impl Files {
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        for (path, text) in &self.0 {
            let path = folder.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, text)?;
        }
        Ok(())
    }

    /// One transport-mode connection: of a gateway, or of a client of `server`.
    pub(super) fn ipsec(&mut self, lns: &Lns, address: &str, server: Option<&str>) {
        let at = |life: u32| if lns.rekey { life / 5 * 4 } else { 0 };
        let (local, remote) = if server.is_some() {
            ("dynamic[udp/1701]", "dynamic[udp/1701]")
        } else {
            ("dynamic[udp/1701]", "dynamic[udp]")
        };
        let (own, others) = match &lns.certificate {
            None => ("auth = psk", "auth = psk"),
            Some(certificate) => {
                self.certificate(certificate);
                ("auth = pubkey\ncerts = own.pem", "auth = pubkey\ncacerts = authority.pem")
            }
        };
        self.0.push((
            "swanctl/swanctl.conf",
            format!(
                "connections {{ l2tp {{
                  version = 1
                  aggressive = {aggressive}
                  local_addrs = {address}
                  remote_addrs = {peer}
                  proposals = {ike}
                  encap = {encap}
                  fragmentation = {fragmentation}
                  reauth_time = {reauth}
                  rekey_time = 0
                  over_time = {over}
                  rand_time = 0
                  dpd_delay = {dpd}
                  dpd_timeout = {dpd_timeout}
                  unique = never
                  local {{
                    {own}
                  }}
                  remote {{
                    {others}
                    {id}
                  }}
                  {xauth}
                  children {{ l2tp {{
                    mode = transport
                    local_ts = {local}
                    remote_ts = {remote}
                    esp_proposals = {esp}
                    life_time = {esp_life}
                    rekey_time = {esp_rekey}
                    rand_time = 0
                  }} }}
                }} }}
                secrets {{ ike-any {{
                  secret = \"{psk}\"
                }} {xauth_secret} }}
",
                peer = server.unwrap_or("%any"),
                id = lns.remote_id.as_ref().map(|id| format!("id = {id}")).unwrap_or_default(),
                aggressive = if lns.aggressive { "yes" } else { "no" },
                ike = lns.ike,
                fragmentation = lns.fragmentation,
                encap = if lns.force_encapsulation { "yes" } else { "no" },
                reauth = at(lns.ike_life),
                over = lns.ike_life / 5,
                dpd = lns.dpd,
                dpd_timeout = lns.dpd * 3,
                esp = lns.esp,
                esp_life = lns.esp_life,
                esp_rekey = at(lns.esp_life),
                psk = lns.psk,
                xauth = if lns.xauth.is_some() { "remote-xauth { auth = xauth }" } else { "" },
                xauth_secret = lns
                    .xauth
                    .as_ref()
                    .map(|(user, password)| format!("xauth-user {{ id = {user}\nsecret = \"{password}\" }}"))
                    .unwrap_or_default(),
            ),
        ));
        self.0.push((
            "strongswan.conf",
            // swanctl needs no more cryptography than private keys do, and some plugins wait for a random number generator that
            // starts late.
            "swanctl {
              load = random pem pkcs1 pkcs8 openssl x509
            }
            charon {
              load_modular = no
              load = random nonce aes rc2 sha1 sha2 md5 hmac gmp openssl gcm ctr x509 pubkey pkcs1 pkcs8 pem constraints revocation kernel-netlink socket-default updown vici xauth-generic
              install_routes = no
              # strongSwan's words for a gateway that answers Aggressive Mode with a pre-shared key.
              i_dont_care_about_security_and_use_aggressive_mode_psk = yes
              filelog { main {
                path = /mnt/charon.log
                time_format = %H:%M:%S
                flush_line = yes
                default = 1
              } }
            }
"
            .to_owned(),
        ));
    }

    fn certificate(&mut self, certificate: &Certificate) {
        self.0.push(("swanctl/x509/own.pem", certificate.certificate.clone()));
        if let Some(issuer) = &certificate.intermediate {
            self.0.push(("swanctl/x509ca/intermediate.pem", issuer.clone()));
        }
        self.0.push(("swanctl/private/own.pem", certificate.key.clone()));
        self.0.push(("swanctl/x509ca/authority.pem", certificate.authority.clone()));
    }

    fn ppp(&mut self, lns: &Lns, demand: bool, more: &[&str]) {
        let mut options: Vec<&str> = lns.auth.options(demand).to_vec();
        options.extend([
            "mtu 1400",
            "mru 1400",
            "lcp-echo-interval 10",
            "lcp-echo-failure 3",
            "nodefaultroute",
            if lns.ipv6 { "+ipv6" } else { "noipv6" },
        ]);
        // The plugin for L2TP switches off what is not asked for.
        options.extend(if lns.compression { ["deflate 15,15", "bsdcomp 15,15"].as_slice() } else { &["noccp"] });
        options.extend(["debug", "logfile /mnt/pppd.log"]);
        options.extend(more);
        self.0.push(("ppp/options.l2tp", options.join("\n") + "\n"));
        self.0.push(("ppp/options", String::new()));
        // With a certificate and a password pppd takes the first method that the other end names.
        let secrets = match more.contains(&"need-peer-eap") {
            true => String::new(),
            false => format!("\"{}\" * \"{}\" *\n", lns.user, lns.password),
        };
        self.0.push(("ppp/chap-secrets", secrets.clone()));
        self.0.push(("ppp/pap-secrets", secrets));
        let secret = lns.tunnel_secret.as_ref().map(|secret| format!("* * {secret}\n")).unwrap_or_default();
        self.0.push(("xl2tpd/l2tp-secrets", secret));
    }

    pub(super) fn lns(&mut self, lns: &Lns) {
        self.ppp(lns, true, &["name lns", "ms-dns 10.20.4.11", "ms-dns 10.20.4.12"]);
        let challenge = if lns.tunnel_secret.is_some() { "yes" } else { "no" };
        let pool = if lns.single_address { "10.20.5.10-10.20.5.10" } else { "10.20.5.10-10.20.5.99" };
        self.0.push((
            "xl2tpd/xl2tpd.conf",
            format!(
                "[global]\nport = 1701\naccess control = no\nauth file = /etc/xl2tpd/l2tp-secrets\ndebug tunnel = yes\ndebug state = yes\n\
                 [lns default]\nip range = {pool}\nlocal ip = 10.20.5.1\nrequire authentication = yes\nname = lns\nlength bit = yes\n\
                 challenge = {challenge}\npppoptfile = /etc/ppp/options.l2tp\n"
            ),
        ));
    }

    pub(super) fn lac(&mut self, lac: &Lac) {
        let user = format!("name {}", lac.like.user);
        let mut more =
            vec!["noipdefault", "ipcp-accept-local", "ipcp-accept-remote", "usepeerdns", "remotename lns", &user];
        if let Some(certificate) = &lac.eap_tls {
            more.extend([
                "need-peer-eap",
                "cert /etc/ppp/own.pem",
                "key /etc/ppp/own.key",
                "ca /etc/ppp/authority.pem",
            ]);
            self.0.push(("ppp/own.pem", certificate.chain()));
            self.0.push(("ppp/own.key", certificate.key.clone()));
            self.0.push(("ppp/authority.pem", certificate.authority.clone()));
        }
        self.ppp(&lac.like, false, &more);
        let challenge = if lac.like.tunnel_secret.is_some() { "yes" } else { "no" };
        self.0.push((
            "xl2tpd/xl2tpd.conf",
            format!(
                "[global]\nport = 1701\naccess control = no\nauth file = /etc/xl2tpd/l2tp-secrets\ndebug tunnel = yes\ndebug state = yes\n\
                 [lac lns]\nlns = {}\nlength bit = yes\nrequire authentication = no\nchallenge = {challenge}\n\
                 pppoptfile = /etc/ppp/options.l2tp\n",
                if lac.is_ipv6() { RELAY } else { &lac.server }
            ),
        ));
        let routes: String = lac.routes.iter().map(|route| format!("ip route add {route} dev $1\n")).collect();
        self.0.push((
            "ppp/ip-up",
            format!(
                "#!/bin/sh\n{routes}echo local=$4 remote=$5 dns=$DNS1,$DNS2 > /mnt/ppp-up.part\nmv /mnt/ppp-up.part /mnt/ppp-up\n"
            ),
        ));
        self.0.push(("ppp/ip-down", "#!/bin/sh\nrm -f /mnt/ppp-up\n".to_owned()));
    }
}
