//! Supervised rows beside the samples of an iteration: answers of SFT, which keep what it taught (PPO-ptx, Ouyang et al. 2022); rated
//! answers under the classes that they were given; and samples under the classes that they achieved, as if those had been asked for
//! (hindsight relabelling, Zhang et al. 2023).

use super::rollout::{Prompt, Rollout};
use super::targets::TargetSampler;
use super::update::{Supervised, by_prompt};
use crate::text::Tokenizer;
use crate::text::corpus::{Encoded, EncodedQuestion, batch_rows};
use anyhow::Result;
use moslim_shared::config::PolicyConfig;
use moslim_shared::distribution::argmax;
use moslim_shared::preference::Preference;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// The rows of one iteration; none where no weight is set. `texts`: rows of SFT; `rated`: labelled ones.
pub fn beside(
    rollouts: &[Rollout],
    tagged: (&[Prompt], &TargetSampler, &[EncodedQuestion], &Tokenizer),
    (texts, rated): (&[Encoded], &[Encoded]),
    config: &PolicyConfig,
    rng: &mut StdRng,
) -> Result<Vec<Supervised>> {
    let mut out = Vec::new();
    if config.sft_mix > 0.0 && !texts.is_empty() {
        out.extend(batch_rows(texts, config.prompts, rng).into_iter().map(|row| Supervised {
            prompt: row.tokens[..row.answer].to_vec(),
            answer: row.tokens[row.answer..].to_vec(),
            weight: config.sft_mix,
        }));
    }
    if config.rated_mix > 0.0 && !rated.is_empty() {
        let (_, targets, _, tokenizer) = tagged;
        for row in batch_rows(rated, config.prompts, rng) {
            let Some(preference) = targets.of_labels(&row.labels, rng) else { continue };
            let prompt = tokenizer.prompt(row.question(), &preference, &targets.manner(rng))?;
            out.push(Supervised { prompt, answer: row.tokens[row.answer..].to_vec(), weight: config.rated_mix });
        }
    }
    if config.hindsight > 0.0 {
        out.extend(hindsight(rollouts, tagged, config.hindsight, rng)?);
    }
    Ok(out)
}

/// One sample of each prompt that ended by itself, tagged with the classes that it achieved of the objectives that were asked for;
/// none that achieved a combination which is kept out of training, and none of a prompt with weights, which asked for no class.
fn hindsight(
    rollouts: &[Rollout],
    (prompts, targets, questions, tokenizer): (&[Prompt], &TargetSampler, &[EncodedQuestion], &Tokenizer),
    weight: f64,
    rng: &mut StdRng,
) -> Result<Vec<Supervised>> {
    let mut out = Vec::new();
    for group in by_prompt(rollouts).filter(|group| prompts[group[0].prompt].weights.is_none()) {
        let ended: Vec<&Rollout> = group.iter().filter(|r| r.answer.ended).collect();
        let Some(rollout) = ended.choose(rng) else { continue };
        let prompt = &prompts[rollout.prompt];
        let achieved = achieved(&prompt.preference, rollout);
        if targets.is_trained(&achieved) {
            let tokens = tokenizer.prompt(&questions[prompt.question].tokens, &achieved, &targets.manner(rng))?;
            out.push(Supervised { prompt: tokens, answer: rollout.answer.tokens.clone(), weight });
        }
    }
    Ok(out)
}

/// The most probable class of every objective that was asked for.
fn achieved(asked: &Preference, rollout: &Rollout) -> Preference {
    let class = |(i, t): (usize, &Option<usize>)| t.map(|_| argmax(&rollout.distributions[i]));
    Preference(asked.0.iter().enumerate().map(class).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Task, world};
    use crate::policy::update::tests::rollout;
    use moslim_shared::config::{RunConfig, TaskConfig};
    use rand::SeedableRng;

    #[test]
    fn what_was_asked_for_is_replaced_by_what_was_achieved() {
        let mut r = rollout(0, 0.0, 2);
        r.distributions = vec![vec![0.2, 0.8], vec![0.9, 0.1], vec![0.1, 0.3, 0.6]];
        assert_eq!(achieved(&Preference(vec![Some(0), None, Some(0)]), &r).0, [Some(1), None, Some(2)]);
    }

    #[test]
    fn answers_to_prompts_with_weights_are_not_told_what_they_achieved() {
        let splits = Task::load(&TaskConfig { rows: 600, topics: 12, ..Default::default() }, &|_| Ok(None)).unwrap().splits;
        let tokenizer = Tokenizer::train(512, &splits, &world::objectives()).unwrap();
        let targets = TargetSampler::new(&RunConfig::default(), &world::objectives(), std::iter::empty());
        let tokens = tokenizer.encode("Why?").unwrap();
        let questions = [EncodedQuestion { text: "Why?".into(), tokens, topic: 0, part: 0 }];
        let prompt =
            |preference: Preference, weights: Option<Vec<f64>>| Prompt { question: 0, preference, weights, tokens: Vec::new() };
        let prompts = [prompt(Preference::none(4), Some(vec![0.5, 0.5, 0.0, 0.0])), prompt(Preference::single(4, 2, 0), None)];
        let distributions = vec![vec![0.2; 5], vec![0.25; 4], vec![0.1, 0.2, 0.7], vec![0.2; 5]];
        // Answers of two and of three tokens.
        let rollouts = [0, 1].map(|n| Rollout { distributions: distributions.clone(), ..rollout(n, 0.0, 2 + n) });
        let mut rng = StdRng::seed_from_u64(1);
        let rows = hindsight(&rollouts, (&prompts, &targets, &questions, &tokenizer), 0.5, &mut rng).unwrap();
        assert_eq!(rows.iter().map(|row| row.answer.len()).collect::<Vec<_>>(), [3]);
    }
}
