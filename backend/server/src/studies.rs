//! The server's hold on studies: each is worked on by a child process, `moslim-lab study`, so that it survives what happens
//! here. What it says is on disk; this only starts it, tells it to stop, and reads.

use crate::error::Error;
use crate::folder::DataFolder;
use crate::id::RunId;
use crate::study::{Study, StudyError};
use crate::worker::Supervisor;
use anyhow::Context;
use moslim_shared::study::{StudyConfig, StudyResults, StudyState};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

/// Time for a study to bring its runs to a checkpoint.
const STOP_TIME: Duration = Duration::from_secs(90);

/// Time for a study that is over to go.
const EXIT_TIME: Duration = Duration::from_secs(5);

/// Starts studies, one at a time.
pub struct Studies {
    data: DataFolder,
    active: Arc<Mutex<Option<(RunId, Child)>>>,
}

impl From<StudyError> for Error {
    fn from(error: StudyError) -> Self {
        match error {
            StudyError::Invalid(problems) => Self::invalid(problems),
            StudyError::Unknown(id) => Self::NotFound(format!("there is no study {id}")),
            StudyError::Failed(error) => Self::Internal(error),
        }
    }
}

/// Reads or writes files off the threads that answer requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::Internal(e.into()))?
}

impl Studies {
    /// Studies in a data folder.
    pub fn new(data: DataFolder) -> Self {
        Self { data, active: Arc::default() }
    }

    /// All studies, newest first; one that cannot be read must not hide the others.
    pub async fn list(&self) -> Result<Vec<StudyState>, Error> {
        let data = self.data.clone();
        let mut states: Vec<StudyState> = blocking(move || {
            let states = Study::list(&data)?.into_iter().filter_map(|id| {
                let state = Study::open(&data, &id).map_err(anyhow::Error::from).and_then(|s| s.state());
                state.inspect_err(|e| tracing::warn!("study {id} is left out of the list: {e:#}")).ok()
            });
            Ok(states.collect())
        })
        .await?;
        let working = self.working().await;
        states.iter_mut().for_each(|s| s.active |= working.as_ref().is_some_and(|id| id.as_str() == s.id));
        Ok(states)
    }

    /// The study whose process lives. It works on it from its start on, also before it has said so.
    async fn working(&self) -> Option<RunId> {
        let mut active = self.active.lock().await;
        let (id, child) = active.as_mut()?;
        child.try_wait().ok().flatten().is_none().then(|| id.clone())
    }

    /// How a study stands.
    pub async fn state(&self, id: &RunId) -> Result<StudyState, Error> {
        let working = self.working().await.as_ref() == Some(id);
        let mut state = self.stored(id).await?;
        state.active |= working;
        Ok(state)
    }

    /// How a study stands by its own word.
    async fn stored(&self, id: &RunId) -> Result<StudyState, Error> {
        let (data, id) = (self.data.clone(), id.clone());
        blocking(move || Ok(Study::open(&data, &id)?.state()?)).await
    }

    /// What a study found so far.
    pub async fn results(&self, id: &RunId) -> Result<Option<StudyResults>, Error> {
        let (data, id) = (self.data.clone(), id.clone());
        blocking(move || Ok(Study::open(&data, &id)?.results()?)).await
    }

    /// The content of one of its files, whose name the caller has checked.
    pub async fn file(&self, id: &RunId, name: &'static str) -> Result<Vec<u8>, Error> {
        let (data, id) = (self.data.clone(), id.clone());
        blocking(move || {
            let study = Study::open(&data, &id)?;
            std::fs::read(study.file(name)).map_err(|_| Error::NotFound(format!("study {id} has no {name} yet")))
        })
        .await
    }

    /// Starts a new study.
    ///
    /// # Errors
    /// When it is invalid, or something trains.
    pub async fn start(&self, supervisor: &Supervisor, config: StudyConfig) -> Result<StudyState, Error> {
        let mut active = self.active.lock().await;
        self.free(&mut active, supervisor).await?;
        let data = self.data.clone();
        let study = blocking(move || Ok(Study::create(&data, config)?)).await?;
        self.launch(&mut active, &study).await
    }

    /// Goes on with a study.
    ///
    /// # Errors
    /// When there is none, or something trains.
    pub async fn resume(&self, supervisor: &Supervisor, id: &RunId) -> Result<StudyState, Error> {
        let mut active = self.active.lock().await;
        let (data, wanted) = (self.data.clone(), id.clone());
        let study = blocking(move || Ok(Study::open(&data, &wanted)?)).await?;
        self.free(&mut active, supervisor).await?;
        self.launch(&mut active, &study).await
    }

    /// Tells a study to stop at its checkpoints.
    ///
    /// # Errors
    /// When it does not run here.
    pub async fn cancel(&self, id: &RunId) -> Result<StudyState, Error> {
        let mut active = self.active.lock().await;
        match active.as_mut() {
            // Its input ends once; after that it is stopping, or has stopped.
            Some((running, child)) if running == id && child.stdin.is_some() => drop(child.stdin.take()),
            _ => return Err(Error::Conflict(format!("study {id} is not running here; only a running study can be stopped"))),
        }
        self.stored(id).await
    }

    /// Brings the study that runs, if one does, to its checkpoints.
    pub async fn close(&self) {
        let mut active = self.active.lock().await;
        if let Some((_, mut child)) = active.take() {
            drop(child.stdin.take());
            if timeout(STOP_TIME, child.wait()).await.is_err() {
                let _ = child.start_kill();
            }
        }
    }

    /// # Errors
    /// [`Error::Conflict`] while a study runs here.
    pub async fn check_free(&self) -> Result<(), Error> {
        self.ended(&mut *self.active.lock().await).await
    }

    /// # Errors
    /// [`Error::Conflict`] while the study runs.
    async fn ended(&self, active: &mut Option<(RunId, Child)>) -> Result<(), Error> {
        if let Some((id, child)) = active {
            // What has done its work, or was told to stop, takes a moment to go.
            let going = child.stdin.is_none() || !self.stored(id).await.is_ok_and(|s| s.active);
            let patience = if going { EXIT_TIME } else { Duration::ZERO };
            // Not `wait`, which would end its input and so stop it.
            let since = Instant::now();
            while child.try_wait().ok().flatten().is_none() && since.elapsed() < patience {
                sleep(Duration::from_millis(50)).await;
            }
            if child.try_wait().ok().flatten().is_none() {
                return Err(Error::Conflict(format!("study {id} is running, and it has the machine; wait for it or stop it")));
            }
            *active = None;
        }
        Ok(())
    }

    /// # Errors
    /// [`Error::Conflict`] while a study or a run trains.
    async fn free(&self, active: &mut Option<(RunId, Child)>, supervisor: &Supervisor) -> Result<(), Error> {
        self.ended(active).await?;
        supervisor.check_free().await
    }

    async fn launch(&self, active: &mut Option<(RunId, Child)>, study: &Study) -> Result<StudyState, Error> {
        let program = std::env::current_exe().context("finding this program")?;
        let log = std::fs::File::create(study.file("study.log")).context("writing the study's log")?;
        let mut command = Command::new(program);
        command
            .args(["study", "--worker", "--json", "--study", study.id.as_str(), "--data"])
            .arg(self.data.root())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        #[cfg(unix)]
        command.process_group(0);
        let child = command.spawn().context("starting the study")?;
        *active = Some((study.id.clone(), child));
        // It says that it is active a moment later; a page that asked for it should not see it stand still.
        let study = study.clone();
        let mut state = blocking(move || Ok(study.state()?)).await?;
        state.active = true;
        Ok(state)
    }
}
