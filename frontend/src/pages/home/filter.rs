//! The filter of the list of runs: words, and conditions such as `method:moslim`, `seed:1` or `hit>0.6`. It is parsed and never evaluated.

use moslim_shared::event::RunInfo;

/// One condition. All of a filter's must hold.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    /// Somewhere in name, id, preset, note or tags.
    Word(String),
    /// A text field has this in it.
    Field(Field, String),
    /// A figure is more, or less, than this.
    Figure(Figure, bool, f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    Method,
    Optimizer,
    Preset,
    Status,
    Tag,
    Task,
    Seed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Figure {
    Hit,
    Joint,
    Kl,
    Seed,
    Seconds,
}

/// What the list is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter(Vec<Condition>);

/// Names of fields and figures, for people.
pub const HELP: &str = "Words, or conditions: method: optimizer: preset: status: tag: task: seed: and hit, joint, kl, seconds with > or <, as in method:moslim hit>0.6";

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// When a condition names what there is not, or compares with no number; for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.split_whitespace().map(condition).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a run meets it.
    pub fn takes(&self, run: &RunInfo) -> bool {
        self.0.iter().all(|condition| met(condition, run))
    }
}

fn condition(part: &str) -> Result<Condition, String> {
    if let Some((name, value)) = part.split_once(':') {
        let field = match name {
            "method" => Field::Method,
            "optimizer" => Field::Optimizer,
            "preset" => Field::Preset,
            "status" => Field::Status,
            "tag" => Field::Tag,
            "task" => Field::Task,
            "seed" => Field::Seed,
            _ => return Err(format!("There is no field \"{name}\". {HELP}.")),
        };
        return Ok(Condition::Field(field, value.to_lowercase()));
    }
    let Some(at) = part.find(['>', '<']) else { return Ok(Condition::Word(part.to_lowercase())) };
    let (name, value) = (&part[..at], &part[at + 1..]);
    let figure = match name {
        "hit" => Figure::Hit,
        "joint" => Figure::Joint,
        "kl" => Figure::Kl,
        "seed" => Figure::Seed,
        "seconds" => Figure::Seconds,
        _ => return Err(format!("There is no figure \"{name}\". {HELP}.")),
    };
    let value = value.parse().map_err(|_| format!("\"{value}\" is no number."))?;
    Ok(Condition::Figure(figure, part[at..].starts_with('>'), value))
}

fn met(condition: &Condition, run: &RunInfo) -> bool {
    match condition {
        Condition::Word(word) => {
            let mut texts = vec![run.title(), run.id.clone(), run.preset.clone(), run.about.note.clone()];
            texts.extend(run.about.tags.iter().cloned());
            texts.iter().any(|text| text.to_lowercase().contains(word))
        }
        Condition::Field(field, value) => {
            let has = |text: &str| text.to_lowercase().contains(value);
            match field {
                Field::Method => has(run.config.method.kind.title()),
                Field::Optimizer => has(run.config.policy.optimizer.title()),
                Field::Preset => has(&run.preset),
                Field::Status => has(&format!("{:?}", run.status)),
                Field::Tag => run.about.tags.iter().any(|tag| has(tag)),
                Field::Task => has(&run.config.task.name) || has(&format!("{:?}", run.config.task.kind)),
                Field::Seed => run.seed.to_string() == *value,
            }
        }
        Condition::Figure(figure, more, value) => {
            let summary = run.summary.as_ref();
            let own = match figure {
                Figure::Hit => summary.map(|s| s.control.policy.mean_hit_rate()),
                Figure::Joint => summary.map(|s| s.control.policy.joint_hit_rate),
                Figure::Kl => summary.map(|s| s.policy.kl),
                Figure::Seconds => summary.map(|s| s.seconds.total),
                Figure::Seed => Some(run.seed as f64),
            };
            // What was not measured is neither more nor less.
            own.is_some_and(|own| if *more { own > *value } else { own < *value })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::RunConfig;
    use moslim_shared::event::RunStatus;

    fn run(seed: u64) -> RunInfo {
        let mut run = RunInfo::new("20261127-1", &RunConfig { seed, preset: "quick".into(), ..Default::default() }, 0);
        run.about.tags = vec!["thesis".into()];
        run.status = RunStatus::Finished;
        run
    }

    #[test]
    fn conditions_are_read_and_all_must_hold() {
        let takes = |text: &str| Filter::parse(text).unwrap().takes(&run(7));
        for text in ["", "quick", "MOSLIM", "method:moslim", "seed:7", "seed>6 seed<8", "status:finished tag:thes", "20261127"] {
            let expected = text != "MOSLIM";
            assert_eq!(takes(text), expected, "{text}");
        }
        for text in ["seed:70", "seed>7", "hit>0", "hit<1", "method:ric", "quick slow", "optimizer:ppo"] {
            assert!(!takes(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert!(Filter::parse("kindness>1").unwrap_err().contains("no figure \"kindness\""));
        assert!(Filter::parse("mood:good").unwrap_err().contains("no field \"mood\""));
        assert!(Filter::parse("hit>high").unwrap_err().contains("\"high\" is no number"));
    }
}
