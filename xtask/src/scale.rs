//! `cargo lab scale`: what many runs or many readers need, by simulation. Runs come at random through a day, wait for a free place and
//! train for as long as runs of their kind were measured to; readers come at random and fetch what they do not have yet.

use anyhow::{Context, Result, bail, ensure};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const DAY: f64 = 86_400.0;
/// Share of a day's arrivals in each hour: few at night, most after lunch.
const HOURS: [f64; 24] = [
    0.012, 0.010, 0.008, 0.008, 0.010, 0.015, 0.025, 0.040, 0.060, 0.070, 0.072, 0.068, 0.060, 0.075, 0.080, 0.078, 0.070, 0.060,
    0.048, 0.040, 0.034, 0.026, 0.018, 0.013,
];

/// A kind of run: its share of all runs, seconds on two cores, and bytes that it leaves behind.
struct Kind {
    name: &'static str,
    share: f64,
    seconds: f64,
    kilobytes: f64,
}

/// What a group trains, assumed: mostly small things. Measured on two cores are the seconds of the first three and the bytes of `quick` and
/// of larger worlds (the mean of a study's runs). The other figures are guesses.
const KINDS: [Kind; 4] = [
    Kind { name: "smoke", share: 0.30, seconds: 5.0, kilobytes: 900.0 },
    Kind { name: "quick", share: 0.50, seconds: 73.0, kilobytes: 3_300.0 },
    Kind { name: "world", share: 0.18, seconds: 300.0, kilobytes: 5_400.0 },
    Kind { name: "an instruct model of 135 M", share: 0.02, seconds: 5_400.0, kilobytes: 60_000.0 },
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

fn runs(a_day: f64, days: usize) {
    let mut random = Random(1);
    let jobs: Vec<(f64, f64, f64)> = arrivals(a_day, days, &mut random)
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
    let work: f64 = jobs.iter().map(|j| j.1).sum::<f64>() / days as f64;
    let kept: f64 = jobs.iter().map(|j| j.2).sum::<f64>() / days as f64 / 1e6;
    println!(
        "{a_day} runs a day, {days} days simulated: {}",
        KINDS.map(|k| format!("{:.0} % {}", 100.0 * k.share, k.name)).join(", ")
    );
    println!("{:.0} h of work a day on two cores each, {kept:.1} GB a day, {:.0} GB in thirty days", work / 3600.0, 30.0 * kept);
    println!("| places of two cores | busy | half wait less than | of twenty, one waits more than | longest wait |");
    println!("|---|---|---|---|---|");
    let least = (work / DAY).ceil() as usize;
    let mut tried: Vec<usize> = [1.0, 1.25, 1.5, 2.0, 3.0].map(|factor: f64| (least as f64 * factor).ceil() as usize).into();
    tried.dedup();
    let plain: Vec<(f64, f64)> = jobs.iter().map(|j| (j.0, j.1)).collect();
    for places in tried {
        let mut waited = waits(&plain, places);
        waited.sort_by(f64::total_cmp);
        let busy = work / DAY / places as f64;
        let [half, most, longest] = [0.5, 0.95, 1.0].map(|q| span(quantile(&waited, q)));
        println!("| {places} | {:.0} % | {half} | {most} | {longest} |", 100.0 * busy);
    }
}

/// Kilobytes of a first visit, as sent: the page; what trains in a tab, where it is asked for; the trained run beside it, where it is asked.
const VISIT: [(f64, f64); 3] = [(690.0, 1.0), (1_690.0, 0.4), (4_000.0, 0.3)];
/// Share of readers who were there before and have everything.
const BACK: f64 = 0.3;
/// Requests of a first visit.
const REQUESTS: usize = 8;

fn readers(a_day: f64) {
    let mut random = Random(2);
    let mut seconds = vec![(0.0, 0usize); DAY as usize];
    for at in arrivals(a_day, 1, &mut random) {
        let back = random.uniform() < BACK;
        let fetched: f64 = VISIT.iter().map(|&(kilobytes, share)| if random.uniform() < share { kilobytes } else { 0.0 }).sum();
        let second = &mut seconds[(at as usize).min(DAY as usize - 1)];
        // Who has everything asks once whether it has changed.
        *second = if back { (second.0 + 1.0, second.1 + 1) } else { (second.0 + fetched, second.1 + REQUESTS) };
    }
    let bytes: f64 = seconds.iter().map(|s| s.0).sum::<f64>() / 1e6;
    let minutes: Vec<f64> = seconds.chunks(60).map(|m| m.iter().map(|s| s.0).sum::<f64>() / 60.0).collect();
    let busiest = minutes.iter().copied().fold(0.0, f64::max) * 8.0 / 1000.0;
    let requests = seconds.iter().map(|s| s.1).max().unwrap_or(0);
    println!(
        "{a_day} readers of the static site in a day: {bytes:.0} GB, {busiest:.0} Mbit/s in the busiest minute, at most {requests} requests a second"
    );
}

/// What `rest` asks for; without anything, the table of docs/scale.md.
pub fn scale(rest: &[String]) -> Result<()> {
    let number = |text: &String| -> Result<f64> {
        let n: f64 = text.parse().with_context(|| format!("\"{text}\" is no number"))?;
        ensure!((1.0..=1e7).contains(&n), "\"{text}\": allowed is 1 to 10,000,000 a day");
        Ok(n)
    };
    match rest {
        [] => {
            for a_day in [100.0, 1_000.0, 10_000.0] {
                runs(a_day, 7);
                println!();
            }
            for a_day in [1_000.0, 100_000.0] {
                readers(a_day);
            }
        }
        [what, n] if what == "--runs" => runs(number(n)?, 7),
        [what, n] if what == "--readers" => readers(number(n)?),
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
    fn a_day_has_as_many_arrivals_as_asked_for_and_most_of_them_by_day() {
        let got = arrivals(10_000.0, 10, &mut Random(4));
        assert!((got.len() as f64 / 10.0 - 10_000.0).abs() < 200.0, "{}", got.len());
        let night = got.iter().filter(|at| *at % DAY < 6.0 * 3600.0).count() as f64 / got.len() as f64;
        assert!((night - 0.063).abs() < 0.01, "{night}");
        assert!(got.windows(2).all(|pair| pair[0] <= pair[1]));
    }
}
