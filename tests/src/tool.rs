//! The programs of a Kubernetes cluster, built from Go modules into `target/tools`.
//!
//! Each folder of `tests/cluster/modules` names its programs and their version (`go.mod`) and the checksums of all
//! sources (`go.sum`). A module that is built already is skipped: its stamp holds what it was built from.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::package;
use crate::process::{attend, run};

/// Where Go's own archive is unpacked, which a shell of root need not have in its PATH.
const GO: &str = "/usr/local/go/bin/go";

/// The oldest Go 1.x that fetches by itself the release that a module asks for.
const OLDEST_GO: u32 = 21;

/// Packages for building the programs; Go is not among them, see [`check_go`].
pub const PACKAGES: &[&str] = &["gcc", "libc6-dev", "libseccomp-dev", "pkg-config"];

/// A Go module and how it is built.
struct Module {
    /// Folder below `tests/cluster/modules`.
    name: &'static str,
    /// Folder below `target/tools` that its programs go to.
    folder: &'static str,
    cgo: bool,
    tags: &'static str,
    /// The module whose version the programs report, and the Go variables that hold it.
    version: Option<(&'static str, &'static [VersionVariable])>,
}

/// A Go variable that is set at link time.
struct VersionVariable {
    name: &'static str,
    value: fn(&str) -> String,
}

const KUBERNETES_VERSION: &[VersionVariable] = &[
    VersionVariable { name: "k8s.io/component-base/version.gitVersion", value: str::to_owned },
    VersionVariable { name: "k8s.io/component-base/version.gitMajor", value: |version| number(version, 0) },
    VersionVariable { name: "k8s.io/component-base/version.gitMinor", value: |version| number(version, 1) },
    VersionVariable { name: "k8s.io/component-base/version.gitTreeState", value: |_| "clean".to_owned() },
];

const MODULES: &[Module] = &[
    Module { name: "cni", folder: "cni", cgo: false, tags: "", version: None },
    Module {
        name: "runc",
        folder: "bin",
        // Its first steps in a container are C; without seccomp it refuses the profile RuntimeDefault.
        cgo: true,
        tags: "seccomp",
        version: Some((
            "github.com/opencontainers/runc",
            &[VersionVariable { name: "main.version", value: |version| version.trim_start_matches('v').to_owned() }],
        )),
    },
    Module { name: "etcd", folder: "bin", cgo: false, tags: "", version: None },
    Module {
        name: "containerd",
        folder: "bin",
        cgo: false,
        tags: "",
        version: Some((
            "github.com/containerd/containerd/v2",
            &[VersionVariable { name: "github.com/containerd/containerd/v2/version.Version", value: str::to_owned }],
        )),
    },
    Module { name: "helm", folder: "bin", cgo: false, tags: "", version: None },
    Module { name: "coredns", folder: "bin", cgo: false, tags: "", version: None },
    Module {
        name: "kubernetes",
        folder: "bin",
        cgo: false,
        tags: "",
        version: Some(("k8s.io/kubernetes", KUBERNETES_VERSION)),
    },
];

/// What a module was built from and into.
#[derive(Deserialize, PartialEq, Serialize)]
struct Stamp {
    sources: String,
    /// Below `target/tools`.
    programs: Vec<PathBuf>,
}

/// The part of `go mod edit -json` that is used.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GoMod {
    tool: Vec<GoTool>,
    require: Vec<GoRequire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GoTool {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GoRequire {
    path: String,
    version: String,
}

/// The workspace's build folder.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |path| workspace().join(path))
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Where programs (`bin`, `cni`) and images (`images`) are built.
pub fn folder() -> PathBuf {
    target().join("tools")
}

/// A program of the cluster, as `kubectl`.
pub fn program(name: &str) -> PathBuf {
    folder().join("bin").join(name)
}

/// Whether `file` exists and is not older than what it is made of.
pub fn is_newer(file: &Path, than: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    matches!((changed(file), changed(than)), (Some(file), Some(than)) if file >= than)
}

/// 16 bits of FNV-1a: a name that must be the same in the next build, and tells a handful of workspaces apart.
pub fn short_hash(parts: &[&OsStr]) -> u16 {
    let octets = parts.iter().flat_map(|part| part.as_encoded_bytes());
    let hash = octets.fold(0x811c_9dc5_u32, |hash, octet| (hash ^ u32::from(*octet)).wrapping_mul(0x0100_0193));
    // Both halves, folded into one.
    ((hash ^ (hash >> 16)) & 0xffff) as u16
}

/// Whether all programs are built, so that Go is not needed.
pub fn is_built() -> bool {
    MODULES.iter().all(Module::is_built)
}

/// Builds every program that is missing or out of date. The first time this takes ten minutes on two cores.
pub fn build() -> Result<()> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Two harnesses of one workspace build one after the other, and the second finds all built.
    let lock = File::open(&folder)?;
    lock.lock()?;
    let outdated: Vec<_> = MODULES.iter().filter(|module| !module.is_built()).collect();
    if outdated.is_empty() {
        return Ok(());
    }
    package::install(PACKAGES)?;
    check_go().map_err(anyhow::Error::msg)?;
    let names: Vec<_> = outdated.iter().map(|module| module.name).collect();
    println!("building {} from source (once; later runs skip this)", names.join(", "));
    outdated.into_iter().try_for_each(Module::build)
}

/// Waits for a lock of this workspace, which the file returned holds: threads wait for each other as processes do. Locks are not
/// kept with the clusters, which leave nothing behind.
pub fn lock(name: &str) -> Result<File> {
    let folder = folder().join("locks");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = File::create(folder.join(name))?;
    file.lock()?;
    Ok(file)
}

/// The shared library of `tests/peers/NAME.c`, for `LD_PRELOAD`.
pub fn preload(name: &str) -> Result<PathBuf> {
    let library = folder().join(name).with_extension("so");
    compile(&library, &workspace().join("tests/peers").join(name).with_extension("c"))?;
    Ok(library)
}

/// Compiles `source` to the shared library `library` unless that is done. Guests boot at the same time, and none may load a
/// library that is half written.
fn compile(library: &Path, source: &Path) -> Result<()> {
    let _lock = lock("compile")?;
    if !is_newer(library, source) {
        let unfinished = library.with_extension("unfinished");
        run(Command::new("gcc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&unfinished).arg(source))?;
        fs::rename(unfinished, library)?;
    }
    Ok(())
}

/// The folder with a module's sources, from Go's module cache.
pub fn sources(module: &str, path: &str) -> Result<PathBuf> {
    let mut command = go(module);
    Ok(run(command.args(["list", "-m", "-f", "{{.Dir}}", path]))?.trim().into())
}

/// Says in plain words what is wrong with the machine's Go. It is not taken from Debian, whose Go is too old for this.
///
/// # Errors
/// When there is none, or it is too old.
pub fn check_go() -> Result<(), String> {
    let found = run(go_program().args(["env", "GOVERSION"]));
    let version =
        found.map_err(|_| "Go is missing: install Go 1.26 from https://go.dev/dl into /usr/local/go".to_owned())?;
    let numbers = version.trim().trim_start_matches("go");
    let minor: u32 = number(numbers, 1).parse().unwrap_or(0);
    if minor < OLDEST_GO {
        return Err(format!("Go {numbers} is too old: install Go 1.26 from https://go.dev/dl into /usr/local/go"));
    }
    Ok(())
}

/// The caller's Go, or else the one where its archive is unpacked.
fn go_program() -> Command {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders).map(|folder| folder.join("go")).find(|path| path.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| GO.into()));
    command.env("GOTOOLCHAIN", "auto");
    command
}

impl Module {
    fn path(&self) -> PathBuf {
        workspace().join("tests/cluster/modules").join(self.name)
    }

    fn stamp(&self) -> PathBuf {
        folder().join("stamps").join(self.name)
    }

    fn is_built(&self) -> bool {
        let stamp = fs::read(self.stamp()).ok().and_then(|bytes| serde_json::from_slice::<Stamp>(&bytes).ok());
        stamp.is_some_and(|stamp| {
            self.sources().is_ok_and(|sources| sources == stamp.sources)
                && stamp.programs.iter().all(|program| folder().join(program).exists())
        })
    }

    /// All that decides about the bytes of the programs.
    fn sources(&self) -> Result<String> {
        let read = |file: &str| {
            let path = self.path().join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(format!("cgo {} tags {:?}\n{}\n{}", self.cgo, self.tags, read("go.mod")?, read("go.sum")?))
    }

    fn build(&self) -> Result<()> {
        let began = Instant::now();
        let folder = folder();
        let module: GoMod = serde_json::from_str(&run(go(self.name).args(["mod", "edit", "-json"]))?)?;
        let packages: Vec<_> = module.tool.iter().map(|tool| tool.path.as_str()).collect();
        // A module with one program gives it its own name: the package of etcd is called "server".
        let (out, programs) = match packages.as_slice() {
            [_] => {
                let program = Path::new(self.folder).join(self.name);
                (folder.join(&program), vec![program])
            }
            packages => {
                let names = packages.iter().map(|path| path.rsplit('/').next().unwrap_or(path));
                let programs = names.map(|name| Path::new(self.folder).join(name)).collect();
                // With a slash at its end, `-o` is a folder.
                (folder.join(self.folder).join(""), programs)
            }
        };
        let mut flags = "-s -w".to_owned();
        if let Some((path, variables)) = self.version {
            let required = module.require.iter().find(|require| require.path == path);
            let version = &required.with_context(|| format!("{} does not require {path}", self.name))?.version;
            for variable in variables {
                flags += &format!(" -X {}={}", variable.name, (variable.value)(version));
            }
        }
        let mut command = go(self.name);
        command.env("CGO_ENABLED", if self.cgo { "1" } else { "0" });
        command.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-tags", self.tags]);
        command.args(["-ldflags", &flags, "-o"]).arg(&out).args(&packages);
        attend(self.name, command, folder.join("log").join(self.name))?;
        let stamp = Stamp { sources: self.sources()?, programs };
        fs::create_dir_all(folder.join("stamps"))?;
        fs::write(self.stamp(), serde_json::to_vec(&stamp)?)?;
        println!("  {} built in {} s", self.name, began.elapsed().as_secs());
        Ok(())
    }
}

/// The Go command in a module's folder, free of the caller's own flags and workspace.
fn go(module: &str) -> Command {
    let mut command = go_program();
    command.current_dir(workspace().join("tests/cluster/modules").join(module));
    command.env("GOFLAGS", "").env("GOWORK", "off").env_remove("GOOS").env_remove("GOARCH");
    command
}

/// One of the numbers of a version such as `v1.37.2`.
fn number(version: &str, position: usize) -> String {
    version.trim_start_matches('v').split('.').nth(position).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn every_module_has_its_files_and_no_other_folder_is_there() {
        let folders = fs::read_dir(workspace().join("tests/cluster/modules")).unwrap();
        let mut found: Vec<_> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        let mut known: Vec<_> = MODULES.iter().map(|module| module.name).collect();
        known.sort_unstable();
        assert_eq!(found, known);
        for module in MODULES {
            assert!(module.sources().unwrap().contains("tool"), "{}", module.name);
        }
    }

    #[test]
    fn a_hash_is_the_same_in_every_build_and_differs_by_path() {
        let hash = |path: &str| short_hash(&[OsStr::new(path)]);
        assert_eq!(hash("foobar"), 0x46f4);
        assert_ne!(hash("/one/target"), hash("/two/target"));
    }

    #[test]
    fn the_parts_of_a_version_are_its_numbers() {
        assert_eq!((number("v1.37.2", 0), number("v1.37.2", 1)), ("1".to_owned(), "37".to_owned()));
    }

    #[test]
    fn guests_that_boot_at_the_same_time_all_find_the_library_whole() {
        let folder = env::temp_dir().join(format!("towline-compile-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (library, source) = (folder.join("answer.so"), folder.join("answer.c"));
        fs::write(&source, "int answer(void) { return 42; }\n").unwrap();
        let sizes: Vec<u64> = thread::scope(|scope| {
            let compile = || {
                compile(&library, &source).unwrap();
                fs::metadata(&library).unwrap().len()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(compile)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(sizes[0] > 0 && sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
        fs::remove_dir_all(folder).unwrap();
    }
}
