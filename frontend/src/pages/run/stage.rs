//! The stages of a run and how far each is.

use crate::parts::format;
use crate::state::progress::{Phase, StageState};
use crate::state::{RunState, Topic};
use crate::stream::Run;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_shared::event::{Part, Stage};
use moslim_shared::method::Method;

/// The strip of stages.
#[component]
pub fn Stages(run: Run) -> impl IntoView {
    let revision = run.revision(Topic::Head);
    view! {
        <ol class="stages" aria-label=t("Stages of the run")>
            {move || {
                let _ = revision.get();
                run.read(|s| s.stage_list().into_iter().enumerate().map(|(n, stage)| card(s, n + 1, stage)).collect_view())
            }}
        </ol>
    }
}

fn card(run: &RunState, place: usize, stage: Stage) -> impl IntoView + use<> {
    let state = &run.stages[stage as usize];
    let id = stage.id().replace('-', "_");
    let (step, total) = match state.phase {
        Phase::Waiting => (0, 1),
        Phase::Running => (state.step, state.total.max(1)),
        Phase::Cached | Phase::Done => (1, 1),
    };
    let idle = stage == Stage::Policy && matches!(run.method(), Method::TaggedSft | Method::BestOfN);
    let progress = if idle { t("nothing to train with this method").to_string() } else { progress(state) };
    let part = state.part.as_ref().map(|p| part(stage, p)).unwrap_or_default();
    view! {
        <li class="stage" data-stage=id data-state=state.phase.name()>
            <div class="stage-top">
                <span class="stage-number">{place.to_string()}</span>
                <b>{t(stage.title())}</b>
                <span class="stage-state" title=state.phase.told()>{if state.phase == Phase::Done { "✓" } else { state.phase.told() }}</span>
            </div>
            <progress
                max=total.to_string()
                value=step.to_string()
                aria-label=format!("{}{}{progress}", t(stage.title()), t(": "))
            ></progress>
            <p class="hint num" class:gone=part.is_empty()>{part.clone()}</p>
            <p class="hint num">{progress.clone()}</p>
        </li>
    }
}

fn progress(state: &StageState) -> String {
    match state.phase {
        Phase::Waiting => t("waits for the stage before").to_string(),
        Phase::Running if state.total > 1 => {
            let left = state.remaining().map(|s| said(", about {0} left", &[&format::duration(s)])).unwrap_or_default();
            said("{0} of {1}{2}", &[&format::count(state.step as u64), &format::count(state.total as u64), &left])
        }
        Phase::Running => t("computing").to_string(),
        Phase::Cached => t("same settings as before: taken from the cache").to_string(),
        Phase::Done => said("took {0}", &[&format::duration(state.seconds.unwrap_or(0.0))]),
    }
}

/// Which of several models a stage is at.
fn part(stage: Stage, part: &Part) -> String {
    let what = if stage == Stage::Policy { t("policy") } else { t("model") };
    said("{0} {1} of {2}: {3}", &[what, &part.index.to_string(), &part.count.to_string(), &part.name])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_counted_and_named() {
        let third = Part { index: 3, count: 11, name: "helpfulness".into() };
        assert_eq!(part(Stage::Policy, &third), "policy 3 of 11: helpfulness");
        assert_eq!(part(Stage::RewardModel, &third), "model 3 of 11: helpfulness");
    }
}
