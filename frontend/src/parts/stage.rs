//! The five stages and how far each is.

use crate::parts::format;
use crate::state::{Phase, StageState, Topic};
use crate::stream::Run;
use leptos::prelude::*;
use moslim_shared::event::Stage;

/// The strip of stages.
pub fn stages(run: Run) -> AnyView {
    let revision = run.on(Topic::Head);
    view! {
        <ol class="stages" aria-label="Stages of the run">
            {move || {
                let _ = revision.get();
                run.read(|s| Stage::ALL.into_iter().map(|stage| card(stage, &s.stages[stage as usize])).collect::<Vec<_>>().into_any())
            }}
        </ol>
    }
    .into_any()
}

fn card(stage: Stage, state: &StageState) -> AnyView {
    let id = match stage {
        Stage::Sft => "sft",
        Stage::RewardModel => "reward_model",
        Stage::Calibration => "calibration",
        Stage::Policy => "policy",
        Stage::Evaluation => "evaluation",
    };
    let (step, total) = match state.phase {
        Phase::Waiting => (0, 1),
        Phase::Running => (state.step, state.total.max(1)),
        Phase::Cached | Phase::Done => (1, 1),
    };
    let progress = match state.phase {
        Phase::Waiting => "waits for the stage before".to_string(),
        Phase::Running if state.total > 1 => {
            let left = state.remaining().map(|s| format!(", about {} left", format::duration(s))).unwrap_or_default();
            format!("{} of {}{left}", format::count(state.step as u64), format::count(state.total as u64))
        }
        Phase::Running => "computing".to_string(),
        Phase::Cached => "same settings as before: taken from the cache".to_string(),
        Phase::Done => format!("took {}", format::duration(state.seconds.unwrap_or(0.0))),
    };
    view! {
        <li class="stage" data-stage=id data-state=state.phase.name()>
            <div class="stage-top">
                <span class="stage-number">{(stage as usize + 1).to_string()}</span>
                <b>{stage.title()}</b>
                <span class="stage-state">{state.phase.name()}</span>
            </div>
            <progress
                max=total.to_string()
                value=step.to_string()
                aria-label=format!("{}: {progress}", stage.title())
            ></progress>
            <p class="hint num">{progress.clone()}</p>
        </li>
    }
    .into_any()
}
