//! The page on which a run is configured and started.
//!
//! Inputs and what they do to the configuration belong here; what a valid configuration is does not: `moslim-shared` knows that.

mod curve;
mod field;
mod fields;
mod form;
mod keep;
mod targets;

use crate::api::{self, Failure};
use crate::pages::configure::field::field;
use crate::pages::configure::fields::element_id;
use crate::pages::configure::form::{Data, Form};
use crate::parts::every::until_answered;
use crate::parts::memo::memo;
use crate::parts::pick::Pick;
use crate::source::is_tab;
use crate::words::{t, translated};
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::{use_navigate, use_query_map};
use moslim_shared::config::settings::{Depth, Kind, SECTIONS, SETTINGS, Section};
use moslim_shared::config::{Difference, Problem, RunConfig, TaskKind};
use moslim_shared::event::{PresetInfo, RunInfo};
use moslim_shared::presets;

/// The page.
#[component]
pub fn Configure() -> impl IntoView {
    let asked = |name: &str| use_query_map().with_untracked(|q| q.get(name));
    let wished = asked("preset").unwrap_or_else(|| "quick".into());
    let mut config = presets::find(&wished)
        .or_else(|| presets::find(if is_tab() { "tab" } else { "quick" }))
        .map(|p| p.config)
        .unwrap_or_default();
    if let Some(task) = asked("task") {
        (config.task.kind, config.task.name) = (TaskKind::Ratings, task);
    }
    if let Some(model) = asked("model") {
        config.base.model = model;
    }
    let wanted = ["preset", "task", "model"].iter().any(|name| asked(name).is_some());
    let form = Form::new(config);
    let taken = keep::follow(form, wanted || asked("like").is_some() || asked("fork").is_some());
    let missing = like_a_run(form, asked("like"), asked("fork"));
    form.fetch_devices();
    form.follow_task();
    until_answered(|| Box::pin(api::measured()), move |finished| form.change(|d| d.learn(finished)));
    // A tab has none, and one thread.
    if !is_tab() {
        until_answered(|| Box::pin(api::models()), move |models| form.change(|d| d.models = Some(models)));
    }
    // A tab has its own models and the built-in world.
    let fits = |p: &PresetInfo| !is_tab() || p.config.task.kind == TaskKind::World;
    let cards: Vec<AnyView> = presets::all().into_iter().filter(fits).map(|p| preset_card(form, p)).collect();
    let mut links: Vec<AnyView> = Vec::new();
    let mut sections: Vec<AnyView> = Vec::new();
    for s in SECTIONS {
        let extra = match s.id {
            "run" => device_notes(form),
            "targets" => targets::held_out(form),
            "mapping" => curve::curve(form),
            _ => ().into_any(),
        };
        // Objectives and held-out pairs have editors of their own.
        let own = SETTINGS.iter().filter(|f| f.section == s.id && !matches!(f.kind, Kind::Objectives | Kind::Pairs));
        let shown: Vec<Memo<bool>> = own.clone().map(|f| form.shows(f)).collect();
        let editor = s.id == "targets";
        let any = memo(move || editor || shown.iter().any(|s| s.get()));
        let link = view! { <a href=format!("#section-{}", s.id) rel="external" class:gone=move || !any.get()>{t(s.title)}</a> };
        links.push(link.into_any());
        sections.push(section(s, any, own.map(|f| field(form, f)).collect(), extra));
    }
    let depths: Vec<AnyView> = Depth::ALL
        .into_iter()
        .map(|depth| {
            view! {
                <button
                    type="button"
                    data-depth=depth.title()
                    aria-pressed=move || (form.depth.get() == depth).to_string()
                    on:click=move |_| form.depth.set(depth)
                >
                    {t(depth.title())}
                </button>
            }
            .into_any()
        })
        .collect();
    view! {
        <h1>{t("Configure a run")}</h1>
        <p class="muted">{t("Choose a preset, change what you like, start. Nothing runs before you press Start.")}</p>
        {keep::draft_note(form, taken)}
        {fork_note(form, missing)}
        <div class="grid three presets" role="group" aria-label=t("Presets")>{cards}</div>
        <nav class="sections" aria-label=t("Sections of the form")>
            {links}
            <a href="#start" rel="external">{t("Start")}</a>
        </nav>
        <p class="depths">
            <span id="depth-label">{t("Settings shown: ")}</span>
            <span class="segments" role="group" aria-labelledby="depth-label">{depths}</span>
            <span class="hint">{t(" What differs from the preset is always shown.")}</span>
        </p>
        <div class="configure">
            <div class="form">
                {task_banner(form)}
                {targets::objectives(form)}
                {sections}
            </div>
            {aside(form)}
        </div>
    }
    .into_any()
}

/// Fills the form with the configuration of a run: to train one `like` it, or to go on from the last checkpoint of one, `fork`. Tells what
/// is in the way.
fn like_a_run(form: Form, like: Option<String>, fork: Option<String>) -> RwSignal<String> {
    let missing = RwSignal::new(String::new());
    if let Some(id) = fork.clone().or(like) {
        spawn_local(async move {
            match api::run(&id).await {
                Ok(run) => {
                    if let Some(preset) = presets::find(&run.config.preset) {
                        form.load(preset.config);
                    }
                    let config = RunConfig { fork, ..run.config.clone() };
                    form.take(config.clone());
                    form.change(|d| {
                        d.like = Some(RunInfo { config, ..run.clone() });
                        d.learn(vec![run]);
                    });
                }
                Err(failure) => drop(missing.try_set(failure.message)),
            }
        });
    }
    missing
}

/// What a fork is, and of which run; or that there is no such run.
fn fork_note(form: Form, missing: RwSignal<String>) -> AnyView {
    let fork = form.about(|c| c.fork.clone().unwrap_or_default());
    let stop = move |_| form.put("fork", serde_json::Value::Null);
    view! {
        <p id="fork" class="card banner" role="status" class:gone=move || fork.get().is_empty()>
            <span>
                {t("A fork of run ")} <code>{move || fork.get()}</code>
                {t(": it goes on from the last checkpoint, and policy optimisation and evaluation may change; of a finished run it evaluates what that has trained, and evaluation alone may change.")}
            </span>
            <button id="forget-fork" class="button small" type="button" on:click=stop>{t("Begin anew")}</button>
        </p>
        <p class="card banner error" role="alert" class:gone=move || missing.get().is_empty()>{move || missing.get()}</p>
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
            <b>{translated(&preset.title)}</b>
            <span class="muted">{translated(&preset.description)}</span>
        </button>
    }
    .into_any()
}

fn section(s: &'static Section, shown: Memo<bool>, fields: Vec<AnyView>, extra: AnyView) -> AnyView {
    view! {
        <section class="card form-section" class:gone=move || !shown.get() id=format!("section-{}", s.id) aria-label=t(s.title)>
            <h2>{t(s.title)}</h2>
            <p class="hint">{t(s.intro)}</p>
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
                        let state = if d.chosen { t("would be chosen") } else if d.available { t("available") } else { t("not available") };
                        view! {
                            <li class="hint"><b>{d.device}</b>" "{d.name}{t(": ")}{state}{t(". ")}{d.reason}</li>
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

fn task_banner(form: Form) -> AnyView {
    let failed = memo(move || {
        form.read(|d| match &d.task {
            // Problems of a field stand there.
            Some(Err(failure)) if failure.problems.is_empty() => failure.message.clone(),
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
                    <button class="button" type="button" on:click=move |_| form.fetch_task()>{t("Try again")}</button>
                </div>
            }
            .into_any()
        }}
    }
    .into_any()
}

/// Problems, Start, differences and the configuration itself.
fn aside(form: Form) -> AnyView {
    let navigate = use_navigate();
    let blocked = memo(move || form.read(|d| !d.problems.is_empty()));
    let start = move |_| {
        let Some(config) = form.parsed() else { return };
        if form.starting.get_untracked() {
            return;
        }
        form.starting.set(true);
        form.change(|d| d.refused = None);
        let navigate = navigate.clone();
        spawn_local(async move {
            let answer = api::start(&config).await;
            let _ = form.starting.try_set(false);
            match answer {
                Ok(id) => navigate(&format!("/runs/{id}"), Default::default()),
                Err(failure) => form.change(|d| d.refused = Some(failure)),
            }
        });
    };
    let others = memo(move || form.read(Data::others));
    let chosen = memo(move || form.read(|d| d.like.as_ref().map(|run| run.id.clone()).unwrap_or_default()));
    let choose = Callback::new(move |id: String| form.change(|d| d.compare(&id)));
    view! {
        <aside class="aside" id="start" aria-label=t("Start")>
            <div class="card">
                <h2>{t("Start")}</h2>
                {move || form.read(|d| problem_list("problems", &d.problems))}
                {move || form.read(|d| d.refused.as_ref().map_or_else(|| ().into_any(), refusal))}
                <p class="actions">
                    <button
                        id="start-run"
                        type="button"
                        class="button primary"
                        disabled=move || blocked.get() || form.starting.get()
                        on:click=start
                    >
                        {move || if form.starting.get() { t("Starting…").to_string() } else { t("Start the run").to_string() }}
                    </button>
                </p>
                <p class="hint" role="status">{move || form.read(reason).to_string()}</p>
                <p class="hint num" id="estimate">{move || form.read(Data::estimate)}</p>
            </div>
            <div class="card">
                <h2>{t("What is changed")}</h2>
                {move || view! { <Pick id="compared-with" label=t("Compared with") options=others.get() chosen=chosen choose=choose/> }}
                <ul class="plain changes" id="changes">
                    {move || form.read(Data::compared).into_iter().map(change).collect::<Vec<_>>().into_any()}
                </ul>
                <p class="hint" class:gone=move || !form.read(Data::compared).is_empty()>{t("Nothing yet.")}</p>
            </div>
            {keep::files(form)}
            <details class="card">
                <summary>{t("The configuration (JSON)")}</summary>
                <pre id="config-json" tabindex="0">
                    {move || form.read(|d| d.parsed.as_ref().map(|c| serde_json::to_string_pretty(&serde_json::json!(c)).unwrap_or_default()).unwrap_or_default())}
                </pre>
            </details>
        </aside>
    }
    .into_any()
}

/// Whether a run can be started, and why not.
fn reason(data: &Data) -> &'static str {
    if !data.problems.is_empty() {
        t("Start is off until the problems above are solved.")
    } else if !matches!(data.task, Some(Ok(_))) {
        t("The objectives are still loading; the server checks the settings in any case.")
    } else {
        t("The settings are valid.")
    }
}

fn problem_list(id: &'static str, problems: &[Problem]) -> AnyView {
    let items: Vec<AnyView> = problems
        .iter()
        .map(|p| {
            view! {
                <li><a href=format!("#{}", element_id(&p.field)) rel="external"><code>{p.field.clone()}</code></a>" "{p.message.clone()}</li>
            }
            .into_any()
        })
        .collect();
    view! { <div id=id role="status"><ul class="plain problems">{items}</ul></div> }.into_any()
}

fn refusal(failure: &Failure) -> AnyView {
    view! {
        <div class="banner error" role="alert">
            <p>{failure.message.clone()}</p>
            {problem_list("refused", &failure.problems)}
        </div>
    }
    .into_any()
}

fn change(Difference { path, old, new }: Difference) -> AnyView {
    view! { <li><code>{path}</code><span class="num">{old}" → "<b>{new}</b></span></li> }.into_any()
}
