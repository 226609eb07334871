//! Who is let in, and what they may do.

use anyhow::{Context, Result, ensure};
use moslim_tests::{LIMIT, Lab, invite, signal, smoke, text, wait_until};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Instant;

/// Every route of the API, and the least role that it wants.
const ROUTES: [(&str, &str, &str); 58] = [
    ("GET", "/api/v1/health", "view"),
    ("GET", "/api/v1/presets", "view"),
    ("GET", "/api/v1/task", "view"),
    ("POST", "/api/v1/task", "view"),
    ("GET", "/api/v1/world", "view"),
    ("GET", "/api/v1/devices", "view"),
    ("POST", "/api/v1/validate", "view"),
    ("POST", "/api/v1/config/toml", "view"),
    ("POST", "/api/v1/config/read", "view"),
    ("GET", "/api/v1/runs", "view"),
    ("POST", "/api/v1/runs", "run"),
    ("GET", "/api/v1/runs/a", "view"),
    ("DELETE", "/api/v1/runs/a", "admin"),
    ("POST", "/api/v1/runs/a/restore", "run"),
    ("GET", "/api/v1/runs/a/events", "view"),
    ("GET", "/api/v1/runs/a/file", "view"),
    ("GET", "/api/v1/runs/a/page", "view"),
    ("GET", "/api/v1/runs/a/stream", "view"),
    ("GET", "/api/v1/runs/a/series?what=policy", "view"),
    ("GET", "/api/v1/trash", "view"),
    ("DELETE", "/api/v1/trash", "admin"),
    ("POST", "/api/v1/run-files", "run"),
    ("POST", "/api/v1/runs/a/cancel", "run"),
    ("POST", "/api/v1/runs/a/pause", "run"),
    ("POST", "/api/v1/runs/a/kill", "run"),
    ("PUT", "/api/v1/runs/a/priority", "run"),
    ("POST", "/api/v1/runs/a/checkpoint", "run"),
    ("POST", "/api/v1/runs/a/resume", "run"),
    ("PUT", "/api/v1/runs/a/about", "run"),
    ("POST", "/api/v1/runs/a/generate", "run"),
    ("POST", "/api/v1/runs/a/score", "run"),
    ("GET", "/api/v1/study-presets", "view"),
    ("GET", "/api/v1/study-hosts", "view"),
    ("GET", "/api/v1/studies", "view"),
    ("POST", "/api/v1/studies", "run"),
    ("GET", "/api/v1/studies/a", "view"),
    ("GET", "/api/v1/studies/a/results", "view"),
    ("POST", "/api/v1/studies/a/resume", "run"),
    ("GET", "/api/v1/studies/a/files/csv", "view"),
    ("POST", "/api/v1/studies/a/cancel", "run"),
    ("GET", "/api/v1/tasks", "view"),
    ("POST", "/api/v1/tasks", "run"),
    ("GET", "/api/v1/tasks/a", "view"),
    ("GET", "/api/v1/tasks/a/rows", "view"),
    ("GET", "/api/v1/tasks/a/stats", "view"),
    ("POST", "/api/v1/tasks/a/changes", "run"),
    ("POST", "/api/v1/tasks/a/noise", "run"),
    ("POST", "/api/v1/uploads", "run"),
    ("POST", "/api/v1/uploads/preview", "run"),
    ("GET", "/api/v1/models", "view"),
    ("GET", "/api/v1/ws", "view"),
    ("GET", "/api/v1/openapi.json", "view"),
    ("GET", "/api/v1/docs", "view"),
    ("GET", "/api/v1/docs.css", "view"),
    ("GET", "/healthz", "view"),
    ("GET", "/metrics", "view"),
    ("GET", "/", "view"),
    ("GET", "/moslim_bg.wasm", "view"),
];

#[tokio::test]
async fn nobody_is_let_in_without_a_token_and_roles_reach_as_far_as_they_say() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("group.toml");
    let (view, viewer) = invite("Vera", "view")?;
    let (run, runner) = invite("Rob", "run")?;
    std::fs::write(&file, format!("{viewer}\n{runner}"))?;
    let lab = Lab::start_with(&["--tokens", text(&file)]).await;
    for (method, path, role) in ROUTES {
        let ask = |token: Option<&str>| {
            let request = lab.stranger(method.parse().expect("a method"), path).header("origin", lab.origin());
            let request = if method == "GET" { request } else { request.json(&json!({})) };
            match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            }
        };
        for token in [None, Some("0123456789abcdef0123456789abcdef"), Some("")] {
            assert_eq!(lab.send(ask(token)).await.status, 401, "{method} {path} with {token:?}");
        }
        // Whatever else is wrong with what a stranger sends.
        let told = lab.stranger(method.parse()?, path).header("origin", lab.origin()).header("content-type", "text/plain");
        assert_eq!(lab.send(told.body("{}")).await.status, 401, "{method} {path} with a body of text");
        let looking = lab.send(ask(Some(&view))).await;
        assert_eq!(looking.status == 403, role != "view", "{method} {path} by who may look: {}", looking.body);
        for (token, may) in [(run.as_str(), role != "admin"), (lab.token(), true)] {
            let answer = lab.send(ask(Some(token))).await;
            assert!(answer.status != 401 && (answer.status == 403) != may, "{method} {path}: {} {}", answer.status, answer.body);
        }
    }
    assert_eq!(lab.get("/api/v1/runs").await.body["total"], 0, "nothing was started");
    let refused = lab
        .send(lab.stranger(Method::POST, "/api/v1/runs").bearer_auth(&view).header("origin", lab.origin()).json(&json!({})))
        .await;
    let said = refused.body["detail"].as_str().unwrap_or_default();
    assert!(said.contains("Vera has the role view") && said.contains("needs the role run"), "{said}");
    // A websocket is no way around.
    let socket = |token: &str| {
        let asked = [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ];
        let request = lab.stranger(Method::GET, "/api/v1/ws").header("origin", lab.origin()).bearer_auth(token);
        asked.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    };
    assert_eq!(lab.send(socket("x")).await.status, 401);
    assert_eq!(socket(&view).send().await?.status().as_u16(), 101);

    // Who is taken out of the file is out; the server's own token stays.
    std::fs::write(&file, &viewer)?;
    signal(lab.pid(), "HUP");
    let began = Instant::now();
    while lab.send(lab.stranger(Method::GET, "/api/v1/health").bearer_auth(&run)).await.status != 401 {
        assert!(began.elapsed() < LIMIT, "a token that was removed still opens");
    }
    assert_eq!(lab.send(lab.stranger(Method::GET, "/api/v1/health").bearer_auth(&view)).await.status, 200);
    assert_eq!(lab.get("/api/v1/health").await.status, 200);
    Ok(())
}

/// Whether a path is one of a template such as `/api/v1/runs/{id}`.
fn fits(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/').collect::<Vec<_>>(), path.split(['/', '?']).collect::<Vec<_>>());
    template.len() <= path.len() && template.iter().zip(&path).all(|(t, p)| t.starts_with('{') || t == p)
}

#[tokio::test]
async fn the_document_of_the_api_has_every_route_and_its_role() -> Result<()> {
    let lab = Lab::start().await;
    let document = lab.get("/api/v1/openapi.json").await.body;
    let paths = document["paths"].as_object().context("no paths")?;
    let mut found = 0;
    for (template, item) in paths {
        for (method, operation) in item.as_object().into_iter().flatten() {
            let same = |(m, path, _): &&(&str, &str, &str)| {
                let segments = |path: &str| path.split('?').next().map(|path| path.split('/').count());
                m.eq_ignore_ascii_case(method) && fits(template, path) && segments(template) == segments(path)
            };
            let (_, _, role) = ROUTES.iter().find(same).with_context(|| format!("{method} {template} is not in this table"))?;
            assert_eq!(operation["x-role"], *role, "{method} {template}");
            found += 1;
        }
    }
    // What is no operation of the API: the page, its code, and the old name of the task.
    assert_eq!(found, ROUTES.len() - 3);
    // The errors are what the document says they are.
    let required = document["components"]["schemas"]["ApiError"]["required"].as_array().context("no fields")?;
    let answer = lab.stranger(Method::GET, "/api/v1/runs/none").bearer_auth(lab.token()).send().await?;
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let error: Value = answer.json().await?;
    assert!(
        !required.is_empty() && required.iter().all(|name| error.get(name.as_str().unwrap_or_default()).is_some()),
        "{error}"
    );
    assert_eq!((error["status"].as_u64(), error["title"].as_str()), (Some(404), Some("Not Found")));
    // A person can read it.
    let page = lab.get("/api/v1/docs").await;
    let text = page.body.as_str().context("no text")?;
    assert!(text.contains("id=\"runs_start\"") && text.contains("id=\"RunInfo\""), "{text:.400}");
    Ok(())
}

/// Largest body of JSON, bytes.
const BODY_LIMIT: usize = 1 << 20;

/// Routes that take a file as it is. Their limit is 256 MiB, too much to send here, so that it is not tried.
const FILES: [&str; 2] = ["/api/v1/run-files", "/api/v1/uploads"];

/// The path of a template, of something that there is not.
fn filled(template: &str) -> String {
    let parts = template.split('/').map(|part| if part.starts_with('{') { "none" } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// What is wrong with the answer to a request that must be refused with one of these statuses.
async fn deviation(asked: String, request: RequestBuilder, refusals: &[u16]) -> Option<String> {
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => return Some(format!("{asked}: no answer, but {error:?}")),
    };
    let status = answer.status().as_u16();
    let body = answer.text().await.unwrap_or_default();
    (!refusals.contains(&status)).then(|| format!("{asked}: {status} in place of {refusals:?}: {body:.200}"))
}

#[tokio::test]
async fn no_route_takes_what_is_foreign_malformed_or_too_large() -> Result<()> {
    let lab = Lab::start().await;
    let document = lab.get("/api/v1/openapi.json").await.body;
    let lists = async || {
        let mut lists = Vec::new();
        for path in ["/api/v1/runs", "/api/v1/studies", "/api/v1/tasks"] {
            let answer = lab.get(path).await;
            lists.push((answer.status, answer.body));
        }
        lists
    };
    let before = lists().await;
    assert!(before.iter().all(|(status, _)| *status == 200), "{before:?}");
    let (mut wrong, mut found) = (Vec::new(), 0);
    for (template, item) in document["paths"].as_object().context("no paths")? {
        let path = filled(template);
        let offered = item.as_object().with_context(|| format!("{template} has no operations"))?;
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            if !offered.keys().any(|name| name.eq_ignore_ascii_case(method.as_str())) {
                let request = lab.request(method.clone(), &path).header("origin", lab.origin());
                wrong.extend(deviation(format!("{method} {path}, which is not offered"), request, &[405]).await);
            }
        }
        for (name, operation) in offered {
            let method: Method = name.to_uppercase().parse()?;
            let kinds = operation["requestBody"]["content"].as_object();
            let kind = kinds.and_then(|kinds| kinds.keys().next()).map(String::as_str);
            // An admin asks from a page at `origin`, with this body.
            let ask = |origin: &str, kind: &str, body: Vec<u8>| {
                lab.request(method.clone(), &path).header("origin", origin).header("content-type", kind).body(body)
            };
            let plain = |origin: &str| match kind {
                Some(kind) => ask(origin, kind, b"{}".to_vec()),
                None => lab.request(method.clone(), &path).header("origin", origin),
            };
            let (own, what) = (lab.origin(), |what: &str| format!("{method} {path} {what}"));
            found += 1;
            // As by DNS rebinding: the page comes from the host that the request names.
            let request = plain("http://evil.example").header("host", "evil.example");
            wrong.extend(deviation(what("at a foreign host"), request, &[403]).await);
            if method == Method::GET || method == Method::HEAD {
                continue;
            }
            wrong.extend(deviation(what("of a foreign origin"), plain("https://evil.example"), &[403]).await);
            let request = ask(&own, "text/plain", b"{}".to_vec());
            wrong.extend(deviation(what("with a body of text"), request, &[415]).await);
            match kind {
                None => {}
                Some("application/json") => {
                    let bodies: [(Vec<u8>, &str, &[u16]); 3] = [
                        (b"{\"config\": ".to_vec(), "with broken JSON", &[400, 422]),
                        // Spaces are no JSON, so that nothing comes of it where it is let through.
                        (vec![b' '; BODY_LIMIT], "with a body at the limit", &[400, 422]),
                        (vec![b' '; BODY_LIMIT + 1], "with a body above the limit", &[413]),
                    ];
                    for (body, said, refusals) in bodies {
                        wrong.extend(deviation(what(said), ask(&own, "application/json", body), refusals).await);
                    }
                }
                Some("application/octet-stream") if FILES.contains(&path.as_str()) => {}
                Some(kind) => wrong.push(what(&format!("takes {kind}, of which this test knows nothing"))),
            }
        }
    }
    let after = lists().await;
    if after != before {
        wrong.push(format!("runs, studies and tasks were {before:?} and are {after:?}"));
    }
    if lab.data().join("uploads").exists() {
        wrong.push("a file was kept".to_string());
    }
    ensure!(wrong.is_empty(), "{} deviations:\n{}", wrong.len(), wrong.join("\n"));
    // As in the test of the document: the page, its code, and the old name of the task are no operations.
    assert_eq!(found, ROUTES.len() - 3);
    Ok(())
}

#[tokio::test]
async fn a_browser_is_given_a_cookie_and_strangers_a_door() -> Result<()> {
    let mut lab = Lab::start().await;
    let browser = moslim_tests::Browser::open().await?;
    browser.goto(&format!("{}/learn", lab.origin())).await?;
    browser.wait("document.querySelector('#door') !== null").await?;
    browser.fill("input[name=token]", "wrong").await?;
    browser.click("button").await?;
    browser.wait("document.querySelector('#door') !== null && location.search !== ''").await?;
    browser.fill("input[name=token]", lab.token()).await?;
    browser.click("button").await?;
    browser.wait("document.querySelector('#start-demo') !== null && location.search === ''").await?;
    assert_eq!(browser.js("document.cookie").await?, "", "no script reads the cookie");
    // The cookie is good for the next server of the folder, which has the same token.
    lab.restart().await;
    browser.reload().await?;
    browser.wait("document.querySelector('#start-demo') !== null").await?;
    browser.quit().await
}

/// The status of an answer, the id of its request, and its body, where that is JSON.
async fn identified(request: RequestBuilder) -> Result<(u16, String, Value)> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let id = answer.headers().get("x-request-id").context("an answer without an id")?.to_str()?.to_string();
    Ok((status, id, serde_json::from_slice(&answer.bytes().await?).unwrap_or_default()))
}

#[tokio::test]
async fn every_answer_has_an_id_under_which_the_log_says_why_it_failed() -> Result<()> {
    let lab = Lab::start().await;
    let read = |path: &str| lab.request(Method::GET, path);
    let mut seen = BTreeSet::new();
    for (request, status) in [
        (read("/api/v1/health"), 200),
        (read("/api/v1/health"), 200),
        (read("/api/v1/nothing"), 404),
        (read("/api/v1/ws"), 400),
        (read("/api/v1/health").header("host", "evil.example"), 403),
        (lab.stranger(Method::GET, "/api/v1/health"), 401),
        (lab.request(Method::POST, "/api/v1/runs"), 403),
        (read("/api/v1/health").header("x-request-id", ""), 200),
        (read("/api/v1/health").header("x-request-id", "a b"), 200),
        (read("/api/v1/health").header("x-request-id", "x".repeat(65)), 200),
    ] {
        let (answered, id, _) = identified(request).await?;
        ensure!(answered == status, "{answered} in place of {status}");
        let plain = !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        ensure!(plain && seen.insert(id.clone()), "\"{id}\" is no fresh id");
    }
    for given in ["mine-1_2.a".to_string(), "x".repeat(64)] {
        let (_, id, _) = identified(read("/api/v1/health").header("x-request-id", &given)).await?;
        ensure!(id == given, "{id} in place of {given}");
    }
    // Where the folder of all runs should be is a file, so that no run can be written.
    let runs = lab.data().join("runs");
    wait_until("the folder of runs", || runs.is_dir().then_some(())).await;
    std::fs::remove_dir(&runs)?;
    std::fs::write(&runs, "no folder")?;
    let start = json!({ "config": smoke() });
    let start = lab.request(Method::POST, "/api/v1/runs").header("origin", lab.origin()).json(&start);
    let (status, id, body) = identified(start).await?;
    ensure!(status == 500 && body["request"] == id, "{status} {id} {body}");
    ensure!(body["detail"].as_str().is_some_and(|detail| detail.contains(&id)), "{body}");
    let said = lab.stderr();
    let failed = |line: &str| line.contains("ERROR") && line.contains(&id) && line.contains("moslim_lab::error");
    ensure!(said.lines().any(failed), "{id} is not in the log:\n{said}");
    Ok(())
}
