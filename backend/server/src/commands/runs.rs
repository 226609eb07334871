//! `moslim-lab runs`: runs as files, from lab to lab, and what is said of those of this one.

use crate::cli::{ListRunsArgs, NamedRunArgs, OpenArgs, PackArgs, PriorityArgs, TensorboardArgs, TrashArgs};
use crate::commands::{print_json, print_line};
use crate::curves::Curves;
use crate::failure::Failure;
use crate::folder::{DataFolder, TRASH_DAYS, write_file};
use crate::follow::Follower;
use crate::id::{RunId, now_ms};
use crate::launch::Local;
use crate::log::say;
use crate::offline;
use crate::queue::Place;
use crate::tensorboard::file;
use moslim_engine::keep::carried::{pack_run, unpack_run};
use moslim_engine::keep::files::Disk;
use moslim_shared::listing::ListQuery;
use std::collections::HashMap;
use std::sync::Arc;

/// Writes a run into a file.
///
/// # Errors
/// When there is no such run, or it trains, or the file cannot be written.
pub fn pack(args: &PackArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let _lock = match data.run(&args.run).is_dir() {
        true => data.take_run(&args.run).map_err(|e| Failure::field("run", e))?,
        false => return Err(missing(&data, &args.run)),
    };
    let packed = pack_run(&Disk(data.root().into()), args.run.as_str()).map_err(|e| Failure::field("run", format!("{e:#}")))?;
    write_file(&args.to, &packed).map_err(|e| Failure::field("to", format!("{e:#}")))?;
    print_line(&format!("{} bytes written to {}", packed.len(), args.to.display()))
}

/// Adds a run that is in a file.
///
/// # Errors
/// When the file cannot be read, is damaged or no run, or another run has its name.
pub fn open(args: &OpenArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    data.create().map_err(Failure::BadInput)?;
    let wrong = |e: String| Failure::field("file", format!("{}: {e}", args.file.display()));
    let bytes = std::fs::read(&args.file).map_err(|e| wrong(e.to_string()))?;
    let run = unpack_run(&Disk(data.root().into()), &bytes).map_err(|e| wrong(format!("{e:#}")))?;
    print_line(&format!("Run {run} is in {}", data.root().display()))
}

/// The lab's runs.
fn follow(data: &DataFolder) -> Result<Follower, Failure> {
    Ok(Follower::open(data.clone(), Arc::new(Local::new()?), HashMap::new())?)
}

fn missing(data: &DataFolder, run: &RunId) -> Failure {
    Failure::field("run", format!("there is no run {run} in {}", data.root().display()))
}

/// Writes the curves of runs as event files.
///
/// # Errors
/// When there is no such run, its journal cannot be read, or the file cannot be written.
pub fn tensorboard(args: &TensorboardArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let follower = follow(&data)?;
    for run in &args.runs {
        if follower.known(run).is_none() {
            return Err(missing(&data, run));
        }
        let mut curves = Curves::default();
        follower.each_event(run, |event| curves.hear(event))?;
        let scalars = curves.scalars();
        if scalars.is_empty() {
            return Err(Failure::field("run", format!("run {run} has no curves yet")));
        }
        // Readers look for the name's middle; its end is free, and without a time in it a second export replaces the first.
        let path = args.to.join(run.as_str()).join("events.out.tfevents.0.moslim-lab");
        write_file(&path, &file(&scalars)).map_err(|e| Failure::field("to", format!("{e:#}")))?;
        print_line(&format!("{} figures of run {run} written to {}", scalars.len(), path.display()))?;
    }
    Ok(())
}

/// Writes a run as one HTML file.
///
/// # Errors
/// When there is no such run, its journal cannot be read, or the file cannot be written.
pub fn page(args: &PackArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let html = offline::page(&follow(&data)?, &args.run)?.ok_or_else(|| missing(&data, &args.run))?;
    write_file(&args.to, html.as_bytes()).map_err(|e| Failure::field("to", format!("{e:#}")))?;
    print_line(&format!("{} bytes written to {}", html.len(), args.to.display()))
}

/// Lists runs, newest first.
///
/// # Errors
/// When the filter is not understood, or the folder cannot be read.
pub fn list(args: &ListRunsArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let follower = follow(&data)?;
    let query = ListQuery { filter: args.filter.clone(), limit: Some(args.limit), ..Default::default() };
    let page = follower.list(&query).map_err(Failure::BadInput)?;
    if args.json {
        return print_json(&page);
    }
    for row in &page.rows {
        let hit = row.hit.map_or("     –".to_string(), |hit| format!("{hit:>6.3}"));
        let status = format!("{:?}", row.status).to_lowercase();
        print_line(&format!("{:<22} {status:<12} {hit}  seed {:<4} {}", row.id, row.seed, row.title))?;
    }
    if page.next.is_some() {
        say(&format!("{} of {} runs; --limit shows more, --filter chooses.", page.rows.len(), page.total));
    }
    Ok(())
}

/// Gives a run that waits another priority; the server looks at it when a slot is free.
///
/// # Errors
/// When it does not wait, or its place cannot be written.
pub fn priority(args: &PriorityArgs) -> Result<(), Failure> {
    let folder = DataFolder::resolve(args.folder.data.clone()).run(&args.run);
    let place = Place::read(&folder).ok_or_else(|| Failure::field("run", format!("{} does not wait for its turn", args.run)))?;
    place.with(args.priority).write(&folder)?;
    print_line(&format!("Run {} waits with priority {}", args.run, i32::from(args.priority)))
}

/// Puts a run into the trash.
///
/// # Errors
/// When there is none, or it trains.
pub fn delete(args: &NamedRunArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let _lock = match data.run(&args.run).is_dir() {
        true => data.take_run(&args.run).map_err(|e| Failure::field("run", e))?,
        false => return Err(missing(&data, &args.run)),
    };
    data.discard(&args.run)?;
    print_line(&format!("Run {0} is in the trash for {TRASH_DAYS} days; moslim-lab runs restore {0} brings it back", args.run))
}

/// Takes a run out of the trash.
///
/// # Errors
/// When it is not there, or another has its name.
pub fn restore(args: &NamedRunArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    if !data.restore(&args.run).map_err(|e| Failure::field("run", format!("{e:#}")))? {
        return Err(not_in_trash(&data, Some(&args.run)));
    }
    print_line(&format!("Run {} is back", args.run))
}

/// Lists what is in the trash, or removes it for good.
///
/// # Errors
/// When a run that is named is not there, or something cannot be read or removed.
pub fn trash(args: &TrashArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    if args.empty {
        let emptied = data.empty_trash_of(args.run.as_ref())?;
        let Some(emptied) = emptied else { return Err(not_in_trash(&data, args.run.as_ref())) };
        let said = || format!("{} runs are gone for good, {}", emptied.runs, size(emptied.bytes));
        return if args.json { print_json(&emptied) } else { print_line(&said()) };
    }
    let discarded = data.discarded()?;
    if args.json {
        return print_json(&discarded);
    }
    let now = now_ms();
    for run in &discarded {
        let deleted = ago(now.saturating_sub(run.deleted));
        print_line(&format!("{:<22} deleted {deleted:<16} {:>12}", run.id, size(run.bytes)))?;
    }
    let bytes = discarded.iter().map(|run| run.bytes).sum();
    say(&format!("{} runs, {}; what is older than {TRASH_DAYS} days goes by itself.", discarded.len(), size(bytes)));
    Ok(())
}

fn not_in_trash(data: &DataFolder, run: Option<&RunId>) -> Failure {
    let name = run.map_or("", RunId::as_str);
    Failure::field("run", format!("there is no run {name} in the trash of {}", data.root().display()))
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes.div_ceil(1 << 10)) } else { format!("{} MiB", bytes >> 20) }
}

/// How long ago something was, from milliseconds.
fn ago(ms: u64) -> String {
    let minutes = ms / 60_000;
    match minutes {
        0..60 => format!("{minutes} min ago"),
        60..2_880 => format!("{} h ago", minutes / 60),
        _ => format!("{} days ago", minutes / 1_440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_said_in_what_people_count_in() {
        let hour = 3_600_000;
        assert_eq!(
            [0, 59 * 60_000, hour, 47 * hour, 48 * hour].map(ago),
            ["0 min ago", "59 min ago", "1 h ago", "47 h ago", "2 days ago"]
        );
        assert_eq!([0, 1, 1 << 20, 5 << 20].map(size), ["0 KiB", "1 KiB", "1 MiB", "5 MiB"]);
    }
}
