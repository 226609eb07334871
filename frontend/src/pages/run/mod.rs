//! A run while it lives, and what it came to.
//!
//! A file a section of the page. What the sections show belongs here; what the events of a run mean is in `state`, how a chart is
//! drawn in `moslim-charts`.

mod about;
mod behind;
mod cockpit;
mod control;
mod curves;
mod grades;
mod learning;
mod report;
mod sample;
mod stage;
mod trade_offs;
mod what_if;

use crate::api;
use crate::pages::run::about::Said;
use crate::pages::run::behind::{Answers, Behind};
use crate::pages::run::cockpit::{Age, Cockpit};
use crate::pages::run::control::Control;
use crate::pages::run::curves::{Distributions, Training};
use crate::pages::run::learning::Learning;
use crate::pages::run::report::{RewardModel, Summary};
use crate::pages::run::sample::Samples;
use crate::pages::run::stage::Stages;
use crate::pages::run::what_if::OtherMappings;
use crate::pages::way::{Way, fronts_at, growth};
use crate::parts::chart::Linked;
use crate::parts::format;
use crate::parts::memo::memo;
use crate::parts::settling::settling;
use crate::parts::title::{HASH, titled};
use crate::parts::tour::{Stop, Tour};
use crate::source::{at, is_tab};
use crate::state::{RunState, Topic};
use crate::stream::{Connection, Run, Stream, Wanted};
use crate::words::{said, t};
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_params_map;
use moslim_shared::event::{RunStatus, Stage};
use moslim_shared::method::Method;

/// Where the section links lead.
fn links() -> [(&'static str, &'static str); 10] {
    [
        ("#cockpit", t("At a glance")),
        ("#learning", t("Learning")),
        ("#control", t("Control")),
        ("#samples", t("Answers")),
        ("#classes", t("Classes")),
        ("#what-if", t("What if")),
        ("#training", t("Supervised")),
        ("#reward-model", t("Reward model")),
        ("#summary", t("Result")),
        ("#facts", t("Facts and notes")),
    ]
}

/// What a newcomer is shown.
fn tour() -> [Stop; 8] {
    [
        ("#verdict", t("What the run has come to so far, in one sentence. Everything below is where that comes from.")),
        (
            "#stages",
            t(
                "A run goes through stages: the model learns the language, a reward model learns to grade, and the policy is optimised on its grades. At the end all is measured on questions that training never saw.",
            ),
        ),
        (
            "#asked-title",
            t(
                "A row is a class that the prompt asks for, a column what the answers were. A policy that obeys fills the diagonal; before training the rows are equal. Drag the slider below to see how it came about.",
            ),
        ),
        ("#newest-title", t("What it writes, and what was asked. Numbers can flatter: read some answers.")),
        (
            "#learning",
            t(
                "Is it learning, and at what price? Reward should rise; KL says how far the policy has left its start; a falling entropy says that it repeats itself.",
            ),
        ),
        (
            "#samples",
            t(
                "One answer in full: the reward model's class probabilities, and how they become the one scalar that is optimised.",
            ),
        ),
        (
            "#what-if",
            t("The same answers under other mappings. Another one would have paid for other things, without a new reward model."),
        ),
        (
            "#summary",
            t(
                "What it came to, on held-out questions, before and after; and files to keep. When the run is finished, \"Ask it\" leads to the playground.",
            ),
        ),
    ]
}

/// Most notes on the page.
const NOTES: usize = 5;

/// What buttons need.
#[derive(Clone, Copy)]
struct Actions {
    id: StoredValue<String>,
    stream: StoredValue<Option<Stream>, LocalStorage>,
    busy: RwSignal<bool>,
    /// What was asked for last.
    asked: RwSignal<&'static str>,
    /// Why the last request came to nothing; empty when it did not.
    failed: RwSignal<String>,
}

impl Actions {
    fn ask(self, action: &'static str) {
        if self.busy.get_untracked() {
            return;
        }
        self.busy.set(true);
        self.asked.set(action);
        self.failed.set(String::new());
        spawn_local(async move {
            let answer = api::act(&self.id.get_value(), action).await;
            let _ = self.busy.try_set(false);
            if let Err(failure) = answer {
                let _ = self.failed.try_set(failure.message);
            }
            self.look_again();
        });
    }

    /// Asks anew for everything that is said of the run.
    fn look_again(self) {
        let _ = self.stream.try_with_value(|s| {
            if let Some(stream) = s {
                stream.reconnect();
            }
        });
    }
}

/// The page of the run that the address names; made anew for another one.
#[component]
pub fn RunPage() -> impl IntoView {
    let params = use_params_map();
    let id = memo(move || params.with(|p| p.get("id")));
    view! {
        <For each=move || id.get() key=String::clone let:id>
            <Live id=id/>
        </For>
    }
}

#[component]
fn Live(id: String) -> impl IntoView {
    let run = Run::new();
    let connection = RwSignal::new(Connection::Connecting);
    provide_context(Linked::new());
    provide_context(Behind::new());
    let stream = StoredValue::new_local(Some(Stream::open(id.clone(), Wanted::ALL, run, connection)));
    on_cleanup(move || {
        let _ = stream.try_update_value(|s| {
            if let Some(stream) = s.take() {
                stream.stop();
            }
        });
    });
    let (busy, asked, failed) = (RwSignal::new(false), RwSignal::new(""), RwSignal::new(String::new()));
    let actions = Actions { id: StoredValue::new(id.clone()), stream, busy, asked, failed };
    // Within a page the browser scrolls by itself, and takes the keyboard's focus along.
    let links = links().into_iter().map(|(href, text)| view! { <a href=href rel="external">{text}</a> }).collect_view();
    let (own, named) = (id.clone(), id.clone());
    let told = run.memo(RunState::is_told);
    let settling = settling(move || told.get());
    let known = run.memo(|s| s.info().map(|i| (i.title(), i.status)));
    titled(move || match known.get() {
        Some((name, RunStatus::Finished)) => name,
        Some((name, status)) => format!("{name} ({})", format::status_told(status)),
        None => String::new(),
    });
    view! {
        <div class="live" class:settling=move || settling.get() data-run=own>
            <Header run=run id=id connection=connection actions=actions/>
            <Banner run=run actions=actions/>
            <section id="stages" aria-label=t("Stages")>
                <Stages run=run/>
            </section>
            <Cockpit run=run/>
            <nav class="sections" aria-label=t("Sections of the run")>{links}</nav>
            <Learning run=run/>
            <Control run=run/>
            <OnTheWay run=run/>
            <Samples run=run/>
            <Answers run=run/>
            <Distributions run=run/>
            <OtherMappings run=run/>
            <Training run=run/>
            <RewardModel run=run/>
            <Summary run=run/>
            <Facts run=run id=named actions=actions/>
        </div>
    }
}

/// How its front grew.
#[component]
fn OnTheWay(run: Run) -> impl IntoView {
    let share = RwSignal::new(1.0);
    let named = |state: &RunState| state.info().map(|i| i.title()).unwrap_or_default();
    let fronts = run.on(Topic::Policy, move |s| fronts_at(&[(named(s), s)], share.get()));
    let plot = run.on(Topic::Policy, move |s| growth(&[(named(s), s)]));
    view! { <Way share=share fronts=fronts plot=plot/> }
}

/// Name, status, connection, facts, and what can be done.
#[component]
fn Header(run: Run, id: String, connection: RwSignal<Connection>, actions: Actions) -> impl IntoView {
    let ask_it = at(&format!("/playground?in={id},{id}:start"));
    // Nothing until the server has said it.
    let status = run.memo(|s| s.info().map(|i| i.status));
    let named = move |unknown: &'static str| status.get().map_or(unknown, format::status);
    let fallback = id.clone();
    let name = run.memo(move |s| match s.info() {
        Some(info) => info.title(),
        None => said("Run {0}", &[&fallback]),
    });
    view! {
        <header class="run-head">
            <div class="run-title">
                <h1 id="run-name">{move || name.get()}</h1>
                <p class="chips">
                    <span
                        id="run-status"
                        class=move || format!("status {}", named("unknown"))
                        data-status=move || named("unknown")
                    >
                        {move || status.get().map_or(t("waiting for the server"), format::status_told)}
                    </span>
                    <span
                        id="connection"
                        class="pill"
                        role="status"
                        data-connection=move || connection.get().name()
                    >
                        {move || connection.get().told()}
                    </span>
                    <Age run=run/>
                    <code class="hint">{id}</code>
                </p>
            </div>
            <div class="actions">
                <Tour stops=tour()/>
                {button(actions, "cancel", t("Cancel"), "", memo(move || {
                    matches!(status.get(), Some(RunStatus::Running | RunStatus::Queued))
                }))}
                // A run in a tab is kept with the tab, and ends at once.
                {(!is_tab()).then(|| {
                    let running = memo(move || status.get() == Some(RunStatus::Running));
                    let late = memo(move || running.get() && actions.asked.get() == "cancel");
                    let pause = t("Keeps what was learnt so far and makes room for others; Resume goes on from there");
                    let keep = t("Keeps what was learnt so far after the step it is in; after a crash the run goes on from there");
                    let kill = t("Ends its process at once; Resume goes on from the last checkpoint");
                    (
                        button(actions, "kill", t("Kill"), kill, late),
                        button(actions, "pause", t("Pause"), pause, running),
                        button(actions, "checkpoint", t("Checkpoint"), keep, running),
                    )
                })}
                {button(actions, "resume", t("Resume"), "", memo(move || status.get().is_some_and(resumable)))}
                <a
                    id="ask-it"
                    class="button primary"
                    class:gone=move || status.get() != Some(RunStatus::Finished)
                    href=ask_it
                >
                    {t("Ask it")}
                </a>
            </div>
        </header>
    }
}

/// A button that asks something of the run, where that is `possible`.
fn button(actions: Actions, ask: &'static str, text: &'static str, title: &'static str, possible: Memo<bool>) -> impl IntoView {
    let kind = match ask {
        "cancel" | "kill" => "button danger",
        "resume" => "button primary",
        _ => "button",
    };
    view! {
        <button
            id=ask
            type="button"
            class=kind
            class:gone=move || !possible.get()
            disabled=move || actions.busy.get()
            title=title
            on:click=move |_| actions.ask(ask)
        >
            {text}
        </button>
    }
}

/// What the run is, where it runs, what it said, and what is said of it.
#[component]
fn Facts(run: Run, id: String, actions: Actions) -> impl IntoView {
    let revision = run.revision(Topic::Head);
    // A tab trains from the beginning.
    let finished = run.memo(|s| s.info().is_some_and(|i| i.status == RunStatus::Finished));
    let forkable = run.memo(move |s| {
        let goes_on = matches!(s.checkpoint, Some((Stage::Policy, _))) && s.method() == Method::Moslim;
        !is_tab() && s.info().is_some() && (goes_on || finished.get())
    });
    view! {
        <section id="facts" class="section" aria-labelledby="facts-title">
            <h2 id="facts-title">{t("Facts and notes")}</h2>
            <dl class="card facts">
                {move || {
                    let _ = revision.get();
                    run.read(facts)
                }}
            </dl>
            <p class="actions">
                <a id="like-it" class="button small" href=at(&format!("/configure?like={id}"))>{t("Configure one like it")}</a>
                <a
                    id="fork-it"
                    class="button small"
                    class:gone=move || !forkable.get()
                    href=at(&format!("/configure?fork={id}"))
                >
                    {move || if finished.get() { t("Evaluate it otherwise") } else { t("Fork from its last checkpoint") }}
                </a>
            </p>
            <h3>{t("What you say of it")}</h3>
            <Said run=run id=id kept=move || actions.look_again()/>
            <Notes run=run/>
        </section>
    }
}

fn resumable(status: RunStatus) -> bool {
    matches!(status, RunStatus::Cancelled | RunStatus::Failed | RunStatus::Interrupted | RunStatus::Paused)
}

fn facts(state: &RunState) -> impl IntoView + use<> {
    let mut list: Vec<(&'static str, String)> = Vec::new();
    if let Some(info) = state.info() {
        list.push((t("Preset"), info.preset.clone()));
        list.push((t("Seed"), info.seed.to_string()));
    }
    if let Some(config) = &state.config {
        list.push((t("Method"), config.method.kind.title().to_string()));
        if state.optimises() {
            list.push((t("Optimiser"), config.policy.optimizer.title().to_string()));
        }
        if let Some(run) = &config.from {
            list.push((t("Starts from the policy of"), run.clone()));
        }
        if let Some(run) = &config.fork {
            list.push((t("Forked from"), run.clone()));
        }
    }
    if let Some(device) = &state.device {
        list.push((t("Device"), format!("{} ({})", device.device, device.name)));
        list.push((t("Why this device"), device.reason.clone()));
    }
    if let Some(model) = &state.model {
        let (policy, reward) = (format::count(model.policy_parameters), format::count(model.reward_parameters));
        list.push((t("Parameters"), said("{0} policy, {1} reward model", &[&policy, &reward])));
        let [train, validation, test] = model.rows.map(|r| format::count(r as u64));
        list.push((t("Rows"), said("{0} train, {1} validation, {2} test", &[&train, &validation, &test])));
    }
    if let Some((stage, step)) = state.checkpoint {
        list.push((t("Last checkpoint"), said("{0} at step {1}", &[t(stage.title()), &step.to_string()])));
    }
    // Files that are saved from the page say it, too.
    let hash = t("Hash of the configuration");
    list.extend(state.info().filter(|i| !i.config_hash.is_empty()).map(|i| (hash, i.config_hash.clone())));
    let row = move |(k, v)| view! { <div><dt>{k}</dt><dd id=(k == hash).then_some(HASH)>{v}</dd></div> };
    list.into_iter().map(row).collect_view()
}

/// What went wrong, and what to do about it.
#[component]
fn Banner(run: Run, actions: Actions) -> impl IntoView {
    let known = run.memo(trouble);
    view! {
        <div aria-live="polite">
            {move || known.get().map(|(kind, text, resume)| view! {
                <div class=format!("card banner {kind}") role="alert" id="banner">
                    <p>{text}</p>
                    <button
                        type="button"
                        class="button"
                        class:gone=!resume
                        disabled=move || actions.busy.get()
                        on:click=move |_| actions.ask("resume")
                    >
                        {t("Resume from the last checkpoint")}
                    </button>
                </div>
            })}
            <Show when=move || !actions.failed.with(String::is_empty)>
                <div class="card banner error" role="alert"><p>{move || actions.failed.get()}</p></div>
            </Show>
        </div>
    }
}

/// Kind of banner, text, and whether resuming helps.
fn trouble(state: &RunState) -> Option<(&'static str, String, bool)> {
    if let Some(error) = &state.error {
        return Some(("error", error.clone(), false));
    }
    let info = state.info()?;
    let told = state.ended.as_ref().map_or(info.message.as_str(), |e| e.1.as_str());
    let why = if told.is_empty() { t("No reason was given.") } else { told };
    match info.status {
        RunStatus::Failed => Some(("error", said("The run failed. {0}", &[why]), true)),
        RunStatus::Interrupted => Some(("warning", said("The run was interrupted. {0}", &[why]), true)),
        RunStatus::Cancelled => Some(("warning", t("The run was cancelled. It keeps what it has learnt.").into(), true)),
        RunStatus::Paused => Some(("warning", t("The run is paused. It keeps what it has learnt.").into(), true)),
        RunStatus::Queued => Some(("warning", said("The run waits for its turn. {0}", &[&info.message]), false)),
        RunStatus::Running | RunStatus::Finished => None,
    }
}

/// The newest notes first.
#[component]
fn Notes(run: Run) -> impl IntoView {
    let notes = run.memo(|s| s.notes.iter().rev().take(NOTES).cloned().collect::<Vec<_>>());
    view! {
        <ul class="plain notes" aria-label=t("Notes of the run")>
            {move || notes.get().into_iter().map(|n| view! { <li class="hint">{n}</li> }).collect_view()}
        </ul>
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::RunConfig;
    use moslim_shared::event::{Event, EventBody, Frame, Outcome, RunInfo};

    #[test]
    fn a_failed_run_says_why_and_can_be_resumed() {
        let mut state = RunState::default();
        assert_eq!(trouble(&state), None);
        let info = RunInfo {
            id: "r".into(),
            name: String::new(),
            preset: "smoke".into(),
            seed: 1,
            status: RunStatus::Running,
            created: 0,
            last_seq: 0,
            message: String::new(),
            config: RunConfig::default(),
            config_hash: String::new(),
            summary: None,
            milestones: Vec::new(),
            about: Default::default(),
        };
        state.receive(Frame::Snapshot { info });
        assert_eq!(trouble(&state), None);
        let body = EventBody::Ended { outcome: Outcome::Failed, message: "out of memory".into() };
        state.apply(Event { seq: 1, time: 0, body });
        assert_eq!(trouble(&state), Some(("error", "The run failed. out of memory".to_string(), true)));
    }
}
