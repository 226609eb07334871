//! How much memory there is, and how much was used.

/// Free bytes of the memory of the device called `name`; `None` where the driver does not tell.
pub fn free_memory(name: &str) -> Option<u64> {
    if name != "cuda" {
        return None;
    }
    // The first device that this process may use is the one it computes on.
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let first = visible.split(',').map(str::trim).find(|id| !id.is_empty()).unwrap_or("0");
    let output = std::process::Command::new("nvidia-smi")
        .args(["--query-gpu=memory.free", "--format=csv,noheader,nounits"])
        .arg(format!("--id={first}"))
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    let mib: u64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
    Some(mib << 20)
}

/// Most memory that this process has held so far, MiB; 0 where the system does not tell.
pub fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
