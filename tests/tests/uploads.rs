//! Damaged uploads, over HTTP to a real server: files of ratings, what is made of them, and packed runs. Whatever comes, the answer is a
//! result or a problem document, and what is refused leaves nothing, in the data folder or beside it. Three hundred, or as many as the
//! environment variable MOSLIM_FUZZ says.

use anyhow::{Context, Result, bail, ensure};
use moslim_shared::refusal::{ApiError, MEDIA_TYPE};
use moslim_tests::{FLAT, LIMIT, Lab, lines, record, scattered, smoke};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};

const UPLOADS: &str = "/api/v1/uploads";
const RUNS: &str = "/api/v1/run-files";
const FILE: &str = "application/octet-stream";

/// What is put into the middle of a file.
const PIECES: [&[u8]; 10] = [b"\"", b"}", b"[", b"\0", b"\xff\xfe", b"\r\n", b",,", b"1e999", b"\\ud800", b"\x1f\x8b"];
const KINDS: [Option<&str>; 5] =
    [None, Some("text/csv"), Some("multipart/form-data; boundary=x"), Some("application/octet-streams"), Some("*/*")];
/// Names that lead elsewhere, that a terminal would obey, or that are none.
const NAMES: [&[u8]; 14] = [
    b"",
    b"..",
    b".jsonl",
    b"../escaped.jsonl",
    b"../../../escaped.csv",
    b"..\\escaped.csv",
    b"/escaped.json",
    b"a/b.csv",
    b"x\0.jsonl",
    b"x\n.csv",
    b"x\x1b[2J.json",
    b"\xff\xfe.csv",
    b"x.zip",
    b"x.csv:stream",
];

fn count() -> usize {
    std::env::var("MOSLIM_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

/// The same throws every time.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 += 1;
        (scattered(self.0) % sides as u64) as usize
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.roll(of.len())]
    }
}

/// A copy with something wrong in it: cut off, overwritten, with holes, a line of megabytes, or nested deeply.
fn spoilt(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut copy = bytes.to_vec();
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(copy.len() + 1);
        let end = (at + 1 + dice.roll(64)).min(copy.len());
        match dice.roll(12) {
            0 => copy.truncate(at),
            1 => drop(copy.splice(at..at, vec![b'a'; 3 << 20])),
            2 => drop(copy.splice(at..at, b"[".repeat(100_000))),
            3 | 4 => drop(copy.drain(at..end)),
            5..8 => copy[at..end].iter_mut().for_each(|byte| *byte ^= 1u8 << (at % 8)),
            _ => drop(copy.splice(at..at, dice.pick(&PIECES).iter().copied())),
        }
    }
    copy
}

/// A packed run with a checksum that is right, whatever its names are.
fn packed(run: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    let header = json!({"format": 1, "run": run, "files": names}).to_string();
    let mut hash = Sha256::new();
    for part in std::iter::once(header.as_bytes()).chain(files.iter().map(|(_, bytes)| *bytes)) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let checksum: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    let sizes: Vec<usize> = files.iter().map(|(_, bytes)| bytes.len()).collect();
    let mut out = json!({"checksum": checksum, "sizes": sizes, "header": header}).to_string().into_bytes();
    out.push(b'\n');
    files.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
    out
}

fn named(name: &[u8]) -> String {
    let encoded: String = name.iter().map(|b| format!("%{b:02X}")).collect();
    format!("{UPLOADS}?name={encoded}")
}

/// Files and folders under `folder`.
fn under(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.flat_map(|e| [vec![e.path()], under(&e.path())].concat()).collect()
}

/// What the lab keeps of what people have brought.
fn kept(lab: &Lab) -> BTreeSet<PathBuf> {
    ["uploads", "tasks", "runs", "models"].iter().flat_map(|folder| under(&lab.data().join(folder))).collect()
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn post(lab: &Lab, path: &str) -> RequestBuilder {
    lab.request(Method::POST, path).header("origin", lab.origin())
}

fn send(lab: &Lab, path: &str, kind: Option<&str>, body: Vec<u8>) -> RequestBuilder {
    kind.iter().fold(post(lab, path), |request, kind| request.header("content-type", *kind)).body(body)
}

/// What a request came to; `None` where it was refused as it should be, and nothing is left of it.
async fn answered(lab: &Lab, what: &str, request: RequestBuilder) -> Result<Option<Value>> {
    let before = kept(lab);
    let answer = request.send().await.with_context(|| format!("{what}: no answer"))?;
    let (status, kind) = (answer.status(), answer.headers().get("content-type").cloned());
    let text = answer.text().await.with_context(|| format!("{what}: half an answer"))?;
    if status.is_success() {
        return Ok(Some(serde_json::from_str(&text).with_context(|| format!("{what}: {text:.300}"))?));
    }
    ensure!(status.is_client_error() && kind.is_some_and(|kind| kind == MEDIA_TYPE), "{what}: {status}: {text:.300}");
    let error: ApiError = serde_json::from_str(&text).with_context(|| format!("{what}: {text:.300}"))?;
    ensure!(error.status == status.as_u16() && !error.detail.is_empty(), "{what}: {text:.300}");
    ensure!(!text.contains(&lab.data().display().to_string()), "{what}: it names a folder of the machine: {text:.300}");
    let after = kept(lab);
    ensure!(after == before, "{what}: it was refused ({}), and has left {:?}", error.detail, after.difference(&before));
    Ok(None)
}

/// Sends a body with a header about its length, and hangs up. Who is lied to may hang up, too, but neither fails nor waits for ever.
fn lie(lab: &Lab, path: &str, length: &str, body: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", lab.port()))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let (port, origin, token) = (lab.port(), lab.origin(), lab.token());
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: {origin}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: {FILE}\r\nConnection: close\r\n{length}\r\n\r\n"
    );
    let sent = [head.as_bytes(), body].concat();
    let _ = stream.write_all(&sent).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer)
        && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
    {
        bail!("{path} with {length:?}: neither an answer nor an end");
    }
    let said = String::from_utf8_lossy(&answer);
    let fine = said.is_empty() || ["HTTP/1.1 2", "HTTP/1.1 4"].iter().any(|start| said.starts_with(start));
    ensure!(fine, "{path} with {length:?}: {said:.300}");
    Ok(())
}

/// A sound file of every format that is read, by its name.
async fn sound(lab: &Lab) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let records: Vec<Value> = (0..60).map(record).collect();
    let text = |r: &Value, key: &str| r[key].as_str().unwrap_or_default().to_string();
    let row = |r: &Value| format!("\"{}\",\"{}\",{},{}\n", text(r, "question"), text(r, "answer"), r["use"], text(r, "tone"));
    let csv: String = std::iter::once("question,answer,use,tone\n".to_string()).chain(records.iter().map(row)).collect();
    let all = lines(records.clone()).into_bytes();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&all)?;
    // What the lab keeps of a task is Parquet.
    let sent = answered(lab, "a sound file", send(lab, &named(b"tea.jsonl"), Some(FILE), all.clone())).await?;
    let wish = json!({"upload": sent.context("an upload")?["id"], "name": "tea", "mapping": FLAT});
    answered(lab, "a sound file", post(lab, "/api/v1/tasks").json(&wish)).await?.context("a task")?;
    let rows = kept(lab).into_iter().find(|path| path.extension().is_some_and(|end| end == "parquet"));
    let parquet = std::fs::read(rows.context("the rows of a task")?)?;
    Ok(vec![
        ("x.jsonl", all),
        ("x.json", json!(records).to_string().into_bytes()),
        ("x.tsv", csv.replace(',', "\t").into_bytes()),
        ("x.csv", csv.into_bytes()),
        ("x.jsonl.gz", gz.finish()?),
        ("x.parquet", parquet),
    ])
}

/// A run that another lab has trained and packed.
async fn a_run() -> Result<Vec<u8>> {
    let lab = Lab::start().await;
    let id = lab.start_run(&smoke()).await;
    lab.wait_for_finish(&id).await;
    let file = lab.request(Method::GET, &format!("/api/v1/runs/{id}/file")).send().await?.error_for_status()?;
    Ok(file.bytes().await?.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damaged_upload_fails_the_server_or_leaves_anything() -> Result<()> {
    let place = tempfile::tempdir()?;
    let lab = Lab::start_in(&place.path().join("data")).await;
    let (sound, run, config) = (sound(&lab).await?, a_run().await?, serde_json::to_vec(&smoke())?);
    let (long, wide) = ("x".repeat(200) + ".csv", "茶".repeat(114) + ".csv");
    let more = [long.as_bytes(), wide.as_bytes(), "x\u{202e}.csv".as_bytes()];
    let odd: Vec<String> = NAMES.into_iter().chain(more).map(named).collect();
    let odd: Vec<String> =
        odd.into_iter().chain(["", "?name", "?name=a.csv&name=b.csv"].map(|q| format!("{UPLOADS}{q}"))).collect();
    let runs = ["", "..", "../escaped", "a/b", "A", "a.b", "x\n"];
    let files =
        ["", "..", "../escaped", "../../escaped", "a/b", "/escaped", "c:x", ".x", "process.lock", "worker.log", "x\u{1b}[2J"];
    let mut dice = Dice(1);
    let (mut taken, mut imported, mut refused) = (0, 0, 0);
    for n in 0..count() {
        let (name, bytes) = dice.pick(&sound);
        let body = spoilt(bytes, &mut dice);
        let what = format!("upload {n}, {name}");
        match dice.roll(8) {
            0 => {
                let before = kept(&lab);
                let longer = format!("Content-Length: {}", body.len() + 1 + dice.roll(1000));
                let no_lengths =
                    ["Content-Length: -1", "Content-Length: 18446744073709551616", "Content-Length: 5\r\nContent-Length: 7"];
                let all = [&no_lengths[..], &[longer.as_str(), "Transfer-Encoding: chunked"]].concat();
                let path = if dice.roll(2) == 0 { named(name.as_bytes()) } else { RUNS.to_string() };
                let length: &str = dice.pick::<&str>(&all);
                lie(&lab, &path, length, &body)?;
                ensure!(kept(&lab) == before, "{what}: its length was a lie, and something is kept");
                // The beginning of a file may be a file.
                lie(&lab, &path, &format!("Content-Length: {}", body.len() / 2), &body)?;
                remove(&lab.data().join("uploads"))?;
            }
            1 => {
                let (path, kind) = if dice.roll(2) == 0 {
                    (dice.pick(&odd).clone(), Some(FILE))
                } else {
                    (named(name.as_bytes()), *dice.pick(&KINDS))
                };
                // Who is refused by the head of a request need not read what comes after it: no more than arrives with the head.
                let mut body = body[..body.len().min(8 << 10)].to_vec();
                // No body is of no type.
                body.push(b'\n');
                let answer = answered(&lab, &what, send(&lab, &path, kind, body)).await?;
                ensure!(answer.is_none(), "{what}: {path} of {kind:?} was taken");
                refused += 1;
            }
            2 => {
                let answer = answered(&lab, &what, send(&lab, RUNS, Some(FILE), spoilt(&run, &mut dice))).await?;
                ensure!(answer.is_none(), "{what}: a run was taken that does not match its checksum");
                let (run, file) = if dice.roll(2) == 0 { (*dice.pick(&runs), "x") } else { ("good", *dice.pick(&files)) };
                let pack = packed(run, &[("config.json", &config[..]), (file, &body[..])]);
                let answer = answered(&lab, &what, send(&lab, RUNS, Some(FILE), pack)).await?;
                ensure!(answer.is_none(), "{what}: the run {run:?} with the file {file:?} was taken");
                // A journal that says nothing is no reason to refuse a run.
                let files = [("config.json", &config[..]), ("events.jsonl", &body[..])];
                let pack = packed(&format!("odd-{}", dice.roll(20)), &files);
                answered(&lab, &what, send(&lab, RUNS, Some(FILE), pack)).await?;
                refused += 2;
            }
            _ => match answered(&lab, &what, send(&lab, &named(name.as_bytes()), Some(FILE), body)).await? {
                None => refused += 1,
                Some(upload) => {
                    let task = format!("task-{n}");
                    let id = upload["id"].as_str().context("the id of an upload")?;
                    let wish = json!({"upload": id, "name": task, "mapping": FLAT, "stop": dice.roll(2) == 0});
                    answered(&lab, &what, post(&lab, "/api/v1/uploads/preview").json(&wish)).await?;
                    let made = answered(&lab, &what, post(&lab, "/api/v1/tasks").json(&wish)).await?;
                    (taken, imported) = (taken + 1, imported + usize::from(made.is_some()));
                    remove(&lab.data().join("uploads").join(id))?;
                    remove(&lab.data().join("tasks").join(&task))?;
                }
            },
        }
        if n.is_multiple_of(50) {
            ensure!(lab.get("/healthz").await.status == 200, "{what}: the server is not well any more");
        }
    }
    // Of damage like this some is noticed and some is not.
    let all = count();
    ensure!(
        taken > all / 20 && imported > 0 && refused > all / 10,
        "{taken} taken, {imported} imported, {refused} refused of {all}"
    );
    // A bomb: one and a half gibibytes of nothing in as many megabytes.
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(&vec![0; 16 << 20])?;
    let bomb = gz.finish()?.repeat(96);
    let answer = answered(&lab, "a bomb", send(&lab, &named(b"x.jsonl.gz"), Some(FILE), bomb)).await?;
    ensure!(answer.is_none(), "a bomb was taken");
    // It is as it was: well, with the task of before, and it takes what is sound.
    ensure!(lab.get("/healthz").await.status == 200);
    ensure!(lab.get("/api/v1/tasks/tea").await.status == 200);
    answered(&lab, "a sound run", send(&lab, RUNS, Some(FILE), run)).await?.context("a sound run is refused")?;
    let beside: Vec<_> = std::fs::read_dir(place.path())?.flatten().map(|e| e.file_name()).collect();
    ensure!(beside == ["data"], "beside the data folder are {beside:?}");
    Ok(())
}
