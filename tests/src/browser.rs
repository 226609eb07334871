//! Chromium, driven through ChromeDriver.

use crate::process::{LIMIT, Process, kill_processes, text, wait_until};
use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use thirtyfour::LoggingPrefsLogLevel;
use thirtyfour::error::WebDriverErrorInner;
use thirtyfour::prelude::*;

const FLAGS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // Without it the page scrolls smoothly, and a click may hit what was there before.
    "--force-prefers-reduced-motion",
];

/// Longest time that a promise of the page is waited for; a request to ChromeDriver may take no longer than [`LIMIT`].
const PATIENCE: Duration = Duration::from_secs(110);

/// What a page takes.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Seconds of its main thread.
    pub busy: f64,
    /// Bytes that its scripts keep.
    pub heap: f64,
}

/// Longest time that a page which fills may hide what it has: a second, as it promises, and what a busy machine adds.
const HIDDEN: Duration = Duration::from_secs(10);

/// Does what needs an element to be visible, as a person does: one waits until it is, and does not see that it was drawn anew.
async fn shown<F: Future<Output = WebDriverResult<()>>>(act: impl Fn() -> F) -> WebDriverResult<()> {
    let began = Instant::now();
    loop {
        let done = act().await;
        match done.as_ref().map_err(WebDriverError::as_inner) {
            Err(WebDriverErrorInner::ElementNotInteractable(_) | WebDriverErrorInner::StaleElementReference(_))
                if began.elapsed() < HIDDEN =>
            {
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            _ => return done,
        }
    }
}

/// A tab of a browser.
#[derive(Debug, Clone)]
pub struct Tab(WindowHandle);

/// A browser with a profile of its own. It is killed when this is dropped.
pub struct Browser {
    driver: Option<WebDriver>,
    chromedriver: Process,
    profile: TempDir,
}

impl Browser {
    /// Starts ChromeDriver on a free port, and a browser through it.
    ///
    /// # Errors
    /// When the browser does not start.
    pub async fn open() -> Result<Self> {
        Self::open_with(&[]).await
    }

    /// The same, with more of Chromium's options.
    ///
    /// # Errors
    /// When the browser does not start.
    pub async fn open_with(flags: &[&str]) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut chromedriver = Process::start(Path::new("chromedriver"), &["--port=0"], "");
        let port: u16 = wait_until("chromedriver to listen", || {
            if !chromedriver.running() {
                // It chooses a port, and binds it to IPv4 and IPv6 one after the other: another program may be in between.
                assert!(chromedriver.stderr().contains("in use"), "chromedriver ended at once:\n{}", chromedriver.stderr());
                chromedriver = Process::start(Path::new("chromedriver"), &["--port=0"], "");
            }
            let said = chromedriver.stdout();
            let (_, rest) = said.split_once("started successfully on port ")?;
            rest.split_once('.')?.0.parse().ok()
        })
        .await;
        let mut browser = Self { driver: None, chromedriver, profile };
        let mut capabilities = DesiredCapabilities::chrome();
        for flag in FLAGS.iter().chain(flags) {
            capabilities.add_arg(flag)?;
        }
        capabilities.add_arg(&format!("--user-data-dir={}", text(browser.profile.path())))?;
        capabilities.set_browser_log_level(LoggingPrefsLogLevel::All)?;
        let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), capabilities).await.context("starting Chromium")?;
        browser.driver = Some(driver);
        Ok(browser)
    }

    fn driver(&self) -> Result<&WebDriver> {
        self.driver.as_ref().context("the browser is closed")
    }

    /// Closes the browser.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn quit(mut self) -> Result<()> {
        if let Some(driver) = self.driver.take() {
            driver.quit().await?;
        }
        Ok(())
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub async fn goto(&self, url: &str) -> Result<()> {
        self.driver()?.goto(url).await.with_context(|| format!("going to {url}"))
    }

    /// Loads the page anew.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub async fn reload(&self) -> Result<()> {
        Ok(self.driver()?.refresh().await?)
    }

    /// The value of a JavaScript expression.
    ///
    /// # Errors
    /// When it throws.
    pub async fn js(&self, expression: &str) -> Result<Value> {
        let script = format!("return {expression};");
        let returned = self.driver()?.execute(script.as_str(), Vec::<Value>::new()).await;
        Ok(returned.with_context(|| format!("evaluating {expression}"))?.json().clone())
    }

    /// Runs a whole script in the page. What the page's own rules forbid it to load is no hindrance.
    ///
    /// # Errors
    /// When it throws.
    pub async fn inject(&self, script: &str) -> Result<()> {
        self.driver()?.execute(script, Vec::<Value>::new()).await.context("running a script in the page")?;
        Ok(())
    }

    /// What the promise comes to that a JavaScript expression makes.
    ///
    /// # Errors
    /// When it throws, is rejected, or is not kept within [`PATIENCE`].
    pub async fn promised(&self, expression: &str) -> Result<Value> {
        let script = format!(
            "const done = arguments[arguments.length - 1]; \
             Promise.resolve({expression}).then(value => done({{ value }}), error => done({{ error: String(error) }}));"
        );
        self.driver()?.set_script_timeout(PATIENCE).await?;
        let returned = self.driver()?.execute_async(script.as_str(), Vec::<Value>::new()).await;
        let mut answer = returned.with_context(|| format!("evaluating {expression}"))?.json().clone();
        ensure!(answer["error"].is_null(), "{expression}: {}", answer["error"]);
        Ok(answer["value"].take())
    }

    /// Waits until a JavaScript expression is neither false nor null; returns its value.
    ///
    /// # Errors
    /// When it is not within [`LIMIT`], or throws.
    pub async fn wait(&self, expression: &str) -> Result<Value> {
        self.wait_at_most(LIMIT, expression).await
    }

    /// The same, with a limit of one's own.
    ///
    /// # Errors
    /// When it is not in time, or throws.
    pub async fn wait_at_most(&self, limit: Duration, expression: &str) -> Result<Value> {
        let began = Instant::now();
        loop {
            let value = self.js(expression).await?;
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return Ok(value);
            }
            if began.elapsed() > limit {
                let page = self.js("location.href + '\\n' + document.body.innerText").await?;
                bail!("waited in vain for {expression}; the page is {}", page.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    /// Clicks on an element as a person does: it has to be visible and not covered.
    ///
    /// # Errors
    /// When it is not.
    pub async fn click(&self, selector: &str) -> Result<()> {
        let driver = self.driver()?;
        shown(|| async { driver.find(By::Css(selector)).await?.click().await })
            .await
            .with_context(|| format!("clicking on {selector}"))
    }

    /// Chooses a file, as in the system's own window.
    ///
    /// # Errors
    /// When there is no such input.
    pub async fn choose(&self, selector: &str, file: &str) -> Result<()> {
        let element = self.driver()?.find(By::Css(selector)).await?;
        element.send_keys(file).await.with_context(|| format!("choosing a file for {selector}"))
    }

    /// Types a text in place of what is in an input.
    ///
    /// # Errors
    /// When there is no such input.
    pub async fn fill(&self, selector: &str, typed: &str) -> Result<()> {
        let driver = self.driver()?;
        let all = || async { driver.find(By::Css(selector)).await?.send_keys(Key::Control + "a").await };
        shown(all).await.with_context(|| format!("choosing what is in {selector}"))?;
        driver.find(By::Css(selector)).await?.send_keys(typed).await.with_context(|| format!("typing into {selector}"))
    }

    /// Presses a key as a person does: it goes to whatever has the keyboard's focus.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn press(&self, key: impl Into<char>) -> Result<()> {
        let key: char = key.into();
        self.driver()?.action_chain().key_down(key).key_up(key).perform().await.context("pressing a key")
    }

    /// Has the page behave as one whose window has the keyboard, also after Tab has led out of it into the browser's own bars.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn keep_focus(&self) -> Result<()> {
        self.driver()?.cdp().send_raw("Emulation.setFocusEmulationEnabled", json!({ "enabled": true })).await?;
        Ok(())
    }

    /// Sets the size of the screen and the system's colour scheme.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn screen(&self, width: u32, height: u32, scheme: &str) -> Result<()> {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        let devtools = self.driver()?.cdp();
        devtools.send_raw("Emulation.setDeviceMetricsOverride", size).await?;
        devtools.send_raw("Emulation.setEmulatedMedia", media).await?;
        Ok(())
    }

    /// What is on the screen, of `size` in pixels, as a PNG that is so many times as large.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn picture(&self, (width, height): (u32, u32), scale: f64) -> Result<Vec<u8>> {
        // Where the page is scrolled to is what a person sees.
        let top = self.js("Math.round(scrollY)").await?;
        let clip = json!({ "x": 0, "y": top, "width": width, "height": height, "scale": scale });
        let asked = json!({ "format": "png", "clip": clip });
        let answer = self.driver()?.cdp().send_raw("Page.captureScreenshot", asked).await?;
        let data = answer["data"].as_str().context("the browser sends no picture")?;
        Ok(base64::engine::general_purpose::STANDARD.decode(data)?)
    }

    /// Sets how many bytes an origin may keep; `None` for what the browser gives by itself.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn room(&self, origin: &str, bytes: Option<u64>) -> Result<()> {
        let mut asked = json!({ "origin": origin });
        if let Some(bytes) = bytes {
            asked["quotaSize"] = bytes.into();
        }
        self.driver()?.cdp().send_raw("Storage.overrideQuotaForOrigin", asked).await?;
        Ok(())
    }

    /// The tab that is in front.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn tab(&self) -> Result<Tab> {
        Ok(Tab(self.driver()?.window().await?))
    }

    /// Opens another tab, which is in front then.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn new_tab(&self) -> Result<Tab> {
        let tab = Tab(self.driver()?.new_tab().await?);
        self.turn_to(&tab).await?;
        Ok(tab)
    }

    /// Brings a tab to the front.
    ///
    /// # Errors
    /// When it is closed.
    pub async fn turn_to(&self, tab: &Tab) -> Result<()> {
        let driver = self.driver()?;
        driver.switch_to_window(tab.0.clone()).await?;
        driver.cdp().send_raw("Page.bringToFront", json!({})).await?;
        Ok(())
    }

    /// Opens a second tab in front of this one, does something, and comes back.
    ///
    /// # Errors
    /// When the browser refuses, or what is done meanwhile fails.
    pub async fn hidden(&self, meanwhile: impl Future<Output = Result<()>>) -> Result<()> {
        let driver = self.driver()?;
        let own = driver.window().await?;
        let other = driver.new_tab().await?;
        driver.switch_to_window(other).await?;
        meanwhile.await?;
        driver.close_window().await?;
        Ok(driver.switch_to_window(own).await?)
    }

    /// What the page has taken so far.
    ///
    /// # Errors
    /// When the browser refuses.
    pub async fn usage(&self) -> Result<Usage> {
        let devtools = self.driver()?.cdp();
        devtools.send_raw("Performance.enable", json!({})).await?;
        let answer = devtools.send_raw("Performance.getMetrics", json!({})).await?;
        let all = answer["metrics"].as_array().context("no metrics")?;
        let of = |name: &str| all.iter().find(|m| m["name"] == name).and_then(|m| m["value"].as_f64()).context("a metric");
        Ok(Usage { busy: of("TaskDuration")?, heap: of("JSHeapUsedSize")? })
    }

    /// Errors on the console since the last call: exceptions, refused contents, failed requests.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn errors(&self) -> Result<Vec<String>> {
        let entries = self.driver()?.browser_log().await?;
        Ok(entries.into_iter().filter(|entry| entry.level == "SEVERE").map(|entry| entry.message).collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            // The test failed. The processes are ended below; asking for it politely might take minutes.
            let _ = driver.leak();
        }
        self.chromedriver.kill();
        kill_processes(&[text(self.profile.path())]);
    }
}
