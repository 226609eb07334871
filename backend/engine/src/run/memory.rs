//! Whether a run fits into this machine's memory, before anything of it is built. What it takes is `moslim_shared::memory`'s to say.

use crate::model::architecture::Architecture;
use crate::sums::read_checked;
use moslim_shared::config::{Precision, Problem, RunConfig};
use moslim_shared::event::Stage;
use moslim_shared::memory::{self, Memory, Part, Shape};
use moslim_shared::objective::Objective;

/// Reads a file of the data folder.
pub type Read<'a> = &'a dyn Fn(&str) -> std::io::Result<Option<Vec<u8>>>;

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

/// The shape of a decoder.
pub fn shape(a: &Architecture) -> Shape {
    Shape {
        layers: a.layers,
        d_model: a.d_model,
        d_ff: a.d_ff,
        heads: a.heads,
        kv_heads: a.kv_heads,
        head_dim: a.head_dim,
        vocabulary: a.vocabulary,
        tied: a.tied,
        qk_norm: a.qk_norm,
        tags: 0,
    }
}

/// The shape of the off-the-shelf model that a run begins with, by what the lab keeps of it; `None` where it begins with none, or with
/// one that is not known or whose file is damaged, which is refused elsewhere.
fn shape_of(config: &RunConfig, read: Read) -> Option<Shape> {
    #[derive(serde::Deserialize)]
    struct Kept {
        architecture: Architecture,
    }
    let name = &config.base.model;
    let plain = !name.is_empty() && !name.contains(['/', '\\']);
    let kept = || read_checked(&|file| read(&format!("models/{name}/{file}")), "model.json").ok().flatten();
    let bytes = plain.then(kept).flatten()?;
    serde_json::from_slice(&bytes).ok().map(|kept: Kept| shape(&kept.architecture))
}

/// Memory of a run at each moment that may be its largest, computed by `threads` on a processor; none where it begins with a model that is
/// not known.
pub fn moments(config: &RunConfig, objectives: &[Objective], threads: usize, read: Read) -> Vec<Memory> {
    memory::moments(config, shape_of(config, read).as_ref(), objectives, threads)
}

/// Why a run that needs so much does not fit where it may have `most` MiB: both figures, what most of it is for, and what lowers that. `None`
/// where it fits.
pub fn problem(config: &RunConfig, needed: &Memory, most: u64) -> Option<Problem> {
    let mib = needed.mib();
    if mib <= most {
        return None;
    }
    let (part, own) = needed.largest();
    let (field, hint) = lowers(config, needed.stage, part);
    let (part, stage) = (part.title(), needed.stage.title());
    let message = format!(
        "the run needs about {mib} MiB of memory, {own} of them for {part} (stage: {stage}), and may have {most} MiB here; {hint}"
    );
    Some(Problem { field: field.into(), message })
}

/// The setting that lowers a part of a run's memory, and how.
fn lowers(config: &RunConfig, stage: Stage, part: Part) -> (&'static str, &'static str) {
    let own = config.base.model.is_empty();
    let whole = config.base.weights == Precision::F32;
    match (part, stage) {
        (Part::Process, _) if own => ("task.rows", "fewer rows need less"),
        (Part::Weights, _) if !own && whole => ("base.weights", "bf16 needs half of that"),
        (Part::Training, _) if !own => ("base.rank", "a lower rank needs less, and so do fewer base.targets"),
        (Part::Activations, stage) if !own && !config.base.checkpointing && stage != Stage::Evaluation => (
            "base.checkpointing",
            "true keeps what goes into each layer and computes the layer again for its gradient, which takes longer and changes no \
             figure",
        ),
        (Part::Activations | Part::Logits, Stage::Policy) => (
            "policy.samples_per_prompt",
            "a prompt and its answers are computed at once, and as many prompts as there are threads: fewer samples or a smaller \
             policy.max_new_tokens need less, and as many policy.minibatches as policy.prompts take one prompt after the other",
        ),
        (Part::Activations | Part::Logits | Part::Cache, Stage::Evaluation) => {
            ("policy.max_new_tokens", "shorter answers need less")
        }
        (Part::Activations, Stage::RewardModel) if !own => ("base.reward_layers", "heads on fewer layers need less"),
        _ if own => ("model.d_model", "a narrower model needs less"),
        _ => ("base.model", "a smaller model needs less"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::memory::largest;
    use moslim_shared::presets;

    fn nothing(_: &str) -> std::io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn largest_of(config: &RunConfig, read: Read) -> Option<Memory> {
        largest(moments(config, &[], 2, read))
    }

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        assert_eq!(kibibytes("MemTotal:       2 kB\nMemAvailable:   24117248 kB\n", "MemAvailable:"), Some(24_117_248));
        assert_eq!(kibibytes("MemAvailable:", "MemAvailable:"), None);
        let mut config = presets::find("quick").unwrap().config;
        let quick = largest_of(&config, &nothing).unwrap();
        assert_eq!(problem(&config, &quick, quick.mib()), None);
        let found = problem(&config, &quick, quick.mib() - 1).unwrap();
        assert_eq!(found.field, "task.rows");
        let figures = [format!("about {} MiB", quick.mib()), format!("may have {} MiB", quick.mib() - 1)];
        assert!(figures.iter().all(|figure| found.message.contains(figure)), "{}", found.message);
        // Thirteen billion weights.
        (config.model.layers, config.model.d_model, config.model.d_ff) = (64, 4096, 16_384);
        config.reward_trunk = config.model.clone();
        let found = problem(&config, &largest_of(&config, &nothing).unwrap(), 400_000).unwrap();
        assert!(found.field == "model.d_model" && found.message.contains("gradients and moments"), "{}", found.message);
    }

    #[test]
    fn what_lowers_the_largest_part_is_named() {
        // SmolLM2-135M.
        let kept = r#"{"name": "some", "weights": 7, "architecture": {"family": "llama", "layers": 30, "d_model": 576, "heads": 9,
            "kv_heads": 3, "head_dim": 64, "d_ff": 1536, "context": 8192, "vocabulary": 49152, "outputs": 49152, "tied": true,
            "norm_eps": 1e-5, "rope": {"theta": 1e5, "scaling": {"kind": "none"}}, "qkv_bias": false, "qk_norm": false}}"#;
        let read = |path: &str| Ok((path == "models/some/model.json").then(|| kept.as_bytes().to_vec()));
        let mut config = presets::find("offtheshelf").unwrap().config;
        config.base.model = "some".into();
        let mut named = |change: &dyn Fn(&mut RunConfig)| {
            change(&mut config);
            problem(&config, &largest_of(&config, &read).unwrap(), 100).unwrap().field
        };
        assert_eq!(named(&|_| {}), "base.checkpointing");
        assert_eq!(named(&|c| (c.base.checkpointing, c.policy.samples_per_prompt) = (true, 16)), "policy.samples_per_prompt");
        assert_eq!(named(&|c| c.base.rank = 1024), "base.rank");
        // Answers of a few tokens: the largest are the weights.
        assert_eq!(named(&|c| (c.base.rank, c.policy.max_new_tokens, c.policy.prompts) = (1, 4, 1)), "base.weights");
        config.base.model = "../some".into();
        assert!(largest_of(&config, &read).is_none(), "a name is no path");
        config.base.model = "other".into();
        assert!(largest_of(&config, &read).is_none());
    }
}
