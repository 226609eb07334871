//! What a journal says in numbers, step by step: for other software, and for pictures.

use moslim_shared::event::{Event, EventBody, Part, PolicyStep, Stage};
use moslim_shared::objective::Objective;

/// A figure at a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    pub stage: Stage,
    /// Name of the part, where a stage trains several models.
    pub part: Option<String>,
    /// Words, with slashes between group and member.
    pub name: String,
    pub step: usize,
    /// Milliseconds since the Unix epoch.
    pub time: u64,
    pub value: f64,
}

impl Scalar {
    /// One name for all of it.
    pub fn tag(&self) -> String {
        match &self.part {
            Some(part) => format!("{}/{part}/{}", self.stage.id(), self.name),
            None => format!("{}/{}", self.stage.id(), self.name),
        }
    }
}

/// Takes in the events of a journal, in their order.
#[derive(Default)]
pub struct Curves {
    objectives: Vec<Objective>,
    said: Vec<Scalar>,
}

impl Curves {
    pub fn hear(&mut self, event: &Event) {
        let time = event.time;
        match &event.body {
            EventBody::Started { objectives, .. } => self.objectives.clone_from(objectives),
            // Steps that a resumed run takes again.
            EventBody::StageBegan { stage, part, from, .. } => {
                let part = part.as_ref().map(|part| &part.name);
                self.said.retain(|s| s.stage != *stage || s.part.as_ref() != part || s.step <= *from);
            }
            EventBody::Loss { stage, part, step, loss, rate, .. } => {
                let figures = [("loss".to_string(), *loss), ("steps per second".to_string(), *rate)];
                self.add(*stage, part.as_ref(), *step, time, figures);
            }
            EventBody::Validation { stage, part, step, objectives, qwk } => {
                let of = |n: usize| objectives.get(n).copied().unwrap_or(n);
                let figures: Vec<_> =
                    qwk.iter().enumerate().map(|(n, k)| (format!("quadratic kappa/{}", self.name(of(n))), *k)).collect();
                self.add(*stage, part.as_ref(), *step, time, figures);
            }
            EventBody::KlFrontier { part, point } => {
                let mut figures = vec![
                    ("against KL/kl".to_string(), point.kl),
                    ("against KL/score".to_string(), point.proxy),
                    ("against KL/hit rate by the reward model".to_string(), point.proxy_hit_rate),
                ];
                figures.extend(point.gold_hit_rate.map(|hit| ("against KL/hit rate by the rules".to_string(), hit)));
                self.add(Stage::Policy, part.as_ref(), point.step, time, figures);
            }
            EventBody::FrontSeen { part, front } => {
                let name = "front/hypervolume by the reward model";
                // A resumed run tries that of its checkpoint again.
                self.said.retain(|s| (s.name.as_str(), s.step) != (name, front.step));
                let figures = [(name.to_string(), front.hypervolume)];
                self.add(Stage::Policy, part.as_ref(), front.step, time, figures);
            }
            EventBody::Policy { part, step, .. } => {
                let figures = self.policy(step);
                self.add(Stage::Policy, part.as_ref(), step.step, time, figures);
            }
            _ => {}
        }
    }

    /// Everything that still holds.
    pub fn scalars(self) -> Vec<Scalar> {
        self.said
    }

    fn name(&self, objective: usize) -> String {
        self.objectives.get(objective).map_or(objective.to_string(), |o| o.id.clone())
    }

    fn add(
        &mut self,
        stage: Stage,
        part: Option<&Part>,
        step: usize,
        time: u64,
        figures: impl IntoIterator<Item = (String, f64)>,
    ) {
        let part = part.map(|part| part.name.clone());
        let scalars = figures.into_iter().map(|(name, value)| Scalar { stage, part: part.clone(), name, step, time, value });
        self.said.extend(scalars);
    }

    fn policy(&self, step: &PolicyStep) -> Vec<(String, f64)> {
        let plain = [
            ("reward", Some(step.reward)),
            ("score", Some(step.score)),
            ("kl", Some(step.kl)),
            ("kl coefficient", Some(step.kl_coefficient)),
            ("entropy", Some(step.entropy)),
            ("length", Some(step.length)),
            ("share that end", Some(step.eos_rate)),
            ("groups without variance", Some(step.zero_std_groups)),
            ("first ratio", Some(step.first_ratio)),
            ("clip fraction", Some(step.clip_fraction)),
            ("approximate kl", Some(step.approx_kl)),
            ("value loss", step.value_loss),
            ("explained variance", step.explained_variance),
            ("value clip fraction", step.value_clip_fraction),
            ("preference accuracy", step.preference_accuracy),
            ("pairs left out", step.pairs_left_out),
            ("gradient norm", Some(step.gradient_norm)),
            ("seconds", Some(step.seconds)),
        ];
        let mut figures: Vec<(String, f64)> = plain.into_iter().filter_map(|(n, v)| Some((n.into(), v?))).collect();
        let each = |what: &str, values: &[f64]| -> Vec<(String, f64)> {
            values.iter().enumerate().map(|(n, v)| (format!("{what}/{}", self.name(n)), *v)).collect()
        };
        figures.extend(each("contribution", &step.contributions));
        figures.extend(each("on target", &step.on_target));
        for (n, classes) in step.distributions.iter().enumerate() {
            figures.extend(classes.iter().enumerate().map(|(c, p)| (format!("class mass/{}/{c}", self.name(n)), *p)));
        }
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_were_taken_again_are_there_once() {
        let mut curves = Curves::default();
        let mut hear = |time, body| curves.hear(&Event { seq: time, time, body });
        let began = |from| EventBody::StageBegan { stage: Stage::Sft, part: None, from, total: 3 };
        let loss = |step, loss| EventBody::Loss { stage: Stage::Sft, part: None, step, total: 3, loss, rate: 1.0 };
        let bodies = [began(0), loss(1, 3.0), loss(2, 2.0), loss(3, 9.0), began(2), loss(3, 1.0)];
        bodies.into_iter().enumerate().for_each(|(n, body)| hear(n as u64, body));
        let losses: Vec<(usize, f64)> =
            curves.scalars().iter().filter(|s| s.tag() == "sft/loss").map(|s| (s.step, s.value)).collect();
        assert_eq!(losses, [(1, 3.0), (2, 2.0), (3, 1.0)]);
    }
}
