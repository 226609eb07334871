//! The Python client against a real server, and the notebook that is shown with it.

use anyhow::{Context, Result, ensure};
use moslim_tests::{Lab, long_run};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../static/client")
}

/// Runs Python beside the client; `None` where there is none.
async fn python(lab: &Lab, script: &str) -> Result<Option<Output>> {
    let mut command = Command::new("python3");
    command.args(["-c", script]).env("PYTHONPATH", client()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("MOSLIM_LAB_DATA", lab.data()).env("MOSLIM_LAB_URL", lab.origin()).env("MOSLIM_LAB_PRESET", "smoke");
    match tokio::task::spawn_blocking(move || command.output()).await? {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("there is no python3 here: the client was not tested");
            Ok(None)
        }
        output => Ok(Some(output?)),
    }
}

fn said(output: &Output) -> Result<String> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_notebook_starts_follows_and_asks_a_run() -> Result<()> {
    let lab = Lab::start().await;
    let notebook: Value = serde_json::from_slice(&std::fs::read(client().join("a-run.ipynb"))?)?;
    let cells = notebook["cells"].as_array().context("cells")?.iter().filter(|cell| cell["cell_type"] == "code");
    let source = |cell: &Value| {
        let lines = cell["source"].as_array().into_iter().flatten();
        lines.filter_map(Value::as_str).collect::<String>()
    };
    let script: Vec<String> = cells.map(source).collect();
    let names = "\nprint('measured:', *sorted({name for _, name, _, value in run.scalars()}))";
    let Some(output) = python(&lab, &(script.join("\n") + names)).await? else { return Ok(()) };
    let said = said(&output)?;
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
    let Some(output) = python(&lab, &script).await? else { return Ok(()) };
    let said = said(&output)?;
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
