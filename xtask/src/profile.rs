//! Where the time goes: a flame graph of the bench, by Linux's `perf`.

use crate::{build_server, root, run};
use anyhow::{Context, Result, bail};
use inferno::collapse::Collapse;
use inferno::collapse::perf::Folder;
use inferno::flamegraph::{Options, from_reader};
use std::fs::File;
use std::io::{BufReader, BufWriter, Cursor};
use std::process::{Command, Stdio};

/// What is measured when nothing is said.
const BENCH: [&str; 4] = ["--sizes", "0.72M", "--repetitions", "5"];

/// Runs `moslim-lab bench` with `arguments` under perf and draws where it spends its time.
pub fn flamegraph(arguments: &[String]) -> Result<()> {
    if !Command::new("perf").arg("--version").stdout(Stdio::null()).status().is_ok_and(|s| s.success()) {
        bail!("the flame graph needs perf on the path; on Debian: apt-get install linux-perf");
    }
    let binary = build_server(&[])?;
    let folder = root().join("target").join("profile");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let data = folder.join("perf.data");
    let mut record = Command::new("perf");
    // Stacks are unwound from debug information: optimised code keeps no frame pointers.
    record.args(["record", "-q", "-F", "199", "--call-graph", "dwarf,8192", "-o"]).arg(&data).arg(&binary).arg("bench");
    if arguments.is_empty() {
        record.args(BENCH);
    } else {
        record.args(arguments);
    }
    run(record)?;
    eprintln!("Reading the stacks ...");
    let script = Command::new("perf")
        .args(["script", "--no-inline", "-i"])
        .arg(&data)
        .stderr(Stdio::null())
        .output()
        .context("starting perf script")?;
    let mut folded = Vec::new();
    Folder::default().collapse(BufReader::new(Cursor::new(script.stdout)), &mut folded).context("folding the stacks")?;
    let picture = folder.join("flamegraph.svg");
    let mut options = Options::default();
    options.title = "moslim-lab bench".into();
    let out = BufWriter::new(File::create(&picture).with_context(|| format!("writing {}", picture.display()))?);
    from_reader(&mut options, Cursor::new(folded), out).context("drawing the flame graph")?;
    println!("{}", picture.display());
    Ok(())
}
