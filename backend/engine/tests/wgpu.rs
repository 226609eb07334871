//! A few steps of a minimal model on wgpu, on whatever Vulkan adapter there is, compared with the CPU's numbers.
//! `cargo lab test --gpu` runs it; Mesa's software adapter will do.
#![cfg(feature = "wgpu")]

use moslim_engine::run::{Job, devices, train};
use moslim_shared::config::{
    DeviceChoice, EvaluationConfig, ModelConfig, PolicyConfig, RunConfig, SupervisedConfig, WorldConfig,
};
use moslim_shared::event::{EventBody, Stage};
use moslim_shared::summary::RunSummary;
use std::sync::atomic::AtomicBool;

fn config(device: DeviceChoice) -> RunConfig {
    let model = ModelConfig { layers: 1, d_model: 16, heads: 2, kv_heads: 1, d_ff: 32, context: 256, tied_embeddings: true };
    let supervised = SupervisedConfig { steps: 3, batch: 4, ..Default::default() };
    RunConfig {
        device,
        vocabulary: 400,
        world: WorldConfig { rows: 500, ..Default::default() },
        model: model.clone(),
        reward_trunk: model,
        sft: supervised.clone(),
        reward_model: supervised,
        policy: PolicyConfig { iterations: 2, prompts: 2, samples_per_prompt: 2, max_new_tokens: 6, ..Default::default() },
        evaluation: EvaluationConfig { questions: 2, joint: 2, held_out: 2, temperature: 1.0 },
        ..Default::default()
    }
}

/// Trains on a device; returns the summary, the loss of the first SFT step and the first policy iteration's ratio.
fn run(device: DeviceChoice, name: &str) -> (RunSummary, f64, f64) {
    let lab = std::env::temp_dir().join(format!("moslim-wgpu-{name}-{}", std::process::id()));
    let job = Job { run: name.into(), config: config(device), lab: lab.clone() };
    let (mut first_loss, mut first_ratio) = (None, None);
    let summary = train(&job, &AtomicBool::new(false), &mut |body| match body {
        EventBody::Loss { stage: Stage::Sft, loss, .. } => {
            first_loss.get_or_insert(loss);
        }
        EventBody::Policy { step, .. } => {
            first_ratio.get_or_insert(step.first_ratio);
        }
        _ => {}
    })
    .expect("the run finishes");
    std::fs::remove_dir_all(lab).expect("the run left its folder");
    (summary, first_loss.expect("a loss"), first_ratio.expect("an iteration"))
}

#[test]
#[ignore = "needs a Vulkan adapter"]
fn wgpu_gives_the_cpus_numbers() {
    for device in devices() {
        println!("{}: {} ({})", device.device, device.name, device.reason);
        // llvmpipe and its like are available, and never taken by themselves.
        let software = device.reason.contains("emulated in software");
        assert!(!(software && device.chosen));
    }
    let (cpu, cpu_loss, cpu_ratio) = run(DeviceChoice::Cpu, "cpu");
    let (gpu, gpu_loss, gpu_ratio) = run(DeviceChoice::Wgpu, "wgpu");
    println!("first SFT loss: cpu {cpu_loss}, wgpu {gpu_loss}; first ratio: cpu {cpu_ratio}, wgpu {gpu_ratio}");
    assert_eq!((cpu.device.as_str(), gpu.device.as_str()), ("cpu", "wgpu"));
    assert!((cpu_loss - gpu_loss).abs() < 1e-3, "{cpu_loss} on the CPU, {gpu_loss} on wgpu");
    for ratio in [cpu_ratio, gpu_ratio] {
        assert!((ratio - 1.0).abs() < 1e-4, "the first minibatch's ratio is {ratio}");
    }
    for (a, b) in cpu.reward_model.heads.iter().zip(&gpu.reward_model.heads) {
        assert!((a.accuracy - b.accuracy).abs() < 0.05, "{}: accuracy {} and {}", a.objective, a.accuracy, b.accuracy);
        assert!(
            (a.temperature / b.temperature).ln().abs() < 0.1,
            "{}: temperature {} and {}",
            a.objective,
            a.temperature,
            b.temperature
        );
    }
}
