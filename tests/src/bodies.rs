//! Bodies of JSON as large as they may be, filled with what may be hard for who reads them.

use crate::place::FLAT;
use crate::smoke;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Largest body of JSON, bytes.
pub const BODY_LIMIT: usize = 1 << 20;

/// A body that a route understands and that starts nothing; `None` for a route that is not known here. `upload`: a file that waits.
pub fn sound(template: &str, upload: &str) -> Option<Value> {
    let mut config = smoke();
    // The rules between fields are looked at last, and this breaks one.
    config.policy.samples_per_prompt = 1;
    // It says that a person has still to choose.
    let open = FLAT.replace("prompt = \"question\"", "prompt = \"?\"");
    Some(match template {
        "/api/v1/task" | "/api/v1/validate" | "/api/v1/config/toml" | "/api/v1/runs" => json!({ "config": config }),
        "/api/v1/config/read" => json!({ "toml": "seed = 1" }),
        "/api/v1/runs/{id}/generate" => json!({ "prompt": "How do I make tea?" }),
        "/api/v1/runs/{id}/score" => json!({ "pairs": [{ "prompt": "How do I make tea?", "response": "Boil water." }] }),
        "/api/v1/studies" => json!({ "preset": "mappings", "base": "smoke", "seeds": [] }),
        "/api/v1/tasks" | "/api/v1/uploads/preview" => json!({ "upload": upload, "name": "other", "mapping": open }),
        // Nothing is left of the changes of the body before.
        "/api/v1/tasks/{name}/changes" => json!({ "changes": [], "undo_all": true }),
        "/api/v1/tasks/{name}/noise" => json!({ "run": "none", "n": 5 }),
        _ => return None,
    })
}

/// A body, and what it is.
#[derive(Debug)]
pub struct Body {
    pub what: String,
    pub text: String,
}

/// Bodies for a route that understands `sound`, and whose requests have these fields.
///
/// # Errors
/// When a field has no place in `sound`, or a body has another size.
pub fn bodies<'a>(sound: &Value, fields: impl Iterator<Item = &'a String>) -> Result<Vec<Body>> {
    let plain = sound.to_string();
    let padding = " ".repeat(BODY_LIMIT - plain.len());
    let mut bodies = vec![Body { what: "spaces behind a sound body".into(), text: plain + padding.as_str() }];
    for field in fields {
        let mut places: Vec<(String, Filling)> = ANYWHERE.iter().map(|filling| (String::new(), *filling)).collect();
        let own: Vec<Filling> = match field.as_str() {
            "toml" => IN_TOML.to_vec(),
            "mapping" => [&IN_TOML[..], &IN_MAPPING].concat(),
            "changes" => IN_CHANGES.to_vec(),
            _ => Vec::new(),
        };
        places.extend(own.into_iter().map(|filling| (String::new(), filling)));
        if field == "config" {
            places.extend(IN_CONFIG.iter().map(|(within, filling)| (within.to_string(), *filling)));
        }
        for (within, (what, filling)) in places {
            let pointer = format!("/{field}{within}");
            let text = filled(sound, &pointer, filling)?;
            ensure!(text.len() <= BODY_LIMIT && text.len() + 128 > BODY_LIMIT, "{pointer}, {what}: {} bytes", text.len());
            bodies.push(Body { what: format!("{}: {what}", pointer[1..].replace('/', ".")), text });
        }
    }
    Ok(bodies)
}

/// Stands where the filling of a body goes.
const PLACE: &str = "(the filling)";

/// What a body is filled with: what it is, and a value of JSON of at most so many bytes.
type Filling = (&'static str, fn(usize) -> String);

const TEXT: Filling = ("one long text", |room| format!("\"{}\"", "x".repeat(room - 2)));
const NAMES: Filling = ("a hundred thousand names", |room| listed("[", "]", room, |n| format!("{}\"o{n}\"", comma(n))));
const NUMBERS: Filling = ("a hundred thousand numbers", |room| listed("[", "]", room, |n| format!("{}{n}", comma(n))));
const PAIRS: Filling = ("many pairs", |room| {
    let pair = r#"[{"objective":"","class":0},{"objective":"","class":0}]"#;
    listed("[", "]", room, |n| format!("{}{pair}", comma(n)))
});
const EMPTY: Filling = ("empty lists", |room| listed("[", "]", room, |n| format!("{}[]", comma(n))));
/// Short as JSON, and hundreds of digits where somebody writes them out.
const ENORMOUS: Filling = ("enormous numbers", |room| listed("[[", "]]", room, |n| format!("{}1e300", comma(n))));

/// For any field.
const ANYWHERE: [Filling; 6] = [
    ("a list in a list, a hundred thousand times", |room| nested("", room)),
    ("control characters", |room| listed("\"", "\"", room, |_| "\\u0001".into())),
    ("a hundred thousand keys", |room| listed("{", "}", room, |n| format!("{}\"k{n}\":0", comma(n)))),
    TEXT,
    NAMES,
    NUMBERS,
];

/// For fields of a configuration.
const IN_CONFIG: [(&str, Filling); 7] = [
    ("/name", TEXT),
    ("/base/model", TEXT),
    ("/targets/objectives", NAMES),
    ("/targets/held_out", PAIRS),
    ("/method/weights", EMPTY),
    ("/method/weights", ENORMOUS),
    ("/mapping/weights", NUMBERS),
];

/// For texts that are TOML.
const IN_TOML: [Filling; 8] = [
    ("a list in a list, a hundred thousand times", |room| format!("\"{}\"", nested("a=", room - 2))),
    ("one long text", |room| format!("\"name='{}'\"", "x".repeat(room - 9))),
    ("a hundred thousand keys", |room| listed("\"", "\"", room, |n| format!("k{n}=0\\n"))),
    ("a hundred thousand tables", |room| listed("\"", "\"", room, |n| format!("[t{n}]\\n"))),
    ("a table in a table, and so on", |room| listed("\"a", "=0\"", room, |_| ".a".into())),
    ("a hundred thousand names", |room| listed("\"[targets]\\nobjectives=[", "]\"", room, |n| format!("{}'o{n}'", comma(n)))),
    ("large numbers", |room| listed("\"[method]\\nweights=[[", "]]\"", room, |n| format!("{}9e9", comma(n)))),
    ("many objectives", |room| listed("\"", "\"", room, |_| "[[objectives]]\\n".into())),
];

/// For mappings: everything is there for each of 64 names.
const IN_MAPPING: [Filling; 2] = [
    ("many objectives of 64 answers", |room| {
        let head = format!("\"prompt='p'\\n{}", each());
        listed(&head, "\"", room, |_| "[[objectives]]\\nlabel='a'\\n".into())
    }),
    // As many as this would take gigabytes: a fiftieth of them, and a comment.
    ("a long template of 64 answers", |room| {
        let head = format!("\"{}prompt_template='{}'\\n#", each(), "{a}".repeat(7_000));
        listed(&head, "\"", room, |_| "x".into())
    }),
];

/// For changes of a task.
const IN_CHANGES: [Filling; 2] = [
    ("many changes", |room| listed("[", "]", room, |n| format!("{}{CHANGE}", comma(n)))),
    ("a long name and many changes", |room| {
        let head = format!(r#"[{{"kind":"rename","objective":"use","name":"{}"}}"#, "x".repeat(room / 2));
        listed(&head, "]", room, |_| format!(",{CHANGE}"))
    }),
];
const CHANGE: &str = r#"{"kind":"agree","objective":"use","agree":"mean"}"#;

/// The beginning of a mapping whose records have 64 answers each.
fn each() -> String {
    let names: Vec<String> = (0..64).map(|n| format!("'e{n}'")).collect();
    format!("response='{{each}}'\\neach=[{}]\\n", names.join(","))
}

fn comma(n: usize) -> &'static str {
    if n == 0 { "" } else { "," }
}

/// Items between `open` and `close`, as many as there is room for.
fn listed(open: &str, close: &str, room: usize, item: impl Fn(usize) -> String) -> String {
    let mut out = open.to_string();
    for n in 0.. {
        let next = item(n);
        if out.len() + next.len() + close.len() > room {
            break;
        }
        out += &next;
    }
    out + close
}

/// Lists in lists behind `head`.
fn nested(head: &str, room: usize) -> String {
    let deep = (room - head.len()) / 2;
    format!("{head}{}{}", "[".repeat(deep), "]".repeat(deep))
}

/// `sound` with a filling in one place, as large as a body may be.
fn filled(sound: &Value, pointer: &str, filling: fn(usize) -> String) -> Result<String> {
    let (parent, field) = pointer.rsplit_once('/').context("a pointer")?;
    let mut body = sound.clone();
    body.pointer_mut(parent).with_context(|| format!("there is no {parent}"))?[field] = PLACE.into();
    let body = body.to_string();
    let (head, tail) = body.split_once(&format!("\"{PLACE}\"")).context("no place for the filling")?;
    Ok(format!("{head}{}{tail}", filling(BODY_LIMIT - head.len() - tail.len())))
}
