//! `moslim-lab import`: a task of people's ratings.

use crate::cli::ImportArgs;
use crate::commands::{print_exactly, print_json, print_line};
use crate::failure::{Failure, printable};
use crate::folder::DataFolder;
use crate::hub::HubId;
use crate::log::say;
use indicatif::{ProgressBar, ProgressStyle};
use moslim_engine::data::ratings::check_name;
use moslim_import::import::format;
use moslim_import::peek::{peek, skeleton};
use moslim_import::{DROPPED, Import, Mapping, import, known};
use moslim_shared::ratings::RatingsTask;
use std::path::{Path, PathBuf};

/// Files of a data set that are looked at when no mapping names some.
const ANY: [&str; 4] = ["*.jsonl*", "*.parquet", "*.csv*", "*.json"];

/// Imports, or shows what there is to import.
///
/// # Errors
/// Bad input names the option, or file, record and column; nothing is left of an import that fails.
pub fn run(args: &ImportArgs) -> Result<(), Failure> {
    if !(0.0..=1.0).contains(&args.most_bad) {
        return Err(Failure::field("most-bad", format!("is {}; allowed is a share from 0 to 1", args.most_bad)));
    }
    let Some(named) = &args.mapping else { return look(args) };
    let written = match known::find(named) {
        Some(text) => text.to_string(),
        None => std::fs::read_to_string(named).map_err(|e| {
            let all: Vec<&str> = known::KNOWN.iter().map(|(name, _)| *name).collect();
            Failure::field("mapping", format!("{named}: {e}; the lab brings {}", all.join(", ")))
        })?,
    };
    let mapping = Mapping::parse(&written).map_err(|e| Failure::field("mapping", format!("{named}: {e}")))?;
    let own = Path::new(named).file_stem().unwrap_or_default().to_string_lossy().to_lowercase().replace(['_', ' ', '.'], "-");
    let name = args.name.clone().unwrap_or(own);
    check_name(&name).map_err(|e| Failure::field("name", e))?;
    let files = files(args, Some(&mapping))?;
    let data = DataFolder::resolve(args.folder.data.clone());
    data.create().map_err(Failure::BadInput)?;
    let wish = Import {
        files,
        mapping,
        written,
        name,
        bad: args.bad_rows.into(),
        most_bad: args.most_bad,
        replace: args.replace,
        most: None,
    };
    let style =
        ProgressStyle::with_template("Reading {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}").expect("a valid template");
    let bar = ProgressBar::new(0).with_style(style);
    let imported = import(data.root(), &wish, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        Ok(())
    });
    bar.finish_and_clear();
    let task = imported.map_err(|e| Failure::BadInput(format!("{e:#}")))?;
    if args.json { print_json(&task) } else { print_line(&said(&task)) }
}

/// The files that the arguments or the mapping name; those on a hub are fetched.
fn files(args: &ImportArgs, mapping: Option<&Mapping>) -> Result<Vec<PathBuf>, Failure> {
    let fetch = |id: HubId, patterns: &[String]| id.fetch_data(patterns, say);
    let hub = |text: &str| HubId::parse(text, args.revision.as_deref(), None);
    let mut out = Vec::new();
    for file in &args.files {
        let path = Path::new(file);
        match hub(file) {
            _ if path.is_file() => out.push(path.into()),
            Some(id) if !path.exists() => {
                let own = mapping.map(|m| m.files.clone()).filter(|f| !f.is_empty());
                out.extend(match own {
                    Some(patterns) => fetch(id, &patterns)?,
                    None => any(&id)?,
                });
            }
            _ => return Err(Failure::field("file", format!("there is no file {file}"))),
        }
    }
    match mapping {
        Some(m) if out.is_empty() => match hub(&m.hub) {
            Some(id) => fetch(id, &m.files),
            None => Err(Failure::field("file", "name the files to import; the mapping names no data set on the hub")),
        },
        _ if out.is_empty() => Err(Failure::field("file", "name a file to look at")),
        _ => Ok(out),
    }
}

/// The files of a data set in the first format that it has.
fn any(id: &HubId) -> Result<Vec<PathBuf>, Failure> {
    let mut last = None;
    for pattern in ANY {
        match id.fetch_data(&[pattern.into()], say) {
            Err(e @ Failure::BadInput(_)) => last = Some(e),
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| Failure::field("file", "there is nothing to fetch")))
}

/// Shows what is in the first file, and a mapping to begin with.
fn look(args: &ImportArgs) -> Result<(), Failure> {
    let files = files(args, None)?;
    let bad = |e: anyhow::Error| Failure::BadInput(format!("{}: {e:#}", files[0].display()));
    let seen = peek(&files[0], format(&files[0], None).map_err(bad)?).map_err(bad)?;
    let mut out = format!("# What is in {}:\n", files[0].display());
    for column in &seen.columns {
        out += &format!("#   {:<40} {:<14} {}\n", column.path.to_string(), column.kind, column.example);
    }
    // What comes second is a mapping, for a file: as it is.
    print_exactly(&format!("{}\n{}", printable(&out), skeleton(&seen).trim_end()))
}

/// What an import made, for people.
pub fn said(task: &RatingsTask) -> String {
    let r = &task.report;
    let [train, validation, test] = r.splits;
    let mut out = vec![
        format!("Imported {} ({})", task.name, &task.hash[..12]),
        format!(
            "  {} records, {} answers to {} prompts: {train} to train on, {validation} to validate, {test} to test",
            r.records, r.rows, r.prompts
        ),
    ];
    if r.duplicates + r.merged > 0 {
        out.push(format!("  {} duplicates left out, {} labels added to an answer that was there", r.duplicates, r.merged));
    }
    let shaped = task.shaped().unwrap_or_default();
    for (labels, shaped) in r.labels.iter().zip(&shaped) {
        let missing = if labels.missing > 0 { format!(", without a label: {}", labels.missing) } else { String::new() };
        let raters = if labels.rated_again > 0 {
            format!(
                ", {} rated more than once, {:.0} % of them differently",
                labels.rated_again,
                100.0 * labels.disagreed as f64 / labels.rated_again as f64
            )
        } else {
            String::new()
        };
        out.push(format!("  {:<24} {}{missing}{raters}", labels.id, labels.said(&shaped.objective)));
    }
    for dropped in &r.dropped {
        out.push(format!("  left out, {}: {} ({})", dropped.reason, dropped.count, dropped.examples[0]));
    }
    if !r.dropped.is_empty() {
        out.push(format!("  every one of them is in tasks/{}/{DROPPED}", task.name));
    }
    out.push(format!("Use it with: moslim-lab train --preset ratings --task {}", task.name));
    out.join("\n")
}
