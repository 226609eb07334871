//! `moslim-lab rate`: a person grades answers, or chooses between two without knowing whose they are. What they say goes into a file that
//! is imported like any other, with a mapping beside it.

use crate::cli::{RateArgs, RateCommand, RateGradesArgs, RatePairsArgs};
use crate::commands::{print_line, read_target};
use crate::failure::{Failure, printable};
use crate::folder::DataFolder;
use crate::log::say;
use moslim_engine::data::ratings::kept::SPLITS;
use moslim_engine::data::ratings::{about, shaped};
use moslim_engine::run::Generator;
use moslim_import::Mapping;
use moslim_import::mapping::ObjectiveMapping;
use moslim_import::path::Path;
use moslim_shared::inference::GenerateRequest;
use moslim_shared::objective::Objective;
use moslim_shared::ratings::{Agree, RatingsTask, RowFilter, ShownRow};
use moslim_shared::vote::{self, Side, Vote};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fs::OpenOptions;
use std::io::{BufRead, Write};
use std::path::Path as FilePath;

/// Asks a person.
///
/// # Errors
/// Bad input names the option; what was said before an error is kept.
pub fn run(args: &RateArgs) -> Result<(), Failure> {
    match &args.command {
        RateCommand::Grades(args) => grades(args),
        RateCommand::Pairs(args) => pairs(args),
    }
}

/// Asks, and reads a line; `None` at the end of the input.
fn ask(question: &str) -> Result<Option<String>, Failure> {
    // Where nobody can be asked there is nothing to do.
    std::io::stderr().write_all(printable(question).as_bytes())?;
    let mut line = String::new();
    Ok((std::io::stdin().lock().read_line(&mut line)? > 0).then(|| line.trim().to_string()))
}

/// A file to which what a person says is added, with the mapping beside it.
fn begin(to: &FilePath, mapping: &str) -> Result<std::fs::File, Failure> {
    let beside = to.with_extension("toml");
    if beside == to {
        return Err(Failure::field("to", "should end in .jsonl; the mapping goes beside it, as .toml"));
    }
    if let Ok(old) = std::fs::read_to_string(&beside)
        && old != mapping
    {
        return Err(Failure::field("to", format!("{} is there and says something else; choose another file", beside.display())));
    }
    std::fs::write(&beside, mapping)?;
    Ok(OpenOptions::new().create(true).append(true).open(to)?)
}

fn add(file: &mut std::fs::File, record: &Value) -> Result<(), Failure> {
    // One write a line: nothing is torn.
    Ok(file.write_all(format!("{record}\n").as_bytes())?)
}

fn ended(to: &FilePath, count: usize) -> Result<(), Failure> {
    let (file, mapping) = (to.display(), to.with_extension("toml"));
    print_line(&format!("{count} answers to {file}; import them with: moslim-lab import {file} --mapping {}", mapping.display()))
}

/// The mapping for grades of `objectives`.
fn grades_mapping(objectives: &[Objective]) -> Mapping {
    let objective = |o: &Objective| ObjectiveMapping::of_classes(o, Path::of_keys(&[&o.id]), Agree::default());
    Mapping {
        title: "Grades given in the lab".into(),
        prompt: Some(Path::of_keys(&["prompt"])),
        response: Path::of_keys(&["response"]),
        rater: Some(Path::of_keys(&["rater"])),
        objectives: objectives.iter().map(objective).collect(),
        ..Mapping::default()
    }
}

fn grades(args: &RateGradesArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let task: RatingsTask = about(&args.task, &|path| data.read(path)).map_err(|e| Failure::field("task", format!("{e:#}")))?;
    let objectives: Vec<Objective> = shaped(&task)?.into_iter().map(|s| s.objective).collect();
    let split = SPLITS.iter().position(|s| *s == args.split);
    let split = split.ok_or_else(|| Failure::field("split", format!("is {}; allowed are {}", args.split, SPLITS.join(", "))))?;
    let filter = RowFilter { from: args.from, limit: args.n, split: Some(split), disagreed: false };
    let rows: Vec<ShownRow> = data.task_rows(&task, &filter)?;
    let mut file = begin(&args.to, &grades_mapping(&objectives).written())?;
    let mut count = 0;
    'rows: for (n, row) in rows.iter().enumerate() {
        say(&format!("\n{} of {}\n{}\n\n  {}\n", n + 1, rows.len(), row.prompt, row.response.replace('\n', "\n  ")));
        let mut record = Map::new();
        for o in &objectives {
            let classes: Vec<String> = o.classes.iter().enumerate().map(|(c, name)| format!("{c} {name}")).collect();
            loop {
                let Some(said) = ask(&format!("{} ({}; Enter for no grade, q to end): ", o.name, classes.join(", ")))? else {
                    break 'rows;
                };
                match said.as_str() {
                    "" => break,
                    "q" => break 'rows,
                    text => match text.parse::<usize>() {
                        Ok(class) if class < o.class_count() => {
                            record.insert(o.id.clone(), class.into());
                            break;
                        }
                        _ => say(&format!("  {text} is no class; allowed are 0 to {}", o.class_count() - 1)),
                    },
                }
            }
        }
        if !record.is_empty() {
            record.extend(
                [("prompt", &row.prompt), ("response", &row.response), ("rater", &args.rater)]
                    .map(|(k, v)| (k.to_string(), json!(v))),
            );
            add(&mut file, &record.into())?;
            count += 1;
        }
    }
    ended(&args.to, count)
}

fn pairs(args: &RatePairsArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let open = |option: &str, id: &crate::id::RunId| {
        let folder = data.run(id);
        if !folder.is_dir() {
            return Err(Failure::field(option, format!("there is no folder {}", folder.display())));
        }
        Ok(Generator::load(&folder, args.device)?)
    };
    let both = [open("run", &args.run)?, open("against", &args.against)?];
    let prompts = std::fs::read_to_string(&args.prompts)
        .map_err(|e| Failure::field("prompts", format!("{}: {e}", args.prompts.display())))?;
    let prompts: Vec<&str> = prompts.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let mut file = begin(&args.to, vote::MAPPING)?;
    let mut count = 0;
    for (n, prompt) in prompts.iter().enumerate() {
        let mut answers = Vec::new();
        for generator in &both {
            read_target(&args.target, generator.objectives())?;
            let (temperature, most) = generator.measured();
            let said = generator.texts(&GenerateRequest {
                prompt: prompt.to_string(),
                target: args.target.clone(),
                temperature: args.temperature.unwrap_or(temperature),
                max_new_tokens: args.max_new_tokens.unwrap_or(most),
                seed: args.seed.wrapping_add(n as u64),
                ..Default::default()
            })?;
            answers.push(said.into_iter().next().unwrap_or_default());
        }
        // Which side is whose depends on prompt, seed and rater, and cannot be seen.
        let swapped = Sha256::digest(format!("{prompt}\n{}\n{}", args.seed, args.rater))[0] & 1 == 1;
        let runs = [&args.run, &args.against].map(|id| id.as_str());
        let at = |side: usize| side ^ usize::from(swapped);
        say(&format!("\n{} of {}\n{prompt}\n\na: {}\n\nb: {}\n", n + 1, prompts.len(), answers[at(0)], answers[at(1)]));
        let said = loop {
            let Some(said) = ask("Which is better? (a, b, Enter for neither, q to end): ")? else {
                return ended(&args.to, count);
            };
            match said.as_str() {
                "q" => return ended(&args.to, count),
                "" | "a" | "b" => break said,
                other => say(&format!("  {other} is neither a nor b")),
            }
        };
        let preferred = match said.as_str() {
            "a" => Some(Side::A),
            "b" => Some(Side::B),
            _ => None,
        };
        let vote = Vote {
            prompt: prompt.to_string(),
            response_a: answers[at(0)].clone(),
            response_b: answers[at(1)].clone(),
            preferred,
            run_a: runs[at(0)].to_string(),
            run_b: runs[at(1)].to_string(),
            target: args.target.clone(),
            rater: args.rater.clone(),
        };
        add(&mut file, &serde_json::to_value(vote)?)?;
        count += 1;
    }
    ended(&args.to, count)
}
