//! The reward model's report, the calibration, and the summary at the end.

use crate::pages::carry::SaveRun;
use crate::pages::run::grades::grades;
use crate::pages::run::trade_offs::{name, trade_offs};
use crate::parts::format;
use crate::parts::matrix::between;
use crate::parts::table::Table;
use crate::source::{at, is_tab};
use crate::state::{RunState, Topic};
use crate::stream::Run;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::Ink;
use moslim_shared::event::Stage;
use moslim_shared::objective::index_of;
use moslim_shared::summary::{ComputeReport, RewardHeadReport, RewardModelReport, RunSummary};

/// How good the reward model is.
#[component]
pub fn RewardModel(run: Run) -> impl IntoView {
    let revision = run.revision(Topic::Reward);
    view! {
        <section id="reward-model" class="section" aria-labelledby="reward-model-title">
            <h2 id="reward-model-title">{t("Can the reward model be trusted?")}</h2>
            <p class="muted">
                {t("Each head on test rows that it never saw, after calibration. A head is worth something when its accuracy is above \
                    the majority class and its confidence is honest (small calibration error).")}
            </p>
            {move || {
                let _ = revision.get();
                run.read(report)
            }}
        </section>
    }
}

/// A column of the report: head, its long form, and what stands in it.
type Column = (&'static str, &'static str, fn(&RewardHeadReport) -> String);

fn columns() -> [Column; 13] {
    [
        (t("Classes"), "", |h| h.classes.to_string()),
        (t("Rows"), t("Labelled test rows"), |h| format::count(h.n as u64)),
        (t("Accuracy"), "", |h| format::percent(h.accuracy)),
        (t("Majority"), t("Accuracy of always guessing the most frequent class"), |h| format::percent(h.majority)),
        ("Macro-F1", "", |h| format::number(h.macro_f1, 2)),
        ("QWK", t("Quadratic weighted kappa"), |h| format::number(h.qwk, 2)),
        (t("ECE before"), t("Expected calibration error before temperature scaling"), |h| format::number(h.ece_uncalibrated, 3)),
        (t("ECE after"), t("Expected calibration error after temperature scaling"), |h| format::number(h.ece, 3)),
        ("T", t("Fitted temperature"), |h| format::number(h.temperature, 2)),
        (t("Within one"), t("Share of predictions at most one class away"), |h| format::percent(h.within_one)),
        ("MAE", t("Mean absolute error of the expected class, in classes"), |h| format::number(h.mae, 2)),
        (t("Pairwise"), t("Share of pairs of answers to one question that are ordered like their labels"), |h| {
            format::percent(h.pairwise_accuracy)
        }),
        ("NLL", t("Mean negative log-likelihood, nats"), |h| format::number(h.nll, 2)),
    ]
}

/// Columns that runs of earlier versions have, too.
const OLD_COLUMNS: usize = 9;

fn report(state: &RunState) -> AnyView {
    let Some(report) = &state.reward_model else {
        return view! { <p class="card empty">{t("The report appears when the reward model has been trained and calibrated.")}</p> }
            .into_any();
    };
    let old = report.heads.iter().all(|h| h.nll == 0.0);
    let all = columns();
    let columns = &all[..if old { OLD_COLUMNS } else { all.len() }];
    let heads = columns.iter().map(|(head, title, _)| view! { <th scope="col" title={*title}>{*head}</th> }).collect_view();
    let rows = report
        .heads
        .iter()
        .map(|h| {
            let index = index_of(&state.objectives, &h.objective).unwrap_or(0);
            let cells = columns.iter().map(|(_, _, of)| view! { <td>{of(h)}</td> }).collect_view();
            view! {
                <tr data-head=h.objective.clone()>
                    <th scope="row">
                        <span class="swatch" style:background=Ink::Objective(index).css()></span>
                        {name(state, &h.objective)}
                    </th>
                    {cells}
                </tr>
            }
        })
        .collect_view();
    let frozen = match &state.calibrated {
        Some(c) => {
            let hash: String = c.hash.chars().take(12).collect();
            said(
                "Reward model, {0} temperatures and reward statistics are frozen together under {1}… before the policy is optimised.",
                &[&c.temperatures.len().to_string(), &hash],
            )
        }
        None => t("Temperatures and statistics are not frozen yet.").to_string(),
    };
    view! {
        <div class="card">
            <div class="scroll" tabindex="0">
                <table class="values wide" id="reward-report">
                    <thead><tr><th scope="col">{t("Head")}</th>{heads}</tr></thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
            <p class="hint">{frozen}</p>
        </div>
        {grades(state, report)}
        {gradients(state, report)}
    }
    .into_any()
}

/// Whether the heads get on with each other.
fn gradients(state: &RunState, report: &RewardModelReport) -> Option<impl IntoView + use<>> {
    if report.gradient_cosines.is_empty() {
        return None;
    }
    let names: Vec<String> = report.heads.iter().map(|h| name(state, &h.objective)).collect();
    Some(view! {
        <div class="card" id="gradients">
            <h3>{t("Do the heads agree?")}</h3>
            <p class="hint">
                {t("Cosine between the gradients of two heads' losses on the shared trunk. Negative: the heads pull the trunk apart.")}
            </p>
            {between(t("cosine"), &names, &report.gradient_cosines)}
        </div>
    })
}

/// What the run came to.
#[component]
pub fn Summary(run: Run) -> impl IntoView {
    let revision = run.revision(Topic::Summary);
    view! {
        <section id="summary" class="section" aria-labelledby="summary-title">
            <h2 id="summary-title">{t("Result")}</h2>
            {move || {
                let _ = revision.get();
                run.read(|s| {
                    let figures = match &s.summary {
                        Some(summary) => result(summary).into_any(),
                        None => view! { <p class="card empty">{t("The result appears when the evaluation is over.")}</p> }.into_any(),
                    };
                    (figures, trade_offs(s))
                })
            }}
        </section>
    }
}

fn tile(id: &'static str, label: &'static str, value: String, note: String) -> impl IntoView + use<> {
    view! {
        <div class="tile" data-figure=id>
            <span class="tile-label">{label}</span>
            <b class="tile-value">{value}</b>
            <span class="hint">{note}</span>
        </div>
    }
}

fn result(summary: &RunSummary) -> impl IntoView + use<> {
    let (policy, sft) = (&summary.control.policy, &summary.control.sft);
    let was = |value: f64| said("was {0} after SFT", &[&format::percent(value)]);
    let tiles = vec![
        tile("hit_rate", t("Exact hits, one objective"), format::percent(policy.mean_hit_rate()), was(sft.mean_hit_rate())),
        tile(
            "spearman",
            t("Rank correlation"),
            format::number(policy.mean_spearman(), 2),
            said("was {0}", &[&format::number(sft.mean_spearman(), 2)]),
        ),
        tile("joint_hit_rate", t("All tags met together"), format::percent(policy.joint_hit_rate), was(sft.joint_hit_rate)),
        tile(
            "trained_hit_rate",
            t("Combinations seen in training"),
            format::percent(policy.trained_hit_rate),
            was(sft.trained_hit_rate),
        ),
        tile(
            "held_out_hit_rate",
            t("Combinations never trained"),
            format::percent(policy.held_out_hit_rate),
            was(sft.held_out_hit_rate),
        ),
        tile("fluency", t("Fluent answers"), format::percent(policy.fluency), was(sft.fluency)),
        tile(
            "on_topic",
            t("Claims about the question"),
            policy.on_topic.map_or("–".into(), format::percent),
            sft.on_topic.map(was).unwrap_or_default(),
        ),
        tile("kl", t("KL from its start"), format::number(summary.policy.kl, 2), t("nats per answer").into()),
        tile(
            "samples",
            t("Answers sampled"),
            format::count(summary.policy.samples),
            said("{0} tokens", &[&format::count(summary.policy.tokens)]),
        ),
    ];
    let seconds = &summary.seconds;
    let stages = [
        (t(Stage::Sft.title()), seconds.sft),
        (t(Stage::RewardModel.title()), seconds.reward_model),
        (t(Stage::Calibration.title()), seconds.calibration),
        (t(Stage::Policy.title()), seconds.policy),
        (t(Stage::Evaluation.title()), seconds.evaluation),
        (t("Total"), seconds.total),
    ];
    let rows = stages.into_iter().map(|(name, s)| vec![name.to_string(), format::duration(s)]).collect();
    view! {
        <div class="tiles">{tiles}</div>
        <div class="card split">
            <Table class="values" caption=t("Wall time per stage") rows=rows/>
            {compute(&summary.compute)}
            <div>
                <p class="hint">
                    {t("Graded by rules that also made the reward model's labels, on held-out questions. The file holds every figure, and the settings to compute them again.")}
                </p>
                <p>
                    <a class="button" rel="external" download=format!("{}.json", summary.run) href=summary_address(summary)>
                        {t("Download the summary (JSON)")}
                    </a>
                    " "
                    <SaveRun id=summary.run.clone()/>
                    {(!is_tab()).then(|| view! {
                        " "
                        <a
                            id="save-page"
                            class="button"
                            rel="external"
                            download=format!("{}.html", summary.run)
                            href=at(&format!("/api/v1/runs/{}/page", summary.run))
                        >
                            {t("Save it as a page")}
                        </a>
                    })}
                </p>
            </div>
        </div>
    }
}

/// Where the summary can be had as a file.
fn summary_address(summary: &RunSummary) -> String {
    if is_tab() {
        let text = serde_json::to_string_pretty(&serde_json::json!(summary)).unwrap_or_default();
        return format!("data:application/json,{}", js_sys::encode_uri_component(&text));
    }
    at(&format!("/api/v1/runs/{}", summary.run))
}

/// What the method cost. Runs of earlier versions did not count it.
fn compute(report: &ComputeReport) -> Option<impl IntoView + use<>> {
    if report.models_trained == 0 {
        return None;
    }
    let row = |name: &str, value: String| vec![name.to_string(), value];
    let mut rows = vec![
        row(t("Token passes, millions"), format::number(report.policy.passes() / 1e6, 1)),
        row(t("Policy optimisation"), format::duration(report.policy_seconds)),
        row(t("Models trained"), report.models_trained.to_string()),
        row(t("Policies kept for every trade-off"), report.models_kept.to_string()),
    ];
    if report.peak_memory_mib > 0 {
        rows.push(row(t("Most memory"), format!("{} MiB", format::count(report.peak_memory_mib))));
    }
    let caption = t("Compute: token passes are forward + 3 × training");
    Some(view! { <Table class="values" caption=caption rows=rows/> })
}
