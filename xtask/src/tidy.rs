//! `cargo lab tidy`: the walls of the house, as ARCHITECTURE.md describes them, checked.
//!
//! Here belongs what can be said of the sources without running them. What the compiler or clippy says already does not.

mod graph;
mod sources;

use crate::{cargo, page, root, run};
use anyhow::{Context, Result, bail};
use sources::{Krate, Source};
use std::path::Path;

/// Crates of the workspace: name, folder, and which of ours they may use.
const CRATES: &[(&str, &str, &[&str])] = &[
    ("moslim-shared", "shared", &[]),
    ("moslim-engine", "backend/engine", &["moslim-shared"]),
    ("moslim-charts", "frontend/charts", &["moslim-shared"]),
    ("moslim-import", "backend/import", &["moslim-shared", "moslim-engine"]),
    ("moslim-server", "backend/server", &["moslim-shared", "moslim-engine", "moslim-import", "moslim-charts"]),
    ("moslim-frontend", "frontend", &["moslim-shared", "moslim-charts"]),
    ("moslim-tab", "frontend/tab", &["moslim-shared", "moslim-engine"]),
    ("moslim-tests", "tests", &["moslim-shared"]),
    ("xtask", "xtask", &["moslim-shared"]),
];

/// What a crate must not name, and why.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("moslim-server", &["burn", "burn_flex", "burn_store", "gemm"], "no tensors in the server"),
    (
        "moslim-engine",
        &["axum", "hyper", "reqwest", "tokio", "sqlx", "tower_http", "std::net"],
        "no HTTP and no SQL in the engine",
    ),
    (
        "moslim-shared",
        &["std::fs", "std::net", "std::process", "std::env", "std::thread", "std::time", "burn", "tokio", "web_sys"],
        "no file, socket, process, clock, tensor or browser in shared",
    ),
    ("moslim-import", &["burn", "axum", "tokio", "hf_hub", "ureq", "std::net"], "an import reads files and nothing else"),
    ("moslim-charts", &["std::fs", "std::net", "web_sys", "js_sys", "leptos"], "a chart is a pure drawing from plain data"),
    ("moslim-frontend", &["burn", "moslim_engine", "moslim_server", "tokio"], "the page speaks to a source and computes nothing"),
];

/// Longest file, lines.
const MOST_LINES: usize = 500;
/// Files that are tables of data.
const DATA: &[&str] = &["backend/engine/src/data/world/topics.rs", "shared/src/config/settings"];

/// A concrete backend may be named only in the files that ARCHITECTURE.md lists after these words.
const BACKENDS_LISTED: &str = "Concrete backends are named in";

/// Checks everything; lists all that is wrong.
///
/// # Errors
/// When something is.
pub fn tidy() -> Result<()> {
    let mut wrong: Vec<String> = Vec::new();
    for (name, folder, may_use) in CRATES {
        let folder = root().join(folder);
        if !folder.join("Cargo.toml").exists() {
            continue;
        }
        let krate = Krate::read(name, &folder)?;
        check_dependencies(&krate, may_use, &mut wrong)?;
        check_names(&krate, &mut wrong);
        for circle in graph::circles(&krate) {
            wrong.push(format!("{name}: modules use each other in a circle: {}", circle.join(" -> ")));
        }
        for source in &krate.sources {
            check_file(source, &mut wrong);
        }
    }
    check_backends(&mut wrong)?;
    if !wrong.is_empty() {
        wrong.iter().for_each(|line| eprintln!("{line}"));
        bail!("{} walls are broken", wrong.len());
    }
    page::ensure_target()?;
    let mut wasm = cargo(&["check", "--locked", "--package", "moslim-tab", "--target", page::TARGET]);
    wasm.env_remove("RUSTFLAGS");
    run(wasm).context("the engine must build for a browser")?;
    eprintln!("The walls hold.");
    Ok(())
}

/// Only the arrows that are drawn.
fn check_dependencies(krate: &Krate, may_use: &[&str], wrong: &mut Vec<String>) -> Result<()> {
    let file = krate.folder.join("Cargo.toml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let ours = text.lines().filter_map(|l| l.split(['.', ' ', '=']).next()).filter(|n| n.starts_with("moslim-"));
    for used in ours.filter(|n| *n != krate.name) {
        if !may_use.contains(&used) {
            wrong.push(format!("{}: must not use {used}", krate.name));
        }
    }
    Ok(())
}

fn check_names(krate: &Krate, wrong: &mut Vec<String>) {
    for (_, names, why) in FORBIDDEN.iter().filter(|(of, ..)| *of == krate.name) {
        for source in &krate.sources {
            for (path, line) in &source.paths {
                let hit = names.iter().find(|n| path == *n || path.starts_with(&format!("{n}::")));
                if let Some(name) = hit {
                    wrong.push(format!("{}:{line}: names {name}; {why}", source.shown));
                }
            }
        }
    }
}

fn check_file(source: &Source, wrong: &mut Vec<String>) {
    let data = DATA.iter().any(|d| source.shown.starts_with(d));
    if source.lines > MOST_LINES && !data {
        wrong.push(format!("{}: has {} lines; which two rooms is it?", source.shown, source.lines));
    }
    let room = source.shown.ends_with("/mod.rs") || source.shown.ends_with("/lib.rs");
    if room && !source.begins_with_comment {
        wrong.push(format!("{}: a room says first what belongs in it (//!)", source.shown));
    }
}

/// Concrete backends only where ARCHITECTURE.md says.
fn check_backends(wrong: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?;
    let Some((_, list)) = text.split_once(BACKENDS_LISTED) else {
        wrong.push(format!("ARCHITECTURE.md: does not say \"{BACKENDS_LISTED} ...\""));
        return Ok(());
    };
    let list = list.split(" alone").next().unwrap_or_default();
    let listed: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    let folder = root().join("backend/engine");
    for source in &Krate::read("moslim-engine", &folder)?.sources {
        let allowed = listed.iter().any(|l| source.shown.strip_prefix("backend/engine/src/").is_some_and(|s| s.starts_with(l)));
        let concrete = |p: &str| {
            let last = p.rsplit("::").next().unwrap_or_default();
            p.starts_with("burn::backend") && ["Flex", "Cuda", "Wgpu", "CudaDevice", "WgpuDevice"].contains(&last)
                || p.starts_with("burn_flex")
        };
        if let Some((path, line)) = source.paths.iter().find(|(p, _)| concrete(p)).filter(|_| !allowed) {
            wrong.push(format!("{}:{line}: names {path}, and is not listed in ARCHITECTURE.md", source.shown));
        }
    }
    Ok(())
}

/// A path as messages show it: within the workspace.
fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use crate::root;

    /// A layer of an image keeps all that is copied into it: what is nobody else's, a lab's token included, stays out.
    #[test]
    fn what_git_does_not_keep_is_not_copied_into_an_image() {
        let lines = |name: &str| -> Vec<String> {
            let text = std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_string).collect()
        };
        let left_out = lines(".dockerignore");
        for line in lines(".gitignore").into_iter().chain([".git".into()]) {
            let bare = line.trim_start_matches('/');
            assert!(left_out.iter().any(|own| own == bare || *own == format!("**/{bare}")), ".dockerignore lacks {line}");
        }
    }
}
