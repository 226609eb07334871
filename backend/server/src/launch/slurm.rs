//! Runs of a study on a Slurm cluster: one job array, with the stages that runs share as jobs before it.
//!
//! Everything about a submission lies in the study's folder, `slurm/N.sh` and `slurm/N.runs`, and is written before Slurm is asked;
//! its jobs are found again by their name, `STUDY.N`. So whoever follows a study may end, be killed, and come back: nothing is lost and
//! nothing is submitted twice. The data folder has to be one that all nodes see.

mod seen;

use super::{Ending, Launch, Launcher, Life, process, quoted};
use anyhow::{Context, Result, bail};
use moslim_engine::keep::write_atomically;
use moslim_shared::config::Problem;
use moslim_shared::study::Host;
use seen::{Seen, Snapshot, tasks};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In a study's folder: what was submitted, and what jobs print.
const FOLDER: &str = "slurm";
/// In a run's folder: which task of which submission it is.
const TASK: &str = "slurm.json";
/// The time between two calls of `squeue` while something happens.
const SOONEST: Duration = Duration::from_secs(2);
/// How long `scancel` may take to send a signal; it waits five seconds before it sends it again.
const ONCE: Duration = Duration::from_secs(3);

/// How a cluster wants its jobs: a TOML file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Partition; the cluster's default where it is empty.
    pub partition: String,
    /// Limit of a job's time, as sbatch has it: minutes, or H:MM:SS, or D-HH. A run that reaches it goes on in a new job.
    pub time: String,
    /// Memory of a job, such as `4G`.
    pub memory: String,
    /// Cores of a job, or, of several ranks, of each.
    pub cores: u16,
    /// Processes that train a run together, over MPI; each may be on a node of its own. A build with the feature `mpi` is needed.
    pub ranks: u16,
    /// Jobs of a study that may run at a time; 0 for as many as there is room for.
    pub at_a_time: u16,
    /// Seconds before the limit of time at which a run is told to keep what it has.
    pub notice: u16,
    /// Seconds between two questions to the cluster at most.
    pub ask_every: u16,
    /// Modules to load.
    pub modules: Vec<String>,
    /// Lines of shell before the program.
    pub setup: Vec<String>,
    /// Words before the program, such as `["apptainer", "exec", "lab.sif"]`.
    pub container: Vec<String>,
    /// The program on the nodes; this one where it is empty.
    pub program: PathBuf,
    /// More options for sbatch, such as `["--account=group", "--gres=gpu:1"]`.
    pub options: Vec<String>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            partition: String::new(),
            time: String::new(),
            memory: String::new(),
            cores: 1,
            ranks: 1,
            at_a_time: 0,
            notice: 120,
            ask_every: 30,
            modules: Vec::new(),
            setup: Vec::new(),
            container: Vec::new(),
            program: PathBuf::new(),
            options: Vec::new(),
        }
    }
}

impl Profile {
    /// What cannot be right, by field.
    pub fn problems(&self) -> Vec<Problem> {
        let mut out = Vec::new();
        let mut says = |field: &str, message: &str| out.push(Problem { field: field.into(), message: message.into() });
        let plain = |text: &str| !text.chars().any(|c| c.is_control());
        if self.cores == 0 {
            says("cores", "must be at least 1");
        }
        if self.ranks == 0 {
            says("ranks", "must be at least 1");
        }
        if !(10..=3600).contains(&self.notice) {
            says("notice", "must be 10 to 3600 seconds");
        }
        if !(2..=3600).contains(&self.ask_every) {
            says("ask_every", "must be 2 to 3600 seconds");
        }
        for (field, text) in [("partition", &self.partition), ("time", &self.time), ("memory", &self.memory)] {
            if !text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:,".contains(c)) {
                says(field, "has letters, digits and - _ . : , only");
            }
        }
        for (field, list) in
            [("modules", &self.modules), ("setup", &self.setup), ("container", &self.container), ("options", &self.options)]
        {
            if list.iter().any(|text| text.is_empty() || !plain(text)) {
                says(field, "has an entry that is empty or no single line");
            }
        }
        if let Some(option) = self.options.iter().find(|o| !o.starts_with('-')) {
            says("options", &format!("has \"{option}\", which is no option; write --name=value"));
        }
        out
    }
}

/// Which task of which submission a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Task {
    /// Name of the job array.
    name: String,
    index: usize,
    /// Where its jobs print to.
    output: PathBuf,
}

/// Runs on a cluster.
pub struct Slurm {
    profile: Profile,
    snapshot: Mutex<Snapshot>,
}

/// Runs a command of Slurm's.
fn ask(program: &str, args: &[String]) -> Result<String> {
    let out =
        Command::new(program).args(args).output().with_context(|| format!("starting {program}; is Slurm installed here?"))?;
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

fn task_of(folder: &Path) -> Option<Task> {
    serde_json::from_slice(&fs::read(folder.join(TASK)).ok()?).ok()
}

/// The arrays that a study has submitted, from its folder.
fn submitted(study: &Path) -> Vec<String> {
    let id = study.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = fs::read_dir(study.join(FOLDER)).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|e| e.file_name().to_str()?.strip_suffix(".sh").map(str::to_string));
    let mut names: Vec<String> = numbers.map(|n| format!("{id}.{n}")).collect();
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
    let (mut running, mut waiting) = (Vec::new(), Vec::new());
    for (key, seen) in squeue(&names)? {
        match seen.life() {
            _ if !is_meant(&key) => {}
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

/// Whether a run is one of a cluster's.
pub fn is_task(run: &Path) -> bool {
    run.join(TASK).is_file()
}

/// A run is no cluster's any more.
///
/// # Errors
/// When its file cannot be deleted.
pub fn leave(run: &Path) -> Result<()> {
    match fs::remove_file(run.join(TASK)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("deleting {TASK} of {}", run.display()))
        }
        _ => Ok(()),
    }
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

    /// The script of an array: task N starts the Nth of its launches.
    fn script(&self, launches: &[Launch]) -> Result<String> {
        let program = self.program()?;
        let mut out = String::from("#!/bin/sh\n# Written by moslim-lab; one task for each line of the case.\n");
        for module in &self.profile.modules {
            out += &format!("module load {}\n", quoted([module])?);
        }
        for line in &self.profile.setup {
            out += &format!("{line}\n");
        }
        out += "export RAYON_NUM_THREADS=\"${SLURM_CPUS_PER_TASK:-1}\"\ncase $SLURM_ARRAY_TASK_ID in\n";
        let several = self.profile.ranks > 1;
        let step: &[&str] = if several { &["srun", "--mpi=pmix", "--kill-on-bad-exit=1"] } else { &[] };
        for (n, launch) in launches.iter().enumerate() {
            let before = step.iter().map(OsStr::new).chain(self.profile.container.iter().map(OsStr::new));
            let words = before.chain([program.as_os_str()]);
            out += &format!("{n}) set -- {} ;;\n", quoted(words.chain(launch.args.iter().map(|a| a.as_os_str())))?);
        }
        out += "*) echo \"no task $SLURM_ARRAY_TASK_ID\" >&2; exit 2 ;;\nesac\n";
        // `srun` hands on to its tasks neither every signal nor the number of cores.
        out += if several {
            "export SRUN_CPUS_PER_TASK=\"${SLURM_CPUS_PER_TASK:-1}\"\ntell() { scancel --signal=\"$1\" \"$SLURM_JOB_ID.0\"; }\n"
        } else {
            "tell() { kill -\"$1\" \"$child\"; }\n"
        };
        // A signal ends `wait`, not the program: wait again until it is gone. At the limit of time it keeps what it has, and its task
        // goes back into the queue.
        out += r#""$@" &
child=$!
again=
trap 'again=1; tell TERM' USR1
trap 'tell TERM' TERM
trap 'tell INT' INT
while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
if [ -n "$again" ] && [ "$code" -ne 0 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
"#;
        Ok(out)
    }

    /// Submits an array, and returns its job's number.
    fn array(&self, study: &Path, number: &str, launches: &[Launch], after: Option<&str>) -> Result<String> {
        let folder = study.join(FOLDER);
        let id = study.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{id}.{number}");
        let script = folder.join(format!("{number}.sh"));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        for (index, launch) in launches.iter().enumerate() {
            let task = Task { name: name.clone(), index, output: folder.join(format!("{number}-{index}.out")) };
            let file = launch.folder.join(TASK);
            write_atomically(&file, &serde_json::to_vec(&task)?).with_context(|| format!("writing {}", file.display()))?;
        }
        write_atomically(&script, self.script(launches)?.as_bytes()).with_context(|| format!("writing {}", script.display()))?;
        let p = &self.profile;
        let most = if p.at_a_time == 0 { String::new() } else { format!("%{}", p.at_a_time) };
        let mut args: Vec<String> = vec![
            "--parsable".into(),
            "--requeue".into(),
            "--open-mode=append".into(),
            format!("--job-name={name}"),
            format!("--array=0-{}{most}", launches.len() - 1),
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
        let job = ask("sbatch", &args).inspect_err(|_| {
            // Nothing waits that was not taken.
            let _ = fs::remove_file(&script);
            launches.iter().for_each(|l| _ = fs::remove_file(l.folder.join(TASK)));
        })?;
        // A cluster's name may follow the number.
        Ok(job.trim().split(';').next().unwrap_or_default().to_string())
    }

    /// Submits `launches`, of a study with this folder, as an array that begins when `before`, another, has ended, however it did.
    ///
    /// # Errors
    /// When the cluster takes them not; nothing waits there then.
    pub fn submit(&self, study: &Path, before: &[Launch], launches: &[Launch]) -> Result<()> {
        let number = (1..).find(|n| !study.join(FOLDER).join(format!("{n}.sh")).exists()).unwrap_or(1);
        let stages = match before {
            [] => None,
            before => Some(self.array(study, &format!("{number}-stages"), before, None)?),
        };
        let runs = self.array(study, &number.to_string(), launches, stages.as_deref());
        if let (Err(_), Some(stages)) = (&runs, &stages) {
            let _ = ask("scancel", std::slice::from_ref(stages));
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
        self.submit(&launch.folder, &[], std::slice::from_ref(launch))
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
