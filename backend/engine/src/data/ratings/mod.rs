//! Tasks of imported ratings: rows with people's labels, and no rules that grade.

pub mod kept;
#[cfg(not(target_family = "wasm"))]
pub mod rows;
/// A tab has no imported tasks, and what reads their files would be a twentieth of what people have to fetch.
#[cfg(target_family = "wasm")]
mod rows {
    use super::kept::KeptRow;
    use anyhow::{Result, bail};

    pub fn read_rows(_: bytes::Bytes, _: impl FnMut(KeptRow) -> Result<()>) -> Result<()> {
        bail!("imported tasks need the lab with a server");
    }
}

use super::{Row, Splits, Task, TaskQuestion};
use crate::sums::read_checked;
use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use kept::KeptRow;
use moslim_shared::config::{FOLDS, TaskConfig};
use moslim_shared::objective::Objective;
use moslim_shared::ratings::{RatingsTask, Shaped};
use rows::read_rows;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;

/// The folder of imported tasks in the data folder, and the file of each in its own.
pub const FOLDER: &str = "tasks";
pub const FILE: &str = "task.json";

/// Reads a file of the data folder; `None` where there is none.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> io::Result<Option<Vec<u8>>>;

/// Longest name of a task.
const LONGEST: usize = 64;

/// Whether tasks may be called so: they are folders.
///
/// # Errors
/// When not; the message says what is allowed.
pub fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = !name.is_empty() && name.len() <= LONGEST && name.chars().all(good) && !name.starts_with('-');
    ensure!(fits, "is \"{name}\"; allowed are 1 to {LONGEST} lower-case letters, digits and dashes");
    ensure!(!["world", "style"].contains(&name), "is \"{name}\", which is a task of the lab's own");
    Ok(())
}

/// Name of the file of a task's rows.
pub fn rows_file(task: &RatingsTask) -> String {
    format!("rows-{}.parquet", &task.hash[..16.min(task.hash.len())])
}

/// What is known of the task called `name`, if there is one.
///
/// # Errors
/// When no task may be called so, or its file is damaged; the message names it.
pub fn find(name: &str, read: ReadFile) -> Result<Option<RatingsTask>> {
    check_name(name).map_err(|e| anyhow!("task.name: {e}"))?;
    let folder = format!("{FOLDER}/{name}");
    let of = || format!("reading {folder}/{FILE}");
    let Some(bytes) = read_checked(&|file| read(&format!("{folder}/{file}")), FILE).with_context(of)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes).map(Some).with_context(of)
}

/// What is known of the task called `name`.
///
/// # Errors
/// When there is no such task, or its file is damaged.
pub fn about(name: &str, read: ReadFile) -> Result<RatingsTask> {
    let missing = || format!("task.name: there is no task {name} (moslim-lab import makes one, moslim-lab data list shows them)");
    find(name, read)?.with_context(missing)
}

/// The objectives of an imported task after what was done to it.
///
/// # Errors
/// As [`about`]; or a change does not fit.
pub fn shaped(task: &RatingsTask) -> Result<Vec<Shaped>> {
    task.shaped().map_err(|e| anyhow!("task {}: {e}", task.name))
}

/// All rows of a task, one after the other.
///
/// # Errors
/// When their file is gone, damaged or another, or `each` ends it.
pub fn rows(task: &RatingsTask, read: ReadFile, each: impl FnMut(KeptRow) -> Result<()>) -> Result<()> {
    let path = format!("{FOLDER}/{}/{}", task.name, rows_file(task));
    let of = || format!("reading {path}");
    let bytes = read(&path).with_context(of)?.with_context(|| format!("{path} is missing"))?;
    let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    ensure!(hash == task.hash, "{path} is damaged: its SHA-256 is {hash} and should be {}", task.hash);
    read_rows(Bytes::from(bytes), each).with_context(of)
}

/// The labels of a row: for each objective the class that its raters' scores make.
pub fn labels(row: &KeptRow, shaped: &[Shaped]) -> Vec<Option<usize>> {
    shaped.iter().map(|s| s.bins.label(&scores(row, s.imported))).collect()
}

/// What raters said of a row on the objective that was imported at `position`.
pub fn scores(row: &KeptRow, position: usize) -> Vec<f64> {
    row.ratings.iter().filter(|r| r.objective == position).map(|r| r.score).collect()
}

/// Most copies of a row, one for each rater.
const MOST_COPIES: usize = 8;

/// The labels of a row, once for each of `copies` raters: what the first said of every objective, what the second said, and so on from the
/// beginning. Drawn from them, a row's label is each rater's as often as it was given, whatever the loss.
fn each_rater(row: &KeptRow, shaped: &[Shaped], copies: usize) -> Vec<Vec<Option<usize>>> {
    let all: Vec<Vec<f64>> = shaped.iter().map(|s| scores(row, s.imported)).collect();
    let label =
        |n: usize| all.iter().zip(shaped).map(|(own, s)| (!own.is_empty()).then(|| s.bins.class(own[n % own.len()]))).collect();
    (0..copies).map(label).collect()
}

/// What a prompt is split by: its hash, with letters and blanks made alike, so that nearly the same prompt is in the same split.
pub fn prompt_hash(prompt: &str) -> u64 {
    let mut alike = String::with_capacity(prompt.len());
    for word in prompt.split_ascii_whitespace() {
        if !alike.is_empty() {
            alike.push(' ');
        }
        let from = alike.len();
        alike.push_str(word);
        alike[from..].make_ascii_lowercase();
    }
    if !alike.is_ascii() {
        alike = alike.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    }
    let digest = Sha256::digest(alike);
    digest[..8].iter().fold(0, |n, b| n << 8 | u64::from(*b))
}

/// Puts the prompts of one fold of [`FOLDS`], counted from 1, into the test split, about an eighth of the others into validation, and what
/// is left into training. Prompts that are nearly the same stay together.
fn cross_validate(rows: &mut [KeptRow], fold: usize) {
    let hashes: Vec<u64> = rows.iter().map(|row| prompt_hash(&row.prompt)).collect();
    let mut order = hashes.clone();
    order.sort_unstable();
    order.dedup();
    for (row, hash) in rows.iter_mut().zip(hashes) {
        let place = order.partition_point(|h| *h < hash);
        let (round, own) = (place / FOLDS, place % FOLDS + 1);
        // Its place among those that are not tested.
        let left = round * (FOLDS - 1) + own - 1 - usize::from(own > fold);
        row.split = match own == fold {
            true => 2,
            false => usize::from(left.is_multiple_of(8)),
        };
    }
}

/// Keeps a share of the prompts to train on: those of the lowest hashes, so that a smaller share is part of a larger one.
fn keep_share(rows: &mut Vec<KeptRow>, share: f64) {
    let mut order: Vec<u64> = rows.iter().filter(|row| row.split == 0).map(|row| prompt_hash(&row.prompt)).collect();
    order.sort_unstable();
    order.dedup();
    let kept = (share * order.len() as f64).ceil() as usize;
    if let Some(&first_gone) = order.get(kept) {
        rows.retain(|row| row.split != 0 || prompt_hash(&row.prompt) < first_gone);
    }
}

/// Loads the imported task that `config` names, as it says. Rows without any label are left out.
///
/// # Errors
/// As [`about`] and [`rows`]; or a split has no rows.
pub fn task(config: &TaskConfig, read: ReadFile) -> Result<Task> {
    let (name, every_rater) = (config.name.as_str(), config.every_rater);
    let about = about(name, read)?;
    let shaped = shaped(&about)?;
    let mut splits = Splits::default();
    let mut all = Vec::new();
    rows(&about, read, |row| {
        all.push(row);
        Ok(())
    })?;
    if config.fold > 0 {
        cross_validate(&mut all, config.fold);
    }
    // All of it needs no order, which costs a hash of every prompt.
    if config.share < 1.0 {
        keep_share(&mut all, config.share);
    }
    // As many copies of every row, so that each weighs the same.
    let ratings = |row: &KeptRow| shaped.iter().map(|s| scores(row, s.imported).len()).max().unwrap_or(1);
    let copies = if every_rater { all.iter().map(ratings).max().unwrap_or(1).min(MOST_COPIES) } else { 1 };
    let mut topics: HashMap<String, usize> = HashMap::new();
    for row in all {
        let labels = labels(&row, &shaped);
        let next = topics.len();
        let topic = *topics.entry(row.prompt.clone()).or_insert(next);
        let (rows, questions) = match row.split {
            0 => (&mut splits.train, &mut splits.train_questions),
            1 => (&mut splits.validation, &mut splits.validation_questions),
            _ => (&mut splits.test, &mut splits.test_questions),
        };
        if topic == next {
            questions.push(TaskQuestion { text: row.prompt.clone(), topic, part: 0 });
        }
        if labels.iter().all(Option::is_none) {
            continue;
        }
        let all = if copies > 1 && row.split == 0 { each_rater(&row, &shaped, copies) } else { vec![labels] };
        let of = |labels| Row { question: row.prompt.clone(), answer: row.response.clone(), labels, part: 0 };
        rows.extend(all.into_iter().map(of));
    }
    for (what, rows) in [("train", &splits.train), ("validate", &splits.validation), ("test", &splits.test)] {
        ensure!(!rows.is_empty(), "task {name} has too few prompts: there is no row with labels to {what} on");
    }
    let objectives: Vec<Objective> = shaped.into_iter().map(|s| s.objective).collect();
    Ok(Task { name: name.into(), objectives, splits, gold: None })
}

#[cfg(test)]
mod tests {
    use super::kept::{KeptRating, Origin};
    use super::rows::KeptWriter;
    use super::*;
    use crate::keep::files::{Files, Memory};
    use crate::keep::sums;
    use moslim_shared::ratings::{Agree, Change, ImportReport, ImportedObjective};

    /// A task of ten prompts in the memory: three raters of the first objective, one of the second.
    fn kept(changes: Vec<Change>) -> (RatingsTask, Vec<u8>) {
        let objectives = [Objective::new("a", "A", "", &["0", "1", "2"]), Objective::new("b", "B", "", &["0", "1"])];
        let mut bytes = Vec::new();
        let mut writer = KeptWriter::new(&mut bytes, &objectives).unwrap();
        for n in 0..20 {
            let rating = |objective, score| KeptRating { objective, rater: String::new(), score, origin: 0 };
            let mut ratings = vec![rating(0, 0.0), rating(0, 2.0), rating(0, 2.0)];
            if n % 4 == 0 {
                ratings.push(rating(1, 1.0));
            }
            let row = KeptRow {
                prompt: format!("Question {}?", n / 2),
                response: format!("Answer {n}."),
                split: (n / 2) % 3,
                origins: vec![Origin { file: 0, record: n as u64 + 1, answer: String::new() }],
                ratings,
            };
            writer.add(row, vec![None, None]).unwrap();
        }
        writer.finish().unwrap();
        let imported = |objective: &Objective| ImportedObjective { objective: objective.clone(), agree: Agree::Mean };
        let report: ImportReport = serde_json::from_value(serde_json::json!({
            "files": [], "records": 20, "rows": 20, "prompts": 10, "splits": [0, 0, 0], "duplicates": 0, "merged": 0, "dropped": [], "labels": [],
        }))
        .unwrap();
        let task = RatingsTask {
            name: "t".into(),
            title: String::new(),
            licence: String::new(),
            hash: Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect(),
            objectives: objectives.iter().map(imported).collect(),
            changes,
            report,
            mapping: String::new(),
        };
        (task, bytes)
    }

    fn load(kept: &(RatingsTask, Vec<u8>), every_rater: bool) -> Result<Task> {
        load_as(kept, TaskConfig { every_rater, ..Default::default() })
    }

    fn load_as(kept: &(RatingsTask, Vec<u8>), config: TaskConfig) -> Result<Task> {
        let rows = format!("tasks/t/{}", rows_file(&kept.0));
        task(&TaskConfig { name: "t".into(), ..config }, &|path| {
            Ok(match path {
                "tasks/t/task.json" => Some(serde_json::to_vec(&kept.0).unwrap()),
                path if path == rows => Some(kept.1.clone()),
                _ => None,
            })
        })
    }

    #[test]
    fn raters_make_one_label_together_or_each_their_own() {
        let kept = kept(vec![]);
        let one = load(&kept, false).unwrap().splits;
        assert_eq!([one.train.len(), one.validation.len(), one.test.len()], [8, 6, 6]);
        assert_eq!((one.train_questions.len(), &one.train[0].labels), (4, &vec![Some(1), Some(1)]), "the mean of 0, 2, 2");
        assert_eq!(one.train[1].labels, [Some(1), None]);
        let each = load(&kept, true).unwrap().splits;
        assert_eq!([each.train.len(), each.validation.len()], [24, 6]);
        let labels: Vec<_> = each.train[..3].iter().map(|r| r.labels.clone()).collect();
        assert_eq!(labels, [[Some(0), Some(1)], [Some(2), Some(1)], [Some(2), Some(1)]]);
        assert_eq!(each.validation, one.validation);
    }

    #[test]
    fn every_prompt_is_tested_in_one_fold_and_in_no_other_split_of_it() {
        let kept = kept(vec![]);
        let mut tested: Vec<String> = Vec::new();
        for fold in 1..=FOLDS {
            let splits = load_as(&kept, TaskConfig { fold, ..Default::default() }).unwrap().splits;
            let texts = |questions: &[TaskQuestion]| questions.iter().map(|q| q.text.clone()).collect::<Vec<_>>();
            let test = texts(&splits.test_questions);
            assert_eq!((test.len(), splits.test.len()), (2, 4), "ten prompts, two rows of each");
            let others = [texts(&splits.train_questions), texts(&splits.validation_questions)];
            assert!(!others[1].is_empty() && others[0].len() > others[1].len());
            assert!(others.concat().iter().all(|q| !test.contains(q)));
            tested.extend(test);
        }
        tested.sort();
        tested.dedup();
        assert_eq!(tested.len(), 10);
    }

    #[test]
    fn a_smaller_share_of_the_prompts_is_part_of_a_larger_one_and_tests_alike() {
        let kept = kept(vec![]);
        let of = |share| load_as(&kept, TaskConfig { share, ..Default::default() }).unwrap().splits;
        let texts = |splits: &Splits| splits.train_questions.iter().map(|q| q.text.clone()).collect::<Vec<_>>();
        let [all, some, one] = [1.0, 0.6, 0.01].map(of);
        assert_eq!([all.train.len(), some.train.len(), one.train.len()], [8, 6, 2], "two rows of four, three prompts and one");
        assert!(texts(&some).iter().all(|q| texts(&all).contains(q)) && texts(&one).iter().all(|q| texts(&some).contains(q)));
        assert_eq!((&one.validation, &one.test), (&all.validation, &all.test));
    }

    #[test]
    fn changes_shape_the_task_and_damage_is_named() {
        let merge = Change::Merge { objective: "a".into(), from: 0, to: 1, name: "low".into() };
        let shaped = load(&kept(vec![merge, Change::Leave { objective: "b".into() }]), false).unwrap();
        assert_eq!((shaped.objectives.len(), &shaped.objectives[0].classes), (1, &vec!["low".to_string(), "2".into()]));
        assert_eq!(shaped.splits.train[0].labels, [Some(0)]);
        let unfit = load(&kept(vec![Change::Leave { objective: "c".into() }]), false).err().unwrap();
        assert!(format!("{unfit:#}").contains("there is no objective c"), "{unfit:#}");
        let (task, mut bytes) = kept(vec![]);
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        let damaged = load(&(task, bytes), false).err().unwrap();
        assert!(format!("{damaged:#}").contains("is damaged: its SHA-256"), "{damaged:#}");
    }

    #[test]
    fn no_flipped_bit_of_what_is_known_of_a_task_makes_it_another() {
        let (files, (task, _)) = (Memory::default(), kept(vec![]));
        sums::write(&files, "tasks/t", FILE, &serde_json::to_vec(&task).unwrap()).unwrap();
        let read = |path: &str| files.read(path);
        assert_eq!(find("t", &read).unwrap().unwrap(), task);
        for file in [FILE, sums::FILE] {
            let path = format!("tasks/t/{file}");
            let whole = files.read(&path).unwrap().unwrap();
            for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                files.write(&path, &damaged).unwrap();
                match find("t", &read) {
                    Ok(found) => assert_eq!(found.as_ref(), Some(&task), "{file}, byte {at}, bit {bit}"),
                    Err(error) => assert!(format!("{error:#}").contains("tasks/t/task.json"), "{error:#}"),
                }
            }
            files.write(&path, &whole).unwrap();
        }
        // What an older version has written has no checksum.
        files.remove("tasks/t/checksums.json").unwrap();
        assert_eq!(find("t", &read).unwrap().unwrap(), task);
    }
}
