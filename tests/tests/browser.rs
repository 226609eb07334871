//! The page as people see it, in a real browser: a demo from the first click to the result, a server that dies under it,
//! and the form that refuses what cannot work.

use anyhow::{Context, Result, ensure};
use moslim_shared::config::RunConfig;
use moslim_shared::event::RunStatus;
use moslim_shared::study::StudyResults;
use moslim_shared::summary::{ControlReport, ControlSummary};
use moslim_tests::{Browser, FLAT, LIMIT, Lab, Place, lines, long_run, record, signal, smoke};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const STATUS: &str = "document.querySelector('#run-status')?.dataset.status";
const CONNECTION: &str = "document.querySelector('#connection')?.dataset.connection";
const STAGES: &str = "[...document.querySelectorAll('li[data-stage]')].map(e => [e.dataset.stage, e.dataset.state])";
/// All control matrices: whose they are, and for each cell its value and what is written in it.
const MATRICES: &str = "[...document.querySelectorAll('table.matrix')].map(t => ({objective: t.dataset.objective, \
     who: t.dataset.who, rows: [...t.tBodies[0].rows].map(r => [...r.querySelectorAll('td')].map((c, i) => \
     Number(c.dataset.achieved) === i ? [Number(c.dataset.value), Number(c.textContent)] : null))}))";

/// A condition: the matrices of all four objectives are there, before and after.
const ALL_MATRICES: &str =
    "['sft', 'policy'].every(who => document.querySelectorAll(`table.matrix[data-who=${who}]`).length === 4)";

/// Compares the matrices on the page with a report; what is written may differ by rounding only.
fn compare(shown: &Value, who: &str, report: &ControlReport) -> Result<()> {
    let tables = shown.as_array().context("a list of matrices")?;
    assert_eq!(report.heads.len(), 4);
    for head in &report.heads {
        let mut own = tables.iter().filter(|t| t["objective"] == head.objective.as_str() && t["who"] == who);
        let table = own.next().with_context(|| format!("no matrix of {who} for {}", head.objective))?;
        assert!(own.next().is_none(), "two matrices of {who} for {}", head.objective);
        let rows: Vec<Vec<(f64, f64)>> = serde_json::from_value(table["rows"].clone())?;
        assert_eq!(rows.len(), head.matrix.len(), "{}", head.objective);
        for (cells, shares) in rows.iter().zip(&head.matrix) {
            assert_eq!(cells.len(), shares.len(), "{}", head.objective);
            for ((value, percent), share) in cells.iter().zip(shares) {
                assert!((value - share).abs() <= 0.000_051, "{who}, {}: {value} is shown for {share}", head.objective);
                assert!((percent - 100.0 * share).abs() <= 0.51, "{who}, {}: {percent} % for {share}", head.objective);
            }
        }
    }
    Ok(())
}

async fn compare_all(browser: &Browser, control: &ControlSummary) -> Result<()> {
    browser.wait(ALL_MATRICES).await?;
    let shown = browser.js(MATRICES).await?;
    compare(&shown, "sft", &control.sft)?;
    compare(&shown, "policy", &control.policy)
}

/// Waits until something is drawn on a chart: more colours than paper, axis and text in one shade could have.
async fn wait_for_chart(browser: &Browser, id: &str) -> Result<()> {
    let drawn = format!(
        "(() => {{ const c = document.querySelector('#{id} canvas'); c?.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
         if (!c?.width || !c.height) return false; \
         const pixels = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; \
         return new Set(new Uint32Array(pixels.buffer)).size > 3; }})()"
    );
    browser.wait(&drawn).await.map(|_| ())
}

/// At the width of a phone, or of a tablet, nothing may need scrolling sideways, in either colour scheme.
async fn check_phone(browser: &Browser, pages: &[(String, &str)]) -> Result<()> {
    let mut backgrounds = Vec::new();
    for (scheme, wide) in [("dark", 768), ("light", 390), ("dark", 390)] {
        browser.screen(wide, 844, scheme).await?;
        for (url, there) in pages {
            browser.goto(url).await?;
            browser.wait(there).await?;
            let sizes = "[innerWidth, document.documentElement.clientWidth, document.documentElement.scrollWidth]";
            let [screen, width, content]: [u64; 3] = serde_json::from_value(browser.js(sizes).await?)?;
            assert_eq!(screen, u64::from(wide));
            assert!(content <= width, "{url}, {scheme}: {content} pixels of content on {width}");
        }
        backgrounds.push(browser.js("getComputedStyle(document.body).backgroundColor").await?);
    }
    assert!(backgrounds[0] != backgrounds[1] && backgrounds[1] != backgrounds[2], "dark and light look the same");
    Ok(())
}

#[tokio::test]
async fn the_demo_runs_shows_its_result_and_survives_the_server() -> Result<()> {
    let mut lab = Lab::start().await;
    let origin = lab.origin();
    let browser = lab.browser().await?;

    // From the first page to a finished run.
    browser.goto(&format!("{origin}/?preset=smoke")).await?;
    browser.wait("document.querySelector('#demo-preset')?.textContent.startsWith('Preset smoke')").await?;
    browser.click("#start-demo").await?;
    let path = browser.wait("location.pathname.startsWith('/runs/') && location.pathname").await?;
    let id = path.as_str().and_then(|p| p.strip_prefix("/runs/")).context("the id of the run in the address")?.to_string();
    let mut seen: Vec<Value> = Vec::new();
    browser.wait(STATUS).await?;
    let began = Instant::now();
    while browser.js(STATUS).await? != "finished" {
        ensure!(began.elapsed() < LIMIT, "the page does not show that the run finished");
        let stages = browser.js(STAGES).await?;
        if seen.last() != Some(&stages) {
            seen.push(stages);
        }
        assert_ne!(lab.run(&id).await.status, RunStatus::Failed);
    }
    browser.wait(&format!("{STAGES}.every(([_, state]) => state === 'done')")).await?;
    assert!(seen.len() > 1, "the stages moved while the run went on: {seen:?}");
    let names = browser.js(STAGES).await?;
    let names: Vec<(String, String)> = serde_json::from_value(names)?;
    let names: Vec<&str> = names.iter().map(|(stage, _)| stage.as_str()).collect();
    assert_eq!(names, ["sft", "reward_model", "calibration", "policy", "evaluation"]);

    // What is shown is what was measured.
    let run = lab.wait_for_finish(&id).await;
    let summary = run.summary.context("a summary")?;
    compare_all(&browser, &summary.control).await?;
    browser.click("#grader-reward-model").await?;
    browser.wait("document.querySelector('#grader-reward-model').getAttribute('aria-pressed') === 'true'").await?;
    compare_all(&browser, &summary.control_reward_model).await?;
    for chart in ["learning", "kl", "reward", "sft", "classes-helpfulness", "classes-verbosity"] {
        wait_for_chart(&browser, &format!("chart-{chart}")).await?;
    }
    browser.reload().await?;
    browser.wait(&format!("{STATUS} === 'finished'")).await?;
    compare_all(&browser, &summary.control).await?;
    wait_for_chart(&browser, "chart-learning").await?;

    // Everything came from here.
    let resources = browser.js("performance.getEntriesByType('resource').map(e => e.name)").await?;
    let resources: Vec<String> = serde_json::from_value(resources)?;
    assert!(resources.iter().any(|name| name.ends_with(".wasm")), "{resources:?}");
    assert!(resources.iter().all(|name| name.starts_with(&format!("{origin}/"))), "{resources:?}");

    let pages = [
        (format!("{origin}/"), "document.querySelector('#runs a.run') !== null"),
        (format!("{origin}/configure"), "document.querySelector('#start-run')?.disabled === false"),
        (format!("{origin}/learn"), "document.querySelectorAll('.station').length === 7"),
        (format!("{origin}/playground"), "document.querySelectorAll('.lane').length === 2"),
        (format!("{origin}/compare?runs={id}"), "document.querySelector('.chosen .chip') !== null"),
        (format!("{origin}/runs/{id}"), ALL_MATRICES),
    ];
    check_phone(&browser, &pages).await?;
    browser.screen(1280, 900, "light").await?;
    assert_eq!(browser.errors().await?, Vec::<String>::new());

    // The server dies while a run goes on; the run does not notice, and the page waits for the next one.
    let long = lab.start_run(&long_run(600)).await;
    browser.goto(&format!("{origin}/runs/{long}")).await?;
    lab.wait_for_policy(&long, 6).await;
    browser.wait("document.querySelectorAll('table.matrix[data-who=rollouts]').length === 4").await?;
    lab.kill();
    browser.wait(&format!("{CONNECTION} === 'reconnecting'")).await?;
    lab.restart().await;
    browser.wait(&format!("{CONNECTION} === 'live' && {STATUS} === 'running'")).await?;
    let workers = lab.workers();
    assert_eq!(workers.len(), 1, "{workers:?}");
    // Then its process dies, too, and the page says how to go on.
    assert!(signal(workers[0], "KILL"));
    browser.wait(&format!("{STATUS} === 'interrupted'")).await?;
    let banner = browser.wait("document.querySelector('#banner')?.textContent").await?;
    assert!(banner.as_str().is_some_and(|text| text.contains("interrupted") && text.contains("checkpoint")), "{banner}");
    browser.click("#resume").await?;
    browser.wait(&format!("{STATUS} !== 'interrupted'")).await?;
    let run = lab.wait_for_finish(&long).await;
    browser.wait(&format!("{STATUS} === 'finished'")).await?;
    compare_all(&browser, &run.summary.context("a summary")?.control).await?;
    assert_eq!(browser.js("document.querySelector('#banner')").await?, Value::Null);
    assert_eq!(browser.js("location.pathname").await?, json!(format!("/runs/{long}")), "it is still the same page");

    // The log of the console is not empty for want of a log.
    browser.js("console.error('this is seen')").await?;
    let errors = browser.errors().await?;
    assert!(errors.iter().any(|message| message.contains("this is seen")), "{errors:?}");
    browser.quit().await
}

#[tokio::test]
async fn the_form_refuses_what_cannot_work_and_shows_text_as_text() -> Result<()> {
    const FIELD: &str = "#field-policy-samples_per_prompt";
    const NAME: &str = "<img src=x onerror=alert(1)>";
    let lab = Lab::start().await;
    let origin = lab.origin();
    let browser = lab.browser().await?;
    let disabled = |is: bool| format!("document.querySelector('#start-run')?.disabled === {is}");
    let message = format!("document.querySelector('{FIELD}').closest('.field').querySelector('.problem').textContent");

    browser.goto(&format!("{origin}/configure?preset=smoke")).await?;
    browser.wait(&disabled(false)).await?;
    // Without the objectives of the world the form cannot check everything.
    browser.wait("document.querySelector('#objective-honesty') !== null").await?;
    browser.fill(FIELD, "1").await?;
    browser.wait(&disabled(true)).await?;
    let said = browser.js(&message).await?;
    assert!(said.as_str().is_some_and(|text| text.contains("is 1") && text.contains("at least 2")), "{said}");
    let listed = browser.js("[...document.querySelectorAll('#problems li code')].map(e => e.textContent)").await?;
    assert_eq!(listed, json!(["policy.samples_per_prompt"]));
    browser.fill(FIELD, "four").await?;
    browser.wait(&format!("{message}.includes('not a whole number')")).await?;
    assert_eq!(browser.js(&disabled(true)).await?, true);
    browser.fill(FIELD, "4").await?;
    browser.wait(&disabled(false)).await?;
    assert_eq!(browser.js(&message).await?, "");

    browser.fill("#field-name", NAME).await?;
    browser.wait("document.querySelector('#changes').textContent.includes('<img')").await?;
    browser.click("#start-run").await?;
    browser.wait("location.pathname.startsWith('/runs/')").await?;
    browser.wait(&format!("document.querySelector('#run-name')?.textContent === '{NAME}'")).await?;
    assert_eq!(browser.js("document.querySelectorAll('img[src=x]').length").await?, 0);
    browser.goto(&format!("{origin}/")).await?;
    browser.wait(&format!("document.querySelector('#runs .run-name b')?.textContent === '{NAME}'")).await?;
    assert_eq!(browser.js("document.querySelectorAll('img[src=x]').length").await?, 0);

    // What was started is what was configured.
    let runs = lab.get("/api/v1/runs").await.body;
    assert_eq!(runs["total"], 1, "{runs}");
    assert_eq!((&runs["rows"][0]["title"], &runs["rows"][0]["preset"]), (&json!(NAME), &json!("smoke")));
    let run = lab.run(runs["rows"][0]["id"].as_str().context("an id")?).await;
    assert_eq!(run.config.policy.samples_per_prompt, 4);

    browser.goto(&format!("{origin}/runs/no-such-run")).await?;
    browser.wait("document.querySelector('#banner')?.textContent.includes('there is no run no-such-run')").await?;
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}

/// Runs are found by a filter, put away, deleted and had back.
#[tokio::test]
async fn the_list_of_runs_is_filtered_and_tidied_up() -> Result<()> {
    const ROWS: &str = "document.querySelectorAll('#runs .run-row').length";
    let lab = Lab::start().await;
    for seed in [1, 2, 3] {
        let id = lab.start_run(&RunConfig { seed, ..smoke() }).await;
        lab.wait_for_finish(&id).await;
    }
    let browser = lab.browser().await?;
    browser.goto(&lab.origin()).await?;
    browser.wait(&format!("{ROWS} === 3")).await?;
    browser.fill("#filter", "seed>1").await?;
    browser.wait(&format!("{ROWS} === 2")).await?;
    browser.fill("#filter", "mood:good").await?;
    browser.wait("document.querySelector('.filter .problem').textContent.includes('no field')").await?;
    browser.fill("#filter", "seed:2").await?;
    browser.wait(&format!("{ROWS} === 1")).await?;
    browser.click("#runs input[type=checkbox]").await?;
    browser.click("#archive").await?;
    browser.wait("document.querySelector('#undo') !== null && document.querySelectorAll('#runs .run-row').length === 0").await?;
    browser.fill("#filter", "is:archived").await?;
    browser.wait(&format!("{ROWS} === 1")).await?;
    browser.click("#undo").await?;
    browser.wait(&format!("{ROWS} === 0")).await?;
    browser.fill("#filter", "seed<4").await?;
    browser.wait(&format!("{ROWS} === 3")).await?;
    browser.click("#runs .run-row:last-child input[type=checkbox]").await?;
    browser.click("#delete").await?;
    browser.wait(&format!("{ROWS} === 2")).await?;
    assert_eq!(lab.get("/api/v1/runs").await.body["total"], 2);
    browser.click("#undo").await?;
    browser.wait(&format!("{ROWS} === 3")).await?;

    // A run gets a name and tags, by which it is found.
    let id = lab.get("/api/v1/runs").await.body["rows"][0]["id"].as_str().context("a run")?.to_string();
    browser.goto(&format!("{}/runs/{id}", lab.origin())).await?;
    browser.wait("document.querySelector('#about:not(.gone)') !== null").await?;
    browser.fill("#about-name", &"n".repeat(121)).await?;
    browser.click("#about button").await?;
    browser.wait("document.querySelector('#about .note').textContent.includes('longer than 120')").await?;
    browser.fill("#about-name", "With <b>care</b>").await?;
    browser.fill("#about-tags", "thesis, , second").await?;
    browser.click("#about button").await?;
    browser.wait("document.querySelector('#run-name').textContent === 'With <b>care</b>'").await?;
    assert_eq!(lab.get(&format!("/api/v1/runs/{id}")).await.body["about"]["tags"], json!(["thesis", "second"]));
    browser.goto(&lab.origin()).await?;
    browser.wait("document.querySelector('#filter') !== null").await?;
    browser.fill("#filter", "tag:second").await?;
    browser
        .wait(&format!("{ROWS} === 1 && document.querySelector('#runs .run-row').textContent.includes('With <b>care')"))
        .await?;
    browser.wait("location.search === '?filter=tag%3Asecond'").await?;
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}

/// A list shows what is done elsewhere when it is done: by itself it looks only every half minute.
#[tokio::test]
async fn the_list_of_runs_follows_what_is_done_elsewhere() -> Result<()> {
    const SOON: Duration = Duration::from_secs(2);
    let mut lab = Lab::start().await;
    let id = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&id).await;
    let rename = async |lab: &Lab, name: &str| {
        let request = lab.request(Method::PUT, &format!("/api/v1/runs/{id}/about")).header("origin", lab.origin());
        assert_eq!(lab.send(request.json(&json!({ "name": name }))).await.status, 200);
    };
    let named = |name: &str| format!("document.querySelector('#runs .run-name b')?.textContent === '{name}'");
    let browser = lab.browser().await?;
    let first = browser.tab().await?;
    browser.new_tab().await?;
    browser.goto(&lab.origin()).await?;
    // It has asked once more when its socket stood, for what may have changed before.
    let asked = "performance.getEntriesByType('resource').filter(e => e.name.includes('/api/v1/runs?')).length";
    browser.wait(&format!("{asked} > 1 && document.querySelectorAll('#runs .run-row').length === 1")).await?;
    rename(&lab, "Tea").await;
    browser.wait_at_most(SOON, &named("Tea")).await?;
    browser.turn_to(&first).await?;
    browser.wait_at_most(SOON, &named("Tea")).await?;

    // What was done before the page has found its server again is shown when it has.
    lab.restart().await;
    rename(&lab, "Green tea").await;
    browser.wait_at_most(10 * SOON, &named("Green tea")).await?;
    // A change soon after another one is told when a second has passed.
    rename(&lab, "White tea").await;
    browser.wait_at_most(2 * SOON, &named("White tea")).await?;
    // And so it is for who leaves the list and comes back to it.
    browser.click("#runs a.run").await?;
    browser.wait(&format!("{CONNECTION} === 'live'")).await?;
    browser.click(".brand").await?;
    browser.wait(&named("White tea")).await?;
    rename(&lab, "Black tea").await;
    browser.wait_at_most(SOON, &named("Black tea")).await?;
    browser.quit().await
}

/// The form knows the objectives of the task that it names, and says when there is none.
#[tokio::test]
async fn the_form_follows_the_task() -> Result<()> {
    const NAME: &str = "#field-task-name";
    let lab = Lab::start().await;
    let browser = lab.browser().await?;
    browser.goto(&format!("{}/configure?preset=ratings", lab.origin())).await?;
    browser
        .wait(&format!("document.querySelector('{NAME}')?.closest('.field').textContent.includes('allowed are 1 to 64')"))
        .await?;
    browser.fill(NAME, "tea").await?;
    browser
        .wait(&format!("document.querySelector('{NAME}').closest('.field').textContent.includes('there is no task tea')"))
        .await?;
    assert_eq!(browser.js("document.querySelector('#start-run').disabled").await?, true);
    let place = Place::new();
    let (mapping, file) = (place.file("flat.toml", FLAT), place.file("tea.jsonl", lines((0..60).map(record))));
    moslim_tests::lab(lab.data(), &["import", &file, "--mapping", &mapping, "--name", "tea2"]).expect("an import");
    browser.fill(NAME, "tea2").await?;
    browser
        .wait("document.querySelector('#objective-tone') !== null && document.querySelector('#objective-honesty') === null")
        .await?;
    browser.wait("document.querySelector('#start-run')?.disabled === false").await?;
    // The browser notes every refusal of the server.
    let others: Vec<String> = browser.errors().await?.into_iter().filter(|e| !e.contains("/api/v1/task")).collect();
    assert_eq!(others, Vec::<String>::new());
    browser.quit().await
}

#[tokio::test]
async fn a_study_is_started_watched_and_compared() -> Result<()> {
    const STATUS: &str = "document.querySelector('#study-status')?.dataset.status";
    let lab = Lab::start().await;
    let origin = lab.origin();
    let browser = lab.browser().await?;
    // From the home page by the navigation, which loads nothing anew.
    browser.goto(&format!("{origin}/")).await?;
    browser.wait("document.querySelector(\"nav a[href='/studies']\") !== null").await?;
    browser.js("window.kept = true").await?;
    browser.click("nav a[href='/studies']").await?;
    browser.wait("location.pathname === '/studies' && document.querySelector('#start-study')").await?;
    assert_eq!(browser.js("window.kept").await?, true, "it is still the same document");
    assert_eq!(browser.js("document.querySelector('nav a[aria-current]').textContent").await?, "Studies");
    browser.wait("document.querySelector(\"[data-study-preset='optimisers']\") !== null").await?;
    browser.click("[data-study-preset='optimisers']").await?;
    browser.fill("#study-seeds", "1, 1").await?;
    browser.click("#start-study").await?;
    browser.wait("document.querySelector('main').textContent.includes('twice')").await?;
    browser.fill("#study-seeds", "1").await?;
    browser
        .js("(() => { const s = document.querySelector('#study-base'); s.value = 'smoke'; \
         s.dispatchEvent(new Event('change', { bubbles: true })); })()")
        .await?;
    browser.click("#start-study").await?;
    let path = browser.wait("location.pathname.startsWith('/studies/') && location.pathname").await?;
    let id = path.as_str().and_then(|p| p.strip_prefix("/studies/")).context("the id of the study")?.to_string();
    browser.wait(&format!("{STATUS} === 'finished'")).await?;

    // What is shown is what was measured.
    let results: StudyResults = serde_json::from_value(lab.get(&format!("/api/v1/studies/{id}/results")).await.body)?;
    assert_eq!(results.groups.len(), 8);
    browser.wait("document.querySelectorAll('#comparison tbody tr').length === 8").await?;
    let shown = browser
        .js("[...document.querySelectorAll('#comparison tbody tr')].map(r => [...r.cells].map(c => c.textContent))")
        .await?;
    let shown: Vec<Vec<String>> = serde_json::from_value(shown)?;
    for (row, group) in shown.iter().zip(&results.groups) {
        assert!(row[0].contains(&group.labels[0]), "{row:?}");
        assert_eq!(row.len(), results.metrics.len() + 1);
        // The mean hit rate is a share with three digits.
        let column = results.metrics.iter().position(|m| m == "hit rate").context("a column of hit rates")?;
        let hits = format!("{:.3}", group.metrics[column].mean);
        assert!(row[column + 1].contains(&hits), "{hits} in {row:?}");
    }
    wait_for_chart(&browser, "front").await?;
    browser
        .js("(() => { const s = document.querySelector('#front-y'); s.value = s.options[s.options.length - 1].value; \
         s.dispatchEvent(new Event('change', { bubbles: true })); })()")
        .await?;
    browser.wait("location.search.includes('y=')").await?;
    let pages = [
        (format!("{origin}/studies"), "document.querySelector('a.study') !== null"),
        (format!("{origin}/studies/{id}"), "document.querySelectorAll('#comparison tbody tr').length === 8"),
    ];
    check_phone(&browser, &pages).await?;
    browser.goto(&format!("{origin}/studies/{id}")).await?;
    browser.wait("document.querySelector('#study-compare') !== null").await?;
    browser.click("#study-compare").await?;
    browser.wait("location.pathname === '/compare' && document.querySelectorAll('.chosen .chip').length === 8").await?;
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}

#[tokio::test]
async fn every_address_can_be_opened_and_left_again() -> Result<()> {
    const MISSING: &str = "document.querySelector('#not-found') !== null";
    let lab = Lab::start().await;
    let origin = lab.origin();
    let browser = lab.browser().await?;
    for (path, there) in [
        ("/", "document.querySelector('#start-demo') !== null"),
        ("/configure", "document.querySelector('#start-run') !== null"),
        ("/configure/", "document.querySelector('#start-run') !== null"),
        ("/playground", "document.querySelector('.playground .empty') !== null"),
        ("/compare", "document.querySelector('#add-run') !== null"),
        ("/studies", "document.querySelector('#start-study') !== null"),
        ("/studies/", "document.querySelector('#start-study') !== null"),
        ("/runs/a-1", "document.querySelector('.live')?.dataset.run === 'a-1'"),
        ("/studies/a-1", "document.querySelector('.study-page')?.dataset.study === 'a-1'"),
        ("/data", "document.querySelector('#import') !== null"),
        ("/data/none", "document.querySelector('.task-page [role=alert]') !== null"),
        ("/models", "document.querySelector('#models .empty') !== null"),
        ("/nothing", MISSING),
        ("/runs", MISSING),
        ("/runs/", MISSING),
        ("/runs/a/b", MISSING),
        ("/studies/a/b", MISSING),
    ] {
        browser.goto(&format!("{origin}{path}")).await?;
        browser.wait(there).await.with_context(|| path.to_string())?;
    }

    // From page to page and back within one document, each whole and alone.
    browser.goto(&format!("{origin}/")).await?;
    browser.wait("document.querySelector('#start-demo') !== null").await?;
    browser.js("window.kept = true").await?;
    browser.click("nav a[href='/configure']").await?;
    browser.wait("document.querySelector('#start-run') !== null && !document.querySelector('#start-demo')").await?;
    browser.click("nav a[href='/studies']").await?;
    browser.wait("document.querySelector('#start-study') !== null && !document.querySelector('#start-run')").await?;
    browser.js("history.back()").await?;
    browser.wait("location.pathname === '/configure' && document.querySelector('#start-run') !== null").await?;
    // A link within the page leads there, and leaves the page as it is.
    browser.click("nav.sections a[href='#section-policy']").await?;
    browser.wait("location.hash === '#section-policy' && scrollY > 0").await?;
    browser.js("history.back()").await?;
    browser.wait("location.hash === ''").await?;
    browser.click(".brand").await?;
    browser.wait("location.pathname === '/' && document.querySelector('#start-demo') !== null").await?;
    assert_eq!(browser.js("window.kept").await?, true, "it is still the same document");
    browser.quit().await
}

/// A recorded run turns from rows that are alike to a diagonal, stands still for who wants that, and can be gone through.
#[tokio::test]
async fn the_first_page_shows_the_idea() -> Result<()> {
    const STEP: &str = "document.querySelector('.moving .scrub .hint').textContent";
    const HITS: &str = "[...document.querySelectorAll('.moving .mini caption .hint')].map(e => parseInt(e.textContent))";
    let lab = Lab::start().await;
    let browser = lab.browser().await?;
    browser.wait("document.querySelectorAll('.moving .mini').length === 4").await?;
    assert_eq!(browser.js(STEP).await?, "measured on held-out questions", "nothing moves for who wants no motion");
    let last: Vec<f64> = serde_json::from_value(browser.js(HITS).await?)?;
    browser.js("(e => { e.value = 0; e.dispatchEvent(new Event('input')) })(document.querySelector('.moving input'))").await?;
    browser.wait(&format!("{STEP}.startsWith('step 1 of')")).await?;
    let first: Vec<f64> = serde_json::from_value(browser.js(HITS).await?)?;
    let better = first.iter().zip(&last).filter(|(a, b)| b >= a).count();
    let [before, after] = [&first, &last].map(|hits| hits.iter().sum::<f64>());
    assert!(first.len() == 4 && better >= 3 && after > 1.5 * before, "{first:?} became {last:?}");
    browser.click("#moving-play").await?;
    browser.wait(&format!("!{STEP}.startsWith('step 1 of')")).await?;
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}

#[tokio::test]
async fn the_page_can_be_used_within_half_a_second() -> Result<()> {
    let lab = Lab::start().await;
    let browser = lab.browser().await?;
    let mut times = Vec::new();
    // Other tests run beside this one, so the fastest of a few counts.
    for _ in 0..5 {
        browser.goto(&format!("{}/", lab.origin())).await?;
        let time = browser.wait("performance.getEntriesByName('interactive')[0]?.startTime").await?;
        times.push(time.as_f64().context("milliseconds")?);
    }
    let best = times.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(best < 500.0, "milliseconds from the address to a page that can be used: {times:?}");
    browser.quit().await
}

/// What was changed is there again when the page is; it goes into a file, and comes back from one.
#[tokio::test]
async fn what_was_configured_is_kept_and_goes_into_a_file_and_back() -> Result<()> {
    const PROMPTS: &str = "document.querySelector('#field-policy-prompts')?.value";
    let lab = Lab::start().await;
    let browser = lab.browser().await?;
    let form = format!("{}/configure", lab.origin());
    browser.goto(&form).await?;
    browser.wait("document.querySelector('#command')?.textContent === 'moslim-lab train --preset quick'").await?;
    assert_eq!(browser.js("document.querySelector('#draft').classList.contains('gone')").await?, true);
    browser.click("[data-depth=Everything]").await?;
    browser.fill("#field-policy-prompts", "24").await?;
    browser.wait("document.querySelector('#command').textContent === 'moslim-lab train --config run.toml'").await?;
    browser.goto(&form).await?;
    browser.wait(&format!("{PROMPTS} === '24' && !document.querySelector('#draft').classList.contains('gone')")).await?;
    browser.click("#forget-draft").await?;
    browser.wait("document.querySelector('#changes').children.length === 0").await?;
    browser.reload().await?;
    browser.wait("document.querySelector('#start-run')?.disabled === false").await?;
    assert_eq!(browser.js("document.querySelector('#draft').classList.contains('gone')").await?, true);
    // The file that the server writes is one that the page reads.
    let written = lab.post("/api/v1/config/toml", &json!({"config": {"preset": "quick", "policy": {"prompts": 20}}})).await;
    let place = Place::new();
    let file = place.file("own.toml", written.body["toml"].as_str().context("TOML")?);
    browser.choose("#open-config", &file).await?;
    browser.wait(&format!("{PROMPTS} === '20'")).await?;
    browser.choose("#open-config", &place.file("bad.toml", "[policy]\nprompts = \"many\"\n")).await?;
    browser.wait("document.querySelector('#files .problem').textContent.includes('policy.prompts')").await?;
    let others: Vec<String> = browser.errors().await?.into_iter().filter(|e| !e.contains("/api/v1/config/read")).collect();
    assert_eq!(others, Vec::<String>::new());
    browser.quit().await
}

/// From a run to one like it, and to a fork that goes on from its checkpoint with fewer iterations.
#[tokio::test]
async fn a_run_is_copied_and_forked_from_its_page() -> Result<()> {
    const FORK: &str = "document.querySelector('#fork')";
    const CHANGES: &str = "[...document.querySelectorAll('#changes code')].map(e => e.textContent)";
    let lab = Lab::start().await;
    let browser = lab.browser().await?;
    let config = RunConfig { name: "First".into(), ..long_run(4_000) };
    let id = lab.start_run(&config).await;
    lab.wait_for_policy(&id, config.policy.checkpoint_every + 1).await;
    assert_eq!(lab.post(&format!("/api/v1/runs/{id}/cancel"), &json!({})).await.status, 202);
    lab.wait_for_end(&id).await;

    browser.goto(&format!("{}/runs/{id}", lab.origin())).await?;
    browser.wait("document.querySelector('#fork-it')?.classList.contains('gone') === false").await?;
    browser.click("#like-it").await?;
    browser.wait("document.querySelector('#field-policy-iterations')?.value === '4000'").await?;
    assert_eq!(browser.js(&format!("{FORK}.classList.contains('gone')")).await?, true);
    // It is compared with that run, from which it does not differ yet.
    browser.wait(&format!("{CHANGES}.length === 0")).await?;
    browser.fill("#field-policy-iterations", "9").await?;
    browser.wait(&format!("{CHANGES}.join() === 'policy.iterations'")).await?;
    // With the preset, and with the run again.
    let compare = |with: &str| {
        format!(
            "(s => {{ s.value = '{with}'; s.dispatchEvent(new Event('change', {{ bubbles: true }})); return true; }})(document.querySelector('#compared-with'))"
        )
    };
    browser.js(&compare("")).await?;
    browser.wait(&format!("{CHANGES}.length > 1 && {CHANGES}.includes('policy.iterations')")).await?;
    browser.js(&compare(&id)).await?;
    browser.wait(&format!("{CHANGES}.join() === 'policy.iterations'")).await?;

    browser.goto(&format!("{}/configure?fork={id}", lab.origin())).await?;
    browser.wait(&format!("{FORK}?.textContent.includes('{id}') && !{FORK}.classList.contains('gone')")).await?;
    browser.fill("#field-seed", "77").await?;
    browser.wait("document.querySelector('#start-run')?.disabled === false").await?;
    browser.click("#start-run").await?;
    browser.wait("document.querySelector('#start [role=alert]')?.textContent.includes('a fork keeps')").await?;
    browser.fill("#field-seed", "1").await?;
    browser.fill("#field-policy-iterations", "8").await?;
    browser.wait("document.querySelector('#start-run')?.disabled === false").await?;
    browser.click("#start-run").await?;
    browser.wait("location.pathname.startsWith('/runs/')").await?;
    browser.wait(&format!("document.querySelector('#facts')?.textContent.includes('Forked from{id}')")).await?;
    browser.wait(&format!("{STATUS} === 'finished'")).await?;
    let others: Vec<String> = browser.errors().await?.into_iter().filter(|e| !e.contains("422")).collect();
    assert_eq!(others, Vec::<String>::new());
    browser.quit().await
}

/// The lesson in the second language: by the address, by the button, and kept.
#[tokio::test]
async fn every_page_is_read_in_chinese_and_back() -> Result<()> {
    const TITLE: &str = "document.querySelector('h1')?.textContent";
    const LANGUAGE: &str = "document.documentElement.lang";
    let lab = Lab::start().await;
    let browser = lab.browser().await?;
    let lesson = format!("{}/learn", lab.origin());
    browser.goto(&format!("{lesson}?station=4&lang=zh")).await?;
    browser.wait(&format!("{TITLE}?.includes('提示词') && {LANGUAGE} === 'zh-CN'")).await?;
    browser.click("[data-toy=step]").await?;
    browser.wait("document.querySelector('#toy').textContent.includes('第 1 步')").await?;
    // No English is left in what is read, but for names.
    let left = "[...document.querySelectorAll('.station p, .station h2, .station label, .station button')] \
                .map(e => e.textContent).filter(t => /[a-z]{4}/.test(t))";
    assert_eq!(browser.js(left).await?, json!([]));
    browser.click("#language").await?;
    browser
        .wait(&format!("{TITLE} === 'How a model learns to do what its prompt asks' && location.search === '?station=4'"))
        .await?;
    browser.click("#language").await?;
    browser.wait(&format!("{LANGUAGE} === 'zh-CN'")).await?;
    // The choice is kept, and every page has its headings, labels and buttons in Chinese; what is English there comes from data.
    let run = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&run).await;
    let pages = [
        "/".to_string(),
        "/configure".into(),
        format!("/playground?in={run}"),
        format!("/compare?runs={run}"),
        format!("/runs/{run}"),
        "/studies".into(),
        "/data".into(),
        "/models".into(),
    ];
    for page in pages {
        browser.goto(&format!("{}{page}", lab.origin())).await?;
        browser.wait("document.querySelector('nav a')?.textContent === '首页'").await?;
        browser.wait("!!document.querySelector('main h2, main .empty')").await?;
        let left = "[...document.querySelectorAll('main h1:not(#run-name), main h2, main button.button, main label, main .empty')] \
                    .map(e => e.textContent.trim()).filter(t => t.length > 3 && !/[\\u4e00-\\u9fff]/.test(t) && /[a-z]{4}/.test(t))";
        let left: Vec<String> = serde_json::from_value(browser.js(left).await?)?;
        let allowed =
            ["Helpfulness", "Harmlessness", "Honesty", "Verbosity", "How do I", "MOSLIM", "Rewards-in-Context", "Alpha"];
        let left: Vec<String> = left.into_iter().filter(|text| !allowed.iter().any(|a| text.contains(a))).collect();
        assert_eq!(left, Vec::<String>::new(), "on {page}");
    }
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}
