//! Damaged messages of a websocket and damaged configurations: an error that says what is wrong, or a value, never a panic. Two thousand
//! of each, or as many as the environment variable MOSLIM_FUZZ says.

use moslim_shared::config::cost::{optimisation, supervised};
use moslim_shared::config::{RunConfig, differences};
use moslim_shared::event::{First, Hello, Subscription};
use moslim_shared::memory::{Shape, peak};
use moslim_shared::objective::Objective;
use moslim_shared::presets;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Longest time for one configuration, on a machine that has much else to do.
const LONGEST: Duration = Duration::from_secs(2);

fn count() -> usize {
    std::env::var("MOSLIM_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

/// Numbers that look random and are the same every time (SplitMix64).
struct Dice(u64);

impl Dice {
    /// A number below `sides`, of which there is at least one.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        (x % sides as u64) as usize
    }
}

/// A copy with something wrong in it: bits, bytes, pieces that are missing, there twice or somebody else's, and deep nesting.
fn spoilt(text: &str, dice: &mut Dice) -> String {
    const PIECES: [&str; 12] =
        ["\"", "{", "}", "[", "]", "\\u0000", "\\ud800", ",", "1e999", "null", "-9223372036854775809", "18446744073709551615"];
    const OPENINGS: [&str; 2] = ["[", "{\"subscribe\":"];
    let mut copy = text.as_bytes().to_vec();
    for _ in 0..1 + dice.roll(3) {
        if copy.is_empty() {
            break;
        }
        let at = dice.roll(copy.len());
        let end = (at + dice.roll(32)).min(copy.len());
        match dice.roll(7) {
            0 => copy[at] ^= 1u8 << dice.roll(8),
            1 => copy[at] = dice.roll(256) as u8,
            2 => drop(copy.drain(at..end)),
            3 => {
                let piece = copy[at..end].to_vec();
                copy.splice(at..at, piece);
            }
            4 => drop(copy.splice(at..at, PIECES[dice.roll(PIECES.len())].bytes())),
            5 => {
                let opening = OPENINGS[dice.roll(OPENINGS.len())];
                let deep = opening.repeat(dice.roll(2_000));
                copy.splice(at..at, deep.into_bytes());
            }
            _ => copy.truncate(at),
        }
    }
    String::from_utf8_lossy(&copy).into_owned()
}

#[test]
fn no_damaged_message_of_a_client_makes_a_panic() {
    const FIRST: &str = "the first message must be {\"run\", \"after\"}, or {\"subscribe\": {\"channel\", \"hello\"}}: ";
    const LATER: &str = "only subscriptions are understood: ";
    let kinds = vec!["policy".into(), "ended".into()];
    let hello = Hello { run: "20260101-ab3f".into(), after: 12, kinds, brief: true, ..Hello::default() };
    let wishes = [Subscription::Subscribe { channel: 7, hello: hello.clone() }, Subscription::Unsubscribe { channel: 7 }];
    let text = |wish: &Subscription| serde_json::to_string(wish).expect("a message as JSON");
    let list = Hello { list: true, ..Hello::default() };
    let [one, all] = [&hello, &list].map(|hello| serde_json::to_string(hello).expect("a message as JSON"));
    let messages = [one, text(&wishes[0]), text(&wishes[1]), all];
    assert_eq!(First::read(&messages[0]), Ok(First::One(hello)));
    assert_eq!(First::read(r#"{"list": true}"#), Ok(First::One(list.clone())));
    assert_eq!(First::read(&messages[3]), Ok(First::One(list)));
    for neither in ["{}", r#"{"list": false}"#, r#"{"list": true, "run": "a"}"#] {
        assert!(First::read(neither).is_err_and(|why| why.contains("a hello has either")), "{neither}");
        let wish = format!(r#"{{"subscribe": {{"channel": 7, "hello": {neither}}}}}"#);
        assert!(Subscription::read(&wish).is_err_and(|why| why.contains("a hello has either")), "{wish}");
    }
    assert_eq!(First::read(&messages[1]), Ok(First::Several(wishes[0].clone())));
    assert_eq!(Subscription::read(&messages[2]), Ok(wishes[1].clone()));
    let mut dice = Dice(1);
    let (mut first, mut later) = (0, 0);
    for n in 0..count() {
        let text = spoilt(&messages[n % messages.len()], &mut dice);
        match First::read(&text) {
            Ok(_) => first += 1,
            Err(why) => assert!(why.strip_prefix(FIRST).is_some_and(|why| !why.is_empty()), "{why:.400} of {text:.400}"),
        }
        match Subscription::read(&text) {
            Ok(_) => later += 1,
            Err(why) => assert!(why.strip_prefix(LATER).is_some_and(|why| !why.is_empty()), "{why:.400} of {text:.400}"),
        }
    }
    assert!(first >= count() / 100 && later >= count() / 100, "most are no messages, but not all: {first}, {later}");
}

fn objectives() -> Vec<Objective> {
    vec![
        Objective::new("helpfulness", "", "", &["0", "1", "2", "3", "4"]),
        Objective::new("harmlessness", "", "", &["0", "1", "2", "3"]),
        Objective::new("honesty", "", "", &["0", "1", "2"]),
        Objective::new("verbosity", "", "", &["0", "1", "2", "3", "4"]),
    ]
}

/// Values that hardly any field expects.
fn extremes() -> Vec<Value> {
    let deep = (0..200).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
    vec![
        json!(0),
        json!(1),
        json!(-1),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.5),
        json!(5e-324),
        json!(f64::MAX),
        json!(f64::MIN),
        json!(true),
        json!(""),
        json!("\u{0}"),
        json!("x".repeat(100_000)),
        json!({}),
        json!([]),
        json!(vec![0.5; 4]),
        json!(vec![u64::MAX; 10_000]),
        json!(vec![vec![0.5; 2]; 2_000]),
        json!(vec![vec![json!({ "objective": "honesty", "class": u64::MAX }); 2]; 3]),
        json!(vec!["honesty"; 64]),
        Value::Null,
        deep,
    ]
}

/// JSON pointers to all values that hold no others.
fn leaves(value: &Value, pointer: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                leaves(value, &format!("{pointer}/{key}"), found);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (n, value) in list.iter().enumerate() {
                leaves(value, &format!("{pointer}/{n}"), found);
            }
        }
        _ => found.push(pointer.to_string()),
    }
}

/// A preset as JSON, and the pointers to its values.
fn whole(config: &RunConfig) -> (Value, Vec<String>) {
    let value = serde_json::to_value(config).expect("a configuration as JSON");
    let mut found = Vec::new();
    leaves(&value, "", &mut found);
    (value, found)
}

/// Reads a configuration as a request to start it is read, and has everything look at it that looks before it is known to be good.
/// Returns whether there is a problem; `None` where it is no configuration.
fn look_at(text: &str, preset: &RunConfig, objectives: &[Objective]) -> Option<bool> {
    let began = Instant::now();
    let looked = match serde_json::from_str::<RunConfig>(text) {
        Err(why) => {
            assert!(!why.to_string().is_empty(), "{text:.400}");
            None
        }
        Ok(config) => {
            let problems = config.problems(objectives);
            assert!(problems.iter().all(|p| !p.message.is_empty()), "{text:.400}");
            let _ = (supervised(&config), optimisation(&config, objectives.len()));
            let base = Shape::own(&config.model, config.vocabulary);
            let memory = peak(&config, Some(&base), objectives, 2);
            assert!(memory.is_some_and(|m| !m.bytes().is_nan()), "{text:.400}");
            let _ = (differences(preset, &config), config.fork_problems(preset), config.evaluation_problems(preset));
            Some(!problems.is_empty())
        }
    };
    assert!(began.elapsed() < LONGEST, "{:?} for {text:.400}", began.elapsed());
    looked
}

#[test]
fn a_value_beyond_all_measure_is_refused_whichever_field_has_it() {
    let (preset, objectives) = (presets::find("smoke").expect("the preset smoke").config, objectives());
    let (value, fields) = whole(&preset);
    assert!(fields.len() > 50, "{fields:?}");
    let mut read = 0;
    for field in &fields {
        for extreme in extremes() {
            let mut copy = value.clone();
            *copy.pointer_mut(field).expect("a field of the preset") = extreme;
            read += usize::from(look_at(&copy.to_string(), &preset, &objectives).is_some());
        }
    }
    assert!(read > fields.len(), "{read}");
    // Sums and products with these would be larger than any whole number.
    for field in ["/policy/max_new_tokens", "/model/d_model", "/policy/iterations", "/sft/steps"] {
        let mut copy = value.clone();
        *copy.pointer_mut(field).expect("a field of the preset") = json!(u64::MAX);
        assert_eq!(look_at(&copy.to_string(), &preset, &objectives), Some(true), "{field}");
    }
}

#[test]
fn no_damaged_configuration_makes_a_panic_or_takes_long() {
    let (presets, objectives, extremes) = (presets::all(), objectives(), extremes());
    let presets: Vec<_> = presets.into_iter().map(|preset| (whole(&preset.config), preset.config)).collect();
    let mut dice = Dice(2);
    let (mut read, mut refused) = (0, 0);
    for n in 0..count() {
        let ((value, fields), preset) = &presets[n % presets.len()];
        let text = if dice.roll(2) == 0 {
            spoilt(&value.to_string(), &mut dice)
        } else {
            let mut copy = value.clone();
            for _ in 0..1 + dice.roll(3) {
                // What stood there may be gone with what was around it.
                if let Some(place) = copy.pointer_mut(&fields[dice.roll(fields.len())]) {
                    *place = extremes[dice.roll(extremes.len())].clone();
                }
            }
            copy.to_string()
        };
        if let Some(problem) = look_at(&text, preset, &objectives) {
            read += 1;
            refused += usize::from(problem);
        }
    }
    assert!(read >= count() / 50 && refused >= count() / 100, "most are no configurations, but not all: {read}, {refused}");
}
