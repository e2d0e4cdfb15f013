//! What the clients of operating systems and gateways offer, and what a server chooses of it at each level.

use super::*;
use crate::suite::Security;

/// What one of them offers, in its order, and the choices of a server of the levels Strong, Compatible and Legacy; a level of which
/// nothing fits has none. Algorithms that are not known here, such as DES, are left out.
struct Client {
    name: &'static str,
    ike: &'static [&'static str],
    chosen: [Option<&'static str>; 3],
    esp: &'static [&'static str],
    esp_chosen: &'static str,
}

const CLIENTS: [Client; 9] = [
    Client {
        name: "Windows 10 and 11",
        ike: &[
            "aes256-sha1-ecp384",
            "aes128-sha1-ecp256",
            "aes256-sha1-modp2048",
            "3des-sha1-modp2048",
            "3des-sha1-modp1024",
        ],
        chosen: [Some("aes256-sha1-ecp384"); 3],
        esp: &["aes128-sha1", "3des-sha1"],
        esp_chosen: "aes128-sha1",
    },
    Client {
        name: "macOS and iOS",
        ike: &[
            "aes256-sha256-modp2048",
            "aes256-sha1-modp2048",
            "aes256-md5-modp2048",
            "aes256-sha512-modp2048",
            "aes256-sha256-modp1536",
            "aes256-sha1-modp1536",
            "aes256-md5-modp1536",
            "aes256-sha256-modp1024",
            "aes256-sha1-modp1024",
            "aes128-sha1-modp1024",
            "3des-sha1-modp1024",
        ],
        chosen: [Some("aes256-sha256-modp2048"); 3],
        esp: &[
            "aes256-sha256",
            "aes256-sha1",
            "aes256-md5",
            "aes128-sha256",
            "aes128-sha1",
            "3des-sha256",
            "3des-sha1",
        ],
        esp_chosen: "aes256-sha256",
    },
    Client {
        name: "older Apple",
        ike: &["aes256-sha1-modp1024", "aes256-md5-modp1024", "aes128-sha1-modp1024", "3des-sha1-modp1024"],
        chosen: [None, None, Some("aes256-sha1-modp1024")],
        esp: &["aes256-sha1", "aes128-md5", "3des-sha1"],
        esp_chosen: "aes256-sha1",
    },
    Client {
        name: "Android 4 and 5",
        ike: &["3des-sha1-modp1024", "3des-md5-modp1024", "aes128-sha1-modp1024", "aes128-md5-modp1024"],
        chosen: [None, None, Some("aes128-sha1-modp1024")],
        esp: &["3des-sha1", "3des-md5", "aes128-sha1", "aes128-md5"],
        esp_chosen: "aes128-sha1",
    },
    Client {
        name: "Android 6 to 11",
        ike: &[
            "aes256-sha384-modp1024",
            "aes256-sha256-modp1024",
            "aes256-sha512-modp1024",
            "aes256-sha1-modp1024",
            "aes128-sha1-modp1024",
            "3des-sha1-modp1024",
        ],
        chosen: [None, None, Some("aes256-sha256-modp1024")],
        esp: &["aes256-sha512", "aes256-sha384", "aes256-sha256", "aes256-sha1", "3des-sha1"],
        esp_chosen: "aes256-sha256",
    },
    Client {
        name: "ChromeOS",
        ike: &["aes128-sha256-modp3072", "aes128-sha1-modp2048", "3des-sha1-modp1536", "3des-sha1-modp1024"],
        chosen: [Some("aes128-sha256-modp3072"); 3],
        esp: &["aes128gcm16", "aes128-sha256", "aes128-sha1", "3des-sha1"],
        esp_chosen: "aes128gcm16",
    },
    Client {
        name: "NetworkManager-l2tp",
        ike: &[
            "aes256-sha256-modp2048",
            "aes256-sha256-modp1536",
            "aes256-sha256-modp1024",
            "aes256-sha1-modp2048",
            "aes256-sha1-ecp384",
            "aes128-sha1-ecp256",
            "3des-sha1-modp2048",
        ],
        chosen: [Some("aes256-sha256-modp2048"); 3],
        esp: &["aes256-sha1", "aes128-sha1", "3des-sha1"],
        esp_chosen: "aes256-sha1",
    },
    Client {
        name: "RouterOS, with a fresh exchange",
        ike: &["aes128-sha1-modp2048", "aes128-sha1-modp1024", "3des-sha1-modp2048", "3des-sha1-modp1024"],
        chosen: [Some("aes128-sha1-modp2048"); 3],
        esp: &["aes256-sha1-modp1024", "aes192-sha1-modp1024", "aes128-sha1-modp1024"],
        esp_chosen: "aes256-sha1-modp1024",
    },
    Client {
        name: "gateways of the first days",
        ike: &["3des-sha1-modp1536"],
        chosen: [None, Some("3des-sha1-modp1536"), Some("3des-sha1-modp1536")],
        esp: &["aes128-sha1"],
        esp_chosen: "aes128-sha1",
    },
];

#[test]
fn each_client_gets_in_at_the_levels_that_allow_it_with_the_best_that_it_has() {
    for client in &CLIENTS {
        for (level, chosen) in [Security::Strong, Security::Compatible, Security::Legacy].into_iter().zip(client.chosen)
        {
            let mut config = fast();
            config.proposals = client.ike.iter().map(|proposal| proposal.parse().unwrap()).collect();
            config.esp_proposals = client.esp.iter().map(|proposal| proposal.parse().unwrap()).collect();
            let mut usual = ResponderConfig::new(mirrored(&fast()));
            usual.ike.proposals = level.accepted_ike_proposals();
            usual.ike.esp_proposals = level.accepted_esp_proposals();
            let mut link = Link::fronted(&config, 300);
            link.front.as_mut().unwrap().responder.configure(usual);
            link.connect();
            link.run(seconds(3));
            let proposal = link.peers[SERVER].ike.proposal().map(|proposal| proposal.to_string());
            assert_eq!(proposal.as_deref(), chosen, "{} at {level:?}", client.name);
            if chosen.is_some() {
                link.assert_established();
                let esp = link.peers[SERVER].outbound[0].proposal.to_string();
                assert_eq!(esp, client.esp_chosen, "{} at {level:?}", client.name);
            } else {
                assert!(matches!(link.peers[CLIENT].failure(), Some((_, Error::NoProposalChosen { phase: 1, .. }))));
            }
        }
    }
}
