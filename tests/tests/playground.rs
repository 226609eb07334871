//! Finished runs that are asked: over the API, and on the page.

use anyhow::{Context, Result, ensure};
use moslim_shared::event::RunStatus;
use moslim_shared::inference::{GenerateEvent, Scored};
use moslim_tests::inference::{answers, generate};
use moslim_tests::{Lab, Process, binary, long_run, processes, smoke, text};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const QUESTION: &str = "How do I make tea?";

/// Trains a run of the smallest preset.
async fn trained(lab: &Lab) -> String {
    let run = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&run).await;
    run
}

fn reward(scored: &Scored) -> f64 {
    scored.reward.as_ref().expect("a reward").scalar
}

#[tokio::test]
async fn a_finished_run_answers_and_scores_over_the_api() -> Result<()> {
    let lab = Lab::start().await;
    let run = trained(&lab).await;
    let asked = json!({ "prompt": QUESTION, "target": "helpfulness=4,verbosity=0", "n": 8, "max_new_tokens": 16, "seed": 7 });
    let events = generate(&lab, &run, asked.clone()).await;
    let GenerateEvent::Prompt { text: read, pieces, special, context, preference } = &events[0] else {
        panic!("{:?} is no prompt", events[0])
    };
    assert_eq!((&pieces.concat(), *context), (read, smoke().model.context));
    let special: Vec<&str> = special.iter().map(|&n| pieces[n].as_str()).collect();
    assert_eq!(special, ["<user>", "<helpfulness=4>", "<verbosity=0>", "<assistant>"], "a tag is one token: {pieces:?}");
    assert!(read.contains("<helpfulness=4>") && read.contains("tea"), "{read}");
    assert_eq!(preference.0, [Some(4), None, None, Some(0)]);
    assert!(matches!(events.last(), Some(GenerateEvent::Ended { tokens, .. }) if *tokens >= 8), "{:?}", events.last());
    let all = answers(&events);
    assert_eq!(all.len(), 8);
    // What came in pieces is what came whole.
    for (n, (whole, scored)) in all.iter().enumerate() {
        let piece = |event: &GenerateEvent| match event {
            GenerateEvent::Text { answer, text } if *answer == n => Some(text.clone()),
            _ => None,
        };
        assert_eq!(&events.iter().filter_map(piece).collect::<String>(), whole);
        let parts: f64 = scored.reward.as_ref().expect("a reward").contributions.iter().sum();
        assert!((reward(scored) - parts).abs() < 1e-9);
        assert_eq!(scored.gold.as_ref().map(Vec::len), Some(4), "the world's rules grade");
    }

    // The command line says the same.
    let args = ["generate", "--run", &run, "--prompt", QUESTION, "--target", "helpfulness=4,verbosity=0", "--n", "8"];
    let more = ["--max-new-tokens", "16", "--seed", "7", "--json", "--data", text(lab.data())];
    let output = Process::lab(&[args.as_slice(), &more].concat()).wait();
    let said: Value = serde_json::from_str(&output.stdout).with_context(|| output.stderr.clone())?;
    assert_eq!(said["responses"], json!(all.iter().map(|(text, _)| text).collect::<Vec<_>>()));
    let pairs: Vec<Value> = all.iter().map(|(response, _)| json!({ "prompt": QUESTION, "response": response })).collect();
    let path = format!("/api/v1/runs/{run}/score");
    let scores = lab.post(&path, &json!({ "pairs": pairs, "target": "helpfulness=4,verbosity=0" })).await;
    assert_eq!(scores.status, 200, "{}", scores.body);
    let scores: Vec<Scored> = serde_json::from_value(scores.body)?;
    // Scores are those of the command line. What an untrained policy samples need not be how the tokenizer would write its text, so
    // they are compared with each other.
    let lines = pairs.iter().map(|pair| format!("{pair}\n")).collect::<String>();
    let args = ["score", "--run", &run, "--target", "helpfulness=4,verbosity=0", "--data", text(lab.data())];
    let output = Process::start(&binary(), &args, &lines).wait();
    let native = output.stdout.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    assert_eq!((native.len(), scores.len()), (8, 8), "{}", output.stderr);
    for (api, native) in scores.iter().zip(&native) {
        let other = native["reward"]["scalar"].as_f64().context("a reward")?;
        assert!((reward(api) - other).abs() < 1e-6, "{} is not {other}", reward(api));
        assert_eq!(json!(api.gold.as_ref().map(|g| g[3])), native["gold"]["verbosity"]);
    }

    // The best of eight is the best of those eight.
    let mut best = asked.clone();
    (best["n"], best["best_of"]) = (json!(1), json!(8));
    let chosen = answers(&generate(&lab, &run, best).await);
    let highest = all.iter().map(|(_, s)| reward(s)).fold(f64::NEG_INFINITY, f64::max);
    assert!((reward(&chosen[0].1) - highest).abs() < 1e-4, "{} is not {highest}", reward(&chosen[0].1));

    // What it started from reads no tags.
    let mut start = asked.clone();
    start["source"] = json!("start");
    let events = generate(&lab, &run, start).await;
    assert!(matches!(&events[0], GenerateEvent::Prompt { text, .. } if !text.contains("helpfulness")), "{:?}", events[0]);
    assert_ne!(answers(&events).iter().map(|a| &a.0).collect::<Vec<_>>(), all.iter().map(|a| &a.0).collect::<Vec<_>>());
    Ok(())
}

/// A question of a run's model.
fn asked_of(source: &str) -> Value {
    json!({ "prompt": QUESTION, "target": "verbosity=0", "source": source, "n": 32, "max_new_tokens": 24, "seed": 3 })
}

async fn texts(lab: &Lab, run: &str, source: &str) -> Vec<String> {
    answers(&generate(lab, run, asked_of(source)).await).into_iter().map(|(text, _)| text).collect()
}

/// What a refusal says of who was asked.
async fn refusal(lab: &Lab, run: &str, source: &str) -> String {
    let answer = lab.post(&format!("/api/v1/runs/{run}/generate"), &asked_of(source)).await;
    let problem = &answer.body["problems"][0];
    assert_eq!((answer.status, &problem["field"]), (422, &json!("source")), "{}", answer.body);
    problem["message"].as_str().unwrap_or_default().to_string()
}

#[tokio::test]
async fn a_policy_answers_as_it_was_on_its_way() -> Result<()> {
    let lab = Lab::start().await;
    let run = trained(&lab).await;
    assert_eq!(lab.run(&run).await.milestones, [25, 50, 75]);
    assert_eq!(lab.get("/api/v1/runs").await.body["rows"][0]["milestones"], json!([25, 50, 75]));
    let weights = |name: &str| std::fs::read(lab.data().join("runs").join(&run).join(format!("{name}.safetensors")));
    let names = ["start", "milestone-25", "milestone-50", "milestone-75", "policy"];
    let weights = names.into_iter().map(weights).collect::<Result<Vec<_>, _>>()?;
    ensure!((1..5).all(|n| weights[..n].iter().all(|other| *other != weights[n])), "two of {names:?} are the same");
    let mut said = Vec::new();
    for source in ["start", "25", "50", "75", "policy", "newest"] {
        said.push(texts(&lab, &run, source).await);
    }
    let [start, quarter, half, _, policy, newest] = said.as_slice() else { panic!("six were asked") };
    ensure!(quarter != policy && quarter != start && newest == policy, "{said:?}");

    // The command line says the same.
    let args = ["generate", "--run", &run, "--source", "50", "--prompt", QUESTION, "--target", "verbosity=0", "--n", "32"];
    let more = ["--max-new-tokens", "24", "--seed", "3", "--temperature", "1", "--json", "--data", text(lab.data())];
    let output = Process::lab(&[args.as_slice(), &more].concat()).wait();
    let native: Value = serde_json::from_str(&output.stdout).with_context(|| output.stderr.clone())?;
    assert_eq!(native["responses"], json!(half));

    // What it took of the machine is told.
    let events = generate(&lab, &run, asked_of("75")).await;
    let Some(GenerateEvent::Ended { processor_seconds, .. }) = events.last() else { panic!("{:?}", events.last()) };
    ensure!(processor_seconds.is_some_and(|taken| taken > 0.0 && taken < 60.0), "{processor_seconds:?}");

    // What is not kept, as by a run of another version, is refused with what is.
    std::fs::remove_file(lab.data().join("runs").join(&run).join("milestone-50.safetensors"))?;
    assert_eq!(refusal(&lab, &run, "50").await, "is 50; this run has policy, start, 25, 75");
    Ok(())
}

#[tokio::test]
async fn a_run_answers_while_it_trains_and_with_what_it_had_when_it_was_cancelled() -> Result<()> {
    let lab = Lab::start().await;
    let mut config = long_run(3_000);
    config.policy.checkpoint_every = 10;
    let run = lab.start_run(&config).await;
    lab.wait_for_policy(&run, 751).await;
    let first = texts(&lab, &run, "newest").await;
    let quarter = texts(&lab, &run, "25").await;
    // Its checkpoint is replaced again and again meanwhile.
    for _ in 0..3 {
        texts(&lab, &run, "newest").await;
    }
    ensure!(refusal(&lab, &run, "policy").await.starts_with("is policy; this run has 25"));
    ensure!(lab.run(&run).await.status == RunStatus::Running, "it trains on");
    lab.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await;
    let ended = lab.wait_for_end(&run).await;
    ensure!(ended.status == RunStatus::Cancelled, "{}", ended.message);
    assert_eq!(texts(&lab, &run, "25").await, quarter);
    let newest = texts(&lab, &run, "newest").await;
    ensure!(newest != quarter && newest != first, "it has learnt since");
    // On a slow machine it was half-way before it could be cancelled.
    let has: Vec<String> = ended.milestones.iter().map(ToString::to_string).collect();
    let missing = ["50", "75"].into_iter().find(|share| has.iter().all(|own| own != share)).context("it went too far")?;
    for source in [missing, "start", "policy"] {
        assert_eq!(refusal(&lab, &run, source).await, format!("is {source}; this run has {}, newest", has.join(", ")));
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_and_who_leaves_is_not_waited_for() -> Result<()> {
    let lab = Lab::start().await;
    let run = trained(&lab).await;
    let path = format!("/api/v1/runs/{run}/generate");
    for (request, status, field, said) in [
        (json!({ "prompt": " " }), 422, "prompt", "is empty"),
        (json!({ "prompt": "a", "target": "kindness=1" }), 422, "target", "unknown objective"),
        (json!({ "prompt": "a", "n": 100, "best_of": 3 }), 422, "best_of", "allowed are 256"),
        (json!({ "prompt": "a", "max_new_tokens": 1024 }), 422, "prompt", "do not fit"),
        (json!({ "prompt": "a", "sauce": 1 }), 422, "sauce", "unknown field"),
        (json!({ "prompt": "a", "source": "20" }), 422, "source", "unknown variant"),
    ] {
        let answer = lab.post(&path, &request).await;
        assert_eq!(answer.status, status, "{request}: {}", answer.body);
        let problem = &answer.body["problems"][0];
        assert_eq!(problem["field"], field, "{request}: {}", answer.body);
        assert!(problem["message"].as_str().unwrap_or_default().contains(said), "{request}: {}", answer.body);
    }
    // As many tokens as the policy's context has room for leave none for the end that is scored: a refusal, and no crash.
    let full = |new: usize| json!({ "prompt": QUESTION, "source": "start", "max_new_tokens": new, "n": 64 });
    let refused = lab.post(&path, &full(1024)).await.body;
    let said = refused["problems"][0]["message"].as_str().context("a refusal")?.to_string();
    let numbers: Vec<usize> = said.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let (own, context) = (numbers[0], numbers[2]);
    let most = lab.post(&path, &full(context - own)).await;
    assert_eq!((most.status, &most.body["problems"][0]["field"]), (422, &json!("prompt")), "{}", most.body);
    assert_eq!(answers(&generate(&lab, &run, full(context - own - 1)).await).len(), 64);
    let unknown = lab.post("/api/v1/runs/a-1/generate", &json!({ "prompt": "a" })).await;
    assert_eq!(unknown.status, 404, "{}", unknown.body);
    let stranger = lab.send(lab.request(Method::POST, &path).json(&json!({ "prompt": "a" }))).await;
    assert_eq!(stranger.status, 403, "{}", stranger.body);

    // A run that is not finished has nothing to answer with.
    let other = lab.start_run(&smoke()).await;
    lab.post(&format!("/api/v1/runs/{other}/cancel"), &json!({})).await;
    lab.wait_for_end(&other).await;
    let unfinished = lab.post(&format!("/api/v1/runs/{other}/generate"), &json!({ "prompt": "a" })).await;
    assert_eq!(unfinished.status, 409, "{}", unfinished.body);
    assert!(unfinished.body["detail"].as_str().unwrap_or_default().contains("cannot answer"), "{}", unfinished.body);

    // Somebody asks for much and leaves at the first piece; the next is answered.
    let much = json!({ "prompt": QUESTION, "n": 256, "max_new_tokens": 40 });
    for _ in 0..12 {
        let mut response = lab.request(Method::POST, &path).header("origin", lab.origin()).json(&much).send().await?;
        assert_eq!(response.status(), 200);
        ensure!(response.chunk().await?.is_some(), "something is said");
        drop(response);
    }
    assert_eq!(answers(&generate(&lab, &run, json!({ "prompt": QUESTION, "max_new_tokens": 8 })).await).len(), 1);

    // The processes go with the server.
    let own = ["inference", text(lab.data())];
    assert!(!processes(&own).is_empty());
    let data = lab.data().to_path_buf();
    drop(lab);
    let own = ["inference", text(&data)];
    for _ in 0..100 {
        if processes(&own).is_empty() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("processes that answer outlive their server");
}

#[tokio::test]
async fn a_question_is_asked_on_the_page() -> Result<()> {
    let lab = Lab::start().await;
    let run = trained(&lab).await;
    let browser = lab.browser().await?;
    browser.goto(&format!("{}/playground?ask=verbosity%3D0&q=How%20do%20I%20make%20tea%3F", lab.origin())).await?;
    let busy = "[...document.querySelectorAll('.lane')].map(l => l.dataset.busy)";
    browser.wait(&format!("{busy}.length === 2")).await?;
    browser.wait("document.querySelector('#ask-verbosity')?.value === '1'").await?;
    // An address asks for nothing by itself.
    assert_eq!(browser.js(&format!("{busy}.join()")).await?, "false,false");
    browser.click("#ask").await?;
    browser.wait("document.querySelectorAll('.lane .waterfall').length === 2").await?;
    browser.wait("document.querySelectorAll('.lane .verdicts li').length === 2").await?;
    let read = browser.js("[...document.querySelectorAll('.lane .read pre')].map(p => p.textContent)").await?;
    let read: Vec<String> = serde_json::from_value(read)?;
    ensure!(read[0].contains("<verbosity=0>") && !read[1].contains("verbosity"), "{read:?}");
    // What is shown is what the API says.
    let request = json!({ "prompt": QUESTION, "target": "verbosity=0", "max_new_tokens": smoke().policy.max_new_tokens });
    let events = generate(&lab, &run, request).await;
    let expected = answers(&events)[0].0.clone();
    let shown = browser.js("document.querySelector('.lane .answer').textContent").await?;
    ensure!(shown == expected.as_str() || expected.is_empty(), "{shown} is not {expected}");
    // The address can be passed on.
    let address = browser.js("decodeURIComponent(location.search)").await?;
    let address = address.as_str().unwrap_or_default();
    ensure!(address.contains(&format!("in={run},{run}:start")) && address.contains("ask=verbosity=0"), "{address}");

    // When its first word came, and how fast the rest.
    let told = "document.querySelector('.lane .num').textContent";
    browser.wait(&format!("/first word after [0-9.]+ s, [0-9]+ tokens a second/.test({told})")).await?;

    // The prompt token by token, as the API tells it, with tags apart from what a person could have written.
    let GenerateEvent::Prompt { pieces, special, context, .. } = &events[0] else { panic!("{:?} is no prompt", events[0]) };
    browser.click(".lane .read summary").await?;
    browser.wait("document.querySelector('.lane .read').open").await?;
    let summary = browser.js("document.querySelector('.lane .read summary').textContent").await?;
    let counted = format!("{} of {context} tokens", pieces.len());
    ensure!(summary.as_str().is_some_and(|text| text.ends_with(&counted)), "{summary} does not say {counted}");
    let tokens = "[...document.querySelector('.lane .tokens').children]";
    assert_eq!(browser.js(&format!("{tokens}.map(s => s.textContent)")).await?, json!(pieces));
    let marked = format!("{tokens}.flatMap((s, n) => s.classList.contains('special') ? [n] : [])");
    assert_eq!(browser.js(&marked).await?, json!(special));
    ensure!(special.iter().any(|&n| pieces[n] == "<verbosity=0>"), "{special:?} of {pieces:?}");
    // A space that a token begins with can be seen.
    let sign = format!("getComputedStyle({tokens}.find(s => s.textContent.startsWith(' ')), '::before').content");
    let sign = browser.js(&sign).await?;
    ensure!(sign.as_str().is_some_and(|sign| sign.starts_with("\"·\"")), "{sign}");

    browser.click("#sweep").await?;
    browser.wait("document.querySelectorAll('#sweep-grid .cell:not(:disabled)').length === 30").await?;
    browser.click("#sweep-grid .cell").await?;
    browser.wait("!!document.querySelector('.opened .answer')").await?;

    // A blind vote, and whose the answers were.
    browser.click("#blind").await?;
    browser.wait("!document.querySelector('.lane .bars')").await?;
    // What was seen with its name is gone: nobody votes on it.
    browser.wait("document.querySelector('#vote-a').disabled === true").await?;
    browser.js("scrollTo({ top: 0, behavior: 'instant' })").await?;
    browser.click("#ask").await?;
    browser.wait("document.querySelector('#vote-a').disabled === false").await?;
    // What is typed after the answers came was not what they answer.
    browser.fill("#question", "Something else?").await?;
    browser.click("#vote-a").await?;
    browser.wait("document.querySelector('.votes [role=status]').textContent.includes('A was')").await?;
    let vote = browser.js("JSON.parse(localStorage.getItem('moslim-lab-votes'))[0]").await?;
    ensure!(vote["preferred"] == "a" && vote["prompt"] == QUESTION && vote["target"] == "verbosity=0", "{vote}");
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}

#[tokio::test]
async fn the_page_offers_what_runs_have_and_says_what_answers_cost_one_that_trains() -> Result<()> {
    let lab = Lab::start().await;
    let run = trained(&lab).await;
    let other = lab.start_run(&long_run(100_000)).await;
    // There is a checkpoint by then.
    lab.wait_for_policy(&other, 12).await;
    let browser = lab.browser().await?;
    browser.goto(&format!("{}/playground?in={run}:50,{other}:newest", lab.origin())).await?;
    let offered = "[...document.querySelectorAll('.lane-how select')]\
                   .map(s => s.value + ': ' + [...s.options].map(o => o.value).join(' ')).join()";
    let finished = "50: policy start 25 50 75 policy-best start-best";
    browser.wait(&format!("{offered} === '{finished},newest: newest'")).await?;
    let taken = "Number(/is training; answers here have so far taken ([0-9.]+) s/.exec(document.querySelector('#beside').textContent)[1])";
    browser.wait(&format!("document.querySelector('#beside').textContent.includes('is training') && {taken} === 0")).await?;
    // What one question takes may be too little to be said.
    for asked in 1.. {
        browser.click("#ask").await?;
        browser
            .wait("document.querySelector('#stop').disabled && document.querySelectorAll('.lane .waterfall').length === 2")
            .await?;
        if browser.js(&format!("{taken} > 0")).await? == true {
            break;
        }
        assert!(asked < 100, "answers take nothing");
    }
    lab.post(&format!("/api/v1/runs/{other}/cancel"), &json!({})).await;
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}

#[tokio::test]
async fn the_lesson_is_alive_without_a_run() -> Result<()> {
    let lab = Lab::start().await;
    let browser = lab.browser().await?;
    browser.goto(&format!("{}/learn", lab.origin())).await?;
    browser.wait("document.querySelectorAll('.station').length === 7").await?;
    // The policy of station 6 begins with rows that are alike, and comes to obey.
    let hit = "(() => { const t = document.querySelector('#steering table.matrix'); \
               return [...t.querySelectorAll('td.diagonal')].reduce((s, c) => s + Number(c.dataset.value), 0) / 3; })()";
    ensure!(browser.js(hit).await?.as_f64().is_some_and(|h| (h - 1.0 / 3.0).abs() < 1e-3), "rows are alike at first");
    browser.js("document.querySelector('#steering [data-toy=play]').click()").await?;
    browser.wait(&format!("{hit} > 0.8")).await?;
    // A question can be got wrong.
    browser.js("document.querySelector('#station-5 .quiz .button').click()").await?;
    browser.wait("document.querySelector('#station-5 .quiz [role=status]').textContent.startsWith('Not quite')").await?;
    // A teacher's address shows one station, without controls.
    browser.goto(&format!("{}/learn?station=4&hide=questions,controls", lab.origin())).await?;
    browser.wait("document.querySelectorAll('.station').length === 1").await?;
    assert_eq!(browser.js("document.querySelectorAll('.quiz, #toy input').length").await?, 0);
    browser.click("#toy [data-toy=step]").await?;
    browser.wait("document.querySelector('#toy .actions').textContent.includes('step 1')").await?;
    // So do all of them.
    browser.goto(&format!("{}/learn?hide=controls", lab.origin())).await?;
    browser.wait("document.querySelectorAll('.station').length === 7").await?;
    assert_eq!(browser.js("document.querySelectorAll('.stage-side :is(input, select, .segments)').length").await?, 0);
    assert_eq!(browser.errors().await?, Vec::<String>::new());
    browser.quit().await
}
