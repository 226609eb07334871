//! `moslim-lab data`: rows of the built-in world, and imported tasks looked at and changed.

use super::import::said as imported;
use crate::cli::{
    EditTaskArgs, ExportTaskArgs, FolderArgs, ListTasksArgs, MixArgs, NoiseArgs, SampleArgs, ShowTaskArgs, TaskStatsArgs,
};
use crate::commands::{print_json, print_line};
use crate::failure::Failure;
use crate::folder::{DataFolder, Tasks};
use crate::launch::limits;
use crate::log::say;
use moslim_engine::data::ratings::kept::SPLITS;
use moslim_engine::data::ratings::{about, shaped};
use moslim_engine::data::world;
use moslim_engine::run::Scorer;
use moslim_import::Mapping;
use moslim_import::mix::{Part, mix as mix_tasks};
use moslim_shared::config::{RunConfig, TaskConfig};
use moslim_shared::ratings::{Change, Lengths, RatingsTask, RowFilter, Shaped, ShownRating, TaskStatistics};

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
    let problems = config.problems(&world::objectives());
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

/// The task called `name`.
pub fn opened(folder: &FolderArgs, name: &str) -> Result<(DataFolder, RatingsTask), Failure> {
    let data = DataFolder::resolve(folder.data.clone());
    let task = about(name, &|path| data.read(path)).map_err(|e| {
        let text = format!("{e:#}");
        Failure::field("task", text.strip_prefix("task.name: ").unwrap_or(&text))
    })?;
    Ok((data, task))
}

/// Lists imported tasks; those that are damaged are named beside.
///
/// # Errors
/// When the folder of tasks cannot be read.
pub fn list(args: &ListTasksArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let Tasks { tasks, damaged } = data.tasks()?;
    damaged.iter().for_each(|error| say(&format!("left out: {error}")));
    if args.json {
        return print_json(&tasks);
    }
    if tasks.is_empty() && damaged.is_empty() {
        return print_line("No task was imported yet: moslim-lab import FILE shows how");
    }
    tasks.iter().try_for_each(|t| {
        let objectives: Vec<&str> = t.objectives.iter().map(|o| o.objective.id.as_str()).collect();
        print_line(&format!("{:<28} {:>8} rows  {}", t.name, t.report.rows, objectives.join(", ")))
    })
}

/// Prints rows of an imported task.
///
/// # Errors
/// When there is no such task, or an option is out of its range.
pub fn show(args: &ShowTaskArgs) -> Result<(), Failure> {
    if !(1..=MOST_ROWS).contains(&args.n) {
        return Err(Failure::field("n", format!("is {}; allowed is 1 to {MOST_ROWS}", args.n)));
    }
    let split = args.split.as_ref().map(|s| {
        let known = SPLITS.iter().position(|k| k == s);
        known.ok_or_else(|| Failure::field("split", format!("is {s}; allowed are {}", SPLITS.join(", "))))
    });
    let split = split.transpose()?;
    let (data, task) = opened(&args.folder, &args.task)?;
    let filter = RowFilter { from: args.from, limit: args.n, split, disagreed: args.disagreed };
    let shown = data.task_rows(&task, &filter)?;
    if args.json {
        return print_json(&shown);
    }
    for row in &shown {
        print_line(&format!("[{} {}] {}\n  -> {}", row.split, row.row, row.prompt, row.response))?;
        for label in &row.labels {
            let name = label.name.as_deref().unwrap_or("no label");
            let rating = |r: &ShownRating| {
                let rater = if r.rater.is_empty() { String::new() } else { format!("{}: ", r.rater) };
                let answer = if r.answer.is_empty() { String::new() } else { format!("/{}", r.answer) };
                format!("{rater}{} ({}, record {}{answer})", r.score, r.file, r.record)
            };
            let ratings: Vec<String> = label.ratings.iter().map(rating).collect();
            print_line(&format!("  {:<24} {name:<12} {}", label.objective, ratings.join(", ")))?;
        }
    }
    Ok(())
}

/// Counts an imported task.
///
/// # Errors
/// When there is no such task or model.
pub fn stats(args: &TaskStatsArgs) -> Result<(), Failure> {
    let (data, task) = opened(&args.folder, &args.task)?;
    let stats = data.task_statistics(&task, args.model.as_deref(), args.context);
    let stats = stats.map_err(|e| Failure::BadInput(format!("{e:#}")))?;
    if args.json { print_json(&stats) } else { print_line(&counted(&stats, &shaped(&task)?)) }
}

/// Statistics for people.
fn counted(s: &TaskStatistics, shaped: &[Shaped]) -> String {
    let [train, validation, test] = s.splits;
    let mut out = vec![format!(
        "{}: {} answers to {} prompts ({train} to train on, {validation} to validate, {test} to test)",
        s.name, s.rows, s.prompts
    )];
    out.push("Labels".into());
    for (labels, shaped) in s.labels.iter().zip(shaped) {
        out.push(format!("  {:<24} {}, without: {}", labels.id, labels.said(&shaped.objective), labels.missing));
    }
    if !s.agreement.is_empty() {
        out.push("Agreement of raters".into());
        let number = |n: Option<f64>| n.map_or("-".into(), |n| format!("{n:.2}"));
        for a in &s.agreement {
            out.push(format!(
                "  {:<24} {} rows, {} raters; Krippendorff's alpha {}, quadratic kappa of two {}",
                a.id,
                a.rows,
                a.raters,
                number(a.alpha),
                number(a.kappa)
            ));
        }
    }
    if !s.together.is_empty() {
        out.push("Rank correlation of labels".into());
        for t in &s.together {
            out.push(format!("  {:<24} {:<24} {:+.2}", t.ids[0], t.ids[1], t.spearman));
        }
    }
    let lengths = |name: &str, l: &Lengths| {
        let [least, q1, half, q3, most, all] = l.quantiles;
        let over = s.context.map_or(String::new(), |c| format!("; {} are longer than {c}", l.over));
        format!(
            "  {name:<24} {least} to {all}; a quarter below {q1}, half below {half}, three quarters below {q3}, 95 % below {most}{over}"
        )
    };
    out.push(format!("Lengths in {}", s.unit));
    out.push(lengths("prompt", &s.prompt_lengths));
    out.push(lengths("prompt and answer", &s.row_lengths));
    out.push(format!("Nearly the same prompt in two splits: {} pairs", s.near_duplicates));
    for near in s.nearest.iter().take(3) {
        let short = |text: &str| text.chars().take(60).collect::<String>();
        let [a, b] = [0, 1].map(|n| format!("{} \"{}\"", near.splits[n], short(&near.prompts[n])));
        out.push(format!("  {:.2}: {a}, {b}", near.similarity));
    }
    out.join("\n")
}

/// Prints the rows whose labels a reward model finds the least likely.
///
/// # Errors
/// When there is no such task or run, or the run's objectives are others.
pub fn noise(args: &NoiseArgs) -> Result<(), Failure> {
    if !(1..=MOST_ROWS).contains(&args.n) {
        return Err(Failure::field("n", format!("is {}; allowed is 1 to {MOST_ROWS}", args.n)));
    }
    let (data, task) = opened(&args.folder, &args.task)?;
    let folder = data.run(&args.run);
    if !folder.is_dir() {
        return Err(Failure::field("run", format!("there is no folder {}", folder.display())));
    }
    limits::limit_memory()?;
    let scorer = Scorer::load(&folder, args.device)?;
    let (found, long) = data.task_noise(&task, &scorer, args.n).map_err(|e| Failure::BadInput(format!("{e:#}")))?;
    if long > 0 {
        say(&format!("{long} rows are longer than the reward model reads, and were passed over"));
    }
    if args.json {
        return print_json(&found);
    }
    found.iter().try_for_each(|row| {
        print_line(&format!(
            "[{} {}] {} is {} where the reward model gives that {:.3} and expects class {:.1}\n  {}\n  -> {}",
            row.split, row.row, row.objective, row.name, row.probability, row.expected, row.prompt, row.response
        ))
    })
}

/// Makes one task of several.
///
/// # Errors
/// When a task is not there, their objectives do not fit together, or the name is taken.
pub fn mix(args: &MixArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let part = |text: &String| {
        let parsed =
            text.split_once('=').and_then(|(task, share)| Some(Part { task: task.into(), share: share.trim().parse().ok()? }));
        parsed.ok_or_else(|| Failure::field("of", format!("is \"{text}\"; it should be TASK=SHARE")))
    };
    let parts = args.of.iter().map(part).collect::<Result<Vec<_>, _>>()?;
    let task = mix_tasks(data.root(), &|path| data.read(path), &args.name, &parts, args.replace);
    let task = task.map_err(|e| Failure::BadInput(format!("{e:#}")))?;
    if args.json { print_json(&task) } else { print_line(&imported(&task)) }
}

/// Writes an imported task for other software, and for another import.
///
/// # Errors
/// When there is no such task, or a file cannot be written.
pub fn export(args: &ExportTaskArgs) -> Result<(), Failure> {
    let kind = args.to.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    if !["jsonl", "csv"].contains(&kind.as_str()) {
        return Err(Failure::field("to", format!("is {}; allowed are names that end in .jsonl or .csv", args.to.display())));
    }
    let (data, task) = opened(&args.folder, &args.task)?;
    let mapping = data.export_task(&task, &args.to)?;
    print_line(&format!("Written to {}; import it again with --mapping {}", args.to.display(), mapping.display()))
}

/// Changes classes of an imported task.
///
/// # Errors
/// When there is no such task, or a change does not fit it.
pub fn edit(args: &EditTaskArgs) -> Result<(), Failure> {
    let (data, mut task) = opened(&args.folder, &args.task)?;
    let changes = changes(args)?;
    if changes.is_empty() && !args.undo_all {
        return Err(Failure::field(
            "task",
            "name a change: --merge, --rename, --rebin, --agree, --better, --leave or --undo-all",
        ));
    }
    if args.undo_all {
        task.changes = Mapping::parse(&task.mapping).map(|m| m.changes()).unwrap_or_default();
    }
    task.changes.extend(changes);
    let shaped = task.shaped().map_err(Failure::BadInput)?;
    data.write_task(&task)?;
    if args.json {
        return print_json(&task);
    }
    shaped.iter().try_for_each(|s| print_line(&format!("{:<24} {}", s.objective.id, s.objective.classes.join(" | "))))
}

/// The changes that the options name, in the order of the options.
fn changes(args: &EditTaskArgs) -> Result<Vec<Change>, Failure> {
    let two = |option: &str, text: &str, at: char, what: &str| {
        let parts = text.rsplit_once(at).filter(|(a, b)| !a.is_empty() && !b.is_empty());
        parts
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .ok_or_else(|| Failure::field(option, format!("is \"{text}\"; it should be {what}")))
    };
    let number = |option: &str, text: &str| {
        text.trim().parse::<usize>().map_err(|_| Failure::field(option, format!("\"{text}\" is no number of a class")))
    };
    let mut out = Vec::new();
    for text in &args.merge {
        let what = "OBJECTIVE:FROM-TO=NAME";
        let (left, name) = two("merge", text, '=', what)?;
        let (objective, range) = two("merge", &left, ':', what)?;
        let (from, to) = two("merge", &range, '-', what)?;
        out.push(Change::Merge { objective, from: number("merge", &from)?, to: number("merge", &to)?, name });
    }
    for text in &args.rebin {
        let what = "OBJECTIVE:EDGE,EDGE=NAME,NAME,NAME";
        let (left, names) = two("rebin", text, '=', what)?;
        let (objective, edges) = two("rebin", &left, ':', what)?;
        let edge = |e: &str| e.trim().parse().map_err(|_| Failure::field("rebin", format!("\"{e}\" is no number")));
        let edges = edges.split(',').map(edge).collect::<Result<_, _>>()?;
        out.push(Change::Rebin { objective, edges, classes: names.split(',').map(|n| n.trim().to_string()).collect() });
    }
    for text in &args.rename {
        let (left, name) = two("rename", text, '=', "OBJECTIVE:CLASS=NAME or OBJECTIVE=NAME")?;
        out.push(match left.split_once(':') {
            Some((objective, class)) => {
                Change::RenameClass { objective: objective.into(), class: number("rename", class)?, name }
            }
            None => Change::Rename { objective: left, name },
        });
    }
    for text in &args.agree {
        let (objective, agree) = two("agree", text, '=', "OBJECTIVE=mean, median or majority")?;
        let agree = serde_json::from_value(agree.clone().into())
            .map_err(|_| Failure::field("agree", format!("is \"{agree}\"; allowed are mean, median, majority")))?;
        out.push(Change::Agree { objective, agree });
    }
    for text in &args.better {
        let (objective, end) = two("better", text, '=', "OBJECTIVE=higher or lower")?;
        let yes = match end.as_str() {
            "higher" => true,
            "lower" => false,
            _ => return Err(Failure::field("better", format!("is \"{end}\"; allowed are higher and lower"))),
        };
        out.push(Change::HigherIsBetter { objective, yes });
    }
    out.extend(args.leave.iter().map(|objective| Change::Leave { objective: objective.clone() }));
    Ok(out)
}
