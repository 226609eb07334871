//! Five things that somebody wants who has the page and nothing else: each is found within a few clicks, and what the page says is so.

use anyhow::{Context, Result, ensure};
use moslim_shared::config::RunConfig;
use moslim_shared::distribution::argmax;
use moslim_shared::event::{Event, EventBody, Sample};
use moslim_shared::objective::Objective;
use moslim_shared::summary::{ControlHead, RunSummary};
use moslim_tests::charts::{catch_next_file, caught, chart};
use moslim_tests::inference::{answers, generate};
use moslim_tests::{Browser, Lab, smoke};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Clicks and moves of sliders that a task may take.
const MOST_ACTIONS: usize = 6;

/// Somebody at one task, who counts what it takes.
struct Newcomer<'a> {
    browser: &'a Browser,
    task: &'static str,
    actions: usize,
}

/// The first element of a selector, or null, in JavaScript.
fn found(selector: &str) -> String {
    format!("document.querySelector({})", json!(selector))
}

impl<'a> Newcomer<'a> {
    fn wants(browser: &'a Browser, task: &'static str) -> Self {
        Self { browser, task, actions: 0 }
    }

    fn at(&self, step: &str) -> String {
        format!("to {}, they {step}", self.task)
    }

    /// Looks for something, and clicks on it.
    async fn clicks(&mut self, step: &str, on: &str) -> Result<()> {
        self.actions += 1;
        let scroll = format!("(e => e && (e.scrollIntoView({{ block: 'center', behavior: 'instant' }}), true))({})", found(on));
        let clicked = async {
            self.browser.wait(&scroll).await?;
            self.browser.click(on).await
        };
        clicked.await.with_context(|| self.at(step))
    }

    /// Moves a slider to a place.
    async fn moves(&mut self, step: &str, slider: &str, to: usize) -> Result<()> {
        self.actions += 1;
        let moved = format!(
            "(e => e && (e.value = {to}, e.dispatchEvent(new Event('input', {{ bubbles: true }})), true))({})",
            found(slider)
        );
        self.browser.wait(&moved).await.with_context(|| self.at(step)).map(|_| ())
    }

    /// Reads what is to be read, once it is there.
    async fn reads(&self, step: &str, expression: &str) -> Result<Value> {
        self.browser.wait(expression).await.with_context(|| self.at(step))
    }

    /// Reads a text in which some words stand.
    async fn reads_text(&self, step: &str, of: &str, words: &str) -> Result<String> {
        let expression = format!("(t => t?.includes({}) && t)({}?.textContent)", json!(words), found(of));
        Ok(self.reads(step, &expression).await?.as_str().context("a text")?.to_string())
    }

    /// Has what they wanted.
    fn done(self) -> Result<()> {
        println!("to {}: {} actions", self.task, self.actions);
        ensure!(self.actions <= MOST_ACTIONS, "to {} takes {} actions", self.task, self.actions);
        Ok(())
    }
}

/// The summary of a finished run.
async fn summary(lab: &Lab, run: &str) -> Result<RunSummary> {
    lab.run(run).await.summary.map(|s| *s).context("a summary")
}

/// What a verdict says of an objective.
fn obeyed(head: &ControlHead) -> String {
    let chance = 10.0 / head.matrix.len() as f64;
    format!("{} it obeys {:.0} times of 10 (by chance {chance:.0})", head.objective, 10.0 * head.hit_rate)
}

/// Starts the demo, and says whether it has worked; returns the run.
async fn start_the_demo(lab: &Lab, browser: &Browser) -> Result<String> {
    let mut they = Newcomer::wants(browser, "start the demo and see whether it worked");
    // The demo of seconds, which an address may name; that of the page takes minutes.
    browser.goto(&format!("{}/?preset=smoke", lab.origin())).await?;
    they.reads_text("read what it is", "#demo-preset", "Preset smoke").await?;
    they.clicks("press \"Start the demo\"", "#start-demo").await?;
    let path = they.reads("are led to the run", "location.pathname.startsWith('/runs/') && location.pathname").await?;
    they.reads("wait until it is finished", "document.querySelector('#run-status')?.dataset.status === 'finished'").await?;
    let verdict = they.reads_text("read the verdict", "#verdict", "On questions it never saw").await?;
    they.done()?;

    let run = path.as_str().and_then(|p| p.strip_prefix("/runs/")).context("the id of the run in the address")?.to_string();
    let heads = lab.wait_for_finish(&run).await.summary.context("a summary")?.control.policy.heads;
    let best = heads.iter().max_by(|a, b| a.hit_rate.total_cmp(&b.hit_rate)).context("an objective")?;
    ensure!(verdict.contains(&obeyed(best)), "{verdict:?} does not say \"{}\"", obeyed(best));
    Ok(run)
}

/// A cell of the matrices off the diagonal.
type Cell = (usize, usize, usize);

/// The cell off the diagonal that most answers in the journal belong to, and these, newest first, each with its step.
fn disobeyed(events: &[Event]) -> Option<(Cell, Vec<(usize, &Sample)>)> {
    let mut cells: BTreeMap<Cell, Vec<(usize, &Sample)>> = BTreeMap::new();
    for event in events.iter().rev() {
        let EventBody::Samples { step, samples, .. } = &event.body else { continue };
        for sample in samples {
            let off = |&(i, asked): &(usize, usize)| argmax(&sample.distributions[i]) != asked;
            for (i, asked) in sample.preference.asked().filter(off) {
                let cell = (i, asked, argmax(&sample.distributions[i]));
                cells.entry(cell).or_default().push((*step, sample));
            }
        }
    }
    cells.into_iter().max_by_key(|(_, answers)| answers.len())
}

/// Opens the answers behind a number beside the diagonal of the run whose page is shown, and reads one that is not what was asked for.
async fn find_what_disobeyed(lab: &Lab, browser: &Browser, run: &str) -> Result<()> {
    let events = lab.events(run).await;
    let ((objective, asked, got), behind) = disobeyed(&events).context("an answer that disobeyed")?;
    let number = format!(
        "#cockpit .minis table:nth-child({}) tbody tr:nth-child({}) td:nth-of-type({}) .cell",
        objective + 1,
        asked + 1,
        got + 1
    );
    let mut they = Newcomer::wants(browser, "find an answer that disobeyed");
    if browser.js(&found(&number)).await?.is_null() {
        // On held-out questions nothing came out so: there is no number to click on.
        let last =
            events.iter().rev().find_map(|e| if let EventBody::Policy { step, .. } = &e.body { Some(step.step) } else { None });
        let then =
            behind.iter().map(|(step, _)| *step).find(|step| Some(*step) < last).context("an answer before the last step")?;
        they.moves("go back to how it was in training", "#cockpit .scrub input", then).await?;
    }
    they.clicks("click on a number beside the diagonal", &number).await?;
    let count = they.reads_text("read how many answers are behind it", "#behind p[role=status]", "answers of training").await?;
    let read = "(c => c && { step: c.querySelector('header .num').textContent, tags: [...c.querySelectorAll('.chips code')].map(e => e.textContent), \
         question: c.querySelector('.question').textContent, answer: c.querySelector('.answer').textContent })(document.querySelector('#behind .sample'))";
    let card = they.reads("read the newest of them", read).await?;
    they.done()?;

    ensure!(count.starts_with(&format!("{} of the ", behind.len())), "{count:?} for {} answers", behind.len());
    let (step, sample) = behind[0];
    let answer = if sample.answer.is_empty() { "(empty answer)" } else { sample.answer.as_str() };
    ensure!(
        card["step"] == format!("step {step}").as_str() && card["answer"] == answer,
        "{card} is not {sample:?} of step {step}"
    );
    ensure!(card["question"] == sample.question.as_str(), "{card} is not about {:?}", sample.question);
    let tag = objectives(&events).get(objective).context("the objective")?.tag(asked);
    ensure!(card["tags"].as_array().is_some_and(|tags| tags.contains(&json!(tag))), "{card} does not ask for {tag}");
    let came = argmax(&sample.distributions[objective]);
    ensure!(sample.preference.0[objective] == Some(asked) && came == got && came != asked, "{sample:?} obeys");
    Ok(())
}

/// The objectives of a run.
fn objectives(events: &[Event]) -> &[Objective] {
    let started =
        events.iter().find_map(|e| if let EventBody::Started { objectives, .. } = &e.body { Some(objectives) } else { None });
    started.map_or(&[], Vec::as_slice)
}

/// What is to be said of two runs, called `names`: who obeys better on the whole, and where they differ most.
fn compared(names: [&str; 2], summaries: &[RunSummary; 2]) -> [String; 2] {
    let controls = [0, 1].map(|n| &summaries[n].control.policy);
    let [a, b] = controls.map(|control| control.mean_hit_rate());
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let (better, high, low) = (names[usize::from(b > a)], percent(a.max(b)), percent(a.min(b)));
    let whole = match high == low {
        true => format!("On the whole they obey alike: {high}."),
        false => format!("{better} obeys better on the whole: {high} against {low}."),
    };
    let gaps = controls[0].heads.iter().zip(&controls[1].heads).map(|(a, b)| (&a.objective, b.hit_rate - a.hit_rate));
    let widest = gaps.filter(|(_, gap)| *gap != 0.0).max_by(|x, y| x.1.abs().total_cmp(&y.1.abs()));
    let place = widest.map_or(String::new(), |(objective, gap)| {
        let ahead = names[usize::from(gap > 0.0)];
        format!("They differ most in {objective}, where {ahead} is {:.0} points ahead.", 100.0 * gap.abs())
    });
    [whole, place]
}

/// From the page of a run to the list, where two are ticked and compared.
async fn compare_two_runs(lab: &Lab, browser: &Browser, runs: [&str; 2]) -> Result<()> {
    let row = |run: &str| format!(".run-row:has(a[data-run='{run}']) input");
    let mut they = Newcomer::wants(browser, "say which of two runs obeys better, and where");
    they.clicks("go to the first page", "nav a[href='/']").await?;
    they.clicks("tick one run", &row(runs[0])).await?;
    they.clicks("tick the other", &row(runs[1])).await?;
    they.clicks("press \"Compare these 2\"", "#compare").await?;
    let said = they.reads_text("read which obeys better", "#compare-verdict", " obey").await?;
    they.done()?;

    let mut names = Vec::new();
    for run in runs {
        names.push(lab.run(run).await.title());
    }
    let summaries = [summary(lab, runs[0]).await?, summary(lab, runs[1]).await?];
    for expected in compared([&names[0], &names[1]], &summaries) {
        ensure!(said.contains(&expected), "{said:?} does not say {expected:?}");
    }
    Ok(())
}

/// From there to the playground, where an answer is asked for that is short and honest, and the page says whether it is.
async fn steer_an_answer(lab: &Lab, browser: &Browser, run: &str) -> Result<()> {
    const WISHES: [&str; 2] = ["honesty", "verbosity"];
    let events = lab.events(run).await;
    // A slider's first place asks for nothing. The best class of an objective is the honest one here, and the shortest there.
    let wishes: Vec<(usize, &Objective)> =
        objectives(&events).iter().enumerate().filter(|(_, o)| WISHES.contains(&o.id.as_str())).collect();
    let mut they = Newcomer::wants(browser, "steer an answer to \"short and honest\"");
    they.clicks("go to the playground", "nav a[href='/playground']").await?;
    they.reads("see the sliders", &format!("{} !== null", found("#ask-verbosity"))).await?;
    they.clicks("press \"Ask for nothing\"", ".bench-foot .actions > .quiet:first-child").await?;
    for (_, objective) in &wishes {
        they.moves("move a slider", &format!("#ask-{}", objective.id), objective.best_class() + 1).await?;
    }
    they.clicks("press \"Ask\"", "#ask").await?;
    they.reads("wait for the answers", "document.querySelectorAll('.lane .waterfall').length === 2").await?;
    let read = "(l => ({ column: l.dataset.column, question: document.querySelector('#question').value, answer: l.querySelector('.answer').textContent, \
         prompt: l.querySelector('.read pre').textContent, verdicts: [...l.querySelector('.verdicts').children].map(e => e.textContent) }))(document.querySelector('.lane'))";
    let lane = they.reads("read what was asked and what came", read).await?;
    they.done()?;

    let target = wishes.iter().map(|(_, o)| format!("{}={}", o.id, o.best_class())).collect::<Vec<_>>().join(",");
    let config = smoke();
    let request = json!({ "prompt": lane["question"], "target": target, "seed": 1, "temperature": config.evaluation.temperature,
        "max_new_tokens": config.policy.max_new_tokens });
    let own = lane["column"].as_str().context("who answers")?;
    ensure!(own == run, "{own} answers, and not the newest run, {run}");
    let (text, scored) = answers(&generate(lab, own, request).await).into_iter().next().context("an answer")?;
    ensure!(lane["answer"] == text.as_str() || text.is_empty(), "{} is not {text}", lane["answer"]);
    let gold = scored.gold.context("the grades of the rules")?;
    let verdict = |(i, o): &(usize, &Objective)| {
        let [asked, came] = [o.best_class(), gold[*i]].map(|class| &o.classes[class]);
        match asked == came {
            true => format!("✓ {}: {asked}, as asked", o.name),
            false => format!("✗ {}: asked {asked}, got {came}", o.name),
        }
    };
    ensure!(wishes.len() == 2 && lane["verdicts"] == json!(wishes.iter().map(verdict).collect::<Vec<_>>()), "{lane}: {gold:?}");
    let prompt = lane["prompt"].as_str().context("the prompt")?;
    ensure!(wishes.iter().all(|(_, o)| prompt.contains(&o.tag(o.best_class()))), "{prompt} does not ask for {target}");
    Ok(())
}

/// From there to the page of a run, of which a chart is saved for a paper.
async fn export_a_chart(lab: &Lab, browser: &Browser, run: &str) -> Result<()> {
    let mut they = Newcomer::wants(browser, "export a chart for a paper");
    they.clicks("go to the first page", "nav a[href='/']").await?;
    they.clicks("open the run", &format!("a.run[data-run='{run}']")).await?;
    chart(browser, "chart-learning").await?;
    catch_next_file(browser).await?;
    they.clicks("press \"Save\" below a chart", "#chart-learning .tools [aria-expanded]").await?;
    they.clicks("choose SVG", "#chart-learning [data-save=SVG]").await?;
    let svg = caught(browser).await?;
    they.done()?;

    let read = format!(
        "(read => ({{ broken: read.querySelector('parsererror')?.textContent, root: read.documentElement.localName, \
         lines: read.querySelectorAll('polyline').length, texts: [...read.querySelectorAll('text')].map(t => t.textContent.trim()) }}))\
         (new DOMParser().parseFromString({}, 'image/svg+xml'))",
        json!(svg)
    );
    let read = browser.js(&read).await?;
    ensure!(read["broken"].is_null() && read["root"] == "svg", "{read}");
    let texts: Vec<String> = serde_json::from_value(read["texts"].clone())?;
    for text in ["Is it learning?", "step", "reward"] {
        ensure!(texts.iter().any(|t| t == text), "{text:?} is not in {texts:?}");
    }
    // The legend says where the line ends.
    let events = lab.events(run).await;
    let last = events.iter().rev().find_map(|e| if let EventBody::Policy { step, .. } = &e.body { Some(step) } else { None });
    let end = format!("{:.3}", last.context("a step")?.reward.abs());
    ensure!(texts.iter().any(|t| t.contains("Reward as optimised") && t.ends_with(&end)), "no line ends at {end}: {texts:?}");
    ensure!(read["lines"].as_u64().is_some_and(|lines| lines > 0), "nothing is drawn");
    Ok(())
}

#[tokio::test]
async fn five_tasks_are_done_by_somebody_who_has_only_the_page() -> Result<()> {
    let lab = Lab::start().await;
    // Somebody else has left a run.
    let other = lab.start_run(&RunConfig { seed: 2, ..smoke() }).await;
    lab.wait_for_finish(&other).await;
    let browser = lab.browser().await?;
    browser.screen(1440, 900, "light").await?;
    let demo = start_the_demo(&lab, &browser).await?;
    find_what_disobeyed(&lab, &browser, &demo).await?;
    compare_two_runs(&lab, &browser, [&demo, &other]).await?;
    steer_an_answer(&lab, &browser, &demo).await?;
    export_a_chart(&lab, &browser, &demo).await?;
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}
