//! Follows the journals of all runs in the data folder, whoever writes them, and says what has grown. The journals are the truth;
//! what is kept here is how far they were read, and what they say of their runs.

mod elsewhere;
mod events;
mod keep;
mod lines;
mod lists;
mod news;
mod run;
#[cfg(test)]
mod tests;
mod turns;

use crate::folder::DataFolder;
use crate::id::RunId;
use crate::index::Indexed;
use crate::launch::{Launcher, Life, is_elsewhere};
use crate::pulse;
use crate::queue::Place;
use crate::states::States;
use anyhow::{Context, Result};
use lines::read_piece;
use moslim_engine::keep::journal::{self, now_ms};
use moslim_shared::config::RunConfig;
use moslim_shared::event::{About, Outcome, RunInfo, RunStatus};
pub use news::News;
use news::Teller;
use notify::{RecursiveMode, Watcher};
use run::{Followed, created, read_about, summary};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Time between two looks at runs that train, and how many of them there are between two looks at all runs: file systems may tell
/// nothing of changes made on another machine.
const TICK: Duration = Duration::from_millis(400);
const TICKS_PER_ROUND: u32 = 10;
/// Runs at rest that are looked at in a round.
const AT_REST: usize = 250;
/// Notices of this time are one look.
const GATHER: Duration = Duration::from_millis(10);
/// Time that a process has to take its folder after it was started.
const START_TIME: Duration = Duration::from_secs(15);
/// Time that a process has to go after its last word, before it is looked at again later.
const EXIT_TIME: Duration = Duration::from_millis(500);

/// How far a journal is. Two that are equal hold the same events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Which of the journals that the run had, one after the other.
    pub journal: u32,
    /// Number of its last event.
    pub last_seq: u64,
}

/// What a look at a journal has found.
struct Look {
    /// Whether that is more than events.
    state_changed: bool,
    /// Whether there is more to read.
    more: bool,
}

/// Follows journals. Clones share what is known.
#[derive(Clone)]
pub struct Follower {
    data: DataFolder,
    launcher: Arc<dyn Launcher>,
    runs: Arc<Mutex<HashMap<RunId, Box<Followed>>>>,
    news: Arc<Teller>,
    /// How often the list of runs has changed.
    list_changes: watch::Sender<u64>,
    studies: Arc<States>,
}

impl Follower {
    /// Reads how all runs stand: from the index where nothing has changed since, else from their journals.
    ///
    /// # Errors
    /// When the folder of runs cannot be read. A run that cannot be read is left out, and said so.
    pub fn open(data: DataFolder, launcher: Arc<dyn Launcher>, indexed: HashMap<RunId, Indexed>) -> Result<Self> {
        let (news, list_changes) = (Arc::default(), watch::Sender::default());
        let follower = Self { data, launcher, runs: Arc::default(), news, list_changes, studies: Arc::default() };
        {
            let mut runs = follower.lock();
            for (id, Indexed { info, figures, bytes }) in indexed {
                // What was training may have gone since.
                runs.insert(id, Box::new(Followed::indexed(info, figures, bytes)));
            }
        }
        let present = follower.present()?;
        {
            let mut runs = follower.lock();
            runs.retain(|id, _| present.contains(id));
            // The index comes after the files of runs, and may not have what was said of one last.
            runs.iter_mut().for_each(|(id, run)| run.hear_about(&follower.data.run(id)));
        }
        for id in present {
            follower.look(&id);
            follower.recall(&id);
        }
        Ok(follower)
    }

    /// How studies stand, as their files say.
    pub fn studies(&self) -> Arc<States> {
        self.studies.clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Box<Followed>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs that have a folder.
    fn present(&self) -> Result<HashSet<RunId>> {
        let folder = self.data.runs();
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(HashSet::new()),
            entries => entries.with_context(|| format!("reading {}", folder.display()))?,
        };
        Ok(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
    }

    /// A run, if it exists, without its summary.
    pub fn known(&self, id: &RunId) -> Option<RunInfo> {
        self.lock().get(id).map(|f| f.info.clone())
    }

    /// How far the journal of a run is, and how often its state has changed, if there is one.
    pub fn extent(&self, id: &RunId) -> Option<(Extent, u32)> {
        self.lock().get(id).map(|f| (Extent { journal: f.journal, last_seq: f.info.last_seq }, f.changes))
    }

    /// A run with its summary, if it exists; blocks on the disk.
    pub fn run(&self, id: &RunId) -> Option<RunInfo> {
        // That a run has finished may be known where the line of its journal with the summary is damaged.
        let finished = |f: &Followed| f.figures.is_some() || f.info.status == RunStatus::Finished;
        let (mut info, finished) = self.lock().get(id).map(|f| (f.info.clone(), finished(f)))?;
        if finished {
            info.summary = summary(&self.data.run(id)).map(Box::new);
        }
        Some(info)
    }

    /// Forgets a run whose folder is gone.
    pub fn forget(&self, id: &RunId) {
        self.lock().remove(id);
        self.announce(id, true);
    }

    /// A process is about to be started for a run: it counts as running from now on.
    pub fn expect(&self, id: &RunId, config: &RunConfig) {
        let mut runs = self.lock();
        let run = runs.entry(id.clone()).or_insert_with(|| Box::new(Followed::new(id, config, now_ms())));
        (run.info.status, run.info.message, run.started, run.dirty) =
            (RunStatus::Running, String::new(), Some(Instant::now()), true);
        drop(runs);
        self.announce(id, true);
    }

    /// A process that was expected could not be started.
    pub fn unexpect(&self, id: &RunId, message: &str) {
        if let Some(run) = self.lock().get_mut(id) {
            (run.info.status, run.info.message, run.started) = (RunStatus::Failed, message.into(), None);
        }
        self.announce(id, true);
    }

    /// Name, note and tags of a run have changed.
    pub fn describe(&self, id: &RunId, about: About) -> Option<RunInfo> {
        let info = {
            let mut runs = self.lock();
            let run = runs.get_mut(id)?;
            (run.info.about, run.dirty) = (about, true);
            run.info.clone()
        };
        self.announce(id, true);
        Some(info)
    }

    /// Reads what a journal has grown by, a piece at a time, looks whether its process lives, and announces what changed.
    pub fn look(&self, id: &RunId) {
        let (began, fresh) = (Instant::now(), !self.knows(id));
        loop {
            match self.read(id) {
                Ok(Some(Look { state_changed, more })) => {
                    self.announce(id, state_changed);
                    if more {
                        continue;
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::warn!("run {id} cannot be read: {error:#}"),
            }
            // A process that has said its last word goes within moments, and tells nobody that it has.
            let going = self.lock().get(id).is_some_and(|f| f.ending.is_some()) && !is_elsewhere(&self.data.run(id));
            if !going || began.elapsed() > EXIT_TIME {
                if fresh {
                    self.recall(id);
                }
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What has changed, if something has.
    fn read(&self, id: &RunId) -> Result<Option<Look>> {
        let folder = self.data.run(id);
        let started = self.lock().get(id).and_then(|f| f.started);
        // Before its journal is read: a process that is gone by now has written all that it will.
        let life = self.life(id, &folder);
        let path = folder.join(journal::FILE);
        let size = std::fs::metadata(&path).map_or(0, |m| m.len());
        let known = self.lock().get(id).map(|f| f.bytes);
        if known.is_none() {
            let Some(config) = self.data.read_config(id)? else { return Ok(None) };
            let mut fresh = Followed::new(id, &config, created(&folder));
            fresh.info.about = read_about(&folder);
            if size == 0 {
                fresh.read_summary(&folder);
            }
            self.lock().entry(id.clone()).or_insert_with(|| Box::new(fresh));
        }
        // A journal that became shorter is another one.
        let from = known.filter(|&bytes| bytes <= size).unwrap_or(0);
        let (mut text, mut cut) = (Vec::new(), 0);
        if size > from {
            let mut file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            file.seek(SeekFrom::Start(from))?;
            cut = read_piece(&mut BufReader::new(file.take(size - from)), &mut text)?;
        }
        let mut runs = self.lock();
        let Some(run) = runs.get_mut(id) else { return Ok(None) };
        // The process that went is not the one that was started meanwhile.
        if run.started != started {
            return Ok(None);
        }
        if run.bytes > size {
            let (about, journal, changes) = (std::mem::take(&mut run.info.about), run.journal + 1, run.changes);
            **run = Followed::new(id, &run.info.config, run.info.created);
            (run.info.about, run.journal, run.changes) = (about, journal, changes);
        } else if run.bytes != from {
            // Somebody else looked meanwhile.
            return Ok(None);
        }
        let state = |run: &Followed| (run.info.status, run.info.message.clone(), run.figures.is_some());
        let before = state(run);
        let lines = run.take(&text, cut);
        let more = lines > 0 && run.bytes < size;
        if life == Life::Running && run.ending.is_none() && run.info.status != RunStatus::Running {
            // It has begun, or goes on, and has not said so yet.
            (run.info.status, run.info.message) = (RunStatus::Running, String::new());
        }
        // One that its job has kept at its limit of time waits again.
        if let Life::Waiting(why) = &life
            && !more
            && run.ending.as_ref().is_none_or(|(outcome, _)| *outcome == Outcome::Interrupted)
        {
            run.ending = None;
            (run.info.status, run.info.message) = (RunStatus::Queued, why.clone());
        }
        // What it has said at its end may still be to read.
        if let Life::Gone(how) = life
            && !more
        {
            if let Some((outcome, message)) = run.ending.take() {
                let told = matches!(outcome, Outcome::Failed | Outcome::Interrupted);
                (run.info.status, run.info.message) = (outcome.into(), if told { message } else { String::new() });
            } else if run.info.status == RunStatus::Running
                && run.started.is_none_or(|s| s.elapsed() > START_TIME || how.is_some())
            {
                run.lose(how, &folder);
            } else if run.info.status == RunStatus::Queued && is_elsewhere(&folder) {
                let message = "it waits on its cluster no more; resume it, or go on with its study";
                (run.info.status, run.info.message) = (RunStatus::Interrupted, message.into());
            }
        }
        if run.info.status == RunStatus::Queued
            && let Some(place) = Place::read(&folder)
        {
            // Its priority may be another one by now.
            run.info.message = place.told();
        }
        let state_changed = before != state(run) || known.is_none();
        if !state_changed && lines == 0 {
            return Ok(None);
        }
        run.dirty = true;
        Ok(Some(Look { state_changed, more }))
    }

    fn announce(&self, id: &RunId, state_changed: bool) {
        if state_changed {
            if let Some(run) = self.lock().get_mut(id) {
                run.changes += 1;
            }
            self.list_changes.send_modify(|changes| *changes += 1);
        }
        self.news.add(id, state_changed);
    }

    /// Follows for ever: by notices of the file system, and by looking now and then where there are none.
    pub async fn follow(self) {
        let (sender, mut notices) = mpsc::unbounded_channel::<PathBuf>();
        let told = move |event: notify::Result<notify::Event>| {
            for path in event.map(|e| e.paths).unwrap_or_default() {
                let _ = sender.send(path);
            }
        };
        let root = self.data.runs();
        let watcher = std::fs::create_dir_all(&root).map_err(notify::Error::io).and_then(|()| {
            let mut watcher = notify::recommended_watcher(told)?;
            watcher.watch(&root, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let mut watcher = watcher.inspect_err(|e| tracing::warn!("no notices of new events ({e}); looking instead")).ok();
        let mut watched: HashSet<RunId> = HashSet::new();
        if let Some(watcher) = &mut watcher {
            // What trains already when the server starts.
            let runs = self.lock();
            for id in runs.iter().filter(|(_, f)| f.info.status == RunStatus::Running).map(|(id, _)| id) {
                if watcher.watch(&self.data.run(id), RecursiveMode::NonRecursive).is_ok() {
                    watched.insert(id.clone());
                }
            }
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut ticks, mut resting) = (0, 0);
        loop {
            pulse::FOLLOWING.beat();
            let mut touched: HashSet<RunId> = HashSet::new();
            let mut note = |path: PathBuf| {
                let name = path.strip_prefix(&root).ok().and_then(|p| p.components().next());
                touched.extend(name.and_then(|n| n.as_os_str().to_str()?.parse::<RunId>().ok()));
            };
            tokio::select! {
                Some(path) = notices.recv() => {
                    note(path);
                    tokio::time::sleep(GATHER).await;
                    while let Ok(path) = notices.try_recv() {
                        note(path);
                    }
                }
                _ = tick.tick() => {
                    ticks += 1;
                    let every = ticks % TICKS_PER_ROUND == 0;
                    let runs = self.lock();
                    touched.extend(runs.iter().filter(|(_, f)| f.info.status == RunStatus::Running || f.ending.is_some()).map(|(id, _)| id.clone()));
                    if every {
                        // Of those at rest some at a time: nothing is heard of most for ever.
                        let mut all: Vec<&RunId> = runs.keys().collect();
                        all.sort_unstable_by(|a, b| b.as_str().cmp(a.as_str()));
                        let from = if resting < all.len() { resting } else { 0 };
                        touched.extend(all.into_iter().skip(from).take(AT_REST).cloned());
                        resting = from + AT_REST;
                    }
                    drop(runs);
                    if every && let Ok(present) = self.present() {
                        let gone: Vec<RunId> = self.lock().keys().filter(|id| !present.contains(*id)).cloned().collect();
                        gone.iter().for_each(|id| self.forget(id));
                        touched.extend(present.into_iter().filter(|id| !self.knows(id)));
                    }
                }
            }
            let follower = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                touched.iter().for_each(|id| follower.look(id));
                touched
            });
            let Ok(looked) = looked.await else { continue };
            if let Some(watcher) = &mut watcher {
                for id in &looked {
                    let (folder, runs) = (self.data.run(id), self.trains(id));
                    if runs && watched.insert(id.clone()) {
                        let _ = watcher.watch(&folder, RecursiveMode::NonRecursive);
                        // What was written before it was watched.
                        let follower = self.clone();
                        let id = id.clone();
                        let _ = tokio::task::spawn_blocking(move || follower.look(&id)).await;
                    } else if !runs && watched.remove(id) {
                        let _ = watcher.unwatch(&folder);
                    }
                }
            }
        }
    }

    fn trains(&self, id: &RunId) -> bool {
        self.lock().get(id).is_some_and(|f| f.info.status == RunStatus::Running)
    }

    fn knows(&self, id: &RunId) -> bool {
        self.lock().contains_key(id)
    }
}
