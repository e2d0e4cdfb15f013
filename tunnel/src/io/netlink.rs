//! Addresses and links, over rtnetlink; [`super::routing`] is what it says about routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use netlink_packet_route::address::AddressAttribute;
use rtnetlink::{Handle, LinkUnspec};

/// Packets that the kernel keeps for the device while this process is busy.
const QUEUE_LENGTH: u32 = 1_000;

/// What could not be done, and why.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {action}: {}.", remedy(.error))]
pub struct Error {
    action: String,
    error: io::Error,
}

fn remedy(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            format!("{error}; run it as root or with CAP_NET_ADMIN, and give a container the capability NET_ADMIN")
        }
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT) => {
            format!("{error}; the kernel needs policy routing (CONFIG_IP_MULTIPLE_TABLES)")
        }
        _ => error.to_string(),
    }
}

/// Says what was tried, with the system's own error.
pub(super) fn context(action: impl FnOnce() -> String) -> impl FnOnce(rtnetlink::Error) -> Error {
    |error| {
        let error = match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        };
        Error { action: action(), error }
    }
}

impl Error {
    /// Whether the system's error has this number.
    pub(super) fn is(&self, number: i32) -> bool {
        self.error.raw_os_error() == Some(number)
    }
}

/// A connection to the kernel.
#[derive(Debug, Clone)]
pub struct Netlink {
    pub(super) handle: Handle,
}

impl Netlink {
    /// Opens the connection; it is served by a task of the runtime.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Gives the device its only address and its MTU, and switches it on.
    ///
    /// # Errors
    /// The step that failed.
    pub async fn set_link(&self, device: &str, address: Ipv4Addr, mtu: u16) -> Result<(), Error> {
        let index = self.index(device).await?;
        let link = LinkUnspec::new_with_index(index).mtu(mtu.into()).txqueuelen(QUEUE_LENGTH).up().build();
        let action = || format!("switch on the device {device} with an MTU of {mtu}");
        self.handle.link().set(link).execute().await.map_err(context(action))?;

        let action = || format!("give the device {device} the address {address}");
        let request = self.handle.address().get().set_link_index_filter(index);
        let present: Vec<_> = request.execute().try_collect().await.map_err(context(action))?;
        let mut wanted = false;
        for message in present {
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
                _ => None,
            });
            match local {
                Some(local) if local == address => wanted = true,
                Some(_) => self.handle.address().del(message).execute().await.map_err(context(action))?,
                None => {}
            }
        }
        if !wanted {
            // A prefix of one address: the peer's own is never routed, some gateways tell their public one (or none).
            self.handle.address().add(index, address.into(), 32).execute().await.map_err(context(action))?;
        }
        Ok(())
    }

    /// The number of a device.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) async fn index(&self, device: &str) -> Result<u32, Error> {
        let action = || format!("find the device {device}");
        let link = self.handle.link().get().match_name(device).execute().try_next().await.map_err(context(action))?;
        match link {
            Some(link) => Ok(link.header.index),
            None => Err(Error { action: action(), error: io::Error::from_raw_os_error(libc::ENODEV) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_remedy_for_a_host_and_for_a_container() {
        let text = |number| {
            Error { action: "set a routing rule".to_owned(), error: io::Error::from_raw_os_error(number) }.to_string()
        };
        for word in ["root", "CAP_NET_ADMIN", "container"] {
            assert!(text(libc::EPERM).contains(word), "{}", text(libc::EPERM));
        }
        assert!(text(libc::EOPNOTSUPP).contains("CONFIG_IP_MULTIPLE_TABLES"));
    }
}
