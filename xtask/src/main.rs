//! `cargo lab`: set-up, build, start and test, with nothing but rustup and a C compiler.
//!
//!     cargo lab [--backends cpu,cuda,wgpu] [-- SERVE OPTIONS]   open the lab
//!     cargo lab test [--gpu] [--cluster] [--mpi] [--ray] [--model] [--axe] [-- FILTER]  run every test, the browser ones included
//!     cargo lab bench [-- BENCH OPTIONS]                        measure how fast this machine trains
//!     cargo lab bench --tab                                     measure how fast a browser's tab does, beside it
//!     cargo lab bench --frames                                  measure how smoothly pages move
//!     cargo lab bench --cluster                                 measure a hundred runs on a Slurm cluster of this machine
//!     cargo lab bench --server [-- FILTER]                      measure what the server takes under load
//!     cargo lab flamegraph [-- BENCH OPTIONS]                   draw where the bench spends its time
//!     cargo lab soak [TIMES]                                    kills, full disks, locks, flipped bits, TIMES (50) as many as in a test
//!     cargo lab soak --cluster [TIMES]                          kill the controller of a Slurm cluster of this machine TIMES (50) times
//!     cargo lab tidy                                            check the walls: circles, sizes, what may be used where
//!     cargo lab results [--check]                               write docs/results.md from the studies' files and the tables of docs/scale.md, or say what is stale
//!     cargo lab scale [--runs N | --readers N]                  simulate what many runs or readers a day need
//!     cargo lab mutants [CARGO-MUTANTS OPTIONS]                 break formulas one by one and see whether a test notices
//!     cargo lab site --to DIR                                   write the lab as static files that train in the browser's tab
//!     cargo lab learn --to DIR                                  the same, with a trained run beside it, for a class
//!     cargo lab pictures --to DIR                               draw every page, and film the demo
//!     cargo lab moving FOLDER                                   make the first page's moving picture of a finished run
//!     cargo lab page                                            build the page into dist/

mod marked;
mod moving;
mod mutants;
mod page;
mod profile;
mod results;
mod scale;
mod site;
mod system;
mod tidy;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

/// A cargo command in the workspace, without what an outer `cargo run` left in the environment: build scripts that watch
/// such variables would run again for nothing.
fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name == "CARGO_MANIFEST_DIR" || name == "CARGO_MANIFEST_PATH" || name.starts_with("CARGO_PKG_") {
            command.env_remove(name.as_ref());
        }
    }
    command
}

/// Runs a command to its end.
fn run(mut command: Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("starting {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// What was asked for on the command line.
struct Options {
    backends: Option<String>,
    gpu: bool,
    cluster: bool,
    model: bool,
    axe: bool,
    mpi: bool,
    ray: bool,
    rest: Vec<String>,
}

fn options(args: impl Iterator<Item = String>) -> Result<Options> {
    let mut out = Options {
        backends: None,
        gpu: false,
        cluster: false,
        model: false,
        axe: false,
        mpi: false,
        ray: false,
        rest: Vec::new(),
    };
    let mut args = args;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--backends" => out.backends = Some(args.next().context("--backends needs a list such as cpu,cuda")?),
            "--gpu" => out.gpu = true,
            "--cluster" => out.cluster = true,
            "--model" => out.model = true,
            "--axe" => out.axe = true,
            "--mpi" => out.mpi = true,
            "--ray" => out.ray = true,
            "--" => out.rest.extend(args.by_ref()),
            other => match other.strip_prefix("--backends=") {
                Some(list) => out.backends = Some(list.to_string()),
                None => out.rest.push(arg),
            },
        }
    }
    Ok(out)
}

/// Builds `moslim-lab` with some features and returns where it is.
fn build_server(features: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(&["build", "--package", "moslim-server"]);
    if !features.is_empty() {
        command.arg("--features").arg(features.join(","));
    }
    run(command)?;
    Ok(page::target_folder().join("debug").join(format!("moslim-lab{}", std::env::consts::EXE_SUFFIX)))
}

/// Opens the lab.
fn lab(options: Options) -> Result<()> {
    page::build()?;
    let features = system::features(options.backends.as_deref())?;
    let binary = build_server(&features)?;
    let mut command = Command::new(binary);
    command.arg("serve").arg("--open");
    if !options.rest.iter().any(|a| a.starts_with("--data")) {
        command.arg("--data").arg(root().join("lab-data"));
    }
    command.args(&options.rest);
    system::replace_process(command)
}

/// Crates that are built together: their libraries have the same features then, and are built once.
const BACKEND: [&str; 3] = ["moslim-server", "moslim-engine", "moslim-import"];

/// The tests of everything but the backend's crates, which are tested together, and the engine for a tab, which is tested in a tab.
fn system_tests(binary: &Path, site: &Path) -> Command {
    let mut command = cargo(&["test", "--workspace", "--exclude", site::MODULE]);
    for name in BACKEND {
        command.args(["--exclude", name]);
    }
    command.env("MOSLIM_LAB_BIN", binary).env("MOSLIM_LAB_SITE", site);
    command
}

/// Runs every test.
fn test(options: Options) -> Result<()> {
    system::browser()?;
    let site = page::target_folder().join("site");
    site::build(&site, None)?;
    let features = system::features(Some(options.backends.as_deref().unwrap_or("cpu")))?;
    let binary = build_server(&features)?;
    let command = system_tests(&binary, &site);
    let mut backend = cargo(&["test"]);
    for name in BACKEND {
        backend.args(["--package", name]);
    }
    if !features.is_empty() {
        backend.arg("--features").arg(features.iter().map(|f| format!("moslim-engine/{f}")).collect::<Vec<_>>().join(","));
    }
    for mut command in [backend, command] {
        command.args(&options.rest);
        run(command)?;
    }
    if options.gpu {
        test_gpu()?;
    }
    if options.cluster && system::slurm() {
        test_cluster(&binary, &site, "a_cluster_trains_studies")?;
    }
    if options.mpi && system::openmpi() {
        // It takes the place of the program that was built before, so it comes after everything that needs that one.
        let binary = build_server(&["mpi"])?;
        let mut command = system_tests(&binary, &site);
        command.args(["--test", "ranks", "--", "--ignored", "--nocapture"]);
        run(command)?;
        if options.cluster && system::slurm() {
            test_cluster(&binary, &site, "ranks_train_one_run")?;
        }
    }
    let have = |wanted: bool, fetch: fn(&Path) -> Option<PathBuf>, to: &str| {
        if wanted { fetch(&page::target_folder().join(to)) } else { None }
    };
    for (test, variable, file) in [
        ("ray", "MOSLIM_RAY", have(options.ray, system::ray, "ray")),
        ("smollm2", "MOSLIM_SMOLLM2", have(options.model, system::smollm2, "models")),
        ("accessible", "MOSLIM_AXE", have(options.axe, system::axe, "axe")),
    ] {
        let Some(file) = file else { continue };
        let mut command = system_tests(&binary, &site);
        command.args(["--test", test, "--", "--ignored", "--nocapture"]).env(variable, file);
        run(command)?;
    }
    Ok(())
}

/// Studies on a Slurm cluster whose daemons are started on this machine, and stopped again.
fn test_cluster(binary: &Path, site: &Path, name: &str) -> Result<()> {
    run(on_cluster(binary, site, name)?)
}

/// The test of that name, with an empty folder for the daemons.
fn on_cluster(binary: &Path, site: &Path, name: &str) -> Result<Command> {
    let folder = page::target_folder().join("slurm");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let mut command = system_tests(binary, site);
    command.args(["--test", "cluster", name, "--", "--ignored", "--nocapture"]).env("SLURM_CONF", folder.join("slurm.conf"));
    Ok(command)
}

/// What a soak repeats: the tests in which something dies, fills up, is locked, spoilt or cut off.
const SOAKED: [&str; 5] =
    ["again_and_again", "full_for_a_while", "locks_the_index", "a_bit_that_flips", "left_and_taken_up_again"];

/// How many times as long a soak is, where nobody says. Of each that is: 4 kills of the server and 2 of the worker, 2 full disks, 4 flipped bits
/// in every file, 20 clients of each kind of stream that leave and come back; or, on a cluster, 1 kill of its controller. So this makes
/// 200 and 100 kills, 100 full disks, 200 bits in every file (of a dozen) and 1,000 clients of each kind.
const TIMES: u32 = 50;

/// Those tests, as many times as long as asked for; or, on a cluster, the one in which its controller dies.
fn soak(options: &Options) -> Result<()> {
    let times: u32 = match options.rest.first() {
        Some(text) => text.parse().ok().filter(|n| *n > 0).with_context(|| format!("\"{text}\" is no number from 1 on"))?,
        None => TIMES,
    };
    if options.cluster && !system::slurm() {
        bail!("soak --cluster needs Slurm, and root to install and start it");
    }
    let (binary, site) = (build_server(&[])?, page::target_folder().join("site"));
    let mut command = if options.cluster {
        on_cluster(&binary, &site, "a_controller_that_is_killed_again_and_again")?
    } else {
        let mut command = system_tests(&binary, &site);
        let tests = ["--test", "server", "--test", "storage", "--test", "bits", "--test", "feed"];
        command.arg("--no-fail-fast").args(tests).arg("--").args(SOAKED).arg("--nocapture");
        command
    };
    command.env("MOSLIM_SOAK", times.to_string());
    run(command)
}

/// Measures in a browser: how fast a `tab` trains, beside the native program, or how many `frames` pages draw.
fn bench_page(what: &str) -> Result<()> {
    system::browser()?;
    let site = page::target_folder().join("site");
    site::build(&site, None)?;
    let binary = build_server(&[])?;
    let mut command = system_tests(&binary, &site);
    command.args(["--test", what, "--", "--ignored", "--nocapture"]);
    run(command)
}

/// Measures the server under load: what `filter` names, or everything, one after the other. Neither browser nor page is needed.
fn bench_server(filter: &[String]) -> Result<()> {
    let binary = build_server(&[])?;
    let mut command = system_tests(&binary, &page::target_folder().join("site"));
    command.args(["--test", "load", "--", "--ignored", "--nocapture", "--test-threads=1"]).args(filter);
    run(command)
}

/// Draws every page at four sizes and in two colour schemes, and films the demo, into the folder that the arguments name.
fn pictures(rest: &[String]) -> Result<()> {
    let [_, to] = rest else { bail!("cargo lab pictures --to DIR names the folder for the pictures") };
    let to = std::path::absolute(to)?;
    system::browser()?;
    page::build()?;
    let binary = build_server(&[])?;
    let mut command = system_tests(&binary, &page::target_folder().join("site"));
    command.args(["--test", "pictures", "--", "--ignored", "--nocapture"]).env("MOSLIM_PICTURES", &to);
    run(command)?;
    eprintln!("The pictures are in {}.", to.display());
    Ok(())
}

/// Measures how fast this machine trains.
fn bench(options: Options) -> Result<()> {
    if options.rest.iter().any(|arg| arg == "--tab") {
        return bench_page("tab");
    }
    if options.rest.iter().any(|arg| arg == "--frames") {
        return bench_page("frames");
    }
    if options.rest.iter().any(|arg| arg == "--server") {
        let filter: Vec<String> = options.rest.into_iter().filter(|arg| arg != "--server").collect();
        return bench_server(&filter);
    }
    if options.cluster {
        if !system::slurm() {
            bail!("bench --cluster needs Slurm, and root to install and start it");
        }
        // Runs are on the command line alone: no page is asked for.
        return test_cluster(&build_server(&[])?, &page::target_folder().join("site"), "a_hundred_runs_as_one_array");
    }
    let features = system::features(Some(options.backends.as_deref().unwrap_or("cpu")))?;
    let mut command = Command::new(build_server(&features)?);
    command.arg("bench").args(&options.rest);
    system::replace_process(command)
}

/// Compares a few steps on wgpu, on whatever Vulkan adapter there is, with the CPU's numbers.
fn test_gpu() -> Result<()> {
    system::vulkan()?;
    let mut command =
        cargo(&["test", "--package", "moslim-engine", "--features", "wgpu", "--test", "wgpu", "--", "--ignored", "--nocapture"]);
    // Trying many kernels for every shape takes minutes on a software adapter and changes no number.
    command.env("CUBECL_AUTOTUNE_LEVEL", "minimal");
    run(command)
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).peekable();
    match args.peek().map(String::as_str) {
        Some("test") => test(options(args.skip(1))?),
        Some("bench") => bench(options(args.skip(1))?),
        Some("flamegraph") => profile::flamegraph(&options(args.skip(1))?.rest),
        Some("page") => page::build(),
        Some("site") => site::site(&args.skip(1).collect::<Vec<_>>()),
        Some("learn") => site::learn(&args.skip(1).collect::<Vec<_>>()),
        Some("soak") => soak(&options(args.skip(1))?),
        Some("tidy") => tidy::tidy(),
        Some("results") => results::results(args.any(|a| a == "--check")),
        Some("scale") => scale::scale(&options(args.skip(1))?.rest),
        Some("moving") => moving::moving(&options(args.skip(1))?.rest),
        Some("pictures") => pictures(&options(args.skip(1))?.rest),
        Some("mutants") => mutants::mutants(&options(args.skip(1))?.rest),
        Some("help" | "--help" | "-h") => {
            println!("cargo lab [--backends cpu,cuda,wgpu] [-- SERVE OPTIONS]   build everything and open the lab");
            println!("cargo lab test [--gpu] [--backends LIST] [-- FILTER]      run every test; --gpu adds wgpu on Vulkan");
            println!(
                "cargo lab test --cluster                                  the same, and studies on a Slurm cluster of this machine"
            );
            println!(
                "cargo lab test --mpi                                      the same, and runs that several processes train over MPI"
            );
            println!(
                "cargo lab test --ray                                      the same, and studies on a Ray cluster of this machine"
            );
            println!(
                "cargo lab test --model                                    the same, and a real model, which is fetched with pip"
            );
            println!(
                "cargo lab test --axe                                      the same, and axe-core on every page, fetched with pip"
            );
            println!("cargo lab bench [-- BENCH OPTIONS]                        measure how fast this machine trains");
            println!(
                "cargo lab bench --tab                                     measure how fast a browser's tab does, beside it"
            );
            println!("cargo lab bench --frames                                  measure how smoothly pages move");
            println!(
                "cargo lab bench --cluster                                 measure 100 runs on a Slurm cluster of this machine"
            );
            println!("cargo lab bench --server [-- FILTER]                      measure what the server takes under load");
            println!("cargo lab flamegraph [-- BENCH OPTIONS]                   draw where the bench spends its time");
            println!(
                "cargo lab soak [TIMES]                                    kills, full disks, locks, flipped bits, TIMES (50) as many as in a test"
            );
            println!(
                "cargo lab soak --cluster [TIMES]                          kill the controller of a Slurm cluster of this machine TIMES (50) times"
            );
            println!("cargo lab tidy                                            check the walls of ARCHITECTURE.md");
            println!("cargo lab results [--check]                               write docs/results.md from the studies' files");
            println!("cargo lab scale [--runs N | --readers N]                  simulate what N runs or readers a day need");
            println!("cargo lab mutants [CARGO-MUTANTS OPTIONS]                 see whether tests notice wrong formulas");
            println!(
                "cargo lab site --to DIR                                   write the lab as static files that train in the browser's tab"
            );
            println!(
                "cargo lab learn --to DIR [--run FILE]                     the same, with a trained run beside it, for a class"
            );
            println!("cargo lab pictures --to DIR                               draw every page, and film the demo");
            println!("cargo lab moving FOLDER                                   make the first page's moving picture of a run");
            println!("cargo lab page                                            build the page into dist/");
            Ok(())
        }
        _ => lab(options(args)?),
    }
}
