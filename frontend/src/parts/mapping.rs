//! The mapping by hand: move class probabilities, ask for classes, and watch the scalar.

use crate::parts::format;
use crate::parts::seen::Alone;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::Ink;
use moslim_shared::mapping::{MappingConfig, MappingFunction, RewardStatistics, map_reward};
use moslim_shared::preference::Preference;
use std::time::Duration;

/// Time between two wishes of the playing by itself, which have to be read.
const BEAT: Duration = Duration::from_millis(2_500);
/// These wishes, over and over.
const WISHES: [Asked; 4] = [[Some(2), Some(0)], [Some(2), None], [Some(2), Some(2)], [Some(0), None]];

/// Two example objectives with three classes each.
const NAMES: [(&str, [&str; 3]); 2] =
    [("Helpfulness", ["no help", "some help", "full help"]), ("Verbosity", ["short", "medium", "long"])];

/// The functions that read a value off a distribution.
pub const FUNCTIONS: [(MappingFunction, &str); 5] = [
    (MappingFunction::Moslim, "Probability of the class (paper)"),
    (MappingFunction::Log, "Its logarithm"),
    (MappingFunction::Expected, "Distance of the expected class"),
    (MappingFunction::RankedProbability, "Ranked probability score"),
    (MappingFunction::Argmax, "Hit or miss"),
];

/// What is translated where it is shown.
#[cfg(test)]
pub fn texts() -> impl Iterator<Item = &'static str> {
    let names = NAMES.iter().flat_map(|(name, classes)| classes.iter().copied().chain([*name]));
    names.chain(FUNCTIONS.iter().map(|(_, label)| *label))
}

type Weights = [[u32; 3]; 2];
type Asked = [Option<usize>; 2];

/// What can be changed.
#[derive(Clone, Copy)]
struct Inputs {
    weights: [[RwSignal<u32>; 3]; 2],
    asked: [RwSignal<Option<usize>>; 2],
    function: RwSignal<usize>,
}

impl Inputs {
    fn weights(&self) -> Weights {
        self.weights.map(|row| row.map(|w| w.get()))
    }

    fn asked(&self) -> Asked {
        self.asked.map(|a| a.get())
    }
}

/// Distributions of a few other answers, which the example's mean and deviation come from.
fn others() -> Vec<Vec<Vec<f64>>> {
    [
        [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]],
        [[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]],
        [[0.1, 0.3, 0.6], [0.1, 0.3, 0.6]],
        [[0.3, 0.4, 0.3], [0.3, 0.4, 0.3]],
    ]
    .iter()
    .map(|answer| answer.iter().map(|p| p.to_vec()).collect())
    .collect()
}

fn distributions(weights: &Weights) -> Vec<Vec<f64>> {
    weights
        .iter()
        .map(|w| {
            let total: u32 = w.iter().sum();
            w.iter().map(|&x| if total == 0 { 1.0 / 3.0 } else { f64::from(x) / f64::from(total) }).collect()
        })
        .collect()
}

/// The interactive example.
#[component]
pub fn MappingByHand(
    /// Whether it plays by itself.
    #[prop(optional)]
    alone: Option<Alone>,
    /// Whether something can be changed.
    #[prop(default = true)]
    controls: bool,
) -> impl IntoView {
    let inputs = Inputs {
        weights: [[10, 30, 60], [50, 35, 15]].map(|row| row.map(RwSignal::new)),
        asked: WISHES[0].map(RwSignal::new),
        function: RwSignal::new(0),
    };
    if let Some(alone) = alone {
        alone.every(BEAT, move |beat| {
            for (asked, wish) in inputs.asked.into_iter().zip(WISHES[beat % WISHES.len()]) {
                asked.set(wish);
            }
        });
    }
    let objectives = (0..2).map(|index| view! { <ObjectiveInputs index=index inputs=inputs controls=controls/> }).collect_view();
    let options = FUNCTIONS
        .iter()
        .enumerate()
        .map(|(i, (_, label))| view! { <option value=i.to_string()>{t(label)}</option> })
        .collect_view();
    view! {
        <section id="try" class="section" aria-labelledby="try-title">
            <h2 id="try-title">{t("How class probabilities become one reward")}</h2>
            <p class="muted">
                {t("The reward model says how probable each class is for an answer. The tags in the prompt say which classes are wanted. \
                    Change either: the reward follows, and no reward model has to be trained again.")}
            </p>
            <div class="card demo">
                <div class="demo-inputs">
                    {objectives}
                    {controls.then(|| view! {
                        <label class="field">
                            <span class="label">{t("What is read off the probabilities")}</span>
                            <select
                                id="demo-function"
                                on:change=move |ev| inputs.function.set(event_target_value(&ev).parse().unwrap_or(0))
                            >
                                {options}
                            </select>
                        </label>
                    })}
                </div>
                <div class="demo-result" aria-live=move || if alone.is_some_and(Alone::plays) { "off" } else { "polite" }>
                    <p class="label">{t("The prompt that the policy sees")}</p>
                    <p class="prompt"><code>{move || prompt(&inputs.asked())}</code></p>
                    {move || outcome(&inputs.weights(), &inputs.asked(), inputs.function.get())}
                    <p class="hint">{t("Example numbers, not measured: mean and deviation come from four made-up answers.")}</p>
                </div>
            </div>
        </section>
    }
}

fn prompt(asked: &Asked) -> String {
    let tags: String =
        asked.iter().zip(NAMES).filter_map(|(t, (name, _))| t.map(|t| format!("<{}={t}>", name.to_ascii_lowercase()))).collect();
    format!("{tags} {}", t("How do I keep bread fresh?"))
}

/// Sliders of one objective, and the class that is asked for.
#[component]
fn ObjectiveInputs(index: usize, inputs: Inputs, controls: bool) -> impl IntoView {
    let (name, classes) = NAMES[index];
    let sliders = classes
        .iter()
        .enumerate()
        .map(|(c, label)| {
            let id = format!("demo-{index}-{c}");
            let weight = inputs.weights[index][c];
            view! {
                <div class="slider">
                    <label for=id.clone()>{format!("{c} {}", t(label))}</label>
                    {controls.then(move || view! {
                        <input
                            type="range"
                            id=id
                            min="0"
                            max="100"
                            prop:value=weight.get_untracked().to_string()
                            on:input=move |ev| weight.set(event_target_value(&ev).parse().unwrap_or(0))
                        />
                    })}
                    <output class="num">{move || format::percent(distributions(&inputs.weights())[index][c])}</output>
                </div>
            }
        })
        .collect_view();
    let asked = inputs.asked[index];
    let choice = move |value: Option<usize>, text: String| {
        view! {
            <button
                type="button"
                aria-pressed=move || (asked.get() == value).to_string()
                on:click=move |_| asked.set(value)
            >
                {text}
            </button>
        }
    };
    let mut choices = vec![choice(None, t("not asked").into())];
    choices.extend((0..classes.len()).map(|c| choice(Some(c), c.to_string())));
    view! {
        <fieldset>
            <legend><span class="swatch bold" style:background=Ink::Objective(index * 3).css()></span>{t(name)}</legend>
            <p class="label">{t("How probable is each class for this answer?")}</p>
            {sliders}
            {controls.then(|| view! {
                <p class="label">{t("Which class does the prompt ask for?")}</p>
                <div class="segments" role="group" aria-label=said("Class of {0} asked for", &[t(name)])>{choices}</div>
            })}
        </fieldset>
    }
}

fn outcome(weights: &Weights, asked: &Asked, function: usize) -> impl IntoView + use<> {
    let config = MappingConfig { function: FUNCTIONS[function.min(FUNCTIONS.len() - 1)].0, ..Default::default() };
    let statistics = RewardStatistics::over(&config, &others());
    let shares = distributions(weights);
    let preference = Preference(asked.to_vec());
    let mapped = map_reward(&config, &statistics, &shares, &preference);
    let lines = preference
        .asked()
        .map(|(i, class)| {
            let value = config.function.value(&shares[i], class);
            let [value, mean, deviation] = [value, statistics.mean[i][class], statistics.std[i][class].max(config.std_floor)];
            let text = said(
                "({0} − mean {1}) / deviation {2}",
                &[&format::number(value, 2), &format::number(mean, 2), &format::number(deviation, 2)],
            );
            view! {
                <tr>
                    <th scope="row"><span class="swatch" style:background=Ink::Objective(i * 3).css()></span>{t(NAMES[i].0)}</th>
                    <td>{text}</td>
                    <td><b>{format::signed(mapped.contributions[i], 2)}</b></td>
                </tr>
            }
        })
        .collect_view();
    let note = match preference.active() {
        0 => t("Nothing is asked for: the reward is 0 whatever the answer.").to_string(),
        1 => t("One objective is asked for; the other is masked and adds nothing.").to_string(),
        n => said("Each z-score is divided by the {0} objectives asked for, then they are added.", &[&n.to_string()]),
    };
    view! {
        <table class="values">
            <thead><tr><th scope="col">{t("Objective")}</th><th scope="col">{t("z-score")}</th><th scope="col">{t("adds")}</th></tr></thead>
            <tbody>{lines}</tbody>
        </table>
        <p class="reward" id="demo-reward">
            <span class="hint">{t("reward")}</span>
            <b class="num">{format::signed(mapped.scalar, 2)}</b>
        </p>
        <p class="hint">{note}</p>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_sum_to_one_even_when_all_sliders_are_down() {
        for weights in [[[0, 0, 0], [1, 1, 2]], [[100, 0, 0], [3, 3, 3]]] {
            for p in distributions(&weights) {
                assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn the_prompt_writes_only_what_is_asked() {
        assert_eq!(prompt(&[Some(2), None]), "<helpfulness=2> How do I keep bread fresh?");
    }
}
