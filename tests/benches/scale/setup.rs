//! Main Mode and Quick Mode, nothing else: what one costs the responder, and what it costs charon.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use towline_tunnel::buffer::Port;
use towline_tunnel::esp::NON_ESP_MARKER;
use towline_tunnel::ike::{self, Credentials, Event, Ike, Transmit};
use zeroize::Zeroizing;

use crate::charon;
use crate::host::{Datagram, Host, PSK, SERVER};

/// Phase 1 and phase 2, as charon writes them too.
const PROPOSALS: [[&str; 2]; 2] =
    [["aes256-sha256-modp2048", "aes256-sha256"], ["aes256-sha256-ecp256", "aes256-sha256"]];

pub(crate) fn measure(count: u32) -> Result<()> {
    println!("IKE set-ups (Main Mode and Quick Mode with a pre-shared key, {count} of each), CPU of the responder;");
    println!("charon's is that of its whole process, sockets and threads included, ours that of the state machine:");
    for [phase1, phase2] in PROPOSALS {
        let ours = ours(count, phase1, phase2)?;
        print!("  {phase1} / {phase2}: Towline {:.2} ms", millis(ours));
        println!(" = {:.0} in a second of one core", 1.0 / ours.as_secs_f64());
        match charon::measure(count, phase1, phase2) {
            Ok(charon) => {
                let ratio = ours.as_secs_f64() / charon.as_secs_f64();
                println!("    charon {:.2} ms in the same run; Towline takes {ratio:.2} times that", millis(charon));
            }
            Err(error) => println!("    charon was not measured: {error:#}"),
        }
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// The CPU of one set-up.
fn ours(count: u32, phase1: &str, phase2: &str) -> Result<Duration> {
    let now = Instant::now();
    let mut host = Host::new(now, 1, 1, 1, |json| {
        json["ike"] = serde_json::json!({"proposals": [phase1]});
        json["esp"] = serde_json::json!({"proposals": [phase2]});
    })?;
    for client in 0..count {
        establish(&mut host, now, client, phase1, phase2)?;
    }
    Ok(host.cpu / count)
}

fn establish(host: &mut Host, now: Instant, client: u32, phase1: &str, phase2: &str) -> Result<()> {
    let credentials = Credentials::pre_shared_key(Zeroizing::new(PSK.to_vec()));
    let config = ike::Config {
        proposals: vec![phase1.parse()?],
        esp_proposals: vec![phase2.parse()?],
        ..ike::Config::new(IpAddr::from([192, 168, 0, 2]), SERVER, credentials)
    };
    let mut ike = Ike::new(config, StdRng::seed_from_u64(client.into()));
    ike.connect(now);
    let mut up = false;
    loop {
        let mut datagrams = Vec::new();
        while let Some(transmit) = ike.poll_transmit() {
            let Transmit::Message { port, mut message } = transmit else { continue };
            if port == Port::NatT {
                message.splice(..0, NON_ESP_MARKER);
            }
            datagrams.push(Datagram { client, port, octets: message });
        }
        while let Some(event) = ike.poll_event() {
            up |= matches!(event, Event::InstallOutbound(_));
        }
        if datagrams.is_empty() {
            break;
        }
        for Datagram { port, octets, .. } in host.deliver(now, datagrams)? {
            let message = if port == Port::NatT { octets.strip_prefix(&NON_ESP_MARKER) } else { Some(&octets[..]) };
            if let Some(message) = message {
                ike.handle_message(now, port, message);
            }
        }
    }
    ensure!(up, "client {client} has no SAs with {phase1} / {phase2}");
    Ok(())
}
