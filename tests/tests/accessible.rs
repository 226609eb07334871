//! Whether everybody can read the pages: axe-core finds nothing on any of them, and nothing that one reads is moved while a page comes up.

use anyhow::{Context, Result, ensure};
use moslim_shared::config::RunConfig;
use moslim_tests::pages::{Page, pages};
use moslim_tests::studies::{study_folder, two_clips};
use moslim_tests::{Browser, FLAT, Lab, Place, Process, lab, lines, record, smoke, text};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// A large screen, and a phone.
const SIZES: [(u32, u32); 2] = [(1440, 900), (390, 844)];
const SCHEMES: [&str; 2] = ["light", "dark"];
/// Elements that are named of those in which a rule finds something on one page.
const NAMED: usize = 3;
/// Cumulative layout shift from which on a page is no longer called good.
const MOST_SHIFT: f64 = 0.1;

/// A lab with something on every page: two finished runs, a study, an imported task and an off-the-shelf model.
struct Furnished {
    lab: Lab,
    runs: [String; 2],
    study: String,
}

impl Furnished {
    async fn start() -> Result<Self> {
        let lab = Lab::start().await;
        let mut runs = [String::new(), String::new()];
        for (run, seed) in runs.iter_mut().zip([1, 2]) {
            *run = lab.start_run(&RunConfig { seed, ..smoke() }).await;
            lab.wait_for_finish(run).await;
        }
        // The same settings as theirs up to policy optimisation, so most of it lies in the cache.
        let place = Place::new();
        let config = serde_json::to_vec(&two_clips("Two clips", smoke().policy.iterations))?;
        let config = place.file("study.json", config);
        let output = Process::lab(&["study", "--json", "--config", &config, "--data", text(lab.data())]).wait();
        ensure!(output.code == Some(0), "{}", output.stderr);
        let folder = study_folder(lab.data()).context("the folder of the study")?;
        let study = folder.file_name().and_then(|name| name.to_str()).context("its name")?.to_string();
        let (mapping, ratings) = (place.file("flat.toml", FLAT), place.file("tea.jsonl", lines((0..240).map(record))));
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/llama");
        furnish(&lab, &["import", &ratings, "--mapping", &mapping, "--name", "tea"])?;
        furnish(&lab, &["models", "add", text(&model), "--name", "tiny"])?;
        Ok(Self { lab, runs, study })
    }

    /// Every page, as it is opened.
    fn pages(&self) -> Vec<Page> {
        let [run, other] = &self.runs;
        let mut all = pages(run, other);
        all.extend([
            Page::new(
                "study",
                format!("/studies/{}", self.study),
                "document.querySelectorAll('#comparison tbody tr').length === 2",
            ),
            Page::new(
                "task",
                "/data/tea",
                "document.querySelectorAll('#balance .balance').length === 2 && document.querySelector('#rows .rated-row') !== null",
            ),
            Page::new(
                "run, classes at both ends",
                format!("/runs/{run}?classes=ends"),
                "document.querySelectorAll('#chart-classes-verbosity.ends .bar-row').length === 2",
            ),
            Page::new("documents of the API", "/api/v1/docs", "document.querySelector('#schemas') !== null"),
        ]);
        let station = |n| {
            Page::new(format!("station {n}"), format!("/learn?station={n}"), "document.querySelectorAll('.station').length === 1")
        };
        all.extend((1..=7).map(station));
        all.extend(dead_ends());
        all
    }

    /// Pages on which something was done.
    fn used(&self) -> Vec<Page> {
        let [run, _] = &self.runs;
        let form =
            |name: &str| Page::new(name, "/configure?preset=quick", "document.querySelector('#objective-honesty') !== null");
        vec![
            form("configure, more").after(
                "document.querySelector('[data-depth=More]').click()",
                "document.querySelector('[data-depth=More]').getAttribute('aria-pressed') === 'true'",
            ),
            form("configure, everything").after(
                "document.querySelector('[data-depth=Everything]').click()",
                "document.querySelector('[data-depth=Everything]').getAttribute('aria-pressed') === 'true'",
            ),
            form("configure, with a mistake").after(
                "(e => { e.value = '1'; e.dispatchEvent(new Event('input')); })(document.querySelector('#field-policy-samples_per_prompt'))",
                "document.querySelector('#problems li') !== null",
            ),
            Page::new("run, everything open", format!("/runs/{run}"), "document.querySelector('#cockpit .mini .cell') !== null")
                .after(
                    "['#cockpit .mini .cell', '#chart-learning .tools .link', '#chart-learning .tools [aria-expanded]', '#tour'] \
                     .forEach(e => document.querySelector(e).click()) ?? \
                     document.querySelectorAll('details').forEach(e => { e.open = true; })",
                    "['#behind-got', '#chart-learning .data tbody tr', '.tour'].every(e => document.querySelector(e) !== null)",
                ),
            Page::new(
                "playground, with answers",
                format!("/playground?in={run},{run}:start&ask=verbosity%3D0"),
                "document.querySelector('#ask-verbosity')?.value === '1'",
            )
            .after(
                "['#ask', '#sweep'].forEach(e => document.querySelector(e).click())",
                "document.querySelectorAll('.lane .waterfall').length === 2 && \
                 document.querySelectorAll('#sweep-grid .cell:not(:disabled)').length === 30",
            ),
        ]
    }
}

/// What there is when there is nothing.
fn dead_ends() -> [Page; 5] {
    [
        Page::new("compare, nothing", "/compare", "document.querySelector('#add-run') !== null"),
        Page::new(
            "a run that is not there",
            "/runs/no-such-run",
            "document.querySelector('#banner')?.textContent.includes('there is no run no-such-run')",
        ),
        Page::new(
            "a study that is not there",
            "/studies/no-such-study",
            "document.querySelector('.study-page [role=alert]') !== null",
        ),
        Page::new("a task that is not there", "/data/none", "document.querySelector('.task-page [role=alert]') !== null"),
        Page::new("a page that is not there", "/nothing", "document.querySelector('#not-found') !== null"),
    ]
}

/// A command on the data of a lab.
fn furnish(of: &Lab, args: &[&str]) -> Result<Value> {
    lab(of.data(), args).map_err(anyhow::Error::msg)
}

/// Notes every layout shift of the page from its beginning on, and what was moved; those that a person's input explains are none.
const WATCH: &str = "(() => { \
    const name = n => !n ? 'something that is gone' : n.nodeType !== 1 ? name(n.parentNode) : \
        n.localName + (n.id && '#' + n.id) + [...n.classList].map(c => '.' + c).join(''); \
    const seen = window.shifts_seen = { shifts: [], frames: 0, last: performance.now() }; \
    new PerformanceObserver(list => { seen.last = performance.now(); list.getEntries().filter(e => !e.hadRecentInput).forEach(e => \
        seen.shifts.push({ time: e.startTime, value: e.value, moved: e.sources.map(s => name(s.node)) })); \
    }).observe({ type: 'layout-shift', buffered: true }); \
    const frame = () => { seen.frames += 1; if (seen.frames < 2) requestAnimationFrame(frame); }; requestAnimationFrame(frame); })()";

/// The page has been drawn, nothing on it says that it is being loaded, and nothing has moved for 300 ms.
const STILL: &str = "window.shifts_seen.frames > 1 && performance.now() - window.shifts_seen.last > 300 && \
    [...document.querySelectorAll('main [role=status]')].every(e => !e.textContent.trim().endsWith('…'))";

/// Opens a page anew, does on it what belongs to it, and waits until it stands still.
async fn open(browser: &Browser, lab: &Lab, page: &Page) -> Result<()> {
    let opened = async {
        browser.goto(&format!("{}{}", lab.origin(), page.path)).await?;
        browser.wait(page.there).await?;
        browser.js(WATCH).await?;
        if let Some((done, seen)) = page.then {
            browser.js(done).await?;
            browser.wait(seen).await?;
        }
        browser.wait(STILL).await
    };
    opened.await.with_context(|| page.name.clone()).map(|_| ())
}

/// What axe-core says against a page: a rule, and elements that break it.
#[derive(Debug, Deserialize)]
struct Violation {
    id: String,
    impact: Option<String>,
    help: String,
    count: usize,
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    target: String,
    why: String,
}

/// Has axe-core look at the page that is shown.
async fn examined(browser: &Browser, axe: &str) -> Result<Vec<Violation>> {
    browser.inject(axe).await?;
    let found = browser
        .promised(&format!(
            "axe.run(document, {{ resultTypes: ['violations'] }}).then(found => found.violations.map(v => ({{ \
             id: v.id, impact: v.impact, help: v.help, count: v.nodes.length, \
             nodes: v.nodes.slice(0, {NAMED}).map(n => ({{ target: n.target.flat().join(' '), why: n.failureSummary }})) }})))"
        ))
        .await?;
    Ok(serde_json::from_value(found)?)
}

/// Findings of all pages by rule, then by element; of each, where it was seen.
#[derive(Default)]
struct Findings(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Findings {
    fn add(&mut self, place: &str, violation: Violation) {
        let Violation { id, impact, help, count, nodes } = violation;
        let rule = self.0.entry(format!("{id} ({}): {help}", impact.unwrap_or_default())).or_default();
        for Node { target, why } in nodes {
            let why = why.lines().map(|line| format!("\n        {}", line.trim())).collect::<String>();
            rule.entry(target + why.as_str()).or_default().insert(format!("{place} ({count})"));
        }
    }

    /// All of them as a text.
    fn told(&self) -> String {
        let mut out = String::new();
        for (rule, elements) in &self.0 {
            // Writing to a string does not fail.
            let _ = writeln!(out, "\n{rule}");
            for (element, places) in elements {
                let places: Vec<&str> = places.iter().map(String::as_str).collect();
                let _ = writeln!(out, "    {element}\n        on {}", places.join("; "));
            }
        }
        out
    }
}

#[tokio::test]
#[ignore = "needs axe-core: cargo lab test --axe"]
async fn no_page_has_a_finding() -> Result<()> {
    let file = std::env::var_os("MOSLIM_AXE").context("MOSLIM_AXE names axe-core's file: cargo lab test --axe")?;
    let axe = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let furnished = Furnished::start().await?;
    let browser = furnished.lab.browser().await?;
    let all: Vec<Page> = furnished.pages().into_iter().chain(furnished.used()).collect();
    let mut findings = Findings::default();
    for scheme in SCHEMES {
        for (width, height) in SIZES {
            browser.screen(width, height, scheme).await?;
            for page in &all {
                open(&browser, &furnished.lab, page).await?;
                let found = examined(&browser, &axe).await.with_context(|| page.name.clone())?;
                let place = format!("{}, {width}x{height}, {scheme}", page.name);
                found.into_iter().for_each(|violation| findings.add(&place, violation));
            }
            println!("{} pages at {width} x {height}, {scheme}", all.len());
        }
    }
    browser.quit().await?;
    assert!(findings.0.is_empty(), "axe-core finds:\n{}", findings.told());
    Ok(())
}

/// A layout shift: when it was, milliseconds, how large, and what was moved.
#[derive(Debug, Deserialize)]
struct Shift {
    time: f64,
    value: f64,
    moved: Vec<String>,
}

/// Cumulative layout shift: the largest sum over a session window, in which less than a second lies between two shifts and less than five
/// between the first and the last (web.dev/articles/cls).
fn cumulative(shifts: &[Shift]) -> f64 {
    let (mut worst, mut sum) = (0.0f64, 0.0);
    let (mut first, mut last) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for shift in shifts {
        if shift.time - last >= 1_000.0 || shift.time - first >= 5_000.0 {
            (first, sum) = (shift.time, 0.0);
        }
        last = shift.time;
        sum += shift.value;
        worst = worst.max(sum);
    }
    worst
}

#[test]
fn shifts_are_summed_within_windows() {
    let check = |shifts: &[(f64, f64)], expected: f64| {
        let shift = |&(time, value): &(f64, f64)| Shift { time, value, moved: Vec::new() };
        let value = cumulative(&shifts.iter().map(shift).collect::<Vec<_>>());
        assert!((value - expected).abs() < 1e-12, "{shifts:?}: {value} is not {expected}");
    };
    check(&[], 0.0);
    check(&[(100.0, 0.04), (900.0, 0.05)], 0.09);
    // A second without one ends a window.
    check(&[(100.0, 0.04), (1_100.0, 0.05)], 0.05);
    // So do five seconds of them.
    check(&(0..10).map(|n| (900.0 * f64::from(n), 0.01)).collect::<Vec<_>>(), 0.06);
}

#[tokio::test]
async fn no_page_shifts_what_one_reads() -> Result<()> {
    let furnished = Furnished::start().await?;
    let browser = furnished.lab.browser().await?;
    let mut restless = String::new();
    for (width, height) in SIZES {
        browser.screen(width, height, "light").await?;
        for page in furnished.pages() {
            open(&browser, &furnished.lab, &page).await?;
            let shifts: Vec<Shift> = serde_json::from_value(browser.js("window.shifts_seen.shifts").await?)?;
            let value = cumulative(&shifts);
            println!("{value:.3} {} at {width} x {height}", page.name);
            if value >= MOST_SHIFT {
                let _ = writeln!(restless, "{value:.3} {} at {width} x {height}", page.name);
                for shift in shifts.iter().filter(|shift| shift.value >= MOST_SHIFT / 10.0) {
                    let _ = writeln!(restless, "    {:.3} at {:.0} ms: {}", shift.value, shift.time, shift.moved.join(", "));
                }
            }
        }
    }
    browser.quit().await?;
    assert!(restless.is_empty(), "what one reads moves by {MOST_SHIFT} or more on\n{restless}");
    Ok(())
}
