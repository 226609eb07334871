//! Starts and supervises the child process that trains a run.
//!
//! A run is a process of its own, so that a crash, an out-of-memory kill or an abort of a driver ends that run and never
//! the server. The child speaks [`EventBody`] lines on its standard output; its standard input is the server's hold on it:
//! the line `cancel` ends the run, and the end of input (also when the server dies) makes it write a checkpoint and leave.

use crate::error::Error;
use crate::folder::DataFolder;
use crate::id::RunId;
use crate::store::Store;
use anyhow::{Context, anyhow};
use moslim_engine::model::store::write_atomically;
use moslim_shared::config::RunConfig;
use moslim_shared::event::{EventBody, Outcome, RunInfo, RunStatus};
use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Time for a worker to reach a checkpoint after it was told to stop.
const STOP_TIME: Duration = Duration::from_secs(30);
/// Time for a process to go after its output ended.
const EXIT_TIME: Duration = Duration::from_secs(15);
/// Events written in one transaction at most.
const BATCH: usize = 256;
/// Lines of the worker's standard error that are kept, and how many of them a failure shows.
const KEPT_LINES: usize = 50;
const SHOWN_LINES: usize = 10;

/// Starts workers, one at a time, and keeps hold of the one that runs.
pub struct Supervisor {
    store: Store,
    data: DataFolder,
    slot: Arc<Mutex<Slot>>,
}

/// What runs now. It is locked while a run starts and while its end is recorded, so that who reads of an end can start
/// the next run at once.
#[derive(Default)]
struct Slot {
    active: Option<Active>,
    closing: bool,
}

struct Active {
    run: RunId,
    /// Dropping it tells the worker to write a checkpoint and leave.
    input: Option<ChildStdin>,
    hold: Arc<Hold>,
    task: JoinHandle<()>,
}

/// What the task that supervises a worker is told from outside.
#[derive(Default)]
struct Hold {
    kill: Notify,
    /// How the run ends if the worker does not say so itself: because it was told to.
    told: std::sync::Mutex<Option<Outcome>>,
}

impl Hold {
    fn tell(&self, outcome: Outcome) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    fn told(&self) -> Option<Outcome> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    /// A supervisor without a worker.
    pub fn new(store: Store, data: DataFolder) -> Self {
        Self { store, data, slot: Arc::default() }
    }

    /// Starts a new run with a valid configuration.
    ///
    /// # Errors
    /// [`Error::Conflict`] while another run trains; [`Error::Internal`] when it cannot be recorded or started.
    pub async fn start(&self, config: &RunConfig) -> Result<RunInfo, Error> {
        let mut slot = self.slot.lock().await;
        slot.free()?;
        let id = RunId::fresh();
        self.write_config(&id, config).await?;
        self.store.insert(&id, config).await?;
        self.launch(&mut slot, &id).await?;
        self.find(&id).await
    }

    /// Goes on with a run that did not finish, from its last checkpoint.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Conflict`] when it finished or any run trains.
    pub async fn resume(&self, id: &RunId) -> Result<RunInfo, Error> {
        let mut slot = self.slot.lock().await;
        let run = self.find(id).await?;
        if run.status == RunStatus::Finished {
            return Err(Error::Conflict(format!("run {id} is finished; there is nothing to resume")));
        }
        slot.free()?;
        self.write_config(id, &run.config).await?;
        self.store.reopen(id).await?;
        self.launch(&mut slot, id).await?;
        self.find(id).await
    }

    /// Tells a running run to stop for good. It ends within moments, by itself or by force.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Conflict`] when it does not run.
    pub async fn cancel(&self, id: &RunId) -> Result<RunInfo, Error> {
        let mut slot = self.slot.lock().await;
        let run = self.find(id).await?;
        let Some(active) = slot.active.as_mut().filter(|a| &a.run == id) else {
            return Err(Error::Conflict(format!("run {id} is not running; only a running run can be cancelled")));
        };
        active.hold.tell(Outcome::Cancelled);
        if let Some(input) = active.input.as_mut() {
            // A worker that is about to end no longer reads; its end is recorded either way.
            let _ = input.write_all(b"cancel\n").await;
            let _ = input.flush().await;
        }
        let hold = active.hold.clone();
        tokio::spawn(async move {
            sleep(STOP_TIME).await;
            // Without a worker nobody waits for this any more.
            hold.kill.notify_one();
        });
        Ok(run)
    }

    /// Ends the worker, if there is one, at a checkpoint, and starts none from now on.
    pub async fn close(&self) {
        let mut slot = self.slot.lock().await;
        slot.closing = true;
        let Some(active) = slot.active.as_mut() else { return };
        active.input = None;
        if active.hold.told().is_none() {
            active.hold.tell(Outcome::Interrupted);
        }
        let hold = active.hold.clone();
        // The task takes the worker out of the slot when it is done, and needs the lock for that.
        let mut task = std::mem::replace(&mut active.task, tokio::spawn(async {}));
        drop(slot);
        if timeout(STOP_TIME, &mut task).await.is_err() {
            hold.kill.notify_one();
            let _ = timeout(EXIT_TIME, task).await;
        }
    }

    /// # Errors
    /// [`Error::Conflict`] while a run trains.
    pub async fn check_free(&self) -> Result<(), Error> {
        self.slot.lock().await.free()
    }

    async fn find(&self, id: &RunId) -> Result<RunInfo, Error> {
        self.store.run(id).await?.ok_or_else(|| Error::NotFound(format!("there is no run {id}")))
    }

    async fn write_config(&self, id: &RunId, config: &RunConfig) -> anyhow::Result<()> {
        let path = self.data.config(id);
        let text = serde_json::to_vec_pretty(config)?;
        let written = tokio::task::spawn_blocking(move || write_atomically(&path, &text)).await?;
        written.with_context(|| format!("writing the configuration of run {id}"))
    }

    /// Starts the worker of a run that the store calls running. If it cannot be started, the run has failed.
    async fn launch(&self, slot: &mut Slot, id: &RunId) -> Result<(), Error> {
        let mut child = match self.spawn(id) {
            Ok(child) => child,
            Err(error) => {
                let message = "the worker process could not be started".to_string();
                self.store.append(id, &[EventBody::Ended { outcome: Outcome::Failed, message }]).await?;
                return Err(Error::Internal(error));
            }
        };
        let input = child.stdin.take();
        let hold = Arc::new(Hold::default());
        let watch = Watch { store: self.store.clone(), slot: self.slot.clone(), run: id.clone(), hold: hold.clone() };
        let task = tokio::spawn(watch.supervise(child));
        slot.active = Some(Active { run: id.clone(), input, hold, task });
        Ok(())
    }

    fn spawn(&self, id: &RunId) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut command = Command::new(program);
        command
            .arg("worker")
            .arg(format!("--run={id}"))
            .arg("--config")
            .arg(self.data.config(id))
            .arg("--data")
            .arg(self.data.root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Ctrl-C in a terminal goes to the whole process group. The worker is told through its input instead, so that it
        // can write a checkpoint.
        #[cfg(unix)]
        command.process_group(0);
        command.spawn().context("starting the worker")
    }
}

impl Slot {
    /// # Errors
    /// [`Error::Conflict`] when no run can be started now.
    fn free(&self) -> Result<(), Error> {
        if self.closing {
            return Err(Error::Conflict("the server is stopping".into()));
        }
        match &self.active {
            None => Ok(()),
            Some(active) => Err(Error::Conflict(format!(
                "run {} is training, and one run trains at a time; wait for it or cancel it",
                active.run
            ))),
        }
    }
}

/// The task that turns a worker's output into the journal.
struct Watch {
    store: Store,
    slot: Arc<Mutex<Slot>>,
    run: RunId,
    hold: Arc<Hold>,
}

impl Watch {
    async fn supervise(self, mut child: Child) {
        let (sender, mut receiver) = mpsc::channel(4 * BATCH);
        if let Some(output) = child.stdout.take() {
            tokio::spawn(read_events(output, sender));
        }
        let errors = child.stderr.take().map(|stderr| tokio::spawn(read_errors(stderr, self.run.clone())));

        let mut ended = None;
        let mut lost = None;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            // Whatever has come is written at once; what comes meanwhile is the next batch. So a quiet worker's events
            // are not delayed, and a busy one's share a transaction.
            tokio::select! {
                count = receiver.recv_many(&mut batch, BATCH) => if count == 0 { break },
                () = self.hold.kill.notified() => kill(&mut child),
            }
            // The end is kept back until the process is gone: the last event says that the run is over, and it is.
            if let Some(at) = batch.iter().position(|body| matches!(body, EventBody::Ended { .. })) {
                ended = batch.drain(at..).next();
            }
            if let Err(error) = self.write(&batch).await {
                tracing::error!("run {}: its events cannot be stored, it is stopped: {error:#}", self.run);
                lost = Some(error);
                kill(&mut child);
                break;
            }
            batch.clear();
        }
        // The reader's end is closed too, or a worker that still writes would wait for ever.
        drop(receiver);

        let status = match timeout(EXIT_TIME, child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                kill(&mut child);
                child.wait().await
            }
        };
        let lines = match errors {
            Some(task) => timeout(Duration::from_secs(2), task).await.ok().and_then(Result::ok).unwrap_or_default(),
            None => VecDeque::new(),
        };
        let last = match (ended, lost) {
            (Some(ended), None) => ended,
            (_, Some(_)) => {
                let message = "its events could not be stored (is the disk full?); resume it to go on from its last checkpoint";
                EventBody::Ended { outcome: Outcome::Failed, message: message.to_string() }
            }
            (None, None) => unannounced_end(status.ok(), self.hold.told(), &lines),
        };

        let mut slot = self.slot.lock().await;
        if let Err(error) = self.write(&[last]).await {
            // The next start of the server finds the run marked as running and calls it interrupted.
            tracing::error!("run {}: its end cannot be stored: {error:#}", self.run);
        }
        slot.active = None;
    }

    /// Writes events; a database that is busy or a disk that is full for a moment costs time, not events.
    async fn write(&self, bodies: &[EventBody]) -> anyhow::Result<()> {
        let mut last = anyhow!("no attempt was made");
        for attempt in 0..10 {
            match self.store.append(&self.run, bodies).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
            tracing::warn!("run {}: storing its events failed, attempt {}: {last:#}", self.run, attempt + 1);
            sleep(Duration::from_millis(500)).await;
        }
        Err(last)
    }
}

fn kill(child: &mut Child) {
    if let Err(error) = child.start_kill() {
        tracing::warn!("a worker could not be killed: {error}");
    }
}

async fn read_events(output: impl AsyncRead + Unpin, sender: mpsc::Sender<EventBody>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let body = serde_json::from_str(&line).unwrap_or_else(|error| {
            tracing::warn!("a worker wrote a line that is no event ({error}): {}", shorten(&line));
            EventBody::Note { text: format!("(the worker said something unreadable: {error})") }
        });
        if sender.send(body).await.is_err() {
            return;
        }
    }
}

/// Passes the worker's log on and returns its last lines.
async fn read_errors(stderr: impl AsyncRead + Unpin, run: RunId) -> VecDeque<String> {
    let mut kept = VecDeque::with_capacity(KEPT_LINES);
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    // Not `lines()`: a driver may write anything, and one byte that is not UTF-8 must not end the reading.
    while reader.read_until(b'\n', &mut line).await.is_ok_and(|n| n > 0) {
        let text = shorten(String::from_utf8_lossy(&line).trim_end());
        line.clear();
        tracing::info!("run {run}: {text}");
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(text);
    }
    kept
}

fn shorten(text: &str) -> String {
    text.chars().take(500).collect()
}

/// The end of a run whose worker did not announce it.
fn unannounced_end(status: Option<ExitStatus>, told: Option<Outcome>, lines: &VecDeque<String>) -> EventBody {
    let how = status.map_or_else(|| "the worker is gone".to_string(), describe);
    let message = match told {
        Some(Outcome::Cancelled) => format!("cancelled; {how}"),
        Some(_) => format!("the server stopped and {how}; resume it to go on from its last checkpoint"),
        None => {
            let mut message = format!("{how}; its last checkpoint is kept, resume the run to go on");
            let shown = lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES));
            for (n, line) in shown.enumerate() {
                message.push_str(if n == 0 { "\nThe last it said:\n" } else { "\n" });
                message.push_str(line);
            }
            message
        }
    };
    EventBody::Ended { outcome: told.unwrap_or(Outcome::Failed), message }
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let hint = if signal == 9 { " (often the system's answer to too little memory)" } else { "" };
        return format!("the worker was killed by signal {signal}{hint}");
    }
    match status.code() {
        Some(code) => format!("the worker ended with code {code} without saying why"),
        None => "the worker ended without saying why".to_string(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn end(status: ExitStatus, told: Option<Outcome>, lines: &[&str]) -> (Outcome, String) {
        let lines = lines.iter().map(|l| l.to_string()).collect();
        let EventBody::Ended { outcome, message } = unannounced_end(Some(status), told, &lines) else {
            panic!("an end was expected")
        };
        (outcome, message)
    }

    #[test]
    fn a_silent_end_is_explained() {
        let (outcome, message) = end(ExitStatus::from_raw(9), None, &["loading", "out of memory"]);
        assert_eq!(outcome, Outcome::Failed);
        assert!(message.starts_with("the worker was killed by signal 9"), "{message}");
        assert!(message.contains("resume the run to go on") && message.ends_with("loading\nout of memory"), "{message}");

        let (outcome, message) = end(ExitStatus::from_raw(9), Some(Outcome::Cancelled), &[]);
        assert_eq!((outcome, message.starts_with("cancelled; ")), (Outcome::Cancelled, true));
        let (outcome, message) = end(ExitStatus::from_raw(3 << 8), Some(Outcome::Interrupted), &["x"]);
        assert_eq!(outcome, Outcome::Interrupted);
        assert!(message.contains("code 3") && message.contains("resume"), "{message}");
    }

    #[tokio::test]
    async fn unreadable_lines_become_notes() {
        let (sender, mut receiver) = mpsc::channel(8);
        let text = "{\"note\":{\"text\":\"a\"}}\nnonsense\n";
        read_events(text.as_bytes(), sender).await;
        assert_eq!(receiver.recv().await, Some(EventBody::Note { text: "a".into() }));
        assert!(matches!(receiver.recv().await, Some(EventBody::Note { text }) if text.contains("unreadable")));
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn the_last_error_lines_are_kept() {
        let text: Vec<u8> = (0..60).flat_map(|n| format!("line {n}\n").into_bytes()).chain([0xff, b'\n']).collect();
        let kept = read_errors(text.as_slice(), "a".parse().unwrap()).await;
        assert_eq!((kept.len(), kept[0].as_str(), kept[48].as_str()), (KEPT_LINES, "line 11", "line 59"));
    }
}
