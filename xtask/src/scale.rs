//! `cargo lab scale`: what many runs or many readers need, by simulation. Runs come at random through a day, wait for a free place and
//! train for as long as runs of their kind were measured to; readers come at random and fetch what they do not have yet. The tables of
//! docs/scale.md are made of it by `cargo lab results`.

use crate::marked::between;
use crate::root;
use anyhow::{Context, Result, bail, ensure};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;

/// The page with the tables, and the numbers a day that they are of.
const PAGE: &str = "docs/scale.md";
const RUNS: [f64; 3] = [100.0, 1_000.0, 10_000.0];
const READERS: [f64; 2] = [1_000.0, 100_000.0];
/// Days that runs are simulated for.
const DAYS: usize = 7;

const DAY: f64 = 86_400.0;
/// Share of a day's arrivals in each hour: few at night, most after lunch.
const HOURS: [f64; 24] = [
    0.012, 0.010, 0.008, 0.008, 0.010, 0.015, 0.025, 0.040, 0.060, 0.070, 0.072, 0.068, 0.060, 0.075, 0.080, 0.078, 0.070, 0.060,
    0.048, 0.040, 0.034, 0.026, 0.018, 0.013,
];

/// A kind of run: its share of all runs, seconds on two cores, and bytes that it leaves behind.
struct Kind {
    share: f64,
    seconds: f64,
    kilobytes: f64,
}

/// What a group trains, assumed: mostly small things, by preset. Measured on two cores are the seconds of the first three and the bytes of `quick` and
/// of larger worlds (the mean of a study's runs). The other figures are guesses.
const KINDS: [Kind; 4] = [
    // smoke
    Kind { share: 0.30, seconds: 5.0, kilobytes: 900.0 },
    // quick
    Kind { share: 0.50, seconds: 73.0, kilobytes: 3_300.0 },
    // world
    Kind { share: 0.18, seconds: 300.0, kilobytes: 5_400.0 },
    // an instruct model of 135 M
    Kind { share: 0.02, seconds: 5_400.0, kilobytes: 60_000.0 },
];

/// Random numbers that are the same for the same seed (SplitMix64).
struct Random(u64);

impl Random {
    /// From 0 to below 1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponential with mean 1.
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }
}

/// Moments, in seconds, of a Poisson process whose rate follows the hours of the day; `a_day` on average.
fn arrivals(a_day: f64, days: usize, random: &mut Random) -> Vec<f64> {
    let all: f64 = HOURS.iter().sum();
    let mut out = Vec::new();
    for hour in 0..days * 24 {
        let rate = a_day * HOURS[hour % 24] / all / 3600.0;
        let mut at = random.exponential() / rate;
        while at < 3600.0 {
            out.push(hour as f64 * 3600.0 + at);
            at += random.exponential() / rate;
        }
    }
    out
}

/// How long each waits where `places` can be served at a time, first come, first served. `jobs`: arrival and duration, in order of arrival.
fn waits(jobs: &[(f64, f64)], places: usize) -> Vec<f64> {
    // Moments at which places become free, in microseconds so that they can be ordered.
    let mut free: BinaryHeap<Reverse<u64>> = (0..places).map(|_| Reverse(0)).collect();
    let micro = |seconds: f64| (seconds * 1e6) as u64;
    jobs.iter()
        .map(|&(at, duration)| {
            let Reverse(earliest) = free.pop().unwrap_or(Reverse(0));
            let begin = micro(at).max(earliest);
            free.push(Reverse(begin + micro(duration)));
            (begin - micro(at)) as f64 / 1e6
        })
        .collect()
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted.get(((sorted.len() as f64 - 1.0) * q).round() as usize).copied().unwrap_or(0.0)
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "at once".into(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// A whole number with commas.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let comma = |(n, digit): (usize, char)| {
        if n > 0 && (digits.len() - n).is_multiple_of(3) { format!(",{digit}") } else { digit.into() }
    };
    digits.chars().enumerate().map(comma).collect()
}

/// What so many runs a day need, as Markdown.
fn runs(a_day: f64) -> String {
    let mut random = Random(1);
    let jobs: Vec<(f64, f64, f64)> = arrivals(a_day, DAYS, &mut random)
        .into_iter()
        .map(|at| {
            let mut draw = random.uniform();
            let kind = KINDS.iter().find(|kind| {
                draw -= kind.share;
                draw < 0.0
            });
            let kind = kind.unwrap_or(&KINDS[0]);
            // People change what a run does: half as long to one and a half times as long.
            (at, kind.seconds * (0.5 + random.uniform()), kind.kilobytes)
        })
        .collect();
    let work: f64 = jobs.iter().map(|j| j.1).sum::<f64>() / DAYS as f64;
    let kept: f64 = jobs.iter().map(|j| j.2).sum::<f64>() / DAYS as f64 / 1e6;
    let mut out = format!(
        "**{} a day**: {:.0} h of work a day on two cores each, {kept:.1} GB a day, {:.0} GB in thirty days.\n\n",
        grouped(a_day),
        work / 3600.0,
        30.0 * kept
    );
    out += "| places of two cores | busy | half wait less than | of twenty, one waits more than | longest wait |\n|---|---|---|---|---|\n";
    let least = (work / DAY).ceil() as usize;
    let mut tried: Vec<usize> = [1.0, 1.25, 1.5, 2.0, 3.0].map(|factor: f64| (least as f64 * factor).ceil() as usize).into();
    tried.dedup();
    let plain: Vec<(f64, f64)> = jobs.iter().map(|j| (j.0, j.1)).collect();
    for places in tried {
        let mut waited = waits(&plain, places);
        waited.sort_by(f64::total_cmp);
        let busy = work / DAY / places as f64;
        let [half, most, longest] = [0.5, 0.95, 1.0].map(|q| span(quantile(&waited, q)));
        // Writing to a string does not fail.
        let _ = writeln!(out, "| {places} | {:.0} % | {half} | {most} | {longest} |", 100.0 * busy);
    }
    out
}

/// Kilobytes of a first visit, packed with brotli and as they are: the page, what trains in a tab, and the trained run beside them, which is
/// taken not to shrink. All of it is fetched at once, for the service worker keeps the whole site.
const VISIT: [[f64; 2]; 3] = [[740.0, 2_750.0], [1_690.0, 9_370.0], [4_000.0, 4_000.0]];
/// Share of readers who were there before and have everything.
const BACK: f64 = 0.3;
/// Requests of a first visit: one for each file.
const REQUESTS: usize = 14;

/// A row of [`HEAD`] for so many readers a day.
fn readers(a_day: f64) -> String {
    let mut random = Random(2);
    let mut visits = vec![(0_usize, 0_usize); DAY as usize];
    for at in arrivals(a_day, 1, &mut random) {
        let (first, back) = &mut visits[(at as usize).min(DAY as usize - 1)];
        *(if random.uniform() < BACK { back } else { first }) += 1;
    }
    let traffic = |how: usize| {
        let visit: f64 = VISIT.iter().map(|kilobytes| kilobytes[how]).sum();
        // Who has everything asks once whether it has changed.
        let kilobytes = |seconds: &[(usize, usize)]| -> f64 { seconds.iter().map(|s| s.0 as f64 * visit + s.1 as f64).sum() };
        let busiest = visits.chunks(60).map(kilobytes).fold(0.0, f64::max) / 60.0;
        format!("{:.1} GB | {:.0} Mbit/s", kilobytes(&visits) / 1e6, busiest * 8.0 / 1000.0)
    };
    let requests = visits.iter().map(|(first, back)| first * REQUESTS + back).max().unwrap_or(0);
    format!("| {} | {} | {requests} | {} |\n", grouped(a_day), traffic(0), traffic(1))
}

/// What the columns are.
const HEAD: &str = "| readers a day | packed: bytes a day | busiest minute | requests a second at most | as it is: bytes a day | busiest minute |\n|---|---|---|---|---|---|\n";

/// The tables of the page, by the names of their marks.
fn tables() -> [(&'static str, String); 2] {
    let readers: String = READERS.into_iter().map(readers).collect();
    [("readers", HEAD.to_string() + &readers), ("runs", RUNS.map(runs).join("\n"))]
}

/// The page with its tables as they are simulated today.
fn tabled(page: &str) -> Result<String> {
    tables().into_iter().try_fold(page.to_string(), |page, (name, table)| {
        let [begin, end] = ["begin", "end"].map(|what| format!("<!-- {name}: {what} -->"));
        between(&page, [&begin, &end], &table).with_context(|| format!("{PAGE} has no {begin} .. {end}"))
    })
}

/// Writes the tables of docs/scale.md, or, to `check`, writes nothing; returns the page's name where it is stale.
///
/// # Errors
/// When the page cannot be read or written, or has no place for a table.
pub fn page(check: bool) -> Result<Option<String>> {
    let file = root().join(PAGE);
    let old = std::fs::read_to_string(&file).with_context(|| format!("reading {PAGE}"))?;
    let made = tabled(&old)?;
    match (old == made, check) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(PAGE.into())),
        (false, false) => {
            std::fs::write(&file, made).with_context(|| format!("writing {PAGE}"))?;
            println!("wrote {PAGE}");
            Ok(None)
        }
    }
}

/// What `rest` asks for; without anything, the tables of docs/scale.md.
pub fn scale(rest: &[String]) -> Result<()> {
    let number = |text: &String| -> Result<f64> {
        let n: f64 = text.parse().with_context(|| format!("\"{text}\" is no number"))?;
        ensure!((1.0..=1e7).contains(&n), "\"{text}\": allowed is 1 to 10,000,000 a day");
        Ok(n)
    };
    match rest {
        [] => tables().iter().for_each(|(_, table)| println!("{table}")),
        [what, n] if what == "--runs" => print!("{}", runs(number(n)?)),
        [what, n] if what == "--readers" => print!("{HEAD}{}", readers(number(n)?)),
        _ => bail!("cargo lab scale [--runs N | --readers N]"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_waits_as_queueing_theory_says() {
        // M/M/1 at half load: the mean wait is rho / (1 - rho) of a service, here 1.
        let mut random = Random(3);
        let mut at = 0.0;
        let jobs: Vec<(f64, f64)> = (0..400_000)
            .map(|_| {
                at += 2.0 * random.exponential();
                (at, random.exponential())
            })
            .collect();
        let mean = |places| {
            let waited = waits(&jobs, places);
            waited.iter().sum::<f64>() / waited.len() as f64
        };
        assert!((mean(1) - 1.0).abs() < 0.05, "{}", mean(1));
        // M/M/2 with rho = 1/4: rho^2 / (1 - rho^2) of a service.
        assert!((mean(2) - 1.0 / 15.0).abs() < 0.005, "{}", mean(2));
    }

    #[test]
    fn tables_stand_in_the_page_and_are_the_same_every_time() {
        let page = "# Scale\n<!-- readers: begin -->\nx\n<!-- readers: end -->\n<!-- runs: begin -->\n<!-- runs: end -->\nend\n";
        let made = tabled(page).unwrap();
        assert_eq!(tabled(&made).unwrap(), made);
        for part in ["# Scale\n<!-- readers: begin -->\n| readers a day |", "| 100,000 | ", "**10,000 a day**: ", "-->\nend\n"] {
            assert!(made.contains(part), "{part} in {made}");
        }
        assert!(!made.contains("\nx\n") && tabled("# Scale").is_err());
        assert_eq!([1.0, 999.0, 1_000.0, 1_234_567.0].map(grouped), ["1", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn traffic_is_that_of_everybody_who_comes_for_the_first_time() {
        let row = readers(100_000.0);
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let gigabytes = |n: usize| cells[n].strip_suffix(" GB").unwrap().parse::<f64>().unwrap();
        // Seven in ten, of a hundred thousand.
        for (at, how) in [(2, 0), (5, 1)] {
            let expected = 70_000.0 * VISIT.iter().map(|kilobytes| kilobytes[how]).sum::<f64>() / 1e6;
            assert!((gigabytes(at) / expected - 1.0).abs() < 0.02, "{row}");
        }
    }

    #[test]
    fn a_day_has_as_many_arrivals_as_asked_for_and_most_of_them_by_day() {
        let got = arrivals(10_000.0, 10, &mut Random(4));
        assert!((got.len() as f64 / 10.0 - 10_000.0).abs() < 200.0, "{}", got.len());
        let night = got.iter().filter(|at| *at % DAY < 6.0 * 3600.0).count() as f64 / got.len() as f64;
        assert!((night - 0.063).abs() < 0.01, "{night}");
        assert!(got.windows(2).all(|pair| pair[0] <= pair[1]));
    }
}
