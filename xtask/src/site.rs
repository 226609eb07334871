//! The lab as a folder of static files: the page, and the engine for a tab beside it.

use crate::page::{self, TARGET, bind, brotli, dist, gzip, write_if_changed};
use crate::{build_server, cargo, root, run};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The engine's module.
pub const MODULE: &str = "moslim-tab";
/// What the engine is compiled for: 128-bit lanes, which every browser of today has.
const FEATURES: &str = "-C target-feature=+simd128";
/// Ends of the names of packed files. The page's own are left out, for its files are not the page's in all: they are packed anew.
const PACKED: [&str; 2] = [".br", ".gz"];

/// The trained run beside the page.
const EXAMPLE: &str = "example.moslim-run";

/// `cargo lab site --to DIR`.
pub fn site(rest: &[String]) -> Result<()> {
    match rest {
        [option, to] if option == "--to" => build(Path::new(to), None),
        _ => bail!("the folder to write to is missing: cargo lab site --to DIR"),
    }
}

/// `cargo lab learn --to DIR [--run FILE]`: the site with a trained run beside it, so that a class has a policy to steer from the first
/// minute. Without a file a run of the preset for tabs is trained.
pub fn learn(rest: &[String]) -> Result<()> {
    let (to, file) = match rest {
        [option, to] if option == "--to" => (to, None),
        [option, to, run, file] if option == "--to" && run == "--run" => (to, Some(PathBuf::from(file))),
        _ => bail!("say where to: cargo lab learn --to DIR [--run FILE.moslim-run]"),
    };
    let file = file.map_or_else(train, Ok)?;
    build(Path::new(to), Some(&file))
}

/// Trains the example, and packs it.
fn train() -> Result<PathBuf> {
    let (binary, folder) = (build_server(&[])?, page::target_folder().join("example"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    let file = folder.join(EXAMPLE);
    let mut train = Command::new(&binary);
    train.args(["train", "--preset", "tab", "--device", "cpu", "--run", "example", "--data"]).arg(&folder);
    run(train)?;
    let mut pack = Command::new(&binary);
    pack.args(["runs", "pack", "example", "--data"]).arg(&folder).arg("--to").arg(&file);
    run(pack)?;
    Ok(file)
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

/// Writes the site into `to`, each file with itself packed beside it, and with a trained run where one is given; says how large it is as it is
/// sent.
pub fn build(to: &Path, example: Option<&Path>) -> Result<()> {
    page::build()?;
    let staging = engine()?;
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in std::fs::read_dir(dist()).context("reading the page")? {
        let path = entry?.path();
        let name = path.file_name().context("a file name")?.to_string_lossy().into_owned();
        if path.is_file() && !PACKED.iter().any(|end| name.ends_with(end)) {
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
    let page = if example.is_some() { page.replacen("<html ", "<html data-example ", 1) } else { page };
    files.insert("index.html".into(), page.into_bytes());
    if let Some(example) = example {
        files.insert(EXAMPLE.into(), read(example)?);
    }

    let listed: Vec<String> = files.keys().map(|name| format!("'./{}'", if name == "index.html" { "" } else { name })).collect();
    let version = hash(&files);
    let worker = String::from_utf8(read(&own.join("sw.js"))?)?;
    let worker = worker.replace("/*FILES*/", &listed.join(", ")).replacen("VERSION'", &format!("{version}'"), 1);
    files.insert("sw.js".into(), worker.into_bytes());

    let (mut sent, mut engine) = (0, 0);
    for (name, bytes) in &files {
        let least = put(to, name, bytes, &packers(name))?;
        sent += least;
        if name.starts_with("tab/") {
            engine += least;
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

/// Writes a file of the site, with itself packed beside it; returns how large it is as it is sent. What lies packed beside a file is always
/// that file, wherever a build is cut off: what is packed of another version goes before the file changes, and comes after it.
fn put(to: &Path, name: &str, bytes: &[u8], packers: &[(&str, Packer)]) -> Result<u64> {
    let path = to.join(name);
    let folder = path.parent().context("a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let beside = |end: &str| to.join(format!("{name}{end}"));
    if !std::fs::read(&path).is_ok_and(|old| old == *bytes) {
        for &(end, _) in packers {
            let packed = beside(end);
            match std::fs::remove_file(&packed) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                removed => removed.with_context(|| format!("removing {}", packed.display()))?,
            }
        }
        write_if_changed(&path, bytes)?;
    }
    let mut least = bytes.len() as u64;
    for &(end, pack) in packers {
        let packed = beside(end);
        if !packed.exists() {
            write_if_changed(&packed, &pack(bytes)?)?;
        }
        let size = std::fs::metadata(&packed).with_context(|| format!("reading {}", packed.display()))?.len();
        least = least.min(size);
    }
    Ok(least)
}

/// Packs bytes.
type Packer = fn(&[u8]) -> Result<Vec<u8>>;

/// How a file of the site is packed beside it, so that a host of static files need not do so, and by which ends of its name that is known. A
/// picture is packed already.
fn packers(name: &str) -> Vec<(&'static str, Packer)> {
    let [brotlied, gzipped] = PACKED;
    if name.ends_with(".png") { Vec::new() } else { vec![(brotlied, brotli as Packer), (gzipped, gzip as Packer)] }
}

/// What the files are, in a few characters.
fn hash(files: &BTreeMap<String, Vec<u8>>) -> String {
    // FNV-1a: it tells versions apart and keeps nothing secret.
    let bytes = files.iter().flat_map(|(name, bytes)| name.bytes().chain(bytes.iter().copied()));
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{sum:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_lies_beside_a_file_is_that_file_packed() {
        let bytes = b"WebAssembly ".repeat(1_000);
        let packed: BTreeMap<&str, Vec<u8>> =
            packers("moslim_bg.wasm").into_iter().map(|(end, pack)| (end, pack(&bytes).unwrap())).collect();
        assert_eq!(packed.keys().copied().collect::<Vec<_>>(), PACKED);
        let (mut by_brotli, mut by_gzip) = (Vec::new(), Vec::new());
        brotli::Decompressor::new(packed[".br"].as_slice(), 4096).read_to_end(&mut by_brotli).unwrap();
        flate2::read::GzDecoder::new(packed[".gz"].as_slice()).read_to_end(&mut by_gzip).unwrap();
        assert!(by_brotli == bytes && by_gzip == bytes, "{} and {} bytes", by_brotli.len(), by_gzip.len());
        assert!(packed.values().all(|packed| packed.len() < bytes.len() / 10));
        assert!(packers("a.png").is_empty());
    }

    fn fails(_: &[u8]) -> Result<Vec<u8>> {
        bail!("it is cut off")
    }

    #[test]
    fn a_build_that_is_cut_off_leaves_nothing_packed_of_another_version() {
        let to = std::env::temp_dir().join(format!("moslim-site-{}", std::process::id()));
        let name = "tab/a.js";
        let whole = packers(name);
        // Before the second of the packed files is there.
        let cut = [whole[0], (whole[1].0, fails as Packer)];
        put(&to, name, b"one", &whole).unwrap();
        assert!(put(&to, name, b"two", &cut).is_err());
        put(&to, name, b"one", &whole).unwrap();
        let packed = std::fs::read(to.join("tab/a.js.br")).unwrap();
        let mut text = Vec::new();
        brotli::Decompressor::new(packed.as_slice(), 4096).read_to_end(&mut text).unwrap();
        assert_eq!((text.as_slice(), std::fs::read(to.join(name)).unwrap().as_slice()), (&b"one"[..], &b"one"[..]));
        std::fs::remove_dir_all(to).unwrap();
    }
}
