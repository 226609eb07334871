//! Runs of earlier versions of the lab: without journals, or with their events in a database. What is only needed for them is
//! here, and nowhere else.

use crate::folder::{DataFolder, write_file};
use crate::id::RunId;
use anyhow::{Context, Result};
use moslim_engine::data::TaskCard;
use moslim_shared::config::RunConfig;
use moslim_shared::event::{DeviceReport, EventBody, Outcome};
use moslim_shared::summary::{Answerer, RunSummary};
use serde_json::{Map, Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Row, SqlitePool};
use std::fmt::Write;

/// What a finished run says about its end, from its summary.
pub fn events_of(config: &RunConfig, summary: &RunSummary) -> Vec<EventBody> {
    let device = DeviceReport { device: summary.device.clone(), name: String::new(), reason: String::new() };
    // Runs of then were all about the built-in world.
    let objectives = TaskCard::read(|_| Ok(None)).map(|card| card.objectives).unwrap_or_default();
    let mut events = vec![
        EventBody::Started { config: config.clone(), device, objectives, resumed: false },
        EventBody::RewardModel { report: summary.reward_model.clone() },
    ];
    events.extend(summary.kl_frontier.iter().map(|&point| EventBody::KlFrontier { part: None, point }));
    for control in [&summary.control, &summary.control_reward_model] {
        for (policy, report) in [(Answerer::Sft, &control.sft), (Answerer::Policy, &control.policy)] {
            events.push(EventBody::Control { policy, grader: control.grader, report: report.clone() });
        }
    }
    if !summary.front.points.is_empty() {
        events.push(EventBody::Front { report: summary.front.clone() });
    }
    events.push(EventBody::Summary { summary: summary.clone() });
    events.push(EventBody::Ended { outcome: Outcome::Finished, message: String::new() });
    events
}

/// Writes the journals of runs whose events are in the database of an earlier version, then sets that database aside. Nothing of
/// it is lost: it is renamed.
///
/// # Errors
/// When the database or a journal cannot be read or written.
pub async fn export_database(data: &DataFolder) -> Result<()> {
    let path = data.old_database();
    if !path.exists() {
        return Ok(());
    }
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(SqliteConnectOptions::new().filename(&path))
        .await
        .with_context(|| format!("opening {}", path.display()))?;
    let exported = export(&pool, data).await;
    pool.close().await;
    let count = exported.with_context(|| format!("reading the events in {}", path.display()))?;
    let aside = path.with_file_name("lab-before-journals.db");
    std::fs::rename(&path, &aside).with_context(|| format!("renaming {}", path.display()))?;
    tracing::info!("{count} runs of an earlier version have journals now; their database is kept as {}", aside.display());
    Ok(())
}

async fn export(pool: &SqlitePool, data: &DataFolder) -> Result<usize> {
    let mut count = 0;
    for row in sqlx::query("SELECT id, config FROM runs").fetch_all(pool).await? {
        let Ok(id) = row.try_get::<String, _>("id")?.parse::<RunId>() else { continue };
        let folder = data.run(&id);
        if folder.join("events.jsonl").exists() {
            continue;
        }
        if !folder.join("config.json").exists() {
            write_file(&folder.join("config.json"), row.try_get::<String, _>("config")?.as_bytes())?;
        }
        let mut text = String::new();
        let mut known = Known::default();
        let query = sqlx::query("SELECT time, body FROM events WHERE run = ? ORDER BY seq").bind(id.as_str());
        for row in query.fetch_all(pool).await? {
            let body: Value = serde_json::from_str(row.try_get("body")?).unwrap_or(Value::Null);
            let _ = writeln!(text, "{}", json!({ "time": row.try_get::<i64, _>("time")?, "body": modern(body, &mut known) }));
        }
        write_file(&folder.join("events.jsonl"), text.as_bytes())?;
        count += 1;
    }
    Ok(count)
}

/// What earlier events of a run said.
#[derive(Default)]
struct Known {
    /// The stage and the part of it that trains.
    part: Option<(String, Value)>,
    /// Ids of the objectives, in order.
    objectives: Vec<String>,
}

/// An event as it is written now: which part of a stage it is about was said by an event of its own.
fn modern(mut body: Value, known: &mut Known) -> Value {
    let Some((kind, fields)) = body.as_object_mut().and_then(|o| o.iter_mut().next()) else { return body };
    let (kind, Some(fields)) = (kind.clone(), fields.as_object_mut()) else { return body };
    let text = |fields: &Map<String, Value>, key: &str| fields.get(key).and_then(Value::as_str).map(str::to_string);
    match kind.as_str() {
        "part" => {
            let stage = text(fields, "stage").unwrap_or_default();
            let name = text(fields, "name").unwrap_or_default();
            fields.remove("stage");
            known.part = Some((stage, Value::Object(fields.clone())));
            // Its place is kept, so that numbers stay.
            return json!({ "note": { "text": format!("now: {name}") } });
        }
        "stage_began" | "stage_ended" | "loss" | "validation" | "policy" | "samples" | "checkpoint" | "kl_frontier" => {
            let stage = text(fields, "stage").unwrap_or_else(|| match kind.as_str() {
                "validation" => "reward_model".into(),
                _ => "policy".into(),
            });
            if let Some((_, part)) = known.part.as_ref().filter(|(of, _)| *of == stage) {
                fields.insert("part".into(), part.clone());
                // A model of its own for each objective was called by the objective.
                let own = known.objectives.iter().position(|id| part["name"] == json!(id));
                if kind == "validation"
                    && let Some(own) = own
                {
                    fields.insert("objectives".into(), json!([own]));
                }
            }
        }
        "started" => {
            let objectives = fields.get("objectives").and_then(Value::as_array);
            let ids = objectives.into_iter().flatten().filter_map(|o| o["id"].as_str().map(str::to_string));
            known.objectives = ids.collect();
        }
        _ => {}
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_learn_whose_they_are() {
        let mut known = Known::default();
        modern(json!({"started": {"objectives": [{"id": "helpfulness"}, {"id": "honesty"}]}}), &mut known);
        let note = modern(json!({"part": {"stage": "policy", "index": 2, "count": 4, "name": "honesty"}}), &mut known);
        assert_eq!(note["note"]["text"], "now: honesty");
        let began = modern(json!({"stage_began": {"stage": "policy", "from": 0, "total": 3}}), &mut known);
        let EventBody::StageBegan { part: Some(p), total: 3, .. } = serde_json::from_value(began).unwrap() else {
            panic!("a stage with a part was expected")
        };
        assert_eq!((p.index, p.count, p.name.as_str()), (2, 4, "honesty"));
        modern(json!({"part": {"stage": "reward_model", "index": 2, "count": 2, "name": "honesty"}}), &mut known);
        let EventBody::Validation { objectives, .. } =
            serde_json::from_value(modern(json!({"validation": {"step": 3, "qwk": [0.5]}}), &mut known)).unwrap()
        else {
            panic!("a validation was expected")
        };
        assert_eq!(objectives, [1]);
        let other = modern(json!({"stage_began": {"stage": "evaluation", "from": 0, "total": 3}}), &mut known);
        assert!(other["stage_began"].get("part").is_none());
        let control = json!({"control": {"policy": "sft", "judge": "gold", "report": {"heads": [], "joint_hit_rate": 0.0,
            "held_out_hit_rate": 0.0, "trained_hit_rate": 0.0, "fluency": 0.0}}});
        assert!(matches!(
            serde_json::from_value(modern(control, &mut known)).unwrap(),
            EventBody::Control { policy: Answerer::Sft, .. }
        ));
    }
}
