//! Starts, resumes, pauses and ends runs, as many at a time as there are slots. How a run goes is told by its journal.

use crate::devices::Devices;
use crate::error::Error;
use crate::folder::{DataFolder, write_file};
use crate::follow::Follower;
use crate::id::RunId;
use crate::launch::{self, Ending, Launch, Launcher, process};
use crate::queue::{self, Place, Priority, Slots};
use moslim_engine::keep::Job;
use moslim_engine::keep::checkpoint::WANTED;
use moslim_engine::keep::fork::{leave, take_over};
use moslim_engine::progress::Unfit;
use moslim_shared::config::{DeviceChoice, RunConfig};
use moslim_shared::event::{About, RunInfo, RunStatus};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Time for a run to reach its next step after it was told to stop.
const STOP_TIME: Duration = Duration::from_secs(30);

/// Runs that may wait.
const MOST_QUEUED: usize = 1_000;

/// Starts runs.
pub struct Supervisor {
    data: DataFolder,
    follower: Follower,
    launcher: Arc<dyn Launcher>,
    devices: Arc<Devices>,
    slots: Slots,
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
    /// A supervisor of the runs in a data folder, which start as many at a time as their devices have slots.
    pub fn new(
        data: DataFolder,
        follower: Follower,
        launcher: Arc<dyn Launcher>,
        (devices, slots): (Arc<Devices>, Slots),
    ) -> Self {
        Self { data, follower, launcher, devices, slots, starting: Mutex::default() }
    }

    /// Starts a new run with a valid configuration, as `id`, which is fresh.
    ///
    /// # Errors
    /// [`Error::Conflict`] while its device has no free slot; [`Error::Invalid`] for a fork of what cannot be forked; [`Error::Internal`] when
    /// it cannot be written or started.
    pub async fn start(&self, id: RunId, config: &RunConfig) -> Result<RunInfo, Error> {
        let _starting = self.starting.lock().await;
        self.check_slot(config).await?;
        self.data.check_room().map_err(Error::Conflict)?;
        write(self.data.job(&id, config.clone())).await?;
        self.launch(&id, config).await
    }

    /// Makes a run, as `id`, which is fresh, that is started when its turn comes.
    ///
    /// # Errors
    /// [`Error::Conflict`] where too many wait, [`Error::Internal`] when it cannot be written.
    pub async fn queue(&self, id: RunId, config: &RunConfig, priority: Priority) -> Result<RunInfo, Error> {
        let _starting = self.starting.lock().await;
        // Its place before its configuration: a run that has none would be one that waits for nothing.
        let place = self.take_place(&id, priority).await?;
        if let Err(error) = write(self.data.job(&id, config.clone())).await {
            let _ = Place::leave(&self.data.run(&id));
            return Err(error);
        }
        self.follower.queue(&id, config, place);
        self.find(&id)
    }

    /// The last place of a priority, for a run.
    async fn take_place(&self, id: &RunId, priority: Priority) -> Result<Place, Error> {
        let waiting = self.follower.queued();
        if waiting.len() >= MOST_QUEUED {
            return Err(Error::Conflict(format!("{MOST_QUEUED} runs wait already")));
        }
        let (data, folder) = (self.data.clone(), self.data.run(id));
        blocking(move || {
            let place = Place::last(priority, waiting.iter().filter_map(|(id, _)| Place::read(&data.run(id))));
            place.write(&folder).map(|()| place)
        })
        .await
    }

    /// Gives a run that waits another priority; of those that have it already, it comes as early as it came.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Conflict`] when it does not wait.
    pub async fn prioritise(&self, id: &RunId, priority: Priority) -> Result<RunInfo, Error> {
        let _starting = self.starting.lock().await;
        let run = self.find(id)?;
        if run.status != RunStatus::Queued {
            return Err(Error::Conflict(format!("run {id} does not wait; only a run that waits has a priority")));
        }
        let folder = self.data.run(id);
        let place = blocking(move || {
            let place = Place::read(&folder).unwrap_or_default().with(priority);
            place.write(&folder).map(|()| place)
        })
        .await?;
        self.follower.queue(id, &run.config, place);
        self.find(id)
    }

    /// Starts the run whose turn it is, if there is one. On a full disk it would end at once, and the next one, too: all wait for room.
    ///
    /// # Errors
    /// When it cannot leave the queue, or cannot be started.
    pub async fn take_turn(&self) -> Result<(), Error> {
        let _starting = self.starting.lock().await;
        if self.data.check_room().is_err() {
            return Ok(());
        }
        let (waiting, training) = (self.placed(self.follower.queued()).await, self.placed(self.follower.training()).await);
        let taken: Vec<DeviceChoice> = training.into_iter().map(|(_, device)| device).collect();
        let (data, slots) = (self.data.clone(), self.slots.clone());
        let next = blocking(move || {
            let next = queue::next(waiting, &taken, &slots, |id| Place::read(&data.run(id)));
            next.as_ref().map_or(Ok(()), |id| Place::leave(&data.run(id)))?;
            Ok(next)
        })
        .await?;
        let Some(next) = next else { return Ok(()) };
        let run = self.find(&next)?;
        self.launch(&next, &run.config).await.map(|_| ())
    }

    /// Goes on with a run that did not finish, from its last checkpoint: at once, where it `may` and its device has a slot that nobody waits
    /// for, or when its turn comes.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Conflict`] when it finished, trains or waits, or too many wait.
    pub async fn resume(&self, id: &RunId, may: bool) -> Result<RunInfo, Error> {
        let _starting = self.starting.lock().await;
        let run = self.find(id)?;
        let refused = match run.status {
            RunStatus::Finished => Some("is finished; there is nothing to resume"),
            RunStatus::Queued => Some("waits for its turn already"),
            RunStatus::Running => Some("is training already"),
            RunStatus::Cancelled | RunStatus::Failed | RunStatus::Interrupted | RunStatus::Paused => None,
        };
        if let Some(why) = refused {
            return Err(Error::Conflict(format!("run {id} {why}")));
        }
        self.data.check_room().map_err(Error::Conflict)?;
        if may && self.goes_at_once(&run.config).await {
            return self.launch(id, &run.config).await;
        }
        let place = self.take_place(id, Priority::default()).await?;
        self.follower.queue(id, &run.config, place);
        self.find(id)
    }

    /// Tells a running run to stop for good. It ends within moments, by itself or by force.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Conflict`] when it does not run.
    pub async fn cancel(&self, id: &RunId) -> Result<RunInfo, Error> {
        if self.find(id)?.status == RunStatus::Queued && !launch::is_elsewhere(&self.data.run(id)) {
            let _starting = self.starting.lock().await;
            // Its turn may have come meanwhile.
            if self.find(id)?.status == RunStatus::Queued {
                let folder = self.data.run(id);
                blocking(move || Place::leave(&folder)).await?;
                self.follower.unqueue(id);
                return self.find(id);
            }
        }
        let run = self.tell(id, Ending::Cancel, "cancelled").await?;
        let (launcher, folder) = (self.launcher.clone(), self.data.run(id));
        tokio::spawn(async move {
            let told = process::holder(&folder);
            sleep(STOP_TIME).await;
            // What was resumed meanwhile was not told.
            if told.is_some() && process::holder(&folder) == told {
                let _ = launch::stop(launcher.as_ref(), &folder, Ending::Kill);
            }
        });
        Ok(run)
    }

    /// Tells a running run to keep a checkpoint at its next step, and to leave its slot to others until it is resumed.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Conflict`] when it does not run.
    pub async fn pause(&self, id: &RunId) -> Result<RunInfo, Error> {
        self.tell(id, Ending::Pause, "paused").await
    }

    /// Ends the process of a running run at once; the run can be resumed from its last checkpoint.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown run, [`Error::Conflict`] when it does not run.
    pub async fn kill(&self, id: &RunId) -> Result<RunInfo, Error> {
        self.tell(id, Ending::Kill, "killed").await
    }

    /// Tells a running run how to end; `told` is what that is called.
    async fn tell(&self, id: &RunId, ending: Ending, told: &str) -> Result<RunInfo, Error> {
        let run = self.find(id)?;
        let (launcher, folder) = (self.launcher.clone(), self.data.run(id));
        let runs = blocking(move || launch::stop(launcher.as_ref(), &folder, ending)).await?;
        let idle = || Error::Conflict(format!("run {id} is not running; only a running run can be {told}"));
        runs.then_some(run).ok_or_else(idle)
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
        match self.find(id)?.status {
            RunStatus::Running => return Err(Error::Conflict(format!("run {id} is training; wait for it or cancel it"))),
            RunStatus::Queued if launch::is_elsewhere(&self.data.run(id)) => {
                return Err(Error::Conflict(format!("run {id} waits on a cluster; cancel it there first")));
            }
            _ => {}
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
    pub fn check_idle(&self) -> Result<(), Error> {
        let Some((id, _)) = self.follower.training().into_iter().next() else { return Ok(()) };
        Err(Error::Conflict(format!("run {id} is training, and a study takes the whole machine; wait for it or cancel it")))
    }

    /// # Errors
    /// [`Error::Conflict`] while every slot of the device that a configuration asks for is taken, by whomever.
    pub async fn check_slot(&self, config: &RunConfig) -> Result<(), Error> {
        let device = self.devices.of(config.device).await;
        let training = self.placed(self.follower.training()).await;
        let taken: Vec<DeviceChoice> = training.iter().map(|(_, own)| *own).collect();
        if self.slots.has_room(device, &taken) {
            return Ok(());
        }
        let there = training.iter().filter(|(_, own)| *own == device).map(|(id, _)| id.as_str());
        let (runs, name) = (there.collect::<Vec<_>>().join(" and "), format!("{device:?}").to_lowercase());
        let message =
            format!("run {runs} trains on {name}, which takes {} at a time; wait for it or cancel it", self.slots.of(device));
        Err(Error::Conflict(message))
    }

    /// Whether a run with this configuration can begin now: its device has a free slot that nobody waits for.
    pub async fn goes_at_once(&self, config: &RunConfig) -> bool {
        let device = self.devices.of(config.device).await;
        let waiting = self.placed(self.follower.queued()).await;
        self.check_slot(config).await.is_ok() && !waiting.iter().any(|(_, own)| *own == device)
    }

    /// Runs with the devices that they take here, in place of those that they ask for.
    async fn placed(&self, mut runs: Vec<(RunId, DeviceChoice)>) -> Vec<(RunId, DeviceChoice)> {
        for (_, device) in &mut runs {
            *device = self.devices.of(*device).await;
        }
        runs
    }

    fn find(&self, id: &RunId) -> Result<RunInfo, Error> {
        self.follower.known(id).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))
    }

    /// Threads of a run on a device.
    pub fn threads(&self, device: DeviceChoice) -> usize {
        let cores = available_parallelism().map_or(1, usize::from);
        self.slots.threads(device, cores).unwrap_or(cores)
    }

    async fn launch(&self, id: &RunId, config: &RunConfig) -> Result<RunInfo, Error> {
        let cores = available_parallelism().map_or(1, usize::from);
        let threads = self.slots.threads(self.devices.of(config.device).await, cores);
        let (launch, launcher) = (worker(&self.data, id, threads), self.launcher.clone());
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
