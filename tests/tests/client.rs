//! The Python client against a real server, and the notebook that is shown with it.

use anyhow::{Context, Result, bail, ensure};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use moslim_shared::config::RunConfig;
use moslim_shared::event::EventBody;
use moslim_shared::study::StudyConfig;
use moslim_tests::{Lab, Process, long_run, smoke, text, wait_until};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../static/client")
}

/// Whether there is a Python to test the client with.
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("there is no python3 here: the client was not tested");
    }
    found
}

/// Starts Python beside the client; what it prints can be read as it comes.
fn begin(environment: &[(&str, &str)], script: &str) -> Process {
    let client = client();
    let own = [("PYTHONPATH", text(&client)), ("PYTHONDONTWRITEBYTECODE", "1")];
    Process::start_in(Path::new("python3"), &["-c", script], "", &[&own[..], environment].concat())
}

/// The same, with a lab to talk to.
fn begin_with(lab: &Lab, script: &str) -> Process {
    let origin = lab.origin();
    let own = [("MOSLIM_LAB_DATA", text(lab.data())), ("MOSLIM_LAB_URL", origin.as_str()), ("MOSLIM_LAB_PRESET", "smoke")];
    begin(&own, script)
}

/// What a script prints, which ends well.
async fn printed(mut script: Process) -> Result<String> {
    let output = tokio::task::spawn_blocking(move || script.wait()).await?;
    ensure!(output.code == Some(0), "{}{}", output.stdout, output.stderr);
    Ok(output.stdout)
}

/// A run of a second.
fn tiny() -> RunConfig {
    let mut config = smoke();
    (config.sft.steps, config.reward_model.steps, config.policy.iterations) = (10, 12, 4);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_notebook_starts_follows_and_asks_a_run() -> Result<()> {
    if !has_python() {
        return Ok(());
    }
    let lab = Lab::start().await;
    let notebook: Value = serde_json::from_slice(&std::fs::read(client().join("a-run.ipynb"))?)?;
    let cells = notebook["cells"].as_array().context("cells")?.iter().filter(|cell| cell["cell_type"] == "code");
    let source = |cell: &Value| {
        let lines = cell["source"].as_array().into_iter().flatten();
        lines.filter_map(Value::as_str).collect::<String>()
    };
    let script: Vec<String> = cells.map(source).collect();
    let names = "\nprint('measured:', *sorted({name for _, name, _, value in run.scalars()}))";
    let said = printed(begin_with(&lab, &(script.join("\n") + names))).await?;
    let run = lab.get("/api/v1/runs").await.body["rows"][0].clone();
    ensure!(run["title"] == "From a notebook" && run["status"] == "finished", "{run}");
    let hit = format!("{:.2} after", run["hit"].as_f64().context("a hit rate")?);
    let measured = said.lines().last().unwrap_or_default();
    for name in ["sft/loss", "reward_model/loss", "policy/reward", "policy/kl", "policy/on_target/3"] {
        ensure!(measured.split(' ').any(|own| own == name), "{name} in {measured}");
    }
    ensure!(said.contains(&hit) && said.contains("verbosity=0 ->") && said.contains("iteration "), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_says_what_the_server_refuses() -> Result<()> {
    if !has_python() {
        return Ok(());
    }
    let lab = Lab::start().await;
    let first = lab.start_run(&long_run(5_000)).await;
    let script = format!(
        "import os, moslim_lab\n\
         lab = moslim_lab.Lab(os.environ['MOSLIM_LAB_URL'])\n\
         def refused(what):\n\
         \x20   try: what()\n\
         \x20   except moslim_lab.LabError as error: print(error.status, str(error).replace(chr(10), ' '))\n\
         refused(lambda: lab.start('smoke', device='cpu'))\n\
         refused(lambda: lab.start('smoke', policy__learning_rate=-1.0))\n\
         refused(lambda: lab.run('nothing'))\n\
         refused(lambda: moslim_lab.Lab(lab.url, token='x' * 32).presets())\n\
         waiting = lab.start('smoke', device='cpu', wait=True, priority=3)\n\
         print(waiting.info()['status'], [row['id'] for row in lab.runs('status:queued')] == [waiting.id])\n\
         print(list(lab.runs('status:queued', fields=['id', 'seed'])) == [dict(id=waiting.id, seed=1)])\n\
         refused(lambda: next(lab.runs(fields=['name'])))\n\
         print(waiting.prioritise(-2)['message'])\n\
         refused(lambda: waiting.prioritise(101))\n\
         refused(waiting.pause)\n\
         refused(waiting.kill)\n\
         waiting.cancel(); lab.run('{first}').cancel()\n\
         waiting.delete(); refused(waiting.info)\n\
         print(len(list(lab.run('{first}').follow())) > 0)\n"
    );
    let said = printed(begin_with(&lab, &script)).await?;
    let lines: Vec<&str> = said.lines().collect();
    for (line, part) in [
        "409 run ",
        "422 ",
        "404 there is no run nothing",
        "401 who is asking?",
        "queued True",
        "True",
        "400 fields: has \"name\"; allowed is id, title, ",
        "It begins when its device has a free slot; its priority is -2.",
        "422 priority: is 101; allowed is -100 to 100",
        "409 run ",
        "409 run ",
        "404 there is no run",
        "True",
    ]
    .iter()
    .enumerate()
    {
        ensure!(lines.get(line).is_some_and(|l| l.starts_with(part)), "{part} should begin line {line} of\n{said}");
    }
    ensure!(lines[1].contains("policy.learning_rate: "), "{said}");
    Ok(())
}

/// The server is killed and comes back, three times, while one client follows a run and another waits for it: no event is missed, none
/// comes twice, and neither asks for all that is known of the run.
#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_run_misses_nothing_where_the_server_goes_and_comes_back() -> Result<()> {
    if !has_python() {
        return Ok(());
    }
    let mut lab = Lab::start().await;
    let id = lab.start_run(&long_run(5_000)).await;
    let counted = format!(
        "import os, moslim_lab\n\
         asked = []\n\
         class Counted(moslim_lab.Lab):\n\
         \x20   def open(self, method, path, *rest, **more):\n\
         \x20       asked.append(path)\n\
         \x20       return super().open(method, path, *rest, **more)\n\
         run = Counted(os.environ['MOSLIM_LAB_URL'], timeout=10).run('{id}')\n"
    );
    let count = format!("print('whole runs:', asked.count('/api/v1/runs/{id}'))\n");
    let follow = format!("{counted}for event in run.follow(every=0.05): print(event['seq'], flush=True)\n{count}");
    let wait = format!(
        "{counted}print('waits', flush=True)\n\
         try: run.wait(every=0.05)\n\
         except moslim_lab.LabError as error: print(error)\n\
         {count}"
    );
    let (mut follower, mut waiter) = (begin_with(&lab, &follow), begin_with(&lab, &wait));
    wait_until("the client that waits", || {
        assert!(waiter.running(), "{}", waiter.stderr());
        waiter.stdout().starts_with("waits").then_some(())
    })
    .await;
    for away in [false, true, true, true] {
        if away {
            lab.kill();
            // Long enough for both to find nobody there.
            tokio::time::sleep(Duration::from_millis(700)).await;
            lab.restart().await;
        }
        let known = lab.run(&id).await.last_seq;
        wait_until("the client to hear of what comes now", || {
            assert!(follower.running(), "{}", follower.stderr());
            let last: u64 = follower.stdout().lines().last()?.parse().ok()?;
            (last > known).then_some(())
        })
        .await;
        ensure!(waiter.running(), "{}", waiter.stderr());
    }
    let cancelled = lab.post(&format!("/api/v1/runs/{id}/cancel"), &json!({})).await;
    ensure!(cancelled.status == 202, "{}", cancelled.body);
    lab.wait_for_end(&id).await;
    let heard = printed(follower).await?;
    let (numbers, asked) = heard.trim_end().rsplit_once('\n').with_context(|| heard.clone())?;
    let numbers: Vec<u64> = numbers.lines().map(str::parse).collect::<Result<_, _>>()?;
    let all = lab.events(&id).await.len() as u64;
    ensure!(numbers == (1..=all).collect::<Vec<_>>(), "of {all} events it heard {} as {numbers:?}", numbers.len());
    ensure!(asked == "whole runs: 0", "{asked}");
    let said = printed(waiter).await?;
    ensure!(said.contains(&format!("run {id} is cancelled")) && said.ends_with("whole runs: 0\n"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up() -> Result<()> {
    if !has_python() {
        return Ok(());
    }
    // The system takes connections for it.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let script = format!(
        "import moslim_lab, time\n\
         print(moslim_lab.Lab('http://localhost', token='x').timeout)\n\
         lab = moslim_lab.Lab('http://{}', token='x', timeout=1)\n\
         began = time.monotonic()\n\
         def gives_up(what):\n\
         \x20   try: what()\n\
         \x20   except moslim_lab.NoAnswer as error: print(error.status, 'does not answer' in str(error))\n\
         gives_up(lab.presets)\n\
         gives_up(lambda: next(moslim_lab.Run(lab, 'a').follow(patience=0.5)))\n\
         gives_up(lambda: moslim_lab.Run(lab, 'a').wait(patience=0.5))\n\
         print(time.monotonic() - began < 60)\n",
        silent.local_addr()?
    );
    let said = printed(begin(&[], &script)).await?;
    ensure!(said == "30\n0 True\n0 True\n0 True\nTrue\n", "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_ones_own_is_trusted_where_it_is_named() -> Result<()> {
    if !has_python() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let [data, chain, key] = ["data", "server.crt", "server.key"].map(|name| folder.path().join(name));
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    std::fs::write(&chain, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let files = ["--data", text(&data), "--certificate", text(&chain), "--key", text(&key)];
    let mut server = Process::lab(&[&["serve", "--port", "0"], &files[..]].concat());
    let port: u16 = wait_until("the server to be ready", || {
        assert!(server.running(), "{}", server.stderr());
        let said = server.stdout();
        let (port, _) = said.split_once("https://127.0.0.1:")?.1.split_once("/?token=")?;
        port.parse().ok()
    })
    .await;
    let script = format!(
        "import moslim_lab\n\
         print('smoke' in moslim_lab.Lab('https://localhost:{port}', ca='{}').presets())\n\
         try: moslim_lab.Lab('https://localhost:{port}').presets()\n\
         except moslim_lab.LabError as error: print(type(error).__name__, 'is not trusted' in str(error))\n",
        text(&chain)
    );
    let said = printed(begin(&[("MOSLIM_LAB_DATA", text(&data))], &script)).await?;
    ensure!(said == "True\nLabError True\n", "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn studies_are_listed_read_started_and_stopped() -> Result<()> {
    if !has_python() {
        return Ok(());
    }
    let (lab, place) = (Lab::start().await, tempfile::tempdir()?);
    let plan = StudyConfig { name: "one".into(), question: String::new(), base: tiny(), axes: Vec::new(), seeds: vec![7] };
    let file = place.path().join("plan.json");
    std::fs::write(&file, serde_json::to_vec(&plan)?)?;
    let trained = Process::lab(&["study", "--config", text(&file), "--data", text(lab.data())]).wait();
    ensure!(trained.code == Some(0), "{}", trained.stderr);
    let script = "import os, moslim_lab\n\
         lab = moslim_lab.Lab(os.environ['MOSLIM_LAB_URL'])\n\
         def refused(what):\n\
         \x20   try: what()\n\
         \x20   except moslim_lab.LabError as error: print(error.status, str(error))\n\
         [state] = lab.studies()\n\
         study = lab.study(state['id'])\n\
         results = study.wait()\n\
         print(state['name'], results['runs'][0]['seed'], results == study.results())\n\
         print(study.runs()[0].status(), len(study.file('results.csv').splitlines()) > 1)\n\
         refused(lambda: study.file('nothing'))\n\
         refused(lambda: lab.study('nothing'))\n\
         print('methods' in lab.study_presets())\n\
         new = lab.start_study('methods', base='smoke', seeds=[3])\n\
         state = new.info()\n\
         print(state['active'], {run['seed'] for run in state['runs']})\n\
         new.cancel()\n\
         refused(lambda: new.wait(every=0.1))\n\
         print([state['id'] for state in lab.studies()] == [new.id, study.id])\n";
    let said = printed(begin_with(&lab, script)).await?;
    let lines: Vec<&str> = said.lines().collect();
    for (line, part) in [
        "one 7 True",
        "('finished', '') True",
        "404 a study has no file nothing",
        "404 there is no study nothing",
        "True",
        "True {3}",
        "0 ",
        "True",
    ]
    .iter()
    .enumerate()
    {
        ensure!(lines.get(line).is_some_and(|l| l.starts_with(part)), "{part} should begin line {line} of\n{said}");
    }
    ensure!(lines[6].contains(" did not finish"), "{said}");
    Ok(())
}

/// CRC-32C, turned and moved as event files have it.
fn checksum(data: &[u8]) -> u32 {
    let crc = !data.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The records of an event file, each of which has the checksums of its length and of its data.
fn records(mut rest: &[u8]) -> Result<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at_checked(12).context("the head of a record is cut off")?;
        let (length, sum) = head.split_at(8);
        ensure!(checksum(length).to_le_bytes() == *sum, "a length does not match its checksum");
        let (data, tail) =
            tail.split_at_checked(u64::from_le_bytes(length.try_into()?) as usize).context("a record is cut off")?;
        let (sum, tail) = tail.split_at_checked(4).context("the end of a record is cut off")?;
        ensure!(checksum(data).to_le_bytes() == *sum, "a record does not match its checksum");
        found.push(data);
        rest = tail;
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_come_as_rows_and_as_a_file_that_tensorboard_reads() -> Result<()> {
    if !has_python() {
        return Ok(());
    }
    let (lab, place) = (Lab::start().await, tempfile::tempdir()?);
    let id = lab.start_run(&tiny()).await;
    lab.wait_for_finish(&id).await;
    let script = format!(
        "import os, moslim_lab\n\
         run = moslim_lab.Lab(os.environ['MOSLIM_LAB_URL']).run('{id}')\n\
         rows = list(run.series('policy'))\n\
         print([row['step.step'] for row in rows])\n\
         numbers = [row['seq'] for row in rows]\n\
         print([row['seq'] for row in run.series('policy', numbers[1], numbers[2])] == numbers[1:3])\n\
         print([row['seq'] for row in run.series('policy', to=numbers[1])] == numbers[:2])\n\
         try: list(run.series('nothing'))\n\
         except moslim_lab.LabError as error: print(error.status)\n\
         first = run.to_tensorboard('{to}')\n\
         print(first == run.to_tensorboard('{to}'))\n",
        to = text(place.path())
    );
    let said = printed(begin_with(&lab, &script)).await?;
    ensure!(said == "[1, 2, 3, 4]\nTrue\nTrue\n404\nTrue\n", "{said}");
    let files: Vec<PathBuf> = std::fs::read_dir(place.path().join(&id))?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    let [file] = files.as_slice() else { bail!("{files:?}: a second one takes the place of the first") };
    ensure!(file.to_string_lossy().contains("tfevents"), "TensorBoard looks for another name than {file:?}");
    let bytes = std::fs::read(file)?;
    let records = records(&bytes)?;
    ensure!(records.first().is_some_and(|first| first.ends_with(b"\x1a\x0dbrain.Event:2")), "it does not say what it is");
    // Time, step, and a summary of one value, whose tag comes before its number.
    let tag = b"\x0a\x0dpolicy/reward\x15";
    let rewards: Vec<&&[u8]> = records.iter().filter(|r| r.windows(tag.len()).any(|at| at == tag)).collect();
    let mut steps = 0;
    for event in lab.events(&id).await {
        let EventBody::Policy { step, .. } = &event.body else { continue };
        let record = rewards.get(steps).context("a step is missing")?;
        ensure!(record[0] == 0x09 && f64::from_le_bytes(record[1..9].try_into()?) == event.time as f64 / 1000.0, "{record:?}");
        ensure!(record[9] == 0x10 && usize::from(record[10]) == step.step, "{record:?}");
        ensure!(record[record.len() - 4..] == (step.reward as f32).to_le_bytes(), "{record:?} is not {}", step.reward);
        steps += 1;
    }
    ensure!(steps == rewards.len() && steps == 4, "{} records of {steps} steps", rewards.len());
    Ok(())
}

/// Figures in two pages, and one without rows, as the server answers who is up to date.
async fn pages(uri: Uri) -> Response {
    match uri.query().unwrap_or_default() {
        "what=loss" | "what=loss&to=4" => {
            ([("x-next", "5")], Json(json!({ "columns": ["seq", "a"], "rows": [[1, 2]] }))).into_response()
        }
        "what=loss&from=5" => ([("x-next", "9")], Json(json!({ "columns": ["b", "seq"], "rows": [[3, 5]] }))).into_response(),
        "what=loss&from=9" => ([("x-next", "9")], Json(json!({ "columns": ["seq"], "rows": [] }))).into_response(),
        _ => (StatusCode::NOT_FOUND, Json(json!({ "detail": "there is none there" }))).into_response(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_that_come_in_pages_come_all() -> Result<()> {
    if !has_python() {
        return Ok(());
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let serving =
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/api/v1/runs/a/series", get(pages))).await });
    let script = format!(
        "import moslim_lab\n\
         run = moslim_lab.Run(moslim_lab.Lab('http://127.0.0.1:{port}', token='x'), 'a')\n\
         print(*run.series('loss'), sep=';')\n\
         print(*run.series('loss', from_=5), sep=';')\n\
         print(*run.series('loss', to=4), list(run.series('loss', from_=9)), sep=';')\n\
         try: list(run.series('note'))\n\
         except moslim_lab.LabError as error: print(error.status, error)\n"
    );
    let said = printed(begin(&[], &script)).await?;
    serving.abort();
    ensure!(
        said == "{'seq': 1, 'a': 2};{'b': 3, 'seq': 5}\n{'b': 3, 'seq': 5}\n{'seq': 1, 'a': 2};[]\n404 there is none there\n",
        "{said}"
    );
    Ok(())
}
