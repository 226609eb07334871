//! A few steps of a minimal model on wgpu, on whatever Vulkan adapter there is, compared with the CPU's numbers.
//! `cargo lab test --gpu` runs it; Mesa's software adapter will do. Few shapes, because every one is compiled anew there.
#![cfg(feature = "wgpu")]

use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::{Autodiff, Flex, Wgpu};
use burn::module::AutodiffModule;
use moslim_engine::model::TrainBackend;
use moslim_engine::model::generate::{Sampling, generate};
use moslim_engine::model::optimizer::{Trainee, gradients};
use moslim_engine::model::packed::{Group, Packed};
use moslim_engine::model::transformer::Transformer;
use moslim_engine::reward::RewardModel;
use moslim_engine::run::devices;
use moslim_shared::config::ModelConfig;

/// What a backend makes of the same weights and tokens.
#[derive(Debug)]
struct Figures {
    /// Loss before each of three steps.
    losses: Vec<f64>,
    reward_outputs: Vec<f32>,
    /// Log-probabilities of a greedy answer's tokens.
    answers: Vec<Vec<u32>>,
    log_probs: Vec<f32>,
}

fn figures<B: TrainBackend>() -> Figures {
    let config = ModelConfig {
        layers: 1,
        d_model: 16,
        heads: 2,
        kv_heads: 1,
        d_ff: 32,
        context: 32,
        tied_embeddings: true,
        ..Default::default()
    };
    let device = Default::default();
    let model = Transformer::<B>::new(&config, 24, 20, 3, &device);
    let rewards = RewardModel::<B::InnerBackend>::new(&config, 24, &[3, 2], &Default::default(), 4, &device);
    let groups = [
        Group { prompt: &[1, 2, 21], answers: vec![&[4, 5, 6, 7], &[8, 9]] },
        Group { prompt: &[3, 22], answers: vec![&[10, 11, 12]] },
    ];
    let reward_outputs = rewards.outputs(&Packed::new(&groups)).into_data().to_vec().unwrap();
    let mut trainee = Trainee::new(model, 0.01, 1.0);
    let mut losses = Vec::new();
    for _ in 0..3 {
        let (loss, grads, _) = gradients(&trainee.model, vec![&groups[..]], |model, groups| {
            (model.answer_log_probs(&Packed::new(groups), 1.0).sum().neg() / 9.0, ())
        });
        losses.push(loss);
        trainee = trainee.step(grads, 1e-2).0;
    }
    let sampling = Sampling { temperature: 0.0, top_p: 1.0, max_new_tokens: 3, seed: 1 };
    let answers = generate(&trainee.model.valid(), &[&[1, 2, 21], &[3, 22]], 1, 0, &sampling);
    Figures {
        losses,
        reward_outputs,
        log_probs: answers.iter().flat_map(|a| a.log_probs.clone()).collect(),
        answers: answers.into_iter().map(|a| a.tokens).collect(),
    }
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
    let cpu = figures::<Autodiff<Flex, NoCheckpointing>>();
    let gpu = figures::<Autodiff<Wgpu>>();
    println!("cpu  {cpu:?}\nwgpu {gpu:?}");
    assert!(cpu.losses[2] < cpu.losses[0]);
    for (a, b) in cpu.losses.iter().zip(&gpu.losses) {
        assert!((a - b).abs() < 1e-3, "loss {a} on the CPU, {b} on wgpu");
    }
    for (a, b) in cpu.reward_outputs.iter().zip(&gpu.reward_outputs).chain(cpu.log_probs.iter().zip(&gpu.log_probs)) {
        assert!((a - b).abs() < 1e-3, "{a} on the CPU, {b} on wgpu");
    }
    assert_eq!(cpu.answers, gpu.answers);
}
