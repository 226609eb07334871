//! An answer: its text as it comes, what the graders say of it, and how its reward adds up.

use crate::parts::class_bars::class_bars;
use crate::parts::format;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::INKS;
use moslim_shared::distribution::argmax;
use moslim_shared::inference::{GenerateEvent, Reading, Scored};
use moslim_shared::mapping::MappedReward;
use moslim_shared::objective::Objective;
use moslim_shared::preference::Preference;

/// What is known of one answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Heard {
    /// The question as it was asked.
    pub question: String,
    /// What the model read, token by token.
    pub prompt: Reading,
    /// What it was asked for.
    pub preference: Preference,
    pub text: String,
    /// Its tokens, and whether it ended by itself; once it is whole.
    pub whole: Option<(usize, bool)>,
    pub scored: Option<Scored>,
    /// Seconds until something of it came, all tokens that were sampled for it, and in what time.
    pub first: Option<f64>,
    pub pace: Option<(usize, f64)>,
    pub failed: Option<String>,
}

impl Heard {
    /// Takes in what is told of answer `own`, `after` so many seconds.
    pub fn hear(&mut self, event: GenerateEvent, own: usize, after: f64) {
        match event {
            GenerateEvent::Prompt { pieces, special, context, preference, .. } => {
                (self.prompt, self.preference) = (Reading { pieces, special, context }, preference);
            }
            GenerateEvent::Text { answer, text } if answer == own => {
                self.text += &text;
                self.first = self.first.or(Some(after));
            }
            GenerateEvent::Answer { answer, text, tokens, ended, scored } if answer == own => {
                (self.text, self.whole, self.scored) = (text, Some((tokens, ended)), scored);
                self.first = self.first.or(Some(after));
            }
            GenerateEvent::Ended { tokens, seconds, .. } => self.pace = Some((tokens, seconds)),
            GenerateEvent::Failed { message } => self.failed = Some(message),
            GenerateEvent::Text { .. } | GenerateEvent::Answer { .. } => {}
        }
    }

    /// The class that it has of objective `i`: by the rules where there are some, else the likeliest.
    pub fn class(&self, i: usize) -> Option<usize> {
        let scored = self.scored.as_ref()?;
        let likeliest = || scored.distributions.get(i).map(|p| argmax(p));
        scored.gold.as_ref().and_then(|gold| gold.get(i).copied()).or_else(likeliest)
    }
}

/// An answer as a card's content. `busy`: more may come.
pub fn shown(heard: &Heard, objectives: &[Objective], busy: bool) -> impl IntoView + use<> {
    let empty = match (heard.text.is_empty(), busy) {
        (true, true) => "…",
        (true, false) if heard.whole.is_some() => t("(empty answer)"),
        _ => "",
    };
    let caret = busy && heard.whole.is_none();
    let facts = heard.whole.map(|(tokens, ended)| {
        let end = if ended { "" } else { t(", cut off at the limit") };
        let pace = heard.pace.zip(heard.first).map(|((all, seconds), first)| {
            let [first, rate] = [(first, 2), (all as f64 / seconds, 0)].map(|(value, digits)| format::number(value, digits));
            said(", {0} sampled; first word after {1} s, {2} tokens a second", &[&format::count(all as u64), &first, &rate])
        });
        let told = said("{0} tokens{1}{2}", &[&tokens.to_string(), end, &pace.unwrap_or_default()]);
        view! { <p class="hint num">{told}</p> }
    });
    let failed = heard.failed.clone().map(|message| view! { <p class="problem" role="alert">{message}</p> });
    let graded = heard.scored.as_ref().map(|scored| graded(heard, scored, objectives));
    view! {
        <p class="answer" class:caret=caret>{empty}{heard.text.clone()}</p>
        {failed}
        {facts}
        {graded}
    }
}

fn graded(heard: &Heard, scored: &Scored, objectives: &[Objective]) -> impl IntoView + use<> {
    let asked = |i: usize| heard.preference.0.get(i).copied().flatten();
    let verdicts = objectives.iter().enumerate().filter_map(|(i, o)| verdict(o, asked(i)?, heard.class(i)?)).collect_view();
    let bars = objectives
        .iter()
        .enumerate()
        .filter_map(|(i, o)| {
            let gold = scored.gold.as_ref().and_then(|gold| gold.get(i).copied());
            Some(class_bars(o, i, scored.distributions.get(i)?, asked(i), gold))
        })
        .collect_view();
    let reward = scored.reward.as_ref().map(|reward| waterfall(reward, objectives, &heard.preference));
    view! {
        <ul class="plain verdicts">{verdicts}</ul>
        <div class="bars">{bars}</div>
        <p class="hint">
            {if scored.gold.is_some() {
                t("Columns: the reward model's probabilities. ◆ asked for, ✓ what the rules say.")
            } else {
                t("Columns: the reward model's probabilities. ◆ asked for.")
            }}
        </p>
        {reward}
    }
}

/// Whether an objective was met, in words.
fn verdict(objective: &Objective, asked: usize, got: usize) -> Option<impl IntoView + use<>> {
    let name = |c: usize| objective.classes.get(c).cloned();
    let (wish, result) = (name(asked)?, name(got)?);
    let (class, text) = match asked == got {
        true => ("good", said("✓ {0}: {1}, as asked", &[&objective.name, &wish])),
        false => ("off", said("✗ {0}: asked {1}, got {2}", &[&objective.name, &wish, &result])),
    };
    Some(view! { <li class=class>{text}</li> })
}

/// Bars of a waterfall, as shares of the whole width: where each begins and how long it is.
struct Fall {
    zero: f64,
    parts: Vec<(f64, f64)>,
    /// From zero to the sum.
    total: (f64, f64),
}

impl Fall {
    fn of(contributions: &[f64]) -> Self {
        let mut sums = vec![0.0];
        for c in contributions {
            sums.push(sums[sums.len() - 1] + c);
        }
        let low = sums.iter().copied().fold(0.0, f64::min);
        let span = (sums.iter().copied().fold(0.0, f64::max) - low).max(1e-9);
        let bar = |a: f64, b: f64| ((a.min(b) - low) / span, (a - b).abs() / span);
        let parts = sums.windows(2).map(|w| bar(w[0], w[1])).collect();
        Self { zero: -low / span, parts, total: bar(0.0, sums[sums.len() - 1]) }
    }

    fn bar(&self, (from, length): (f64, f64), ink: &str) -> impl IntoView + use<> {
        let percent = |share: f64| format!("{:.2}%", share * 100.0);
        view! {
            <td class="fall">
                <span class="zero" style:left=percent(self.zero)></span>
                <span class="fall-bar" style:left=percent(from) style:width=percent(length) style:background=ink.to_string()></span>
            </td>
        }
    }
}

/// The reward, objective by objective.
fn waterfall(reward: &MappedReward, objectives: &[Objective], preference: &Preference) -> impl IntoView + use<> {
    let fall = Fall::of(&reward.contributions);
    let asked = |i: usize| preference.0.get(i).is_some_and(Option::is_some);
    let rows = objectives
        .iter()
        .enumerate()
        .filter(|(i, _)| asked(*i))
        .filter_map(|(i, o)| {
            let bar = fall.bar(*fall.parts.get(i)?, &format!("var(--obj-{})", i % INKS));
            let value = format::signed(*reward.contributions.get(i)?, 2);
            Some(view! { <tr><th scope="row">{o.name.clone()}</th>{bar}<td class="num">{value}</td></tr> })
        })
        .collect_view();
    let total = fall.bar(fall.total, "var(--chart-strong)");
    view! {
        <table class="waterfall">
            <caption class="hint">{t("How the reward adds up: each bar begins where the one above it ends")}</caption>
            <tbody>
                {rows}
                <tr class="total"><th scope="row">{t("Reward")}</th>{total}<td class="num">{format::signed(reward.scalar, 2)}</td></tr>
            </tbody>
        </table>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waterfall_goes_down_and_up_from_zero() {
        let fall = Fall::of(&[1.0, -3.0, 1.0]);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        // From −2 to 1: zero is at two thirds.
        close(fall.zero, 2.0 / 3.0);
        let expected = [(2.0 / 3.0, 1.0 / 3.0), (0.0, 1.0), (0.0, 1.0 / 3.0), (1.0 / 3.0, 1.0 / 3.0)];
        for ((from, length), (f, l)) in fall.parts.iter().chain([&fall.total]).zip(expected) {
            close(*from, f);
            close(*length, l);
        }
    }

    #[test]
    fn pieces_become_the_answer_and_the_end_says_what_it_is() {
        let mut heard = Heard::default();
        let text = |answer, text: &str| GenerateEvent::Text { answer, text: text.into() };
        for event in [text(0, "Boil "), text(1, "No."), text(0, "water.")] {
            heard.hear(event, 0, 0.5);
        }
        assert_eq!((heard.text.as_str(), heard.whole), ("Boil water.", None));
        let scored = Scored { distributions: vec![vec![0.2, 0.8], vec![0.6, 0.4]], reward: None, gold: None };
        let answer = |scored| GenerateEvent::Answer { answer: 0, text: "Boil.".into(), tokens: 3, ended: true, scored };
        heard.hear(answer(Some(scored.clone())), 0, 2.0);
        assert_eq!(
            (heard.text.as_str(), heard.whole, heard.class(0), heard.class(1), heard.first),
            ("Boil.", Some((3, true)), Some(1), Some(0), Some(0.5))
        );
        heard.hear(answer(Some(Scored { gold: Some(vec![0, 1]), ..scored })), 0, 2.0);
        assert_eq!((heard.class(0), heard.class(1), heard.class(2)), (Some(0), Some(1), None));
    }
}
