//! Charts and comparisons on the page: what is drawn is what the API says, by pointer, by key, and in files.

use anyhow::{Context, Result, ensure};
use moslim_shared::event::{Event, EventBody, PolicyStep};
use moslim_tests::charts::{chart, saved};
use moslim_tests::{Browser, Lab, smoke};
use serde_json::Value;

/// A key, pressed on a chart.
async fn press(browser: &Browser, id: &str, key: &str) -> Result<()> {
    let pressed = format!(
        "document.querySelector('#{id} canvas').dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true, cancelable: true }}))"
    );
    browser.js(&pressed).await.map(|_| ())
}

/// The cells of a chart's table.
async fn table(browser: &Browser, id: &str) -> Result<Vec<Vec<String>>> {
    let rows =
        format!("[...document.querySelectorAll('#{id} .data tbody tr')].map(r => [...r.children].map(c => c.textContent))");
    Ok(serde_json::from_value(browser.js(&rows).await?)?)
}

fn steps(events: &[Event]) -> Vec<PolicyStep> {
    let step = |e: &Event| if let EventBody::Policy { step, .. } = &e.body { Some(step.clone()) } else { None };
    events.iter().filter_map(step).collect()
}

#[tokio::test]
async fn a_chart_answers_pointer_and_keys_and_its_twins_hold_every_number() -> Result<()> {
    let lab = Lab::start().await;
    let run = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&run).await;
    let steps = steps(&lab.events(&run).await);
    let browser = lab.browser().await?;
    browser.screen(1440, 900, "light").await?;
    browser.goto(&format!("{}/runs/{run}", lab.origin())).await?;
    let id = "chart-learning";
    chart(&browser, id).await?;

    // The table is the API's numbers, all of them.
    press(&browser, id, "t").await?;
    browser.wait(&format!("!!document.querySelector('#{id} .data tbody tr')")).await?;
    let rows = table(&browser, id).await?;
    ensure!(rows.len() == steps.len(), "{} rows for {} steps", rows.len(), steps.len());
    for (row, step) in rows.iter().zip(&steps) {
        let expected = [step.step as f64, step.reward, step.score, step.contributions[0]];
        let shown: Vec<f64> = row[..4].iter().map(|c| c.parse()).collect::<Result<_, _>>()?;
        ensure!(shown == expected, "{shown:?} is not {expected:?}");
    }
    // So are the files.
    let csv = saved(&browser, id, "CSV").await?;
    let line: Vec<&str> = csv.lines().nth(1).context("a line")?.split(',').collect();
    ensure!(line[1].parse::<f64>()? == steps[0].reward && csv.lines().count() == steps.len() + 1, "{csv}");
    let json: Value = serde_json::from_str(&saved(&browser, id, "JSON").await?)?;
    ensure!(json["rows"][0]["values"][0] == steps[0].reward && json["unit"] == "reward", "{json}");
    let svg = saved(&browser, id, "SVG").await?;
    ensure!(svg.starts_with("<svg ") && svg.contains("Is it learning?") && svg.contains(&format!("/runs/{run}")), "{svg:.300}");
    ensure!(saved(&browser, id, "PNG").await?.contains("PNG"), "it is a PNG");

    // Looked at by key: the legend says the value there, and every chart looks at the same step.
    press(&browser, id, "Home").await?;
    let looked = format!("document.querySelector('#{id} .legend li:last-child').textContent === 'step {}'", steps[0].step);
    browser.wait(&looked).await?;
    let value = browser.js(&format!("document.querySelector('#{id} .legend .entry b').textContent")).await?;
    let first = format!("{:.3}", steps[0].reward).replace('-', "−");
    ensure!(value == first.as_str(), "{value} is not {first}");
    browser.wait("document.querySelectorAll('.hair').length > 1 && document.querySelectorAll('.spark line').length > 1").await?;
    press(&browser, id, "Escape").await?;
    browser.wait("document.querySelectorAll('.hair').length === 0").await?;

    // Zoomed: the table has what is shown. Hidden: a line is gone from the drawing.
    press(&browser, id, "End").await?;
    press(&browser, id, "+").await?;
    browser.wait(&format!("document.querySelectorAll('#{id} .data tbody tr').length < {}", steps.len())).await?;
    press(&browser, id, "0").await?;
    browser.wait(&format!("document.querySelectorAll('#{id} .data tbody tr').length === {}", steps.len())).await?;
    let pixels = format!(
        "(() => {{ const c = document.querySelector('#{id} canvas'); const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; \
         return new Uint32Array(p.buffer).reduce((sum, x) => (sum * 31 + x) >>> 0, 0); }})()"
    );
    let before = browser.js(&pixels).await?;
    browser.click(&format!("#{id} .legend .entry")).await?;
    browser.wait(&format!("document.querySelector('#{id} .legend .entry').getAttribute('aria-pressed') === 'false'")).await?;
    browser.wait(&format!("{pixels} !== {before}")).await?;

    // The mass of classes in its five ways, and what other mappings would have paid for the same answers.
    for (way, there) in [
        ("least", "document.querySelector('#chart-classes-verbosity')?.textContent.includes('so much of it, or more')"),
        ("heat", "document.querySelector('#chart-classes-verbosity')?.textContent.includes('a row for every class')"),
        ("ridges", "document.querySelector('#chart-classes-verbosity')?.textContent.includes('newest at the top')"),
        ("ends", "document.querySelectorAll('#chart-classes-verbosity.ends .bar-row').length === 2"),
        ("stacked", "document.querySelector('#chart-classes-verbosity canvas') !== null"),
    ] {
        browser.js(&format!("(() => {{ const s = document.querySelector('#classes-way'); s.value = '{way}'; s.dispatchEvent(new Event('change')); }})()")).await?;
        browser.wait(there).await?;
    }
    let mappings = "[...document.querySelectorAll('#what-if tbody tr')].map(r => [...r.children].map(c => c.textContent))";
    let mappings: Vec<Vec<String>> = serde_json::from_value(browser.js(mappings).await?)?;
    let own: Vec<&Vec<String>> = mappings.iter().filter(|row| row[0].ends_with("as trained")).collect();
    ensure!(mappings.len() == 5 && own.len() == 1 && own[0][3] == "–", "{mappings:?}");

    // A tour goes from place to place, and ends by key.
    browser.js("scrollTo({ top: 0, behavior: 'instant' })").await?;
    browser.click("#tour").await?;
    browser.wait("document.querySelector('#verdict.toured') !== null").await?;
    browser.click(".tour .primary").await?;
    browser
        .wait("document.querySelector('#stages.toured') !== null && document.querySelectorAll('.toured').length === 1")
        .await?;
    browser
        .js("document.querySelector('.tour .primary').dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }))")
        .await?;
    browser.wait("document.querySelector('.tour, .toured') === null").await?;

    // The scrubber replays the run.
    browser.js("scrollTo({ top: 0, behavior: 'instant' })").await?;
    ensure!(
        browser.js("document.querySelector('#verdict').textContent").await?.as_str().is_some_and(|t| t.contains("never saw"))
    );
    browser.click("#play").await?;
    browser.wait("document.querySelector('.asked .hint').textContent.startsWith('Replay')").await?;
    browser.wait("document.querySelector('.asked .hint').textContent.startsWith('Measured')").await?;
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}

#[tokio::test]
async fn two_runs_are_ticked_and_compared() -> Result<()> {
    let lab = Lab::start().await;
    let mut other = smoke();
    other.seed += 1;
    let (mut hits, mut points, mut means) = (Vec::new(), 0, Vec::new());
    for config in [smoke(), other] {
        let run = lab.start_run(&config).await;
        let summary = lab.wait_for_finish(&run).await.summary.context("a summary")?;
        points += summary.front.points.len();
        means.push(format!("{:.0}", 100.0 * summary.control.policy.mean_hit_rate()));
        hits.push((run, summary.control.policy.heads[0].hit_rate));
    }
    let browser = lab.browser().await?;
    browser.goto(&lab.origin()).await?;
    browser.wait("document.querySelectorAll('.run-row input').length === 2").await?;
    // The list is filtered by conditions, and says so where it does not understand one.
    let rows = "document.querySelectorAll('.run-row').length";
    let problem = "document.querySelector('.filter .problem').textContent";
    for (typed, left) in [("hit>2", 0), (&format!("seed:{}", smoke().seed), 1), ("preset:smoke", 2)] {
        browser.fill("#filter", typed).await?;
        browser.wait(&format!("{rows} === {left} && !{problem}")).await?;
    }
    // Who types slowly has asked for less before: how many rows there were is not known.
    browser.fill("#filter", "mood:good").await?;
    browser.wait(&format!("{problem}.includes('no field \"mood\"')")).await?;
    browser.fill("#filter", "preset:smoke").await?;
    browser.wait(&format!("{rows} === 2 && !{problem}")).await?;
    // The newest run is the first in the list.
    browser.click(".run-row:nth-child(2) input").await?;
    browser.click(".run-row:nth-child(1) input").await?;
    browser.click("#compare").await?;
    let said = if means[0] == means[1] { "On the whole they obey alike" } else { "obeys better on the whole" };
    browser.wait(&format!("document.querySelector('#compare-verdict')?.textContent.includes('{said}')")).await?;
    let ids = hits.iter().map(|(run, _)| run.as_str()).collect::<Vec<_>>().join(",");
    assert_eq!(browser.js("location.search").await?, format!("?runs={ids}").as_str());
    let cells = "[...document.querySelector('.comparison tbody tr').children].map(c => c.textContent)";
    let cells: Vec<String> = serde_json::from_value(browser.js(cells).await?)?;
    for (cell, (_, hit)) in cells[1..].iter().zip(&hits) {
        ensure!(*cell == format!("{:.0} %", hit * 100.0), "{cells:?} are not {hits:?}");
    }
    let settings =
        "[...document.querySelectorAll('section[aria-labelledby=settings-title] tbody th')].map(c => c.textContent).join()";
    assert_eq!(browser.js(settings).await?, "seed");
    // A line for every trade-off that was measured; what does not reach enough leaves.
    browser.wait(&format!("document.querySelectorAll('#fronts polyline').length === {points}")).await?;
    let slide = |to: &str| {
        format!(
            "(() => {{ const s = document.querySelector('#fronts .slider input'); s.value = {to}; s.dispatchEvent(new Event('input')); }})()"
        )
    };
    browser.js(&slide("1")).await?;
    browser.wait(&format!("document.querySelector('#fronts-kept').textContent.startsWith('0 of {points} ')")).await?;
    browser.js(&slide("0")).await?;
    browser.wait(&format!("document.querySelector('#fronts-kept').textContent.startsWith('{points} of ')")).await?;
    chart(&browser, "chart-obedience").await?;
    let lines = "document.querySelectorAll('#chart-obedience .legend .entry').length";
    browser.wait(&format!("{lines} === 2")).await?;
    // As seeds of one setting they are one line with its range.
    browser.js("document.querySelector('.chosen .check input').click()").await?;
    browser.wait(&format!("{lines} === 3")).await?;
    browser.wait("document.querySelector('#chart-obedience .legend').textContent.includes('median of 2 seeds')").await?;
    browser.wait("document.querySelector('#fronts .legend').textContent.includes('reached by 2 of 2 seeds')").await?;
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}
