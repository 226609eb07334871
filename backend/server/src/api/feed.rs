//! The journal for other software: as server-sent events, and figures of one kind of event as columns.

use crate::access::Pass;
use crate::api::Id;
use crate::api::columns::{Form, MOST_COLUMNS, Table};
use crate::error::Error;
use crate::follow::{Follower, News};
use crate::id::RunId;
use crate::state::Shared;
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as Told, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use moslim_shared::event::{Event, RunStatus};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Events that are read at a time.
const TOGETHER: usize = 500;
/// Time after which the journal is looked at without having been told of.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Rows of a series at most; who wants more asks again, from the number after the last.
const MOST_ROWS: usize = 20_000;
/// Series that are read at a time; others wait. Each takes some times the memory of its answer.
static AT_ONCE: Semaphore = Semaphore::const_new(4);

/// Routes of feeds.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(stream)).routes(routes!(series))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct After {
    /// Number of the last event that is known already.
    #[serde(default)]
    after: u64,
}

/// The journal from an event on, as it grows. A client that lost the connection says by `Last-Event-ID` what it has.
#[utoipa::path(get, path = "/api/v1/runs/{id}/stream", tag = "runs", params(("id" = String, Path, description = "Which run"), After), responses((status = 200, description = "Its journal as it grows, as server-sent events; `Last-Event-ID` is understood", body = String, content_type = "text/event-stream")))]
async fn stream(
    State(app): State<Shared>,
    Extension(pass): Extension<Pass>,
    Id(id): Id,
    headers: HeaderMap,
    asked: Result<Query<After>, QueryRejection>,
) -> Result<Response, Error> {
    let Query(After { after }) = asked.map_err(|e| Error::BadRequest(format!("after is known: {}", e.body_text())))?;
    let last = headers.get("last-event-id").map(|value| value.to_str().ok().and_then(|text| text.parse::<u64>().ok()));
    let after = match last {
        None => after,
        Some(Some(last)) => last,
        Some(None) => return Err(Error::BadRequest("Last-Event-ID must be the number of an event".into())),
    };
    if app.follower.known(&id).is_none() {
        return Err(Error::NotFound(format!("there is no run {id}")));
    }
    let news = app.follower.listen();
    let feed = Feed {
        follower: app.follower.clone(),
        stopping: app.stopping.clone(),
        pass,
        id,
        news,
        sent: after,
        read: VecDeque::new(),
        over: false,
    };
    Ok(Sse::new(told(feed)).keep_alive(KeepAlive::default()).into_response())
}

struct Feed {
    follower: Follower,
    stopping: watch::Receiver<bool>,
    /// What the client was let in with.
    pass: Pass,
    id: RunId,
    news: News,
    /// Number of the last event that was read.
    sent: u64,
    read: VecDeque<Event>,
    over: bool,
}

/// What has come of reading on.
enum Next {
    More,
    /// The run had ended before the journal was read, and everything was told.
    Ended,
    /// Nothing more is told, whether or not the run goes on: the server stops, the journal cannot be read, or the client is let in no more.
    Cut,
}

impl Feed {
    /// Reads on: waits until there is more, or nothing comes any more.
    async fn read_on(&mut self) -> Next {
        loop {
            // Before the journal is read: what a run says last is in it when it has ended.
            let ended =
                self.follower.known(&self.id).is_none_or(|run| !matches!(run.status, RunStatus::Running | RunStatus::Queued));
            let (follower, id, after) = (self.follower.clone(), self.id.clone(), self.sent);
            match tokio::task::spawn_blocking(move || follower.events(&id, after, TOGETHER)).await {
                Ok(Ok(events)) => self.read.extend(events),
                Ok(Err(error)) => {
                    tracing::error!("a feed is cut: {error:#}");
                    return Next::Cut;
                }
                Err(error) => {
                    tracing::error!("a feed is cut: {error}");
                    return Next::Cut;
                }
            }
            if let Some(last) = self.read.back() {
                self.sent = last.seq;
                return Next::More;
            }
            if ended {
                return Next::Ended;
            }
            if *self.stopping.borrow() {
                return Next::Cut;
            }
            tokio::select! {
                _ = timeout(LOOK_EVERY, grown(&mut self.news, &self.id)) => {}
                _ = self.stopping.changed() => return Next::Cut,
                () = self.pass.over() => return Next::Cut,
            }
        }
    }
}

/// Waits until there is news of a run, or the server stops.
async fn grown(news: &mut News, run: &RunId) {
    while news.recv().await.is_some_and(|touched| touched.of(run).is_none()) {}
}

/// An item for each event, and one that says that the run has ended, where it has.
fn told(feed: Feed) -> impl Stream<Item = Result<Told, Infallible>> {
    unfold(feed, |mut feed| async move {
        if feed.over {
            return None;
        }
        let next = if feed.read.is_empty() { feed.read_on().await } else { Next::More };
        // Who is let in no more is told nothing, least of all that the run has ended.
        if feed.pass.is_over() {
            return None;
        }
        match next {
            Next::More => {}
            Next::Ended => {
                feed.over = true;
                return Some((Ok(Told::default().event("end").data("{}")), feed));
            }
            Next::Cut => return None,
        }
        let event = feed.read.pop_front()?;
        let told =
            Told::default().id(event.seq.to_string()).json_data(&event).unwrap_or_else(|_| Told::default().comment("lost"));
        Some((Ok(told), feed))
    })
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Kind of event, such as `policy` or `loss`.
    what: String,
    /// Numbers of the first and the last event.
    #[serde(default)]
    from: u64,
    to: Option<u64>,
    #[serde(default, rename = "as")]
    #[param(inline)]
    form: Form,
}

/// Puts the numbers and names of a value into columns, by their paths. Of more than a table may have, enough is taken for it to see that.
fn flatten(path: &str, value: &Value, row: &mut Map<String, Value>) {
    let below = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| flatten(&below(name), value, row)),
        Value::Array(entries) => entries.iter().enumerate().for_each(|(n, value)| flatten(&below(&n.to_string()), value, row)),
        plain => {
            if row.len() < 2 * MOST_COLUMNS {
                row.insert(path.to_string(), plain.clone());
            }
        }
    }
}

/// An event as a row, where it is of the kind `what`.
fn row_of(event: &Event, what: &str) -> anyhow::Result<Option<Map<String, Value>>> {
    let body = serde_json::to_value(&event.body)?;
    let Some(own) = body.get(what) else { return Ok(None) };
    let mut row = Map::new();
    row.insert("seq".into(), json!(event.seq));
    row.insert("time".into(), json!(event.time));
    flatten("", own, &mut row);
    Ok(Some(row))
}

/// What is asked for of a run's journal, and the number to ask from for what comes behind it.
struct Found {
    table: Table,
    next: u64,
    /// Whether the run has such events at all, or fewer events than were passed over.
    known: bool,
}

/// Reads a series; blocks on the disk.
fn read_series(follower: &Follower, id: &RunId, wanted: &Wanted) -> anyhow::Result<Found> {
    let to = wanted.to.unwrap_or(u64::MAX);
    let (mut table, mut at) = (Table::default(), wanted.from.saturating_sub(1));
    'all: while at < to {
        let events = follower.events(id, at, TOGETHER)?;
        if events.is_empty() {
            break;
        }
        for event in events.iter().take_while(|e| e.seq <= to) {
            at = event.seq;
            if let Some(row) = row_of(event, &wanted.what)? {
                table.add(row);
                if table.count() >= MOST_ROWS || table.is_full() {
                    break 'all;
                }
            }
        }
    }
    let beyond = || wanted.from > 1 && follower.known(id).is_none_or(|run| wanted.from > run.last_seq);
    let all = wanted.from <= 1 && wanted.to.is_none();
    let known = table.count() > 0 || beyond() || (!all && has_kind(follower, id, &wanted.what)?);
    Ok(Found { table, next: at + 1, known })
}

/// Whether a run has an event of a kind.
fn has_kind(follower: &Follower, id: &RunId, what: &str) -> anyhow::Result<bool> {
    let mut at = 0;
    loop {
        let events = follower.events(id, at, TOGETHER)?;
        let Some(last) = events.last() else { return Ok(false) };
        at = last.seq;
        for event in &events {
            if serde_json::to_value(&event.body)?.get(what).is_some() {
                return Ok(true);
            }
        }
    }
}

/// The figures of one kind of event, a row for each. An answer ends early where it would be large; `x-next` says where to go on.
#[utoipa::path(get, path = "/api/v1/runs/{id}/series", tag = "runs", params(("id" = String, Path, description = "Which run"), Wanted), responses((status = 200, description = "The figures of one kind of event, a row for each, 20,000 and 8 MiB of cells at most. The header `x-next` is the number to ask from for what comes behind them; `x-columns-left-out` is there where there are more columns than 2,000", content((Vec<Object> = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.arrow.stream")))))]
async fn series(State(app): State<Shared>, Id(id): Id, asked: Result<Query<Wanted>, QueryRejection>) -> Result<Response, Error> {
    let Query(wanted) =
        asked.map_err(|e| Error::BadRequest(format!("what, from, to and as (json, csv, arrow) are known: {}", e.body_text())))?;
    if app.follower.known(&id).is_none() {
        return Err(Error::NotFound(format!("there is no run {id}")));
    }
    let turn = AT_ONCE.acquire().await.map_err(anyhow::Error::from)?;
    let read = move || {
        // Until the answer is made, also where nobody waits for it any more.
        let _turn = turn;
        let Found { table, next, known } = read_series(&app.follower, &id, &wanted)?;
        if !known {
            let what = &wanted.what;
            return Err(Error::NotFound(format!(
                "the run has no event of the kind \"{what:.64}\" there; its journal names those that it has"
            )));
        }
        let left_out = table.left_out();
        let mut answer = table.answer(&wanted.form)?;
        answer.headers_mut().insert("x-next", next.into());
        if left_out > 0 {
            answer.headers_mut().insert("x-columns-left-out", left_out.into());
        }
        Ok(answer)
    };
    tokio::task::spawn_blocking(read).await.map_err(anyhow::Error::from)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_becomes_columns() {
        let mut row = Map::new();
        flatten("", &json!({"step": 3, "mean": {"kl": 0.5}, "mass": [[0.1, 0.9], [1.0]], "none": null}), &mut row);
        let names: Vec<&String> = row.keys().collect();
        assert_eq!(names, ["mass.0.0", "mass.0.1", "mass.1.0", "mean.kl", "none", "step"]);
    }
}
