//! The form of a run: the same type that the trainer reads, checked while it is edited.

use crate::api::{self, DeviceInfo, Failure};
use crate::pages::fields::{self, Field, Kind, SECTIONS, TARGETS, element_id};
use crate::parts::targets;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::NavigateOptions;
use leptos_router::hooks::{use_navigate, use_query_map};
use moslim_shared::config::{Problem, RunConfig};
use moslim_shared::event::{PresetInfo, WorldInfo};
use moslim_shared::objective::Objective;
use moslim_shared::presets;
use serde_json::Value;
use std::collections::BTreeMap;

/// The state of the form.
#[derive(Clone, Copy)]
pub struct Form {
    /// The configuration as JSON; always of the right shape.
    pub value: RwSignal<Value>,
    /// What was typed but cannot be read, by path.
    bad: RwSignal<BTreeMap<String, String>>,
    /// Grows when inputs must show the configuration anew.
    loaded: RwSignal<u64>,
    /// What differences are shown against.
    base: RwSignal<RunConfig>,
    world: RwSignal<Option<Result<WorldInfo, Failure>>>,
    devices: RwSignal<Vec<DeviceInfo>>,
    refused: RwSignal<Option<Failure>>,
    starting: RwSignal<bool>,
    parsed: Memo<Option<RunConfig>>,
    problems: Memo<Vec<Problem>>,
}

impl Form {
    fn new(config: RunConfig) -> Self {
        let value = RwSignal::new(crate::api::to_value(&config).unwrap_or(Value::Null));
        let bad = RwSignal::new(BTreeMap::<String, String>::new());
        let world = RwSignal::new(None::<Result<WorldInfo, Failure>>);
        let parsed = Memo::new(move |_| value.with(crate::api::from_value::<RunConfig>));
        let problems = Memo::new(move |_| {
            let mut list: Vec<Problem> = bad
                .with(|b| b.iter().map(|(field, message)| Problem { field: field.clone(), message: message.clone() }).collect());
            match (parsed.get(), world.get()) {
                (Some(config), Some(Ok(world))) => list.extend(config.problems(&world.objectives)),
                (None, _) => list.push(Problem { field: String::new(), message: "the configuration cannot be read".into() }),
                _ => {}
            }
            list
        });
        Self {
            value,
            bad,
            loaded: RwSignal::new(0),
            base: RwSignal::new(config),
            world,
            devices: RwSignal::new(Vec::new()),
            refused: RwSignal::new(None),
            starting: RwSignal::new(false),
            parsed,
            problems,
        }
    }

    fn load(self, config: RunConfig) {
        self.value.set(crate::api::to_value(&config).unwrap_or(Value::Null));
        self.bad.set(BTreeMap::new());
        self.refused.set(None);
        self.base.set(config);
        self.loaded.update(|n| *n += 1);
    }

    fn edit(self, field: Field, typed: &str) {
        self.refused.set(None);
        match fields::read(field.kind, typed) {
            Ok(new) => {
                if self.bad.with_untracked(|b| b.contains_key(field.path)) {
                    self.bad.update(|b| {
                        b.remove(field.path);
                    });
                }
                self.put(field.path, new);
            }
            Err(message) => self.bad.update(|b| {
                b.insert(field.path.to_string(), message);
            }),
        }
    }

    /// Puts a value at a path.
    pub fn put(self, path: &str, new: Value) {
        self.value.update(|v| fields::set(v, path, new));
    }

    /// The world's objectives, once they are known.
    pub fn objectives(self) -> Vec<Objective> {
        self.world.with(|w| match w {
            Some(Ok(world)) => world.objectives.clone(),
            _ => Vec::new(),
        })
    }

    /// What is wrong with the field at `path`, or with an entry of it.
    pub fn message(self, path: &str) -> String {
        self.problems.with(|problems| {
            let own: Vec<&str> = problems
                .iter()
                .filter(|p| p.field == path || p.field.strip_prefix(path).is_some_and(|rest| rest.starts_with('[')))
                .map(|p| p.message.as_str())
                .collect();
            own.join("; ")
        })
    }

    fn fetch(self) {
        spawn_local(async move {
            let _ = self.world.try_set(Some(api::world().await));
        });
        spawn_local(async move {
            if let Ok(list) = api::devices().await {
                let _ = self.devices.try_set(list);
            }
        });
    }
}

/// The page.
#[component]
pub fn Configure() -> impl IntoView {
    let wished = use_query_map().with_untracked(|q| q.get("preset")).unwrap_or_else(|| "quick".into());
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
            {aside(form)}
        </div>
    }
}

fn preset_card(form: Form, preset: PresetInfo) -> AnyView {
    let id = preset.id.clone();
    let config = preset.config.clone();
    view! {
        <button
            type="button"
            class="card preset"
            data-preset=preset.id.clone()
            aria-pressed=move || form.base.with(|b| b.preset == id).to_string()
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

/// One field: label, input, help, and what is wrong with it.
fn field(form: Form, field: Field) -> AnyView {
    let id = element_id(field.path);
    let note = format!("{id}-note");
    let message = Memo::new(move |_| form.message(field.path));
    let current = move || {
        form.loaded.track();
        form.value.with_untracked(|v| fields::text(fields::get(v, field.path)))
    };
    let mode = if field.kind == Kind::Text { "text" } else { "decimal" };
    let input = match field.kind {
        Kind::Choice(options) => {
            let options: Vec<AnyView> = options
                .iter()
                .map(|(value, label)| {
                    let value = *value;
                    view! { <option value=value prop:selected=move || current() == value>{*label}</option> }.into_any()
                })
                .collect();
            view! {
                <select id=id.clone() aria-describedby=note.clone() on:change=move |ev| form.edit(field, &event_target_value(&ev))>
                    {options}
                </select>
            }
            .into_any()
        }
        Kind::Toggle => view! {
            <input
                type="checkbox"
                id=id.clone()
                aria-describedby=note.clone()
                prop:checked=move || current() == "true"
                on:change=move |ev| form.edit(field, if event_target_checked(&ev) { "true" } else { "false" })
            />
        }
        .into_any(),
        _ => view! {
            <input
                type="text"
                id=id.clone()
                class="num"
                autocomplete="off"
                spellcheck="false"
                inputmode=mode
                aria-describedby=note.clone()
                aria-invalid=move || (!message.with(String::is_empty)).to_string()
                prop:value=current
                on:input=move |ev| form.edit(field, &event_target_value(&ev))
            />
        }
        .into_any(),
    };
    view! {
        <div class="field" class:invalid=move || !message.with(String::is_empty)>
            <label for=id>{field.label}</label>
            {input}
            <p class="hint" id=note>{field.help}</p>
            <p class="problem" role="status">{move || message.get()}</p>
        </div>
    }
    .into_any()
}

fn device_notes(form: Form) -> AnyView {
    view! {
        <ul class="plain">
            {move || {
                form.devices
                    .get()
                    .into_iter()
                    .map(|d| {
                        let state = if d.chosen { "would be chosen" } else if d.available { "available" } else { "not available" };
                        view! {
                            <li class="hint"><b>{d.device}</b>" "{d.name}": "{state}". "{d.reason}</li>
                        }
                        .into_any()
                    })
                    .collect::<Vec<_>>()
            }}
        </ul>
    }
    .into_any()
}

fn world_banner(form: Form) -> AnyView {
    let failed = Memo::new(move |_| form.world.with(|w| w.as_ref().and_then(|r| r.as_ref().err().map(|f| f.message.clone()))));
    view! {
        {move || {
            failed.get().map(|message| {
                view! {
                    <div class="card banner error" role="alert">
                        <p>{message}</p>
                        <button class="button" type="button" on:click=move |_| form.fetch()>"Try again"</button>
                    </div>
                }
                .into_any()
            })
        }}
    }
    .into_any()
}

/// Problems, Start, differences and the configuration itself.
fn aside(form: Form) -> AnyView {
    let navigate = use_navigate();
    let ready = Memo::new(move |_| form.world.with(|w| matches!(w, Some(Ok(_)))));
    let blocked = Memo::new(move |_| !form.problems.with(Vec::is_empty));
    let reason = move || {
        if blocked.get() {
            "Start is off until the problems above are solved."
        } else if !ready.get() {
            "The objectives are still loading; the server checks the settings in any case."
        } else {
            "The settings are valid."
        }
    };
    let start = move |_| {
        let Some(config) = form.parsed.get_untracked() else { return };
        if form.starting.get_untracked() {
            return;
        }
        form.starting.set(true);
        form.refused.set(None);
        let navigate = navigate.clone();
        spawn_local(async move {
            let result = api::start(&config).await;
            let _ = form.starting.try_set(false);
            match result {
                Ok(info) => navigate(&format!("/runs/{}", info.id), NavigateOptions::default()),
                Err(failure) => {
                    let _ = form.refused.try_set(Some(failure));
                }
            }
        });
    };
    let changes = Memo::new(move |_| match form.parsed.get() {
        Some(config) => form.base.with(|base| fields::differences(base, &config)),
        None => Vec::new(),
    });
    let pretty =
        Memo::new(move |_| form.parsed.get().and_then(|config| serde_json::to_string_pretty(&config).ok()).unwrap_or_default());
    view! {
        <aside class="aside" id="start" aria-label="Start">
            <div class="card">
                <h2>"Start"</h2>
                {move || form.problems.with(|p| problem_list(p))}
                {move || form.refused.get().map(refusal)}
                <p class="actions">
                    <button
                        id="start-run"
                        type="button"
                        class="button primary"
                        disabled=move || blocked.get() || form.starting.get()
                        on:click=start
                    >
                        {move || if form.starting.get() { "Starting…" } else { "Start the run" }}
                    </button>
                </p>
                <p class="hint" role="status">{reason}</p>
            </div>
            <div class="card">
                <h2>"Changed against the preset"</h2>
                <ul class="plain changes" id="changes">{move || changes.get().into_iter().map(change).collect::<Vec<_>>()}</ul>
                <p class="hint" class:gone=move || !changes.with(Vec::is_empty)>"Nothing yet."</p>
            </div>
            <details class="card">
                <summary>"The configuration (JSON)"</summary>
                <pre id="config-json" tabindex="0">{move || pretty.get()}</pre>
            </details>
        </aside>
    }
    .into_any()
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

fn refusal(failure: Failure) -> AnyView {
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
