//! Stations 1 and 2: grading an answer, and classes against scores.

use crate::parts::class_bars::class_bars;
use crate::parts::format;
use crate::parts::seen::{Alone, to_and_fro};
use crate::state::toy::{ANSWERS, QUESTION, distributions, objectives};
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::Ink;
use std::time::Duration;

/// Time between two moves of the playing by itself: grading, which is read, and scales that differ.
const READING: Duration = Duration::from_millis(1_500);
const SCALES: Duration = Duration::from_millis(600);
/// Moves for every answer: it is shown, graded twice, and the reward model's word stays for a while.
const MOVES: usize = 6;

/// Answers to grade, in order: easy ones first.
const TO_GRADE: [usize; 4] = [9, 1, 3, 5];

/// Grades that a reader might give: right about help, and everything seems to be of medium length.
fn example(at: usize) -> [usize; 2] {
    [ANSWERS[TO_GRADE[at]].classes[0], 1]
}

/// What is shown at a move of the playing by itself: the answer, its grades, and whether the reward model has its say.
fn shown(beat: usize) -> (usize, [Option<usize>; 2], bool) {
    let (at, phase) = (beat / MOVES % TO_GRADE.len(), beat % MOVES);
    let [help, length] = example(at);
    (at, [(phase > 0).then_some(help), (phase > 1).then_some(length)], phase > 2)
}

/// An answer that a person grades before the reward model does.
#[component]
pub fn Grade(alone: Alone, controls: bool) -> impl IntoView {
    let at = RwSignal::new(0_usize);
    let grades = RwSignal::new([None::<usize>; 2]);
    let told = RwSignal::new(false);
    // Whether the grades are the reader's own, and no example.
    let mine = RwSignal::new(false);
    alone.every(READING, move |beat| {
        let (answer, given, says) = shown(beat);
        at.set(answer);
        grades.set(given);
        told.set(says);
    });
    let grade = move |i: usize, class: usize| {
        if !mine.get_untracked() {
            mine.set(true);
            grades.set([None; 2]);
            told.set(false);
        }
        grades.update(|g| g[i] = Some(class));
    };
    let answer = move || TO_GRADE[at.get()];
    let rows = objectives()
        .into_iter()
        .enumerate()
        .map(|(i, objective)| {
            let choices = objective
                .classes
                .iter()
                .enumerate()
                .map(|(c, name)| view! {
                    <button
                        type="button"
                        aria-pressed=move || (grades.get()[i] == Some(c)).to_string()
                        on:click=move |_| grade(i, c)
                    >
                        {name.clone()}
                    </button>
                })
                .collect_view();
            view! {
                <p class="label"><span class="swatch bold" style:background=Ink::Objective(i * 3).css()></span>" "{objective.name.clone()}</p>
                <div class="segments" role="group" aria-label=objective.name>{choices}</div>
            }
        })
        .collect_view();
    view! {
        <div class="card stage-card" id="grade">
            <p class="question">{t(QUESTION)}</p>
            <p class="answer">{move || t(ANSWERS[answer()].text)}</p>
            {controls.then_some(rows)}
            <p class="actions">
                <button
                    type="button"
                    class="button primary"
                    disabled=move || controls && grades.get().contains(&None)
                    on:click=move |_| {
                        if !controls {
                            grades.set(example(at.get_untracked()).map(Some));
                        }
                        told.set(true);
                    }
                >
                    {t("What does the reward model say?")}
                </button>
                <button
                    type="button"
                    class="button quiet"
                    on:click=move |_| {
                        at.update(|a| *a = (*a + 1) % TO_GRADE.len());
                        grades.set([None; 2]);
                        told.set(false);
                    }
                >
                    {t("Another answer")}
                </button>
            </p>
            {move || told.get().then(|| {
                let (own, grades) = (answer(), grades.get());
                let shares = distributions(own, false);
                let bars = objectives().iter().enumerate().map(|(i, o)| class_bars(o, i * 3, &shares[i], grades[i], Some(ANSWERS[own].classes[i]))).collect_view();
                let agreed = (0..2).filter(|i| grades[*i] == Some(ANSWERS[own].classes[*i])).count();
                let hint = if mine.get() {
                    said("You and the rules agree on {0} of 2. ◆ is your grade, ✓ that of the rules; columns are how probable a reward model finds each class.", &[&agreed.to_string()])
                } else {
                    t("◆ is a grade that a reader might give, ✓ that of the rules; columns are how probable a reward model finds each class.").into()
                };
                view! {
                    <div class="bars">{bars}</div>
                    <p class="hint">{hint}</p>
                }
            })}
        </div>
    }
}

/// Raters of the second station.
const RATERS: usize = 40;

/// A number in [-1, 1] with most of its mass in the middle; the same for the same place.
fn noise(seed: u64, n: usize) -> f64 {
    let one = |k: u64| {
        let mut z =
            seed.wrapping_mul(0x9E37_79B9).wrapping_add((n as u64 + 1).wrapping_mul(0xD1B5_4A32_D192_ED03)).wrapping_add(k);
        z = (z ^ (z >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        z = (z ^ (z >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        ((z ^ (z >> 32)) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..6).map(one).sum::<f64>() / 3.0 - 1.0
}

/// Scores from 1 to 10 of two answers, of which the second is better, by raters whose scales differ by `spread`; each rates one of them.
fn scores(seed: u64, spread: f64) -> [Vec<usize>; 2] {
    let score = |quality: f64, n: usize| (quality + spread * 9.0 * noise(seed, n)).round().clamp(1.0, 10.0) as usize;
    let of = |quality: f64, shift: usize| (0..RATERS / 2).map(|n| score(quality, 2 * n + shift)).collect();
    [of(5.0, 0), of(6.5, 1)]
}

/// How often the better answer has the higher mark, of all pairs of raters; a tie counts half.
fn told_apart(marks: &[Vec<usize>; 2]) -> f64 {
    let mut sum = 0.0;
    for a in &marks[0] {
        for b in &marks[1] {
            sum += if b > a {
                1.0
            } else if b == a {
                0.5
            } else {
                0.0
            };
        }
    }
    sum / (marks[0].len() * marks[1].len()) as f64
}

/// The classes that the same raters give: described, so a rater errs by reading badly and not by scale. One in twelve does.
fn classes(seed: u64) -> [Vec<usize>; 2] {
    // What is farther than 1.74 deviations of this noise, which has one of 0.236.
    let misread = |n: usize| noise(seed ^ 0x55, n).abs() > 0.41;
    let of =
        |class: usize, shift: usize| (0..RATERS / 2).map(|n| if misread(2 * n + shift) { 3 - class } else { class }).collect();
    [of(1, 0), of(2, 1)]
}

/// Scores that drown in people's scales, and classes that do not.
#[component]
pub fn Noise(seed: u64, alone: Alone, controls: bool) -> impl IntoView {
    let spread = RwSignal::new(0.15);
    // In steps of the slider, from where it stands.
    alone.every(SCALES, move |beat| spread.set(to_and_fro(beat + 3, 12) as f64 / 20.0));
    let histogram = |name: &'static str, marks: Vec<usize>, from: usize, to: usize, labels: Option<Vec<String>>, ink: usize| {
        let most = (from..=to).map(|m| marks.iter().filter(|x| **x == m).count()).max().unwrap_or(1).max(1);
        let columns = (from..=to)
            .map(|m| {
                let count = marks.iter().filter(|x| **x == m).count();
                let height = format!("{:.0}%", 100.0 * count as f64 / most as f64);
                let label = labels.as_ref().map_or(m.to_string(), |l| l[m - from].clone());
                let title = format!("{label}: {count}");
                view! {
                    <span class="column" title=title>
                        <span class="tube"><span class="fill" style:height=height style:background=Ink::Objective(ink).css()></span></span>
                        <span class="tick">{label}</span>
                    </span>
                }
            })
            .collect_view();
        view! {
            <div class="bar-row" role="img" aria-label=said("{0}: {1} marks", &[name, &marks.len().to_string()])>
                <span class="bar-name">{name}</span>
                <span class="columns">{columns}</span>
            </div>
        }
    };
    view! {
        <div class="card stage-card" id="noise">
            <label class="wish-row">
                <span>{t("How much scales differ")}</span>
                {controls.then(|| view! {
                    <input
                        type="range" min="0" max="0.6" step="0.05"
                        prop:value=move || spread.get().to_string()
                        on:input=move |ev| if let Ok(v) = event_target_value(&ev).parse() { spread.set(v) }
                    />
                })}
                <output>{move || format::percent(spread.get())}</output>
            </label>
            {move || {
                let marks = scores(seed, spread.get());
                let classes = classes(seed);
                let (by_score, by_class) = (told_apart(&marks), told_apart(&classes));
                let names: Vec<String> = objectives()[0].classes.clone();
                let [worse, better] = marks;
                let [worse_class, better_class] = classes;
                view! {
                    <h3>{t("Scores from 1 to 10")}</h3>
                    <div class="bars">{histogram(t("the worse answer"), worse, 1, 10, None, 3)}{histogram(t("the better answer"), better, 1, 10, None, 0)}</div>
                    <p>{said("Of two raters, the one with the better answer gives more in {0} of cases.", &[&format::percent(by_score)])}</p>
                    <h3>{t("Described classes")}</h3>
                    <div class="bars">
                        {histogram(t("the worse answer"), worse_class, 0, 2, Some(names.clone()), 3)}
                        {histogram(t("the better answer"), better_class, 0, 2, Some(names), 0)}
                    </div>
                    <p>{said("Here in {0} (a tie counts half).", &[&format::percent(by_class)])}</p>
                }
            }}
            <p class="hint">{t("Simulated raters, not measured: each has a scale of its own, and one in twelve misreads a class.")}</p>
        </div>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_graded_one_after_the_other_before_they_are_told() {
        assert_eq!(shown(0), (0, [None, None], false));
        assert_eq!([shown(1), shown(2)], [(0, [Some(2), None], false), (0, [Some(2), Some(1)], false)]);
        assert_eq!([shown(3), shown(5)], [(0, [Some(2), Some(1)], true); 2]);
        assert_eq!(shown(6), (1, [None, None], false));
        assert_eq!([shown(9), shown(15)], [(1, [Some(1), Some(1)], true), (2, [Some(0), Some(1)], true)]);
        assert_eq!(shown(4 * MOVES), shown(0));
    }

    #[test]
    fn scales_that_differ_hide_what_classes_show() {
        for seed in 1..6 {
            let (calm, wild) = (told_apart(&scores(seed, 0.0)), told_apart(&scores(seed, 0.6)));
            assert!((calm - 1.0).abs() < 1e-9, "{calm}");
            assert!(wild < 0.85, "seed {seed}: {wild}");
            assert!(told_apart(&classes(seed)) > 0.8, "seed {seed}");
        }
        assert_eq!(told_apart(&[vec![1, 3], vec![1, 2]]), (0.5 + 1.0 + 0.0 + 0.0) / 4.0);
    }
}
