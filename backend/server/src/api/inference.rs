//! Asking a run: answers as they are sampled, and scores.

use crate::access::Pass;
use crate::api::{Body, Id};
use crate::error::Error;
use crate::inference::{Asked, Reply, Told};
use crate::listen::stopped;
use crate::state::Shared;
use axum::body::Body as Answer;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use moslim_shared::inference::{GenerateEvent, GenerateRequest, ScoreRequest, Scored, problem_of};
use std::convert::Infallible;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of inference.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(generate)).routes(routes!(score))
}

/// Events as lines of JSON, each sent when it is known. A request that is refused has no stream; where the run does not have who was asked, the
/// refusal says what it has.
#[utoipa::path(post, path = "/api/v1/runs/{id}/generate", tag = "inference", params(("id" = String, Path, description = "Which run")), request_body = GenerateRequest, responses((status = 200, description = "A line of JSON for each event, as it happens", body = GenerateEvent, content_type = "application/x-ndjson")))]
async fn generate(
    State(app): State<Shared>,
    Extension(mut pass): Extension<Pass>,
    Id(id): Id,
    Body(request): Body<GenerateRequest>,
) -> Result<Response, Error> {
    let problems = request.problems_for_one();
    if !problems.is_empty() {
        return Err(Error::invalid(problems));
    }
    app.follower.known(&id).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))?;
    let mut reply = app.inference.ask(&id, |number| Asked::Generate { number, request }).await?;
    let first = match event(&mut reply).await {
        GenerateEvent::Failed { message } => return Err(refused(message)),
        first => first,
    };
    let mut stopping = app.stopping.clone();
    let goodbye = async move {
        tokio::select! {
            () = stopped(&mut stopping) => {}
            () = pass.over() => {}
        }
    };
    let lines = lines(first, reply).take_until(Box::pin(goodbye));
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, Answer::from_stream(lines)).into_response())
}

/// What comes next of an answer; that the process has gone is a failure.
async fn event(reply: &mut Reply) -> GenerateEvent {
    match reply.next().await {
        Some(Told::Event { event, .. }) => event,
        Some(Told::Refused { message, .. }) => GenerateEvent::Failed { message },
        _ => GenerateEvent::Failed { message: "the process that answers has ended; ask again".into() },
    }
}

fn lines(first: GenerateEvent, reply: Reply) -> impl Stream<Item = Result<String, Infallible>> {
    stream::unfold(Some((Some(first), reply)), |state| async move {
        let (first, mut reply) = state?;
        let event = match first {
            Some(first) => first,
            None => event(&mut reply).await,
        };
        let last = event.is_last();
        let line = serde_json::to_string(&event).unwrap_or_default() + "\n";
        Some((Ok(line), (!last).then_some((None, reply))))
    })
}

#[utoipa::path(post, path = "/api/v1/runs/{id}/score", tag = "inference", params(("id" = String, Path, description = "Which run")), request_body = ScoreRequest, responses((status = 200, description = "What its reward model finds, in the order of the pairs", body = Vec<Scored>)))]
async fn score(State(app): State<Shared>, Id(id): Id, Body(request): Body<ScoreRequest>) -> Result<Json<Vec<Scored>>, Error> {
    let problems = request.problems();
    if !problems.is_empty() {
        return Err(Error::invalid(problems));
    }
    app.follower.known(&id).ok_or_else(|| Error::NotFound(format!("there is no run {id}")))?;
    let ScoreRequest { pairs, target } = request;
    let mut reply = app.inference.ask(&id, |number| Asked::Score { number, pairs, target }).await?;
    match reply.next().await {
        Some(Told::Scores { scores, .. }) => Ok(Json(scores)),
        Some(Told::Refused { message, .. }) => Err(refused(message)),
        _ => Err(Error::Conflict("the process that scores has ended; ask again".into())),
    }
}

fn refused(message: String) -> Error {
    problem_of(&message).map_or(Error::Conflict(message), |problem| Error::invalid(vec![problem]))
}
