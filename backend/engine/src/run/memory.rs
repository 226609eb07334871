//! Whether a run fits into this machine's memory, before anything of it is built.

use moslim_shared::config::cost::memory_mib;
use moslim_shared::config::{DeviceChoice, Problem, RunConfig};

/// Memory that programs can still have here, MiB: what the system has left, or this process's control group if that is less. `None` where
/// the system does not tell.
pub fn available_mib() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let system = read("/proc/meminfo").and_then(|text| kibibytes(&text, "MemAvailable:")).map(|kib| kib / 1024);
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max").zip(number("/sys/fs/cgroup/memory.current"));
    let group = group.map(|(most, used)| most.saturating_sub(used) >> 20);
    system.into_iter().chain(group).min()
}

/// A line of `/proc/meminfo`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok())
}

/// Why a run on the lab's own models does not fit, with both figures; `None` where it does, or where that is not known: an
/// off-the-shelf model's size is in its files, and a graphics card has memory of its own.
pub fn problem(config: &RunConfig) -> Option<Problem> {
    let own = config.base.model.is_empty() && matches!(config.device, DeviceChoice::Auto | DeviceChoice::Cpu);
    own.then(|| available_mib().and_then(|free| too_large(memory_mib(config), free))).flatten()
}

fn too_large(needed: u64, free: u64) -> Option<Problem> {
    (needed > free).then(|| Problem {
        field: "model.d_model".into(),
        message: format!("makes models that need about {needed} MiB of memory, and {free} MiB are free here"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::presets;

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        assert_eq!(kibibytes("MemTotal:       2 kB\nMemAvailable:   24117248 kB\n", "MemAvailable:"), Some(24_117_248));
        assert_eq!(kibibytes("MemAvailable:", "MemAvailable:"), None);
        assert!(too_large(100, 100).is_none());
        let message = too_large(101, 100).unwrap().message;
        assert!(message.contains("101 MiB") && message.contains("100 MiB"), "{message}");
        let mut config = presets::find("quick").unwrap().config;
        assert_eq!(problem(&config), None);
        // Thirteen billion weights.
        (config.model.layers, config.model.d_model, config.model.d_ff) = (64, 4096, 16_384);
        if available_mib().is_some_and(|free| free < 500_000) {
            assert_eq!(problem(&config).unwrap().field, "model.d_model");
        }
        config.base.model = "some".into();
        assert_eq!(problem(&config), None);
    }
}
