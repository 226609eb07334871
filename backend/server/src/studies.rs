//! The server's hold on studies: each is worked on by a process of its own, `moslim-lab study`, which outlives the server. What it
//! says is on disk; this only starts it, tells it to stop, and reads.

use crate::devices::Devices;
use crate::error::Error;
use crate::folder::DataFolder;
use crate::id::RunId;
use crate::launch::{self, Ending, Launch, Launcher, Life, process};
use crate::states::{FILE, States};
use crate::study::{Study, StudyError, abandon, too_large};
use crate::supervisor::Supervisor;
use anyhow::anyhow;
use moslim_shared::config::DeviceChoice;
use moslim_shared::study::{Host, StudyConfig, StudyResults, StudyState};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// Time for a study that is over, or was told to stop, to go.
const EXIT_TIME: Duration = Duration::from_secs(5);

/// Starts studies, one at a time.
pub struct Studies {
    known: Known,
    devices: Arc<Devices>,
    /// The clusters that there are, with their profiles.
    clusters: Vec<(Host, PathBuf)>,
    /// The study that was started last, and whether it was told to stop. Held while one is started.
    last: Mutex<Option<(RunId, bool)>>,
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
    /// Studies in a data folder, which stand as `states` reads. They are trained on `devices` of this machine, or on `clusters`.
    pub fn new(
        data: DataFolder,
        (launcher, states): (Arc<dyn Launcher>, Arc<States>),
        devices: Arc<Devices>,
        clusters: Vec<(Host, PathBuf)>,
    ) -> Self {
        Self { known: Known { data, launcher, states }, devices, clusters, last: Mutex::default() }
    }

    /// Where studies can be trained.
    pub fn hosts(&self) -> Vec<Host> {
        [Host::Here].into_iter().chain(self.clusters.iter().map(|(host, _)| *host)).collect()
    }

    /// What the command line calls a cluster, and its profile; `None` for this machine.
    ///
    /// # Errors
    /// [`Error::Conflict`] where this server has no such cluster.
    fn cluster(&self, on: Host) -> Result<Option<(&'static str, &Path)>, Error> {
        let (name, option) = match on {
            Host::Here => return Ok(None),
            Host::Slurm => ("slurm", "--cluster"),
            Host::Ray => ("ray", "--ray"),
        };
        let profile = self.clusters.iter().find(|(host, _)| *host == on).map(|(_, profile)| profile.as_path());
        let missing = || Error::Conflict(format!("this server has no {name} cluster; start it with {option} PROFILE"));
        profile.ok_or_else(missing).map(|profile| Some((name, profile)))
    }

    /// All studies, newest first; one that cannot be read must not hide the others.
    pub async fn list(&self) -> Result<Vec<Arc<StudyState>>, Error> {
        let known = self.known.clone();
        blocking(move || {
            let states = Study::list(&known.data)?.into_iter().filter_map(|id| {
                let state = known.state(&id);
                state.inspect_err(|e| tracing::warn!("study {id} is left out of the list: {e:#}")).ok()
            });
            Ok(states.collect())
        })
        .await
    }

    /// How a study stands.
    pub async fn state(&self, id: &RunId) -> Result<StudyState, Error> {
        let (known, id) = (self.known.clone(), id.clone());
        blocking(move || Ok(Arc::unwrap_or_clone(known.state(&id)?))).await
    }

    /// What a study found so far.
    pub async fn results(&self, id: &RunId) -> Result<Option<StudyResults>, Error> {
        let (data, id) = (self.known.data.clone(), id.clone());
        blocking(move || Ok(Study::open(&data, &id)?.results()?)).await
    }

    /// The content of one of its files, whose name the caller has checked.
    pub async fn file(&self, id: &RunId, name: &'static str) -> Result<Vec<u8>, Error> {
        let (data, id) = (self.known.data.clone(), id.clone());
        blocking(move || {
            let missing = || Error::NotFound(format!("study {id} has no {name} yet"));
            Study::open(&data, &id)?.read(name)?.ok_or_else(missing)
        })
        .await
    }

    /// Starts a new study, as `id`, which is fresh.
    ///
    /// # Errors
    /// When it is invalid, one of its runs would not fit into this machine's memory where it is to be trained here, or something trains
    /// there.
    pub async fn start(
        &self,
        supervisor: &Supervisor,
        (id, config): (RunId, StudyConfig),
        on: Host,
    ) -> Result<StudyState, Error> {
        let mut last = self.last.lock().await;
        self.free(&mut last, supervisor, on).await?;
        let known = self.known.clone();
        let here = if on == Host::Here { Some(self.devices.of(DeviceChoice::Auto).await) } else { None };
        let study = blocking(move || {
            if let Some(best) = here {
                known.check_memory(&config, best)?;
            }
            Ok(Study::create(&known.data, id, config, on)?)
        })
        .await?;
        self.launch(&mut last, &study, on).await
    }

    /// Follows what is on a cluster and was followed when this machine, or the server, went: its jobs go on, and nobody hears them.
    ///
    /// # Errors
    /// When studies cannot be listed. One that cannot be followed is logged.
    pub async fn take_up(&self) -> Result<(), Error> {
        let known = self.known.clone();
        let left = blocking(move || {
            let is_left = |id: &RunId| {
                let folder = known.data.study(id);
                let state = known.states.read(&folder).ok().flatten()?;
                // A backup has none, nor has a study that was stopped since.
                let was_followed = folder.join(process::ABOUT).is_file() && !process::is_taken(&folder);
                (state.active && state.on != Host::Here && was_followed).then_some(state.on)
            };
            let all = Study::list(&known.data)?.into_iter().filter_map(|id| is_left(&id).map(|on| (id, on)));
            Ok(all.collect::<Vec<_>>())
        });
        for (id, on) in left.await? {
            let (data, wanted) = (self.known.data.clone(), id.clone());
            let followed = async {
                let study = blocking(move || Ok(Study::open(&data, &wanted)?)).await?;
                self.launch(&mut None, &study, on).await
            };
            match followed.await {
                Ok(_) => tracing::info!("study {id} is on a cluster, and is followed again"),
                Err(error) => tracing::warn!("study {id} is on a cluster, and cannot be followed: {error}"),
            }
        }
        Ok(())
    }

    /// Goes on with a study.
    ///
    /// # Errors
    /// When there is none, or something trains.
    pub async fn resume(&self, supervisor: &Supervisor, id: &RunId) -> Result<StudyState, Error> {
        let mut last = self.last.lock().await;
        let (data, wanted) = (self.known.data.clone(), id.clone());
        let study = blocking(move || Ok(Study::open(&data, &wanted)?)).await?;
        let on = self.state(id).await?.on;
        self.free(&mut last, supervisor, on).await?;
        self.launch(&mut last, &study, on).await
    }

    /// Tells a study to stop at its checkpoints, whoever started it.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn cancel(&self, id: &RunId) -> Result<StudyState, Error> {
        let mut last = self.last.lock().await;
        let state = self.state(id).await?;
        let told = matches!(&*last, Some((of, true)) if of == id);
        if !state.active || told {
            return Err(Error::Conflict(format!("study {id} is not running; only a running study can be stopped")));
        }
        let (launcher, folder) = (self.known.launcher.clone(), self.known.data.study(id));
        blocking(move || Ok(launch::stop(launcher.as_ref(), &folder, Ending::Interrupt)?)).await?;
        *last = Some((id.clone(), true));
        Ok(state)
    }

    /// # Errors
    /// [`Error::Conflict`] while a study runs.
    pub async fn check_free(&self) -> Result<(), Error> {
        self.ended(&mut *self.last.lock().await).await
    }

    /// # Errors
    /// [`Error::Conflict`] while a study runs.
    async fn ended(&self, last: &mut Option<(RunId, bool)>) -> Result<(), Error> {
        let since = Instant::now();
        loop {
            let known = self.known.clone();
            let Some(study) = blocking(move || known.at_work_here()).await? else { break };
            // What was told to stop takes a moment to go.
            let going = matches!(&*last, Some((id, true)) if *id == study);
            if !going || since.elapsed() > EXIT_TIME {
                let message = format!("study {study} is running, and it has the machine; wait for it or stop it");
                return Err(Error::Conflict(message));
            }
            sleep(Duration::from_millis(50)).await;
        }
        *last = None;
        Ok(())
    }

    /// # Errors
    /// [`Error::Conflict`] while a study or a run trains, or the disk is full.
    async fn free(&self, last: &mut Option<(RunId, bool)>, supervisor: &Supervisor, on: Host) -> Result<(), Error> {
        self.known.data.check_room().map_err(Error::Conflict)?;
        if self.cluster(on)?.is_some() {
            return Ok(());
        }
        self.ended(last).await?;
        supervisor.check_idle()
    }

    async fn launch(&self, last: &mut Option<(RunId, bool)>, study: &Study, on: Host) -> Result<StudyState, Error> {
        let args = ["study".into(), "--json".into(), "--study".into(), study.id.as_str().into(), "--data".into()];
        let mut args: Vec<OsString> = args.into_iter().chain([self.known.data.root().into()]).collect();
        if let Some((name, profile)) = self.cluster(on)? {
            args.extend(["--on".into(), name.into(), "--profile".into(), profile.into()]);
        }
        let launch = Launch { args, folder: study.folder(), threads: None };
        let launcher = self.known.launcher.clone();
        blocking(move || Ok(launcher.start(&launch)?)).await?;
        *last = Some((study.id.clone(), false));
        self.state(&study.id).await
    }
}

/// What is known of studies, for the threads that look at the disk.
#[derive(Clone)]
struct Known {
    data: DataFolder,
    launcher: Arc<dyn Launcher>,
    states: Arc<States>,
}

impl Known {
    /// What the file of a study says of it.
    fn said(&self, id: &RunId) -> Result<Arc<StudyState>, StudyError> {
        let folder = self.data.study(id);
        match self.states.read(&folder)? {
            Some(state) => Ok(state),
            None if folder.join("study.json").is_file() => Err(anyhow!("{} is missing", folder.join(FILE).display()).into()),
            None => Err(StudyError::Unknown(id.clone())),
        }
    }

    /// Whether the process of a study runs. It works from its start on, also before it has said so.
    fn runs(&self, id: &RunId) -> bool {
        self.launcher.poll(&self.data.study(id)) == Life::Running
    }

    /// How a study stands.
    fn state(&self, id: &RunId) -> Result<Arc<StudyState>, StudyError> {
        let mut state = self.said(id)?;
        if state.active && !process::is_taken(&self.data.study(id)) {
            abandon(Arc::make_mut(&mut state));
        }
        if !state.active && self.runs(id) {
            Arc::make_mut(&mut state).active = true;
        }
        Ok(state)
    }

    /// A study that trains on this machine; on a cluster it is in nobody's way. Neither is one that cannot be read: of that lists say what
    /// is wrong with it, and this is asked twice a second while a run waits.
    ///
    /// # Errors
    /// When the folder of studies cannot be read.
    fn at_work_here(&self) -> Result<Option<RunId>, Error> {
        let works = |said: &StudyState, id: &RunId| said.active && process::is_taken(&self.data.study(id)) || self.runs(id);
        let here = |id: &RunId| self.said(id).is_ok_and(|said| said.on == Host::Here && works(&said, id));
        Ok(Study::list(&self.data)?.into_iter().find(here))
    }

    /// # Errors
    /// [`StudyError::Invalid`] where a run of a study would not fit into the memory of this machine, on which `best` is the device that a
    /// run takes which names none; what else is wrong with a plan is said when the study is made.
    fn check_memory(&self, config: &StudyConfig, best: DeviceChoice) -> Result<(), StudyError> {
        let Ok(objectives) = self.data.objectives(&config.base.task) else { return Ok(()) };
        let Ok(plan) = config.plan(&objectives) else { return Ok(()) };
        let computes_here =
            |device: DeviceChoice| (if device == DeviceChoice::Auto { best } else { device }) == DeviceChoice::Cpu;
        match too_large(&plan, &self.data, (None, self.launcher.memory()), &computes_here) {
            Some(problem) => Err(StudyError::Invalid(vec![problem])),
            None => Ok(()),
        }
    }
}
