//! What a process takes of its machine, as Linux tells it in `/proc`.

use std::fs;

/// A file about a process.
fn told(pid: u32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_else(|error| panic!("process {pid} tells nothing: {error}"))
}

/// Seconds of processor that a process has had in all its threads, without its children; known to a hundredth.
///
/// # Panics
/// When there is no such process.
pub fn processor(pid: u32) -> f64 {
    let status = told(pid, "stat");
    // Its 14th and 15th field, in hundredths. The second one, its name, may hold anything up to the last `)`.
    let (_, fields) = status.rsplit_once(')').expect("a name in parentheses");
    let hundredths = fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number"));
    hundredths.sum::<u64>() as f64 / 100.0
}

/// Memory that a process has, MiB.
///
/// # Panics
/// When there is no such process.
pub fn resident(pid: u32) -> f64 {
    let status = told(pid, "status");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
    kib.expect("its memory") / 1024.0
}

/// Files that a process has open.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
