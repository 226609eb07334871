//! What can be said of the rows of an imported task.

use anyhow::Result;
use moslim_engine::data::ratings::kept::{KeptRow, SPLITS};
use moslim_engine::data::ratings::{ReadFile, labels, rows, scores, shaped};
use moslim_shared::agreement::{krippendorff_alpha, mean_kappa};
use moslim_shared::metrics::spearman;
use moslim_shared::ratings::{Agreement, LabelCounts, Lengths, NearDuplicate, RatingsTask, Shaped, TaskStatistics, Together};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Rows that two raters must have in common to be compared.
const IN_COMMON: usize = 10;
/// Prompts are nearly the same from this share of common pieces on.
const NEAR: f64 = 0.8;
/// Letters of a piece.
const PIECE: usize = 5;
/// Hash functions of a signature, and how many make a band: prompts with a common band are compared.
const HASHES: usize = 64;
const BAND: usize = 4;
/// Near duplicates that are shown.
const SHOWN: usize = 20;

/// How long a text is.
pub type Measure<'a> = &'a dyn Fn(&str) -> usize;

/// Reads a task and counts. `unit` is what `measure` counts; `context`: how many of them a model reads.
///
/// # Errors
/// When the task's rows are missing or damaged.
pub fn statistics(
    task: &RatingsTask,
    read: ReadFile,
    (unit, measure, context): (&str, Measure, Option<usize>),
) -> Result<TaskStatistics> {
    let shaped = shaped(task)?;
    let mut counts = Counts::new(&shaped);
    let (mut prompt_lengths, mut row_lengths) = (Vec::new(), Vec::new());
    let mut prompts: BTreeMap<String, usize> = BTreeMap::new();
    let mut splits = [0; 3];
    rows(task, read, |row| {
        splits[row.split] += 1;
        counts.add(&row, &shaped);
        let prompt = measure(&row.prompt);
        prompt_lengths.push(prompt);
        row_lengths.push(prompt + measure(&row.response));
        prompts.insert(row.prompt, row.split);
        Ok(())
    })?;
    let (near_duplicates, nearest) = near_duplicates(&prompts);
    let lengths = |mut all: Vec<usize>| {
        all.sort_unstable();
        let at = |share: f64| all.get(((all.len().max(1) - 1) as f64 * share).round() as usize).copied().unwrap_or(0);
        let over = context.map_or(0, |most| all.iter().filter(|n| **n > most).count());
        Lengths { quantiles: [0.0, 0.25, 0.5, 0.75, 0.95, 1.0].map(at), over: over as u64 }
    };
    let (labels, together, agreement) = counts.finish(&shaped);
    Ok(TaskStatistics {
        name: task.name.clone(),
        rows: splits.iter().sum(),
        prompts: prompts.len() as u64,
        splits,
        labels,
        together,
        agreement,
        unit: unit.into(),
        prompt_lengths: lengths(prompt_lengths),
        row_lengths: lengths(row_lengths),
        context,
        near_duplicates,
        nearest,
    })
}

/// What is counted of labels.
struct Counts {
    labels: Vec<Vec<Option<usize>>>,
    /// Of each objective, the scores of rows with several, and raters' classes.
    scores: Vec<Vec<Vec<f64>>>,
    classes: Vec<Vec<Vec<(usize, usize)>>>,
    raters: Vec<HashMap<String, usize>>,
    disagreed: Vec<u64>,
}

impl Counts {
    fn new(shaped: &[Shaped]) -> Self {
        let n = shaped.len();
        Self {
            labels: Vec::new(),
            scores: vec![Vec::new(); n],
            classes: vec![Vec::new(); n],
            raters: vec![HashMap::new(); n],
            disagreed: vec![0; n],
        }
    }

    fn add(&mut self, row: &KeptRow, shaped: &[Shaped]) {
        self.labels.push(labels(row, shaped));
        for (n, own) in shaped.iter().enumerate() {
            let ratings = || row.ratings.iter().filter(|r| r.objective == own.imported);
            let known = &mut self.raters[n];
            let mut classes = Vec::new();
            for rating in ratings() {
                let next = known.len();
                let rater = *known.entry(rating.rater.clone()).or_insert(next);
                classes.push((rater, own.bins.class(rating.score)));
            }
            if classes.len() > 1 {
                self.disagreed[n] += u64::from(classes.iter().any(|(_, c)| *c != classes[0].1));
                self.scores[n].push(scores(row, own.imported));
                self.classes[n].push(classes);
            }
        }
    }

    fn finish(self, shaped: &[Shaped]) -> (Vec<LabelCounts>, Vec<Together>, Vec<Agreement>) {
        let objective = |n: usize| &shaped[n].objective;
        let label = |n: usize| {
            let mut classes = vec![0; objective(n).class_count()];
            self.labels.iter().filter_map(|l| l[n]).for_each(|c| classes[c] += 1);
            let missing = self.labels.iter().filter(|l| l[n].is_none()).count() as u64;
            let rated_again = self.scores[n].len() as u64;
            LabelCounts { id: objective(n).id.clone(), classes, missing, rated_again, disagreed: self.disagreed[n] }
        };
        let together = |a: usize, b: usize| {
            let both: Vec<(usize, usize)> = self.labels.iter().filter_map(|l| Some((l[a]?, l[b]?))).collect();
            let mut counts = vec![vec![0; objective(b).class_count()]; objective(a).class_count()];
            both.iter().for_each(|&(x, y)| counts[x][y] += 1);
            let of = |pick: fn(&(usize, usize)) -> usize| both.iter().map(|p| pick(p) as f64).collect::<Vec<_>>();
            let ids = [a, b].map(|n| objective(n).id.clone());
            Together { ids, counts, spearman: spearman(&of(|p| p.0), &of(|p| p.1)) }
        };
        let agreement = |n: usize| Agreement {
            id: objective(n).id.clone(),
            rows: self.scores[n].len() as u64,
            raters: self.raters[n].len(),
            alpha: krippendorff_alpha(&self.scores[n]),
            kappa: mean_kappa(&self.classes[n], objective(n).class_count(), IN_COMMON).map(|(mean, _)| mean),
        };
        let n = shaped.len();
        (
            (0..n).map(label).collect(),
            (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).map(|(a, b)| together(a, b)).collect(),
            (0..n).filter(|&n| !self.scores[n].is_empty()).map(agreement).collect(),
        )
    }
}

/// Pieces of letters of a text, each as a hash.
fn pieces(text: &str) -> HashSet<u64> {
    let text: Vec<char> = text.split_whitespace().flat_map(|w| w.chars().chain([' '])).flat_map(char::to_lowercase).collect();
    let hash =
        |piece: &[char]| piece.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, &c| (h ^ c as u64).wrapping_mul(0x0100_0000_01b3));
    text.windows(PIECE.min(text.len()).max(1)).map(hash).collect()
}

/// Pairs of prompts of different splits that are nearly the same: how many, and the nearest. Found by minwise hashing (Broder 1997): of
/// each of [`HASHES`] hash functions the least value over a prompt's pieces, in bands.
fn near_duplicates(prompts: &BTreeMap<String, usize>) -> (u64, Vec<NearDuplicate>) {
    let all: Vec<(&String, usize)> = prompts.iter().map(|(p, s)| (p, *s)).collect();
    let mixed = |h: u64, n: u64| {
        let x = (h ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (x ^ (x >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB)
    };
    let mut bands: HashMap<(usize, Vec<u64>), Vec<usize>> = HashMap::new();
    for (at, (prompt, _)) in all.iter().enumerate() {
        let own = pieces(prompt);
        let signature: Vec<u64> = (0..HASHES as u64).map(|n| own.iter().map(|&h| mixed(h, n + 1)).min().unwrap_or(0)).collect();
        for (band, values) in signature.chunks(BAND).enumerate() {
            bands.entry((band, values.to_vec())).or_default().push(at);
        }
    }
    let mut pairs: HashSet<(usize, usize)> = HashSet::new();
    for together in bands.values() {
        for (n, &a) in together.iter().enumerate() {
            // A band that thousands share says nothing.
            pairs.extend(together[n + 1..].iter().take(200).filter(|&&b| all[a].1 != all[b].1).map(|&b| (a, b)));
        }
    }
    let mut near: Vec<NearDuplicate> = pairs
        .into_iter()
        .filter_map(|(a, b)| {
            let (x, y) = (pieces(all[a].0), pieces(all[b].0));
            let common = x.intersection(&y).count() as f64;
            let similarity = common / (x.len() + y.len()) as f64 / (1.0 - common / (x.len() + y.len()) as f64);
            let of = |n: usize| (all[n].0.clone(), SPLITS[all[n].1].to_string());
            let ((p, s), (q, t)) = (of(a), of(b));
            (similarity >= NEAR).then_some(NearDuplicate { prompts: [p, q], splits: [s, t], similarity })
        })
        .collect();
    near.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then_with(|| a.prompts.cmp(&b.prompts)));
    let count = near.len() as u64;
    near.truncate(SHOWN);
    (count, near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_duplicates_are_found_across_splits_alone() {
        let long = "How do I take good care of an old wooden table that stands in the sun all day?";
        let prompts: BTreeMap<String, usize> = [
            (long.to_string(), 0),
            (long.replace("good care", "care"), 1),
            (long.replace("wooden", "wooden "), 0),
            ("What is the best way to make tea for ten people?".into(), 2),
        ]
        .into();
        let (count, near) = near_duplicates(&prompts);
        assert_eq!(count, 2, "{near:?}");
        assert!(near.iter().all(|n| n.splits.contains(&"validation".to_string()) && n.similarity >= NEAR));
        let (a, b) = (pieces("abcdef"), pieces("abcdeg"));
        assert_eq!((a.len(), a.intersection(&b).count()), (3, 1), "abcde, bcdef and cdef with a blank");
    }
}
