//! The page: WebAssembly, glue and static files into `dist/`, compressed, each file replaced only when it changed.

use crate::{cargo, root, run};
use anyhow::{Context, Result};
use brotli::enc::BrotliEncoderParams;
use brotli::enc::backward_references::BrotliEncoderMode;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use wasm_bindgen_cli_support::Bindgen;

pub const TARGET: &str = "wasm32-unknown-unknown";
/// The page's module.
const MODULE: &str = "moslim";

/// The folder that is built in.
pub fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The folder that the page is built into.
pub fn dist() -> PathBuf {
    root().join("dist")
}

/// Makes sure that the compiler can build for the browser.
pub fn ensure_target() -> Result<()> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(root())
        .output()
        .context("starting rustc")?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if output.status.success() && folder.exists() {
        return Ok(());
    }
    eprintln!("Adding the target {TARGET} ...");
    let mut command = Command::new("rustup");
    command.args(["target", "add", TARGET]).current_dir(root());
    run(command).with_context(|| format!("the page needs the target {TARGET}; `rustup target add {TARGET}` adds it"))
}

/// Writes a file unless it holds these bytes already. Returns whether it was written.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(true)
}

/// A script or a style sheet without what is for its readers alone: indentation, empty lines, and comments that have lines of their own. No
/// text in them goes over several lines.
fn lean(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    let Some(text) = std::str::from_utf8(&bytes).ok().filter(|_| name.ends_with(".js") || name.ends_with(".css")) else {
        return bytes;
    };
    let comment = |line: &&str| {
        let script = name.ends_with(".js") && ["//", "/**", "* ", "*/"].iter().any(|mark| line.starts_with(mark));
        line.is_empty() || script || (line.starts_with("/*") && line.ends_with("*/") && line.matches("*/").count() == 1)
    };
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !comment(line)).collect();
    (lines.join("\n") + "\n").into_bytes()
}

pub fn brotli(bytes: &[u8]) -> Result<Vec<u8>> {
    // The bytes of WebAssembly are best foretold by those before them as signed numbers, which the encoder does not find out by itself.
    let mode = if bytes.starts_with(b"\0asm") {
        BrotliEncoderMode::BROTLI_FORCE_SIGNED_PRIOR
    } else {
        BrotliEncoderMode::BROTLI_MODE_GENERIC
    };
    let params = BrotliEncoderParams { mode, quality: 11, lgwin: 22, size_hint: bytes.len(), ..Default::default() };
    let mut out = Vec::new();
    brotli::BrotliCompress(&mut &bytes[..], &mut out, &params)?;
    Ok(out)
}

pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(bytes)?;
    Ok(writer.finish()?)
}

/// Length of the hash at the end of an import's name.
const HASH: usize = 16;

/// A module and its script with a count in place of the hash at the end of each import's name: of as many digits, so that nothing moves.
/// A hash cannot be compressed, and stands in both files: the page is four kilobytes smaller for it.
fn count_imports(script: &str, mut module: Vec<u8>) -> (String, Vec<u8>) {
    let is_hash = |text: &str| text.len() == HASH && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let names = script.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|name| name.starts_with("__wbg_"));
    let hashed = names.filter(|name| name.rsplit_once('_').is_some_and(|(_, hash)| is_hash(hash)));
    let marked = |bytes: &[u8], at: &usize| bytes[*at..].starts_with(b"__wbg_");
    let places: Vec<usize> = (0..module.len()).filter(|at| marked(&module, at)).collect();
    let mut text = script.to_string();
    for (n, name) in hashed.collect::<BTreeSet<_>>().into_iter().enumerate() {
        let counted = format!("{}{n:0HASH$}", &name[..name.len() - HASH]);
        text = text.replace(name, &counted);
        for &at in places.iter().filter(|&&at| module[at..].starts_with(name.as_bytes())).collect::<Vec<_>>() {
            module[at..at + name.len()].copy_from_slice(counted.as_bytes());
        }
    }
    (text, module)
}

/// Binds a module that was built with `profile` to JavaScript, unless it is the one that was bound last. Returns the folder with the
/// result.
pub fn bind(profile: &str, name: &str) -> Result<PathBuf> {
    let target = target_folder();
    let wasm = target.join(TARGET).join(profile).join(format!("{name}.wasm"));
    let module = std::fs::read(&wasm).with_context(|| format!("reading {}", wasm.display()))?;
    let staging = target.join("page").join(name);
    let bound = staging.join("bound.wasm");
    if !std::fs::read(&bound).is_ok_and(|old| old == module) {
        let _ = std::fs::remove_dir_all(&staging);
        Bindgen::new()
            .input_path(&wasm)
            .out_name(name)
            .web(true)?
            .typescript(false)
            .remove_producers_section(true)
            .remove_name_section(true)
            .generate(&staging)
            .context("binding the page's WebAssembly")?;
        let (script, code) = (staging.join(format!("{name}.js")), staging.join(format!("{name}_bg.wasm")));
        let (script_text, code_bytes) = count_imports(&std::fs::read_to_string(&script)?, std::fs::read(&code)?);
        std::fs::write(script, script_text)?;
        std::fs::write(code, code_bytes)?;
        std::fs::write(&bound, &module)?;
    }
    Ok(staging)
}

/// Every component is of one type to those around it: a sixth of the page's bytes are saved, and some of the time to build it.
const ERASED: &str = "--cfg erase_components";

/// Builds the page into `dist/`.
pub fn build() -> Result<()> {
    ensure_target()?;
    let mut build = cargo(&["build", "--package", "moslim-frontend", "--target", TARGET, "--profile", "wasm"]);
    build.env_remove("RUSTFLAGS").env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", ERASED);
    run(build)?;
    let dist = dist();
    std::fs::create_dir_all(&dist).with_context(|| format!("creating {}", dist.display()))?;

    let staging = bind("wasm", MODULE)?;
    let mut files = vec![staging.join(format!("{MODULE}.js")), staging.join(format!("{MODULE}_bg.wasm"))];
    let statics = root().join("static");
    for entry in std::fs::read_dir(&statics).with_context(|| format!("reading {}", statics.display()))? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    let mut expected = BTreeSet::new();
    let mut sent = 0;
    for file in files {
        let name = file.file_name().context("a file name")?.to_string_lossy().into_owned();
        let bytes = lean(&name, std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?);
        let packed = dist.join(format!("{name}.br"));
        if write_if_changed(&dist.join(&name), &bytes)? || !packed.exists() {
            write_if_changed(&packed, &brotli(&bytes)?)?;
            write_if_changed(&dist.join(format!("{name}.gz")), &gzip(&bytes)?)?;
        }
        // Only who reads Chinese is sent the dictionary.
        if !name.ends_with(".png") && name != "zh.json" {
            sent += std::fs::metadata(&packed)?.len();
        }
        expected.extend([name.clone(), format!("{name}.br"), format!("{name}.gz")]);
    }
    for entry in std::fs::read_dir(&dist)? {
        let entry = entry?;
        if !expected.contains(entry.file_name().to_string_lossy().as_ref()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    eprintln!("The page is {:.1} KB as sent (brotli).", sent as f64 / 1000.0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_counted_alike_in_both_files_and_nothing_moves() {
        let script = "__wbg_log_0123456789abcdef: f, __wbg_log_fedcba9876543210: g, __wbg_free: h, x_0123456789abcdef";
        let module = b"\x1a__wbg_log_fedcba9876543210\0\x1a__wbg_log_0123456789abcdef\x01x_0123456789abcdef".to_vec();
        let (text, code) = count_imports(script, module);
        let first = "__wbg_log_0000000000000000: f, __wbg_log_0000000000000001: g, __wbg_free: h, x_0123456789abcdef";
        assert_eq!(text, first);
        let second = b"\x1a__wbg_log_0000000000000001\0\x1a__wbg_log_0000000000000000\x01x_0123456789abcdef";
        assert_eq!(code, second);
    }
}
