//! Rough treatment: the server is killed under every page and comes back, a run and a draft are open in two tabs, a page is loaded anew and
//! cut off in the middle, and the keyboard is all that there is. Nothing is lost, and nothing is said that people do not understand.

use anyhow::{Context, Result, bail, ensure};
use moslim_shared::study::{Axis, StudyConfig};
use moslim_tests::charts::chart;
use moslim_tests::pages::{Page, pages};
use moslim_tests::studies::study_folder;
use moslim_tests::{Browser, FLAT, Key, Lab, Place, Process, hold, lines, long_run, policy_steps, record, smoke, text};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

const STATUS: &str = "document.querySelector('#run-status')?.dataset.status";
const CONNECTION: &str = "document.querySelector('#connection')?.dataset.connection";
const TWO_RUNS: &str = "document.querySelectorAll('#runs .run-row').length > 1";
const STARTABLE: &str = "document.querySelector('#start-run')?.disabled === false";
const DRAFT: &str = "document.querySelector('#draft')?.classList.contains('gone') === false";

/// Iterations of the finished runs.
const ITERATIONS: [usize; 2] = [8, 9];
/// What a page does not come to in this time it does not come to: the slowest looks every four seconds.
const SOON: Duration = Duration::from_secs(20);
/// Words that are meant for programmers, in a page's text.
const RAW: &str = r"/TypeError|Failed to fetch|NetworkError|JsValue|\[object|undefined|panicked|RuntimeError|net::|ERR_/.exec(document.body.innerText)?.[0]";
/// Rows of a chart's table at most.
const MOST_ROWS: usize = 5_000;

/// Stops of the key Tab that are looked at on every page.
const STOPS: usize = 40;
/// Who goes on visits more elements than this.
const FEW: usize = 5;
/// Stops between two places of a page at most.
const MOST_STOPS: usize = 400;

/// A condition: a run is followed.
fn live() -> String {
    format!("{CONNECTION} === 'live' && {STATUS} === 'running'")
}

/// A condition: a place of the page says, for people, that the server does not answer.
fn unanswered(within: &str) -> String {
    format!(
        "[...document.querySelectorAll({})].some(e => e.checkVisibility() && e.textContent.includes('did not answer'))",
        json!(within)
    )
}

/// A condition: a field holds a text.
fn holds(field: &str, typed: &str) -> String {
    format!("document.querySelector({})?.value === {}", json!(field), json!(typed))
}

/// The last step that a chart tells of, in JavaScript.
fn last_step(chart: &str) -> String {
    format!(r"Number(document.querySelector('#{chart} canvas')?.getAttribute('aria-label')?.match(/step (\d+)/)?.[1] ?? 0)")
}

/// Looks for something, and clicks on it.
async fn click(browser: &Browser, selector: &str) -> Result<()> {
    let scroll = format!(
        "(e => e && (e.scrollIntoView({{ block: 'center', behavior: 'instant' }}), true))(document.querySelector({}))",
        json!(selector)
    );
    browser.wait(&scroll).await?;
    browser.click(selector).await
}

/// Gives a run a name on its page.
async fn name_it(browser: &Browser, name: &str) -> Result<()> {
    browser.fill("#about-name", name).await?;
    click(browser, "#about button").await?;
    browser.wait(&named(name)).await.map(|_| ())
}

/// A condition: the run that is shown has a name.
fn named(name: &str) -> String {
    format!("document.querySelector('#run-name')?.textContent === {}", json!(name))
}

/// Asks a run to end, and waits until it has.
async fn cancel(lab: &Lab, run: &str) -> Result<()> {
    let answer = lab.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await;
    ensure!(answer.status == 202, "{}", answer.body);
    lab.wait_for_end(run).await;
    Ok(())
}

/// What broke, and where; the rest is tried all the same.
#[derive(Default)]
struct Report(String);

impl Report {
    fn take<T>(&mut self, place: &str, outcome: Result<T>) {
        if let Err(error) = outcome {
            // Writing to a string does not fail.
            let _ = writeln!(self.0, "\n{place}: {error:#}");
        }
    }

    fn check(self) -> Result<()> {
        ensure!(self.0.is_empty(), "{}", self.0);
        Ok(())
    }
}

/// A lab with two finished runs and a study, and somebody who looks at it.
struct Stage {
    lab: Lab,
    browser: Browser,
    runs: [String; 2],
    study: String,
    /// Whether the server is there.
    up: bool,
}

impl Stage {
    async fn start() -> Result<Self> {
        let lab = Lab::start().await;
        let mut runs = [String::new(), String::new()];
        for (run, iterations) in runs.iter_mut().zip(ITERATIONS) {
            *run = lab.start_run(&long_run(iterations)).await;
            lab.wait_for_finish(run).await;
        }
        // The same stages before the policy as theirs, which lie in the cache.
        let base = long_run(ITERATIONS[0]);
        let axes = vec![Axis::field("iterations", "policy.iterations", &ITERATIONS.map(|n| json!(n)))];
        let seeds = vec![base.seed];
        let config = StudyConfig { name: "Two lengths".into(), question: String::new(), base, axes, seeds };
        let place = Place::new();
        let file = place.file("study.json", serde_json::to_vec(&config)?);
        let output = Process::lab(&["study", "--json", "--config", &file, "--data", text(lab.data())]).wait();
        ensure!(output.code == Some(0), "{}", output.stderr);
        let folder = study_folder(lab.data()).context("the folder of the study")?;
        let study = folder.file_name().and_then(|name| name.to_str()).context("its name")?.to_string();
        let browser = lab.browser().await?;
        browser.screen(1280, 900, "light").await?;
        Ok(Self { lab, browser, runs, study, up: true })
    }

    /// Opens a page while the server is there.
    async fn open(&mut self, path: &str, there: &str) -> Result<()> {
        self.comes_back().await;
        self.browser.goto(&format!("{}{path}", self.lab.origin())).await?;
        self.browser.wait(there).await?;
        Ok(())
    }

    /// The server goes, without a word.
    async fn goes(&mut self) -> Result<()> {
        self.quiet().await?;
        self.lab.kill();
        self.up = false;
        Ok(())
    }

    /// The server is there again, at the same place.
    async fn comes_back(&mut self) {
        if !self.up {
            self.lab.restart().await;
            self.up = true;
        }
    }

    /// The page comes to something by itself.
    async fn soon(&self, expression: &str) -> Result<()> {
        self.browser.wait_at_most(SOON, expression).await.map(|_| ())
    }

    /// A place of the page says that the server does not answer, and the page says nothing that is meant for programmers.
    async fn told(&self, within: &str) -> Result<()> {
        self.soon(&unanswered(within)).await?;
        let raw = self.browser.js(RAW).await?;
        ensure!(raw.is_null(), "the page says {raw}");
        Ok(())
    }

    /// What a person sees is so at this moment.
    async fn sees(&self, expression: &str) -> Result<()> {
        ensure!(self.browser.js(expression).await? == true, "it is not so that {expression}");
        Ok(())
    }

    /// Whether the browser has noted a server that is away. Nothing else may be on the console.
    async fn noted(&self) -> Result<bool> {
        let network = |error: &String| error.contains("net::ERR_") || error.contains("WebSocket connection to ");
        let (own, others): (Vec<String>, Vec<String>) = self.browser.errors().await?.into_iter().partition(network);
        ensure!(others.is_empty(), "the console has {others:?}");
        Ok(!own.is_empty())
    }

    async fn quiet(&self) -> Result<()> {
        self.noted().await.map(|_| ())
    }

    /// Waits until the page has asked a server that is away.
    async fn noticed(&self) -> Result<()> {
        let began = Instant::now();
        while !self.noted().await? {
            ensure!(began.elapsed() < SOON, "the page does not ask for its server");
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        Ok(())
    }

    async fn click(&self, selector: &str) -> Result<()> {
        click(&self.browser, selector).await
    }

    /// Presses "Try again" in a place, where it has to be offered.
    async fn try_again(&self, within: &str) -> Result<()> {
        let button = format!("[...document.querySelectorAll({})]", json!(format!("{within} button")));
        let pressed = format!("(b => !!b && (b.click(), true))({button}.find(b => b.textContent.trim() === 'Try again'))");
        ensure!(self.browser.js(&pressed).await? == true, "{within} offers nothing to try again");
        Ok(())
    }

    /// The run that was started on the page; it is cancelled.
    async fn started(&self) -> Result<String> {
        let id = self.browser.wait("location.pathname.startsWith('/runs/') && location.pathname.slice(6)").await?;
        let id = id.as_str().context("the id of the run in the address")?.to_string();
        cancel(&self.lab, &id).await?;
        Ok(id)
    }
}

/// Pages that are open when the server goes.
impl Stage {
    async fn home(&mut self) -> Result<()> {
        self.open("/?preset=smoke", TWO_RUNS).await?;
        self.browser.fill("#filter", "seed>0").await?;
        self.browser.wait(&format!("location.search.includes('filter=') && {TWO_RUNS}")).await?;
        self.click("#runs input[type=checkbox]").await?;
        self.browser.wait("document.querySelector('.ticked:not(.gone)') !== null").await?;
        self.goes().await?;
        self.told("#runs [role=alert]").await?;
        self.click("#start-demo").await?;
        self.told(".hero [role=alert]").await?;
        self.comes_back().await;
        // The list looks again by itself, and knows what was wanted of it.
        let ticked = "document.querySelectorAll('#runs input:checked').length === 1";
        self.soon(&format!("{TWO_RUNS} && {ticked} && {}", holds("#filter", "seed>0"))).await?;
        self.click("#start-demo").await?;
        self.started().await?;
        self.quiet().await
    }

    async fn run_in_training(&mut self, run: &str) -> Result<()> {
        let step = last_step("chart-learning");
        self.open(&format!("/runs/{run}"), &format!("{} && {step} > 0", live())).await?;
        self.browser.fill("#about-name", "Half a na").await?;
        let before = self.browser.js(&step).await?;
        self.goes().await?;
        let words = "document.querySelector('#connection').checkVisibility() && document.querySelector('#connection').textContent === 'reconnecting'";
        self.soon(words).await?;
        self.click("#checkpoint").await?;
        self.told(".live [role=alert]").await?;
        self.sees(&format!("{step} >= {before}")).await?;
        self.comes_back().await;
        // It is followed from where it was.
        self.soon(&format!("{} && {step} > {before}", live())).await?;
        self.sees(&holds("#about-name", "Half a na")).await?;
        self.click("#checkpoint").await?;
        self.soon(&format!("!{}", unanswered(".live [role=alert]"))).await?;
        self.quiet().await
    }

    async fn finished_run(&mut self) -> Result<()> {
        const MATRICES: &str = "document.querySelectorAll('table.matrix').length";
        const NAME: &str = "Named while nobody heard";
        let path = format!("/runs/{}", self.runs[0]);
        self.open(&path, &format!("{STATUS} === 'finished' && {MATRICES} > 3")).await?;
        let matrices = self.browser.js(MATRICES).await?;
        self.browser.fill("#about-name", NAME).await?;
        self.goes().await?;
        self.click("#about button").await?;
        self.told("#about .note").await?;
        self.sees(&format!("{MATRICES} === {matrices} && {}", holds("#about-name", NAME))).await?;
        self.comes_back().await;
        self.click("#about button").await?;
        self.soon(&format!("{} && {MATRICES} === {matrices}", named(NAME))).await?;
        self.quiet().await
    }

    /// Somebody else names a finished run after the server was away.
    async fn finished_run_is_followed(&mut self) -> Result<()> {
        const NAME: &str = "Named elsewhere";
        let path = format!("/runs/{}", self.runs[1]);
        self.open(&path, &format!("{STATUS} === 'finished' && {CONNECTION} === 'live'")).await?;
        self.goes().await?;
        self.soon(&format!("{CONNECTION} !== 'live'")).await?;
        self.comes_back().await;
        let request = self.lab.request(Method::PUT, &format!("/api/v1{path}/about"));
        let answer = self.lab.send(request.header("origin", self.lab.origin()).json(&json!({ "name": NAME }))).await;
        ensure!(answer.status == 200, "{}", answer.body);
        self.soon(&named(NAME)).await?;
        self.quiet().await
    }

    async fn studies(&mut self) -> Result<()> {
        const CHOSEN: &str = "[data-study-preset='optimisers']";
        let there = "document.querySelector('#studies a.study') !== null";
        self.open("/studies", &format!("{there} && document.querySelector(\"{CHOSEN}\") !== null")).await?;
        self.browser.fill("#study-seeds", "4, 5").await?;
        self.click(CHOSEN).await?;
        self.goes().await?;
        self.told("#studies [role=alert]").await?;
        self.click("#start-study").await?;
        self.told(".study-form [role=alert]").await?;
        self.comes_back().await;
        let pressed = format!("document.querySelector(\"{CHOSEN}\").getAttribute('aria-pressed') === 'true'");
        self.soon(&format!("{there} && {pressed} && {}", holds("#study-seeds", "4, 5"))).await?;
        self.sees("document.querySelector('#start-study').disabled === false").await?;
        self.quiet().await
    }

    /// A study that somebody works on.
    async fn study(&mut self) -> Result<()> {
        let _works = hold(&study_folder(self.lab.data()).context("the folder of the study")?)?;
        let rows = "document.querySelectorAll('#comparison tbody tr').length === 2";
        let runs = "document.querySelector('#study-status')?.dataset.status === 'running'";
        self.open(&format!("/studies/{}", self.study), &format!("{rows} && {runs}")).await?;
        self.goes().await?;
        self.told(".study-page [role=alert]").await?;
        self.sees(rows).await?;
        self.comes_back().await;
        self.soon(&format!("{rows} && {runs} && !{}", unanswered(".study-page [role=alert]"))).await?;
        self.quiet().await
    }

    /// Two finished runs beside one in training.
    async fn open_compared(&mut self, running: &str) -> Result<String> {
        let [one, other] = self.runs.clone();
        let step = last_step("chart-obedience");
        let chips =
            "document.querySelectorAll('.chosen .chip').length === 3 && document.querySelector('.comparison tbody tr') !== null";
        self.open(&format!("/compare?runs={one},{other},{running}"), &format!("{chips} && {step} > {}", ITERATIONS[1])).await?;
        Ok(step)
    }

    async fn compare(&mut self, running: &str) -> Result<()> {
        let step = self.open_compared(running).await?;
        let figures = "[...document.querySelectorAll('.comparison tbody tr')].map(r => r.textContent).join()";
        let (before, shown) = (self.browser.js(&step).await?, self.browser.js(figures).await?);
        self.goes().await?;
        self.noticed().await?;
        self.sees(&format!("{figures} === {shown} && {RAW} === undefined")).await?;
        self.comes_back().await;
        self.soon(&format!("{step} > {before}")).await?;
        self.quiet().await
    }

    /// Figures of a run in training stand still while the server is away: the page says why.
    async fn compare_says_so(&mut self, running: &str) -> Result<()> {
        self.open_compared(running).await?;
        self.goes().await?;
        self.soon("/did not answer|reconnecting/.test(document.querySelector('main').innerText)").await
    }

    async fn playground(&mut self) -> Result<()> {
        const QUESTION: &str = "Is this question still here?";
        let run = self.runs[0].clone();
        let lanes = "document.querySelectorAll('.lane').length === 2 && document.querySelector('#ask-verbosity') !== null";
        self.open(&format!("/playground?in={run},{run}:start"), lanes).await?;
        self.browser.fill("#question", QUESTION).await?;
        self.goes().await?;
        self.click("#ask").await?;
        for lane in [".lane:first-of-type [role=alert]", ".lane:last-of-type [role=alert]"] {
            self.told(lane).await?;
        }
        self.sees(&holds("#question", QUESTION)).await?;
        self.comes_back().await;
        self.click("#ask").await?;
        self.browser.wait("document.querySelectorAll('.lane .waterfall').length === 2").await?;
        self.sees(&holds("#question", QUESTION)).await?;
        self.quiet().await
    }

    async fn configure(&mut self) -> Result<()> {
        const NAME: &str = "Kept through it";
        const SAMPLES: &str = "#field-policy-samples_per_prompt";
        let kept = format!("{} && {}", holds("#field-name", NAME), holds(SAMPLES, "6"));
        let ready = format!("{STARTABLE} && document.querySelector('#objective-honesty') !== null");
        self.open("/configure?preset=smoke", &ready).await?;
        self.browser.fill("#field-name", NAME).await?;
        self.browser.fill(SAMPLES, "6").await?;
        self.browser.wait(&format!("{STARTABLE} && document.querySelectorAll('#changes li').length === 2")).await?;
        self.goes().await?;
        self.click("#start-run").await?;
        self.told("#start [role=alert]").await?;
        self.sees(&format!("{kept} && {STARTABLE}")).await?;
        self.comes_back().await;
        self.sees(&kept).await?;
        self.click("#start-run").await?;
        let config = self.lab.run(&self.started().await?).await.config;
        ensure!(config.name == NAME && config.policy.samples_per_prompt == 6, "{config:?} is not what was typed");
        self.open("/configure", &format!("{kept} && {DRAFT}")).await?;
        self.quiet().await
    }

    /// A file of ratings on its way to a task.
    async fn data(&mut self) -> Result<()> {
        let place = Place::new();
        let file = place.file("tea.jsonl", lines((0..240).map(record)));
        self.open("/data", "document.querySelector('#import') !== null").await?;
        self.goes().await?;
        self.browser.choose("#ratings-file", &file).await?;
        self.told("#import-refused").await?;
        self.comes_back().await;
        self.browser.choose("#ratings-file", &file).await?;
        self.browser.wait("document.querySelector('#mapping')?.value.includes('[[objectives]]')").await?;
        self.browser.fill("#task-name", "kept-name").await?;
        self.browser.fill("#mapping", FLAT).await?;
        let kept = format!("{} && {}", holds("#task-name", "kept-name"), holds("#mapping", FLAT));
        self.goes().await?;
        self.click("#try-import").await?;
        self.told("#import-refused").await?;
        self.sees(&kept).await?;
        self.comes_back().await;
        self.click("#try-import").await?;
        self.browser.wait("document.querySelectorAll('#preview .rated-row').length === 10").await?;
        self.sees(&kept).await?;
        self.quiet().await
    }
}

#[tokio::test]
async fn every_open_page_outlives_its_server() -> Result<()> {
    let mut stage = Stage::start().await?;
    let mut report = Report::default();
    let running = stage.lab.start_run(&long_run(5_000)).await;
    stage.lab.wait_for_policy(&running, ITERATIONS[1] + 1).await;
    report.take("a run in training", stage.run_in_training(&running).await);
    report.take("compare", stage.compare(&running).await);
    report.take("compare, in words", stage.compare_says_so(&running).await);
    stage.comes_back().await;
    cancel(&stage.lab, &running).await?;
    report.take("a finished run", stage.finished_run().await);
    report.take("a finished run that is named elsewhere", stage.finished_run_is_followed().await);
    report.take("home", stage.home().await);
    report.take("studies", stage.studies().await);
    report.take("a study", stage.study().await);
    report.take("playground", stage.playground().await);
    report.take("configure", stage.configure().await);
    report.take("data", stage.data().await);
    stage.browser.quit().await?;
    report.check()
}

/// Pages that one comes to while the server is away, from one that needs none.
impl Stage {
    /// Follows a link of the page's head, with the server gone.
    async fn away(&mut self, link: &str) -> Result<()> {
        self.open("/learn", "document.querySelectorAll('.station').length === 7").await?;
        self.goes().await?;
        self.browser.click(&format!("nav a[href='{link}']")).await?;
        self.browser.wait(&format!("location.pathname === '{link}'")).await.map(|_| ())
    }

    /// Goes back to a page that was left for another, with the server gone.
    async fn back(&mut self, path: &str, there: &str) -> Result<()> {
        self.open(path, there).await?;
        self.browser.click("nav a[href='/learn']").await?;
        self.browser.wait("document.querySelectorAll('.station').length === 7").await?;
        self.goes().await?;
        self.browser.js("history.back()").await?;
        self.browser.wait(&format!("location.pathname === '{path}'")).await.map(|_| ())
    }

    /// A list that is asked for once.
    async fn list(&mut self, link: &str, section: &str) -> Result<()> {
        self.away(link).await?;
        self.told(&format!("{section} [role=alert]")).await?;
        self.comes_back().await;
        self.try_again(section).await?;
        self.soon(&format!("document.querySelector('{section} .runs, {section} .empty') !== null")).await?;
        self.quiet().await
    }

    async fn home_away(&mut self) -> Result<()> {
        self.away("/").await?;
        self.told("#runs [role=alert]").await?;
        self.comes_back().await;
        self.soon(TWO_RUNS).await?;
        self.quiet().await
    }

    async fn studies_away(&mut self) -> Result<()> {
        self.away("/studies").await?;
        self.told(".presets [role=alert]").await?;
        self.comes_back().await;
        self.soon("document.querySelector('#studies a.study') !== null").await?;
        self.try_again(".presets").await?;
        self.soon(
            "document.querySelector('[data-study-preset]') !== null && document.querySelector('#start-study').disabled === false",
        )
        .await?;
        // Runs are finished here, so how long it takes is known.
        self.soon("document.querySelector('#study-size').textContent.includes('judging by')").await?;
        self.quiet().await
    }

    async fn configure_away(&mut self) -> Result<()> {
        self.away("/configure").await?;
        self.told(".form [role=alert]").await?;
        self.comes_back().await;
        self.try_again(".form").await?;
        self.soon(&format!("{STARTABLE} && document.querySelector('#objective-honesty') !== null")).await?;
        self.soon("document.querySelector('#estimate').textContent.includes('judging by')").await?;
        self.quiet().await
    }

    async fn compare_away(&mut self) -> Result<()> {
        self.away("/compare").await?;
        self.told("main").await?;
        // It asks again by itself.
        self.comes_back().await;
        self.soon("document.querySelectorAll('#add-run option').length > 2").await?;
        self.quiet().await
    }

    async fn playground_away(&mut self) -> Result<()> {
        self.away("/playground").await?;
        self.told(".playground").await?;
        self.sees("!document.querySelector('.playground').textContent.includes('No run is finished yet')").await?;
        // It asks again by itself.
        self.comes_back().await;
        self.soon("document.querySelectorAll('.lane').length === 2").await?;
        self.quiet().await
    }

    async fn run_away(&mut self) -> Result<()> {
        let there = format!("{STATUS} === 'finished' && document.querySelectorAll('table.matrix').length > 3");
        let path = format!("/runs/{}", self.runs[0]);
        self.back(&path, &there).await?;
        self.soon(&format!(
            "document.querySelector('#run-status').textContent === 'waiting for the server' && {CONNECTION} === 'reconnecting'"
        ))
        .await?;
        self.comes_back().await;
        self.soon(&there).await?;
        self.quiet().await
    }

    async fn study_away(&mut self) -> Result<()> {
        let there = "document.querySelectorAll('#comparison tbody tr').length === 2";
        let path = format!("/studies/{}", self.study);
        self.back(&path, there).await?;
        self.told(".study-page [role=alert]").await?;
        self.comes_back().await;
        self.try_again(".study-page").await?;
        self.soon(there).await?;
        self.quiet().await
    }
}

#[tokio::test]
async fn a_page_that_is_opened_while_the_server_is_away_is_whole_when_it_is_back() -> Result<()> {
    let mut stage = Stage::start().await?;
    let mut report = Report::default();
    report.take("home", stage.home_away().await);
    report.take("data", stage.list("/data", "#tasks").await);
    report.take("models", stage.list("/models", "#models").await);
    report.take("studies", stage.studies_away().await);
    report.take("configure", stage.configure_away().await);
    report.take("compare", stage.compare_away().await);
    report.take("playground", stage.playground_away().await);
    report.take("a run", stage.run_away().await);
    report.take("a study", stage.study_away().await);
    stage.browser.quit().await?;
    report.check()
}

/// Whoever loads a run's page anew, is cut off, and looks in two tabs sees every step once, and what was done in the other tab.
#[tokio::test]
async fn a_run_is_followed_through_reloads_and_cuts_and_in_two_tabs() -> Result<()> {
    const CHART: &str = "chart-learning";
    let mut lab = Lab::start().await;
    let run = lab.start_run(&long_run(5_000)).await;
    let browser = lab.browser().await?;
    let page = format!("{}/runs/{run}", lab.origin());
    browser.goto(&page).await?;
    for n in 1..=3 {
        lab.wait_for_policy(&run, 5 * n).await;
        browser.reload().await?;
        browser.wait(&live()).await?;
        lab.kill();
        browser.wait(&format!("{CONNECTION} === 'reconnecting'")).await?;
        lab.restart().await;
        browser.wait(&live()).await?;
    }
    let first = browser.tab().await?;
    let second = browser.new_tab().await?;
    browser.goto(&page).await?;
    browser.wait(&live()).await?;

    browser.turn_to(&first).await?;
    name_it(&browser, "Seen in both").await?;
    browser.turn_to(&second).await?;
    browser.wait(&named("Seen in both")).await?;
    browser.wait(&holds("#about-name", "Seen in both")).await?;
    click(&browser, "#cancel").await?;
    for tab in [&second, &first] {
        browser.turn_to(tab).await?;
        browser
            .wait(&format!("{STATUS} === 'cancelled' && document.querySelector('#cancel').classList.contains('gone')"))
            .await?;
    }

    lab.wait_for_end(&run).await;
    let steps = policy_steps(&lab.events(&run).await);
    ensure!(steps.len() > 15, "{steps:?}");
    for tab in [&first, &second] {
        browser.turn_to(tab).await?;
        chart(&browser, CHART).await?;
        browser.js(&format!("document.querySelector('#{CHART} canvas').focus()")).await?;
        browser.press('t').await?;
        let rows = format!("document.querySelectorAll('#{CHART} .data tbody tr').length");
        browser.wait(&format!("{rows} === {}", steps.len().min(MOST_ROWS))).await?;
        let shown = format!("[...document.querySelectorAll('#{CHART} .data tbody th')].map(e => Number(e.textContent))");
        let shown: Vec<f64> = serde_json::from_value(browser.js(&shown).await?)?;
        let expected: Vec<f64> = steps.iter().take(MOST_ROWS).map(|&step| step as f64).collect();
        ensure!(shown == expected, "the table has steps {shown:?}, the journal {steps:?}");
    }
    browser.quit().await
}

/// Somebody writes tags in one tab while a name is given in the other; both are kept.
#[tokio::test]
async fn what_two_tabs_say_of_a_run_is_kept_together() -> Result<()> {
    let lab = Lab::start().await;
    let run = lab.start_run(&long_run(ITERATIONS[0])).await;
    lab.wait_for_finish(&run).await;
    let browser = lab.browser().await?;
    let page = format!("{}/runs/{run}", lab.origin());
    let known = "document.querySelector('#about:not(.gone)') !== null";
    browser.goto(&page).await?;
    browser.wait(known).await?;
    let first = browser.tab().await?;
    let second = browser.new_tab().await?;
    browser.goto(&page).await?;
    browser.wait(known).await?;
    browser.fill("#about-tags", "thesis").await?;
    browser.turn_to(&first).await?;
    name_it(&browser, "The better one").await?;
    browser.turn_to(&second).await?;
    browser.wait(&named("The better one")).await?;
    browser.wait(&holds("#about-tags", "thesis")).await?;
    click(&browser, "#about button").await?;
    browser.wait("document.querySelector('#about .note').textContent === 'Kept.'").await?;
    let about = lab.run(&run).await.about;
    ensure!(about.name == "The better one" && about.tags == ["thesis"], "{about:?}");
    browser.quit().await
}

/// The page says that what was changed when one was last here is filled in again. Another tab does not take it away.
#[tokio::test]
async fn a_draft_in_one_tab_leaves_that_in_the_other() -> Result<()> {
    const NAME: &str = "Of the first tab";
    let lab = Lab::start().await;
    let browser = lab.browser().await?;
    let form = format!("{}/configure", lab.origin());
    let named = holds("#field-name", NAME);
    let changed = |what: &str| format!("document.querySelector('#changes')?.textContent.includes('{what}')");
    browser.goto(&form).await?;
    browser.wait(STARTABLE).await?;
    browser.fill("#field-name", NAME).await?;
    browser.wait(&changed(NAME)).await?;
    let first = browser.tab().await?;
    let second = browser.new_tab().await?;
    browser.goto(&form).await?;
    browser.wait(&format!("{DRAFT} && {named}")).await?;
    browser.fill("#field-seed", "77").await?;
    browser.wait(&changed("seed")).await?;
    browser.turn_to(&first).await?;
    let own = format!("{named} && document.querySelector('#field-seed').value !== '77'");
    ensure!(browser.js(&own).await? == true, "what is typed in one tab changes what is typed in the other");
    browser.reload().await?;
    browser.wait(&format!("{DRAFT} && {named}")).await?;

    let mut report = Report::default();
    browser.turn_to(&second).await?;
    browser.goto(&format!("{form}?preset=smoke")).await?;
    browser.wait(STARTABLE).await?;
    browser.turn_to(&first).await?;
    browser.reload().await?;
    browser.wait(STARTABLE).await?;
    let kept = browser.wait_at_most(SOON, &format!("{DRAFT} && {named}")).await;
    report.take("a preset that was looked at in the other tab", kept);

    browser.fill("#field-name", NAME).await?;
    browser.wait(&changed(NAME)).await?;
    browser.turn_to(&second).await?;
    browser.reload().await?;
    browser.wait(STARTABLE).await?;
    browser.fill("#field-name", "Of the second tab").await?;
    browser.wait(&changed("Of the second tab")).await?;
    browser.turn_to(&first).await?;
    browser.reload().await?;
    browser.wait(STARTABLE).await?;
    report.take("another draft in the other tab", browser.wait_at_most(SOON, &format!("{DRAFT} && {named}")).await);
    browser.quit().await?;
    report.check()
}

/// What has the keyboard's focus: a number of its own on the page, its name, and whether it is seen to have it. Nothing between the end of
/// the page and its beginning.
const FOCUS: &str = "(() => { const e = document.activeElement; if (!e || e === document.body) return null; \
    const all = window.stops_seen ??= []; if (!all.includes(e)) all.push(e); \
    const shown = e.classList.contains('visually-hidden') ? e.labels[0] : e; \
    const style = getComputedStyle(shown), box = shown.getBoundingClientRect(); \
    const name = e.localName + (e.id && '#' + e.id) + [...e.classList].map(c => '.' + c).join(''); \
    return { stop: all.indexOf(e), name, outlined: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1, \
        within: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth }; })()";

/// Where the key Tab stops.
#[derive(Debug, Deserialize)]
struct Stop {
    stop: usize,
    name: String,
    outlined: bool,
    within: bool,
}

impl Stop {
    fn is_seen(&self) -> bool {
        self.outlined && self.within
    }
}

/// What has the focus now.
async fn focus(browser: &Browser) -> Result<Option<Stop>> {
    Ok(serde_json::from_value(browser.js(FOCUS).await?)?)
}

/// Presses Tab until an element has the focus.
async fn walk(browser: &Browser, to: &str) -> Result<()> {
    let there = format!("document.activeElement.matches({})", json!(to));
    for _ in 0..MOST_STOPS {
        if browser.js(&there).await? == true {
            let stop = focus(browser).await?.context("the focus")?;
            ensure!(stop.is_seen(), "one does not see that {to} has the focus: {stop:?}");
            return Ok(());
        }
        browser.press(Key::Tab).await?;
    }
    bail!("{MOST_STOPS} times Tab does not lead to {to}")
}

/// Goes to it, and presses Enter.
async fn enter(browser: &Browser, at: &str) -> Result<()> {
    walk(browser, at).await?;
    browser.press(Key::Enter).await
}

/// Looks at every step of a chart, there and back, with the arrow keys.
async fn read_chart(browser: &Browser, id: &str, steps: &[usize]) -> Result<()> {
    let looked = |step: &usize| format!("document.querySelector('#{id} .legend li:last-child').textContent === 'step {step}'");
    browser.wait(&format!("document.querySelector('#{id} canvas:not(.gone)') !== null")).await?;
    walk(browser, &format!("#{id} canvas")).await?;
    browser.press(Key::Home).await?;
    for step in steps {
        browser.wait(&looked(step)).await?;
        browser.press(Key::Right).await?;
    }
    // Nothing comes after the last one.
    browser.wait(&looked(steps.last().context("a step")?)).await?;
    for step in steps.iter().rev().skip(1) {
        browser.press(Key::Left).await?;
        browser.wait(&looked(step)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_demo_is_started_read_and_cancelled_by_keys_alone() -> Result<()> {
    let lab = Lab::start().await;
    let browser = lab.browser().await?;
    browser.screen(1280, 900, "light").await?;
    browser.keep_focus().await?;
    browser.goto(&format!("{}/?preset={}", lab.origin(), smoke().preset)).await?;
    browser.wait("document.querySelector('#demo-preset')?.textContent.startsWith('Preset smoke')").await?;

    // The first stop leads past the head of the page.
    browser.press(Key::Tab).await?;
    let skip = "document.activeElement.matches('.skip') && document.activeElement.getBoundingClientRect().left >= 0";
    ensure!(browser.js(skip).await? == true, "the first stop is no link to the content that is seen");
    browser.press(Key::Enter).await?;
    browser.wait("document.activeElement.id === 'main'").await?;
    browser.press(Key::Tab).await?;
    ensure!(browser.js("document.querySelector('#main').contains(document.activeElement)").await? == true, "it leads nowhere");

    enter(&browser, "#start-demo").await?;
    browser.wait(&format!("location.pathname.startsWith('/runs/') && {STATUS} === 'finished'")).await?;
    let path = browser.js("location.pathname").await?;
    let run = path.as_str().and_then(|p| p.strip_prefix("/runs/")).context("the id of the run in the address")?.to_string();

    browser.goto(&format!("{}/", lab.origin())).await?;
    let row = format!("a.run[data-run='{run}']");
    browser.wait(&format!("document.querySelector(\"{row}\") !== null")).await?;
    enter(&browser, &row).await?;
    browser.wait(&format!("location.pathname === {path} && {STATUS} === 'finished'")).await?;
    read_chart(&browser, "chart-learning", &policy_steps(&lab.events(&run).await)).await?;

    // Another one, which takes a minute, is ended before.
    browser.goto(&format!("{}/", lab.origin())).await?;
    browser.wait("document.querySelector('#start-demo') !== null").await?;
    enter(&browser, "#start-demo").await?;
    browser.wait(&format!("{} && document.querySelector('#cancel:not(.gone)') !== null", live())).await?;
    enter(&browser, "#cancel").await?;
    browser.wait(&format!("{STATUS} === 'cancelled'")).await?;
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}

/// How many elements were visited.
fn visited(stops: &[Stop]) -> usize {
    stops.iter().map(|stop| stop.stop).collect::<BTreeSet<_>>().len()
}

/// Goes through a page with Tab: the focus is always seen, and always goes on.
async fn gone_through(browser: &Browser) -> Result<()> {
    let mut stops: Vec<Stop> = Vec::new();
    for _ in 0..STOPS {
        browser.press(Key::Tab).await?;
        let Some(stop) = focus(browser).await? else { continue };
        // It has come round.
        if stop.stop == 0 && !stops.is_empty() {
            break;
        }
        stops.push(stop);
    }
    let hidden: BTreeSet<&str> = stops.iter().filter(|stop| !stop.is_seen()).map(|stop| stop.name.as_str()).collect();
    ensure!(hidden.is_empty(), "one does not see that these have the focus: {hidden:?}");
    let last = &stops[stops.len().saturating_sub(2 * FEW)..];
    ensure!(visited(&stops) > FEW && visited(last) > FEW, "the focus is caught: {last:?}");
    Ok(())
}

/// Everything on the page came from the lab.
async fn asks_nobody_else(browser: &Browser, lab: &Lab) -> Result<()> {
    let names = browser.js("performance.getEntriesByType('resource').map(e => e.name)").await?;
    let names: Vec<String> = serde_json::from_value(names)?;
    let own = format!("{}/", lab.origin());
    ensure!(!names.is_empty() && names.iter().all(|name| name.starts_with(&own)), "{names:?}");
    Ok(())
}

#[tokio::test]
async fn every_page_is_gone_through_with_tab_and_asks_nobody_else() -> Result<()> {
    let stage = Stage::start().await?;
    let (lab, browser) = (&stage.lab, &stage.browser);
    browser.keep_focus().await?;
    let rows = "document.querySelectorAll('#comparison tbody tr').length === 2";
    let mut all = pages(&stage.runs[0], &stage.runs[1]);
    all.push(Page::new("study", format!("/studies/{}", stage.study), rows));
    let mut report = Report::default();
    for page in all {
        browser.goto(&format!("{}{}", lab.origin(), page.path)).await?;
        browser.wait(page.there).await.with_context(|| page.name.clone())?;
        report.take(&page.name, gone_through(browser).await);
        report.take(&page.name, asks_nobody_else(browser, lab).await);
    }
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    stage.browser.quit().await?;
    report.check()
}
