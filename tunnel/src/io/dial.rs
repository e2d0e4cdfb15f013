//! The answer to [`crate::stack::Event::Dial`]: secrets from their files, the peer's address from the name servers, sockets.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path as FilePath;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use ipnet::IpNet;
use zeroize::Zeroizing;

use super::netlink::{Netlink, Pin};
use super::udp::Sockets;
use crate::buffer::Port;
use crate::config::{self, SecretFile};
use crate::report::Reason;
use crate::stack::{Credentials, Path, PathError};

/// The longest secret: no peer takes longer ones, and a wrong file is noticed.
pub const MAX_SECRET: usize = 1_024;
/// How long a name may take to resolve, all servers and search domains together.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is dialled.
#[derive(Debug)]
pub struct Request {
    /// Name or address of the peer.
    pub peer: String,
    /// Whether other source ports than the well-known ones are asked for.
    pub fresh_ports: bool,
    /// The files with the secrets.
    pub credentials: config::Credentials,
    /// The networks behind the peer.
    pub remote_cidrs: Vec<IpNet>,
    /// The name of the TUN device.
    pub device: String,
}

/// A way to the peer.
pub struct Dialled {
    /// What the stack must know of it.
    pub path: Path,
    /// The sockets.
    pub sockets: Sockets,
    /// The host route that keeps it out of the tunnel, where the peer's address lies in a remote network.
    pub pin: Option<Pin>,
}

/// Finds a way to the peer.
///
/// # Errors
/// What is missing.
pub async fn dial(request: Request, netlink: Netlink) -> Result<Dialled, PathError> {
    let files = request.credentials.clone();
    let credentials = tokio::task::spawn_blocking(move || read_credentials(&files));
    let credentials = credentials.await.map_err(|error| PathError::Unreachable(error.to_string()))??;
    let remote = resolve(&request.peer).await.map_err(PathError::Unresolvable)?;

    let unreachable = |error: &dyn std::fmt::Display| PathError::Unreachable(error.to_string());
    let pin = match remote {
        IpAddr::V4(peer) if request.remote_cidrs.iter().any(|network| network.contains(&remote)) => {
            Some(netlink.pin(peer, &request.device).await.map_err(|error| unreachable(&error))?)
        }
        _ => None,
    };
    let sockets = Sockets::open(remote, request.fresh_ports).map_err(|error| unreachable(&error))?;
    let mtu = netlink.path_mtu(remote).await.map_err(|error| unreachable(&error))?;
    let [ike, nat_t] = [Port::Ike, Port::NatT].map(|port| sockets.get(port).local());
    let path =
        Path { credentials, local: ike.ip(), local_ike_port: ike.port(), local_nat_t_port: nat_t.port(), remote, mtu };
    Ok(Dialled { path, sockets, pin })
}

/// Reads every secret.
///
/// # Errors
/// The first that cannot be used.
pub fn read_credentials(files: &config::Credentials) -> Result<Credentials, PathError> {
    Ok(Credentials {
        pre_shared_key: read_secret(&files.pre_shared_key)?,
        username: read_text(&files.username)?,
        password: read_text(&files.password)?,
        tunnel_secret: files.tunnel_secret.as_ref().map(read_secret).transpose()?,
    })
}

fn invalid(file: &SecretFile, problem: &str) -> PathError {
    PathError::Credentials { reason: Reason::CredentialsInvalid, message: format!("The {} {problem}", source(file)) }
}

fn source(file: &SecretFile) -> String {
    file.source.clone().unwrap_or_else(|| format!("file {}", file.path.display()))
}

fn read_secret(file: &SecretFile) -> Result<Zeroizing<Vec<u8>>, PathError> {
    // Room for the line feed, and for one octet that tells a secret that is too long.
    let mut secret = match read_bounded(&file.path, MAX_SECRET + 2) {
        Ok(secret) => secret,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!("The {} does not exist: create it.", source(file));
            return Err(PathError::Credentials { reason: Reason::CredentialsMissing, message });
        }
        Err(error) => return Err(invalid(file, &format!("cannot be read: {error}."))),
    };
    if secret.last() == Some(&b'\n') {
        secret.pop();
    }
    match secret.len() {
        0 => Err(invalid(file, "is empty: put the secret into it.")),
        1..=MAX_SECRET => Ok(secret),
        _ => Err(invalid(file, &format!("is longer than {MAX_SECRET} octets: is it the right one?"))),
    }
}

fn read_text(file: &SecretFile) -> Result<Zeroizing<String>, PathError> {
    let secret = read_secret(file)?;
    match std::str::from_utf8(&secret) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(invalid(file, "is not text in UTF-8: PPP names and passwords are.")),
    }
}

/// Reads at most `most` octets of a file.
///
/// # Errors
/// The system's.
pub(super) fn read_bounded(path: &FilePath, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // All of the capacity at once: a vector that grows leaves copies of the secret behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(most));
    File::open(path)?.take(most as u64).read_to_end(&mut octets)?;
    Ok(octets)
}

/// An address of `host`, IPv4 if it has one. Nothing is cached: a peer's address may change from one attempt to the next.
///
/// The resolver is our own because the C library's needs its plug-ins at run time, and the image holds nothing but the binary.
///
/// # Errors
/// Why there is none, in the resolver's words.
pub async fn resolve(host: &str) -> Result<IpAddr, String> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let mut builder = TokioResolver::builder_tokio().map_err(|error| format!("/etc/resolv.conf: {error}"))?;
    let options = builder.options_mut();
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    let resolver = builder.build().map_err(|error| error.to_string())?;
    match tokio::time::timeout(RESOLVE_TIMEOUT, resolver.lookup_ip(host)).await {
        Ok(Ok(addresses)) => {
            let all: Vec<IpAddr> = addresses.iter().collect();
            let first = all.iter().find(|address| address.is_ipv4()).or_else(|| all.first());
            first.copied().ok_or_else(|| format!("{host} has no address"))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no name server answered within {} s", RESOLVE_TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;

    fn message(error: PathError) -> (Reason, String) {
        match error {
            PathError::Credentials { reason, message } => (reason, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_line_feed_is_no_part_of_a_secret() {
        let folder = Scratch::new();
        for (content, secret) in [("abc\n", "abc"), ("abc\n\n", "abc\n"), ("abc", "abc"), (" a\r\n", " a\r")] {
            let path = folder.write("psk", content.as_bytes());
            let file = SecretFile { path, source: None };
            assert_eq!(read_secret(&file).map(|secret| secret.to_vec()).map_err(message), Ok(secret.into()));
        }
    }

    #[test]
    fn a_missing_secret_is_called_what_its_owner_calls_it() {
        let source = Some("key psk of Secret oslo-vpn".to_owned());
        let file = SecretFile { path: "/nonexistent/psk".into(), source };
        assert_eq!(
            read_secret(&file).map(|_| ()).map_err(message),
            Err((Reason::CredentialsMissing, "The key psk of Secret oslo-vpn does not exist: create it.".to_owned()))
        );
    }

    #[test]
    fn unusable_secrets_are_refused_without_showing_them() {
        let folder = Scratch::new();
        let cases: [(&[u8], &str); 5] = [
            (b"", "is empty"),
            (b"\n", "is empty"),
            (&[b'x'; MAX_SECRET + 1], "is longer"),
            (&[b'x'; MAX_SECRET + 9], "is longer"),
            (&[0xc3, 0x28, 0x73], "is not text"),
        ];
        for (content, problem) in cases {
            let file = SecretFile { path: folder.write("password", content), source: None };
            let (reason, message) = read_text(&file).map(|_| ()).map_err(message).unwrap_err();
            assert_eq!(reason, Reason::CredentialsInvalid);
            assert!(message.contains(problem) && !message.contains("xx"), "{message}");
        }
        let mut longest = vec![b'x'; MAX_SECRET];
        longest.push(b'\n');
        assert!(read_text(&SecretFile { path: folder.write("password", &longest), source: None }).is_ok());
        let folder_itself = SecretFile { path: folder.path().to_owned(), source: None };
        assert!(message(read_secret(&folder_itself).map(|_| ()).unwrap_err()).1.contains("cannot be read"));
    }

    #[tokio::test]
    async fn addresses_and_hosts_need_no_name_server() {
        assert_eq!(resolve("192.0.2.7").await, Ok([192, 0, 2, 7].into()));
        assert_eq!(resolve("2001:db8::7").await, Ok("2001:db8::7".parse().unwrap()));
        assert_eq!(resolve("localhost").await, Ok([127, 0, 0, 1].into()));
    }
}
