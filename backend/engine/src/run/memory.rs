//! Whether a run fits into this machine's memory, before anything of it is built.

use moslim_shared::config::cost::memory_mib;
use moslim_shared::config::{DeviceChoice, Precision, Problem, RunConfig};

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

/// Memory that the machine has, or this process's control group if that is less, MiB. `None` where the system does not tell.
pub fn total_mib() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let system = read("/proc/meminfo").and_then(|text| kibibytes(&text, "MemTotal:")).map(|kib| kib / 1024);
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<u64>().ok()).map(|bytes| bytes >> 20);
    system.into_iter().chain(group).min()
}

/// Memory that this process takes, MiB. `None` where the system does not tell.
pub fn taken_mib() -> Option<u64> {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|text| kibibytes(&text, "VmRSS:")).map(|kib| kib / 1024)
}

/// A line of `/proc/meminfo`, or of a process's status.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok())
}

/// Memory of an off-the-shelf model's weights, MiB, kept as the configuration has it.
pub fn weights_mib(weights: u64, kept: Precision) -> u64 {
    let bytes = if kept == Precision::Bf16 { 2 } else { 4 };
    weights.saturating_mul(bytes) >> 20
}

/// The weights of the off-the-shelf model that a run begins with, by what the lab keeps of it; `None` where it begins with none, or with
/// one that is not known, which is refused elsewhere.
pub fn weights_of(config: &RunConfig, read: &dyn Fn(&str) -> std::io::Result<Option<Vec<u8>>>) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Kept {
        weights: u64,
    }
    let name = &config.base.model;
    let plain = !name.is_empty() && !name.contains(['/', '\\']);
    let bytes = plain.then(|| read(&format!("models/{name}/model.json")).ok().flatten()).flatten()?;
    serde_json::from_slice(&bytes).ok().map(|kept: Kept| kept.weights)
}

/// Why a run does not fit, with both figures; `None` where it does, or where that is not known: a graphics card has memory of its own.
/// `weights`: those of its off-the-shelf model, if it has one. Policy, reference and reward model share them, so that it needs them once,
/// and this is the least that it needs.
pub fn problem(config: &RunConfig, weights: Option<u64>) -> Option<Problem> {
    let here = matches!(config.device, DeviceChoice::Auto | DeviceChoice::Cpu);
    let free = available_mib().filter(|_| here)?;
    match weights {
        None if config.base.model.is_empty() => too_large(memory_mib(config), free),
        None => None,
        Some(weights) => {
            let needed = weights_mib(weights, config.base.weights);
            (needed > free).then(|| Problem {
                field: "base.model".into(),
                message: format!("has weights that need {needed} MiB of memory, and {free} MiB are free here"),
            })
        }
    }
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
        assert_eq!(problem(&config, None), None);
        // Thirteen billion weights.
        (config.model.layers, config.model.d_model, config.model.d_ff) = (64, 4096, 16_384);
        if available_mib().is_some_and(|free| free < 500_000) {
            assert_eq!(problem(&config, None).unwrap().field, "model.d_model");
        }
        config.base.model = "some".into();
        assert_eq!(problem(&config, None), None);
        if available_mib().is_some_and(|free| free < 500_000) {
            let found = problem(&config, Some(1_000_000_000_000)).unwrap();
            assert!(found.field == "base.model" && found.message.contains("3814697 MiB"), "{}", found.message);
        }
        let kept = |path: &str| Ok((path == "models/some/model.json").then(|| br#"{"name": "some", "weights": 7}"#.to_vec()));
        assert_eq!(weights_of(&config, &kept), Some(7));
        config.base.model = "../some".into();
        assert_eq!(weights_of(&config, &kept), None);
        config.base.model.clear();
        assert_eq!(weights_of(&config, &kept), None);
    }
}
