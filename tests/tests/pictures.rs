//! `cargo lab pictures`: every page at four sizes in two colour schemes, and the demo as a short film. Not a test of anything: people look
//! at what comes of it.

use anyhow::{Context, Result, ensure};
use moslim_tests::pages::pages;
use moslim_tests::{Browser, Lab};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Where the pictures go.
const VARIABLE: &str = "MOSLIM_PICTURES";
/// A large screen, a small one, a tablet held upright, a phone.
const SIZES: [(u32, u32); 4] = [(1440, 900), (1024, 768), (768, 1024), (390, 844)];
const SCHEMES: [&str; 2] = ["light", "dark"];
/// Time for a page that is there to draw its charts.
const SETTLE: Duration = Duration::from_millis(900);

/// The film: the size of the screen, how much smaller a frame is, and how fast it goes.
const SCREEN: (u32, u32) = (1440, 900);
const SCALE: f64 = 0.6;
/// Time between two frames while the demo runs, and hundredths of a second that each is shown.
const EVERY: Duration = Duration::from_millis(1500);
const SHOWN: u16 = 12;
/// How much longer the last frame is shown.
const LAST: u16 = 30;
const LONGEST_RUN: Duration = Duration::from_secs(20 * 60);

const STATUS: &str = "document.querySelector('#run-status')?.dataset.status";

/// A film that is being made: each frame holds what has changed, and is see-through elsewhere.
struct Film {
    encoder: gif::Encoder<fs::File>,
    size: (u16, u16),
    before: Vec<u8>,
    /// The last frame, until it is known how long it is shown.
    waiting: Option<gif::Frame<'static>>,
}

impl Film {
    fn new(path: &Path, (width, height): (u32, u32)) -> Result<Self> {
        let size = (u16::try_from(width)?, u16::try_from(height)?);
        let mut encoder = gif::Encoder::new(fs::File::create(path)?, size.0, size.1, &[])?;
        encoder.set_repeat(gif::Repeat::Infinite)?;
        Ok(Self { encoder, size, before: Vec::new(), waiting: None })
    }

    /// Adds a picture of `[width * height * 4]` bytes.
    fn add(&mut self, picture: Vec<u8>) -> Result<()> {
        let (width, height) = self.size;
        let expected = 4 * usize::from(width) * usize::from(height);
        ensure!(picture.len() == expected, "a picture of {} bytes in a film of {expected}", picture.len());
        if picture == self.before {
            if let Some(frame) = &mut self.waiting {
                frame.delay = frame.delay.saturating_add(SHOWN);
            }
            return Ok(());
        }
        let mut changed = picture.clone();
        if !self.before.is_empty() {
            for (new, old) in changed.chunks_exact_mut(4).zip(self.before.chunks_exact(4)) {
                if new == old {
                    new.fill(0);
                }
            }
        }
        let frame = gif::Frame {
            delay: SHOWN,
            dispose: gif::DisposalMethod::Keep,
            ..gif::Frame::from_rgba_speed(width, height, &mut changed, 10)
        };
        self.before = picture;
        if let Some(last) = self.waiting.replace(frame) {
            self.encoder.write_frame(&last)?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        if let Some(mut last) = self.waiting.take() {
            last.delay = last.delay.saturating_mul(LAST);
            self.encoder.write_frame(&last)?;
        }
        Ok(())
    }
}

/// A PNG as `[width * height * 4]` bytes, and its size.
fn pixels(png: &[u8]) -> Result<(Vec<u8>, (u32, u32))> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(png::Transformations::normalize_to_color8() | png::Transformations::ALPHA);
    let mut reader = decoder.read_info()?;
    let mut bytes = vec![0; reader.output_buffer_size().context("a picture of no size")?];
    let info = reader.next_frame(&mut bytes)?;
    bytes.truncate(info.buffer_size());
    Ok((bytes, (info.width, info.height)))
}

/// Starts the demo as a person does, and films it to its end.
async fn film(lab: &Lab, browser: &Browser, to: &Path) -> Result<String> {
    browser.screen(SCREEN.0, SCREEN.1, "light").await?;
    browser.goto(&format!("{}/?preset=quick", lab.origin())).await?;
    browser.wait("document.querySelector('#demo-preset')?.textContent.startsWith('Preset quick')").await?;
    sleep(SETTLE).await;
    let first = pixels(&browser.picture(SCREEN, SCALE).await?)?;
    let mut film = Film::new(&to.join("demo.gif"), first.1)?;
    film.add(first.0)?;
    browser.click("#start-demo").await?;
    let path = browser.wait("location.pathname.startsWith('/runs/') && location.pathname").await?;
    let id = path.as_str().and_then(|p| p.strip_prefix("/runs/")).context("the id of the run in the address")?.to_string();
    let began = Instant::now();
    while browser.js(STATUS).await? != "finished" {
        ensure!(began.elapsed() < LONGEST_RUN, "the demo does not end");
        film.add(pixels(&browser.picture(SCREEN, SCALE).await?)?.0)?;
        sleep(EVERY).await;
    }
    sleep(SETTLE).await;
    film.add(pixels(&browser.picture(SCREEN, SCALE).await?)?.0)?;
    film.end()?;
    println!("demo.gif: {} s, {} KiB", began.elapsed().as_secs(), fs::metadata(to.join("demo.gif"))?.len() / 1024);
    Ok(id)
}

#[tokio::test]
#[ignore = "makes pictures, which people look at: cargo lab pictures --to DIR"]
async fn pictures_of_every_page_and_a_film_of_the_demo() -> Result<()> {
    let to = PathBuf::from(std::env::var_os(VARIABLE).with_context(|| format!("{VARIABLE} names no folder"))?);
    fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
    let lab = Lab::start().await;
    let browser = lab.browser().await?;
    let id = film(&lab, &browser, &to).await?;
    let other = lab.start_run(&moslim_tests::smoke()).await;
    lab.wait_for_finish(&other).await;
    for scheme in SCHEMES {
        for (width, height) in SIZES {
            browser.screen(width, height, scheme).await?;
            for page in pages(&id, &other) {
                browser.goto(&format!("{}{}", lab.origin(), page.path)).await?;
                browser.wait(page.there).await.with_context(|| page.path.clone())?;
                sleep(SETTLE).await;
                let file = format!("{}-{width}x{height}-{scheme}.png", page.name);
                fs::write(to.join(file), browser.picture((width, height), 1.0).await?)?;
            }
            println!("{} pages at {width} x {height}, {scheme}", pages(&id, &other).len());
        }
    }
    browser.quit().await
}
