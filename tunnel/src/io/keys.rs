//! The file of `--export-keys`: keys of SAs for the decryption of captures, readable by its owner only.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Opens the file for more rows, and makes it if it does not exist.
///
/// # Errors
/// The system's, and when somebody else could read the keys: through a symbolic link that they have set, or because the file is
/// theirs or open to them.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => refused("it is a symbolic link; name the file itself"),
        _ => error,
    })?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(refused("it is not a regular file"));
    }
    if data.uid() != nix::unistd::geteuid().as_raw() || data.permissions().mode() & 0o077 != 0 {
        return Err(refused("others can read it; remove it, or make it yours alone (chown, chmod 600)"));
    }
    Ok(file)
}

fn refused(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;
    use std::fs::{Permissions, set_permissions};
    use std::io::Write;

    #[test]
    fn keys_go_only_where_nobody_else_reads() {
        let folder = Scratch::new();
        let path = folder.path().join("keys");
        open(&path).unwrap().write_all(b"a\n").unwrap();
        open(&path).unwrap().write_all(b"b\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a\nb\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(open(&link).unwrap_err().to_string().contains("symbolic link"));
        set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("others can read it"));
    }
}
