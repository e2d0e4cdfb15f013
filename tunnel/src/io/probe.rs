//! Probes through the tunnel to a host behind the peer. LCP probes are the stack's own.

pub mod icmp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::config::{HealthCheck, ProbeKind};
use icmp::Echo;

/// What a prober tells the loop.
#[derive(Debug, PartialEq, Eq)]
pub enum Probe {
    /// The next ICMP request is due.
    Due,
    /// A TCP probe's round trip, or why it failed.
    Done(Result<Duration, String>),
}

/// Probes while it lives.
pub struct Prober {
    task: JoinHandle<()>,
    /// For ICMP: the requests, which go through the stack itself.
    pub echo: Option<Echo>,
    interval: Duration,
}

impl Prober {
    /// Begins to probe from `address`, at once and then every interval; nothing for LCP. Each message carries `generation`.
    pub fn start<T>(check: &HealthCheck, address: Ipv4Addr, generation: u64, messages: mpsc::Sender<T>) -> Option<Self>
    where
        T: From<(u64, Probe)> + Send + 'static,
    {
        let interval = check.interval();
        let (task, echo) = match (check.kind, check.host, check.port) {
            (ProbeKind::Lcp, ..) => return None,
            (ProbeKind::Tcp, Some(host), Some(port)) => {
                let target = SocketAddr::new(host, port);
                let probe = async move || Probe::Done(connect(address, target, interval).await);
                (tokio::spawn(every(interval, generation, messages, probe)), None)
            }
            (ProbeKind::Icmp, Some(IpAddr::V4(host)), _) => {
                // The low half of the time is as good a number as any to tell our packets from those of a restarted process.
                let seconds = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
                let identifier = u16::try_from(seconds & 0xffff).unwrap_or_default();
                let task = tokio::spawn(every(interval, generation, messages, async || Probe::Due));
                (task, Some(Echo::new(address, host, identifier)))
            }
            // Refused by the configuration's own check.
            (ProbeKind::Tcp | ProbeKind::Icmp, ..) => return None,
        };
        Some(Self { task, echo, interval })
    }

    /// What to say of a request that had no answer when the next is due.
    pub fn overdue(&self) -> Option<String> {
        let echo = self.echo.as_ref().filter(|echo| echo.is_waiting())?;
        Some(format!("{} did not answer an ICMP echo request within {} s", echo.destination(), self.interval.as_secs()))
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn every<T: From<(u64, Probe)>>(
    interval: Duration,
    generation: u64,
    messages: mpsc::Sender<T>,
    mut probe: impl AsyncFnMut() -> Probe,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let message = (generation, probe().await).into();
        if messages.send(message).await.is_err() {
            return;
        }
    }
}

/// Opens a TCP connection from `address` and closes it.
async fn connect(address: Ipv4Addr, target: SocketAddr, timeout: Duration) -> Result<Duration, String> {
    let began = Instant::now();
    let connect = async {
        let socket = TcpSocket::new_v4()?;
        // From the tunnel's address: whatever the routes say, the answer can only come through the tunnel.
        socket.bind((address, 0).into())?;
        socket.connect(target).await
    };
    match tokio::time::timeout(timeout, connect).await {
        Ok(Ok(_)) => Ok(began.elapsed()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(format!(
            "{target} refuses TCP connections: the tunnel carries packets, but nothing listens there, or a firewall rejects it"
        )),
        Ok(Err(error)) => Err(format!("no TCP connection to {target}: {error}")),
        Err(_) => Err(format!("{target} did not accept a TCP connection within {} s", timeout.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tcp_probe_tells_a_round_trip_or_why_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let check = HealthCheck {
            kind: ProbeKind::Tcp,
            host: Some(target.ip()),
            port: Some(target.port()),
            ..HealthCheck::default()
        };
        let (sender, mut messages) = mpsc::channel::<(u64, Probe)>(4);
        let prober = Prober::start(&check, Ipv4Addr::LOCALHOST, 7, sender.clone()).unwrap();
        let Some((7, Probe::Done(Ok(_)))) = messages.recv().await else { panic!("no success") };
        drop((prober, listener));
        let _prober = Prober::start(&check, Ipv4Addr::LOCALHOST, 8, sender.clone()).unwrap();
        let Some((8, Probe::Done(Err(error)))) = messages.recv().await else { panic!("no failure") };
        assert!(error.contains("nothing listens there"), "{error}");
        assert!(Prober::start(&HealthCheck::default(), Ipv4Addr::LOCALHOST, 9, sender).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_icmp_probe_without_an_answer_is_overdue_one_interval_later() {
        let check = HealthCheck { kind: ProbeKind::Icmp, host: Some([10, 20, 4, 11].into()), ..HealthCheck::default() };
        let (sender, mut messages) = mpsc::channel::<(u64, Probe)>(4);
        let mut prober = Prober::start(&check, Ipv4Addr::LOCALHOST, 1, sender).unwrap();
        assert_eq!(messages.recv().await, Some((1, Probe::Due)));
        assert_eq!(prober.overdue(), None);
        prober.echo.as_mut().unwrap().request(Instant::now());
        let before = tokio::time::Instant::now();
        assert_eq!(messages.recv().await, Some((1, Probe::Due)));
        assert_eq!(before.elapsed(), check.interval());
        assert!(prober.overdue().unwrap().contains("10.20.4.11 did not answer"));
    }
}
