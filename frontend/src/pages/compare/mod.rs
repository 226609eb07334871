//! Runs beside each other: what differs between them, who obeys better and where, and how they came to that.
//!
//! What is computed of several runs is in `reading`, without a browser; here it is shown.

mod curves;
mod fronts;
mod reading;

use crate::api;
use crate::pages::way::{Way, fronts_at, growth};
use crate::parts::address;
use crate::parts::chart::{Chart, Linked};
use crate::parts::every::until_answered;
use crate::parts::format;
use crate::parts::front::OwnFront;
use crate::parts::matrix::between;
use crate::parts::memo::{effect, memo};
use crate::parts::settling::settling;
use crate::parts::tour::{Stop, Tour};
use crate::source::at;
use crate::state::{RunState, Topic};
use crate::stream::{Connection, Run, Stream, Wanted};
use crate::words::t;
use fronts::fronts;
use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use moslim_charts::{Ink, Plot, SHARE};
use moslim_shared::event::{PolicyStep, RunInfo};
use moslim_shared::listing::{ListQuery, MOST_ROWS, RunRow, RunsPage};
use reading::{Figure, best, difference, differing, figures, groups, named, obedience, on_target, places, said, steered, titles};

/// Runs that are compared at most.
pub const MOST: usize = 50;
/// Runs beyond which seeds of the same settings are shown as one unless somebody wants them apart.
const MANY: usize = 8;

/// Events that are told here; of the others a run has many.
const KINDS: &[&str] = &["started", "model", "stage_began", "policy", "front_seen", "control", "front", "summary", "ended"];

/// What a newcomer is shown.
fn tour() -> [Stop; 5] {
    [
        (
            ".chosen",
            t(
                "Choose the runs here, or tick them in the list of runs. Several seeds of one setting become a median and a range.",
            ),
        ),
        (
            "#better-title",
            t(
                "Who obeys better, objective by objective. The best of a row is bold; a difference of a few points can be chance, which more seeds would tell.",
            ),
        ),
        ("#apart-title", t("Where the second run gives a class more often than the first, and where less.")),
        (
            "#fronts-title",
            t(
                "What each can deliver of two objectives at once, and of all. Sliders leave only those trade-offs that reach what you need.",
            ),
        ),
        (
            "#settings-title",
            t("What was set differently. If this lists more than what you meant to compare, the comparison says less."),
        ),
    ]
}

/// A run that is compared, as it is told live.
#[derive(Clone, Copy)]
struct Entry {
    id: StoredValue<String>,
    run: Run,
    connection: RwSignal<Connection>,
    stream: StoredValue<Option<Stream>, LocalStorage>,
}

/// The page; the runs are those of its address.
#[component]
pub fn Compare() -> impl IntoView {
    provide_context(Linked::new());
    let known = RwSignal::new(Vec::<RunRow>::new());
    let entries = RwSignal::new(Vec::<Entry>::new());
    let together = RwSignal::new(false);
    let add = move |id: String| {
        if entries.with_untracked(|all| all.len() >= MOST || all.iter().any(|e| e.id.with_value(|own| *own == id))) {
            return;
        }
        let run = Run::new();
        let connection = RwSignal::new(Connection::Connecting);
        let stream = Stream::open(id.clone(), Wanted { kinds: KINDS, brief: true, steps: 1_000 }, run, connection);
        let entry = Entry { id: StoredValue::new(id), run, connection, stream: StoredValue::new_local(Some(stream)) };
        entries.update(|all| all.push(entry));
    };
    let stop = |entry: &Entry| {
        let _ = entry.stream.try_update_value(|s| {
            if let Some(stream) = s.take() {
                stream.stop();
            }
        });
    };
    let query = use_query_map();
    let of = |name: &str| query.with_untracked(|q| q.get(name)).unwrap_or_default();
    let wished = of("runs");
    wished.split(',').filter(|id| !id.is_empty()).for_each(|id| add(id.to_string()));
    together.set(match of("together").as_str() {
        "1" => true,
        "0" => false,
        _ => entries.with_untracked(|all| all.len() > MANY),
    });
    let compared = Compared::new(entries, together);
    let failed = RwSignal::new(String::new());
    let all = move || async move {
        let query = ListQuery { limit: Some(MOST_ROWS), ..Default::default() };
        api::runs(&query).await.inspect_err(|failure| drop(failed.try_set(failure.message.clone())))
    };
    let take = move |page: RunsPage| {
        let _ = (failed.try_set(String::new()), known.try_set(page.rows));
    };
    until_answered(move || Box::pin(all()), take);
    on_cleanup(move || {
        let _ = entries.try_with_untracked(|all| all.iter().for_each(stop));
    });
    effect(move || {
        let ids: Vec<String> = entries.with(|all| all.iter().map(|e| e.id.get_value()).collect());
        // Said where it is not as usual; of many it is said in either case, so that one run less changes nothing.
        let seeds = match together.get() {
            _ if ids.is_empty() => "",
            true => "&together=1",
            false if ids.len() > MANY => "&together=0",
            false => "",
        };
        address::replace(&(at("/compare") + if ids.is_empty() { "" } else { "?runs=" } + &ids.join(",") + seeds));
    });
    let remove = move |id: String| {
        entries.update(|all| {
            all.iter().filter(|e| e.id.with_value(|own| *own == id)).for_each(stop);
            all.retain(|e| e.id.with_value(|own| *own != id));
        });
    };
    let told = of_all(entries, Topic::Head, Box::new(|runs| runs.iter().all(|run| run.is_told())));
    let settling = settling(move || told.get());
    view! {
        <div class="compare-page" class:settling=move || settling.get()>
            <div class="section-head">
                <h1>{t("Compare runs")}</h1>
                <Tour stops=tour()/>
            </div>
            <p class="muted">{t("What differs between them, which obeys better and where, and how they came to that.")}</p>
            <div class="card chosen">
                <ul class="plain chips" aria-label=t("Runs that are compared")>
                    {move || {
                        entries.get().into_iter().enumerate().map(|(n, entry)| chosen((compared, n), entry, remove)).collect_view()
                    }}
                </ul>
                <p role="status">
                    {move || entries.get().iter().any(|e| e.connection.get() == Connection::Reconnecting).then(|| view! {
                        <span class="pill" data-connection="reconnecting">{Connection::Reconnecting.told()}</span>
                    })}
                </p>
                <p class="problem" role="alert">{move || failed.get()}</p>
                <div class="adder">
                    <label for="add-run">{t("Add a run")}</label>
                    <select id="add-run" on:change=move |ev| {
                        let id = event_target_value(&ev);
                        if !id.is_empty() {
                            add(id);
                        }
                    }>
                        <option value="">{t("Choose…")}</option>
                        {move || known.get().into_iter().map(|run| view! {
                            <option value=run.id.clone()>{format!("{} ({}, {})", run.title, format::status_told(run.status), run.id)}</option>
                        }).collect_view()}
                    </select>
                    <label class="check">
                        <input type="checkbox" prop:checked=move || together.get() on:change=move |ev| together.set(event_target_checked(&ev))/>
                        {t("Seeds of the same settings as one: median and range")}
                    </label>
                    <a
                        class="button quiet small"
                        class:gone=move || entries.with(Vec::is_empty)
                        href=move || {
                            let ids: Vec<String> = entries.with(|all| all.iter().take(4).map(|e| e.id.get_value()).collect());
                            at(&format!("/playground?in={}", ids.join(",")))
                        }
                    >
                        {t("Ask them the same")}
                    </a>
                </div>
            </div>
            <Show
                when=move || entries.with(|all| all.len() > 1)
                fallback=|| view! { <p class="card empty">{t("Two runs or more are needed: tick them in the list of runs, or add them here.")}</p> }
            >
                <Results compared=compared/>
                <TradeOffs compared=compared/>
                <OnTheWay compared=compared/>
                <Curves compared=compared/>
                <Settings compared=compared/>
            </Show>
        </div>
    }
}

/// Run `n` of those that are compared.
fn chosen((compared, n): (Compared, usize), entry: Entry, remove: impl Fn(String) + Copy + Send + 'static) -> impl IntoView {
    let id = entry.id.get_value();
    let (own, link) = (id.clone(), at(&format!("/runs/{id}")));
    let name = entry.run.memo(|s| s.info().map(RunInfo::title));
    let status = entry.run.memo(|s| s.error.clone().or_else(|| s.info().map(|i| format::status_told(i.status).to_string())));
    view! {
        <li class="chip">
            <span class="glyph" style:color=move || compared.ink(n).css()>{move || compared.ink(n).glyph()}</span>
            <a href=link>{move || name.get().unwrap_or_else(|| id.clone())}</a>
            <span class="hint">{move || status.get()}</span>
            <button type="button" class="remove" aria-label=t("Leave it out") on:click=move |_| remove(own.clone())>"×"</button>
        </li>
    }
}

/// The runs that are compared, which of them belong together, and what they are called.
#[derive(Clone, Copy)]
struct Compared {
    entries: RwSignal<Vec<Entry>>,
    /// Of each run, which group it belongs to.
    places: Memo<Vec<u64>>,
    titles: Memo<Vec<String>>,
}

impl Compared {
    fn new(entries: RwSignal<Vec<Entry>>, together: RwSignal<bool>) -> Self {
        let titles = of_all(entries, Topic::Head, Box::new(titles));
        let places = of_all(entries, Topic::Measured, Box::new(move |runs| places(runs, together.get())));
        Self { entries, places, titles }
    }

    /// The colour of the group that run `n` belongs to; follows the groups.
    fn ink(self, n: usize) -> Ink {
        Ink::Objective(self.places.with(|all| all.get(n).map_or(n, |&group| group as usize)))
    }

    /// Something of all runs and their groups that is made anew when what `topic` shows of one of them changes.
    fn made<T: PartialEq + Send + Sync + 'static>(
        self,
        topic: Topic,
        f: impl Fn((&[&RunState], &[String]), &[Vec<usize>]) -> T + Send + Sync + 'static,
    ) -> Memo<T> {
        self.boxed(topic, Box::new(f))
    }

    fn boxed<T: PartialEq + Send + Sync + 'static>(self, topic: Topic, f: OfGroups<T>) -> Memo<T> {
        let make = move |runs: &[&RunState]| self.titles.with(|titles| f((runs, titles), &groups(&self.places.get())));
        of_all(self.entries, topic, Box::new(make))
    }

    /// What the groups are called.
    fn names(self) -> Memo<Vec<String>> {
        self.made(Topic::Head, |(_, titles), groups| groups.iter().map(|members| named(titles, members)).collect())
    }
}

/// What is made of all runs, or of them with their names and their groups. In boxes: each further type of them would be a kilobyte of what is
/// sent.
type Make<T> = Box<dyn Fn(&[&RunState]) -> T + Send + Sync>;
type OfStep = Box<dyn Fn(&RunState, &PolicyStep) -> Option<f64> + Send + Sync>;
type OfGroups<T> = Box<dyn Fn((&[&RunState], &[String]), &[Vec<usize>]) -> T + Send + Sync>;

/// Something of all runs that is made anew when what `topic` shows of one of them changes.
fn of_all<T: PartialEq + Send + Sync + 'static>(entries: RwSignal<Vec<Entry>>, topic: Topic, f: Make<T>) -> Memo<T> {
    let revisions = memo(move || entries.get().iter().map(|e| e.run.revised(topic)).collect::<Vec<u64>>());
    memo(move || {
        let _ = revisions.get();
        let all: Vec<Run> = entries.with(|all| all.iter().map(|e| e.run).collect());
        Run::read_all(&all, &f)
    })
}

#[component]
fn Results(compared: Compared) -> impl IntoView {
    let verdict = compared.made(Topic::Measured, said);
    let rows = compared.made(Topic::Measured, |(runs, _), groups| figures(runs, groups));
    let names = compared.names();
    let apart = compared.made(Topic::Measured, difference);
    view! {
        <section class="section" aria-labelledby="better-title">
            <h2 id="better-title">{t("Which obeys better, and where?")}</h2>
            <p class="muted" id="compare-verdict">{move || verdict.get()}</p>
            <div class="card scroll" tabindex="0" role="region" aria-label=t("Figures of the runs")>
                {move || table(t("figure"), &names.get(), &rows.get())}
            </div>
        </section>
        <section class="section" aria-labelledby="apart-title">
            <h2 id="apart-title">{t("Second less first: asked × achieved")}</h2>
            <p class="muted">{t("Where the second run gives a class more often than the first, and where less: shares, second less first. A better policy gains on the diagonal.")}</p>
            <div class="grid two">
                {move || {
                    apart.get().into_iter().map(|(name, classes, values)| view! {
                        <article class="card"><h3>{name}</h3>{between(t("asked ↓ achieved →"), &classes, &values)}</article>
                    }).collect_view()
                }}
            </div>
        </section>
    }
}

/// What the runs reach between their objectives; of seeds of the same settings, what all, half and any of them reach.
#[component]
fn TradeOffs(compared: Compared) -> impl IntoView {
    let found = compared.made(Topic::Measured, fronts);
    view! {
        <section
            id="fronts"
            class="section"
            aria-labelledby="fronts-title"
            class:gone=move || found.with(|f| f.groups.is_empty())
        >
            <h2 id="fronts-title">{t("Trade-offs")}</h2>
            <p class="muted">
                {t("Every point is what a run delivers for one trade-off that it offers: mean utility on held-out questions, 0 the worst class of an objective and 1 the best. Of seeds together, the edge of what all of them, half of them and any of them reach.")}
            </p>
            <OwnFront id="fronts" fronts=found/>
        </section>
    }
}

/// How their fronts grew; of seeds together the first one's.
#[component]
fn OnTheWay(compared: Compared) -> impl IntoView {
    let share = RwSignal::new(1.0);
    let fronts = compared.made(Topic::Policy, move |runs, groups| fronts_at(&first_of_each(runs, groups), share.get()));
    let plot = compared.made(Topic::Policy, |runs, groups| growth(&first_of_each(runs, groups)));
    view! { <Way share=share fronts=fronts plot=plot/> }
}

fn first_of_each<'a>((runs, titles): (&[&'a RunState], &[String]), groups: &[Vec<usize>]) -> Vec<(String, &'a RunState)> {
    groups.iter().map(|members| (named(titles, members), runs[members[0]])).collect()
}

#[component]
fn Settings(compared: Compared) -> impl IntoView {
    let settings = compared
        .made(Topic::Measured, |(runs, _), groups| differing(&groups.iter().map(|members| runs[members[0]]).collect::<Vec<_>>()));
    let names = compared.names();
    view! {
        <section class="section" aria-labelledby="settings-title">
            <h2 id="settings-title">{t("Settings that differ")}</h2>
            <div class="card scroll" tabindex="0" role="group" aria-label=t("Settings that differ")>
                {move || {
                    let rows = settings.get();
                    if rows.is_empty() {
                        view! { <p class="empty">{t("They have the same settings.")}</p> }.into_any()
                    } else {
                        table(t("setting"), &names.get(), &rows).into_any()
                    }
                }}
            </div>
        </section>
    }
}

/// A row for every figure, a column for every run; the best of a row is bold.
fn table(head: &'static str, names: &[String], rows: &[Figure]) -> impl IntoView + use<> {
    let heads = names
        .iter()
        .enumerate()
        .map(|(n, name)| view! {
            <th scope="col"><span class="glyph" style:color=Ink::Objective(n).css()>{Ink::Objective(n).glyph()}</span>" "{name.clone()}</th>
        })
        .collect_view();
    let body = rows
        .iter()
        .map(|row| {
            let first = best(row);
            let cells = row
                .cells
                .iter()
                .enumerate()
                .map(|(n, text)| {
                    if first == Some(n) {
                        view! { <td><b>{text.clone()}</b></td> }.into_any()
                    } else {
                        view! { <td>{text.clone()}</td> }.into_any()
                    }
                })
                .collect_view();
            view! { <tr><th scope="row">{row.name.clone()}</th>{cells}</tr> }
        })
        .collect_view();
    view! {
        <table class="values comparison">
            <thead><tr><th scope="col">{head}</th>{heads}</tr></thead>
            <tbody>{body}</tbody>
        </table>
    }
}

/// A figure of every step of a policy, with its chart's id, title and hint, and its unit.
type Curve = (&'static str, &'static str, &'static str, &'static str, fn(&PolicyStep) -> f64);

/// What is drawn of every run, the objectives apart.
fn curves() -> Vec<Curve> {
    vec![
        (
            "chart-obedience",
            t("How likely is the class asked for?"),
            t("Mean over the objectives, as the run's own reward model sees it."),
            SHARE,
            obedience,
        ),
        (
            "chart-reward",
            t("Reward as optimised"),
            t("Of different mappings or reward models these are different units."),
            t("reward"),
            |p| p.reward,
        ),
        ("chart-kl", t("How far from its start?"), t("KL divergence, nats per answer."), t("nats per answer"), |p| p.kl),
        (
            "chart-entropy",
            t("Does it still try different things?"),
            t("Mean entropy of the next token, nats."),
            t("nats per token"),
            |p| p.entropy,
        ),
        ("chart-length", t("How long are its answers?"), t("Mean length of the sampled answers."), t("tokens"), |p| p.length),
        (
            "chart-flat",
            t("Do its samples differ in reward?"),
            t("Share of the prompts whose samples all earn the same: nothing is learnt of them."),
            SHARE,
            |p| p.zero_std_groups,
        ),
        ("chart-step", t("How large are its steps?"), t("Approximate KL from the policy that sampled, nats."), t("nats"), |p| {
            p.approx_kl
        }),
        ("chart-gradient", t("How steep is the loss?"), t("Norm of the gradient before it is clipped."), t("norm"), |p| {
            p.gradient_norm
        }),
    ]
}

fn card(id: String, title: String, hint: &'static str, plot: Memo<Plot>) -> AnyView {
    let empty = t("None of these runs has begun to optimise a policy.");
    view! { <Chart id=id title=title hint=hint empty=empty plot=plot/> }.into_any()
}

#[component]
fn Curves(compared: Compared) -> impl IntoView {
    let grown = move |unit, of: OfStep| {
        let kept = StoredValue::new(curves::Curves::default());
        compared.made(Topic::Policy, move |runs, groups| kept.write_value().plot(runs, groups, unit, &of))
    };
    let of_step = move |(id, title, hint, unit, of): Curve| {
        let plot = grown(unit, Box::new(move |_, step| Some(of(step))));
        card(id.into(), title.into(), hint, plot)
    };
    let of_objective = move |(id, name): (String, String)| {
        let own = id.clone();
        let plot = grown(SHARE, Box::new(move |run, step| on_target(run, step, &own)));
        card(
            format!("chart-on-target-{id}"),
            name,
            t("Probability that the reward model gives to the class asked for, mean over the answers that ask."),
            plot,
        )
    };
    let [ids, names]: [Memo<Vec<String>>; 2] = [0, 1]
        .map(|n| compared.made(Topic::Measured, move |(runs, _), _| steered(runs).into_iter().map(|o| o[n].clone()).collect()));
    view! {
        <section class="section" aria-labelledby="curves-title">
            <h2 id="curves-title">{t("How they came to that")}</h2>
            <div class="grid two">
                {curves().into_iter().map(of_step).collect_view()}
                {move || ids.get().into_iter().zip(names.get()).map(of_objective).collect_view()}
            </div>
        </section>
    }
}

#[cfg(test)]
mod tests {
    use super::KINDS;
    use moslim_shared::event::EventBody;

    /// A kind that the journal does not know would never come, and nobody would miss it.
    #[test]
    fn the_kinds_that_are_wanted_are_those_of_the_journal() {
        let known = serde_json::from_str::<EventBody>(r#"{"no such kind": {}}"#).unwrap_err().to_string();
        for kind in KINDS {
            assert!(known.contains(&format!("`{kind}`")), "{kind}: {known}");
        }
    }
}
