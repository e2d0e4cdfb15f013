//! Container images without a daemon and without a registry.
//!
//! An image is a `docker-archive`: a tar of one layer, the image's configuration and a manifest, which
//! `ctr images import` and `docker load` read. The product's own images are built from their Dockerfiles by buildah.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::process::run;
use crate::tool::is_newer;
use crate::{package, tool};

/// Registry part of the name of every image made here; nobody answers there, so an image that is missing shows.
pub const REGISTRY: &str = "towline.test";

/// Name of the image of applications in tests: busybox, `curl`, `wget`, `ip`; it serves `/www` on port 80 unless told otherwise.
pub const APP: &str = "towline.test/app:1";

/// Name of the image of the process that holds a pod's namespaces.
pub const PAUSE: &str = "towline.test/pause:1";

/// Name of CoreDNS's image.
pub const COREDNS: &str = "towline.test/coredns:1";

/// The application's programs that are taken from this machine, with the package of each. (The wget of Debian 12's
/// busybox crashes when it is given a timeout.)
const APP_PROGRAMS: &[(&str, &str)] = &[("curl", "curl"), ("getent", "libc-bin"), ("ip", "iproute2"), ("wget", "wget")];

/// The application's own files: path, contents, mode.
const APP_FILES: &[(&str, &str, u32)] = &[
    ("etc/passwd", "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n", 0o644),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644),
    ("etc/nsswitch.conf", "hosts: files dns\n", 0o644),
    ("www/index.html", "towline test application\n", 0o644),
    // Says whom the server sees.
    ("www/cgi-bin/client", "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n%s\\n' \"$REMOTE_ADDR\"\n", 0o755),
    ("tmp/.keep", "", 0o644),
];

/// What the application runs unless a pod says otherwise.
const APP_COMMAND: &[&str] = &["/bin/httpd", "-f", "-p", "0.0.0.0:80", "-h", "/www"];

/// Packs a folder into an image with one layer. The same files give the same bytes.
pub fn write(name: &str, root: &Path, command: &[&str], archive: &Path) -> Result<()> {
    let work = archive.with_extension("work");
    remove_folder(&work)?;
    fs::create_dir_all(&work)?;
    pack(root, &work.join("layer.tar"))?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no name for the architecture {other} in an image"),
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Cmd": command, "Env": ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&work.join("layer.tar"))?)] },
        "history": [{ "created_by": "cargo xtask" }],
    });
    fs::write(work.join("config.json"), config.to_string())?;
    // Readers take the image's id from the name of its configuration.
    let id = digest(&work.join("config.json"))?;
    fs::rename(work.join("config.json"), work.join(format!("{id}.json")))?;
    let manifest = json!([{ "Config": format!("{id}.json"), "RepoTags": [name], "Layers": ["layer.tar"] }]);
    fs::write(work.join("manifest.json"), manifest.to_string())?;
    let unfinished = archive.with_extension("unfinished");
    pack(&work, &unfinished)?;
    fs::rename(&unfinished, archive)?;
    remove_folder(&work)
}

/// Builds a Dockerfile into a docker-archive and gives it a name. Only what the Dockerfile names is read of `context`.
pub fn build(dockerfile: &Path, context: &Path, name: &str, archive: &Path) -> Result<()> {
    package::install(&["buildah"])?;
    let began = Instant::now();
    let storage = archive.with_extension("storage");
    remove_folder(&storage)?;
    fs::create_dir_all(&storage)?;
    // A storage of its own that is deleted afterwards; "vfs" needs no kernel feature, "chroot" no runtime.
    let buildah = || {
        let mut command = Command::new("buildah");
        command.args(["--storage-driver", "vfs"]).arg("--root").arg(storage.join("root"));
        command.arg("--runroot").arg(storage.join("run"));
        command
    };
    run(buildah()
        .args(["build", "--isolation", "chroot", "--format", "docker", "--tag", name, "--file"])
        .arg(dockerfile)
        .arg(context))
    .with_context(|| format!("cannot build {}", dockerfile.display()))?;
    let unfinished = archive.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_file(&unfinished)?;
    }
    let destination = format!("docker-archive:{}:{name}", unfinished.display());
    run(buildah().args(["push", "--disable-compression", name, &destination]))?;
    fs::rename(&unfinished, archive)?;
    remove_folder(&storage)?;
    println!("image {name} built in {:.1} s", began.elapsed().as_secs_f32());
    Ok(())
}

/// The images that every cluster needs: [`PAUSE`] and [`COREDNS`]. Built if missing or older than their programs.
pub fn system() -> Result<[PathBuf; 2]> {
    let folder = folder()?;
    let (pause, coredns) = (folder.join("pause.tar"), folder.join("coredns.tar"));
    let program = tool::program("coredns");
    if !is_newer(&coredns, &program) {
        single(COREDNS, &program, &coredns)?;
    }
    if !is_newer(&pause, &tool::program("kubelet")) {
        package::install(&["gcc", "libc6-dev"])?;
        // The program is one C file of Kubernetes itself.
        let source = tool::sources("kubernetes", "k8s.io/kubernetes")?.join("build/pause/linux/pause.c");
        let program = tool::program("pause");
        let mut compiler = Command::new("gcc");
        compiler.args(["-Os", "-static", "-s", "-DVERSION=towline", "-o"]).arg(&program).arg(source);
        run(&mut compiler)?;
        single(PAUSE, &program, &pause)?;
    }
    Ok([pause, coredns])
}

/// The image of applications in tests ([`APP`]): this machine's programs with their libraries, and Debian's busybox.
pub fn app() -> Result<PathBuf> {
    let archive = folder()?.join("app.tar");
    let stamp = archive.with_extension("stamp");
    let recipe = format!("{APP_PROGRAMS:?}\n{APP_FILES:?}\n{APP_COMMAND:?}\n");
    if archive.exists() && fs::read_to_string(&stamp).is_ok_and(|built| built == recipe) {
        return Ok(archive);
    }
    let packages: Vec<_> = APP_PROGRAMS.iter().map(|(_, package)| *package).collect();
    package::install(&packages)?;
    let root = archive.with_extension("root");
    let unpacked = archive.with_extension("busybox");
    remove_folder(&root)?;
    remove_folder(&unpacked)?;
    let bin = root.join("bin");
    fs::create_dir_all(&bin)?;

    // Unpacked and not installed, because it and busybox-static exclude each other. The static one crashes on host names.
    package::unpack("busybox", &unpacked)?;
    let candidates = ["bin/busybox", "usr/bin/busybox"].map(|path| unpacked.join(path));
    let busybox = candidates.iter().find(|path| path.exists()).context("the package busybox has no busybox")?;
    let mut libraries = libraries(busybox)?;
    fs::copy(busybox, bin.join("busybox"))?;
    for (name, _) in APP_PROGRAMS {
        let program = which(name)?;
        libraries.extend(self::libraries(&program)?);
        fs::copy(&program, bin.join(name))?;
    }
    for applet in run(Command::new(busybox).arg("--list"))?.lines() {
        let link = bin.join(applet);
        if !link.exists() {
            symlink("busybox", &link)?;
        }
    }
    for library in libraries {
        copy(&library, &root.join(library.strip_prefix("/")?))?;
    }
    for (path, contents, mode) in APP_FILES {
        let file = root.join(path);
        fs::create_dir_all(file.parent().context("a file is in a folder")?)?;
        fs::write(&file, contents)?;
        fs::set_permissions(&file, Permissions::from_mode(*mode))?;
    }
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777))?;

    write(APP, &root, APP_COMMAND, &archive)?;
    fs::write(&stamp, recipe)?;
    remove_folder(&root)?;
    remove_folder(&unpacked)?;
    Ok(archive)
}

fn folder() -> Result<PathBuf> {
    let folder = tool::folder().join("images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// An image with one program and nothing else.
fn single(name: &str, program: &Path, archive: &Path) -> Result<()> {
    let root = archive.with_extension("root");
    remove_folder(&root)?;
    fs::create_dir_all(root.join("tmp"))?;
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777))?;
    let file = program.file_name().context("a program has a name")?;
    fs::copy(program, root.join(file))?;
    let command = format!("/{}", file.to_string_lossy());
    write(name, &root, &[&command], archive)?;
    remove_folder(&root)
}

/// Packs a folder's contents with everything left out that differs between two runs.
fn pack(folder: &Path, archive: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    run(tar.arg("--file").arg(archive).arg("--directory").arg(folder).arg("."))?;
    Ok(())
}

fn digest(file: &Path) -> Result<String> {
    let line = run(Command::new("sha256sum").arg("--").arg(file))?;
    Ok(line.split_whitespace().next().context("sha256sum wrote nothing")?.to_owned())
}

/// Every shared library that a program loads, and the loader itself.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let lines = run(Command::new("ldd").arg(program))?;
    // "libc.so.6 => /lib/…/libc.so.6 (0x…)" and "/lib64/ld-linux-x86-64.so.2 (0x…)"
    let mut found: BTreeSet<_> =
        lines.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect();
    // Loaded by name at run time when a host name is looked up.
    for name in ["libnss_dns.so.2", "libnss_files.so.2"] {
        let folders: Vec<_> = found.iter().filter_map(|library| library.parent()).collect();
        if let Some(path) = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists()) {
            found.insert(path);
        }
    }
    Ok(found)
}

fn which(name: &str) -> Result<PathBuf> {
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(|folder| Path::new(folder).join(name));
    folders.into_iter().find(|path| path.exists()).with_context(|| format!("{name} is not installed"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn remove_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_same_files_give_the_same_image_with_the_layer_that_its_configuration_names() {
        let folder = std::env::temp_dir().join(format!("towline-image-{}", std::process::id()));
        let root = folder.join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/motd"), "hello").unwrap();
        let (first, second) = (folder.join("first.tar"), folder.join("second.tar"));
        write("towline.test/unit:1", &root, &["/none"], &first).unwrap();
        // The same contents, written at another time.
        fs::File::open(root.join("etc/motd")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        write("towline.test/unit:1", &root, &["/none"], &second).unwrap();
        assert_eq!(digest(&first).unwrap(), digest(&second).unwrap());

        run(Command::new("tar").arg("-xf").arg(&first).arg("-C").arg(&folder)).unwrap();
        let read =
            |name: &str| serde_json::from_slice::<serde_json::Value>(&fs::read(folder.join(name)).unwrap()).unwrap();
        let manifest = read("manifest.json");
        assert_eq!(manifest[0]["RepoTags"][0], "towline.test/unit:1");
        let config = manifest[0]["Config"].as_str().unwrap();
        assert_eq!(config, format!("{}.json", digest(&folder.join(config)).unwrap()));
        let layer = folder.join(manifest[0]["Layers"][0].as_str().unwrap());
        assert_eq!(read(config)["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&layer).unwrap()));
        let listing = run(Command::new("tar").arg("-tf").arg(&layer)).unwrap();
        assert!(listing.lines().any(|line| line == "./etc/motd"), "{listing}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_dynamic_program_brings_its_loader_and_the_c_library() {
        let found = libraries(&which("ip").unwrap()).unwrap();
        let has = |start: &str| found.iter().any(|path| path.file_name().unwrap().to_string_lossy().starts_with(start));
        assert!(has("libc.so") && has("ld-linux"), "{found:?}");
    }
}
