//! The playground: a question, what is asked for, and up to four models that answer side by side.
//!
//! How an answer is shown and judged belongs here; who computes it does not.

mod answer;
mod blind;
mod column;
mod lanes;
mod own;
mod sweep;
mod votes;
mod wish;

use crate::api;
use crate::parts::address;
use crate::parts::every::until_answered;
use crate::parts::format;
use crate::parts::memo::{effect, memo};
use crate::parts::settling::settling;
use crate::parts::tour::{Stop, Tour};
use crate::source::at;
use crate::words::{said, t};
use blind::Blind;
use column::Column;
use lanes::{Lane, Lanes};
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_query_map;
use moslim_shared::event::TaskInfo;
use moslim_shared::inference::{GenerateEvent, GenerateRequest};
use moslim_shared::listing::{ListQuery, MOST_ROWS, RunRow, RunsPage};
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;
use own::Own;
use sweep::Sweep;
use votes::Votes;
use wish::{Wish, extremes};

/// Columns at most.
const MOST_COLUMNS: usize = 4;

/// Everything on the page.
#[derive(Clone, Copy)]
struct Bench {
    /// Finished runs, newest first; `None` before they are known.
    runs: RwSignal<Option<Vec<RunRow>>>,
    /// Runs that train, and the seconds of processor that answers here have taken meanwhile.
    training: RwSignal<Vec<RunRow>>,
    taken: RwSignal<f64>,
    lanes: RwSignal<Vec<Lane>>,
    next: StoredValue<usize>,
    task: RwSignal<Option<TaskInfo>>,
    objectives: Memo<Vec<Objective>>,
    wish: RwSignal<Preference>,
    question: RwSignal<String>,
    temperature: RwSignal<f64>,
    seed: RwSignal<u64>,
    longest: RwSignal<usize>,
    failed: RwSignal<String>,
    blind: RwSignal<Blind>,
}

impl Bench {
    fn new() -> Self {
        let task = RwSignal::new(None::<TaskInfo>);
        Self {
            runs: RwSignal::new(None),
            training: RwSignal::new(Vec::new()),
            taken: RwSignal::new(0.0),
            lanes: RwSignal::new(Vec::new()),
            next: StoredValue::new(0),
            task,
            objectives: memo(move || task.with(|t| t.as_ref().map(|t| t.objectives.clone()).unwrap_or_default())),
            wish: RwSignal::new(Preference::default()),
            question: RwSignal::new(String::new()),
            temperature: RwSignal::new(1.0),
            seed: RwSignal::new(1),
            longest: RwSignal::new(48),
            failed: RwSignal::new(String::new()),
            blind: RwSignal::new(Blind::Off),
        }
    }

    fn add(self, column: Column) {
        let key = self.next.get_value();
        self.next.set_value(key + 1);
        self.lanes.update(|lanes| lanes.push(Lane::new(key, column)));
    }

    /// Looks which runs train.
    fn look(self) {
        spawn_local(async move {
            let query = ListQuery { filter: "status:running".into(), ..Default::default() };
            if let Ok(page) = api::runs(&query).await {
                let _ = self.training.try_set(page.rows);
            }
        });
    }

    /// Counts what an answer has taken, where a run trains that would have had it.
    fn count(self, event: &GenerateEvent) {
        if let GenerateEvent::Ended { seconds, processor_seconds, .. } = event
            && self.training.try_with_untracked(Vec::is_empty) == Some(false)
        {
            let _ = self.taken.try_update(|taken| *taken += processor_seconds.unwrap_or(*seconds));
        }
    }

    /// Whether a run is finished, and its milestones; `None` where it is in no list here.
    fn known(self, id: &str) -> Option<(bool, Vec<u8>)> {
        let of =
            |rows: &Vec<RunRow>, finished| rows.iter().find(|run| run.id == id).map(|run| (finished, run.milestones.clone()));
        self.runs.with(|rows| of(rows.as_ref()?, true)).or_else(|| self.training.with(|rows| of(rows, false)))
    }

    fn request(self) -> GenerateRequest {
        let target = self.objectives.with_untracked(|objectives| self.wish.with_untracked(|wish| wish.print(objectives)));
        GenerateRequest {
            prompt: self.question.get_untracked(),
            target,
            temperature: self.temperature.get_untracked(),
            seed: self.seed.get_untracked(),
            max_new_tokens: self.longest.get_untracked(),
            ..Default::default()
        }
    }

    /// Asks every column.
    fn ask(self) {
        let request = self.request();
        let problems = request.problems();
        self.failed
            .set(problems.iter().map(|p| said("{0} {1}.", &[name_of(&p.field), &p.message])).collect::<Vec<_>>().join(" "));
        if problems.is_empty() {
            self.blind.update(|blind| blind.shuffle());
            self.look();
            self.lanes.with_untracked(|lanes| lanes.iter().for_each(|lane| lane.ask(self, request.clone())));
        }
    }

    fn stop(self) {
        self.lanes.with_untracked(|lanes| lanes.iter().for_each(|lane| lane.stop()));
    }

    fn is_busy(self) -> bool {
        self.lanes.with(|lanes| lanes.iter().any(|lane| lane.busy.get()))
    }

    /// The page's address with everything that is chosen.
    fn address(self) -> String {
        let encoded = |text: &str| String::from(js_sys::encode_uri_component(text));
        let columns: Vec<String> = self.lanes.with(|lanes| lanes.iter().map(|l| l.column.with(Column::to_string)).collect());
        let wish = self.objectives.with(|objectives| self.wish.with(|wish| wish.print(objectives)));
        let mut parts = Vec::new();
        for (name, value) in [("in", columns.join(",")), ("ask", wish), ("q", self.question.get())] {
            if !value.is_empty() {
                parts.push(format!("{name}={}", encoded(&value)));
            }
        }
        if self.seed.get() != 1 {
            parts.push(format!("seed={}", self.seed.get()));
        }
        at("/playground") + if parts.is_empty() { "" } else { "?" } + &parts.join("&")
    }
}

/// A field of a request, for people.
fn name_of(field: &str) -> &'static str {
    match field {
        "prompt" => t("The question"),
        "temperature" => t("The temperature"),
        "max_new_tokens" => t("The longest answer"),
        "n" | "best_of" => t("The number of answers"),
        _ => t("The request"),
    }
}

/// What a newcomer is shown.
fn tour() -> [Stop; 5] {
    [
        ("#question", t("Any question; those below are of the kind that the policy was trained on.")),
        (
            ".wish",
            t(
                "What you want of the answer, objective by objective, or \"not asked\". The prompt that results stands below, word for word.",
            ),
        ),
        (
            ".lanes",
            t(
                "Every column gets the same prompt: a run, what it was before training, the best of several tries. Under each answer: what was asked, what it got, and what that is worth.",
            ),
        ),
        ("#sweep-title", t("One wish from its lowest class to its highest, all else equal: does the answer follow?")),
        ("#votes-title", t("Names hidden, say which answer is better. Your votes can be saved as ratings and trained on.")),
    ]
}

/// The page. What is in its address fills it; nothing is asked before somebody says so.
#[component]
pub fn Playground() -> impl IntoView {
    let bench = Bench::new();
    let query = use_query_map();
    let of = |name: &str| query.with_untracked(|q| q.get(name)).unwrap_or_default();
    bench.question.set(of("q"));
    if let Ok(seed) = of("seed").parse() {
        bench.seed.set(seed);
    }
    of("in").split(',').filter_map(|text| text.parse().ok()).take(MOST_COLUMNS).for_each(|column| bench.add(column));
    let asked = StoredValue::new(of("ask"));
    bench.look();
    let owner = Owner::current();
    on_cleanup(move || {
        let _ = bench.lanes.try_with_untracked(|lanes| lanes.iter().for_each(|lane| lane.stop()));
    });
    let finished = move || async move {
        let query = ListQuery { filter: "status:finished".into(), limit: Some(MOST_ROWS), ..Default::default() };
        api::runs(&query).await.inspect_err(|failure| drop(bench.failed.try_set(failure.message.clone())))
    };
    until_answered(
        move || Box::pin(finished()),
        move |RunsPage { rows: able, .. }| {
            let _ = bench.failed.try_set(String::new());
            // The page may have been left meanwhile.
            if bench.lanes.try_with_untracked(Vec::is_empty) == Some(true)
                && let (Some(newest), Some(owner)) = (able.first(), &owner)
            {
                owner.with(|| {
                    bench.add(Column::of(&newest.id));
                    bench.add(Column::start_of(&newest.id));
                });
            }
            let _ = bench.runs.try_set(Some(able));
        },
    );
    // Objectives are those of the first column's run.
    let first = memo(move || bench.lanes.with(|lanes| lanes.first().map(|lane| lane.column.with(|c| c.run.clone()))));
    effect(move || {
        let Some(run) = first.get() else { return };
        spawn_local(async move {
            let Ok(config) = api::run(&run).await.map(|info| info.config) else { return };
            let answer = api::task(&config).await;
            // Another run may have been chosen meanwhile, or the page left.
            if first.try_get_untracked() != Some(Some(run)) {
                return;
            }
            match answer {
                Ok(task) => {
                    let objectives = task.objectives.clone();
                    let known = bench.objectives.try_with_untracked(|own| *own == objectives).unwrap_or(true);
                    if !known {
                        let wish = Preference::parse(&asked.get_value(), &objectives);
                        let steered = config.steered(&objectives);
                        let best = Preference(
                            (0..objectives.len()).map(|i| steered.contains(&i).then(|| objectives[i].best_class())).collect(),
                        );
                        let wish = wish.ok().filter(|wish| wish.active() > 0).unwrap_or(best);
                        bench.wish.set(wish);
                    }
                    if bench.question.with_untracked(String::is_empty) {
                        bench.question.set(task.examples.first().cloned().unwrap_or_default());
                    }
                    let _ = bench.task.try_set(Some(task));
                    // As the run's report sampled: hotter, a small model talks nonsense.
                    let _ = bench.longest.try_set(config.policy.max_new_tokens);
                    let _ = bench.temperature.try_set(config.evaluation.temperature);
                }
                Err(failure) => drop(bench.failed.try_set(failure.message)),
            }
        });
    });
    let settling = settling(move || {
        let nothing_to_ask = bench.runs.with(|runs| runs.as_ref().is_some_and(Vec::is_empty));
        let asked = bench.runs.with(Option::is_some) && bench.task.with(Option::is_some);
        nothing_to_ask || asked || !bench.failed.with(String::is_empty)
    });
    // The address follows what is chosen, so that it can be passed on.
    effect(move || {
        let address = bench.address();
        if bench.task.with(Option::is_some) {
            address::replace(&address);
        }
    });
    view! {
        <div class="playground" class:settling=move || settling.get()>
            <div class="section-head">
                <h1>{t("Playground")}</h1>
                <Show when=move || bench.runs.with(|r| r.as_ref().is_some_and(|r| !r.is_empty()))><Tour stops=tour()/></Show>
            </div>
            <p class="muted">
                {t("Ask a question, say what you want of the answer, and see whether you get it. Every column gets the same question and the same seed.")}
            </p>
            {move || match bench.runs.get() {
                None => view! {
                    <div class="card empty" role="status">
                        <p>{t("Looking for finished runs…")}</p>
                        <p class="problem">{move || bench.failed.get()}</p>
                    </div>
                }
                .into_any(),
                Some(runs) if runs.is_empty() && bench.lanes.with_untracked(Vec::is_empty) => nothing().into_any(),
                Some(_) => bench_view(bench).into_any(),
            }}
        </div>
    }
}

fn nothing() -> impl IntoView {
    view! {
        <div class="card empty">
            <p>{t("No run is finished yet. ")}<a href=at("/")>{t("Start the demo")}</a>{t(": a minute or two later its policy answers here.")}</p>
        </div>
    }
}

fn bench_view(bench: Bench) -> impl IntoView {
    view! {
        <form
            class="card bench"
            on:submit=move |ev| {
                ev.prevent_default();
                bench.ask();
            }
        >
            <div class="field">
                <label for="question">{t("Question")}</label>
                <textarea
                    id="question"
                    rows="2"
                    prop:value=move || bench.question.get()
                    on:input=move |ev| bench.question.set(event_target_value(&ev))
                    on:keydown=move |ev| {
                        if ev.key() == "Enter" && !ev.shift_key() {
                            ev.prevent_default();
                            bench.ask();
                        }
                    }
                ></textarea>
                <p class="chips" aria-label=t("Questions to try")>
                    {move || {
                        let examples = bench.task.with(|t| t.as_ref().map(|t| t.examples.clone()).unwrap_or_default());
                        examples.into_iter().map(|text| example(bench, text)).collect_view()
                    }}
                </p>
            </div>
            <Wish bench=bench/>
            <div class="bench-foot">
                {number("temperature", t("Temperature"), "0.1", move || bench.temperature.get().to_string(), move |v| bench.temperature.set(v))}
                {number("seed", t("Seed"), "1", move || bench.seed.get().to_string(), move |v: u64| bench.seed.set(v))}
                {number("longest", t("Most tokens"), "1", move || bench.longest.get().to_string(), move |v: usize| bench.longest.set(v))}
                <div class="actions">
                    <button
                        type="button"
                        class="button quiet"
                        on:click=move |_| bench.objectives.with_untracked(|o| bench.wish.set(Preference::none(o.len())))
                    >
                        {t("Ask for nothing")}
                    </button>
                    {[t("Ask for the best"), t("Ask for the worst")].into_iter().enumerate().map(|(n, text)| view! {
                        <button
                            type="button"
                            class="button quiet"
                            on:click=move |_| bench.objectives.with_untracked(|o| bench.wish.set(extremes(o)[n].clone()))
                        >
                            {text}
                        </button>
                    }).collect_view()}
                    <button id="ask" type="submit" class="button primary">{t("Ask")}</button>
                    <button
                        id="stop"
                        type="button"
                        class="button danger"
                        disabled=move || !bench.is_busy()
                        on:click=move |_| bench.stop()
                    >
                        {t("Stop")}
                    </button>
                </div>
            </div>
            <p class="problem" role="alert">{move || bench.failed.get()}</p>
            <p class="hint" id="beside">{move || beside(bench)}</p>
        </form>
        <Lanes bench=bench/>
        <Own bench=bench/>
        <Votes bench=bench/>
        <Sweep bench=bench/>
    }
}

/// What answering costs a run that trains.
fn beside(bench: Bench) -> Option<String> {
    let names = bench.training.with(|rows| rows.iter().map(|run| run.title.as_str()).collect::<Vec<_>>().join(", "));
    let taken = format::number(bench.taken.get(), 1);
    let told =
        || said("{0} is training; answers here have so far taken {1} s of this machine's processor from it.", &[&names, &taken]);
    (!names.is_empty()).then(told)
}

fn example(bench: Bench, text: String) -> impl IntoView {
    let own = text.clone();
    view! {
        <button type="button" class="chip" on:click=move |_| bench.question.set(own.clone())>{text}</button>
    }
}

/// A small field for a number; what is none changes nothing.
fn number<T: std::str::FromStr + 'static>(
    id: &'static str,
    label: &'static str,
    step: &'static str,
    value: impl Fn() -> String + Send + 'static,
    set: impl Fn(T) + 'static,
) -> impl IntoView {
    view! {
        <div class="field small">
            <label for=id>{label}</label>
            <input
                type="number"
                id=id
                min="0"
                step=step
                prop:value=value
                on:change=move |ev| {
                    if let Ok(value) = event_target_value(&ev).parse() {
                        set(value);
                    }
                }
            />
        </div>
    }
}
