//! `moslim-lab data sample`: rows of the built-in world.

use crate::cli::SampleArgs;
use crate::commands::{print_json, print_line};
use crate::failure::Failure;
use moslim_engine::data::{Task, world};
use moslim_shared::config::{RunConfig, TaskConfig};

/// Most rows of a sample; the whole world is what training is for.
const MOST_ROWS: usize = 10_000;

/// Prints rows.
///
/// # Errors
/// When an option is out of its range.
pub fn sample(args: &SampleArgs) -> Result<(), Failure> {
    if !(1..=MOST_ROWS).contains(&args.n) {
        return Err(Failure::field("n", format!("is {}; allowed is 1 to {MOST_ROWS}", args.n)));
    }
    let settings = TaskConfig {
        label_noise: args.label_noise,
        missing_labels: args.missing_labels,
        seed: args.seed,
        ..TaskConfig::default()
    };
    // The rules for a world are those for a run's world.
    let config = RunConfig { task: settings.clone(), ..RunConfig::default() };
    let problems = config.problems(&Task::objectives_of(&config.task)?);
    if !problems.is_empty() {
        return Err(Failure::problems(&problems));
    }
    let rows = world::sample(&settings, args.n, args.seed);
    if args.json {
        return print_json(&rows);
    }
    for row in &rows {
        print_line(&row.to_string())?;
    }
    Ok(())
}
