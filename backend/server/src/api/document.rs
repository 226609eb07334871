//! What the API is, as an OpenAPI document that is made of its handlers, and as a page for people.

use crate::access::needed;
use crate::html;
use crate::state::Shared;
use axum::http::{Method, header};
use axum::response::IntoResponse;
use moslim_shared::refusal::{ApiError, MEDIA_TYPE};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::LazyLock;
use utoipa::openapi::OpenApi;
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of what is written about routes.
pub fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(openapi)).routes(routes!(page)).routes(routes!(style))
}

/// Methods that an OpenAPI document knows and the API uses.
const METHODS: [&str; 4] = ["get", "put", "post", "delete"];
const STYLE: &str = include_str!("document.css");

/// Both forms of the document.
struct Written {
    json: String,
    html: String,
}

static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let document = complete(&super::routes().1);
    Written { json: document.to_string(), html: shown(&document) }
});

#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "lab", responses((status = 200, description = "This document", body = Object)))]
async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], WRITTEN.json.as_str())
}

#[utoipa::path(get, path = "/api/v1/docs", tag = "lab", responses((status = 200, description = "This document, to be read", body = String, content_type = "text/html")))]
async fn page() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], WRITTEN.html.as_str())
}

#[utoipa::path(get, path = "/api/v1/docs.css", tag = "lab", responses((status = 200, description = "How that looks", body = String, content_type = "text/css")))]
async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)
}

/// What the handlers do not say each for itself: names of operations, how errors look, and the least role that an operation needs.
fn complete(document: &OpenApi) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    document["info"] = json!({
        "title": "MOSLIM Lab",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Multi-objective alignment of language models: runs, studies, ratings, inference. Every request carries \
            the header Authorization with \"Bearer TOKEN\"; whatever changes something also carries an Origin header that names the \
            server itself.",
    });
    document["servers"] = json!([{ "url": "/" }]);
    document["security"] = json!([{ "token": [] }]);
    document["components"]["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
    let mut schemas = vec![(ApiError::name().into_owned(), ApiError::schema())];
    ApiError::schemas(&mut schemas);
    for (name, schema) in schemas {
        document["components"]["schemas"][name] = serde_json::to_value(schema).unwrap_or_default();
    }
    let refusal = json!({
        "description": "It cannot be served, and why",
        "content": { MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/ApiError" } } },
    });
    for (path, method, operation) in operations_mut(&mut document) {
        let tag = operation["tags"][0].as_str().unwrap_or_default();
        let name = operation["operationId"].as_str().unwrap_or_default();
        operation["operationId"] = format!("{tag}_{name}").into();
        operation["responses"]["default"] = refusal.clone();
        let method = method.to_uppercase().parse().unwrap_or(Method::GET);
        operation["x-role"] = needed(&method, &path).id().into();
    }
    document
}

/// Path, method and operation of everything in a document.
fn operations_mut(document: &mut Value) -> impl Iterator<Item = (String, &'static str, &mut Value)> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let known = item.as_object_mut().into_iter().flatten();
        known.filter_map(move |(name, operation)| Some((path.clone(), METHODS.into_iter().find(|m| m == name)?, operation)))
    })
}

/// A text of the document within HTML, on one line.
fn text(value: &Value) -> String {
    html::text(value.as_str().unwrap_or_default()).replace('\n', " ")
}

/// What a schema is called, with links to those that have a name.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|at| at.rsplit('/').next()) {
        let name = text(&name.into());
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        if let Some(some) = schema[several].as_array() {
            return some.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|v| format!("<code>{}</code>", text(v))).collect::<Vec<_>>().join(", ");
    }
    match &schema["type"] {
        Value::Array(some) => some.iter().map(text).collect::<Vec<_>>().join(" or "),
        Value::String(name) if name == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(name) if name == "object" && schema["properties"].is_object() => {
            let fields = schema["properties"].as_object().into_iter().flatten();
            let fields: Vec<String> = fields.map(|(name, of)| format!("{}: {}", text(&name.as_str().into()), kind(of))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::String(name) => text(&name.as_str().into()),
        _ => "anything".into(),
    }
}

fn content(of: &Value) -> String {
    let kinds = of["content"].as_object().into_iter().flatten();
    kinds.map(|(media, of)| format!("{} <small>{media}</small>", kind(&of["schema"]))).collect::<Vec<_>>().join(" or ")
}

/// One operation. Writing to a string does not fail.
fn operation(out: &mut String, path: &str, method: &str, of: &Value) {
    let _ = write!(out, "<article id=\"{}\">", text(&of["operationId"]));
    let role = text(&of["x-role"]);
    let _ = write!(out, "<h3><b>{}</b> <code>{path}</code> <small>role {role}</small></h3>", method.to_uppercase());
    let mut rows = String::new();
    for parameter in of["parameters"].as_array().into_iter().flatten() {
        let (name, place, said) = (text(&parameter["name"]), text(&parameter["in"]), text(&parameter["description"]));
        let _ = write!(rows, "<tr><td>{place} <code>{name}</code><td>{}<td>{said}", kind(&parameter["schema"]));
    }
    if of["requestBody"].is_object() {
        let _ = write!(rows, "<tr><td>body<td>{}<td>", content(&of["requestBody"]));
    }
    for (status, answer) in of["responses"].as_object().into_iter().flatten().filter(|(status, _)| *status != "default") {
        let _ = write!(rows, "<tr><td>answer {status}<td>{}<td>{}", content(answer), text(&answer["description"]));
    }
    let _ = write!(out, "<table>{rows}</table></article>");
}

/// A schema that has a name.
fn schema(out: &mut String, name: &str, of: &Value) {
    let _ = write!(out, "<article id=\"{name}\"><h3><code>{name}</code></h3><p>{}</p>", text(&of["description"]));
    let needed: Vec<&str> = of["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match of["properties"].as_object() {
        None => {
            let _ = write!(out, "<p>{}</p>", kind(of));
        }
        Some(fields) => {
            let rows: String = fields.iter().fold(String::new(), |mut rows, (name, of)| {
                let left = if needed.contains(&name.as_str()) { "" } else { " <small>may be left out</small>" };
                let _ = write!(rows, "<tr><td><code>{name}</code>{left}<td>{}<td>{}", kind(of), text(&of["description"]));
                rows
            });
            let _ = write!(out, "<table>{rows}</table>");
        }
    }
    out.push_str("</article>");
}

/// The document as a page.
fn shown(document: &Value) -> String {
    let mut parts: Map<String, Value> = Map::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, of) in item.as_object().into_iter().flatten() {
            let part = parts.entry(of["tags"][0].as_str().unwrap_or_default()).or_insert_with(|| json!([]));
            part.as_array_mut().into_iter().for_each(|part| part.push(json!([path, method, of])));
        }
    }
    let mut out = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>API · MOSLIM Lab</title><link rel=\"icon\" href=\"/icon.svg\"><link rel=\"stylesheet\" href=\"/api/v1/docs.css\"></head><body><main>",
    );
    let _ = write!(out, "<h1>The API of MOSLIM Lab</h1><p>{}</p><p>", text(&document["info"]["description"]));
    let _ =
        write!(out, "For programs: <a href=\"/api/v1/openapi.json\">openapi.json</a>. What it cannot serve is answered with ");
    let _ = write!(out, "<a href=\"#ApiError\">ApiError</a>. Back to <a href=\"/\">the lab</a>.</p><nav>");
    for tag in parts.keys() {
        let _ = write!(out, "<a href=\"#{tag}\">{tag}</a> ");
    }
    out.push_str("<a href=\"#schemas\">schemas</a></nav>");
    for (tag, some) in &parts {
        let _ = write!(out, "<h2 id=\"{tag}\">{tag}</h2>");
        for one in some.as_array().into_iter().flatten() {
            operation(&mut out, &text(&one[0]), &text(&one[1]), &one[2]);
        }
    }
    out.push_str("<h2 id=\"schemas\">schemas</h2>");
    for (name, of) in document["components"]["schemas"].as_object().into_iter().flatten() {
        schema(&mut out, name, of);
    }
    out + "</main></body></html>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_operation_has_a_name_of_its_own_and_every_reference_is_there() {
        let mut document = complete(&super::super::routes().1);
        let text = document.to_string();
        let mut names = HashSet::new();
        for (path, method, operation) in operations_mut(&mut document) {
            assert!(names.insert(operation["operationId"].to_string()), "{method} {path}: {}", operation["operationId"]);
            assert!(operation["responses"].as_object().is_some_and(|some| some.len() > 1), "{method} {path} says no answer");
        }
        assert!(names.len() > 40, "{}", names.len());
        let page = shown(&document);
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(document["components"]["schemas"][name].is_object(), "{name} is not described");
            assert!(page.contains(&format!("<article id=\"{name}\">")), "{name} is not on the page");
        }
    }

    #[test]
    fn markup_in_a_text_is_text() {
        assert_eq!(text(&json!("<b>&\"")), "&lt;b&gt;&amp;&quot;");
        let several = json!({ "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/RunInfo" }] });
        assert_eq!(kind(&several), "null or <a href=\"#RunInfo\">RunInfo</a>");
        assert_eq!(kind(&json!({ "type": "array", "items": { "type": "integer" } })), "list of integer");
    }
}
