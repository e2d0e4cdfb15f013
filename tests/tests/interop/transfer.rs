//! Much data, both ways: the MTU, the MSS clamp, batches; and exports of TCP and UDP.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use serde_json::json;
use towline_tests::peer::{INNER, Lns};
use towline_tests::process::run;
use towline_tests::site::Side;

use super::world::World;

/// Octets of the file: thousands of packets, some hundred of them in flight.
const SIZE: usize = 5 << 20;

/// A server behind the gateway that answers in capitals.
const ECHO: &str = "perl -MIO::Socket::INET -e '
    $s = IO::Socket::INET->new(LocalAddr => \"10.20.4.11\", LocalPort => 7, Proto => \"udp\") or die;
    while ($s->recv($d, 65535)) { $s->send(uc $d) }' > /dev/null 2>&1 &";

/// A program of the web server that answers with the checksum of what it is sent.
const CHECKSUM: &str = "mkdir -p /run/www/cgi-bin
    printf '#!/bin/sh\nprintf \"Content-Type: text/plain\\r\\n\\r\\n\"\nhead -c $CONTENT_LENGTH | sha256sum\n' > /run/www/cgi-bin/checksum
    chmod +x /run/www/cgi-bin/checksum";

/// The checksum that `sha256sum` wrote.
fn checksum(output: &str) -> &str {
    output.split_whitespace().next().unwrap()
}

#[test]
fn a_file_of_five_megabytes_is_whole_both_ways_directly_and_through_an_export() {
    let world = World::new(Lns::default(), Side::Wan);
    let exported = "127.0.0.1:8888";
    let (tunnel, _) = world.connect(|config| {
        config["exports"] = json!([{"name": "web", "listen": exported, "host": INNER, "port": 80}]);
    });
    world.gateway.exec(CHECKSUM).unwrap();
    let there = world.gateway.exec(&format!("head -c {SIZE} /dev/urandom > /run/www/file && sha256sum /run/www/file"));
    let there = there.unwrap();
    for server in [INNER, exported] {
        let file = tunnel.folder().join("file");
        let url = format!("http://{server}");
        run(world.host.exec("curl").args(["-sSf", "--max-time", "120", "-o"]).arg(&file).arg(format!("{url}/file")))
            .unwrap_or_else(|error| panic!("{error:#}\n{}", tunnel.log().unwrap()));
        assert_eq!(fs::metadata(&file).unwrap().len(), SIZE as u64);
        let here = run(std::process::Command::new("sha256sum").arg(&file)).unwrap();
        assert_eq!(checksum(&here), checksum(&there), "from {server}");
        let mut upload = world.host.exec("curl");
        upload.args(["-sSf", "--max-time", "120", "-H", "Expect:", "-H", "Content-Type: application/octet-stream"]);
        upload.arg("--data-binary").arg(format!("@{}", file.display())).arg(format!("{url}/cgi-bin/checksum"));
        let arrived = run(&mut upload).unwrap_or_else(|error| panic!("{error:#}\n{}", tunnel.log().unwrap()));
        assert_eq!(checksum(&arrived), checksum(&there), "to {server}");
    }
}

#[test]
fn datagrams_go_through_an_export_and_their_answers_come_back() {
    let world = World::new(Lns::default(), Side::Wan);
    let export = json!({"name": "echo", "listen": "127.0.0.1:7777", "host": INNER, "port": 7, "protocol": "UDP"});
    let (_tunnel, _) = world.connect(|config| config["exports"] = json!([export]));
    world.gateway.exec(ECHO).unwrap();
    let client = || world.host.inside(|| UdpSocket::bind("127.0.0.1:0")).unwrap().unwrap();
    for (number, socket) in [client(), client()].iter().enumerate() {
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let asked = format!("datagram of client {number}");
        let mut answer = [0; 64];
        // The server may not listen yet when it is asked first.
        let length = (0..10).find_map(|_| {
            socket.send_to(asked.as_bytes(), "127.0.0.1:7777").unwrap();
            socket.recv(&mut answer).ok()
        });
        let length = length.unwrap_or_else(|| panic!("no answer\n{}", world.logs()));
        assert_eq!(std::str::from_utf8(&answer[..length]).unwrap(), asked.to_uppercase());
    }
}
