//! What stands on the wire, read by a foreign dissector.

use std::fs;
use std::process::Command;

use towline_tests::peer::{Guest, INNER, Lns};
use towline_tests::process::run;
use towline_tests::product;
use towline_tests::site::{Capture, Side, Site, tshark};
use towline_tests::tunnel::{Tunnel, config, fetch_page};

const GATEWAY: &str = "192.0.2.10";

#[test]
fn with_the_exported_keys_every_packet_is_well_formed_down_to_the_page_and_without_them_nothing_is_seen() {
    let site = Site::new().unwrap();
    let lns = Lns::default();
    let gateway = Guest::lns(&site.wan, "lns", GATEWAY, Side::Wan.router(), &lns).unwrap();
    let host = site.host("client", Side::Wan, "192.0.2.20").unwrap();
    let capture = Capture::start(site.wan.namespace(), gateway.interface(), "keys").unwrap();
    let keys = towline_tests::tool::target().join("peers").join(format!("{}-keys.txt", host.name()));
    let keys_text = keys.to_str().unwrap();
    let arguments = ["--export-keys", keys_text, "--i-know-this-exposes-the-traffic"];
    let mut tunnel = Tunnel::start_with(&host, config(GATEWAY), &lns, &arguments, None).unwrap();
    tunnel.wait_ready().unwrap();
    assert_eq!(fetch_page(&host).unwrap(), lns.page);
    tunnel.stop().unwrap();
    let capture = capture.stop().unwrap();

    // Without the keys: UDP 500 and 4500 of both ends and nothing else of them.
    let other = tshark(&capture, &["-Y", "ip.addr == 192.0.2.10 && !(udp.port == 500 || udp.port == 4500)"]).unwrap();
    assert_eq!(other, "");
    let octets = fs::read(&capture).unwrap();
    assert!(!octets.windows(lns.page.len()).any(|window| window == lns.page.as_bytes()), "the page is in clear");

    let mut options = vec!["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"];
    let rows = fs::read_to_string(&keys).unwrap();
    assert!(rows.contains("uat:ikev1_decryption_table:") && rows.contains("uat:esp_sa:"), "{rows}");
    for row in rows.lines() {
        options.extend(["-o", row]);
    }
    let with_keys = |arguments: &[&str]| tshark(&capture, &[&options, arguments].concat()).unwrap();
    let wrong = "_ws.malformed || esp.icv_bad == 1 || _ws.expert.severity == error";
    let malformed = with_keys(&["-Y", wrong, "-T", "fields", "-e", "frame.number"]);
    // The dissector takes a message that is sent twice for the next block of its exchange: it must be the first all over again.
    let payloads =
        tshark(&capture, &["-Y", "isakmp", "-T", "fields", "-e", "frame.number", "-e", "udp.payload"]).unwrap();
    for frame in malformed.lines() {
        let mut before = payloads.lines().take_while(|line| line.split('\t').next() != Some(frame));
        let own = payloads.lines().find_map(|line| line.strip_prefix(&format!("{frame}\t")));
        let own = own.unwrap_or_else(|| panic!("frame {frame} is malformed and no ISAKMP message"));
        assert!(before.any(|line| line.ends_with(own)), "frame {frame} is malformed");
    }
    for (filter, what) in [
        ("isakmp.exchangetype == 2 && isakmp.flag_e == 1 && isakmp.id.type", "an encrypted identity of Main Mode"),
        ("isakmp.exchangetype == 32 && isakmp.prop.protoid == 3", "a proposal of Quick Mode"),
        ("isakmp.exchangetype == 5 && isakmp.delete.spi", "a Delete"),
        ("l2tp.avp.message_type == 1", "an SCCRQ"),
        ("l2tp.avp.message_type == 12", "an ICCN"),
        ("l2tp.avp.message_type == 14", "a CDN"),
        ("lcp && ppp.code == 1", "an LCP Configure-Request"),
        ("chap.code == 2", "a CHAP Response"),
        ("ipcp.opt.ip_address == 10.20.5.10", "our address in IPCP"),
    ] {
        assert!(!with_keys(&["-Y", filter]).is_empty(), "{what} is missing ({filter})");
    }
    let page = with_keys(&["-Y", "http.response && ip.src == 10.20.4.11", "-T", "fields", "-e", "http.file_data"]);
    let hexadecimal: String = lns.page.bytes().map(|octet| format!("{octet:02x}")).collect();
    assert!(page.contains(&lns.page) || page.contains(&hexadecimal), "{page} from {INNER}");
}

#[test]
fn keys_are_not_exported_without_the_confirmation() {
    let mut command = Command::new(product::binary("towline-tunnel"));
    let refused = run(command.args(["run", "--config", "/nonexistent", "--export-keys", "/nonexistent"])).unwrap_err();
    assert!(refused.to_string().contains("--i-know-this-exposes-the-traffic"), "{refused}");
}
