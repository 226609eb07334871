//! Runs at work for the page, finished or not: a process for each run that is asked, which loads its models once and ends when nobody asks. There
//! is no tensor in the server.

use crate::error::Error;
use crate::folder::DataFolder;
use crate::id::RunId;
use crate::launch::Local;
use anyhow::Context;
use moslim_shared::inference::{GenerateEvent, GenerateRequest, Pair, Scored};
use moslim_shared::objective::Objective;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::sync::{mpsc, watch};

/// Runs that are loaded at a time.
const MOST_LOADED: usize = 4;
/// Requests that wait for one run.
const MOST_WAITING: usize = 8;
/// A run that nobody asks for so long is put away.
const IDLE: Duration = Duration::from_secs(300);

/// What such a process is asked, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    Generate {
        number: u64,
        request: GenerateRequest,
    },
    Score {
        number: u64,
        pairs: Vec<Pair>,
        target: String,
    },
    /// Nobody listens to this answer any more.
    Stop {
        number: u64,
    },
}

/// What it says, a line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// It has loaded the run.
    Ready {
        objectives: Vec<Objective>,
    },
    /// It cannot.
    Broken {
        message: String,
    },
    Event {
        number: u64,
        event: GenerateEvent,
    },
    Scores {
        number: u64,
        scores: Vec<Scored>,
    },
    Refused {
        number: u64,
        message: String,
    },
}

/// The runs that are loaded.
pub struct Inference {
    data: DataFolder,
    launcher: Arc<Local>,
    loaded: tokio::sync::Mutex<HashMap<RunId, Arc<Worker>>>,
}

/// What comes back of one request; who drops it is understood to want no more of it.
pub struct Reply {
    worker: Arc<Worker>,
    number: u64,
    heard: mpsc::UnboundedReceiver<Told>,
}

impl Reply {
    /// The next that is told; `None` where the process has gone.
    pub async fn next(&mut self) -> Option<Told> {
        self.heard.recv().await
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.worker.waiting().remove(&self.number).is_some() {
            let _ = self.worker.asked.send(Asked::Stop { number: self.number });
        }
        *self.worker.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

type Waiting = HashMap<u64, mpsc::UnboundedSender<Told>>;

/// How a process stands.
#[derive(Debug, Clone, PartialEq)]
enum Standing {
    Loading,
    Ready,
    Gone(String),
}

struct Worker {
    asked: mpsc::UnboundedSender<Asked>,
    waiting: Mutex<Waiting>,
    used: Mutex<Instant>,
    number: AtomicU64,
    standing: watch::Receiver<Standing>,
}

impl Worker {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_gone(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Gone(_))
    }

    fn idle(&self) -> Option<Duration> {
        self.waiting().is_empty().then(|| self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed())
    }
}

impl Inference {
    /// Of the runs in a data folder.
    pub fn new(data: DataFolder, launcher: Arc<Local>) -> Self {
        Self { data, launcher, loaded: tokio::sync::Mutex::default() }
    }

    /// Asks a run; waits until it is loaded. `ask` gets the request's number.
    ///
    /// # Errors
    /// [`Error::Busy`] while too many ask; [`Error::Conflict`] when it cannot be loaded; [`Error::Internal`] when no process can be started.
    pub async fn ask(&self, run: &RunId, ask: impl FnOnce(u64) -> Asked) -> Result<Reply, Error> {
        let worker = self.worker(run).await?;
        let number = worker.number.fetch_add(1, Ordering::Relaxed);
        let (told, heard) = mpsc::unbounded_channel();
        {
            let mut waiting = worker.waiting();
            if waiting.len() >= MOST_WAITING {
                return Err(Error::Busy(format!("{MOST_WAITING} requests wait for run {run} already; try again in a moment")));
            }
            waiting.insert(number, told);
        }
        let reply = Reply { worker: worker.clone(), number, heard };
        let mut standing = worker.standing.clone();
        let known = standing.wait_for(|s| *s != Standing::Loading).await.map(|s| s.clone());
        if let Ok(Standing::Gone(message)) = known {
            return Err(Error::Conflict(message));
        }
        worker.asked.send(ask(number)).context("the process that answers has gone")?;
        Ok(reply)
    }

    async fn worker(&self, run: &RunId) -> Result<Arc<Worker>, Error> {
        let mut loaded = self.loaded.lock().await;
        loaded.retain(|_, worker| !worker.is_gone());
        if let Some(worker) = loaded.get(run) {
            return Ok(worker.clone());
        }
        if loaded.len() >= MOST_LOADED {
            let oldest =
                loaded.iter().filter_map(|(id, worker)| Some((worker.idle()?, id.clone()))).max_by_key(|(idle, _)| *idle);
            let Some((_, oldest)) = oldest else {
                return Err(Error::Busy(format!("{MOST_LOADED} runs are being asked already; try again in a moment")));
            };
            loaded.remove(&oldest);
        }
        let worker = self.start(run)?;
        loaded.insert(run.clone(), worker.clone());
        Ok(worker)
    }

    fn start(&self, run: &RunId) -> Result<Arc<Worker>, Error> {
        let mut command = Command::new(self.launcher.program());
        command.args([
            "inference".into(),
            format!("--run={run}").into(),
            "--data".into(),
            self.data.root().as_os_str().to_owned(),
        ]);
        command.envs(self.launcher.environment());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        // Ctrl-C in a terminal goes to the whole process group; this one ends with the server, and quietly.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().context("starting a process")?;
        let (mut to, from) = child.stdin.take().zip(child.stdout.take()).context("a process without pipes")?;
        let (asked, mut asking) = mpsc::unbounded_channel::<Asked>();
        let (stand, standing) = watch::channel(Standing::Loading);
        let worker = Arc::new(Worker {
            asked,
            waiting: Mutex::default(),
            used: Mutex::new(Instant::now()),
            number: AtomicU64::new(1),
            standing,
        });
        let known = Arc::downgrade(&worker);
        tokio::spawn(async move {
            let mut lines = BufReader::new(from).lines();
            let why = loop {
                tokio::select! {
                    said = next(&mut lines) => match said {
                        Some(Told::Ready { .. }) => { let _ = stand.send(Standing::Ready); }
                        Some(Told::Broken { message }) => break message,
                        Some(told) => if let Some(worker) = known.upgrade() { worker.pass_on(told) },
                        None => break "the process that answers has ended".to_string(),
                    },
                    // Closed when nobody knows the worker any more.
                    asked = asking.recv() => {
                        let Some(line) = asked.and_then(|asked| serde_json::to_string(&asked).ok()) else {
                            break "it was put away".to_string()
                        };
                        if to.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                            break "the process that answers has ended".to_string();
                        }
                    }
                }
            };
            let _ = stand.send(Standing::Gone(why));
            // Who waits hears that nothing more comes.
            if let Some(worker) = known.upgrade() {
                worker.waiting().clear();
            }
            let _ = child.kill().await;
        });
        Ok(worker)
    }

    /// Puts runs away that nobody has asked for a while; for ever.
    pub async fn tidy(&self) {
        loop {
            tokio::time::sleep(IDLE / 5).await;
            self.loaded.lock().await.retain(|_, worker| !worker.is_gone() && worker.idle().is_none_or(|idle| idle < IDLE));
        }
    }
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<Told> {
    loop {
        let line = lines.next_line().await.ok().flatten()?;
        match serde_json::from_str(&line) {
            Ok(told) => return Some(told),
            Err(error) => tracing::warn!("a process that answers said what is not understood ({error}): {line:.200}"),
        }
    }
}

impl Worker {
    fn pass_on(&self, told: Told) {
        let (number, last) = match &told {
            Told::Event { number, event } => (*number, event.is_last()),
            Told::Scores { number, .. } | Told::Refused { number, .. } => (*number, true),
            Told::Ready { .. } | Told::Broken { .. } => return,
        };
        let mut waiting = self.waiting();
        let heard = waiting.get(&number).is_some_and(|to| to.send(told).is_ok());
        if last || !heard {
            waiting.remove(&number);
        }
    }
}
