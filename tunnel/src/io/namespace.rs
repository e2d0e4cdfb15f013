//! A network namespace for one test.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use super::netlink::Netlink;

/// Runs `test` on a thread in a network namespace of its own; nothing of it outlives the thread. Needs root.
pub(crate) fn in_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "this test makes a network namespace: run it as root");
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    assert!(thread.join().is_ok());
}

/// Gives a device another address, and waits until the kernel takes packets to it: that of IPv6 is made ready later.
pub(crate) async fn add_address(netlink: &Netlink, device: &str, address: IpAddr) {
    let index = netlink.index(device).await.unwrap();
    let length = if address.is_ipv4() { 32 } else { 128 };
    netlink.handle.address().add(index, address, length).execute().await.unwrap();
    let ready = async || {
        let Ok(socket) = UdpSocket::bind((address, 0)) else { return false };
        socket.set_nonblocking(true).unwrap();
        let sent = socket.send_to(b"?", socket.local_addr().unwrap());
        tokio::task::yield_now().await;
        sent.is_ok() && socket.recv(&mut [0]).is_ok()
    };
    let wait = async { while !ready().await {} };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
}
