//! The form of a run: the same type that the trainer reads, checked while it is edited.

use crate::api::{self, DeviceInfo, Failure};
use crate::derived;
use crate::pages::fields::{self, Field, element_id};
use crate::parts::field::field;
use crate::parts::settings::{SECTIONS, TARGETS};
use crate::parts::targets;
use crate::router::Address;
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::config::{Problem, RunConfig};
use moslim_shared::event::{PresetInfo, WorldInfo};
use moslim_shared::objective::Objective;
use moslim_shared::presets;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What the form holds and knows.
struct Data {
    /// The configuration as JSON; always of the right shape.
    value: Value,
    /// What was typed but cannot be read: path and message.
    bad: Vec<(&'static str, String)>,
    /// What differences are shown against.
    base: RunConfig,
    world: Option<Result<WorldInfo, Failure>>,
    devices: Vec<DeviceInfo>,
    refused: Option<Failure>,
    /// The configuration, when it can be read.
    parsed: Option<RunConfig>,
    problems: Vec<Problem>,
}

impl Data {
    fn objectives(&self) -> &[Objective] {
        match &self.world {
            Some(Ok(world)) => &world.objectives,
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
        match (&self.parsed, &self.world) {
            (Some(config), Some(Ok(world))) => self.problems.extend(config.problems(&world.objectives)),
            (None, _) => {
                self.problems.push(Problem { field: String::new(), message: "the configuration cannot be read".into() });
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

    fn changes(&self) -> Vec<(String, String, String)> {
        self.parsed.as_ref().map(|config| fields::differences(&self.base, config)).unwrap_or_default()
    }
}

/// The form. What it holds is outside of the reactive system; `version` grows when it changes.
#[derive(Clone, Copy)]
pub struct Form {
    data: StoredValue<Data>,
    version: RwSignal<u64>,
    /// Grows when inputs must show the configuration anew.
    loaded: RwSignal<u64>,
    starting: RwSignal<bool>,
}

impl Form {
    fn new(config: RunConfig) -> Self {
        let mut data = Data {
            value: json!(config),
            bad: Vec::new(),
            base: config,
            world: None,
            devices: Vec::new(),
            refused: None,
            parsed: None,
            problems: Vec::new(),
        };
        data.check();
        Self { data: StoredValue::new(data), version: RwSignal::new(0), loaded: RwSignal::new(0), starting: RwSignal::new(false) }
    }

    /// Reads what the form holds, and again when it has changed.
    fn read<R>(self, f: impl FnOnce(&Data) -> R) -> R {
        self.version.track();
        self.data.with_value(f)
    }

    fn change(self, f: impl FnOnce(&mut Data)) {
        let changed = self.data.try_update_value(|data| {
            f(data);
            data.check();
        });
        if changed.is_some() {
            let _ = self.version.try_update(|n| *n += 1);
        }
    }

    fn load(self, config: RunConfig) {
        self.change(|d| {
            d.value = json!(config);
            d.bad.clear();
            d.refused = None;
            d.base = config;
        });
        self.loaded.update(|n| *n += 1);
    }

    /// Takes what was typed into the input of `field`.
    pub fn edit(self, field: Field, typed: &str) {
        self.change(|d| {
            d.refused = None;
            d.bad.retain(|(path, _)| *path != field.path);
            match fields::read(field.kind, typed) {
                Ok(new) => fields::set(&mut d.value, field.path, new),
                Err(message) => d.bad.push((field.path, message)),
            }
        });
    }

    /// The value at a path; a default where there is none of this type.
    pub fn get<T: DeserializeOwned + Default>(self, path: &str) -> T {
        self.read(|d| fields::get(&d.value, path).and_then(|v| T::deserialize(v).ok())).unwrap_or_default()
    }

    /// Puts a value at a path.
    pub fn put(self, path: &str, new: Value) {
        self.change(|d| fields::set(&mut d.value, path, new));
    }

    /// The world's objectives, once they are known.
    pub fn objectives(self) -> Vec<Objective> {
        self.read(|d| d.objectives().to_vec())
    }

    /// Changes when the world's objectives do, and only then.
    pub fn known(self) -> Memo<u64> {
        derived::count(move || self.read(|d| d.objectives().len() as u64))
    }

    /// What is wrong with the field at `path`, or with an entry of it.
    pub fn message(self, path: &'static str) -> Memo<String> {
        derived::text(move || self.read(|d| d.message(path)))
    }

    /// A text about the configuration; empty while that cannot be read.
    pub fn about(self, f: impl Fn(&RunConfig) -> String + Send + Sync + 'static) -> Memo<String> {
        derived::text(move || self.read(|d| d.parsed.as_ref().map(&f).unwrap_or_default()))
    }

    /// What the input of `field` shows: not what is being typed, but what was loaded.
    pub fn shown(self, field: Field) -> String {
        self.loaded.track();
        self.data.with_value(|d| fields::text(fields::get(&d.value, field.path)))
    }

    fn fetch(self) {
        spawn_local(async move {
            let answer = api::world().await;
            self.change(|d| d.world = Some(answer));
        });
        spawn_local(async move {
            let answer = api::devices().await;
            if let Ok(list) = answer {
                self.change(|d| d.devices = list);
            }
        });
    }
}

/// The page.
pub fn configure(address: Address) -> AnyView {
    let wished = address.asked("preset").unwrap_or_else(|| "quick".into());
    let config = presets::find(&wished).or_else(|| presets::find("quick")).map(|p| p.config).unwrap_or_default();
    let form = Form::new(config);
    form.fetch();
    let cards: Vec<AnyView> = presets::all().into_iter().map(|p| preset_card(form, p)).collect();
    let links: Vec<AnyView> =
        SECTIONS.iter().map(|s| view! { <a href=format!("#section-{}", s.id)>{s.title}</a> }.into_any()).collect();
    let sections: Vec<AnyView> = SECTIONS
        .iter()
        .map(|s| {
            let extra = if s.id == "run" { device_notes(form) } else { ().into_any() };
            section(s.id, s.title, s.intro, s.fields.iter().map(|f| field(form, *f)).collect(), extra)
        })
        .collect();
    let preferences = section(
        "targets",
        "Objectives and targets",
        "Which objectives prompts may ask for, how often, and which combinations are kept out of training to test on.",
        TARGETS.iter().map(|f| field(form, *f)).collect(),
        targets::held_out(form),
    );
    view! {
        <h1>"Configure a run"</h1>
        <p class="muted">"Choose a preset, change what you like, start. Nothing runs before you press Start."</p>
        <div class="grid three presets" role="group" aria-label="Presets">{cards}</div>
        <nav class="sections" aria-label="Sections of the form">
            <a href="#section-targets">"Objectives and targets"</a>
            {links}
            <a href="#start">"Start"</a>
        </nav>
        <div class="configure">
            <div class="form">
                {world_banner(form)}
                {targets::objectives(form)}
                {preferences}
                {sections}
            </div>
            {aside(form, address)}
        </div>
    }
    .into_any()
}

fn preset_card(form: Form, preset: PresetInfo) -> AnyView {
    let id = preset.id.clone();
    let config = preset.config.clone();
    view! {
        <button
            type="button"
            class="card preset"
            data-preset=preset.id.clone()
            aria-pressed=move || form.read(|d| d.base.preset == id).to_string()
            on:click=move |_| form.load(config.clone())
        >
            <b>{preset.title}</b>
            <span class="muted">{preset.description}</span>
        </button>
    }
    .into_any()
}

fn section(id: &'static str, title: &'static str, intro: &'static str, fields: Vec<AnyView>, extra: AnyView) -> AnyView {
    view! {
        <section class="card form-section" id=format!("section-{id}") aria-label=title>
            <h2>{title}</h2>
            <p class="hint">{intro}</p>
            <div class="fields">{fields}</div>
            {extra}
        </section>
    }
    .into_any()
}

fn device_notes(form: Form) -> AnyView {
    view! {
        <ul class="plain">
            {move || {
                form.read(|d| d.devices.clone())
                    .into_iter()
                    .map(|d| {
                        let state = if d.chosen { "would be chosen" } else if d.available { "available" } else { "not available" };
                        view! {
                            <li class="hint"><b>{d.device}</b>" "{d.name}": "{state}". "{d.reason}</li>
                        }
                        .into_any()
                    })
                    .collect::<Vec<_>>()
                    .into_any()
            }}
        </ul>
    }
    .into_any()
}

fn world_banner(form: Form) -> AnyView {
    let failed = derived::text(move || {
        form.read(|d| match &d.world {
            Some(Err(failure)) => failure.message.clone(),
            _ => String::new(),
        })
    });
    view! {
        {move || {
            let message = failed.get();
            if message.is_empty() {
                return ().into_any();
            }
            view! {
                <div class="card banner error" role="alert">
                    <p>{message}</p>
                    <button class="button" type="button" on:click=move |_| form.fetch()>"Try again"</button>
                </div>
            }
            .into_any()
        }}
    }
    .into_any()
}

/// Problems, Start, differences and the configuration itself.
fn aside(form: Form, address: Address) -> AnyView {
    let blocked = derived::flag(move || form.read(|d| !d.problems.is_empty()));
    let start = move |_| {
        let Some(config) = form.data.with_value(|d| d.parsed.clone()) else { return };
        if form.starting.get_untracked() {
            return;
        }
        form.starting.set(true);
        form.change(|d| d.refused = None);
        spawn_local(async move {
            let answer = api::start(&config).await;
            let _ = form.starting.try_set(false);
            match answer {
                Ok(id) => address.go(&format!("/runs/{id}")),
                Err(failure) => form.change(|d| d.refused = Some(failure)),
            }
        });
    };
    view! {
        <aside class="aside" id="start" aria-label="Start">
            <div class="card">
                <h2>"Start"</h2>
                {move || form.read(|d| problem_list(&d.problems))}
                {move || form.read(|d| d.refused.as_ref().map_or_else(|| ().into_any(), refusal))}
                <p class="actions">
                    <button
                        id="start-run"
                        type="button"
                        class="button primary"
                        disabled=move || blocked.get() || form.starting.get()
                        on:click=start
                    >
                        {move || if form.starting.get() { "Starting…".to_string() } else { "Start the run".to_string() }}
                    </button>
                </p>
                <p class="hint" role="status">{move || form.read(reason).to_string()}</p>
            </div>
            <div class="card">
                <h2>"Changed against the preset"</h2>
                <ul class="plain changes" id="changes">
                    {move || form.read(Data::changes).into_iter().map(change).collect::<Vec<_>>().into_any()}
                </ul>
                <p class="hint" class:gone=move || !form.read(Data::changes).is_empty()>"Nothing yet."</p>
            </div>
            <details class="card">
                <summary>"The configuration (JSON)"</summary>
                <pre id="config-json" tabindex="0">
                    {move || form.read(|d| d.parsed.as_ref().map(|c| serde_json::to_string_pretty(c).unwrap_or_default()).unwrap_or_default())}
                </pre>
            </details>
        </aside>
    }
    .into_any()
}

/// Whether a run can be started, and why not.
fn reason(data: &Data) -> &'static str {
    if !data.problems.is_empty() {
        "Start is off until the problems above are solved."
    } else if !matches!(data.world, Some(Ok(_))) {
        "The objectives are still loading; the server checks the settings in any case."
    } else {
        "The settings are valid."
    }
}

fn problem_list(problems: &[Problem]) -> AnyView {
    let items: Vec<AnyView> = problems
        .iter()
        .map(|p| {
            view! {
                <li><a href=format!("#{}", element_id(&p.field))><code>{p.field.clone()}</code></a>" "{p.message.clone()}</li>
            }
            .into_any()
        })
        .collect();
    view! { <ul class="plain problems" id="problems" role="status">{items}</ul> }.into_any()
}

fn refusal(failure: &Failure) -> AnyView {
    view! {
        <div class="banner error" role="alert">
            <p>{failure.message.clone()}</p>
            {problem_list(&failure.problems)}
        </div>
    }
    .into_any()
}

fn change((path, old, new): (String, String, String)) -> AnyView {
    view! { <li><code>{path}</code><span class="num">{old}" → "<b>{new}</b></span></li> }.into_any()
}
