//! `moslim-lab doctor`: whether everything is there that the lab needs, and whether what it keeps is what it wrote.

use crate::cli::DoctorArgs;
use crate::commands::{print_json, print_line};
use crate::failure::Failure;
use crate::folder::{DataFolder, Tasks};
use crate::launch::process::lock_file;
use crate::study::Study;
use moslim_engine::data::ratings::rows;
use moslim_engine::keep::bundle::unpack;
use moslim_engine::keep::models::{KnownModels, Models, checksum};
use moslim_engine::keep::{journal, sums};
use moslim_engine::run::memory::available_mib;
use moslim_shared::ratings::RatingsTask;
use serde::Serialize;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Standing {
    Good,
    /// Worth knowing, and nothing is broken.
    Note,
    Wrong,
}

/// What was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    of: String,
    standing: Standing,
    said: String,
}

/// Everything that was found.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, of: &str, standing: Standing, said: impl Into<String>) {
        self.0.push(Finding { of: of.into(), standing, said: said.into() });
    }

    /// Wrong where there are reasons.
    fn judge(&mut self, of: &str, good: String, wrong: &[String]) {
        match wrong {
            [] => self.add(of, Standing::Good, good),
            wrong => self.add(of, Standing::Wrong, wrong.join("; ")),
        }
    }
}

/// Looks, and says what it sees.
///
/// # Errors
/// When something is wrong.
pub fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let data = DataFolder::resolve(args.folder.data.clone());
    let mut found = Findings::default();
    found.add("version", Standing::Good, env!("CARGO_PKG_VERSION"));
    match data.create() {
        Ok(()) => found.add("data folder", Standing::Good, data.root().display().to_string()),
        Err(why) => found.add("data folder", Standing::Wrong, why),
    }
    place(&data, &mut found);
    runs(&data, args.deep, &mut found);
    tasks(&data, args.deep, &mut found);
    models(&data, args.deep, &mut found);
    studies(&data, args.deep, &mut found);
    cluster(&mut found);
    if !args.deep {
        found.add("checksums", Standing::Note, "not read; --deep reads every file of every run and study");
    }
    let wrong = found.0.iter().filter(|f| f.standing == Standing::Wrong).count();
    if args.json {
        print_json(&found.0)?;
    } else {
        for f in &found.0 {
            let mark = match f.standing {
                Standing::Good => "  ok ",
                Standing::Note => "note ",
                Standing::Wrong => "WRONG",
            };
            print_line(&format!("{mark} {:<12} {}", f.of, f.said))?;
        }
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 thing is wrong".into())),
        n => Err(Failure::Failed(format!("{n} things are wrong"))),
    }
}

/// The folder's disk, who may read it, memory, and whether a server has it.
fn place(data: &DataFolder, found: &mut Findings) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::metadata(data.root()).is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
        let root = data.root().display();
        match open {
            true => found.add("privacy", Standing::Note, format!("others can read it; close it with: chmod 700 {root}")),
            false => found.add("privacy", Standing::Good, "only its owner can read it"),
        }
    }
    if let Some(room) = data.room() {
        let free = format!("{} MiB are free", room.free >> 20);
        found.judge("disk", free, &room.problem().into_iter().collect::<Vec<_>>());
    }
    match available_mib() {
        Some(free) => found.add("memory", Standing::Good, format!("{free} MiB are free")),
        None => found.add("memory", Standing::Note, "this system does not tell"),
    }
    match lock_file(&data.lock(), Duration::ZERO) {
        Ok(Some(_)) => found.add("server", Standing::Good, "none uses the folder"),
        Ok(None) => found.add("server", Standing::Good, "one uses the folder"),
        Err(e) => found.add("server", Standing::Wrong, format!("the folder cannot be locked: {e}")),
    }
}

/// Names of folders in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter(|e| e.path().is_dir()).filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn runs(data: &DataFolder, deep: bool, found: &mut Findings) {
    let (mut wrong, mut bare, all) = (Vec::new(), 0, names(&data.runs()));
    for name in &all {
        match name.parse() {
            Ok(id) => match data.read_config(&id) {
                Ok(Some(_)) => {}
                Ok(None) => wrong.push(format!("{name} has no configuration")),
                Err(e) => wrong.push(format!("{name}: {e:#}")),
            },
            Err(_) => wrong.push(format!("\"{name}\" is no name of a run")),
        }
        if deep {
            let folder = data.runs().join(name);
            let told = damaged(&folder).into_iter().chain(damaged_by_themselves(&folder));
            wrong.extend(told.map(|file| format!("{name}: {file}")));
            bare += usize::from(!folder.join(sums::FILE).exists());
        }
    }
    let checked = match (deep, bare) {
        (false, _) => String::new(),
        (true, 0) => ", and every file is what was written".into(),
        (true, bare) => format!("; {bare} of them have no checksums, so that nobody knows what was written there"),
    };
    found.judge("runs", format!("{}{checked}", all.len()), &wrong);
}

/// Files of a folder that are not what was written.
pub fn damaged(folder: &Path) -> Vec<String> {
    let read = |name: &str| match std::fs::read(folder.join(name)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    };
    match sums::damaged(&read) {
        Ok(files) => files,
        Err(error) => vec![format!("{error:#}")],
    }
}

/// What is damaged of a run's files that have checksums of their own: its journal, each line of which has one, and its checkpoints.
fn damaged_by_themselves(folder: &Path) -> Vec<String> {
    let mut files: Vec<String> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect(),
        Err(error) => return vec![error.to_string()],
    };
    files.sort();
    let wrong = |file: &String| -> Option<String> {
        let checkpoint = file.starts_with("checkpoint") && file.ends_with(".bin");
        if !checkpoint && file != journal::FILE {
            return None;
        }
        match std::fs::read(folder.join(file)) {
            // A run that trains keeps another one now.
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(error) => Some(format!("{file}: {error}")),
            Ok(bytes) if checkpoint => unpack::<Value>(&bytes).err().map(|error| format!("{file} is damaged: {error:#}")),
            Ok(bytes) => {
                let damaged = journal::events(&bytes).iter().filter(|event| journal::is_damaged(&event.body)).count();
                (damaged > 0).then(|| format!("{damaged} lines of {file} are damaged"))
            }
        }
    };
    files.iter().filter_map(wrong).collect()
}

fn tasks(data: &DataFolder, deep: bool, found: &mut Findings) {
    let Tasks { tasks, damaged: mut wrong } = match data.tasks() {
        Ok(tasks) => tasks,
        Err(error) => return found.add("tasks", Standing::Wrong, format!("{error:#}")),
    };
    let read = |path: &str| data.read(path);
    let damaged = |task: &RatingsTask| rows(task, &read, |_| Ok(())).err().map(|e| format!("{}: {e:#}", task.name));
    wrong.extend(tasks.iter().filter(|_| deep).filter_map(damaged));
    found.judge("tasks", format!("{} imported", tasks.len()), &wrong);
}

fn models(data: &DataFolder, deep: bool, found: &mut Findings) {
    let KnownModels { models, damaged: mut wrong } = match Models::of(data.root()).list() {
        Ok(models) => models,
        Err(error) => return found.add("models", Standing::Wrong, format!("{error:#}")),
    };
    for file in models.iter().flat_map(|m| &m.files) {
        let shown = file.path.display();
        match std::fs::metadata(&file.path) {
            Err(e) => wrong.push(format!("{shown}: {e}")),
            Ok(m) if m.len() != file.bytes => wrong.push(format!("{shown} has {} bytes, and had {}", m.len(), file.bytes)),
            Ok(_) if deep => match checksum(&file.path, |_| Ok(())) {
                Ok(sum) if sum == file.sha256 => {}
                Ok(_) => wrong.push(format!("{shown} is another file than the one that was added")),
                Err(e) => wrong.push(format!("{shown}: {e:#}")),
            },
            Ok(_) => {}
        }
    }
    found.judge("models", format!("{} known", models.len()), &wrong);
}

fn studies(data: &DataFolder, deep: bool, found: &mut Findings) {
    match Study::list(data) {
        Ok(all) => {
            let mut wrong: Vec<String> =
                all.iter().filter_map(|id| Study::open(data, id).err().map(|e| format!("{id}: {e}"))).collect();
            for id in all.iter().filter(|_| deep) {
                wrong.extend(damaged(&data.study(id)).into_iter().map(|file| format!("{id}: {file}")));
            }
            found.judge("studies", all.len().to_string(), &wrong);
        }
        Err(error) => found.add("studies", Standing::Wrong, format!("{error:#}")),
    }
}

fn cluster(found: &mut Findings) {
    let version = Command::new("sbatch").arg("--version").stdin(Stdio::null()).output().ok().filter(|o| o.status.success());
    match version {
        Some(out) => found.add("cluster", Standing::Good, String::from_utf8_lossy(&out.stdout).trim()),
        None => found.add("cluster", Standing::Note, "no Slurm here; studies train on this machine"),
    }
}
