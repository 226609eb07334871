//! The lab in a browser's tab: static files, and nobody who answers.

use anyhow::{Context, Result, ensure};
use moslim_shared::summary::RunSummary;
use moslim_tests::{Browser, Place, Process, Site, binary, smoke, text};
use serde_json::{Value, json};
use std::io::Read;
use std::time::Instant;

const STATUS: &str = "document.querySelector('#run-status')?.dataset.status";

async fn wait_for_status(browser: &Browser, status: &str) -> Result<()> {
    browser.wait(&format!("{STATUS} === '{status}'")).await.map(|_| ())
}

/// What a second worker of the same origin says first.
const SECOND: &str = "(() => { if (window.second === undefined) { window.second = null; \
     const worker = new Worker(document.documentElement.dataset.base + 'tab/worker.js', { type: 'module', name: 'desk' }); \
     worker.onmessage = (event) => { window.second = JSON.parse(event.data); }; } return window.second; })()";

/// Opens the first page and starts the demo with a preset.
async fn start_demo(site: &Site, browser: &Browser, preset: &str) -> Result<()> {
    browser.goto(&site.url(&format!("?preset={preset}"))).await?;
    browser.wait("!!document.querySelector('#start-demo')").await?;
    browser.click("#start-demo").await
}

/// A condition: the first stage has begun.
const TRAINS: &str = "document.querySelector('li[data-stage=sft]')?.dataset.state === 'running'";

/// Clicks on "Save the run as a file", and catches the file on its way to the disk.
const SAVED: &str = "(() => { if (window.saved === undefined) { window.saved = null; const make = URL.createObjectURL; \
     URL.createObjectURL = (blob) => { blob.arrayBuffer().then(b => { window.saved = [...new Uint8Array(b)]; }); return make.call(URL, blob); }; \
     document.querySelector('#save-run').click(); } return window.saved; })()";

/// Loss of every step of SFT, as a journal has them.
fn losses(journal: &str) -> Result<Vec<f64>> {
    let events = journal.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let loss = |e: &Value| {
        let loss = &e["body"]["loss"];
        (loss["stage"] == "sft").then(|| loss["loss"].as_f64())?
    };
    Ok(events.iter().filter_map(loss).collect())
}

/// The tab has drawn the same rows and computed the same losses as the native program, as far as rounding goes.
fn agree(place: &Place) -> Result<()> {
    let data = place.data();
    let tab = std::fs::read_dir(data.join("runs"))?.next().context("a run")??.path();
    let args = ["train", "--preset", "smoke", "--run", "native", "--device", "cpu", "--data", text(&data)];
    let output = Process::lab(&args).wait();
    ensure!(output.code == Some(0), "{}", output.stderr);
    let [tab, native] = [tab, data.join("runs/native")].map(|run| std::fs::read_to_string(run.join("events.jsonl")));
    let (tab, native) = (losses(&tab?)?, losses(&native?)?);
    ensure!(!tab.is_empty() && tab.len() == native.len(), "{} losses in a tab, {} natively", tab.len(), native.len());
    let apart = |n: usize| (tab[n] - native[n]).abs() / native[n];
    ensure!(apart(0) < 1e-6, "the first loss is {} in a tab, {} natively", tab[0], native[0]);
    let last = tab.len() - 1;
    ensure!(apart(last) < 1e-3, "the last loss is {} in a tab, {} natively", tab[last], native[last]);
    Ok(())
}

/// The tab's run is asked in the tab, and grades an answer as the native program does.
async fn ask(browser: &Browser, place: &Place) -> Result<()> {
    browser.click("#ask-it").await?;
    browser.wait("document.querySelector('#ask-verbosity') !== null").await?;
    browser.click("#ask").await?;
    browser.wait("document.querySelectorAll('.lane .waterfall').length === 2").await?;
    let question = browser.js("document.querySelector('#question').value").await?;
    let own = "Boil fresh water. I am not sure.";
    browser.fill("#own-answer", own).await?;
    browser.click("#score-own").await?;
    let shares = "[...document.querySelectorAll('.own .columns')].map(o => [...o.children].map(c => Number(c.dataset.share)))";
    browser.wait(&format!("{shares}.length === 4")).await?;
    let tab: Vec<Vec<f64>> = serde_json::from_value(browser.js(shares).await?)?;
    let run = std::fs::read_dir(place.data().join("runs"))?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let run = run.into_iter().find(|name| name != "native").context("the tab's run")?;
    let data = place.data();
    let args = ["score", "--run", &run, "--device", "cpu", "--data", text(&data)];
    let line = json!({ "prompt": question, "response": own }).to_string() + "\n";
    let output = Process::start(&binary(), &args, &line).wait();
    ensure!(output.code == Some(0), "{}", output.stderr);
    let native: Value = serde_json::from_str(&output.stdout)?;
    for (name, tab) in ["helpfulness", "harmlessness", "honesty", "verbosity"].iter().zip(tab) {
        let native: Vec<f64> = serde_json::from_value(native["distributions"][name].clone())?;
        let apart = native.iter().zip(&tab).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        ensure!(native.len() == tab.len() && apart < 1e-4, "{name}: {native:?} natively, {tab:?} in the tab");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_trains_in_a_tab_without_a_network_and_is_there_after_a_reload() -> Result<()> {
    let (mut site, browser) = (Site::start().await, Browser::open().await?);
    browser.goto(&site.url("?preset=smoke")).await?;
    browser.wait("!!document.querySelector('#start-demo')").await?;
    browser.wait("(navigator.serviceWorker.ready.then(() => { window.kept = true; }), window.kept)").await?;
    site.stop().await;

    // From here on nobody answers.
    browser.reload().await?;
    browser.wait("!!document.querySelector('#start-demo')").await?;
    browser.click("#start-demo").await?;
    browser.wait("location.pathname.startsWith('/some/folder/runs/')").await?;
    wait_for_status(&browser, "finished").await?;
    let matrices = "document.querySelectorAll('table.matrix[data-who=policy]').length";
    browser.wait(&format!("{matrices} === 4")).await?;
    let shown = browser.js("[...document.querySelectorAll('table.matrix')].map(t => t.innerText)").await?;

    // The address of a run is no file: the first page is loaded, and goes there.
    browser.reload().await?;
    wait_for_status(&browser, "finished").await?;
    browser.wait(&format!("{matrices} === 4")).await?;
    assert_eq!(browser.js("[...document.querySelectorAll('table.matrix')].map(t => t.innerText)").await?, shown);

    // The run as a file, and what the native program makes of it.
    let file = browser.wait(SAVED).await?;
    let bytes: Vec<u8> = serde_json::from_value(file)?;
    let place = Place::new();
    let opened = Process::lab(&["runs", "open", &place.file("run.moslim-run", bytes), "--data", text(&place.data())]).wait();
    ensure!(opened.code == Some(0), "{}", opened.stderr);
    agree(&place)?;
    ask(&browser, &place).await?;

    let second = browser.wait(SECOND).await?;
    let message = second["failed"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("another tab"), "a second tab is told {second}");
    browser.quit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_a_tab_is_left_found_again_resumed_and_cancelled() -> Result<()> {
    let (site, browser) = (Site::start().await, Browser::open().await?);
    start_demo(&site, &browser, "tab").await?;
    browser.wait("location.pathname.startsWith('/some/folder/runs/')").await?;
    browser.wait(TRAINS).await?;
    // Left in the middle: its worker goes with the page.
    let address = browser.js("location.pathname").await?;
    browser.goto(&site.url("")).await?;
    browser.wait("document.querySelectorAll('a.run').length === 1").await?;
    browser.click("a.run").await?;
    browser.wait(&format!("location.pathname === {address}")).await?;
    wait_for_status(&browser, "interrupted").await?;
    browser.click("#resume").await?;
    wait_for_status(&browser, "running").await?;
    browser.click("#cancel").await?;
    wait_for_status(&browser, "cancelled").await?;
    browser.quit().await
}

/// Remembers, twice a second, the step that the page shows while nobody sees it.
const WATCHED: &str = "(() => { window.hid = []; setInterval(() => { const sft = document.querySelector('li[data-stage=sft] progress'); \
     if (document.hidden && sft) window.hid.push(sft.value); }, 500); return true; })()";

/// A host of static files that packs nothing can send what lies packed beside each of them.
#[test]
fn every_file_of_the_site_lies_there_packed_too() -> Result<()> {
    for name in ["index.html", "style.css", "zh.json", "sw.js", "moslim.js", "moslim_bg.wasm", "tab/moslim-tab_bg.wasm"] {
        let read = |end: &str| std::fs::read(Site::folder().join(format!("{name}{end}"))).with_context(|| format!("{name}{end}"));
        let (plain, gzipped, brotlied) = (read("")?, read(".gz")?, read(".br")?);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(gzipped.as_slice()).read_to_end(&mut unpacked)?;
        ensure!(unpacked == plain, "{name}.gz is another file than {name}");
        let [plain, gzipped, brotlied] = [plain, gzipped, brotlied].map(|bytes| bytes.len());
        ensure!(brotlied < gzipped && gzipped < plain, "{name}: {plain} bytes are {gzipped} and {brotlied}");
    }
    Ok(())
}

/// A class opens the site of `cargo lab learn`, and steers a policy that somebody else has trained.
#[tokio::test(flavor = "multi_thread")]
async fn a_trained_run_beside_the_page_is_opened_and_steered() -> Result<()> {
    let place = Place::new();
    let data = place.data();
    let config = place.file("config.json", serde_json::to_vec(&smoke())?);
    let train = ["train", "--run", "example", "--config", &config, "--data", text(&data)];
    ensure!(Process::lab(&train).wait().code == Some(0), "no run to begin with");
    let file = data.join("example.moslim-run");
    let packed = Process::lab(&["runs", "pack", "example", "--to", text(&file), "--data", text(&data)]).wait();
    ensure!(packed.code == Some(0), "{}", packed.stderr);
    let (site, browser) = (Site::with(Some(std::fs::read(&file)?)).await, Browser::open().await?);
    browser.goto(&site.url("?at=/learn")).await?;
    browser.wait("!!document.querySelector('#station-6 .example')").await?;
    browser.js("document.querySelector('#station-6 .example').click()").await?;
    browser
        .wait("location.pathname === '/some/folder/playground' && document.querySelectorAll('.lanes article').length === 2")
        .await?;
    browser.goto(&site.url("")).await?;
    // It is there already, and is opened and not fetched into a second one.
    browser.wait("!!document.querySelector('.example')").await?;
    browser.click(".example").await?;
    browser.wait("location.pathname === '/some/folder/runs/example'").await?;
    wait_for_status(&browser, "finished").await?;
    browser.quit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_tab_goes_on_training() -> Result<()> {
    let (site, browser) = (Site::start().await, Browser::open().await?);
    start_demo(&site, &browser, "tab").await?;
    browser.wait("document.querySelector('li[data-stage=sft] progress')?.value > 0").await?;
    browser.js(WATCHED).await?;
    browser
        .hidden(async {
            tokio::time::sleep(std::time::Duration::from_secs(8)).await;
            Ok(())
        })
        .await?;
    let seen: Vec<f64> = serde_json::from_value(browser.js("window.hid").await?)?;
    let (first, last) = (seen.first().context("it was never hidden")?, seen.last().context("it was never hidden")?);
    ensure!(last > first, "while it was hidden the page said {seen:?}");
    browser.quit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_storage_is_full_a_run_waits_for_room() -> Result<()> {
    let (site, browser) = (Site::start().await, Browser::open().await?);
    browser.goto(&site.url("?preset=smoke")).await?;
    browser.wait("!!document.querySelector('#start-demo')").await?;
    // Its files are open by then.
    browser.wait("document.querySelector('#runs .empty')?.textContent.startsWith('No run yet')").await?;
    let origin = browser.js("location.origin").await?;
    let origin = origin.as_str().context("an origin")?;
    // Less than a model's weights.
    let used = browser.wait("(navigator.storage.estimate().then(e => { window.used = e.usage; }), window.used ?? null)").await?;
    browser.room(origin, Some(used.as_u64().context("bytes")? + 60_000)).await?;
    browser.click("#start-demo").await?;
    wait_for_status(&browser, "interrupted").await?;
    let said = browser.js("document.body.innerText").await?;
    ensure!(said.as_str().unwrap_or_default().contains("make room in this browser's storage"), "{said}");
    browser.room(origin, None).await?;
    browser.click("#resume").await?;
    wait_for_status(&browser, "finished").await?;
    browser.quit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_lacks_is_said_on_every_page() -> Result<()> {
    let site = Site::start().await;
    let notice = "document.querySelector('#notice')?.textContent ?? null";
    // Chromium's lanes of 128 bits are those of SSE 4.1.
    let browser = Browser::open_with(&["--js-flags=--no-enable-sse4-1 --no-enable-ssse3"]).await?;
    browser.goto(&site.url("")).await?;
    let told = browser.wait(notice).await?;
    ensure!(told.as_str().unwrap_or_default().contains("has no WebAssembly SIMD"), "{told}");
    browser.click("nav a[href$='/learn']").await?;
    browser.wait("location.pathname.endsWith('/learn')").await?;
    ensure!(browser.js(notice).await? == told, "the lesson does not say it");
    browser.quit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_gets_no_more_memory_says_so_and_keeps_what_it_has() -> Result<()> {
    let site = Site::start().await;
    // Enough for the engine itself (32 pages of 64 KiB), not for training a model.
    let browser = Browser::open_with(&["--js-flags=--wasm-max-mem-pages=40"]).await?;
    start_demo(&site, &browser, "tab").await?;
    wait_for_status(&browser, "failed").await?;
    let said = browser.js("document.body.innerText").await?;
    ensure!(said.as_str().unwrap_or_default().contains("gives this tab no more memory"), "{said}");
    // The lab itself goes on.
    browser.goto(&site.url("")).await?;
    browser.wait("document.querySelectorAll('a.run').length === 1").await?;
    browser.quit().await
}

/// Not a test: how long the preset `tab` takes here, in a tab and in the native program on one thread and on two, for
/// `cargo lab bench --tab`. `MOSLIM_TAB_SEEDS` says how often, 1 unless it does.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; cargo lab bench --tab"]
async fn how_fast_a_tab_is() -> Result<()> {
    let seeds: u64 = std::env::var("MOSLIM_TAB_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let of = |s: &RunSummary| {
        let t = &s.seconds;
        let control = s.control.policy.mean_spearman();
        format!(
            "SFT {:.0}, reward model {:.0}, calibration {:.0}, policy {:.0}, evaluation {:.0}, total {:.0} s; rank correlation {control:.2}",
            t.sft, t.reward_model, t.calibration, t.policy, t.evaluation, t.total
        )
    };
    let (site, browser) = (Site::start().await, Browser::open().await?);
    for seed in 1..=seeds {
        let mut native = Vec::new();
        for threads in ["1", "2"] {
            let (data, seed) = (tempfile::tempdir()?, seed.to_string());
            let args = ["train", "--preset", "tab", "--seed", &seed, "--device", "cpu", "--json", "--data", text(data.path())];
            let output = Process::lab_in(&args, &[("RAYON_NUM_THREADS", threads)]).wait();
            let summary: RunSummary = serde_json::from_str(&output.stdout).with_context(|| output.stderr.clone())?;
            eprintln!("seed {seed}, native, {threads} threads: {}", of(&summary));
            native.push(summary.seconds.total);
        }
        browser.goto(&site.url(&format!("?preset=tab&seed={seed}"))).await?;
        browser.wait("!!document.querySelector('#start-demo')").await?;
        let began = Instant::now();
        browser.click("#start-demo").await?;
        browser.wait("document.querySelector('li[data-stage=sft]')?.dataset.state === 'running'").await?;
        let first = began.elapsed().as_secs_f64();
        let ended = ["finished", "failed", "interrupted"].map(|s| format!("{STATUS} === '{s}'")).join(" || ");
        while browser.js(&ended).await? != true {
            ensure!(began.elapsed().as_secs() < 1_800, "it takes more than half an hour");
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        let whole = began.elapsed().as_secs_f64();
        let summary =
            "decodeURIComponent(document.querySelector('a[download$=\".json\"]')?.href.split(',').slice(1).join(',') ?? '')";
        let summary = browser.wait(summary).await?;
        let summary: RunSummary = serde_json::from_str(summary.as_str().context("a summary")?)?;
        eprintln!("seed {seed}, tab: {}", of(&summary));
        eprintln!(
            "seed {seed}, tab: {whole:.0} s from the click to the summary, {first:.1} s to the first step, {:.2} of the native speed on one thread",
            native[0] / summary.seconds.total
        );
    }
    browser.quit().await
}
