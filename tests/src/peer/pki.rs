//! Certificate authorities for tests, made with `openssl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::process::run;
use crate::tool;

/// A key and its algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// RSA with 2048 bits.
    Rsa,
    /// RSA with 4096 bits.
    Rsa4096,
    /// ECDSA with the curve P-256.
    Ecdsa256,
    /// ECDSA with the curve P-384.
    Ecdsa384,
}

impl Key {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Rsa => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            Self::Rsa4096 => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
            Self::Ecdsa256 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Self::Ecdsa384 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        }
    }
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// When the test runs.
    Valid,
    /// Before: it has expired.
    Expired,
    /// After: it is not valid yet.
    Future,
}

impl Validity {
    fn arguments(self) -> [&'static str; 4] {
        let (from, to) = match self {
            Self::Valid => ("20200101000000Z", "20991231235959Z"),
            Self::Expired => ("20200101000000Z", "20210101000000Z"),
            Self::Future => ("20980101000000Z", "20991231235959Z"),
        };
        ["-startdate", from, "-enddate", to]
    }
}

/// A certificate with its key and what it is trusted by, all in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// Its key (PKCS#8).
    pub key: String,
    /// The intermediate authority that issued it, if one did.
    pub intermediate: Option<String>,
    /// The authority at the end of its chain.
    pub authority: String,
}

impl Certificate {
    /// The certificate and the intermediate one after it, as in `tls.crt`.
    pub fn chain(&self) -> String {
        self.certificate.clone() + self.intermediate.as_deref().unwrap_or_default()
    }
}

/// A certificate authority. Its files go with it.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    key: Key,
    intermediate: Option<String>,
    root: String,
}

const EXTENSIONS_OF_AUTHORITY: &str =
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n";

impl Authority {
    /// A root with the subject `CN=name`.
    pub fn new(name: &str, key: Key) -> Result<Self> {
        let folder = new_folder()?;
        let mut authority = Self { folder, key, intermediate: None, root: String::new() };
        authority.make_key("ca")?;
        authority.make_request("ca", name)?;
        authority.sign("ca", "ca", EXTENSIONS_OF_AUTHORITY, Validity::Valid, true)?;
        authority.root = authority.read("ca.crt")?;
        Ok(authority)
    }

    /// An authority below this one; the certificates that it issues have both in their chain.
    pub fn intermediate(&self, name: &str) -> Result<Self> {
        let folder = new_folder()?;
        let mut below = Self { folder, key: self.key, intermediate: None, root: self.root.clone() };
        below.make_key("ca")?;
        below.make_request("ca", name)?;
        fs::copy(below.folder.join("ca.csr"), self.folder.join("below.csr"))?;
        self.sign("below", "ca", EXTENSIONS_OF_AUTHORITY, Validity::Valid, false)?;
        fs::copy(self.folder.join("below.crt"), below.folder.join("ca.crt"))?;
        below.intermediate = Some(below.read("ca.crt")?);
        Ok(below)
    }

    /// A certificate for `CN=name` with the subject alternative names `names` in the words of openssl (`IP:192.0.2.10`,
    /// `DNS:vpn.example.com`), separated by commas; none with an empty text.
    pub fn issue(&self, name: &str, names: &str, validity: Validity) -> Result<Certificate> {
        self.make_key(name)?;
        self.make_request(name, name)?;
        let mut extensions = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n".to_owned();
        if !names.is_empty() {
            extensions += &format!("subjectAltName={names}\n");
        }
        self.sign(name, "ca", &extensions, validity, false)?;
        Ok(Certificate {
            certificate: self.read(&format!("{name}.crt"))?,
            key: self.read(&format!("{name}.key"))?,
            intermediate: self.intermediate.clone(),
            authority: self.root.clone(),
        })
    }

    /// A list of revoked certificates with `certificate` on it, in PEM.
    pub fn revoke(&self, certificate: &Certificate) -> Result<String> {
        fs::write(self.folder.join("revoked.crt"), &certificate.certificate)?;
        run(self.openssl("ca").args(["-revoke", "revoked.crt"]))?;
        run(self.openssl("ca").args(["-gencrl", "-crldays", "3650", "-out", "crl.pem"]))?;
        self.read("crl.pem")
    }

    fn read(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.folder.join(name))?)
    }

    /// The command of openssl, with the authority's own settings where it is `ca`.
    fn openssl(&self, command: &str) -> Command {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(&self.folder).arg(command);
        if command == "ca" {
            openssl.args(["-config", "ca.conf", "-batch", "-notext", "-md", "sha256"]);
        }
        openssl
    }

    fn make_key(&self, name: &str) -> Result<()> {
        let mut genpkey = self.openssl("genpkey");
        run(genpkey.args(self.key.arguments()).args(["-out", &format!("{name}.key")])).map(drop)
    }

    fn make_request(&self, name: &str, subject: &str) -> Result<()> {
        let (key, request, subject) = (format!("{name}.key"), format!("{name}.csr"), format!("/O=Test/CN={subject}"));
        run(self.openssl("req").args(["-new", "-key", &key, "-out", &request, "-subj", &subject])).map(drop)
    }

    fn sign(&self, name: &str, issuer: &str, extensions: &str, validity: Validity, own: bool) -> Result<()> {
        fs::write(self.folder.join("extensions"), extensions)?;
        let (request, certificate) = (format!("{name}.csr"), format!("{name}.crt"));
        let mut ca = self.openssl("ca");
        ca.args([
            "-in",
            &request,
            "-out",
            &certificate,
            "-extfile",
            "extensions",
            "-keyfile",
            &format!("{issuer}.key"),
        ]);
        ca.args(validity.arguments());
        if own {
            ca.arg("-selfsign");
        } else {
            ca.args(["-cert", &format!("{issuer}.crt")]);
        }
        run(&mut ca).map(drop)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

fn new_folder() -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = tool::target().join("peers").join(format!("authority-{}-{number}", std::process::id()));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    write_settings(&folder)?;
    Ok(folder)
}

/// The settings of `openssl ca`, which can date a certificate back.
fn write_settings(folder: &Path) -> Result<()> {
    let settings = "[ca]\ndefault_ca = own\n[own]\ndatabase = index\nnew_certs_dir = .\nrand_serial = yes\nunique_subject = no\n\
                    policy = any\ncertificate = ca.crt\nprivate_key = ca.key\ndefault_md = sha256\n\
                    crl_extensions = list\ncrlnumber = number\n\
                    [any]\norganizationName = optional\ncommonName = supplied\n[list]\nauthorityKeyIdentifier = keyid\n";
    fs::write(folder.join("ca.conf"), settings)?;
    fs::write(folder.join("number"), "01\n")?;
    Ok(fs::write(folder.join("index"), "")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What openssl says about the certificate, as a program that trusts its authority.
    fn verify(certificate: &Certificate) -> Result<String> {
        let folder = new_folder()?;
        fs::write(folder.join("own.pem"), &certificate.certificate)?;
        fs::write(folder.join("chain.pem"), certificate.chain())?;
        fs::write(folder.join("authority.pem"), &certificate.authority)?;
        let mut verify = Command::new("openssl");
        verify.current_dir(&folder).args(["verify", "-CAfile", "authority.pem", "-untrusted", "chain.pem", "own.pem"]);
        let said = run(&mut verify);
        fs::remove_dir_all(&folder)?;
        said
    }

    #[test]
    fn certificates_of_an_authority_and_of_one_below_it_are_trusted_and_expired_ones_are_not() {
        for key in [Key::Rsa, Key::Ecdsa256, Key::Ecdsa384] {
            let authority = Authority::new("root", key).unwrap();
            verify(&authority.issue("server", "IP:192.0.2.10", Validity::Valid).unwrap()).unwrap();
            let below = authority.intermediate("below").unwrap();
            let issued = below.issue("client", "DNS:client.example.com", Validity::Valid).unwrap();
            assert!(issued.intermediate.is_some());
            verify(&issued).unwrap();
            let expired = verify(&authority.issue("old", "", Validity::Expired).unwrap()).unwrap_err().to_string();
            assert!(expired.contains("expired"), "{expired}");
            let future = verify(&authority.issue("new", "", Validity::Future).unwrap()).unwrap_err().to_string();
            assert!(future.contains("not yet valid"), "{future}");
        }
    }

    #[test]
    fn a_revoked_certificate_stands_on_the_list() {
        let authority = Authority::new("root", Key::Ecdsa256).unwrap();
        let issued = authority.issue("client", "", Validity::Valid).unwrap();
        let list = authority.revoke(&issued).unwrap();
        assert!(list.starts_with("-----BEGIN X509 CRL-----"), "{list}");
    }
}
