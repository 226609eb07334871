//! How soon and how fast one answer comes in the playground, by the code that answers there.

use crate::data::Task;
use crate::keep::Job;
use crate::keep::above::Above;
use crate::keep::files::Files;
use crate::progress::Stop;
use crate::run::{Generator, untrained};
use anyhow::{Result, ensure};
use moslim_shared::config::{DeviceChoice, RunConfig};
use moslim_shared::inference::{GenerateEvent, GenerateRequest};
use serde::Serialize;
use std::sync::Arc;
use web_time::Instant;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct AnswersReport {
    /// Name of the off-the-shelf model; empty for the lab's own.
    pub model: String,
    pub threads: usize,
    /// Seconds until a run is loaded, which the first question waits for.
    pub loading: f64,
    /// Median seconds from a question to the first word of its answer.
    pub first_word: f64,
    /// Median tokens a second after that.
    pub tokens_per_second: f64,
    pub repetitions: usize,
}

/// Asks a run of this configuration that has learnt nothing and is kept in memory: once for nothing, then `repetitions` times, each for one
/// answer.
///
/// # Errors
/// When the configuration does not fit its off-the-shelf model, a forced device is missing, or no answer is longer than a token.
pub fn answers(files: Arc<dyn Files>, config: RunConfig, device: DeviceChoice, repetitions: usize) -> Result<AnswersReport> {
    let (model, name) = (config.base.model.clone(), "bench");
    let examples = Task::info(&config.task, &|path| files.read(path))?.examples;
    let job = Job::new(name, config, Arc::new(Above::of("runs", files)));
    untrained(&job)?;
    let begun = Instant::now();
    let generator = Generator::load_in(job.files.clone(), format!("runs/{name}"), device)?;
    let loading = begun.elapsed().as_secs_f64();
    let (temperature, max_new_tokens) = generator.measured();
    let prompt = examples.into_iter().next().unwrap_or_else(|| "How do I make tea?".into());
    let (mut first_words, mut paces) = (Vec::new(), Vec::new());
    for seed in 0..=repetitions as u64 {
        let request = GenerateRequest { prompt: prompt.clone(), temperature, max_new_tokens, seed, ..Default::default() };
        let Some((first, pace)) = ask(&generator, &request)? else { continue };
        if seed > 0 {
            first_words.push(first);
            paces.push(pace);
        }
    }
    ensure!(!paces.is_empty(), "no answer is longer than a token");
    let threads = rayon::current_num_threads();
    let (repetitions, first_word, tokens_per_second) = (paces.len(), median(first_words), median(paces));
    Ok(AnswersReport { model, threads, loading, first_word, tokens_per_second, repetitions })
}

/// Seconds to the first word of an answer, and tokens a second after it; `None` where there is no more than one.
fn ask(generator: &Generator, request: &GenerateRequest) -> Result<Option<(f64, f64)>> {
    let begun = Instant::now();
    let (mut first, mut whole) = (None, None);
    generator.generate(request, &Stop::default(), &mut |event| {
        let now = begun.elapsed().as_secs_f64();
        match event {
            GenerateEvent::Text { .. } => first = first.or(Some(now)),
            GenerateEvent::Answer { tokens, .. } => whole = Some((tokens, now)),
            _ => {}
        }
    })?;
    let (Some(first), Some((tokens, end))) = (first, whole) else { return Ok(None) };
    Ok((tokens > 1).then(|| (first, (tokens - 1) as f64 / (end - first))))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::Memory;
    use moslim_shared::presets;

    #[test]
    fn an_answer_is_measured_and_nothing_is_kept() {
        let files = Memory::default();
        let config = presets::find("smoke").unwrap().config;
        let report = answers(Arc::new(files.clone()), config, DeviceChoice::Cpu, 3).unwrap();
        assert!(report.first_word > 0.0 && report.tokens_per_second > 0.0 && report.repetitions > 0, "{report:?}");
        assert!(files.list("runs/bench").unwrap().is_empty());
    }
}
