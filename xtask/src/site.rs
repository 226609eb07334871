//! The lab as a folder of static files: the page, and the engine for a tab beside it.

use crate::page::{self, TARGET, bind, brotli, dist, write_if_changed};
use crate::{cargo, root, run};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The engine's module.
pub const MODULE: &str = "moslim-tab";
/// What the engine is compiled for: 128-bit lanes, which every browser of today has.
const FEATURES: &str = "-C target-feature=+simd128";
/// Files of the page that the site has no use for.
const SERVER_ONLY: [&str; 2] = [".br", ".gz"];

/// `cargo lab site --to DIR`.
pub fn site(rest: &[String]) -> Result<()> {
    match rest {
        [option, to] if option == "--to" => build(Path::new(to)),
        _ => bail!("the folder to write to is missing: cargo lab site --to DIR"),
    }
}

/// Builds the engine for a tab.
fn engine() -> Result<PathBuf> {
    let mut build = cargo(&["build", "--package", MODULE, "--target", TARGET, "--profile", "tab"]);
    build.env_remove("RUSTFLAGS").env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", FEATURES);
    run(build)?;
    bind("tab", MODULE)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Writes the site into `to`, and says how large it is as it is sent.
pub fn build(to: &Path) -> Result<()> {
    page::build()?;
    let staging = engine()?;
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in std::fs::read_dir(dist()).context("reading the page")? {
        let path = entry?.path();
        let name = path.file_name().context("a file name")?.to_string_lossy().into_owned();
        if path.is_file() && !SERVER_ONLY.iter().any(|end| name.ends_with(end)) {
            files.insert(name, read(&path)?);
        }
    }
    for name in [format!("{MODULE}.js"), format!("{MODULE}_bg.wasm")] {
        files.insert(format!("tab/{name}"), read(&staging.join(&name))?);
    }
    let own = root().join("frontend").join("tab");
    files.insert("tab/worker.js".into(), read(&own.join("worker.js"))?);
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        files.insert(format!("{licence}.txt"), read(&root().join(licence))?);
    }
    let page = String::from_utf8(files.remove("index.html").context("the page has no index.html")?)?;
    // Any sub-folder: every address begins where the page lies.
    let page = page.replace("=\"/", "=\"./").replace("<html ", "<html data-source=\"tab\" ");
    files.insert("index.html".into(), page.into_bytes());

    let listed: Vec<String> = files.keys().map(|name| format!("'./{}'", if name == "index.html" { "" } else { name })).collect();
    let version = hash(&files);
    let worker = String::from_utf8(read(&own.join("sw.js"))?)?;
    let worker = worker.replace("/*FILES*/", &listed.join(", ")).replacen("VERSION'", &format!("{version}'"), 1);
    files.insert("sw.js".into(), worker.into_bytes());

    let (mut sent, mut engine) = (0, 0);
    for (name, bytes) in &files {
        let path = to.join(name);
        let folder = path.parent().context("a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        write_if_changed(&path, bytes)?;
        let packed = if name.ends_with(".png") { bytes.len() } else { brotli(bytes)?.len() };
        sent += packed;
        if name.starts_with("tab/") {
            engine += packed;
        }
    }
    eprintln!(
        "The site is in {}: {:.2} MB as sent (brotli), {:.2} MB of them the engine.",
        to.display(),
        sent as f64 / 1e6,
        engine as f64 / 1e6
    );
    Ok(())
}

/// What the files are, in a few characters.
fn hash(files: &BTreeMap<String, Vec<u8>>) -> String {
    // FNV-1a: it tells versions apart and keeps nothing secret.
    let bytes = files.iter().flat_map(|(name, bytes)| name.bytes().chain(bytes.iter().copied()));
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{sum:016x}")
}
