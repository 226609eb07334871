//! The lesson: seven stations, alive with no server and no run. What is simulated says so.
//!
//! A station is a text and a stage beside it, whose toy plays by itself until somebody takes it over. Words and questions belong here; the
//! tiny policy is in `state::toy`.

mod classes;
mod front;
mod policy;
mod quiz;
mod zoo;

use crate::pages::carry::Example;
use crate::parts::mapping::MappingByHand;
use crate::parts::memo::memo;
use crate::parts::seen::Alone;
use crate::source::{at, has_example};
use crate::words::t;
use classes::{Grade, Noise};
use front::FrontStage;
use leptos::html;
use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use policy::{Bench, Steering};
use quiz::{Question, Quiz};
use zoo::Zoo;

/// What a teacher can choose by the page's address.
#[derive(Clone, Copy, PartialEq)]
struct Wishes {
    /// The only station that is shown.
    only: Option<usize>,
    questions: bool,
    /// Whether settings can be changed; what steps and plays is always there.
    controls: bool,
    seed: u64,
}

/// A station's text.
struct Text {
    title: &'static str,
    paragraphs: &'static [&'static str],
    question: Question,
}

const STATIONS: [Text; 7] = [
    Text {
        title: "One answer, several grades",
        paragraphs: &[
            "An answer can help and be long; it can be kind and false. People who judge answers look at several things at once, and a language \
             model has to serve all of them.",
            "So every answer gets a grade on every objective. A grade is one of a few classes in order, each with a name. Grade the answers on the \
             right yourself, then see what a reward model says.",
        ],
        question: Question {
            text: "A long answer that gives every point: what grades does it get?",
            choices: &["Full help, and long", "A medium grade on the whole", "Full help; length does not matter"],
            right: 0,
            why: "Each objective is graded by itself. One number for all would hide that it is long, which somebody may not want.",
        },
    },
    Text {
        title: "Classes or scores?",
        paragraphs: &[
            "Ask ten people for a score from 1 to 10, and one person's 7 is another's 5: everybody has a scale of their own. Ask them which of \
             three described classes an answer is in, and most agree.",
            "MOSLIM's reward model is a classifier: for every objective it says how probable each class is. Here two answers are judged by forty \
             simulated raters. Turn up how much their scales differ.",
        ],
        question: Question {
            text: "Raters' scales differ widely. What is still told apart?",
            choices: &["The mean scores", "The classes", "Neither"],
            right: 1,
            why: "A described class means the same to everybody; a number means what its giver is used to. The reward model learns from what people agree on.",
        },
    },
    Text {
        title: "From classes to one number",
        paragraphs: &[
            "An optimiser wants one number. The mapping makes it from the class probabilities and from what the prompt asks for: the more probable \
             the class asked for, the better. What is not asked for is left out.",
            "The reward model stays as it is; ask for something else, and the same answer earns another reward. That is why one reward model is enough.",
        ],
        question: Question {
            text: "The prompt asks for a short answer only. The answer helps nobody, and is short. Its reward is",
            choices: &["Low: it does not help", "High: it is what was asked for", "Zero"],
            right: 1,
            why: "Helpfulness was not asked for, so it is masked. Who wants both has to ask for both.",
        },
    },
    Text {
        title: "Learning by being paid",
        paragraphs: &[
            "This policy chooses among ten written answers. It draws some, each is paid by the mapping, and answers that earned more than the others \
             of their group become more probable. That is all that policy optimisation is.",
            "It is asked for full help in a short answer. No such answer exists: step through it, and see what it settles for.",
        ],
        question: Question {
            text: "Nothing meets both wishes. The policy ends with",
            choices: &["An answer that meets one of them, or nearly both", "A random answer", "The answer it began with"],
            right: 0,
            why: "The reward grows with nearness to the classes asked for. What cannot be had is approached as far as the answers allow.",
        },
    },
    Text {
        title: "What can be had together",
        paragraphs: &[
            "Every dot is an answer: how much it helps, and how short it is. Nothing lies in the upper right corner. The dots that no other beats \
             in both are the Pareto front.",
            "The older way gives each objective a weight and looks for the best weighted sum. Move the weight: the best answer jumps from one end of \
             the front to the other. What lies in a hollow of the front is never the best, whatever the weight. Asking for classes reaches it.",
        ],
        question: Question {
            text: "An answer lies on the front, in a hollow. Which weight finds it?",
            choices: &["Equal weights", "None", "The one that fits"],
            right: 1,
            why: "A weighted sum is greatest at corners that stick out. That is one reason to ask for classes, and not to weigh scores.",
        },
    },
    Text {
        title: "Steering by the prompt",
        paragraphs: &[
            "Now one policy reads what the prompt asks for: every class of both objectives. At the start it ignores that, and all rows of a matrix \
             are alike. Train it: the rows part, and the diagonal fills. What was asked for is what comes.",
            "The lab does the same with a transformer, thousands of questions, and combinations of wishes.",
        ],
        question: Question {
            text: "All rows of a matrix are alike. The policy",
            choices: &["Obeys perfectly", "Does not read its tags", "Has collapsed to one answer"],
            right: 1,
            why: "The answers do not depend on what was asked for. They may be as varied as you like: obedience is the diagonal, not variety.",
        },
    },
    Text {
        title: "What goes wrong",
        paragraphs: &[
            "Four ways to fail that everybody meets. Choose one, let it run, and say what you see before you look.",
            "On a run's page the lab watches for the same signs, and says so in words.",
        ],
        question: Question {
            text: "The reward rises, and people like the answers less and less. That is",
            choices: &["A learning rate that is too low", "Reward hacking", "A KL coefficient that is too high"],
            right: 1,
            why: "The policy has found what the reward model is wrong about. Somebody who was not optimised for has to look: rules, people, a second reward model.",
        },
    },
];

/// Every text of the lesson that stands in a table and is translated where it is shown.
#[cfg(test)]
pub fn texts() -> impl Iterator<Item = &'static str> {
    let stations = STATIONS.iter().flat_map(|s| {
        let question = [s.title, s.question.text, s.question.why];
        question.into_iter().chain(s.paragraphs.iter().copied()).chain(s.question.choices.iter().copied())
    });
    stations.chain(zoo::texts()).chain(front::texts()).chain(crate::state::toy::texts()).chain(crate::parts::mapping::texts())
}

/// The page.
#[component]
pub fn Learn() -> impl IntoView {
    let query = use_query_map();
    let wishes = memo(move || {
        query.with(|q| {
            let hidden = q.get("hide").unwrap_or_default();
            Wishes {
                only: q.get("station").and_then(|s| s.parse().ok()).filter(|n| (1..=STATIONS.len()).contains(n)),
                questions: !hidden.contains("questions"),
                controls: !hidden.contains("controls"),
                seed: q.get("seed").and_then(|s| s.parse().ok()).unwrap_or(1),
            }
        })
    });
    view! {
        <div class="learn">
            <h1>{t("How a model learns to do what its prompt asks")}</h1>
            <p class="muted">
                {t("Seven stations, about five minutes if you only read. Everything here runs in this page: nothing is fetched, and no run is needed.")}
            </p>
            {move || {
                let wishes = wishes.get();
                let shown = (0..STATIONS.len()).filter(|n| wishes.only.is_none_or(|only| only == n + 1));
                let links = (0..STATIONS.len())
                    .map(|n| view! { <a href=format!("#station-{}", n + 1) rel="external">{format!("{} {}", n + 1, t(STATIONS[n].title))}</a> })
                    .collect_view();
                view! {
                    <nav class="sections" aria-label=t("Stations") class:gone=wishes.only.is_some()>{links}</nav>
                    {shown.map(|n| station(n, wishes)).collect_view()}
                    <p class="actions" class:gone=wishes.only.is_none()><a class="button" href=at("/learn")>{t("All stations")}</a></p>
                }
            }}
        </div>
    }
}

fn station(n: usize, wishes: Wishes) -> impl IntoView {
    let text = &STATIONS[n];
    let Wishes { controls, seed, .. } = wishes;
    let stage = NodeRef::<html::Div>::new();
    let alone = Alone::new(stage);
    let toy = match n {
        0 => view! { <Grade alone=alone controls=controls/> }.into_any(),
        1 => view! { <Noise seed=seed alone=alone controls=controls/> }.into_any(),
        2 => view! { <MappingByHand alone=alone controls=controls/> }.into_any(),
        3 => view! { <Bench seed=seed alone=alone controls=controls/> }.into_any(),
        4 => view! { <FrontStage alone=alone controls=controls/> }.into_any(),
        5 => view! { <Steering seed=seed alone=alone/> }.into_any(),
        _ => view! { <Zoo seed=seed alone=alone controls=controls/> }.into_any(),
    };
    let paragraphs = text.paragraphs.iter().map(|p| view! { <p>{t(p)}</p> }).collect_view();
    let more = match n {
        5 => {
            Some(view! {
                <p class="actions">
                    <Example label=t("Steer a trained policy yourself") to="/playground"/>
                    {(!has_example()).then(|| view! { <a class="button" href=at("/playground")>{t("Steer a trained policy yourself")}</a> })}
                </p>
            }.into_any())
        }
        6 => Some(view! {
            <p class="actions">
                <a class="button primary" href=at("/")>{t("Train one for real")}</a>
                <Example label=t("Look at one that is trained")/>
            </p>
        }.into_any()),
        _ => None,
    };
    view! {
        <section class="station" id=format!("station-{}", n + 1) aria-labelledby=format!("station-{}-title", n + 1)>
            <div class="lesson">
                <h2 id=format!("station-{}-title", n + 1)><span class="stage-number">{n + 1}</span>{t(text.title)}</h2>
                {paragraphs}
                {wishes.questions.then(|| view! { <Quiz question=&text.question/> })}
                {more}
            </div>
            <div
                class="stage-side"
                node_ref=stage
                on:click=move |ev| alone.touched(&ev)
                on:input=move |ev| alone.touched(&ev)
            >
                {toy}
            </div>
        </section>
    }
}
