//! What stands on the wire, read by a foreign dissector.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use towline_tests::peer::Lns;
use towline_tests::process::run;
use towline_tests::product;
use towline_tests::site::{Capture, Side, tshark};
use towline_tests::tunnel::{Tunnel, config, fetch_page, metrics};

use super::world::{GATEWAY, World};

/// A whole tunnel, from its first packet to its last, and its keys.
struct Recording {
    capture: PathBuf,
    /// Wireshark preferences, one an SA.
    keys: String,
}

impl Recording {
    /// Records a tunnel that fetches the page once.
    fn of(world: &World, name: &str, change: impl FnOnce(&mut Value)) -> Self {
        let capture = Capture::start(world.site.wan.namespace(), world.gateway.interface(), name).unwrap();
        let keys = towline_tests::tool::target().join("peers").join(format!("{}-{name}.keys", world.host.name()));
        let arguments = ["--export-keys", keys.to_str().unwrap(), "--i-know-this-exposes-the-traffic"];
        let mut config = config(GATEWAY);
        change(&mut config);
        let mut tunnel = Tunnel::start_with(&world.host, config, &world.lns, &arguments, None).unwrap();
        tunnel.wait_ready().unwrap_or_else(|error| panic!("{error:#}\n{}", world.logs()));
        assert_eq!(fetch_page(&world.host).unwrap(), world.lns.page);
        tunnel.stop().unwrap();
        assert_eq!(fs::metadata(&keys).unwrap().permissions().mode() & 0o777, 0o600);
        let rows = fs::read_to_string(&keys).unwrap();
        fs::remove_file(keys).unwrap();
        Self { capture: capture.stop().unwrap(), keys: rows }
    }

    /// What tshark says without the keys.
    fn sealed(&self, arguments: &[&str]) -> String {
        tshark(&self.capture, arguments).unwrap()
    }

    /// What tshark says with them.
    fn opened(&self, arguments: &[&str]) -> String {
        let mut options = vec!["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"];
        for row in self.keys.lines() {
            options.extend(["-o", row]);
        }
        tshark(&self.capture, &[&options, arguments].concat()).unwrap()
    }

    /// Every packet is read down to L2TP and none is malformed.
    fn assert_readable(&self) {
        assert!(self.keys.contains("uat:ikev1_decryption_table:") && self.keys.contains("uat:esp_sa:"));
        assert_ne!(self.sealed(&["-Y", "esp"]), "", "there is no ESP at all");
        assert_eq!(self.opened(&["-Y", "esp && !l2tp"]), "", "ESP that the keys do not open");
        let wrong = "_ws.malformed || esp.icv_bad == 1 || _ws.expert.severity == error";
        let malformed = self.opened(&["-Y", wrong, "-T", "fields", "-e", "frame.number"]);
        // The dissector takes a message that is sent twice for the next block of its exchange: it must be the first all over
        // again.
        let payloads = self.sealed(&["-Y", "isakmp", "-T", "fields", "-e", "frame.number", "-e", "udp.payload"]);
        for frame in malformed.lines() {
            let mut before = payloads.lines().take_while(|line| line.split('\t').next() != Some(frame));
            let own = payloads.lines().find_map(|line| line.strip_prefix(&format!("{frame}\t")));
            let own = own.unwrap_or_else(|| panic!("frame {frame} is malformed and no ISAKMP message"));
            assert!(before.any(|line| line.ends_with(own)), "frame {frame} is malformed");
        }
    }

    fn assert_has(&self, filter: &str, what: &str) {
        assert!(!self.opened(&["-Y", filter]).is_empty(), "{what} is missing ({filter})");
    }

    /// The page is in the opened capture and not in the sealed one.
    fn assert_page(&self, page: &str) {
        let octets = fs::read(&self.capture).unwrap();
        assert!(!octets.windows(page.len()).any(|window| window == page.as_bytes()), "the page is in clear");
        let filter = "http.response && ip.src == 10.20.4.11";
        let found = self.opened(&["-Y", filter, "-T", "fields", "-e", "http.file_data"]);
        let hexadecimal: String = page.bytes().map(|octet| format!("{octet:02x}")).collect();
        assert!(found.contains(page) || found.contains(&hexadecimal), "{found}");
    }
}

#[test]
fn with_the_exported_keys_every_packet_is_well_formed_down_to_the_page_and_without_them_nothing_is_seen() {
    let world = World::new(Lns::default(), Side::Wan);
    let recording = Recording::of(&world, "keys", |_| {});
    // Without the keys: UDP 500 and 4500 of both ends and nothing else of them.
    let other = "ip.addr == 192.0.2.10 && !(udp.port == 500 || udp.port == 4500)";
    assert_eq!(recording.sealed(&["-Y", other]), "");
    recording.assert_readable();
    recording.assert_page(&world.lns.page);
    for (filter, what) in [
        ("isakmp.exchangetype == 2 && isakmp.flag_e == 1 && isakmp.id.type", "an encrypted identity of Main Mode"),
        ("isakmp.exchangetype == 32 && isakmp.prop.protoid == 3", "a proposal of Quick Mode"),
        ("isakmp.exchangetype == 5 && isakmp.delete.spi", "a Delete"),
        ("l2tp.avp.message_type == 1", "an SCCRQ"),
        ("l2tp.avp.message_type == 12", "an ICCN"),
        ("l2tp.avp.message_type == 14", "a CDN"),
        ("l2tp.avp.message_type == 4", "a StopCCN"),
        ("lcp && ppp.code == 1", "an LCP Configure-Request"),
        ("chap.code == 2", "a CHAP Response"),
        ("ipcp.opt.ip_address == 10.20.5.10", "our address in IPCP"),
    ] {
        recording.assert_has(filter, what);
    }
}

#[test]
fn triple_des_and_aes_gcm_are_read_by_the_dissector_too() {
    let (ike, esp) = ("aes256-sha256-modp2048,3des-sha1-modp1024".to_owned(), "aes256gcm16,3des-sha1".to_owned());
    let world = World::new(Lns { ike, esp, ..Lns::default() }, Side::Wan);
    let gcm = Recording::of(&world, "gcm", |config| config["esp"]["proposals"] = json!(["aes256gcm16"]));
    gcm.assert_readable();
    gcm.assert_page(&world.lns.page);
    let triple_des = Recording::of(&world, "3des", |config| {
        config["ike"]["proposals"] = json!(["3des-sha1-modp1024"]);
        config["esp"]["proposals"] = json!(["3des-sha1"]);
    });
    triple_des.assert_readable();
    triple_des.assert_page(&world.lns.page);
}

#[test]
fn without_the_flag_no_key_is_anywhere() {
    let world = World::new(Lns::default(), Side::Wan);
    let (tunnel, report) = world.connect(|config| config["log"]["level"] = json!("Trace"));
    // The gateway's kernel knows the keys of both directions.
    let state = world.gateway.exec("ip xfrm state").unwrap();
    let keys: Vec<_> =
        state.split_whitespace().filter_map(|word| word.strip_prefix("0x")).filter(|key| key.len() >= 32).collect();
    assert!(keys.len() >= 4, "{state}");
    let said = [tunnel.log().unwrap(), metrics(&world.host).unwrap(), format!("{report:?}")];
    for said in said.map(|said| said.to_lowercase()) {
        for secret in keys.iter().copied().chain([world.lns.psk.as_str(), &world.lns.password]) {
            assert!(!said.contains(secret), "a secret is told");
        }
    }
}

#[test]
fn keys_are_not_exported_without_the_confirmation() {
    let mut command = Command::new(product::binary("towline-tunnel"));
    let refused = run(command.args(["run", "--config", "/nonexistent", "--export-keys", "/nonexistent"])).unwrap_err();
    assert!(refused.to_string().contains("--i-know-this-exposes-the-traffic"), "{refused}");
}
