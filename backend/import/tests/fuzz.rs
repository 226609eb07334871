//! Damaged files of every format, and damaged mappings: an error or rows, never a panic and never memory without bound. Two thousand of
//! each, or as many as the environment variable MOSLIM_FUZZ says.

use moslim_engine::data::ratings::kept::{KeptRow, Origin};
use moslim_engine::data::ratings::rows::KeptWriter;
use moslim_import::extract::Extractor;
use moslim_import::mapping::{Format, Mapping};
use moslim_import::records::read;
use moslim_shared::objective::Objective;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

fn count() -> usize {
    std::env::var("MOSLIM_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

/// A copy with something wrong in it: bits, bytes, pieces that are missing, there twice or somebody else's.
fn spoilt(bytes: &[u8], rng: &mut StdRng) -> Vec<u8> {
    const PIECES: [&[u8]; 12] =
        [b"\"", b"{", b"}", b"[", b"]", b"\\u0000", b"\xff\xfe", b"\n", b",", b"1e999", b"null", b"-9223372036854775809"];
    let mut copy = bytes.to_vec();
    for _ in 0..rng.random_range(1..4) {
        if copy.is_empty() {
            break;
        }
        let at = rng.random_range(0..copy.len());
        let end = (at + rng.random_range(0..32)).min(copy.len());
        match rng.random_range(0..6) {
            0 => copy[at] ^= 1 << rng.random_range(0..8),
            1 => copy[at] = rng.random(),
            2 => drop(copy.drain(at..end)),
            3 => {
                let piece = copy[at..end].to_vec();
                copy.splice(at..at, piece);
            }
            4 => drop(copy.splice(at..at, PIECES.choose(rng).expect("pieces").iter().copied())),
            _ => copy.truncate(at),
        }
    }
    copy
}

const MAPPING: &str = "prompt_template = \"Q: {q} {t.@}\"\nresponse = \"a.*.text\"\nrater = \"who\"\n\
    [[objectives]]\nid = \"x\"\nlabel = \"a.*.x.@\"\nrange = [0, 4]\n\
    [[objectives]]\nid = \"y\"\nlabel = \"a.*.y\"\nvalues = [\"no\", true, 3]\nmissing = [\"?\"]\n";

fn record(n: usize) -> String {
    format!(
        "{{\"q\": \"What \\u00e9 {n}?\", \"t\": [\"a\", \"b\"], \"who\": {n}, \"a\": [{{\"text\": \"Yes\", \"x\": [1, 2], \"y\": \"no\"}}, {{\"text\": \"No\", \"x\": [], \"y\": 3}}]}}"
    )
}

/// Reads `content` as `format`, and makes samples of what is a record.
fn try_it(content: &[u8], format: Format, mapping: &Mapping, file: &std::path::Path) {
    std::fs::write(file, content).expect("a file");
    let extractor = Extractor::new(mapping.clone());
    let mut taken = 0usize;
    let _ = read(file, format, mapping.records.as_ref(), extractor.wanted(), &mut |_| Ok(()), &mut |_, value| {
        if let Ok(value) = value {
            taken += extractor.samples(&value).samples.len();
        }
        anyhow::ensure!(taken < 10_000, "no such file makes so many answers");
        Ok(())
    });
}

#[test]
fn no_damaged_file_makes_a_reader_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x");
    let mapping = Mapping::parse(MAPPING).expect("a mapping");
    let flat = Mapping::parse(
        "prompt = \"prompt\"\nresponse = \"response\"\n[[objectives]]\nid = \"x\"\nlabel = \"label_x\"\nrange = [0, 4]\n",
    )
    .expect("a mapping");
    let lines: String = (0..4).map(|n| record(n) + "\n").collect();
    let list = format!("[{}]", (0..4).map(record).collect::<Vec<_>>().join(","));
    let table = "prompt,response,label_x\n\"a \"\"quoted\"\" one\",b,1\nc,\"d\ne\",\n";
    let mut parquet = Vec::new();
    let objective = Objective::new("x", "X", "", &["0", "1", "2", "3", "4"]);
    let mut writer = KeptWriter::new(&mut parquet, &[objective]).expect("a writer");
    for n in 0..8 {
        let origins = vec![Origin { file: 0, record: n, answer: String::new() }];
        let row = KeptRow { prompt: format!("Q {n}"), response: "A".into(), split: 0, origins, ratings: Vec::new() };
        writer.add(row, vec![(n % 2 == 0).then_some(3)]).expect("a row");
    }
    writer.finish().expect("a file");
    // The library's own panics on damaged files are caught, and would only fill the screen.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|l| l.file().contains("parquet")) {
            usual(info);
        }
    }));
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..count() {
        try_it(&spoilt(lines.as_bytes(), &mut rng), Format::Jsonl, &mapping, &file);
        try_it(&spoilt(list.as_bytes(), &mut rng), Format::Json, &mapping, &file);
        try_it(&spoilt(table.as_bytes(), &mut rng), Format::Csv, &flat, &file);
        try_it(&spoilt(&parquet, &mut rng), Format::Parquet, &flat, &file);
    }
}

#[test]
fn no_damaged_mapping_makes_a_panic() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.jsonl");
    let lines: String = (0..2).map(|n| record(n) + "\n").collect();
    let mut rng = StdRng::seed_from_u64(2);
    let mut good = 0;
    for _ in 0..count() {
        let text = String::from_utf8_lossy(&spoilt(MAPPING.as_bytes(), &mut rng)).into_owned();
        if let Ok(mapping) = Mapping::parse(&text) {
            good += 1;
            mapping.task_objectives();
            try_it(lines.as_bytes(), Format::Jsonl, &mapping, &file);
        }
    }
    assert!(good > count() / 100, "most are no mappings, but not all: {good}");
}
