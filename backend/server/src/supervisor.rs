//! Starts, resumes and cancels runs, one at a time. How a run goes is told by its journal.

use crate::error::Error;
use crate::folder::{DataFolder, Room, write_file};
use crate::follow::{Follower, QUEUE};
use crate::id::{RunId, now_ms};
use crate::launch::{self, Ending, Launch, Launcher, Life};
use anyhow::Context;
use moslim_engine::keep::Job;
use moslim_engine::keep::checkpoint::WANTED;
use moslim_engine::keep::fork::{leave, take_over};
use moslim_engine::progress::Unfit;
use moslim_shared::config::RunConfig;
use moslim_shared::event::{About, RunInfo, RunStatus};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Time for a run to reach its next step after it was told to stop.
const STOP_TIME: Duration = Duration::from_secs(30);

/// Runs that may wait.
const MOST_QUEUED: usize = 1_000;

/// A run's place in the queue, in its folder.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Place {
    priority: i32,
    /// Milliseconds since the Unix epoch.
    since: u64,
}

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

/// Writes a new run down. A fork takes over what it begins with before: where it cannot, there is no run.
async fn write(job: Job) -> Result<(), Error> {
    let written = tokio::task::spawn_blocking(move || {
        take_over(&job)?;
        job.write_config().inspect_err(|_| leave(&job))
    });
    written.await.map_err(anyhow::Error::from)?.map_err(|error| match error.downcast::<Unfit>() {
        Ok(unfit) => Error::invalid(vec![unfit.problem()]),
        Err(error) => error.into(),
    })
}

impl Supervisor {
    /// A supervisor of the runs in a data folder.
    pub fn new(data: DataFolder, follower: Follower, launcher: Arc<dyn Launcher>) -> Self {
        Self { data, follower, launcher, starting: Mutex::default() }
    }

    /// Starts a new run with a valid configuration, as `id`, which is fresh.
    ///
    /// # Errors
    /// [`Error::Conflict`] while another run trains; [`Error::Invalid`] for a fork of what cannot be forked; [`Error::Internal`] when it cannot
    /// be written or started.
    pub async fn start(&self, id: RunId, config: &RunConfig) -> Result<RunInfo, Error> {
        let _starting = self.starting.lock().await;
        self.check_free()?;
        if let Some(problem) = self.data.room().and_then(Room::problem) {
            return Err(Error::Conflict(problem));
        }
        write(self.data.job(&id, config.clone())).await?;
        self.launch(&id, config).await
    }

    /// Makes a run, as `id`, which is fresh, that is started when its turn comes: those of the highest `priority` first, and of one priority those that came first.
    ///
    /// # Errors
    /// [`Error::Conflict`] where too many wait, [`Error::Internal`] when it cannot be written.
    pub async fn queue(&self, id: RunId, config: &RunConfig, priority: i32) -> Result<RunInfo, Error> {
        let _starting = self.starting.lock().await;
        if self.follower.queued().len() >= MOST_QUEUED {
            return Err(Error::Conflict(format!("{MOST_QUEUED} runs wait already")));
        }
        let (job, file) = (self.data.job(&id, config.clone()), self.data.run(&id).join(QUEUE));
        let place = serde_json::to_vec(&Place { priority, since: now_ms() }).map_err(anyhow::Error::from)?;
        // Its place before its configuration: a run that has none would be one that waits for nothing.
        let own = file.clone();
        blocking(move || write_file(&own, &place)).await?;
        if let Err(error) = write(job).await {
            let _ = std::fs::remove_file(file);
            return Err(error);
        }
        self.follower.queue(&id, config);
        self.find(&id)
    }

    /// Starts the run whose turn it is, if nothing trains.
    ///
    /// # Errors
    /// When it cannot leave the queue, or cannot be started.
    pub async fn take_turn(&self) -> Result<(), Error> {
        let _starting = self.starting.lock().await;
        let waiting = self.follower.queued();
        if waiting.is_empty() || self.check_free().is_err() {
            return Ok(());
        }
        let data = self.data.clone();
        let next = blocking(move || {
            let place = |id: &RunId| {
                let read = std::fs::read(data.run(id).join(QUEUE)).ok();
                let place: Place = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
                (Reverse(place.priority), place.since, id.to_string())
            };
            let Some(next) = waiting.into_iter().min_by_key(place) else { return Ok(None) };
            match std::fs::remove_file(data.run(&next).join(QUEUE)) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    Err(e).with_context(|| format!("taking run {next} out of the queue"))
                }
                _ => Ok(Some(next)),
            }
        })
        .await?;
        let Some(next) = next else { return Ok(()) };
        let run = self.find(&next)?;
        self.launch(&next, &run.config).await.map(|_| ())
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
        if run.status == RunStatus::Queued {
            return Err(Error::Conflict(format!("run {id} waits for its turn already")));
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
        if run.status == RunStatus::Queued {
            let _starting = self.starting.lock().await;
            let file = self.data.run(id).join(QUEUE);
            // Its turn may have come meanwhile.
            if self.find(id)?.status == RunStatus::Queued {
                blocking(move || Ok(std::fs::remove_file(file)?)).await?;
                self.follower.unqueue(id);
                return self.find(id);
            }
        }
        let (launcher, folder) = (self.launcher.clone(), self.data.run(id));
        let told = {
            let (launcher, folder) = (launcher.clone(), folder.clone());
            blocking(move || launch::stop(launcher.as_ref(), &folder, Ending::Cancel)).await?
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

    /// Asks a running run for a checkpoint, which it keeps after the step it is in.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Conflict`] when it does not run.
    pub async fn checkpoint(&self, id: &RunId) -> Result<RunInfo, Error> {
        let run = self.find(id)?;
        if run.status != RunStatus::Running {
            return Err(Error::Conflict(format!("run {id} is not running; only a running run can keep a checkpoint")));
        }
        let file = self.data.run(id).join(WANTED);
        blocking(move || write_file(&file, b"")).await?;
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

    /// Puts a run into the trash.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Conflict`] when it trains, [`Error::Internal`] when it cannot be moved.
    pub async fn delete(&self, id: &RunId) -> Result<(), Error> {
        let _starting = self.starting.lock().await;
        if self.find(id)?.status == RunStatus::Running {
            return Err(Error::Conflict(format!("run {id} is training; wait for it or cancel it")));
        }
        let (data, own) = (self.data.clone(), id.clone());
        blocking(move || data.discard(&own)).await?;
        self.follower.forget(id);
        Ok(())
    }

    /// Takes a run out of the trash.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not there, [`Error::Internal`] when it cannot be moved.
    pub async fn restore(&self, id: &RunId) -> Result<RunInfo, Error> {
        let (data, own) = (self.data.clone(), id.clone());
        if !blocking(move || data.restore(&own)).await? {
            return Err(Error::NotFound(format!("there is no run {id} in the trash")));
        }
        let (follower, own) = (self.follower.clone(), id.clone());
        tokio::task::spawn_blocking(move || follower.look(&own)).await.map_err(anyhow::Error::from)?;
        self.find(id)
    }

    /// # Errors
    /// [`Error::Conflict`] while a run trains, whoever started it.
    pub fn check_free(&self) -> Result<(), Error> {
        let Some(run) = self.follower.training() else { return Ok(()) };
        let message = format!("run {} is training, and one run trains at a time; wait for it or cancel it", run.id);
        Err(Error::Conflict(message))
    }

    fn find(&self, id: &RunId) -> Result<RunInfo, Error> {
        self.follower.known(id).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))
    }

    async fn launch(&self, id: &RunId, config: &RunConfig) -> Result<RunInfo, Error> {
        let launch = worker(&self.data, id, None);
        let launcher = self.launcher.clone();
        // Else the end of the last process would be taken for that of the one to come.
        launcher.forget(&launch.folder);
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
