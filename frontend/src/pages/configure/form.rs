//! The form of a run: the same type that the trainer reads, checked while it is edited.

use crate::api::{self, DeviceInfo, Failure};
use crate::parts::every::until_answered;
use crate::parts::format;
use crate::parts::memo::{effect, memo};
use crate::words::{said, t};
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::bringing::ModelList;
use moslim_shared::config::cost;
use moslim_shared::config::settings::{self, Depth, Setting};
use moslim_shared::config::{DeviceChoice, Difference, Problem, RunConfig, differences};
use moslim_shared::event::{RunInfo, TaskInfo};
use moslim_shared::memory;
use moslim_shared::objective::Objective;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What the form holds and knows.
pub struct Data {
    /// The configuration as JSON; always of the right shape.
    value: Value,
    /// What was typed but cannot be read: path and message.
    bad: Vec<(&'static str, String)>,
    /// The preset that it began with.
    pub base: RunConfig,
    /// The run that differences are shown against in the place of the preset; where it is like one, that.
    pub like: Option<RunInfo>,
    pub task: Option<Result<TaskInfo, Failure>>,
    pub devices: Vec<DeviceInfo>,
    /// Runs that it can be compared with; those that are finished say how fast this lab is.
    runs: Vec<RunInfo>,
    /// Off-the-shelf models, and how many threads there are.
    pub models: Option<ModelList>,
    pub refused: Option<Failure>,
    /// The configuration, when it can be read.
    pub parsed: Option<RunConfig>,
    pub problems: Vec<Problem>,
}

impl Data {
    fn objectives(&self) -> &[Objective] {
        match &self.task {
            Some(Ok(task)) => &task.objectives,
            _ => &[],
        }
    }

    /// Reads and checks the configuration.
    fn check(&mut self) {
        self.parsed = RunConfig::deserialize(&self.value).ok();
        self.problems.clear();
        for (field, message) in &self.bad {
            self.problems.push(Problem { field: field.to_string(), message: message.clone() });
        }
        match (&self.parsed, &self.task) {
            (Some(config), Some(Ok(task))) => self.problems.extend(config.problems(&task.objectives)),
            // The task that is named is not there.
            (Some(_), Some(Err(failure))) => self.problems.extend(failure.problems.clone()),
            (None, _) => {
                self.problems.push(Problem { field: String::new(), message: t("the configuration cannot be read").into() });
            }
            _ => {}
        }
    }

    /// What is wrong with the field at `path`, or with an entry of it.
    fn message(&self, path: &str) -> String {
        let own: Vec<&str> = self
            .problems
            .iter()
            .filter(|p| p.field == path || p.field.strip_prefix(path).is_some_and(|rest| rest.starts_with('[')))
            .map(|p| p.message.as_str())
            .collect();
        own.join("; ")
    }

    /// How long the run will take, and what memory, as far as that is known.
    pub fn estimate(&self) -> String {
        let Some(config) = &self.parsed else { return String::new() };
        let steered = config.steered(self.objectives()).len();
        let known = self.runs.iter().filter_map(|run| Some((&run.config, &run.summary.as_ref()?.seconds)));
        let time = match cost::seconds(config, steered, known) {
            Some(seconds) => said("About {0}, judging by the runs that are finished here.", &[&format::duration(seconds)]),
            None => t("How long it takes is not known before a run like it is finished here.").to_string(),
        };
        let needed = self.memory(config).map(|mib| said(" It needs about {0} MiB of memory.", &[&mib.to_string()]));
        let measured = t(" The command below, with --estimate, measures time and memory.");
        time + &needed.unwrap_or_default() + if config.base.model.is_empty() { "" } else { measured }
    }

    /// Memory that the run will take, MiB, where that is known: not of a graphics card's.
    fn memory(&self, config: &RunConfig) -> Option<u64> {
        let elsewhere = match config.device {
            DeviceChoice::Auto => self.devices.iter().any(|d| d.chosen && d.device != "cpu"),
            device => device != DeviceChoice::Cpu,
        };
        let known = self.models.as_ref();
        let base = known.and_then(|known| known.models.iter().find(|m| m.name == config.base.model)).map(|m| &m.shape);
        let needed = memory::peak(config, base, self.objectives(), known.map_or(1, |known| known.threads));
        needed.filter(|_| !elsewhere).map(|m| m.mib())
    }

    /// What differs from the preset.
    pub fn changes(&self) -> Vec<Difference> {
        self.against(&self.base)
    }

    /// What it can be compared with, as a choice: titles alone would not tell runs of one preset apart.
    pub fn others(&self) -> Vec<(String, String)> {
        let runs = self.runs.iter().map(|run| (run.id.clone(), format!("{} · {}", run.title(), run.id)));
        std::iter::once((String::new(), t("the preset").to_string())).chain(runs).collect()
    }

    /// Takes up runs, those that are known already left out.
    pub fn learn(&mut self, runs: Vec<RunInfo>) {
        for run in runs {
            if self.runs.iter().all(|known| known.id != run.id) {
                self.runs.push(run);
            }
        }
    }

    /// Compares it with the run of this id, or with the preset.
    pub fn compare(&mut self, id: &str) {
        // What a fork goes on with is no difference to it.
        let fork = self.parsed.as_ref().and_then(|config| config.fork.clone());
        let run = self.runs.iter().find(|run| run.id == id).cloned();
        self.like = run.map(|run| RunInfo { config: RunConfig { fork, ..run.config.clone() }, ..run });
    }

    /// What differs from the run that it is compared with, or from the preset.
    pub fn compared(&self) -> Vec<Difference> {
        self.against(self.like.as_ref().map_or(&self.base, |run| &run.config))
    }

    fn against(&self, old: &RunConfig) -> Vec<Difference> {
        self.parsed.as_ref().map(|config| differences(old, config)).unwrap_or_default()
    }
}

/// The form. What it holds is outside of the reactive system; `version` grows when it changes.
#[derive(Clone, Copy)]
pub struct Form {
    data: StoredValue<Data>,
    version: RwSignal<u64>,
    /// Grows when inputs must show the configuration anew.
    loaded: RwSignal<u64>,
    pub starting: RwSignal<bool>,
    /// How much of the form is shown.
    pub depth: RwSignal<Depth>,
}

impl Form {
    /// A form that holds `config`, and shows differences against it.
    pub fn new(config: RunConfig) -> Self {
        let mut data = Data {
            value: json!(config),
            bad: Vec::new(),
            base: config,
            like: None,
            task: None,
            devices: Vec::new(),
            runs: Vec::new(),
            models: None,
            refused: None,
            parsed: None,
            problems: Vec::new(),
        };
        data.check();
        Self {
            data: StoredValue::new(data),
            version: RwSignal::new(0),
            loaded: RwSignal::new(0),
            starting: RwSignal::new(false),
            depth: RwSignal::new(Depth::Basic),
        }
    }

    /// Reads what the form holds, and again when it has changed.
    pub fn read<R>(self, f: impl FnOnce(&Data) -> R) -> R {
        self.version.track();
        self.data.with_value(f)
    }

    /// Changes what the form holds, and checks it.
    pub fn change(self, f: impl FnOnce(&mut Data)) {
        let changed = self.data.try_update_value(|data| {
            f(data);
            data.check();
        });
        if changed.is_some() {
            let _ = self.version.try_update(|n| *n += 1);
        }
    }

    /// Takes another configuration in place of everything that was typed.
    pub fn load(self, config: RunConfig) {
        self.change(|d| {
            d.value = json!(config);
            d.bad.clear();
            d.refused = None;
            d.base = config;
            d.like = None;
        });
        self.loaded.update(|n| *n += 1);
    }

    /// Takes another configuration, which is shown against the same preset as before.
    pub fn take(self, config: RunConfig) {
        self.change(|d| {
            d.value = json!(config);
            d.bad.clear();
            d.refused = None;
        });
        self.loaded.update(|n| *n += 1);
    }

    /// The configuration, when it can be read; not reactive.
    pub fn parsed(self) -> Option<RunConfig> {
        self.data.with_value(|d| d.parsed.clone())
    }

    /// Takes what was typed into the input of a setting.
    pub fn edit(self, setting: &'static Setting, typed: &str) {
        self.change(|d| {
            d.refused = None;
            d.bad.retain(|(path, _)| *path != setting.path);
            match settings::read(setting, typed) {
                Ok(new) => settings::set(&mut d.value, setting.path, new),
                Err(message) => d.bad.push((setting.path, message)),
            }
        });
    }

    /// The value at a path; a default where there is none of this type.
    pub fn get<T: DeserializeOwned + Default>(self, path: &str) -> T {
        self.read(|d| settings::get(&d.value, path).and_then(|v| T::deserialize(v).ok())).unwrap_or_default()
    }

    /// Puts a value at a path.
    pub fn put(self, path: &str, new: Value) {
        self.change(|d| settings::set(&mut d.value, path, new));
    }

    /// The task's objectives, once they are known.
    pub fn objectives(self) -> Vec<Objective> {
        self.read(|d| d.objectives().to_vec())
    }

    /// Changes when the task's objectives do, and only then.
    pub fn known(self) -> Memo<u64> {
        memo(move || {
            self.read(|d| {
                let mut hash = DefaultHasher::new();
                d.objectives().iter().for_each(|o| (&o.id, &o.name, &o.classes).hash(&mut hash));
                hash.finish()
            })
        })
    }

    /// What is wrong with the field at `path`, or with an entry of it.
    pub fn message(self, path: &'static str) -> Memo<String> {
        memo(move || self.read(|d| d.message(path)))
    }

    /// A text about the configuration; empty while that cannot be read.
    pub fn about(self, f: impl Fn(&RunConfig) -> String + Send + Sync + 'static) -> Memo<String> {
        memo(move || self.read(|d| d.parsed.as_ref().map(&f).unwrap_or_default()))
    }

    /// What the input of a setting shows: not what is being typed, but what was loaded.
    pub fn shown(self, setting: &'static Setting) -> String {
        self.loaded.track();
        self.data.with_value(|d| settings::text(settings::get(&d.value, setting.path)))
    }

    /// Whether a setting is shown: at the depth that was chosen, and in any case where it is wrong or differs from the preset.
    pub fn shows(self, setting: &'static Setting) -> Memo<bool> {
        let base = setting.path;
        memo(move || {
            setting.depth <= self.depth.get()
                || self.read(|d| !d.message(base).is_empty() || d.changes().iter().any(|c| c.path == base))
        })
    }

    /// Asks for the task that the configuration names, now and whenever it names another.
    pub fn follow_task(self) {
        let task = memo(move || self.read(|d| d.parsed.as_ref().map(|c| c.task.clone())));
        effect(move || {
            if task.get().is_some() {
                self.fetch_task();
            }
        });
    }

    /// Asks for the task that the configuration names.
    pub fn fetch_task(self) {
        let Some(config) = self.parsed() else { return };
        spawn_local(async move {
            let answer = api::task(&config).await;
            self.change(|d| {
                // Meanwhile it may name another.
                if d.parsed.as_ref().is_some_and(|now| now.task == config.task) {
                    d.task = Some(answer);
                }
            });
        });
    }

    /// Asks for the devices.
    pub fn fetch_devices(self) {
        until_answered(|| Box::pin(api::devices()), move |list| self.change(|d| d.devices = list));
    }
}
