//! The answer to [`crate::stack::Event::Dial`]: secrets from their files, the peer's address from the name servers, sockets.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::{TokioResolver, system_conf};
use zeroize::Zeroizing;

use super::certificate;
use super::udp::Sockets;
use crate::buffer::Port;
use crate::config::{self, MAX_PEERS, SecretFile};
use crate::ike;
use crate::report::Reason;
use crate::stack::{Credentials, Path, PathError};

/// The longest secret: no peer takes longer ones, and a wrong file is noticed.
pub const MAX_SECRET: usize = 1_024;
/// The longest file with certificates or revocation lists.
pub(super) const MAX_PEM: usize = 1 << 20;
/// The longest secret with the line feed behind it.
pub(super) const MAX_SECRET_FILE: usize = MAX_SECRET + 1;
/// How long a dial may take: file systems and name servers that do not answer end here.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long one name server may take to answer, twice.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a name may take to resolve, all servers and search domains together.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is dialled.
#[derive(Debug)]
pub struct Request {
    /// Name or address of the peer.
    pub peer: String,
    /// Which of its addresses to begin with: [`Turns::next`].
    pub turn: usize,
    /// Whether other source ports than the well-known ones are asked for.
    pub fresh_ports: bool,
    /// Whether ESP may travel without UDP.
    pub esp: bool,
    /// The files with the secrets.
    pub credentials: config::Credentials,
    /// The name that the peer's certificate must have, where the configuration of the certificate has no other.
    pub name: ike::Identity,
}

/// Whose turn it is among the addresses of a name: the one that worked last, else the one after that which was tried last.
#[derive(Debug, Default)]
pub struct Turns(BTreeMap<String, usize>);

impl Turns {
    /// The turn of an attempt to dial `peer`; the next one is another's, unless [`Self::keep`] is called.
    pub fn next(&mut self, peer: &str) -> usize {
        // Those of the configuration before this one.
        if self.0.len() >= MAX_PEERS && !self.0.contains_key(peer) {
            self.0.clear();
        }
        let turn = self.0.entry(peer.to_owned()).or_default();
        std::mem::replace(turn, turn.wrapping_add(1))
    }

    /// The last attempt to dial `peer` succeeded, or nothing of it was wrong with the address: the next one begins with the same address.
    pub fn keep(&mut self, peer: Option<&str>) {
        if let Some(turn) = peer.and_then(|peer| self.0.get_mut(peer)) {
            *turn = turn.wrapping_sub(1);
        }
    }
}

/// A way to the peer.
pub struct Dialled {
    /// What the stack must know of it.
    pub path: Path,
    /// The sockets.
    pub sockets: Sockets,
}

/// Finds a way to the peer.
///
/// # Errors
/// What is missing.
pub async fn dial(request: Request) -> Result<Dialled, PathError> {
    let message = format!("no way to {} was found within {} s", request.peer, DIAL_TIMEOUT.as_secs());
    let dialled = tokio::time::timeout(DIAL_TIMEOUT, find(request)).await;
    dialled.unwrap_or(Err(PathError::Unreachable(message)))
}

async fn find(request: Request) -> Result<Dialled, PathError> {
    let (files, name) = (request.credentials, request.name);
    let credentials = tokio::task::spawn_blocking(move || read_credentials(&files, Some(name)));
    let credentials = credentials.await.map_err(|error| PathError::Unreachable(error.to_string()))??;
    let addresses = resolve(&request.peer).await.map_err(PathError::Unresolvable)?;
    let (remote, mut sockets) = open(&addresses, request.turn, request.fresh_ports)?;
    if request.esp {
        sockets.open_esp().map_err(|error| PathError::RawSocketFailed(error.to_string()))?;
    }
    let mtu = sockets.get(Port::NatT).path_mtu();
    let [ike, nat_t] = [Port::Ike, Port::NatT].map(|port| sockets.get(port).local());
    let path =
        Path { credentials, local: ike.ip(), local_ike_port: ike.port(), local_nat_t_port: nat_t.port(), remote, mtu };
    Ok(Dialled { path, sockets })
}

/// Opens sockets towards the first address, from that of `turn` on, that the host has a route to.
fn open(addresses: &[IpAddr], turn: usize, fresh_ports: bool) -> Result<(IpAddr, Sockets), PathError> {
    let first = turn.checked_rem(addresses.len()).unwrap_or_default();
    let mut problem = "it has no address".to_owned();
    for &remote in addresses.iter().cycle().skip(first).take(addresses.len()) {
        match Sockets::open(remote, fresh_ports) {
            Ok(sockets) => return Ok((remote, sockets)),
            Err(error) => problem = format!("{remote}: {error}"),
        }
    }
    Err(PathError::Unreachable(problem))
}

/// The name servers of the host; none without `/etc/resolv.conf`.
pub fn name_servers() -> Vec<IpAddr> {
    match system_conf::read_system_conf() {
        Ok((config, _)) => config.name_servers().iter().map(|server| server.ip).collect(),
        Err(error) => {
            tracing::debug!(%error, "/etc/resolv.conf cannot be read");
            Vec::new()
        }
    }
}

/// Reads every secret. A peer's certificate must have the name of the configuration, else `name`, else any.
///
/// # Errors
/// Each that cannot be used, with the remedy.
pub fn read_credentials(files: &config::Credentials, name: Option<ike::Identity>) -> Result<Credentials, PathError> {
    let ike = read_proof(files, name);
    let username = read_text(&files.username);
    let password = read_text(&files.password);
    let tunnel_secret = files.tunnel_secret.as_ref().map(read_secret).transpose();
    let xauth = files.xauth.as_ref();
    let xauth_name = xauth.map(|user| read_text(&user.username)).transpose();
    let xauth_password = xauth.map(|user| read_text(&user.password)).transpose();
    match (ike, username, password, tunnel_secret, xauth_name, xauth_password) {
        (Ok((ike, warnings)), Ok(username), Ok(password), Ok(tunnel_secret), Ok(xauth_name), Ok(xauth_password)) => {
            let xauth = xauth_name.zip(xauth_password).map(|(name, password)| ike::XauthUser { name, password });
            let ike = Arc::new(ike::Credentials { xauth, ..ike });
            Ok(Credentials { ike, username, password, tunnel_secret, warnings })
        }
        (ike, username, password, tunnel_secret, xauth_name, xauth_password) => {
            let problems = [ike.err(), username.err(), password.err()];
            let more = [tunnel_secret.err(), xauth_name.err(), xauth_password.err()];
            let problems = problems.into_iter().chain(more);
            let problems: Vec<Unusable> = problems.flatten().collect();
            let reason = problems.first().map_or(Reason::CredentialsInvalid, |problem| problem.reason);
            let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            Err(PathError::Credentials { reason, message: messages.join(" ") })
        }
    }
}

/// What proves who we are, and what is neglected about it.
fn read_proof(
    files: &config::Credentials,
    name: Option<ike::Identity>,
) -> Result<(ike::Credentials, Vec<String>), Unusable> {
    if let Some(files) = &files.certificate {
        let name = files.remote_id.as_ref().map(ike::Identity::from).or(name);
        let certificate = certificate::read(files, name.into_iter().collect())?;
        let warnings = certificate::warnings(files, &certificate);
        let credentials = ike::Credentials { pre_shared_keys: Vec::new(), certificate: Some(certificate), xauth: None };
        return Ok((credentials, warnings));
    }
    let key = files.pre_shared_key.as_ref().map(read_secret).transpose()?.unwrap_or_default();
    Ok((ike::Credentials::of_key(key), Vec::new()))
}

/// A secret that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    pub(super) reason: Reason,
    pub(super) message: String,
}

pub(super) fn missing(file: &SecretFile) -> Unusable {
    let message = format!("The {} does not exist: create it.", source(file));
    Unusable { reason: Reason::CredentialsMissing, message }
}

pub(super) fn invalid(file: &SecretFile, problem: &str) -> Unusable {
    Unusable { reason: Reason::CredentialsInvalid, message: format!("The {} {problem}", source(file)) }
}

fn source(file: &SecretFile) -> String {
    file.source.clone().unwrap_or_else(|| format!("file {}", file.path.display()))
}

pub(super) fn read_secret(file: &SecretFile) -> Result<Zeroizing<Vec<u8>>, Unusable> {
    let too_long = || invalid(file, &format!("is longer than {MAX_SECRET} octets: is it the right one?"));
    let mut secret = match read_bounded(&file.path, MAX_SECRET_FILE) {
        Ok(secret) => secret,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(file)),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(too_long()),
        Err(error) => return Err(invalid(file, &format!("cannot be read: {error}."))),
    };
    if secret.last() == Some(&b'\n') {
        secret.pop();
    }
    //= rfc1994 2.3 "The CHAP algorithm requires that the length of the secret MUST be at least 1 octet."
    //= test: one_line_feed_is_no_part_of_a_secret, every_secret_that_cannot_be_used_is_told
    match secret.len() {
        0 => Err(invalid(file, "is empty: put the secret into it.")),
        1..=MAX_SECRET => Ok(secret),
        _ => Err(too_long()),
    }
}

pub(super) fn read_text(file: &SecretFile) -> Result<Zeroizing<String>, Unusable> {
    let secret = read_secret(file)?;
    match std::str::from_utf8(&secret) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(invalid(file, "is not text in UTF-8: names and passwords are.")),
    }
}

/// Reads a file of at most `most` octets.
///
/// # Errors
/// The system's, when the file is longer, and when it is none: a pipe has nothing to read the second time.
pub(super) fn read_bounded(path: &FilePath, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Whoever opens a pipe would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    // All of the capacity at once: a vector that grows leaves copies of the secret behind.
    let room = usize::try_from(data.len()).unwrap_or(most).min(most).saturating_add(1);
    let mut octets = Zeroizing::new(Vec::with_capacity(room));
    file.take((most as u64).saturating_add(1)).read_to_end(&mut octets)?;
    if octets.len() > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {most} octets")));
    }
    Ok(octets)
}

/// The addresses of `host`, those of IPv4 first. Nothing is cached: a peer's address may change from one attempt to the next.
///
/// The resolver is our own because the C library's needs its plug-ins at run time, and the image holds nothing but the binary.
///
/// # Errors
/// Why there is none, in the resolver's words.
pub async fn resolve(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let mut builder = TokioResolver::builder_tokio().map_err(|error| format!("/etc/resolv.conf: {error}"))?;
    let options = builder.options_mut();
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // A server that keeps silent about one family must leave time for the other.
    options.timeout = options.timeout.min(QUERY_TIMEOUT);
    let resolver = builder.build().map_err(|error| error.to_string())?;
    match tokio::time::timeout(RESOLVE_TIMEOUT, resolver.lookup_ip(host)).await {
        Ok(Ok(addresses)) => {
            let mut all: Vec<IpAddr> = addresses.iter().collect();
            // Name servers turn the order of equal ones with each answer; the turns of a dial need one that stands.
            all.sort_unstable();
            all.dedup();
            if all.is_empty() { Err(format!("{host} has no address")) } else { Ok(all) }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no name server answered within {} s", RESOLVE_TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;

    #[test]
    fn one_line_feed_is_no_part_of_a_secret() {
        let folder = Scratch::new();
        for (content, secret) in [("abc\n", "abc"), ("abc\n\n", "abc\n"), ("abc", "abc"), (" a\r\n", " a\r")] {
            let path = folder.write("psk", content.as_bytes());
            let file = SecretFile { path, source: None };
            assert_eq!(read_secret(&file).map(|secret| secret.to_vec()), Ok(secret.into()));
        }
    }

    #[test]
    fn a_missing_secret_is_called_what_its_owner_calls_it() {
        let source = Some("key psk of Secret oslo-vpn".to_owned());
        let file = SecretFile { path: "/nonexistent/psk".into(), source };
        assert_eq!(
            read_secret(&file).map(|_| ()),
            Err(Unusable {
                reason: Reason::CredentialsMissing,
                message: "The key psk of Secret oslo-vpn does not exist: create it.".to_owned()
            })
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
            let Unusable { reason, message } = read_text(&file).map(|_| ()).unwrap_err();
            assert_eq!(reason, Reason::CredentialsInvalid);
            assert!(message.contains(problem) && !message.contains("xx"), "{message}");
        }
        let mut longest = vec![b'x'; MAX_SECRET];
        longest.push(b'\n');
        assert!(read_text(&SecretFile { path: folder.write("password", &longest), source: None }).is_ok());
        let folder_itself = SecretFile { path: folder.path().to_owned(), source: None };
        assert!(read_secret(&folder_itself).unwrap_err().message.contains("cannot be read"));
    }

    #[test]
    fn every_secret_that_cannot_be_used_is_told() {
        let folder = Scratch::new();
        let file = |name: &str| SecretFile { path: folder.path().join(name), source: None };
        let files = config::Credentials {
            pre_shared_key: Some(file("psk")),
            certificate: None,
            username: SecretFile { path: folder.write("username", b"u"), source: None },
            password: SecretFile { path: folder.write("password", b""), source: None },
            tunnel_secret: Some(file("secret")),
            xauth: Some(config::XauthUser { username: file("xauth-username"), password: file("xauth-password") }),
        };
        let Err(PathError::Credentials { reason, message }) = read_credentials(&files, None) else { panic!("usable") };
        assert_eq!(reason, Reason::CredentialsMissing);
        assert_eq!(message.matches("does not exist").count(), 4, "{message}");
        assert!(message.contains("password is empty"), "{message}");
    }

    #[test]
    fn a_pipe_is_no_secret_and_holds_nobody_up() {
        let folder = Scratch::new();
        let path = folder.path().join("psk");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(read_bounded(&path, MAX_SECRET_FILE).unwrap_err().to_string().contains("not a regular file"));
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let folder = Scratch::new();
        let path = folder.write("config", b"12345");
        assert_eq!(read_bounded(&path, 5).unwrap().as_slice(), b"12345");
        assert_eq!(read_bounded(&path, 4).unwrap_err().to_string(), "it is longer than 4 octets");
    }

    #[test]
    fn addresses_take_turns_until_one_works() {
        let mut turns = Turns::default();
        assert_eq!([(); 3].map(|()| turns.next("a")), [0, 1, 2]);
        turns.keep(Some("a"));
        assert_eq!([turns.next("b"), turns.next("a"), turns.next("a")], [0, 2, 3]);
        for peer in 0..100 {
            turns.next(&peer.to_string());
            assert!(turns.0.len() <= MAX_PEERS);
        }
    }

    #[tokio::test]
    async fn an_attempt_takes_the_address_of_its_turn_and_skips_those_without_a_route() {
        let addresses: [IpAddr; 3] = [[127, 0, 0, 1].into(), [127, 0, 0, 2].into(), [255, 255, 255, 255].into()];
        for (turn, expected) in [(0, addresses[0]), (1, addresses[1]), (2, addresses[0]), (4, addresses[1])] {
            assert_eq!(open(&addresses, turn, true).unwrap().0, expected, "{turn}");
        }
        assert!(matches!(open(&[], 7, true), Err(PathError::Unreachable(_))));
    }

    #[tokio::test]
    async fn addresses_and_hosts_need_no_name_server() {
        assert_eq!(resolve("192.0.2.7").await, Ok(vec![[192, 0, 2, 7].into()]));
        assert_eq!(resolve("2001:db8::7").await, Ok(vec!["2001:db8::7".parse().unwrap()]));
        assert_eq!(resolve("localhost").await.unwrap()[0], IpAddr::from([127, 0, 0, 1]));
    }
}
