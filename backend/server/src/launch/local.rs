//! Child processes on this machine.

use super::{Ending, Launch, Launcher, Life, limits, process};
use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

/// What a process writes to standard error goes here, in its folder.
pub const LOG: &str = "worker.log";

/// Starts this very program again, also after a rebuild has replaced its file.
pub struct Local {
    program: PathBuf,
    /// Keeps the program's file open, and with it alive.
    _handle: Option<std::fs::File>,
    /// MiB that a run may take, where somebody has said so.
    memory: Option<u64>,
    /// Those of this process, until they are gone and how they went is known.
    children: Mutex<HashMap<PathBuf, Child>>,
    gone: Mutex<HashMap<PathBuf, String>>,
}

impl Local {
    /// Takes hold of the running program; call it at the start.
    ///
    /// # Errors
    /// When the program's file cannot be found.
    pub fn new() -> Result<Self> {
        // The link stays good when the file that it was started from is replaced.
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let handle = std::fs::File::open("/proc/self/exe").context("opening this program")?;
            let program = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), handle.as_raw_fd()));
            Ok(Self { program, _handle: Some(handle), memory: None, children: Mutex::default(), gone: Mutex::default() })
        }
        #[cfg(not(target_os = "linux"))]
        {
            let program = std::env::current_exe().context("finding this program")?;
            Ok(Self { program, _handle: None, memory: None, children: Mutex::default(), gone: Mutex::default() })
        }
    }

    /// Those that it starts, and those that they start, limit the memory of a run to so many MiB.
    pub fn with_memory(self, memory: Option<u64>) -> Self {
        Self { memory, ..self }
    }

    /// The program to start, for commands that are waited for.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What is added to the environment of processes that load a model, so that they limit their memory as those do that train.
    pub fn environment(&self) -> Option<(&'static str, String)> {
        self.memory.map(|mib| (limits::VARIABLE, mib.to_string()))
    }

    /// Looks whether a child of this process has gone, and how.
    fn reap(&self, folder: &Path) -> Option<Life> {
        let mut children = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        let child = children.get_mut(folder)?;
        let how = match child.try_wait() {
            Ok(None) => return Some(Life::Running),
            Ok(Some(status)) => describe(status),
            Err(error) => error.to_string(),
        };
        children.remove(folder);
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.into(), how.clone());
        Some(Life::Gone(Some(how)))
    }
}

impl Launcher for Local {
    fn start(&self, launch: &Launch) -> Result<()> {
        std::fs::create_dir_all(&launch.folder).with_context(|| format!("creating {}", launch.folder.display()))?;
        let log = launch.folder.join(LOG);
        let log =
            OpenOptions::new().create(true).append(true).open(&log).with_context(|| format!("writing {}", log.display()))?;
        let mut command = Command::new(&self.program);
        command.args(&launch.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(threads) = launch.threads {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        command.envs(self.environment());
        // Ctrl-C in a terminal goes to the whole process group; who started a process may end without it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        super::bring_home(&launch.folder)?;
        let child = command.spawn().context("starting a process")?;
        self.forget(&launch.folder);
        self.children.lock().unwrap_or_else(PoisonError::into_inner).insert(launch.folder.clone(), child);
        Ok(())
    }

    fn memory(&self) -> Option<u64> {
        self.memory
    }

    fn stop(&self, folder: &Path, ending: Ending) -> Result<bool> {
        let child = || self.children.lock().unwrap_or_else(PoisonError::into_inner).get(folder).map(Child::id);
        let Some(pid) = process::holder(folder).map(|p| p.pid).or_else(child) else { return Ok(false) };
        send(pid, ending)?;
        Ok(true)
    }

    fn poll(&self, folder: &Path) -> Life {
        match self.reap(folder) {
            Some(life) => life,
            None if process::is_taken(folder) => Life::Running,
            None => Life::Gone(self.gone.lock().unwrap_or_else(PoisonError::into_inner).get(folder).cloned()),
        }
    }

    fn forget(&self, folder: &Path) {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).remove(folder);
    }
}

/// Tells a process how to end.
#[cfg(unix)]
pub(super) fn send(pid: u32, ending: Ending) -> Result<()> {
    use rustix::process::{Pid, Signal, kill_process, kill_process_group};
    let signal = match ending {
        Ending::Cancel => Signal::INT,
        Ending::Interrupt | Ending::Pause => Signal::TERM,
        Ending::Kill => Signal::KILL,
    };
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { bail!("{pid} is no process") };
    // Those that are started here lead a group of their own; one that a script has started may lead none. The first process's would be all.
    if ending == Ending::Kill && pid != Pid::INIT && kill_process_group(pid, signal).is_ok() {
        return Ok(());
    }
    match kill_process(pid, signal) {
        // It went by itself meanwhile.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("telling a process to end"),
    }
}

#[cfg(not(unix))]
pub(super) fn send(pid: u32, _ending: Ending) -> Result<()> {
    let killed = Command::new("taskkill").args(["/F", "/PID", &pid.to_string()]).status().context("starting taskkill")?;
    if killed.success() { Ok(()) } else { bail!("process {pid} could not be ended") }
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("its process was killed by signal {signal}");
    }
    match status.code() {
        Some(code) => format!("its process ended with exit code {code}"),
        None => "its process is gone".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn how_a_process_went_is_known() {
        let run = |script: &str| describe(Command::new("sh").arg("-c").arg(script).status().unwrap());
        assert_eq!(run("exit 3"), "its process ended with exit code 3");
        assert_eq!(run("kill -9 $$"), "its process was killed by signal 9");
    }

    #[cfg(unix)]
    #[test]
    fn what_a_cluster_had_and_goes_on_here_is_the_clusters_no_more() {
        use crate::launch::is_elsewhere;
        let folder = std::env::temp_dir().join(format!("moslim-local-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("slurm.json"), "{}").unwrap();
        // A cluster that is gone, and had the run twice.
        std::fs::write(folder.join("ray.json"), r#"{"address": "http://127.0.0.1:9", "id": "run.2", "times": 2}"#).unwrap();
        assert!(is_elsewhere(&folder));
        let local =
            Local { program: "true".into(), _handle: None, memory: None, children: Mutex::default(), gone: Mutex::default() };
        for _ in 0..2 {
            local.start(&Launch { args: Vec::new(), folder: folder.clone(), threads: None }).unwrap();
            assert!(!is_elsewhere(&folder));
        }
        // A cluster takes no name twice, so that how often it had the run stays known.
        let left: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("ray.json")).unwrap()).unwrap();
        assert_eq!((&left["times"], &left["left"]), (&2.into(), &true.into()));
        local.children.into_inner().unwrap().into_values().for_each(|mut child| _ = child.wait());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
