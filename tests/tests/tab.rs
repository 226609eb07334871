//! The lab in a browser's tab: static files, and nobody who answers.

use anyhow::{Result, ensure};
use moslim_tests::{Browser, Site};

const STATUS: &str = "document.querySelector('#run-status')?.dataset.status";

async fn wait_for_status(browser: &Browser, status: &str) -> Result<()> {
    browser.wait(&format!("{STATUS} === '{status}'")).await.map(|_| ())
}

/// What a second worker of the same origin says first.
const SECOND: &str = "(() => { if (window.second === undefined) { window.second = null; \
     const worker = new Worker(document.documentElement.dataset.base + 'tab/worker.js', { type: 'module', name: 'desk' }); \
     worker.onmessage = (event) => { window.second = JSON.parse(event.data); }; } return window.second; })()";

/// A condition: the first stage has begun.
const TRAINS: &str = "document.querySelector('li[data-stage=sft]')?.dataset.state === 'running'";

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

    let second = browser.wait(SECOND).await?;
    let message = second["failed"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("another tab"), "a second tab is told {second}");
    browser.quit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_a_tab_is_left_found_again_resumed_and_cancelled() -> Result<()> {
    let (site, browser) = (Site::start().await, Browser::open().await?);
    browser.goto(&site.url("?preset=tab")).await?;
    browser.wait("!!document.querySelector('#start-demo')").await?;
    browser.click("#start-demo").await?;
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
