//! The TUN device: IP packets in and out of the kernel, one per read or write.
//!
//! The device lives as long as the process: routes and the applications' connections survive a new dial.

use std::cell::Cell;
use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::buffer::{BATCH_PACKETS, MAX_PACKET, PacketBatch};

/// An open TUN device. It has no address and is down until netlink says otherwise.
pub struct Device {
    device: AsyncFd<tun::Device>,
    name: String,
    buffer: Vec<u8>,
    lost: Cell<bool>,
}

/// When there is something to read, or the device is gone: the kernel tells that as an error and not as readiness to read.
const NEWS: Interest = Interest::READABLE.add(Interest::ERROR);

impl Device {
    /// Creates the device `name`.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub fn open(name: &str) -> Result<Self, String> {
        let mut configuration = tun::Configuration::default();
        configuration.tun_name(name);
        // Netlink sets addresses and flags; the crate would do it by ioctl and fail on what is missing.
        configuration.platform_config(|platform| {
            platform.ensure_root_privileges(false);
        });
        let failed = |error: io::Error| format!("The TUN device {name} cannot be created: {}", remedy(&error));
        let device = tun::create(&configuration).map_err(|error| failed(error.into()))?;
        device.set_nonblock().map_err(failed)?;
        // SAFETY: the device owns its file descriptor, returns the same one for as long as it lives, and lives in the `AsyncFd`.
        #[expect(
            unsafe_code,
            reason = "the reactor asks for a promise about the descriptor that only its owner can give"
        )]
        let device = unsafe { AsyncFd::register_with_interest(device, NEWS) };
        let device = device.map_err(|error| failed(error.into()))?;
        Ok(Self { device, name: name.to_owned(), buffer: vec![0; MAX_PACKET], lost: Cell::new(false) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether somebody has deleted it, as far as [`Self::readable`], a read or a write has told.
    pub fn is_lost(&self) -> bool {
        self.lost.get()
    }

    /// Remembers what an error says about the device itself.
    fn judge(&self, error: io::Error) -> io::Error {
        if matches!(error.raw_os_error(), Some(libc::EBADFD | libc::ENODEV)) {
            self.lost.set(true);
        }
        error
    }

    /// Waits until there may be a packet; for ever when the device is lost.
    pub async fn readable(&self) {
        if self.is_lost() {
            return std::future::pending().await;
        }
        match self.device.ready(NEWS).await {
            Ok(mut guard) => {
                self.lost.set(guard.ready().is_error());
                guard.retain_ready();
            }
            Err(error) => {
                tracing::warn!(%error, "device cannot be polled");
                std::future::pending().await
            }
        }
    }

    /// Reads until nothing is left or `packets` is full.
    ///
    /// # Errors
    /// When the device cannot be read; what was read before is in `packets`.
    pub fn receive(&mut self, packets: &mut PacketBatch) -> io::Result<()> {
        for _ in 0..BATCH_PACKETS {
            if packets.is_full() {
                break;
            }
            let Self { device, buffer, .. } = self;
            match device.try_io(Interest::READABLE, |device| device.recv(buffer)) {
                Ok(length) => {
                    packets.push(buffer.get(..length).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.judge(error)),
            }
        }
        Ok(())
    }

    /// Writes one packet.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.device.get_ref().send(packet).map(|_| ()).map_err(|error| self.judge(error))
    }
}

fn remedy(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "/dev/net/tun does not exist. Load the kernel module (modprobe tun), and give a container the device \
             (a hostPath volume of type CharDevice, or a device plugin)."
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied. Run it as root or with CAP_NET_ADMIN, and give a container the capability NET_ADMIN and \
             the device /dev/net/tun (a hostPath volume of type CharDevice, or a device plugin)."
                .to_owned()
        }
        io::ErrorKind::ResourceBusy => "another process has a device of that name; set network.device.".to_owned(),
        _ => format!("{error}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::namespace::in_namespace;
    use crate::io::netlink::Netlink;

    #[test]
    fn a_missing_device_names_what_the_host_or_the_container_lacks() {
        let message = |kind: io::ErrorKind| remedy(&kind.into());
        for word in ["modprobe tun", "hostPath volume"] {
            assert!(message(io::ErrorKind::NotFound).contains(word));
        }
        for word in ["root", "CAP_NET_ADMIN", "hostPath volume"] {
            assert!(message(io::ErrorKind::PermissionDenied).contains(word));
        }
    }

    #[test]
    fn a_deleted_device_is_noticed_once_and_not_polled_again() {
        in_namespace(async || {
            let netlink = Netlink::open().unwrap();
            let device = Device::open("towline7").unwrap();
            let index = netlink.index("towline7").await.unwrap();
            netlink.handle.link().del(index).execute().await.unwrap();
            device.readable().await;
            assert!(device.is_lost());
            let again = tokio::time::timeout(std::time::Duration::from_millis(50), device.readable()).await;
            assert!(again.is_err());
            // Its name is free.
            assert!(Device::open("towline7").is_ok());
        });
    }
}
