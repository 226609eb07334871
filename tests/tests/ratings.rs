//! People's ratings: files become tasks, with every label traceable to where it stands, or nothing at all becomes of them.

use moslim_tests::{FLAT, Hub, LIMIT, Place, Process, Repository, lab, lines, record, text};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/ratings")
}

#[test]
fn every_format_makes_the_same_task() {
    let place = Place::new();
    let mapping = place.file("flat.toml", FLAT);
    let records: Vec<Value> = (0..60).map(record).collect();
    let csv: String = records
        .iter()
        .map(|r| {
            format!(
                "\"{}\",\"{}\",{},{}\r\n",
                r["question"].as_str().unwrap(),
                r["answer"].as_str().unwrap(),
                r["use"],
                r["tone"].as_str().unwrap()
            )
        })
        .collect();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(lines(records.clone()).as_bytes()).unwrap();
    let files = [
        place.file("a.jsonl", lines(records.clone())),
        place.file("b.jsonl.gz", gz.finish().unwrap()),
        place.file("c.json", json!(records).to_string()),
        place.file("d.csv", format!("\u{FEFF}question,answer,use,tone\r\n{csv}")),
        place.file(
            "e.tsv",
            format!(
                "question\tanswer\tuse\ttone\n{}",
                csv.replace("\",", "\"\t").replace(",r", "\tr").replace(",p", "\tp").replace(",k", "\tk").replace(",?", "\t?")
            ),
        ),
    ];
    let mut counts = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let task = place.import(&[file, "--mapping", &mapping, "--name", &format!("task-{n}")]).unwrap();
        let report = &task["report"];
        assert_eq!((report["rows"].as_u64(), report["prompts"].as_u64()), (Some(60), Some(30)), "{file}");
        counts.push((report["labels"].clone(), report["splits"].clone()));
    }
    assert!(counts.iter().all(|c| *c == counts[0]), "{counts:?}");
    assert_eq!(counts[0].0[0]["classes"], json!([12, 12, 12, 12, 12]));
    assert_eq!((&counts[0].0[1]["classes"], &counts[0].0[1]["missing"]), (&json!([15, 15, 15]), &json!(15)));
    assert_eq!(counts[0].1, json!([48, 6, 6]));
    // What is kept is Parquet, which is read like any.
    let task = lab(&place.data(), &["data", "list"]).unwrap()[0].clone();
    let rows = format!("{}/tasks/task-0/rows-{}.parquet", text(&place.data()), &task["hash"].as_str().unwrap()[..16]);
    let again = place.file(
        "again.toml",
        "prompt = \"prompt\"\nresponse = \"response\"\n[[objectives]]\nid = \"use\"\nlabel = \"label_use\"\nrange = [0, 4]\n",
    );
    let task = place.import(&[&rows, "--mapping", &again, "--name", "again"]).unwrap();
    assert_eq!(task["report"]["labels"][0]["classes"], json!([12, 12, 12, 12, 12]));

    // Twice the same is the same; another thing under the same name is not written over.
    let first = place.import(&[&files[0], "--mapping", &mapping, "--name", "task-0"]).unwrap();
    assert_eq!(first["hash"], lab(&place.data(), &["data", "list"]).unwrap()[1]["hash"]);
    let other = place.file("other.jsonl", lines((0..80).map(record)));
    let error = place.import(&[&other, "--mapping", &mapping, "--name", "task-0"]).unwrap_err();
    assert!(error.contains("there is a task task-0 with other rows") && error.contains("--replace"), "{error}");
    let replaced = place.import(&[&other, "--mapping", &mapping, "--name", "task-0", "--replace"]).unwrap();
    assert_eq!(replaced["report"]["rows"], 80);
    let names = fs::read_dir(place.data().join("tasks/task-0")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let rows = names.filter(|name| name.starts_with("rows-")).count();
    assert_eq!(rows, 1, "the rows of before are gone");
}

#[test]
fn raters_are_kept_apart_and_every_label_can_be_traced() {
    let place = Place::new();
    let file = fixtures().join("summeval-op-raters.jsonl");
    let task = place.import(&[text(&file), "--mapping", "summeval-op-raters"]).unwrap();
    let report = &task["report"];
    assert_eq!((report["records"].as_u64(), report["rows"].as_u64(), report["prompts"].as_u64()), (Some(4), Some(52), Some(4)));
    let first: Value = serde_json::from_str(fs::read_to_string(&file).unwrap().lines().next().unwrap()).unwrap();
    let rows = lab(&place.data(), &["data", "show", "summeval-op-raters", "--n", "60"]).unwrap();
    let mut found = 0;
    for row in rows.as_array().unwrap() {
        let label = &row["labels"][1];
        let [origin, second] = [0, 1].map(|n| label["ratings"][n].clone());
        if origin["record"] == 1 {
            let at: usize = origin["answer"].as_str().unwrap().parse().unwrap();
            assert_eq!(row["response"].as_str().unwrap(), first["summaries"][at].as_str().unwrap().trim());
            assert_eq!(second["score"].as_f64().unwrap() + 1.0, first["co"][at][1].as_f64().unwrap());
            assert_eq!((&second["rater"], &origin["file"]), (&json!("2"), &json!("summeval-op-raters.jsonl")));
            found += 1;
        }
    }
    assert_eq!(found, 13);
    let stats = lab(&place.data(), &["data", "stats", "summeval-op-raters", "--context", "100"]).unwrap();
    let agreement = &stats["agreement"][0];
    assert_eq!((agreement["raters"].as_u64(), agreement["rows"].as_u64()), (Some(3), Some(52)));
    assert!(agreement["alpha"].as_f64().unwrap() > 0.2 && agreement["kappa"].as_f64().unwrap() > 0.2, "{agreement}");
    assert!(stats["row_lengths"]["over"].as_u64().unwrap() == 52 && stats["together"].as_array().unwrap().len() == 21);

    // What is exported is imported again as what it was.
    for name in ["again.jsonl", "again.csv"] {
        let to = place.folder.path().join(name);
        let exported =
            Process::lab(&["data", "export", "summeval-op-raters", "--to", text(&to), "--data", text(&place.data())]).wait();
        assert_eq!(exported.code, Some(0), "{}", exported.stderr);
        let again =
            place.import(&[text(&to), "--mapping", text(&to.with_extension("toml")), "--name", "again", "--replace"]).unwrap();
        assert_eq!((&again["report"]["labels"], &again["report"]["splits"]), (&report["labels"], &report["splits"]), "{name}");
    }
    let formula = json!({"question": "=1+1", "answer": "@x", "use": 1, "tone": "kind"});
    let mapping = place.file("flat.toml", FLAT);
    let file = place.file("formula.jsonl", lines((0..20).map(record).chain([formula])));
    place.import(&[&file, "--mapping", &mapping, "--name", "formula"]).unwrap();
    let to = place.folder.path().join("formula.csv");
    Process::lab(&["data", "export", "formula", "--to", text(&to), "--data", text(&place.data())]).wait();
    assert!(fs::read_to_string(&to).unwrap().contains("\"'=1+1\",\"'@x\""));

    // Classes change without a new import, and the task remembers.
    let edit = |args: &[&str]| lab(&place.data(), &[&["data", "edit", "summeval-op-raters"], args].concat());
    let edited = edit(&["--merge", "fluency:0-2=poor", "--rename", "fluency:2=perfect", "--leave", "specificity"]).unwrap();
    assert_eq!(edited["changes"].as_array().unwrap().len(), 3);
    let stats = lab(&place.data(), &["data", "stats", "summeval-op-raters"]).unwrap();
    assert_eq!((stats["labels"].as_array().unwrap().len(), stats["labels"][0]["classes"].as_array().unwrap().len()), (6, 3));
    for (args, words) in [
        (&["--merge", "fluency:0-9=x"][..], "fluency has classes 0 to 2, not 9"),
        (&["--merge", "fluency=x"], "it should be OBJECTIVE:FROM-TO=NAME"),
        (&["--leave", "other"], "there is no objective other"),
        (&["--agree", "fluency=vote"], "allowed are mean, median, majority"),
        (&[], "name a change"),
    ] {
        let error = edit(args).unwrap_err();
        assert!(error.contains(words), "{args:?}: {error}");
    }
    edit(&["--undo-all"]).unwrap();
    let stats = lab(&place.data(), &["data", "stats", "summeval-op-raters"]).unwrap();
    assert_eq!(stats["labels"].as_array().unwrap().len(), 7);
    for (args, words) in [
        (&["data", "show", "nothing"][..], "task: there is no task nothing"),
        (&["data", "show", "../x"], "task: is \"../x\""),
        (&["data", "stats", "summeval-op-raters", "--model", "x"], "there is no model x"),
        (&["data", "show", "summeval-op-raters", "--split", "x"], "allowed are train, validation, test"),
    ] {
        let error = lab(&place.data(), args).unwrap_err();
        assert!(error.contains(words), "{args:?}: {error}");
    }
}

#[test]
fn what_cannot_be_used_is_named_and_leaves_nothing() {
    let place = Place::new();
    let mapping = place.file("flat.toml", FLAT);
    let good = |n: usize| record(n).to_string();
    let with = |at: usize, what: &str| -> String {
        (0..40).map(|n| if n + 1 == at { format!("{what}\n") } else { good(n) + "\n" }).collect()
    };
    let label = good(3).replace("\"use\":4", "\"use\":9");
    let no_answer = good(3).replace("\"answer\"", "\"reply\"");
    let cases: Vec<(&str, Vec<u8>, Vec<&str>)> = vec![
        ("bad.jsonl", with(7, "{\"question\": ").into(), vec!["bad.jsonl, record 7", "is not JSON"]),
        ("label.jsonl", with(4, &label).into(), vec!["label.jsonl, record 4", "use: is 9; allowed are numbers from 1 to 5"]),
        ("column.jsonl", with(4, &no_answer).into(), vec!["record 4", "answer: there is no such entry"]),
        ("list.jsonl", with(5, "[1, 2]").into(), vec!["record 5", "is a list; a record is an object"]),
        (
            "utf8.jsonl",
            [with(9, "").as_bytes(), b"{\"question\": \"\xff\", \"answer\": \"x\"}"].concat(),
            vec!["record 41", "is not JSON"],
        ),
        (
            "columns.csv",
            "question,answer,use\nq,a,1\n".into(),
            vec!["in line 1, the header: there is no column \"tone\"; there are question, answer, use"],
        ),
        ("twice.csv", "question,question,use,tone,answer\n".into(), vec!["\"question\" is there twice"]),
        (
            "fields.csv",
            "question,answer,use,tone\nq,a,1,kind\nq,a\n".into(),
            vec!["record 3", "the row has 2 columns and the header 4"],
        ),
        ("utf8.csv", b"question,answer,use,tone\nq,\xff,1,kind\n".to_vec(), vec!["record 2", "answer: byte 1 is not UTF-8"]),
        (
            "broken.json",
            "[{\"question\": \"q\", \"answer\": \"a\", \"use\": 1}, ".into(),
            vec!["broken.json", "after 1 records it is not JSON"],
        ),
        ("empty.jsonl", "".into(), vec!["there is no answer in"]),
        ("x.parquet", b"PAR1 and nothing else PAR1".to_vec(), vec!["x.parquet"]),
        ("unknown.txt", "x".into(), vec!["its name does not tell its format"]),
        ("few.jsonl", lines((0..2).map(record)).into(), vec!["too few"]),
    ];
    for (name, content, words) in cases {
        let file = place.file(name, content);
        let error = place.import(&[&file, "--mapping", &mapping, "--name", "x", "--bad-rows", "stop"]).unwrap_err();
        assert!(words.iter().all(|w| error.contains(w)), "{name}: {error}");
        assert!(place.left().is_empty(), "{name} left {:?}", place.left());
    }
    for (args, words) in [
        (&["--name", "../x"][..], "name: is \"../x\"; allowed are"),
        (&["--name", "world"], "a task of the lab's own"),
        (&["--most-bad", "2"], "most-bad: is 2"),
    ] {
        let file = place.file("good.jsonl", with(99, ""));
        let error = place.import(&[&[file.as_str(), "--mapping", &mapping], args].concat()).unwrap_err();
        assert!(error.contains(words), "{args:?}: {error}");
    }
    let error = place.import(&[&place.file("good.jsonl", with(99, "")), "--mapping", "nothing"]).unwrap_err();
    assert!(error.contains("mapping: nothing") && error.contains("the lab brings beavertails, helpsteer2"), "{error}");
    let misspelt = place.file("misspelt.toml", FLAT.replace("label = \"use\"", "label = \"usefulness\""));
    let error = place.import(&[&place.file("good.jsonl", with(99, "")), "--mapping", &misspelt, "--name", "x"]).unwrap_err();
    assert!(error.contains("objectives (use): no record has a label at usefulness"), "{error}");

    // Dropped instead, as long as they are few, each with its place.
    let file = place.file("some.jsonl", with(4, &label));
    let task = place.import(&[&file, "--mapping", &mapping, "--name", "some"]).unwrap();
    let dropped = &task["report"]["dropped"][0];
    assert_eq!((dropped["count"].as_u64(), task["report"]["rows"].as_u64()), (Some(1), Some(39)));
    let line: Value =
        serde_json::from_str(fs::read_to_string(place.data().join("tasks/some/dropped.jsonl")).unwrap().trim()).unwrap();
    assert_eq!((&line["record"], &line["column"], &line["file"]), (&json!(4), &json!("use"), &json!("some.jsonl")));
    let many: String = (0..400).map(|n| if n % 4 == 0 { label.clone() + "\n" } else { good(n) + "\n" }).collect();
    let error = place.import(&[&place.file("many.jsonl", many), "--mapping", &mapping, "--name", "many"]).unwrap_err();
    assert!(error.contains("100 of 400 answers cannot be used, more than the 5 % that are allowed"), "{error}");
    assert_eq!(place.left(), ["some"]);
}

#[test]
fn a_file_made_to_fill_memories_is_refused() {
    let place = Place::new();
    let mapping = place.file("flat.toml", FLAT);
    let zeros = |header: &[u8]| {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(header).unwrap();
        let piece = vec![b' '; 1 << 20];
        (0..1500).for_each(|_| gz.write_all(&piece).unwrap());
        gz.finish().unwrap()
    };
    // One line without end is passed over; a text that grows without end is not.
    let bomb = place.file("bomb.jsonl.gz", zeros(b""));
    let error = place.import(&[&bomb, "--mapping", &mapping, "--name", "x"]).unwrap_err();
    assert!(error.contains("bomb.jsonl.gz") && error.contains("made to fill memories"), "{error}");
    let quote = place.file("quote.csv.gz", zeros(b"question,answer,use,tone\nq,\"a"));
    let error = place.import(&[&quote, "--mapping", &mapping, "--name", "x"]).unwrap_err();
    assert!(error.contains("quote.csv.gz") && error.contains("does a quote not end?"), "{error}");
    assert!(place.left().is_empty());
}

#[test]
fn an_import_that_is_killed_leaves_nothing() {
    let place = Place::new();
    let mapping = place.file("flat.toml", FLAT);
    let file = place.file("large.jsonl", lines((0..300_000).map(record)));
    let data = place.data();
    let mut import = Process::lab(&["import", &file, "--mapping", &mapping, "--name", "large", "--data", text(&data)]);
    let begun = std::time::Instant::now();
    while import.running() && !data.join("tasks").exists() && begun.elapsed() < LIMIT {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    std::thread::sleep(std::time::Duration::from_millis(150));
    assert!(import.running(), "it was killed in the middle");
    import.kill();
    assert_eq!(lab(&data, &["data", "list"]).unwrap(), json!([]));
    let left: Vec<String> = place.left().into_iter().filter(|name| !name.starts_with(".import-")).collect();
    assert!(left.is_empty(), "{left:?}");
    // And the next one is as if nothing had been.
    let task = place.import(&[&file, "--mapping", &mapping, "--name", "large"]).unwrap();
    assert_eq!(task["report"]["records"], 300_000);
}

/// Rows that a fold's report of an objective counts.
fn head_rows(report: &Value, id: &str) -> u64 {
    let head = report["heads"].as_array().unwrap().iter().find(|h| h["objective"] == id).unwrap();
    head["n"].as_u64().unwrap()
}

#[test]
fn a_task_of_ratings_is_trained_on_like_any_other() {
    let place = Place::new();
    let mapping = place.file("flat.toml", FLAT);
    let long = json!({"question": "Long?", "answer": "word ".repeat(2_000), "use": 1, "tone": "kind"});
    let file = place.file("a.jsonl", lines((0..600).map(record).chain([long])));
    place.import(&[&file, "--mapping", &mapping, "--name", "tea"]).unwrap();
    let config = json!({
        "task": {"kind": "ratings", "name": "tea"},
        "vocabulary": 400,
        "model": {"layers": 1, "d_model": 32, "heads": 2, "kv_heads": 1, "d_ff": 64},
        "reward_trunk": {"layers": 1, "d_model": 32, "heads": 2, "kv_heads": 1, "d_ff": 64},
        "sft": {"steps": 20, "batch": 16},
        "reward_model": {"steps": 20, "batch": 16},
        "targets": {"held_out": []},
        "policy": {"iterations": 3, "prompts": 4, "samples_per_prompt": 4, "max_new_tokens": 16},
        "evaluation": {"questions": 4, "joint": 4, "held_out": 0, "front": 4, "paraphrased": 4},
    });
    let config = place.file("run.json", config.to_string());
    let summary = lab(&place.data(), &["train", "--config", &config, "--run", "tea", "--device", "cpu"]).unwrap();
    assert_eq!(summary["control"]["policy"]["heads"].as_array().unwrap().len(), 2);
    let events = fs::read_to_string(place.data().join("runs/tea/events.jsonl")).unwrap();
    assert!(events.contains("longer than the context"), "the long answer was left out, and that is said");
    let card: Value = serde_json::from_slice(&fs::read(place.data().join("runs/tea/task.json")).unwrap()).unwrap();
    assert_eq!((&card["name"], &card["objectives"][1]["classes"]), (&json!("tea"), &json!(["rude", "plain", "kind"])));
    let graded = Process::start(
        &moslim_tests::binary(),
        &["score", "--run", "tea", "--data", text(&place.data()), "--device", "cpu"],
        "{\"prompt\": \"\\n\\nHuman: Hi\\n\\nAssistant: Yes?\\n\\nHuman: Tea?\", \"response\": \"Boil water.\"}\n",
    )
    .wait();
    assert_eq!(graded.code, Some(0), "{}", graded.stderr);
    assert!(graded.stdout.contains("tone"), "{}", graded.stdout);
    // The labels that its reward model finds the least likely.
    let unlikely = lab(&place.data(), &["data", "noise", "tea", "--run", "tea", "--n", "7", "--device", "cpu"]).unwrap();
    let probabilities: Vec<f64> = unlikely.as_array().unwrap().iter().map(|r| r["probability"].as_f64().unwrap()).collect();
    assert!(probabilities.len() == 7 && probabilities.is_sorted(), "{probabilities:?}");
    // How well such a reward model agrees with people: every labelled row that fits is tested once, and no run is left.
    let crossval = ["data", "crossval", "tea", "--config", &config, "--device", "cpu"];
    let judged = lab(&place.data(), &crossval).unwrap();
    assert_eq!(judged["folds"].as_array().unwrap().len(), 5);
    for (head, id) in judged["objectives"].as_array().unwrap().iter().zip(["use", "tone"]) {
        assert_eq!((&head["id"], head["kappas"].as_array().unwrap().len()), (&json!(id), 5), "{head}");
        let rows: u64 = judged["folds"].as_array().unwrap().iter().map(|f| head_rows(f, id)).sum();
        assert!(head["rows"] == rows && rows >= 450, "{head}");
    }
    assert_eq!(fs::read_dir(place.data().join("runs")).unwrap().count(), 1);
    let error = lab(&place.data(), &["data", "crossval", "nothing"]).unwrap_err();
    assert!(error.contains("task: there is no task nothing"), "{error}");
    // A task that is not there is a problem of its field.
    for (task, words) in [("nothing", "task.name: there is no task nothing"), ("../x", "task.name: is \"../x\"")] {
        let error = lab(&place.data(), &["train", "--config", &config, "--task", task]).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_set_is_fetched_from_a_hub_and_an_unknown_file_is_shown() {
    let place = Place::new();
    let mut files = std::collections::BTreeMap::new();
    files.insert("train.jsonl".to_string(), lines((0..60).map(record)).into_bytes());
    files.insert("README.md".to_string(), b"Tea.".to_vec());
    let commit = "0123456789abcdef0123456789abcdef01234567".into();
    let hub = Hub::start("lab/tea", Repository { files, commit, token: None, wrong: None }).await;
    let endpoint = hub.endpoint();
    let home = place.folder.path().join("home");
    let run = |args: &[&str]| {
        let environment = [("HF_ENDPOINT", endpoint.as_str()), ("HF_HOME", text(&home))];
        Process::lab_in(&[args, &["--data", text(&place.data())]].concat(), &environment).wait()
    };
    // Without a mapping, what is there, and a mapping to begin with, which is one.
    let shown = run(&["import", "lab/tea"]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains("prompt = \"question\"") && shown.stdout.contains("range = [1, 5]"), "{}", shown.stdout);
    let guessed = place.file("tea.toml", &shown.stdout);
    let imported = run(&["import", "lab/tea", "--mapping", &guessed]);
    assert_eq!(imported.code, Some(0), "{}", imported.stderr);
    assert!(imported.stdout.contains("60 answers to 30 prompts"), "{}", imported.stdout);
    let own = place.file("own.toml", format!("hub = \"lab/tea\"\nfiles = [\"train*\"]\n{FLAT}"));
    let imported = run(&["import", "--mapping", &own]);
    assert_eq!(imported.code, Some(0), "{}", imported.stderr);
    assert_eq!(hub.asked().len(), 1, "it was there already");
    let error = run(&["import", "lab/other", "--mapping", &own]);
    assert!(error.code == Some(2) && error.stderr.contains("the hub has no lab/other"), "{}", error.stderr);
}
