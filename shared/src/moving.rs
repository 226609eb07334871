//! A recorded run as a short moving picture: what was asked against what came, at some steps of policy optimisation, and an answer of each.

use crate::event::{Event, EventBody, PolicyStep};
use crate::objective::Objective;
use serde::{Deserialize, Serialize};

/// Steps that a matrix is made of.
const WINDOW: usize = 10;

/// The picture.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Moving {
    /// Name and classes of every objective.
    pub objectives: Vec<(String, Vec<String>)>,
    pub frames: Vec<Frame>,
}

/// One step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    pub step: usize,
    /// `[objective][asked][class]`, percent of the answers that were asked for `asked`, as the reward model sees them; the last frame's are
    /// measured on held-out questions.
    pub matrices: Vec<Vec<Vec<u8>>>,
    pub question: String,
    /// Objective, class asked for, class achieved.
    pub wishes: Vec<(usize, usize, usize)>,
    pub answer: String,
}

impl Moving {
    /// A picture of `count` frames of the run that these events tell; the answer of each is the first of the newest samples that has one
    /// wish or two. `None` where it has no policy optimisation, or is not finished.
    pub fn of(events: &[Event], count: usize) -> Option<Self> {
        let (mut objectives, mut steps, mut samples, mut last) = (Vec::new(), Vec::new(), Vec::new(), None);
        for event in events {
            match &event.body {
                EventBody::Started { objectives: told, .. } => objectives.clone_from(told),
                EventBody::Policy { step, .. } => steps.push(step.clone()),
                EventBody::Samples { step, samples: own, .. } => {
                    let fit = |s: &&crate::event::Sample| (1..=2).contains(&s.preference.active()) && !s.answer.is_empty();
                    samples.extend(own.iter().find(fit).map(|s| (*step, s.clone())));
                }
                EventBody::Summary { summary } => last = Some(summary.control.policy.clone()),
                _ => {}
            }
        }
        let (measured, all) = (last?, steps.len());
        let frames = (0..count.min(all)).map(|n| {
            let end = if count < 2 { all } else { 1 + n * (all - 1) / (count - 1) };
            let step = steps[end - 1].step;
            let matrices = match end == all {
                true => objectives
                    .iter()
                    .map(|o: &Objective| {
                        let head = measured.heads.iter().find(|h| h.objective == o.id);
                        head.map_or(Vec::new(), |h| percent(&h.matrix))
                    })
                    .collect(),
                false => matrices(&steps[end.saturating_sub(WINDOW)..end], objectives.len()),
            };
            let sample = samples.iter().rev().find(|(s, _)| *s <= step).or(samples.first()).map(|(_, s)| s);
            let got = |i: usize| sample.and_then(|s| s.distributions.get(i)).map_or(0, |p| crate::distribution::argmax(p));
            let wishes = sample.map_or(Vec::new(), |s| s.preference.asked().map(|(i, class)| (i, class, got(i))).collect());
            let said = |of: fn(&crate::event::Sample) -> &String| sample.map(|s| of(s).clone()).unwrap_or_default();
            Frame { step, matrices, question: said(|s| &s.question), wishes, answer: said(|s| &s.answer) }
        });
        let frames: Vec<Frame> = frames.collect();
        let objectives = objectives.iter().map(|o| (o.name.clone(), o.classes.clone())).collect();
        (!frames.is_empty()).then_some(Self { objectives, frames })
    }
}

/// Shares of every row, percent.
fn percent(matrix: &[Vec<f64>]) -> Vec<Vec<u8>> {
    let row = |row: &Vec<f64>| {
        let sum: f64 = row.iter().sum();
        row.iter().map(|x| if sum > 0.0 { (100.0 * x / sum).round() as u8 } else { 0 }).collect()
    };
    matrix.iter().map(row).collect()
}

/// Asked against achieved over some steps.
fn matrices(steps: &[PolicyStep], objectives: usize) -> Vec<Vec<Vec<u8>>> {
    (0..objectives)
        .map(|i| {
            let mut sum: Vec<Vec<f64>> = Vec::new();
            for matrix in steps.iter().filter_map(|s| s.matrix.get(i)) {
                sum.resize_with(matrix.len(), || vec![0.0; matrix.len()]);
                sum.iter_mut().zip(matrix).for_each(|(a, b)| a.iter_mut().zip(b).for_each(|(a, b)| *a += b));
            }
            percent(&sum)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;
    use crate::event::{DeviceReport, Sample};
    use crate::preference::Preference;
    use crate::summary::{ControlHead, RunSummary};

    #[test]
    fn frames_go_from_the_first_step_to_what_was_measured() {
        let device = DeviceReport { device: String::new(), name: String::new(), reason: String::new() };
        let objective = Objective::new("a", "A", "", &["x", "y"]);
        let started = EventBody::Started { config: RunConfig::default(), device, objectives: vec![objective], resumed: false };
        let mut bodies = vec![started];
        for n in 1..=30 {
            // In the first ten steps all answers have class 0; then what is asked for.
            let matrix = if n <= 10 { vec![vec![3.0, 0.0], vec![1.0, 0.0]] } else { vec![vec![1.0, 0.0], vec![1.0, 3.0]] };
            bodies.push(EventBody::Policy {
                part: None,
                total: 30,
                step: PolicyStep { step: n, matrix: vec![matrix], ..Default::default() },
            });
            let sample = |wishes: Vec<Option<usize>>, answer: String| Sample {
                question: "q".into(),
                preference: Preference(wishes),
                answer,
                distributions: vec![vec![0.2, 0.8]],
                ..Default::default()
            };
            let samples = vec![sample(vec![None], "none".into()), sample(vec![Some(0)], format!("of step {n}"))];
            bodies.push(EventBody::Samples { part: None, step: n, samples });
        }
        let event = |body| Event { seq: 1, time: 0, body };
        let events = |bodies: &[EventBody]| bodies.iter().cloned().map(event).collect::<Vec<_>>();
        assert_eq!(Moving::of(&events(&bodies), 3), None, "it is not finished");
        let mut summary = RunSummary::default();
        summary.control.policy.heads =
            vec![ControlHead { objective: "a".into(), matrix: vec![vec![0.9, 0.1], vec![0.25, 0.75]], ..Default::default() }];
        bodies.push(EventBody::Summary { summary });
        let moving = Moving::of(&events(&bodies), 3).unwrap();
        assert_eq!(moving.objectives, [("A".to_string(), vec!["x".to_string(), "y".to_string()])]);
        assert_eq!(moving.frames.iter().map(|f| f.step).collect::<Vec<_>>(), [1, 15, 30]);
        let matrices: Vec<&Vec<Vec<u8>>> = moving.frames.iter().map(|f| &f.matrices[0]).collect();
        // Steps 6 to 15: five of either kind, rows over all their answers.
        assert_eq!(
            matrices,
            [&vec![vec![100, 0], vec![100, 0]], &vec![vec![100, 0], vec![40, 60]], &vec![vec![90, 10], vec![25, 75]]]
        );
        assert_eq!((moving.frames[1].answer.as_str(), moving.frames[1].wishes.as_slice()), ("of step 15", &[(0, 0, 1)][..]));
    }
}
