//! What the command line and the API say, word for word. `INSTA_UPDATE=always cargo test -p moslim-tests --test snapshots` takes what
//! they say now as what they should say; read the difference before you commit it.

use insta::assert_snapshot;
use moslim_tests::{Lab, Process, smoke, text};
use serde_json::{Value, json};

fn says(args: &[&str]) -> String {
    let output = Process::lab(args).wait();
    format!("exit code {:?}\n-- stdout\n{}-- stderr\n{}", output.code, output.stdout, output.stderr)
}

#[test]
fn help_is_what_it_was() {
    assert_snapshot!("help", says(&["--help"]));
    for command in ["serve", "train", "study", "stop", "reindex", "score", "generate", "bench"] {
        assert_snapshot!(format!("help-{command}"), says(&[command, "--help"]));
    }
}

#[test]
fn refusals_of_the_command_line_are_what_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("run.toml"));
    let refuse = |toml: &str| {
        std::fs::write(&file, toml).unwrap();
        says(&["train", "--config", text(&file), "--data", text(&data)]).replace(text(folder.path()), "FOLDER")
    };
    assert_snapshot!("refuse-range", refuse("[policy]\nprompts = 0\nclip = 99.0\n[sft]\nlearning_rate = -1.0\n"));
    assert_snapshot!("refuse-unknown", refuse("[policy]\nshamples = 3\n"));
    assert_snapshot!("refuse-syntax", refuse("[policy\n"));
    assert_snapshot!(
        "refuse-rule",
        refuse("[policy]\nsamples_per_prompt = 1\n[method]\nkind = \"morlhf\"\npreference_sft = 5\n")
    );
    assert_snapshot!("refuse-stop", says(&["stop", "--run", "nothing", "--data", text(&data)]));
}

#[tokio::test]
async fn answers_of_the_api_are_what_they_were() {
    let lab = Lab::start().await;
    let shown = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    assert_snapshot!("api-task", shown(&lab.get("/api/v1/task").await.body));
    assert_snapshot!("api-not-found", shown(&lab.get("/api/v1/runs/nothing").await.body));
    let mut config = smoke();
    (config.policy.samples_per_prompt, config.task.label_noise) = (1, 0.9);
    assert_snapshot!("api-validate", shown(&lab.post("/api/v1/validate", &json!({ "config": config })).await.body));
    let wrong = json!({ "config": { "policy": { "prompts": "many" } } });
    assert_snapshot!("api-wrong-type", shown(&lab.post("/api/v1/runs", &wrong).await.body));
}
