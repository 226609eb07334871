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
    use crate::text::Manner;
    use moslim_shared::config::{RunConfig, TaskConfig};
    use rand::SeedableRng;

    fn tokenizer() -> Tokenizer {
        let splits = Task::load(&TaskConfig { rows: 600, topics: 12, ..Default::default() }, &|_| Ok(None)).unwrap().splits;
        Tokenizer::train(512, &splits, &world::objectives()).unwrap()
    }

    /// Of a run whose prompts ask for everything that they can, in the order of the objectives.
    fn targets() -> TargetSampler {
        let mut config = RunConfig::default();
        (config.targets.active_probability, config.targets.shuffled_share) = (1.0, 0.0);
        TargetSampler::new(&config, &world::objectives(), std::iter::empty())
    }

    #[test]
    fn what_was_asked_for_is_replaced_by_what_was_achieved() {
        let mut r = rollout(0, 0.0, 2);
        r.distributions = vec![vec![0.2, 0.8], vec![0.9, 0.1], vec![0.1, 0.3, 0.6]];
        assert_eq!(achieved(&Preference(vec![Some(0), None, Some(0)]), &r).0, [Some(1), None, Some(2)]);
    }

    #[test]
    fn answers_to_prompts_with_weights_are_not_told_what_they_achieved() {
        let (tokenizer, targets) = (tokenizer(), targets());
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

    #[test]
    fn rows_are_as_many_as_prompts_and_weigh_what_their_kind_does() {
        let (tokenizer, targets) = (tokenizer(), targets());
        let question = tokenizer.encode("Why?").unwrap();
        let bare = tokenizer.untagged_prompt(&question);
        let row = |answer: &[u32], labels: [Option<usize>; 4]| Encoded {
            tokens: [bare.as_slice(), answer].concat(),
            answer: bare.len(),
            question: 1..1 + question.len(),
            labels: labels.to_vec(),
            part: 0,
        };
        let asked = [Some(4), None, Some(1), None];
        let (texts, rated, unrated) = ([row(&[31, 32], [None; 4])], [row(&[33], asked)], [row(&[34], [None; 4])]);
        let of = |[sft_mix, rated_mix]: [f64; 2], texts: &[Encoded], rated: &[Encoded]| {
            let config = PolicyConfig { prompts: 3, sft_mix, rated_mix, ..Default::default() };
            let rows = beside(&[], (&[], &targets, &[], &tokenizer), (texts, rated), &config, &mut StdRng::seed_from_u64(1));
            rows.unwrap().into_iter().map(|row| (row.prompt, row.answer, row.weight)).collect::<Vec<_>>()
        };
        let tagged = tokenizer.prompt(&question, &Preference(asked.to_vec()), &Manner::plain(4)).unwrap();
        assert_eq!(tagged.len(), bare.len() + 2);
        let [sft, own] = [(bare.clone(), vec![31, 32], 0.5), (tagged, vec![33], 0.25)];
        assert_eq!(of([0.5, 0.25], &texts, &rated), [vec![sft.clone(); 3], vec![own.clone(); 3]].concat());
        assert_eq!(of([0.5, 0.0], &texts, &rated), vec![sft; 3]);
        assert_eq!(of([0.0, 0.25], &texts, &rated), vec![own; 3]);
        // Where there are no rows, or none that has a label, there is nothing to say.
        assert!(of([0.0, 0.0], &texts, &rated).is_empty() && of([0.5, 0.25], &[], &[]).is_empty());
        assert!(of([0.0, 0.25], &texts, &unrated).is_empty());
    }

    #[test]
    fn hindsight_tells_what_ended_answers_achieved_where_training_may_know_it() {
        let (tokenizer, targets) = (tokenizer(), targets());
        let question =
            |text: &str| EncodedQuestion { text: text.into(), tokens: tokenizer.encode(text).unwrap(), topic: 0, part: 0 };
        let questions = [question("Why?"), question("How do I make tea?")];
        let prompt = |question, preference: [Option<usize>; 4]| Prompt {
            question,
            preference: Preference(preference.to_vec()),
            weights: None,
            tokens: Vec::new(),
        };
        // Whatever is asked for, helpfulness 2, honesty 2 and verbosity 3 is achieved: the first with the third is held out.
        let classes = [vec![0.1, 0.2, 0.4, 0.2, 0.1], vec![0.25; 4], vec![0.1, 0.2, 0.7], vec![0.1, 0.1, 0.2, 0.4, 0.2]];
        let prompts = [
            prompt(0, [Some(0), None, None, Some(0)]),
            prompt(1, [Some(0), None, Some(0), None]),
            prompt(0, [Some(4), None, None, None]),
        ];
        // Of the second prompt's answers the first was cut off, and so was the third's only one.
        let mut rollouts = [(0, 1), (1, 2), (1, 3), (2, 4)]
            .map(|(n, tokens)| Rollout { distributions: classes.to_vec(), ..rollout(n, 0.0, tokens) });
        (rollouts[1].answer.ended, rollouts[3].answer.ended) = (false, false);
        let of = |hindsight| {
            let config = PolicyConfig { hindsight, ..Default::default() };
            let tagged: (&[Prompt], _, &[EncodedQuestion], _) = (&prompts, &targets, &questions, &tokenizer);
            beside(&rollouts, tagged, (&[], &[]), &config, &mut StdRng::seed_from_u64(1)).unwrap()
        };
        let achieved = Preference(vec![Some(2), None, Some(2), None]);
        let rows = of(0.75);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].prompt, tokenizer.prompt(&questions[1].tokens, &achieved, &Manner::plain(4)).unwrap());
        assert_eq!((rows[0].answer.clone(), rows[0].weight), (vec![0, 1, 2], 0.75));
        assert!(of(0.0).is_empty());
    }
}
