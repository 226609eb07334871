//! Charts on the page, and the files that they are saved as.

use crate::Browser;
use anyhow::{Context, Result};

/// Waits until a chart has data, and scrolls to it.
///
/// # Errors
/// When it has none in time.
pub async fn chart(browser: &Browser, id: &str) -> Result<()> {
    let there = format!(
        "(() => {{ const c = document.querySelector('#{id} canvas:not(.gone)'); c?.scrollIntoView({{ block: 'center', behavior: 'instant' }}); return !!c?.width; }})()"
    );
    browser.wait(&there).await.map(|_| ())
}

/// Catches the next file that the page makes; [`caught`] is its text.
///
/// # Errors
/// When the browser does not answer.
pub async fn catch_next_file(browser: &Browser) -> Result<()> {
    let hook = "(() => { const make = URL.createObjectURL; window.caught_file = null; \
        URL.createObjectURL = (blob) => { blob.text().then(text => { window.caught_file = text; }); \
        URL.createObjectURL = make; return make.call(URL, blob); }; })()";
    browser.js(hook).await.map(|_| ())
}

/// The file that was caught.
///
/// # Errors
/// When the page makes none.
pub async fn caught(browser: &Browser) -> Result<String> {
    Ok(browser.wait("window.caught_file").await?.as_str().context("a text")?.to_string())
}

/// Clicks on a chart's file of a kind, and catches it.
///
/// # Errors
/// When the page makes none.
pub async fn saved(browser: &Browser, id: &str, kind: &str) -> Result<String> {
    catch_next_file(browser).await?;
    browser.js(&format!("document.querySelector('#{id} [data-save={kind}]').click()")).await?;
    caught(browser).await
}
