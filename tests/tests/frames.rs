//! How smoothly pages move on this machine, which is a measurement and no test: `cargo lab bench --frames` prints it.

use anyhow::{Context, Result, ensure};
use moslim_shared::event::{Event, EventBody, PolicyStep, Stage};
use moslim_tests::{Browser, Lab, copy_run, hold, long_run, policy_steps, smoke};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long each page is watched.
const WATCHED: Duration = Duration::from_secs(12);
/// Runs beside each other: some, and as many as the page compares.
const SOME: usize = 8;
const MOST: usize = 50;
/// Whether a page has drawn charts.
const SEEN: &str = "[...document.querySelectorAll('canvas:not(.gone)')].filter(c => c.width).length >= 4";
/// Points of the long curve.
const POINTS: usize = 1_000_000;

/// Watches a page, and prints what it takes.
async fn watch(browser: &Browser, what: &str) -> Result<()> {
    // What was said before is read first.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let charts = browser
        .js("[...document.querySelectorAll('canvas')].filter(c => { const r = c.getBoundingClientRect(); return r.bottom > 0 && r.top < innerHeight; }).length")
        .await?;
    browser
        .js("(() => { const own = window.frames_seen = []; let last = performance.now(); \
             const next = now => { if (own !== window.frames_seen) return; own.push(now - last); last = now; requestAnimationFrame(next); }; \
             requestAnimationFrame(next); })()")
        .await?;
    let before = browser.usage().await?;
    let began = Instant::now();
    tokio::time::sleep(WATCHED).await;
    let after = browser.usage().await?;
    let seconds = began.elapsed().as_secs_f64();
    let frames: Vec<f64> = serde_json::from_value(browser.js("window.frames_seen.slice(1)").await?)?;
    let mut sorted = frames.clone();
    sorted.sort_by(f64::total_cmp);
    let worst = sorted.get(sorted.len() * 99 / 100).context("no frame at all")?;
    println!(
        "{what}: {charts} charts in sight, {:.1} frames a second, {:.1} ms of main thread a frame, 99 of 100 within {worst:.0} ms, heap {:.1} to {:.1} MiB",
        frames.len() as f64 / seconds,
        1e3 * (after.busy - before.busy) / frames.len() as f64,
        before.heap / 1_048_576.0,
        after.heap / 1_048_576.0,
    );
    Ok(())
}

/// The journal of a finished run without its end, and its last policy step.
fn unfinished(events: &[Event]) -> (Vec<Event>, PolicyStep) {
    let last = events.iter().rposition(|e| matches!(e.body, EventBody::Policy { .. })).expect("policy steps");
    let EventBody::Policy { step, .. } = &events[last].body else { unreachable!("it was looked for") };
    (events[..=last].to_vec(), step.clone())
}

fn lines(events: &[Event]) -> String {
    events.iter().map(|e| serde_json::to_string(e).expect("JSON") + "\n").collect()
}

/// What adds steps to the journals of some runs.
struct Feeder {
    end: Arc<AtomicBool>,
    /// The last step.
    newest: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Feeder {
    /// Adds a step to each of the journals, ten times a second, until told to end. It is what trains the runs: a journal at rest is looked at
    /// now and then only.
    fn start(folders: &[PathBuf], first: Event, step: PolicyStep) -> Result<Self> {
        let locks = folders.iter().map(|folder| hold(folder)).collect::<std::io::Result<Vec<File>>>()?;
        let journals = folders.iter().map(|folder| folder.join("events.jsonl")).collect();
        let (end, newest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(step.step)));
        let (told, tells) = (end.clone(), newest.clone());
        let thread = std::thread::spawn(move || {
            feed(journals, first, step, (told, tells));
            drop(locks);
        });
        Ok(Self { end, newest, thread })
    }

    /// Opens a page and waits until it shows what all the runs say now, with `words` about a chart.
    async fn show(&self, browser: &Browser, address: &str, words: &str) -> Result<()> {
        let began = Instant::now();
        browser.goto(address).await?;
        browser.wait(SEEN).await?;
        let shown = format!(
            "Math.max(0, ...[...document.querySelectorAll('canvas')].map(c => c.getAttribute('aria-label') || '').filter(l => l.includes('{words}')).map(l => +(l.match(/step ([0-9]+)/)?.[1] || 0)))"
        );
        loop {
            let newest = self.newest.load(Ordering::Relaxed);
            if browser.js(&shown).await?.as_f64().is_some_and(|step| step + 20.0 >= newest as f64) {
                break;
            }
            ensure!(began.elapsed() < Duration::from_secs(60), "the page has not caught up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("  everything was shown {:.1} s after the page was opened", began.elapsed().as_secs_f64());
        Ok(())
    }

    fn stop(self) {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().expect("the feeder ends");
    }
}

fn feed(journals: Vec<PathBuf>, first: Event, step: PolicyStep, (end, newest): (Arc<AtomicBool>, Arc<AtomicUsize>)) {
    let mut seq = first.seq;
    while !end.load(Ordering::Relaxed) {
        seq += 1;
        let moved = PolicyStep { step: step.step + (seq - first.seq) as usize, reward: (seq as f64 / 9.0).sin(), ..step.clone() };
        newest.store(moved.step, Ordering::Relaxed);
        let total = 100_000;
        let line = lines(&[Event { seq, time: first.time + seq, body: EventBody::Policy { part: None, total, step: moved } }]);
        for journal in &journals {
            let _ = OpenOptions::new().append(true).open(journal).and_then(|mut file| file.write_all(line.as_bytes()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test]
#[ignore = "a measurement: cargo lab bench --frames"]
async fn how_smoothly_pages_move() -> Result<()> {
    let lab = Lab::start().await;
    let id = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&id).await;
    let events = lab.events(&id).await;
    let (head, step) = unfinished(&events);
    let runs = lab.data().join("runs");
    let own = runs.join(&id);

    // Runs that say something ten times a second, after two thousand steps each.
    let end = head.last().context("an event")?.clone();
    let many: Vec<Event> = (1..=2_000)
        .map(|n| {
            let step = PolicyStep { step: step.step + n, reward: (n as f64 / 50.0).sin(), ..step.clone() };
            Event {
                seq: end.seq + n as u64,
                time: end.time + n as u64,
                body: EventBody::Policy { part: None, total: 100_000, step },
            }
        })
        .collect();
    let journal = format!("{}{}", lines(&head), lines(&many));
    let copies = |name: &str, count: usize| -> Result<Vec<PathBuf>> {
        let copies: Vec<PathBuf> = (0..count).map(|n| runs.join(format!("{name}-{n}"))).collect();
        copies.iter().try_for_each(|to| copy_run(&own, to, &journal))?;
        Ok(copies)
    };
    let (some, most) = (copies("some", SOME)?, copies("most", MOST)?);
    // A supervised stage of very many steps.
    let began = head.iter().position(|e| matches!(&e.body, EventBody::Loss { .. })).context("a loss")?;
    let losses = (1..=POINTS).map(|n| {
        let body = EventBody::Loss {
            stage: Stage::Sft,
            part: None,
            step: n,
            total: POINTS,
            loss: 2.0 + (n as f64 / 1e4).sin(),
            rate: 99.0,
        };
        Event { seq: head[began].seq + n as u64, time: head[began].time + n as u64, body }
    });
    let long = format!("{}{}", lines(&head[..began]), lines(&losses.collect::<Vec<_>>()));
    copy_run(&own, &runs.join("long"), &long)?;

    let browser = lab.browser().await?;
    browser.screen(1440, 2400, "light").await?;
    let last = many.last().context("a step")?.clone();
    let EventBody::Policy { step: newest, .. } = &last.body else { unreachable!("they are steps") };
    let fed = |copies: &[PathBuf]| Feeder::start(copies, last.clone(), newest.clone());
    let compare = |name: &str, count: usize| {
        let all: Vec<String> = (0..count).map(|n| format!("{name}-{n}")).collect();
        format!("{}/compare?runs={}", lab.origin(), all.join(","))
    };
    let feeder = fed(&some)?;
    feeder.show(&browser, &format!("{}/runs/some-0", lab.origin()), "").await?;
    browser.js("document.querySelector('#learning')?.scrollIntoView()").await?;
    watch(&browser, "A run that says ten steps a second").await?;
    feeder.show(&browser, &compare("some", SOME), "").await?;
    browser.js("document.querySelector('#curves-title').scrollIntoView()").await?;
    watch(&browser, "Eight such runs compared").await?;
    feeder.stop();

    let feeder = fed(&most)?;
    // A median of fewer is drawn as soon as they are there.
    feeder.show(&browser, &compare("most", MOST), &format!("median of {MOST} seeds")).await?;
    browser.js("document.querySelector('#curves-title').scrollIntoView()").await?;
    watch(&browser, "Fifty such runs compared, as seeds of the same settings").await?;
    browser.js("document.querySelector('.chosen .check input').click()").await?;
    browser.js("document.querySelector('#curves-title').scrollIntoView()").await?;
    watch(&browser, "Fifty such runs compared, each by itself").await?;
    feeder.stop();

    browser.goto(&format!("{}/runs/long", lab.origin())).await?;
    let chart = "document.querySelector('#chart-sft canvas:not(.gone)')";
    browser.wait(&format!("!!{chart}?.width")).await?;
    browser.js(&format!("{chart}.scrollIntoView({{ block: 'center', behavior: 'instant' }})")).await?;
    browser
        .js(&format!(
            "(() => {{ window.zooms = []; const c = {chart}; const r = c.getBoundingClientRect(); let n = 0; \
             const zoom = () => {{ const t = performance.now(); \
             c.dispatchEvent(new WheelEvent('wheel', {{ deltaY: n++ % 20 < 10 ? -120 : 120, clientX: r.left + r.width / 2, clientY: r.top + r.height / 2, bubbles: true, cancelable: true }})); \
             requestAnimationFrame(() => setTimeout(() => {{ window.zooms.push(performance.now() - t); if (n < 60) zoom(); }})); }}; zoom(); }})()"
        ))
        .await?;
    let zooms = browser.wait("window.zooms.length >= 60 && window.zooms").await?;
    let mut zooms: Vec<f64> = serde_json::from_value(zooms)?;
    zooms.sort_by(f64::total_cmp);
    println!(
        "A curve of {POINTS} points, from the wheel to the picture: median {:.1} ms, longest {:.1} ms",
        zooms[30], zooms[59]
    );

    // The same page while a run really trains beside it.
    let live = lab.start_run(&long_run(1_000_000)).await;
    browser.goto(&format!("{}/runs/{live}", lab.origin())).await?;
    let steps = async || policy_steps(&lab.events(&live).await).len() > 50;
    while !steps().await {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    browser.wait(SEEN).await?;
    watch(&browser, "A run that trains on this machine meanwhile").await?;
    browser.quit().await
}
