//! Whose the files are that the program writes: their owner's alone, wherever they lie.
#![cfg(target_os = "linux")]

use anyhow::{Result, ensure};
use moslim_tests::{LIMIT, Lab, Process, binary, signal, smoke, text, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes a program of a line of shell; another process writes it, because a file that this one has open for writing while another test
/// starts a child cannot be started.
fn script(path: &Path, line: &str) -> Result<()> {
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let written = Command::new("sh").args(["-c", write, text(path), line]).status()?;
    ensure!(written.success(), "{} cannot be written", path.display());
    Ok(())
}

/// The program as somebody starts it whose files are everybody's.
fn open_handed(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("moslim-lab");
    script(&path, &format!("umask 0; exec '{}' \"$@\"", text(&binary())))?;
    Ok(path)
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::symlink_metadata(path)?.permissions().mode() & 0o777)
}

/// Everything under a folder, and itself.
fn all(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![folder.to_path_buf()];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => found.extend(all(&entry.path())?),
            false => found.push(entry.path()),
        }
    }
    Ok(found)
}

#[tokio::test]
async fn the_folder_is_its_owners_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (program, copy) = (open_handed(folder.path())?, folder.path().join("backup"));
    let lab = Lab::start_from(&program).await;
    let id = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&id).await;
    let args = ["backup", "--to", text(&copy), "--data", text(lab.data())];
    let backup = Process::start(&program, &args, "").wait();
    ensure!(backup.code == Some(0), "{}", backup.stderr);
    let mut open = Vec::new();
    for place in [lab.data(), &copy] {
        for path in all(place)? {
            // What passes while the server works may be gone by now.
            let Ok(mode) = mode(&path) else { continue };
            if mode & 0o077 != 0 {
                open.push(format!("{} {mode:o}", path.display()));
            }
        }
    }
    ensure!(open.is_empty(), "others can have:\n{}", open.join("\n"));
    // It was looked at, and is what it should be.
    for (path, wanted) in [("", 0o700), ("token", 0o600), ("cookie-key", 0o600), ("index.db", 0o600)] {
        ensure!(mode(&lab.data().join(path))? == wanted, "{path}: {:o}", mode(&lab.data().join(path))?);
    }
    for place in [lab.data(), &copy] {
        let journal = place.join("runs").join(&id).join("events.jsonl");
        ensure!(mode(&journal)? == 0o600, "{}", journal.display());
    }
    let command = fs::read(format!("/proc/{}/cmdline", lab.pid())).unwrap_or_default();
    ensure!(!String::from_utf8_lossy(&command).contains(lab.token()), "everybody can read what a program was called with");
    Ok(())
}

#[tokio::test]
async fn a_folder_that_is_open_to_its_group_alone_is_said_to_be_open() -> Result<()> {
    for (mode, said) in [(0o700, false), (0o750, true), (0o755, true)] {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode))?;
        let lab = Lab::start_in(folder.path()).await;
        ensure!(lab.stderr().contains("chmod 700") == said, "{mode:o}: {}", lab.stderr());
    }
    Ok(())
}

/// The file that takes a browser to the page has the token in it.
#[tokio::test]
async fn what_a_browser_is_opened_with_is_private_and_does_not_stay() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (program, data, seen) = (open_handed(folder.path())?, folder.path().join("data"), folder.path().join("seen"));
    // In the place of what opens a browser: it keeps what it is given.
    let browser = folder.path().join("bin");
    fs::create_dir(&browser)?;
    let reads = format!("stat -c %a \"$1\" > '{0}.part'; cat \"$1\" >> '{0}.part'; mv '{0}.part' '{0}'", text(&seen));
    script(&browser.join("xdg-open"), &reads)?;
    let path = format!("{}:{}", text(&browser), std::env::var("PATH").unwrap_or_default());
    let start = |more: &[&str]| {
        let args = [&["serve", "--port", "0", "--data", text(&data)], more].concat();
        Process::start_in(&program, &args, "", &[("PATH", path.as_str()), ("DISPLAY", ":0")])
    };
    let opening = data.join("open.html");
    let mut server = start(&["--open"]);
    let said = wait_until("the browser", || fs::read_to_string(&seen).ok()).await;
    let token = fs::read_to_string(data.join("token"))?;
    ensure!(said.starts_with("600\n") && said.contains(token.trim()), "{said}");
    ensure!(signal(server.pid(), "TERM") && server.wait_at_most(LIMIT).code == Some(0), "{}", server.stderr());
    ensure!(!opening.exists(), "it outlives the server");
    // Nor does it outlive one that was killed for longer than until the next one.
    fs::remove_file(&seen)?;
    let mut server = start(&["--open"]);
    wait_until("the browser", || seen.exists().then_some(())).await;
    server.kill();
    ensure!(opening.exists(), "there is nothing to take away");
    let server = start(&[]);
    wait_until("the server to be ready", || server.stdout().contains("ready").then_some(())).await;
    wait_until("the file to go", || (!opening.exists()).then_some(())).await;
    Ok(())
}
