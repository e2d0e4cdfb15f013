//! The product as it ships: static release binaries, and the images that their Dockerfiles make of them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::tool::is_newer;
use crate::{image, interrupt, package, preflight, tool};

/// Name of the operator's image in a test cluster.
pub const OPERATOR_IMAGE: &str = "towline.test/towline-operator:test";

/// Name of the tunnel's image in a test cluster.
pub const TUNNEL_IMAGE: &str = "towline.test/towline-tunnel:test";

/// The target whose standard library links statically with `crt-static`. Named, so that build scripts and procedural macros,
/// which must not be static, are built apart.
#[cfg(target_arch = "x86_64")]
const TARGET: &str = "x86_64-unknown-linux-gnu";
#[cfg(target_arch = "aarch64")]
const TARGET: &str = "aarch64-unknown-linux-gnu";

/// The folder of the static binaries.
fn folder() -> PathBuf {
    tool::target().join(TARGET).join("release")
}

/// Path of a static binary: `towline-tunnel` or `towline-operator`. [`build`] makes it.
pub fn binary(name: &str) -> PathBuf {
    folder().join(name)
}

/// Builds both binaries; cargo skips what is up to date.
pub fn build() -> Result<()> {
    package::install(preflight::BUILD_PACKAGES)?;
    let began = Instant::now();
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(tool::workspace())
        .args(["build", "--release", "--locked", "--target", TARGET])
        .args(["--package", "towline-tunnel", "--package", "towline-operator"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    let (mut child, _registration) = interrupt::spawn(&mut cargo).context("cannot start cargo")?;
    let status = child.wait()?;
    ensure!(status.success(), "the product does not build");
    println!("static binaries are in {} after {:.0} s", folder().display(), began.elapsed().as_secs_f32());
    Ok(())
}

/// Builds both images; returns their archives.
pub fn images() -> Result<[PathBuf; 2]> {
    build()?;
    let archives = tool::folder().join("images");
    let one = |crate_name: &str, program: &str, name: &str| -> Result<PathBuf> {
        let archive = archives.join(format!("{program}.tar"));
        let dockerfile = tool::workspace().join(crate_name).join("Dockerfile");
        if !(is_newer(&archive, &binary(program)) && is_newer(&archive, &dockerfile)) {
            // A context of its own: the build folder holds gigabytes that are no part of the image.
            let context = archives.join(format!("{program}.context"));
            std::fs::create_dir_all(&context)?;
            std::fs::copy(binary(program), context.join(program))?;
            image::build(&dockerfile, &context, name, &archive)?;
            std::fs::remove_dir_all(&context)?;
        }
        Ok(archive)
    };
    Ok([one("operator", "towline-operator", OPERATOR_IMAGE)?, one("tunnel", "towline-tunnel", TUNNEL_IMAGE)?])
}
