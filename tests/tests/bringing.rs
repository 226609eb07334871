//! People's ratings on the page: a file is chosen, looked at, mapped, tried, imported, read and changed; and over the API what cannot
//! be is refused and leaves nothing.

use anyhow::{Context, Result, ensure};
use moslim_shared::inference::Reading;
use moslim_tests::{Answer, Browser, FLAT, Lab, Place, lines, record, smoke};
use reqwest::Method;
use serde_json::{Value, json};

/// Sends a file as the page does.
async fn upload(lab: &Lab, name: &str, content: impl Into<Vec<u8>>) -> Answer {
    let request = lab.request(Method::POST, &format!("/api/v1/uploads?name={name}")).header("origin", lab.origin());
    lab.send(request.header("content-type", "application/octet-stream").body(content.into())).await
}

fn request(upload: &Value, name: &str, mapping: &str) -> Value {
    json!({"upload": upload["id"], "name": name, "mapping": mapping})
}

/// Names in a folder of the lab's.
fn left(lab: &Lab, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(lab.data().join(folder)).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_becomes_a_task_over_the_api() -> Result<()> {
    let lab = Lab::start().await;
    let sent = upload(&lab, "tea.jsonl", lines((0..240).map(record))).await;
    assert_eq!(sent.status, 201, "{}", sent.body);
    let paths: Vec<&str> =
        sent.body["columns"].as_array().context("columns")?.iter().filter_map(|c| c["path"].as_str()).collect();
    assert_eq!(paths, ["question", "answer", "use", "tone"]);
    assert!(sent.body["mapping"].as_str().is_some_and(|m| m.contains("[[objectives]]")), "{}", sent.body);
    assert!(sent.body["known"].as_array().is_some_and(|k| k.iter().any(|k| k["name"] == "helpsteer2")));
    let seen = lab.post("/api/v1/uploads/preview", &request(&sent.body, "tea", FLAT)).await;
    assert_eq!(seen.status, 200, "{}", seen.body);
    let report = &seen.body["task"]["report"];
    assert_eq!((&report["records"], &report["rows"]), (&json!(100), &json!(100)), "it reads no more than it has to");
    assert_eq!(seen.body["rows"].as_array().map(Vec::len), Some(100));
    assert_eq!(left(&lab, "tasks"), Vec::<String>::new(), "a preview is not an import");
    let made = lab.post("/api/v1/tasks", &request(&sent.body, "tea", FLAT)).await;
    assert_eq!((made.status, &made.body["report"]["rows"]), (201, &json!(240)), "{}", made.body);
    assert_eq!(left(&lab, "uploads"), Vec::<String>::new(), "the file is not needed any more");
    // Two classes become one, and again two.
    let merge = json!({"changes": [{"kind": "merge", "objective": "use", "from": 0, "to": 1, "name": "of no use"}]});
    let changed = lab.post("/api/v1/tasks/tea/changes", &merge).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let classes = async || lab.get("/api/v1/tasks/tea/stats").await.body["labels"][0]["classes"].as_array().map(Vec::len);
    assert_eq!(classes().await, Some(4));
    let undone = lab.post("/api/v1/tasks/tea/changes", &json!({"undo_all": true})).await;
    assert_eq!((undone.status, classes().await), (200, Some(5)), "{}", undone.body);
    // The reward model of a run on it says which labels it doubts.
    let mut config = smoke();
    config.task.kind = moslim_shared::config::TaskKind::Ratings;
    config.task.name = "tea".into();
    config.targets.held_out.clear();
    config.evaluation.held_out = 0;
    let run = lab.start_run(&config).await;
    lab.wait_for_finish(&run).await;
    let doubts = lab.post("/api/v1/tasks/tea/noise", &json!({"run": run, "n": 7})).await;
    assert_eq!(doubts.status, 200, "{}", doubts.body);
    let p: Vec<f64> = doubts.body.as_array().context("labels")?.iter().filter_map(|l| l["probability"].as_f64()).collect();
    assert!(p.len() == 7 && p.windows(2).all(|w| w[0] <= w[1]), "{p:?}");
    // Each comes as the reward model reads it: without tags, with an end.
    for label in doubts.body.as_array().context("labels")? {
        let read: Reading = serde_json::from_value(label["read"].clone())?;
        let text = read.pieces.concat();
        let [question, answer] = ["prompt", "response"].map(|part| label[part].as_str().unwrap_or_default());
        ensure!(text.contains(question) && text.contains(answer) && read.pieces.len() <= read.context, "{read:?}");
        let special: Vec<&str> = read.special.iter().map(|&n| read.pieces[n].as_str()).collect();
        assert_eq!((special, read.context), (vec!["<user>", "<assistant>", "<eos>"], config.reward_trunk.context), "{text}");
    }
    // A reader of the page sees the same.
    let browser: Browser = lab.browser().await?;
    browser.goto(&format!("{}/data/tea", lab.origin())).await?;
    let filled = ["#balance .balance", "#rows .rated-row", "#doubt"].map(|own| format!("!!document.querySelector('{own}')"));
    browser.wait(&filled.join(" && ")).await?;
    browser.click("#doubt").await?;
    browser.wait("document.querySelector('#doubts .read') !== null").await?;
    browser.click("#doubts .read summary").await?;
    browser.wait("document.querySelector('#doubts .read').open").await?;
    let shown = browser.js("[...document.querySelector('#doubts .tokens').children].map(s => s.textContent)").await?;
    assert_eq!(shown, doubts.body[0]["read"]["pieces"]);
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_imported_is_refused_and_leaves_nothing() -> Result<()> {
    let lab = Lab::start().await;
    for (name, content, words) in [
        ("..%2fx.csv", "a,b\n1,2\n", "no dot at its beginning"),
        ("x%2fy.csv", "a,b\n1,2\n", "letters, digits"),
        ("x.exe", "a,b\n1,2\n", "does not tell its format"),
        ("x.parquet", "no parquet", "x.parquet"),
        ("x.json", "[1,", "it is not JSON"),
    ] {
        let answer = upload(&lab, name, content).await;
        assert_eq!(answer.status, 422, "{name}: {}", answer.body);
        let said = answer.body["detail"].as_str().unwrap_or_default().to_string();
        assert!(said.contains(words) && !said.contains(&lab.data().display().to_string()), "{name}: {said}");
    }
    assert_eq!(left(&lab, "uploads"), Vec::<String>::new());
    let mut broken: Vec<String> = (0..60).map(|n| record(n).to_string()).collect();
    broken[6] = "{\"question\": ".into();
    broken.iter_mut().skip(40).for_each(|line| *line = json!({"question": "q", "answer": "a", "use": 9}).to_string());
    let sent = upload(&lab, "tea.jsonl", broken.join("\n")).await;
    assert_eq!(sent.status, 201, "{}", sent.body);
    let ask = async |path: &str, body: Value| lab.post(path, &body).await;
    let open = FLAT.replace("prompt = \"question\"", "prompt = \"?\"");
    for (mapping, name, field, words) in [
        (FLAT, "../tea", "name", "name"),
        ("prompt = ", "tea", "mapping", "mapping"),
        (open.as_str(), "tea", "mapping", "is still \"?\""),
        (FLAT, "tea", "", "answers cannot be used"),
    ] {
        let answer = ask("/api/v1/tasks", request(&sent.body, name, mapping)).await;
        assert_eq!(answer.status, 422, "{mapping}: {}", answer.body);
        assert_eq!(answer.body["problems"][0]["field"], field, "{}", answer.body);
        assert!(answer.body["detail"].as_str().is_some_and(|e| e.contains(words)), "{}", answer.body);
    }
    let stops = ask("/api/v1/tasks", json!({"upload": sent.body["id"], "name": "tea", "mapping": FLAT, "stop": true})).await;
    assert!(stops.body["detail"].as_str().is_some_and(|e| e.contains("tea.jsonl") && e.contains('7')), "{}", stops.body);
    assert_eq!(left(&lab, "tasks"), Vec::<String>::new());
    let gone = ask("/api/v1/uploads/preview", json!({"upload": "20200101-000000-abcd", "name": "a", "mapping": FLAT})).await;
    assert!(gone.body["detail"].as_str().is_some_and(|e| e.contains("send it again")), "{}", gone.body);
    for (path, body, status) in [
        ("/api/v1/tasks/none/changes", json!({"changes": []}), 404),
        ("/api/v1/tasks/none/noise", json!({"run": "a-1", "n": 5}), 404),
        ("/api/v1/tasks/none/noise", json!({"run": "a-1", "n": 0}), 422),
    ] {
        assert_eq!(ask(path, body).await.status, status, "{path}");
    }
    let models = lab.get("/api/v1/models").await;
    assert_eq!((models.status, &models.body["models"]), (200, &json!([])));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_imports_ratings_on_the_page() -> Result<()> {
    let lab = Lab::start().await;
    let place = Place::new();
    let file = place.file("my tea.jsonl", lines((0..240).map(record)));
    let browser: Browser = lab.browser().await?;
    browser.goto(&lab.origin()).await?;
    browser.wait("document.querySelector('#start-demo') !== null").await?;
    browser.click("nav a[href='/data']").await?;
    browser.wait("document.querySelector('#tasks .empty') !== null").await?;
    browser.choose("#ratings-file", &file).await?;
    browser.wait("document.querySelector('#mapping')?.value.includes('[[objectives]]')").await?;
    assert_eq!(browser.js("document.querySelector('#task-name').value").await?, "my-tea");
    browser.fill("#mapping", &FLAT.replace("\"tone\"\nlabel", "\"tone\"\nname = \"Tone\"\nlabel")).await?;
    browser.click("#try-import").await?;
    browser.wait("document.querySelectorAll('#preview .rated-row').length === 10").await?;
    assert_eq!(browser.js("document.querySelectorAll('#preview .balance').length").await?, 2);
    browser.click("#do-import").await?;
    browser.wait("location.pathname === '/data/my-tea' && document.querySelectorAll('#rows .rated-row').length === 20").await?;
    browser.wait("document.querySelectorAll('#balance .balance').length === 2").await?;
    // The page shows what the API counts.
    let labels = lab.get("/api/v1/tasks/my-tea/stats").await.body["labels"][0]["classes"].clone();
    let shown = browser.js("document.querySelector('#balance [data-objective=use] .hint').textContent").await?;
    let said: Vec<String> =
        labels.as_array().context("classes")?.iter().enumerate().map(|(c, n)| format!("{}: {n}", c + 1)).collect();
    assert_eq!(shown, said.join(", "));
    browser.click("#rows-on").await?;
    browser.wait("document.querySelector('#rows .rated-row').dataset.row === '21'").await?;
    browser
        .js("(() => { const to = document.querySelector('#change-to'); to.value = '2'; to.dispatchEvent(new Event('change')); })()")
        .await?;
    browser.fill("#change-name", "low").await?;
    browser.click("#merge").await?;
    browser.wait("document.querySelector('#balance [data-objective=use] .hint')?.textContent.startsWith('low: ')").await?;
    browser.click("#undo-changes").await?;
    browser.wait("document.querySelector('#balance [data-objective=use] .hint')?.textContent.startsWith('1: ')").await?;
    browser.js("scrollTo(0, 0)").await?;
    browser.click("#train-on").await?;
    browser.wait("document.querySelector('#field-task-name')?.value === 'my-tea'").await?;
    browser.goto(&format!("{}/models", lab.origin())).await?;
    browser.wait("document.querySelector('#models .empty') !== null").await?;
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}
