//! The reward model's report, the calibration, and the summary at the end.

use crate::charts::Ink;
use crate::parts::format;
use crate::state::{RunState, Topic};
use crate::stream::Run;
use leptos::prelude::*;
use moslim_shared::event::Stage;
use moslim_shared::objective::index_of;
use moslim_shared::summary::RunSummary;

/// How good the judge is.
pub fn reward_model(run: Run) -> AnyView {
    let revision = run.on(Topic::Reward);
    view! {
        <section id="judge" class="section" aria-labelledby="judge-title">
            <h2 id="judge-title">"Can the reward model be trusted?"</h2>
            <p class="muted">
                "Each head on test rows that it never saw, after calibration. A head is worth something when its accuracy is above the majority class and its confidence is honest (small calibration error)."
            </p>
            {move || {
                let _ = revision.get();
                run.read(report)
            }}
        </section>
    }
    .into_any()
}

fn report(state: &RunState) -> AnyView {
    let Some(report) = &state.reward_model else {
        return view! { <p class="card empty">"The report appears when the reward model has been trained and calibrated."</p> }
            .into_any();
    };
    let rows: Vec<AnyView> = report
        .heads
        .iter()
        .map(|h| {
            let index = index_of(&state.objectives, &h.objective).unwrap_or(0);
            let name = state.objectives.get(index).map_or(h.objective.clone(), |o| o.name.clone());
            view! {
                <tr data-head=h.objective.clone()>
                    <th scope="row">
                        <span class="swatch" style:background=Ink::Objective(index).css()></span>
                        {name}
                    </th>
                    <td>{h.classes.to_string()}</td>
                    <td>{format::count(h.n as u64)}</td>
                    <td><b>{format::percent(h.accuracy)}</b></td>
                    <td>{format::percent(h.majority)}</td>
                    <td>{format::number(h.macro_f1, 2)}</td>
                    <td>{format::number(h.qwk, 2)}</td>
                    <td>{format::number(h.ece_uncalibrated, 3)}</td>
                    <td>{format::number(h.ece, 3)}</td>
                    <td>{format::number(h.temperature, 2)}</td>
                </tr>
            }
            .into_any()
        })
        .collect();
    let frozen = match &state.calibrated {
        Some(c) => {
            let hash: String = c.hash.chars().take(12).collect();
            format!(
                "Reward model, {} temperatures and reward statistics are frozen together under {hash}… before the policy is optimised.",
                c.temperatures.len()
            )
        }
        None => "Temperatures and statistics are not frozen yet.".to_string(),
    };
    view! {
        <div class="card">
            <div class="scroll">
                <table class="values wide" id="reward-report">
                    <thead>
                        <tr>
                            <th scope="col">"Head"</th>
                            <th scope="col">"Classes"</th>
                            <th scope="col">"Rows"</th>
                            <th scope="col">"Accuracy"</th>
                            <th scope="col">"Majority"</th>
                            <th scope="col">"Macro-F1"</th>
                            <th scope="col" title="Quadratic weighted kappa">"QWK"</th>
                            <th scope="col" title="Expected calibration error before temperature scaling">"ECE before"</th>
                            <th scope="col" title="Expected calibration error after temperature scaling">"ECE after"</th>
                            <th scope="col" title="Fitted temperature">"T"</th>
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
            <p class="hint">{frozen}</p>
        </div>
    }
    .into_any()
}

/// What the run came to.
pub fn summary(run: Run) -> AnyView {
    let revision = run.on(Topic::Summary);
    view! {
        <section id="summary" class="section" aria-labelledby="summary-title">
            <h2 id="summary-title">"Result"</h2>
            {move || {
                let _ = revision.get();
                run.read(|s| match &s.summary {
                    Some(summary) => result(summary),
                    None => view! { <p class="card empty">"The result appears when the evaluation is over."</p> }.into_any(),
                })
            }}
        </section>
    }
    .into_any()
}

fn tile(id: &'static str, label: &'static str, value: String, note: String) -> AnyView {
    view! {
        <div class="tile" data-figure=id>
            <span class="tile-label">{label}</span>
            <b class="tile-value">{value}</b>
            <span class="hint">{note}</span>
        </div>
    }
    .into_any()
}

fn result(summary: &RunSummary) -> AnyView {
    let (policy, sft) = (&summary.control.policy, &summary.control.sft);
    let was = |value: f64| format!("was {} after SFT", format::percent(value));
    let tiles = vec![
        tile("hit_rate", "Exact hits, one objective", format::percent(policy.mean_hit_rate()), was(sft.mean_hit_rate())),
        tile(
            "spearman",
            "Rank correlation",
            format::number(policy.mean_spearman(), 2),
            format!("was {}", format::number(sft.mean_spearman(), 2)),
        ),
        tile("joint_hit_rate", "All tags met together", format::percent(policy.joint_hit_rate), was(sft.joint_hit_rate)),
        tile(
            "trained_hit_rate",
            "Combinations seen in training",
            format::percent(policy.trained_hit_rate),
            was(sft.trained_hit_rate),
        ),
        tile(
            "held_out_hit_rate",
            "Combinations never trained",
            format::percent(policy.held_out_hit_rate),
            was(sft.held_out_hit_rate),
        ),
        tile("fluency", "Fluent answers", format::percent(policy.fluency), was(sft.fluency)),
        tile("kl", "KL from the SFT model", format::number(summary.policy.kl, 2), "nats per answer".into()),
        tile(
            "samples",
            "Answers sampled",
            format::count(summary.policy.samples),
            format!("{} tokens", format::count(summary.policy.tokens)),
        ),
    ];
    let seconds = &summary.seconds;
    let stages = [
        (Stage::Sft.title(), seconds.sft),
        (Stage::RewardModel.title(), seconds.reward_model),
        (Stage::Calibration.title(), seconds.calibration),
        (Stage::Policy.title(), seconds.policy),
        (Stage::Evaluation.title(), seconds.evaluation),
        ("Total", seconds.total),
    ];
    let rows: Vec<AnyView> = stages
        .into_iter()
        .map(|(name, s)| view! { <tr><th scope="row">{name}</th><td>{format::duration(s)}</td></tr> }.into_any())
        .collect();
    view! {
        <div class="tiles">{tiles}</div>
        <div class="card split">
            <table class="values">
                <caption>"Wall time per stage"</caption>
                <tbody>{rows}</tbody>
            </table>
            <div>
                <p class="hint">
                    "Measured with gold rules on held-out questions. The file holds every figure, and the settings to compute them again."
                </p>
                <p>
                    <a class="button" rel="external" download=format!("{}.json", summary.run) href=format!("/api/v1/runs/{}", summary.run)>
                        "Download the summary (JSON)"
                    </a>
                </p>
            </div>
        </div>
    }
    .into_any()
}
