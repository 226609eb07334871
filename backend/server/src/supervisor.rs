//! Starts, resumes and cancels runs, one at a time. How a run goes is told by its journal.

use crate::error::Error;
use crate::folder::{DataFolder, write_file};
use crate::follow::Follower;
use crate::id::RunId;
use crate::launch::{Ending, Launch, Launcher, Life};
use moslim_shared::config::RunConfig;
use moslim_shared::event::{About, RunInfo, RunStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Time for a run to reach its next step after it was told to stop.
const STOP_TIME: Duration = Duration::from_secs(30);

/// Starts runs.
pub struct Supervisor {
    data: DataFolder,
    follower: Follower,
    launcher: Arc<dyn Launcher>,
    /// Held while a run is started, so that two requests do not start two.
    starting: Mutex<()>,
}

/// Blocks on the disk off the threads that answer requests.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> Result<T, Error> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(anyhow::Error::from)??)
}

impl Supervisor {
    /// A supervisor of the runs in a data folder.
    pub fn new(data: DataFolder, follower: Follower, launcher: Arc<dyn Launcher>) -> Self {
        Self { data, follower, launcher, starting: Mutex::default() }
    }

    /// Starts a new run with a valid configuration.
    ///
    /// # Errors
    /// [`Error::Conflict`] while another run trains; [`Error::Internal`] when it cannot be written or started.
    pub async fn start(&self, config: &RunConfig) -> Result<RunInfo, Error> {
        let _starting = self.starting.lock().await;
        self.check_free()?;
        let id = RunId::fresh();
        let job = self.data.job(&id, config.clone());
        blocking(move || job.write_config()).await?;
        self.launch(&id, config).await
    }

    /// Goes on with a run that did not finish, from its last checkpoint.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Conflict`] when it finished or any run trains.
    pub async fn resume(&self, id: &RunId) -> Result<RunInfo, Error> {
        let _starting = self.starting.lock().await;
        let run = self.find(id)?;
        if run.status == RunStatus::Finished {
            return Err(Error::Conflict(format!("run {id} is finished; there is nothing to resume")));
        }
        self.check_free()?;
        self.launch(id, &run.config).await
    }

    /// Tells a running run to stop for good. It ends within moments, by itself or by force.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Conflict`] when it does not run.
    pub async fn cancel(&self, id: &RunId) -> Result<RunInfo, Error> {
        let run = self.find(id)?;
        let (launcher, folder) = (self.launcher.clone(), self.data.run(id));
        let told = {
            let (launcher, folder) = (launcher.clone(), folder.clone());
            blocking(move || launcher.stop(&folder, Ending::Cancel)).await?
        };
        if !told {
            return Err(Error::Conflict(format!("run {id} is not running; only a running run can be cancelled")));
        }
        tokio::spawn(async move {
            sleep(STOP_TIME).await;
            if launcher.poll(&folder) == Life::Running {
                let _ = launcher.stop(&folder, Ending::Kill);
            }
        });
        Ok(run)
    }

    /// Changes what a person says of a run.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Internal`] when it cannot be written.
    pub async fn describe(&self, id: &RunId, about: About) -> Result<RunInfo, Error> {
        self.find(id)?;
        let (file, text) =
            (self.data.run(id).join("about.json"), serde_json::to_vec_pretty(&about).map_err(anyhow::Error::from)?);
        blocking(move || write_file(&file, &text)).await?;
        self.follower.describe(id, about).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))
    }

    /// # Errors
    /// [`Error::Conflict`] while a run trains, whoever started it.
    pub fn check_free(&self) -> Result<(), Error> {
        let Some(run) = self.follower.training() else { return Ok(()) };
        let message = format!("run {} is training, and one run trains at a time; wait for it or cancel it", run.id);
        Err(Error::Conflict(message))
    }

    fn find(&self, id: &RunId) -> Result<RunInfo, Error> {
        self.follower.run(id).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))
    }

    async fn launch(&self, id: &RunId, config: &RunConfig) -> Result<RunInfo, Error> {
        let launch = worker(&self.data, id, None);
        let launcher = self.launcher.clone();
        self.follower.expect(id, config);
        if let Err(error) = blocking(move || launcher.start(&launch)).await {
            self.follower.unexpect(id, "its process could not be started");
            return Err(error);
        }
        self.find(id)
    }
}

/// The process that trains a run.
pub fn worker(data: &DataFolder, id: &RunId, threads: Option<usize>) -> Launch {
    let args = ["worker".into(), format!("--run={id}").into(), "--data".into(), data.root().into()];
    Launch { args: args.to_vec(), folder: data.run(id), threads }
}
