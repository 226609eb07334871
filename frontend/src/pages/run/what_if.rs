//! What other mappings would have paid for the answers of this run.

use crate::pages::run::curves::line;
use crate::parts::chart::Chart;
use crate::parts::format;
use crate::parts::mapping::FUNCTIONS;
use crate::parts::table::Table;
use crate::state::what_if::{WhatIf, what_if};
use crate::state::{RunState, Topic};
use crate::stream::Run;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::{Ink, LinePlot, Plot};

/// The section: a line for every mapping, and how far each would have chosen the same answers.
#[component]
pub fn OtherMappings(run: Run) -> impl IntoView {
    let shown = run.memo(|s| s.asks() && s.optimises());
    let revision = run.revision(Topic::Samples);
    view! {
        <section id="what-if" class="section" aria-labelledby="what-if-title" class:gone=move || !shown.get()>
            <h2 id="what-if-title">{t("What if the mapping were another?")}</h2>
            <p class="muted">
                {t("Hypothetical: the policy was optimised on the mapping in bold alone. The others are worked out from the class probabilities of the answers that were kept, a few of every iteration.")}
            </p>
            <div class="grid two">
                <Chart
                    id="chart-what-if"
                    title=t("What would each mapping have paid?")
                    hint=t("Mean scalar of the answers, in deviations of this run's first answers: one unit means the same for all.")
                    empty=t("Fills with the first iteration of policy optimisation.")
                    plot=run.on(Topic::Samples, |s| plot(&found(s)))
                />
                <div class="card">
                    {move || {
                        let _ = revision.get();
                        run.read(|s| table(&found(s)))
                    }}
                </div>
            </div>
        </section>
    }
}

fn found(state: &RunState) -> Vec<WhatIf> {
    what_if(state, &FUNCTIONS.map(|(function, _)| function))
}

fn label(row: &WhatIf) -> String {
    let name = FUNCTIONS.iter().find(|(f, _)| *f == row.function).map_or("", |(_, name)| t(name));
    if row.own { said("{0}, as trained", &[name]) } else { name.to_string() }
}

fn plot(rows: &[WhatIf]) -> Plot {
    let ink = |n: usize, own: bool| if own { Ink::Strong } else { Ink::Objective(n) };
    let series = rows.iter().enumerate().map(|(n, row)| line(&label(row), ink(n, row.own), row.own, row.curve.clone()));
    Plot::Lines(LinePlot::over_steps(series.collect(), t("deviations")))
}

fn table(rows: &[WhatIf]) -> impl IntoView + use<> {
    let value = |v: Option<&(f64, f64)>| v.map_or(String::new(), |(_, v)| format::signed(*v, 2));
    let cells = |row: &WhatIf| {
        let alike = row.same_order.filter(|_| !row.own).map_or("–".to_string(), format::percent);
        vec![label(row), value(row.curve.first()), value(row.curve.last()), alike]
    };
    let heads = [t("Mapping"), t("first"), t("newest"), t("prefers the same of two")].map(String::from).to_vec();
    view! {
        <Table
            class="values"
            caption=t("Of two answers of one iteration, how often each pays more for the one that the run's own mapping prefers")
            heads=heads
            rows=rows.iter().map(cells).collect()
        />
    }
}
