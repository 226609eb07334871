//! Imported tasks at work: rated by a person, shown over the API, mixed.

use moslim_tests::{FLAT, Place, Process, lab, lines, record, text};
use serde_json::{Value, json};

/// A person grades answers, and chooses between two; both can be imported.
#[test]
fn what_a_person_says_in_the_lab_becomes_rows_with_their_name() {
    let place = Place::new();
    let mapping = place.file("flat.toml", FLAT);
    let file = place.file("a.jsonl", lines((0..600).map(record)));
    place.import(&[&file, "--mapping", &mapping, "--name", "tea"]).unwrap();
    let data = place.data();
    let say = |args: &[&str], said: &str| {
        Process::start(&moslim_tests::binary(), &[args, &["--data", text(&data)]].concat(), said).wait()
    };
    let grades = place.folder.path().join("grades.jsonl");
    let args = ["rate", "grades", "tea", "--rater", "ann", "--split", "train", "--n", "40", "--to", text(&grades)];
    // A wrong class is asked for again; one objective is passed over.
    let said: String = (0..40).map(|n| format!("9\n{}\n\n", n % 5)).collect();
    let done = say(&args, &said);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stderr.contains("9 is no class; allowed are 0 to 4") && done.stdout.starts_with("40 answers"),
        "{}",
        done.stdout
    );
    let task = place.import(&[text(&grades), "--mapping", text(&grades.with_extension("toml")), "--name", "graded"]);
    // Nobody graded the tone, and that is said.
    assert!(task.unwrap_err().contains("objectives (tone): no record has a label at tone"));
    let last = say(&args[..], "1\n2\nq\n");
    assert!(last.stdout.starts_with("1 answers"), "{}", last.stdout);
    let task = place.import(&[text(&grades), "--mapping", text(&grades.with_extension("toml")), "--name", "graded"]).unwrap();
    let labels = &task["report"]["labels"];
    assert_eq!((labels[0]["rated_again"].as_u64(), labels[1]["missing"].as_u64()), (Some(1), Some(39)));
    let shown = lab(&data, &["data", "show", "graded", "--n", "1"]).unwrap();
    assert_eq!(shown[0]["labels"][0]["ratings"][0]["rater"], "ann");
    let taken =
        say(&["rate", "pairs", "--run", "a", "--against", "b", "--prompts", "x", "--rater", "ann", "--to", "x.jsonl"], "");
    assert!(taken.code == Some(2) && taken.stderr.contains("run: there is no folder"), "{}", taken.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_shows_tasks() {
    let lab_ = moslim_tests::Lab::start().await;
    let place = Place::new();
    let mapping = place.file("flat.toml", FLAT);
    let file = place.file("a.jsonl", lines((0..60).map(record)));
    lab(lab_.data(), &["import", &file, "--mapping", &mapping, "--name", "tea"]).unwrap();
    let get = async |path: &str| lab_.get(path).await;
    assert_eq!(get("/api/v1/tasks").await.body[0]["name"], "tea");
    assert_eq!(get("/api/v1/tasks/tea").await.body["report"]["rows"], 60);
    let rows = get("/api/v1/tasks/tea/rows?split=test&limit=3&from=1").await.body;
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["split"]), (3, &json!("test")));
    assert_eq!(get("/api/v1/tasks/tea/stats?context=2").await.body["row_lengths"]["over"], 60);
    for (path, status) in [
        ("/api/v1/tasks/other", 404),
        ("/api/v1/tasks/..%2f..%2fx", 404),
        ("/api/v1/tasks/tea/rows?limit=0", 400),
        ("/api/v1/tasks/tea/rows?limit=9999", 400),
        ("/api/v1/tasks/tea/rows?split=x", 400),
        ("/api/v1/tasks/tea/rows?colour=red", 400),
    ] {
        assert_eq!(get(path).await.status, status, "{path}");
    }
    // A run on a task that is not there is refused in its field.
    let wrong = lab_.post("/api/v1/validate", &json!({"config": {"task": {"kind": "ratings", "name": "other"}}})).await;
    assert_eq!(wrong.body["problems"][0]["field"], "task.name");
}

#[test]
fn several_tasks_are_mixed_in_proportions_and_no_prompt_is_in_two_splits() {
    let place = Place::new();
    let tone_alone = "prompt = \"question\"\nresponse = \"answer\"\n[[objectives]]\nid = \"tone\"\nlabel = \"tone\"\nvalues = [\"rude\", \
        \"plain\", \"kind\"]\nmissing = [\"?\"]\n";
    let (flat, tone) = (place.file("flat.toml", FLAT), place.file("tone.toml", tone_alone));
    let other = |n: usize| {
        let mut r = record(n);
        r["question"] = json!(format!("Where is the cup, number {}?", n / 2));
        r
    };
    let first = place.file("first.jsonl", lines((0..400).map(record)));
    // Half of its prompts are those of the first, with other answers.
    let again = |n: usize| {
        let mut r = if n % 4 < 2 { record(n) } else { other(n) };
        r["answer"] = json!(format!("Another answer, {n}."));
        r
    };
    let second = place.file("second.jsonl", lines((0..400).map(again)));
    place.import(&[&first, "--mapping", &flat, "--name", "first"]).unwrap();
    place.import(&[&second, "--mapping", &tone, "--name", "second"]).unwrap();
    let mix = |args: &[&str]| lab(&place.data(), &[&["data", "mix"], args].concat());
    let mixed = mix(&["both", "--of", "first=1", "--of", "second=3"]).unwrap();
    let report = &mixed["report"];
    let rows = lab(&place.data(), &["data", "show", "both", "--n", "1000"]).unwrap();
    let from = |task: &str| {
        let of = |r: &&Value| {
            r["labels"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|l| l["ratings"].as_array().unwrap())
                .any(|r| r["file"].as_str().unwrap().starts_with(task))
        };
        rows.as_array().unwrap().iter().filter(of).count() as f64
    };
    let (a, b) = (from("first/"), from("second/"));
    assert!((b / a - 3.0).abs() < 0.9, "{a} and {b} rows");
    assert_eq!(report["labels"].as_array().unwrap().len(), 2);
    assert!(report["labels"][0]["missing"].as_f64().unwrap() > b - 1.0, "the second has no such label");
    let mut splits = std::collections::HashMap::new();
    for row in rows.as_array().unwrap() {
        let split = splits.entry(row["prompt"].as_str().unwrap().to_string()).or_insert_with(|| row["split"].clone());
        assert_eq!(*split, row["split"], "{}", row["prompt"]);
    }
    for (args, words) in [
        (&["x", "--of", "first=1"][..], "at least two"),
        (&["x", "--of", "first=1", "--of", "nothing=1"], "there is no task nothing"),
        (&["x", "--of", "first=1", "--of", "second=-1"], "above 0"),
        (&["x", "--of", "first"], "should be TASK=SHARE"),
        (&["first", "--of", "first=1", "--of", "second=1"], "--replace"),
    ] {
        let error = mix(args).unwrap_err();
        assert!(error.contains(words), "{args:?}: {error}");
    }
    lab(&place.data(), &["data", "edit", "second", "--merge", "tone:0-1=low"]).unwrap();
    assert!(mix(&["x", "--of", "first=1", "--of", "second=1"]).unwrap_err().contains("were changed since its import"));
}
