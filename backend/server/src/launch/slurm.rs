//! Runs of a study on a Slurm cluster: one job array, with the stages that runs share as jobs before it.
//!
//! Everything about a submission lies in the study's folder, `slurm/N.sh` and `slurm/N.runs`, and is written before Slurm is asked;
//! its jobs are found again by their name, `STUDY.N`. So whoever follows a study may end, be killed, and come back: nothing is lost and
//! nothing is submitted twice. The data folder has to be one that all nodes see.

mod profile;
mod script;
mod seen;
mod task;

use super::local::send;
use super::{Ending, Launch, Launcher, Life, process};
use anyhow::{Context, Result, bail};
use moslim_engine::keep::write_atomically;
use moslim_shared::study::Host;
pub use profile::Profile;
use script::script;
use seen::{Seen, Snapshot, tasks};
use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use task::{Place, TASK, Task, task_of};

/// In a study's folder: what was submitted, and what jobs print.
const FOLDER: &str = "slurm";
/// The time between two calls of `squeue` while something happens.
const SOONEST: Duration = Duration::from_secs(2);
/// How long a command of Slurm's may take: a controller that is busy makes them wait.
const LONGEST: Duration = Duration::from_secs(100);
/// How long `scancel` may take to send a signal; it waits five seconds before it sends it again.
const ONCE: Duration = Duration::from_secs(3);

/// Runs on a cluster.
pub struct Slurm {
    profile: Profile,
    snapshot: Mutex<Snapshot>,
}

/// Runs a command of Slurm's.
fn ask(program: &str, args: &[String]) -> Result<String> {
    let starting = || format!("starting {program}; is Slurm installed here?");
    let mut command = Command::new(program);
    let child =
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(starting)?;
    let (pid, (ended, end)) = (child.id(), std::sync::mpsc::channel());
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    let Ok(out) = end.recv_timeout(LONGEST) else {
        send(pid, Ending::Kill)?;
        bail!("{program} says nothing for {} seconds", LONGEST.as_secs());
    };
    let out = out.with_context(starting)?;
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr);
        bail!("{program} says: {}", crate::failure::printable(why.trim()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Sends a signal to a running task's script, once. While tasks of the same array are pending `scancel` is told "try again later" although the signal has arrived,
/// and sends it again and again for a minute and a half: the second one would end a run at once.
fn signal_once(task: &str, signal: &str) -> Result<()> {
    let mut command = Command::new("scancel");
    let mut child = command
        .args(["--batch", "--signal", signal, task])
        .stderr(Stdio::piped())
        .spawn()
        .context("starting scancel; is Slurm installed here?")?;
    let began = Instant::now();
    let ended = loop {
        match child.try_wait().context("waiting for scancel")? {
            None if began.elapsed() < ONCE => std::thread::sleep(Duration::from_millis(50)),
            ended => break ended,
        }
    };
    let Some(status) = ended else {
        let _ = child.kill();
        let _ = child.wait();
        return Ok(());
    };
    if !status.success() {
        let mut why = String::new();
        let _ = child.stderr.take().map(|mut e| e.read_to_string(&mut why));
        bail!("scancel says: {}", crate::failure::printable(why.trim()));
    }
    Ok(())
}

/// Asks for all tasks of some arrays in one call, with those that ended and are not forgotten.
fn squeue(names: &[String]) -> Result<HashMap<(String, usize), Seen>> {
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let args = ["-h", "-r", "-t", "all", "--name", &names.join(","), "-o", "%i|%j|%T|%r"].map(String::from);
    ask("squeue", &args).map(|text| tasks(&text))
}

/// The name of a study's array.
fn name_of(study: &Path, number: &str) -> String {
    format!("{}.{number}", study.file_name().unwrap_or_default().to_string_lossy())
}

/// Writes down for every run of `jobs` which task of their array it is.
fn note_tasks(study: &Path, number: &str, jobs: &[Vec<Launch>]) -> Result<()> {
    let (name, folder) = (name_of(study, number), study.join(FOLDER));
    let mut first = 0;
    for (index, job) in jobs.iter().enumerate() {
        for (launch, run) in job.iter().zip(first..) {
            let place = (job.len() > 1).then_some(Place { first, number: run });
            let task = Task { name: name.clone(), index, output: folder.join(format!("{number}-{index}.out")), place };
            let file = launch.folder.join(TASK);
            write_atomically(&file, &serde_json::to_vec(&task)?).with_context(|| format!("writing {}", file.display()))?;
        }
        first += job.len();
    }
    Ok(())
}

/// Whether a file is what jobs of an array write down of its runs, or are told of them.
fn is_left_by(file: &str, number: &str) -> bool {
    let rest = file.strip_prefix(number).and_then(|rest| rest.strip_prefix('-'));
    let job = rest.and_then(|rest| rest.split_once('.')).filter(|(_, end)| *end == "ended" || end.ends_with(".stop"));
    job.is_some_and(|(job, _)| !job.is_empty() && job.bytes().all(|b| b.is_ascii_digit()))
}

/// The arrays that a study has submitted, from its folder.
fn submitted(study: &Path) -> Vec<String> {
    let entries = fs::read_dir(study.join(FOLDER)).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|e| e.file_name().to_str()?.strip_suffix(".sh").map(str::to_string));
    let mut names: Vec<String> = numbers.map(|n| name_of(study, &n)).collect();
    names.sort();
    names
}

/// Tells what a run or a whole study has on a cluster to end; false where it has nothing there. A run ends at its next step, and
/// what waits is taken out of the queue.
///
/// # Errors
/// When the cluster cannot be told.
pub fn stop(folder: &Path, ending: Ending) -> Result<bool> {
    let own = task_of(folder);
    let names = own.as_ref().map_or_else(|| submitted(folder), |task| vec![task.name.clone()]);
    let is_meant = |key: &(String, usize)| own.as_ref().is_none_or(|t| (t.name.as_str(), t.index) == (key.0.as_str(), key.1));
    let meant: Vec<Seen> = squeue(&names)?.into_iter().filter(|(key, _)| is_meant(key)).map(|(_, seen)| seen).collect();
    if let Some(task @ Task { place: Some(place), .. }) = &own {
        return stop_one_of_several(task, *place, meant.first(), ending);
    }
    let (mut running, mut waiting) = (Vec::new(), Vec::new());
    for seen in meant {
        match seen.life() {
            Life::Running if ending != Ending::Kill => running.push(seen.id),
            Life::Running | Life::Waiting(_) => waiting.push(seen.id),
            Life::Gone(_) => {}
        }
    }
    let signal = if ending == Ending::Cancel { "INT" } else { "TERM" };
    // What waits first: the end of a running task makes room for the next.
    if !waiting.is_empty() {
        ask("scancel", &waiting)?;
    }
    for id in &running {
        signal_once(id, signal)?;
    }
    Ok(!running.is_empty() || !waiting.is_empty())
}

/// Tells one of several runs of a job to end; the others go on. What is wished is written down first: a job looks before it begins a run, and
/// when it is told to.
fn stop_one_of_several(task: &Task, place: Place, job: Option<&Seen>, ending: Ending) -> Result<bool> {
    let Some(job) = job else { return Ok(false) };
    let life = job.life();
    if matches!(task.within(life.clone()), Life::Gone(_)) {
        return Ok(false);
    }
    let signal = match ending {
        Ending::Cancel => "INT",
        Ending::Interrupt | Ending::Pause => "TERM",
        Ending::Kill => "KILL",
    };
    let file = task.wish_file(place);
    write_atomically(&file, signal.as_bytes()).with_context(|| format!("writing {}", file.display()))?;
    if life == Life::Running {
        // A job that is so young that it hears nothing yet is not ended by it.
        signal_once(&job.id, "URG")?;
    }
    Ok(true)
}

/// A run that waits in its job is wanted after all, if it was not.
///
/// # Errors
/// When that it was not wanted cannot be taken back.
pub fn want_again(run: &Path) -> Result<()> {
    let Some(task @ Task { place: Some(place), .. }) = &task_of(run) else { return Ok(()) };
    remove(&task.wish_file(*place))
}

/// Deletes a file, if it is there.
fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| format!("deleting {}", file.display())),
        _ => Ok(()),
    }
}

/// Whether a run is one of a cluster's.
pub fn is_task(run: &Path) -> bool {
    run.join(TASK).is_file()
}

/// A run is no cluster's any more.
///
/// # Errors
/// When its file cannot be deleted.
pub fn leave(run: &Path) -> Result<()> {
    remove(&run.join(TASK))
}

/// Whether a study has jobs on a cluster that have not ended.
///
/// # Errors
/// When it was on one, which does not answer.
pub fn holds(study: &Path) -> Result<bool> {
    Ok(squeue(&submitted(study))?.values().any(|seen| !matches!(seen.life(), Life::Gone(_))))
}

impl Slurm {
    /// A cluster as `profile` wants it; Slurm's commands are asked whether they answer.
    ///
    /// # Errors
    /// When they do not.
    pub fn new(profile: Profile) -> Result<Self> {
        ask("squeue", &["--version".into()])?;
        Ok(Self { profile, snapshot: Mutex::default() })
    }

    /// The program that nodes start.
    fn program(&self) -> Result<PathBuf> {
        if !self.profile.program.as_os_str().is_empty() {
            return Ok(self.profile.program.clone());
        }
        let program = std::env::current_exe().context("finding this program")?;
        if !program.is_file() {
            bail!(
                "{} has been replaced since it was started, start again, or name another program in the profile",
                program.display()
            );
        }
        Ok(program)
    }

    /// Submits an array with a task for each of `jobs`, and returns its number.
    fn array(&self, study: &Path, number: &str, jobs: &[Vec<Launch>], after: Option<&str>, most: usize) -> Result<String> {
        let folder = study.join(FOLDER);
        let name = name_of(study, number);
        let script = folder.join(format!("{number}.sh"));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        // What an array of this number left that was not taken as a whole is of other runs.
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?.flatten() {
            if is_left_by(&entry.file_name().to_string_lossy(), number) {
                remove(&entry.path())?;
            }
        }
        let text = self::script(&self.profile, &self.program()?, jobs, &folder.join(number))?;
        write_atomically(&script, text.as_bytes()).with_context(|| format!("writing {}", script.display()))?;
        let p = &self.profile;
        let most = match (most, usize::from(p.at_a_time)) {
            (0, 0) => String::new(),
            (0, most) | (most, 0) => format!("%{most}"),
            (one, other) => format!("%{}", one.min(other)),
        };
        let mut args: Vec<String> = vec![
            "--parsable".into(),
            "--requeue".into(),
            "--open-mode=append".into(),
            format!("--job-name={name}"),
            format!("--array=0-{}{most}", jobs.len() - 1),
            format!("--output={}", folder.join(format!("{number}-%a.out")).display()),
            format!("--cpus-per-task={}", p.cores),
            format!("--ntasks={}", p.ranks),
            format!("--signal=B:USR1@{}", p.notice),
        ];
        for (option, value) in [("partition", &p.partition), ("time", &p.time), ("mem", &p.memory)] {
            if !value.is_empty() {
                args.push(format!("--{option}={value}"));
            }
        }
        args.extend(after.map(|job| format!("--dependency=afterany:{job}")));
        args.extend(p.options.iter().cloned());
        args.push(script.display().to_string());
        let job = match ask("sbatch", &args) {
            // A cluster's name may follow the number.
            Ok(job) => job.trim().split(';').next().unwrap_or_default().to_string(),
            Err(error) => match squeue(std::slice::from_ref(&name)) {
                // A controller that was too busy to answer may have taken it.
                Ok(taken) => match taken.into_values().next() {
                    Some(seen) => seen.id.split('_').next().unwrap_or_default().to_string(),
                    None => {
                        // Nothing waits that was not taken.
                        let _ = fs::remove_file(&script);
                        return Err(error);
                    }
                },
                Err(_) => {
                    return Err(error.context(
                        "whether the cluster has taken the jobs is not known; go on with the study when it answers, which finds them",
                    ));
                }
            },
        };
        Ok(job)
    }

    /// How many runs a job trains, one after the other.
    pub fn runs_per_job(&self) -> usize {
        self.profile.runs_per_job.into()
    }

    /// Submits `jobs`, of a study with this folder, as an array that begins when `before`, another, has ended, however it did. At `most` so many
    /// run at a time, where that is not 0.
    ///
    /// # Errors
    /// When the cluster takes them not; nothing waits there then.
    pub fn submit(&self, study: &Path, before: &[Vec<Launch>], jobs: &[Vec<Launch>], most: usize) -> Result<()> {
        let number = (1..).find(|n| !study.join(FOLDER).join(format!("{n}.sh")).exists()).unwrap_or(1).to_string();
        let stages = match before {
            [] => None,
            before => Some(self.array(study, &format!("{number}-stages"), before, None, most)?),
        };
        // Before they are submitted: who follows the study may be gone by the time that they are.
        note_tasks(study, &number, jobs)?;
        let runs = self.array(study, &number, jobs, stages.as_deref(), most);
        if runs.is_err() && !study.join(FOLDER).join(format!("{number}.sh")).exists() {
            jobs.iter().flatten().for_each(|l| _ = fs::remove_file(l.folder.join(TASK)));
            if let Some(stages) = &stages {
                let _ = ask("scancel", std::slice::from_ref(stages));
            }
        }
        runs.map(|_| ())
    }

    /// What the cluster says of an array and all that were asked for before, asked anew when it is time: soon after something changed, and ever more rarely while nothing does.
    fn look(&self, name: &str) -> std::sync::MutexGuard<'_, Snapshot> {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if !snapshot.names.iter().any(|known| known == name) {
            snapshot.names.push(name.into());
            snapshot.taken = None;
        }
        if snapshot.taken.is_none_or(|taken| taken.elapsed() >= snapshot.wait) {
            let longest = Duration::from_secs(self.profile.ask_every.into());
            let answer = squeue(&snapshot.names);
            snapshot.wait = match snapshot.hearing.hear(answer) {
                Some(tasks) => {
                    let wait = if tasks == snapshot.tasks { snapshot.wait * 2 } else { SOONEST };
                    (snapshot.tasks, snapshot.heard) = (tasks, snapshot.names.len());
                    wait.clamp(SOONEST, longest)
                }
                None => longest,
            };
            snapshot.taken = Some(Instant::now());
        }
        snapshot
    }
}

impl Launcher for Slurm {
    fn start(&self, launch: &Launch) -> Result<()> {
        self.submit(&launch.folder, &[], &[vec![launch.clone()]], 0)
    }

    fn host(&self) -> Host {
        Host::Slurm
    }

    fn queue(&self) -> Option<&Slurm> {
        Some(self)
    }

    fn stop(&self, folder: &Path, ending: Ending) -> Result<bool> {
        stop(folder, ending)
    }

    fn poll(&self, folder: &Path) -> Life {
        let Some(task) = task_of(folder) else {
            return if process::is_taken(folder) { Life::Running } else { Life::Gone(None) };
        };
        self.look(&task.name).life(&task)
    }
}

#[cfg(test)]
mod tests {
    use super::is_left_by;

    #[test]
    fn what_jobs_of_an_array_wrote_down_is_known_by_its_name() {
        for file in ["1-0.ended", "1-12.ended", "1-3.40.stop"] {
            assert!(is_left_by(file, "1"), "{file}");
        }
        for file in ["1.sh", "1-0.out", "11-0.ended", "1-stages-0.ended", "1-.ended", "1-x.ended"] {
            assert!(!is_left_by(file, "1"), "{file}");
        }
        assert!(is_left_by("1-stages-0.ended", "1-stages"));
    }
}
