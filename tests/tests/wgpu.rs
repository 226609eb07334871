//! wgpu against the CPU: the same few steps on both, on whatever Vulkan adapter there is. Not run by default, because the
//! program under test has to be built with the feature `wgpu`; `cargo lab test --gpu` does both.

use moslim_shared::config::{DeviceChoice, ModelConfig, RunConfig};
use moslim_shared::summary::RunSummary;
use moslim_tests::{LIMIT, Process, text, write_config};
use serde_json::Value;
use std::path::Path;

/// Everything runs, and nothing is large: an adapter that is emulated in software has to get through it.
fn tiny() -> RunConfig {
    let mut config = RunConfig { vocabulary: 320, device: DeviceChoice::Wgpu, ..RunConfig::default() };
    // With so small a vocabulary rows are long: 64 tokens of context are not enough for them.
    config.model =
        ModelConfig { layers: 1, d_model: 16, heads: 2, kv_heads: 1, d_ff: 32, context: 256, ..ModelConfig::default() };
    config.reward_trunk = config.model.clone();
    config.world.rows = 600;
    for stage in [&mut config.sft, &mut config.reward_model] {
        (stage.steps, stage.batch) = (3, 4);
    }
    let policy = &mut config.policy;
    (policy.iterations, policy.prompts, policy.samples_per_prompt, policy.max_new_tokens) = (2, 2, 2, 8);
    let evaluation = &mut config.evaluation;
    (evaluation.questions, evaluation.joint, evaluation.held_out) = (2, 2, 2);
    config
}

/// Trains; returns the summary and the first loss of supervised fine-tuning.
fn train(config: &Path, data: &Path, more: &[&str]) -> (RunSummary, f64) {
    let mut args = vec!["train", "--json", "--config", text(config), "--data", text(data)];
    args.extend(more);
    // Shaders are compiled on the first run, which takes long on an emulated adapter.
    let output = Process::lab(&args).wait_at_most(5 * LIMIT);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let line = output.stderr.lines().find(|line| line.starts_with("Supervised fine-tuning: 1/")).expect("the first step of SFT");
    let (_, loss) = line.split_once("loss ").expect("a loss");
    let loss = loss.split(',').next().and_then(|number| number.parse().ok()).expect("a number");
    (serde_json::from_str(&output.stdout).expect("the summary of a run"), loss)
}

#[test]
#[ignore = "needs a program built with the feature wgpu; cargo lab test --gpu"]
fn wgpu_computes_what_the_cpu_computes() {
    let output = Process::lab(&["devices", "--json"]).wait();
    let devices: Vec<Value> = serde_json::from_str(&output.stdout).expect("a list of devices");
    for device in &devices {
        println!("{}: {} (available: {}; {})", device["device"], device["name"], device["available"], device["reason"]);
    }
    let wgpu = devices.iter().find(|d| d["device"] == "wgpu").expect("wgpu in the list of devices");
    assert_eq!(wgpu["available"], true, "wgpu cannot be tested: {}", wgpu["reason"]);

    let folder = tempfile::tempdir().unwrap();
    let file = write_config(folder.path(), &tiny());
    // The file asks for wgpu; the option overrides it.
    let (gpu, gpu_loss) = train(&file, folder.path(), &[]);
    let (cpu, cpu_loss) = train(&file, folder.path(), &["--device", "cpu"]);
    assert_eq!((gpu.device.as_str(), cpu.device.as_str()), ("wgpu", "cpu"));
    println!("first loss: wgpu {gpu_loss}, cpu {cpu_loss}; seconds: wgpu {}, cpu {}", gpu.seconds.total, cpu.seconds.total);
    assert!((gpu_loss - cpu_loss).abs() <= 1e-3, "first loss: wgpu {gpu_loss}, cpu {cpu_loss}");
    assert_eq!(gpu.reward_model.heads.len(), cpu.reward_model.heads.len());
    for (a, b) in gpu.reward_model.heads.iter().zip(&cpu.reward_model.heads) {
        assert_eq!((&a.objective, a.n), (&b.objective, b.n));
        for (what, a, b) in [("accuracy", a.accuracy, b.accuracy), ("ECE", a.ece, b.ece)] {
            assert!((a - b).abs() <= 0.05, "{what}: wgpu {a}, cpu {b}");
        }
    }
}
