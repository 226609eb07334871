//! What people bring: files of ratings that are looked at, tried and imported, and off-the-shelf models.

use super::tasks::{beside, opened};
use crate::access::Person;
use crate::api::{Body, LARGEST_FILE, file_of, finish, finish_for};
use crate::error::Error;
use crate::folder::DataFolder;
use crate::id::RunId;
use crate::state::Shared;
use anyhow::{Context, ensure};
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use moslim_engine::data::ratings::check_name;
use moslim_engine::keep::models::{KnownModel, Models};
use moslim_engine::run::memory::{available_mib, shape, weights_mib};
use moslim_import::import::{Bad, format};
use moslim_import::peek::{Column, peek, skeleton};
use moslim_import::{Import, Mapping, import, known};
use moslim_shared::bringing::{
    ChangeRequest, ImportRequest, KnownMapping, ModelInfo, ModelList, NoiseRequest, Preview, SeenColumn, Upload,
};
use moslim_shared::config::{DeviceChoice, Precision, Problem};
use moslim_shared::ratings::{RatingsTask, RowFilter, UnlikelyLabel};
use serde::Deserialize;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime};
use tokio::process::Command;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use utoipa::IntoParams;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

/// In the data folder: files that wait to be imported.
const UPLOADS: &str = "uploads";
/// After this a file that was not imported is removed.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Records that a preview reads.
const PREVIEWED: u64 = 100;
/// Time for a reward model to grade a task.
const NOISE_TIME: Duration = Duration::from_secs(10 * 60);
/// Rows of an answer about labels at most.
const MOST_UNLIKELY: usize = 500;
/// Share of answers that may be left out of an import.
const MOST_BAD: f64 = 0.05;

/// Imports, previews and looks for unlikely labels at a time: each takes memory and a processor from what trains.
const MOST_AT_WORK: usize = 2;
static AT_WORK: Semaphore = Semaphore::const_new(MOST_AT_WORK);

/// Room to work with what people bring, until what is returned is dropped.
///
/// # Errors
/// [`Error::Busy`] where there is none.
fn room_to_work() -> Result<SemaphorePermit<'static>, Error> {
    let of_what = "imports, previews or looks for unlikely labels";
    let busy = |_| Error::Busy(format!("{MOST_AT_WORK} {of_what} are at work already; try again in a moment"));
    AT_WORK.try_acquire().map_err(busy)
}

/// Routes of what people bring.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(upload).layer(DefaultBodyLimit::max(LARGEST_FILE)))
        .routes(routes!(preview))
        .routes(routes!(make))
        .routes(routes!(change))
        .routes(routes!(noise))
        .routes(routes!(models))
}

/// A field that is wrong.
fn wrong(field: &str, message: impl Into<String>) -> Error {
    Error::invalid(vec![Problem { field: field.into(), message: message.into() }])
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Named {
    /// Name of the file; its ending says what it is.
    name: String,
}

/// Takes a file, and tells what is in it.
#[utoipa::path(post, path = "/api/v1/uploads", tag = "ratings", params(Named), request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses((status = 201, description = "What the file holds, and a mapping to begin with", body = Upload)))]
async fn upload(
    State(app): State<Shared>,
    named: Result<Query<Named>, QueryRejection>,
    request: Request,
) -> Result<(StatusCode, Json<Upload>), Error> {
    let Query(Named { name }) = named.map_err(|e| Error::BadRequest(format!("name is needed: {}", e.body_text())))?;
    let plain = |c: char| c.is_alphanumeric() || " ._-()".contains(c);
    // Disks count bytes, and what is written first has a longer name.
    let fits = (1..=120).contains(&name.chars().count()) && name.len() <= 200;
    if !fits || name.starts_with('.') || !name.chars().all(plain) {
        let allowed = "1 to 120 letters, digits and . _ - ( ) or spaces, in at most 200 bytes, and no dot at its beginning";
        return Err(wrong("name", format!("must have {allowed}")));
    }
    // Before it is sent: what is kept free is for what trains.
    app.data.check_room().map_err(Error::Conflict)?;
    let bytes = file_of(request).await.map_err(|error| match error {
        Error::TooLarge(text) => Error::TooLarge(format!("{text}; moslim-lab import takes larger ones")),
        other => other,
    })?;
    finish(async move {
        beside(move || {
            let folder = app.data.root().join(UPLOADS);
            tidy(&folder);
            let id = RunId::fresh().to_string();
            let file = folder.join(&id).join(&name);
            crate::folder::write_file(&file, &bytes)?;
            let seen = format(&file, None).and_then(|format| peek(&file, format));
            let seen = seen.map_err(|e| {
                let _ = std::fs::remove_dir_all(folder.join(&id));
                wrong("name", relative(&format!("{e:#}"), &file, &name))
            })?;
            let known = known::KNOWN.map(|(name, text)| KnownMapping { name: name.into(), text: text.into() }).to_vec();
            let columns = seen.columns.iter().map(column).collect();
            let upload = Upload { id, name, bytes: bytes.len() as u64, columns, mapping: skeleton(&seen), known };
            Ok((StatusCode::CREATED, Json(upload)))
        })
        .await
    })
    .await
}

fn column(c: &Column) -> SeenColumn {
    SeenColumn {
        path: c.path.to_string(),
        kind: c.kind.into(),
        example: c.example.clone(),
        values: c.values.clone(),
        records: c.records,
    }
}

/// A message without the folders of this machine.
fn relative(text: &str, file: &std::path::Path, name: &str) -> String {
    text.replace(&file.display().to_string(), name)
}

/// Removes files that nobody imported.
fn tidy(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age > KEPT) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The file of an upload.
fn upload_of(data: &DataFolder, id: &str) -> Result<PathBuf, Error> {
    let unknown = || wrong("upload", "there is no such file any more; send it again");
    let id: RunId = id.parse().map_err(|_| unknown())?;
    let folder = data.root().join(UPLOADS).join(id.as_str());
    let files = std::fs::read_dir(folder).map_err(|_| unknown())?.flatten().map(|e| e.path());
    files.into_iter().find(|path| path.is_file()).ok_or_else(unknown)
}

/// What a request wants imported.
fn wanted(data: &DataFolder, request: ImportRequest, most: Option<u64>) -> Result<(Import, PathBuf), Error> {
    let file = upload_of(data, &request.upload)?;
    check_name(&request.name).map_err(|e| wrong("name", format!("{e:#}")))?;
    let mapping = Mapping::parse(&request.mapping).map_err(|e| wrong("mapping", e))?;
    let bad = if request.stop { Bad::Stop } else { Bad::Drop };
    let most_bad = if most.is_some() { 1.0 } else { MOST_BAD };
    let files = vec![file.clone()];
    let ImportRequest { name, mapping: written, replace, .. } = request;
    Ok((Import { files, mapping, written, name, bad, most_bad, replace, most }, file))
}

/// Imports into the data folder at `root`; what is wrong is said of the file by its name.
fn imported(root: &std::path::Path, wish: &Import, file: &std::path::Path) -> Result<RatingsTask, Error> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    import(root, wish, |_, _| Ok(())).map_err(|e| wrong("", relative(&format!("{e:#}"), file, &name)))
}

/// What the first records would be.
#[utoipa::path(post, path = "/api/v1/uploads/preview", tag = "ratings", request_body = ImportRequest, responses((status = 200, description = "What the first hundred records would be", body = Preview)))]
async fn preview(State(app): State<Shared>, Body(request): Body<ImportRequest>) -> Result<Json<Preview>, Error> {
    let room = room_to_work()?;
    beside(move || {
        let _room = room;
        let (wish, file) = wanted(&app.data, request, Some(PREVIEWED))?;
        let folder = tempfile::tempdir().context("a folder for a preview")?;
        let task = imported(folder.path(), &wish, &file)?;
        let filter = RowFilter { limit: PREVIEWED as usize, ..Default::default() };
        let rows = DataFolder::resolve(Some(folder.path().into())).task_rows(&task, &filter)?;
        Ok(Json(Preview { task, rows }))
    })
    .await
}

/// Makes a task of a file.
#[utoipa::path(post, path = "/api/v1/tasks", tag = "ratings", request_body = ImportRequest, responses((status = 201, description = "The task", body = RatingsTask)))]
async fn make(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    Body(request): Body<ImportRequest>,
) -> Result<(StatusCode, Json<RatingsTask>), Error> {
    let room = room_to_work()?;
    finish_for(person, format!("task {:?} is imported", request.name), async move {
        beside(move || {
            let _room = room;
            let (wish, file) = wanted(&app.data, request, None)?;
            let task = imported(app.data.root(), &wish, &file)?;
            if let Some(folder) = file.parent() {
                let _ = std::fs::remove_dir_all(folder);
            }
            Ok((StatusCode::CREATED, Json(task)))
        })
        .await
    })
    .await
}

/// Changes a task's classes.
#[utoipa::path(post, path = "/api/v1/tasks/{name}/changes", tag = "ratings", params(("name" = String, Path, description = "Which task")), request_body = ChangeRequest, responses((status = 200, description = "The task, with its classes changed", body = RatingsTask)))]
async fn change(
    State(app): State<Shared>,
    Extension(person): Extension<Person>,
    Path(name): Path<String>,
    Body(request): Body<ChangeRequest>,
) -> Result<Json<RatingsTask>, Error> {
    finish_for(person, format!("the classes of task {name:?} are changed"), async move {
        beside(move || {
            let mut task = opened(&app, &name)?;
            if request.undo_all {
                task.changes = Mapping::parse(&task.mapping).map(|m| m.changes()).unwrap_or_default();
            }
            task.changes.extend(request.changes);
            task.shaped().map_err(|e| wrong("", e))?;
            app.data.write_task(&task)?;
            Ok(Json(task))
        })
        .await
    })
    .await
}

/// Labels that a run's reward model finds unlikely. A child process asks it, at a low priority: there are no tensors in a server.
#[utoipa::path(post, path = "/api/v1/tasks/{name}/noise", tag = "ratings", params(("name" = String, Path, description = "Which task")), request_body = NoiseRequest, responses((status = 200, description = "Labels that a reward model finds unlikely, the unlikeliest first", body = Vec<UnlikelyLabel>)))]
async fn noise(
    State(app): State<Shared>,
    Path(name): Path<String>,
    Body(request): Body<NoiseRequest>,
) -> Result<Json<Vec<UnlikelyLabel>>, Error> {
    if !(1..=MOST_UNLIKELY).contains(&request.n) {
        return Err(wrong("n", format!("is {}; allowed is 1 to {MOST_UNLIKELY}", request.n)));
    }
    let run: RunId = request.run.parse().map_err(|e: String| wrong("run", e))?;
    let (n, own) = (request.n.to_string(), app.clone());
    let task = beside(move || opened(&own, &name)).await?;
    let _room = room_to_work()?;
    let mut child = Command::new(app.launcher.program());
    child.args(["data", "noise", task.name.as_str(), "--run", run.as_str(), "--n", &n, "--json", "--data"]);
    child.envs(app.launcher.environment());
    child.arg(app.data.root()).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(NOISE_TIME, child.output()).await.context("grading a task took too long")?.context("grading a task")?;
    if output.status.code() == Some(i32::from(crate::failure::BAD_INPUT)) {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(wrong("", said.trim().trim_start_matches("error: ").to_string()));
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let found = || -> anyhow::Result<Vec<UnlikelyLabel>> {
        ensure!(output.status.success(), "grading a task failed ({}): {errors:.500}", output.status);
        serde_json::from_slice(&output.stdout).context("reading the labels")
    };
    Ok(Json(found()?))
}

/// The off-the-shelf models that were added.
#[utoipa::path(get, path = "/api/v1/models", tag = "models", responses((status = 200, description = "Off-the-shelf models that were added", body = ModelList)))]
async fn models(State(app): State<Shared>) -> Result<Json<ModelList>, Error> {
    beside(move || {
        let known = Models::of(app.data.root()).list()?;
        known.damaged.iter().for_each(|error| tracing::warn!("a model is left out of the list: {error}"));
        let models = known.models.iter().map(info).collect();
        let threads = app.supervisor.threads(DeviceChoice::Cpu);
        Ok(Json(ModelList { models, free_mib: available_mib(), threads }))
    })
    .await
}

fn info(model: &KnownModel) -> ModelInfo {
    let a = &model.architecture;
    ModelInfo {
        name: model.name.clone(),
        family: a.family.clone(),
        weights: model.weights,
        layers: a.layers,
        d_model: a.d_model,
        vocabulary: a.vocabulary,
        context: a.context,
        shape: shape(a),
        storages: model.storages.clone(),
        template: model.template,
        source: model.source.clone(),
        bytes: model.files.iter().map(|f| f.bytes).sum(),
        memory_mib: weights_mib(model.weights, Precision::F32),
    }
}
