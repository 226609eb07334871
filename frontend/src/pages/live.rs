//! A run while it lives, and what it came to.

use crate::api;
use crate::parts::{control, curves, format, learning, report, sample, stage};
use crate::state::{RunState, Topic};
use crate::stream::{Connection, Run, Stream};
use leptos::prelude::*;
use leptos::task::spawn_local;
use moslim_shared::event::RunStatus;

/// Where the section links lead.
const LINKS: [(&str, &str); 8] = [
    ("#stages", "Stages"),
    ("#learning", "Learning"),
    ("#control", "Control"),
    ("#samples", "Answers"),
    ("#classes", "Classes"),
    ("#training", "Supervised"),
    ("#judge", "Reward model"),
    ("#summary", "Result"),
];

/// What buttons need.
#[derive(Clone, Copy)]
struct Actions {
    id: StoredValue<String>,
    stream: StoredValue<Option<Stream>, LocalStorage>,
    busy: RwSignal<bool>,
    /// Why the last request came to nothing; empty when it did not.
    failed: RwSignal<String>,
}

impl Actions {
    fn ask(self, action: &'static str) {
        if self.busy.get_untracked() {
            return;
        }
        self.busy.set(true);
        self.failed.set(String::new());
        spawn_local(async move {
            let answer = api::act(&self.id.get_value(), action).await;
            let _ = self.busy.try_set(false);
            if let Err(failure) = answer {
                let _ = self.failed.try_set(failure.message);
            }
            let _ = self.stream.try_with_value(|s| {
                if let Some(stream) = s {
                    stream.reconnect();
                }
            });
        });
    }
}

/// The page of a run.
pub fn live(id: String) -> AnyView {
    let run = Run::new();
    let connection = RwSignal::new(Connection::Connecting.name().to_string());
    let stream = StoredValue::new_local(Some(Stream::open(id.clone(), run, connection)));
    on_cleanup(move || {
        let _ = stream.try_update_value(|s| {
            if let Some(stream) = s.take() {
                stream.stop();
            }
        });
    });
    let actions =
        Actions { id: StoredValue::new(id.clone()), stream, busy: RwSignal::new(false), failed: RwSignal::new(String::new()) };
    let links: Vec<AnyView> = LINKS.into_iter().map(|(href, text)| view! { <a href=href>{text}</a> }.into_any()).collect();
    let shown = id.clone();
    view! {
        <div class="live" data-run=shown>
            {header(run, id, connection, actions)}
            {banner(run, actions)}
            <nav class="sections" aria-label="Sections of the run">{links}</nav>
            <section id="stages" aria-label="Stages">
                {stage::stages(run)}
                {notes(run)}
            </section>
            {learning::optimisation(run)}
            {control::control(run)}
            {sample::samples(run)}
            {curves::distributions(run)}
            {curves::training(run)}
            {report::reward_model(run)}
            {report::summary(run)}
        </div>
    }
    .into_any()
}

fn header(run: Run, id: String, connection: RwSignal<String>, actions: Actions) -> AnyView {
    let revision = run.on(Topic::Head);
    // Empty until the server has said it.
    let status = run.text(|s| s.info().map_or("", |i| format::status(i.status)).to_string());
    let fallback = id.clone();
    let name = run.text(move |s| match s.info() {
        Some(info) if !info.name.is_empty() => info.name.clone(),
        _ => format!("Run {fallback}"),
    });
    view! {
        <header class="run-head">
            <div class="run-title">
                <h1 id="run-name">{move || name.get()}</h1>
                <p class="chips">
                    <span
                        id="run-status"
                        class=move || format!("status {}", or(status.get(), "unknown"))
                        data-status=move || or(status.get(), "unknown")
                    >
                        {move || or(status.get(), "waiting for the server")}
                    </span>
                    <span
                        id="connection"
                        class="pill"
                        role="status"
                        data-connection=move || connection.get()
                    >
                        {move || connection.get()}
                    </span>
                    <code class="hint">{id}</code>
                </p>
            </div>
            <div class="actions">
                <button
                    id="cancel"
                    type="button"
                    class="button danger"
                    class:gone=move || status.with(|s| s != format::status(RunStatus::Running))
                    disabled=move || actions.busy.get()
                    on:click=move |_| actions.ask("cancel")
                >
                    "Cancel"
                </button>
                <button
                    id="resume"
                    type="button"
                    class="button primary"
                    class:gone=move || !status.with(|s| resumable(s))
                    disabled=move || actions.busy.get()
                    on:click=move |_| actions.ask("resume")
                >
                    "Resume"
                </button>
            </div>
            <dl class="facts">
                {move || {
                    let _ = revision.get();
                    run.read(facts)
                }}
            </dl>
        </header>
    }
    .into_any()
}

/// The text, or another one when it is empty.
fn or(text: String, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_string() } else { text }
}

fn resumable(status: &str) -> bool {
    [RunStatus::Cancelled, RunStatus::Failed, RunStatus::Interrupted].into_iter().any(|s| format::status(s) == status)
}

fn facts(state: &RunState) -> AnyView {
    let mut list: Vec<(&'static str, String)> = Vec::new();
    if let Some(info) = state.info() {
        list.push(("Preset", info.preset.clone()));
        list.push(("Seed", info.seed.to_string()));
    }
    if let Some(config) = &state.config {
        list.push(("Method", config.method.kind.title().to_string()));
        if state.optimises() {
            list.push(("Optimiser", config.policy.optimizer.title().to_string()));
        }
        if let Some(run) = &config.from {
            list.push(("Starts from the policy of", run.clone()));
        }
    }
    if let Some(device) = &state.device {
        list.push(("Device", format!("{} ({})", device.device, device.name)));
        list.push(("Why this device", device.reason.clone()));
    }
    if let Some(model) = &state.model {
        let (policy, reward) = (format::count(model.policy_parameters), format::count(model.reward_parameters));
        list.push(("Parameters", format!("{policy} policy, {reward} reward model")));
        let [train, validation, test] = model.rows.map(|r| format::count(r as u64));
        list.push(("Rows", format!("{train} train, {validation} validation, {test} test")));
    }
    if let Some((stage, step)) = state.checkpoint {
        list.push(("Last checkpoint", format!("{} at step {step}", stage.title())));
    }
    let items: Vec<AnyView> = list.into_iter().map(|(k, v)| view! { <div><dt>{k}</dt><dd>{v}</dd></div> }.into_any()).collect();
    items.into_any()
}

/// What went wrong, and what to do about it.
fn banner(run: Run, actions: Actions) -> AnyView {
    let known = run.text(|s| trouble(s).map_or(String::new(), |(kind, text, _)| format!("{kind} {text}")));
    view! {
        <div aria-live="polite">
            {move || {
                let _ = known.get();
                let Some((kind, text, resume)) = run.read(trouble) else { return ().into_any() };
                view! {
                    <div class=format!("card banner {kind}") role="alert" id="banner">
                        <p>{text}</p>
                        <button
                            type="button"
                            class="button"
                            class:gone=move || !resume
                            disabled=move || actions.busy.get()
                            on:click=move |_| actions.ask("resume")
                        >
                            "Resume from the last checkpoint"
                        </button>
                    </div>
                }
                .into_any()
            }}
            {move || {
                let text = actions.failed.get();
                if text.is_empty() {
                    return ().into_any();
                }
                view! { <div class="card banner error" role="alert"><p>{text}</p></div> }.into_any()
            }}
        </div>
    }
    .into_any()
}

/// Kind of banner, text, and whether resuming helps.
fn trouble(state: &RunState) -> Option<(&'static str, String, bool)> {
    if let Some(error) = &state.error {
        return Some(("error", error.clone(), false));
    }
    let info = state.info()?;
    let said = state.ended.as_ref().map_or(info.message.as_str(), |e| e.1.as_str());
    let why = if said.is_empty() { "No reason was given.".to_string() } else { said.to_string() };
    match info.status {
        RunStatus::Failed => Some(("error", format!("The run failed. {why}"), true)),
        RunStatus::Interrupted => Some(("warning", format!("The run was interrupted. {why}"), true)),
        RunStatus::Cancelled => Some(("warning", "The run was cancelled. It keeps what it has learnt.".into(), true)),
        RunStatus::Running | RunStatus::Finished => None,
    }
}

fn notes(run: Run) -> AnyView {
    let known = run.text(|s| s.notes.len().to_string());
    view! {
        <ul class="plain notes" aria-label="Notes of the run">
            {move || {
                let _ = known.get();
                let notes: Vec<String> = run.read(|s| s.notes.iter().rev().take(5).cloned().collect());
                notes.into_iter().map(|n| view! { <li class="hint">{n}</li> }.into_any()).collect::<Vec<_>>().into_any()
            }}
        </ul>
    }
    .into_any()
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
            summary: None,
        };
        state.receive(Frame::Snapshot { info });
        assert_eq!(trouble(&state), None);
        let body = EventBody::Ended { outcome: Outcome::Failed, message: "out of memory".into() };
        state.apply(Event { seq: 1, time: 0, body });
        assert_eq!(trouble(&state), Some(("error", "The run failed. out of memory".to_string(), true)));
    }
}
