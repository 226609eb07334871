//! JSON for the page: one reader and one writer, whatever the type.
//!
//! Derived code is compiled anew for every reader that it is used with, and serde_json's own readers make it large: each
//! struct is read both as a map and as a list, with an error text for every way in which it can be wrong. Here text is
//! read once, into a [`Value`]; a struct is then read from that as the list of its fields, an enum by the position of
//! its variant. The types, and what they look like in JSON, stay those of `moslim-shared`.

use serde::de::value::U64Deserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::ser::{self, Impossible, Serialize, SerializeSeq, SerializeStruct, SerializeTuple, Serializer};
use serde_json::{Map, Value};
use std::fmt::{self, Display, Write};

/// Why a value is not of the type that was wanted: the innermost field that is missing or of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable(&'static str);

/// The error before it is known where it happened.
const WRONG: Unreadable = Unreadable("");

impl Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "value" } else { self.0 })
    }
}

impl std::error::Error for Unreadable {}

// The texts that serde could make of these are not shown, so they are not made.
impl de::Error for Unreadable {
    fn custom<T: Display>(_: T) -> Self {
        WRONG
    }
    fn invalid_type(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        WRONG
    }
    fn invalid_value(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        WRONG
    }
    fn invalid_length(_: usize, _: &dyn Expected) -> Self {
        WRONG
    }
    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        WRONG
    }
    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        WRONG
    }
    fn missing_field(_: &'static str) -> Self {
        WRONG
    }
    fn duplicate_field(_: &'static str) -> Self {
        WRONG
    }
}

impl ser::Error for Unreadable {
    fn custom<T: Display>(_: T) -> Self {
        WRONG
    }
}

/// Reads text.
#[inline(never)]
pub fn parse(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// Reads a value of type `T` from text.
pub fn from_text<T: DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    from_value(&parse(text).ok_or(WRONG)?)
}

/// Reads a value of type `T`.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Unreadable> {
    de::Deserialize::deserialize(Node(value))
}

/// Writes compact text; `null` for what JSON has no form for.
pub fn to_text<T: Serialize + ?Sized>(value: &T) -> String {
    let mut text = String::new();
    match value.serialize(Writer(&mut text)) {
        Ok(()) => text,
        Err(_) => "null".into(),
    }
}

/// Converts to a [`Value`].
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Value {
    parse(&to_text(value)).unwrap_or(Value::Null)
}

/// Compact text with line breaks and two spaces per level, as serde_json lays it out.
pub fn pretty(compact: &str) -> String {
    let mut out = String::new();
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    let mut previous = ' ';
    for c in compact.chars() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            out.push(c);
        } else {
            let opened = matches!(previous, '{' | '[');
            let closes = matches!(c, '}' | ']');
            if closes {
                depth -= 1;
            }
            if previous == ',' || opened != closes {
                out.push('\n');
                for _ in 0..depth {
                    out.push_str("  ");
                }
            }
            out.push(c);
            match c {
                '{' | '[' => depth += 1,
                ':' => out.push(' '),
                '"' => quoted = true,
                _ => {}
            }
        }
        previous = c;
    }
    out
}

/// A place in a value that is being read.
struct Node<'a>(&'a Value);

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Unreadable;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unreadable> {
        Err(WRONG)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_bool(self.0.as_bool().ok_or(WRONG)?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_u64(self.0.as_u64().ok_or(WRONG)?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_f64(self.0.as_f64().ok_or(WRONG)?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_str(self.0.as_str().ok_or(WRONG)?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unreadable> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unreadable> {
        let list = self.0.as_array().ok_or(WRONG)?;
        visitor.visit_seq(Items { list: list.iter(), map: None, names: Default::default(), at: "" })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Unreadable> {
        if self.0.as_array().is_some_and(|list| list.len() == length) { self.deserialize_seq(visitor) } else { Err(WRONG) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        let map = self.0.as_object().ok_or(WRONG)?;
        visitor.visit_seq(Items { list: Default::default(), map: Some(map), names: fields.iter(), at: "" })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unreadable> {
        visitor.visit_enum(variant(self.0, variants).ok_or(WRONG)?)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u128 f32 char bytes byte_buf unit unit_struct tuple_struct map identifier ignored_any
    }
}

/// The elements of a list, or the fields of a struct in their order.
struct Items<'a> {
    list: std::slice::Iter<'a, Value>,
    map: Option<&'a Map<String, Value>>,
    names: std::slice::Iter<'static, &'static str>,
    at: &'static str,
}

impl<'a> Items<'a> {
    /// The next place; none at the end, and for a field that is absent, which then is what its type says.
    #[inline(never)]
    fn advance(&mut self) -> Option<&'a Value> {
        match self.map {
            Some(map) => {
                self.at = self.names.next()?;
                map.get(self.at)
            }
            None => self.list.next(),
        }
    }
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Unreadable;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unreadable> {
        match self.advance() {
            Some(value) => match seed.deserialize(Node(value)) {
                Ok(read) => Ok(Some(read)),
                Err(error) => Err(if error == WRONG { Unreadable(self.at) } else { error }),
            },
            None => Ok(None),
        }
    }
}

/// A variant by its position, and what it holds.
struct Variant<'a> {
    position: u64,
    content: Option<&'a Value>,
}

/// Finds the variant that a value names: `"name"`, or `{"name": content}`.
#[inline(never)]
fn variant<'a>(value: &'a Value, variants: &[&str]) -> Option<Variant<'a>> {
    let (name, content) = match value {
        Value::String(name) => (name, None),
        Value::Object(map) if map.len() == 1 => map.iter().next().map(|(name, content)| (name, Some(content)))?,
        _ => return None,
    };
    let position = variants.iter().position(|v| v == name)? as u64;
    Some(Variant { position, content })
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Unreadable;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Unreadable> {
        let position: U64Deserializer<Unreadable> = self.position.into_deserializer();
        Ok((seed.deserialize(position)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Unreadable;

    fn unit_variant(self) -> Result<(), Unreadable> {
        if self.content.is_none() { Ok(()) } else { Err(WRONG) }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Unreadable> {
        seed.deserialize(Node(self.content.ok_or(WRONG)?))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Unreadable> {
        Node(self.content.ok_or(WRONG)?).deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Unreadable> {
        Node(self.content.ok_or(WRONG)?).deserialize_struct("", fields, visitor)
    }
}

/// Writes compact text. What no type of this page needs (maps, variants that hold something) has no form here.
struct Writer<'a>(&'a mut String);

type Written = Result<(), Unreadable>;
type Never = Impossible<(), Unreadable>;

#[inline(never)]
fn write_number(text: &mut String, value: fmt::Arguments<'_>) -> Written {
    text.write_fmt(value).map_err(|_| WRONG)
}

#[inline(never)]
fn write_text(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(text, "\\u{:04x}", c as u32);
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Unreadable;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Never;

    fn serialize_bool(self, value: bool) -> Written {
        self.0.push_str(if value { "true" } else { "false" });
        Ok(())
    }
    fn serialize_i8(self, value: i8) -> Written {
        self.serialize_i64(value.into())
    }
    fn serialize_i16(self, value: i16) -> Written {
        self.serialize_i64(value.into())
    }
    fn serialize_i32(self, value: i32) -> Written {
        self.serialize_i64(value.into())
    }
    fn serialize_i64(self, value: i64) -> Written {
        write_number(self.0, format_args!("{value}"))
    }
    fn serialize_u8(self, value: u8) -> Written {
        self.serialize_u64(value.into())
    }
    fn serialize_u16(self, value: u16) -> Written {
        self.serialize_u64(value.into())
    }
    fn serialize_u32(self, value: u32) -> Written {
        self.serialize_u64(value.into())
    }
    fn serialize_u64(self, value: u64) -> Written {
        write_number(self.0, format_args!("{value}"))
    }
    fn serialize_f32(self, value: f32) -> Written {
        self.serialize_f64(value.into())
    }
    fn serialize_f64(self, value: f64) -> Written {
        // This form always has a point or an exponent, so it stays a float.
        if value.is_finite() { write_number(self.0, format_args!("{value:?}")) } else { self.serialize_unit() }
    }
    fn serialize_char(self, value: char) -> Written {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, value: &str) -> Written {
        write_text(self.0, value);
        Ok(())
    }
    fn serialize_bytes(self, _: &[u8]) -> Written {
        Err(WRONG)
    }
    fn serialize_none(self) -> Written {
        self.serialize_unit()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Written {
        self.0.push_str("null");
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Written {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Written {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(self, _: &'static str, _: u32, _: &'static str, _: &T) -> Written {
        Err(WRONG)
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'a>, Unreadable> {
        Ok(Parts::open(self.0, '[', ']'))
    }
    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, Unreadable> {
        Ok(Parts::open(self.0, '[', ']'))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Never, Unreadable> {
        Err(WRONG)
    }
    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Never, Unreadable> {
        Err(WRONG)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Never, Unreadable> {
        Err(WRONG)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Unreadable> {
        Ok(Parts::open(self.0, '{', '}'))
    }
    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Never, Unreadable> {
        Err(WRONG)
    }
}

/// A list or an object that is being written.
struct Parts<'a> {
    text: &'a mut String,
    close: char,
    first: bool,
}

impl<'a> Parts<'a> {
    fn open(text: &'a mut String, open: char, close: char) -> Self {
        text.push(open);
        Self { text, close, first: true }
    }

    /// Goes on to the next part; fields have a name.
    #[inline(never)]
    fn next(&mut self, name: &str) {
        if !self.first {
            self.text.push(',');
        }
        self.first = false;
        if self.close == '}' {
            write_text(self.text, name);
            self.text.push(':');
        }
    }

    fn close(self) -> Written {
        self.text.push(self.close);
        Ok(())
    }
}

impl SerializeSeq for Parts<'_> {
    type Ok = ();
    type Error = Unreadable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.next("");
        value.serialize(Writer(self.text))
    }

    fn end(self) -> Written {
        self.close()
    }
}

impl SerializeTuple for Parts<'_> {
    type Ok = ();
    type Error = Unreadable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Written {
        self.close()
    }
}

impl SerializeStruct for Parts<'_> {
    type Ok = ();
    type Error = Unreadable;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
        self.next(name);
        value.serialize(Writer(self.text))
    }

    fn end(self) -> Written {
        self.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::RunConfig;
    use moslim_shared::event::{
        ApiError, DeviceReport, Event, EventBody, Frame, Hello, ModelReport, Outcome, PolicyStep, RunInfo, RunStatus, Sample,
        Stage,
    };
    use moslim_shared::mapping::RewardStatistics;
    use moslim_shared::objective::Objective;
    use moslim_shared::preference::Preference;
    use moslim_shared::summary::{
        ControlHead, ControlReport, FrontPoint, FrontReport, KlPoint, RewardHeadReport, RewardModelReport, RunSummary,
    };

    fn config() -> RunConfig {
        let mut config = RunConfig { name: "a \"b\" \\ c\n\u{1} – [{,:}]".into(), ..Default::default() };
        config.policy.kl_target = Some(2.0);
        config.policy.learning_rate = 3e-7;
        config.method.weights = vec![vec![0.5, 0.5]];
        config.from = Some("r".into());
        config
    }

    fn bodies() -> Vec<EventBody> {
        let report = RewardModelReport {
            heads: vec![RewardHeadReport {
                objective: "o".into(),
                confusion: vec![vec![1, 2], vec![3, 4]],
                ..Default::default()
            }],
            gradient_cosines: vec![vec![1.0, -0.5]],
        };
        let control = ControlReport {
            heads: vec![ControlHead { objective: "o".into(), matrix: vec![vec![0.5, 0.5]], ..Default::default() }],
            win_rate_interval: [0.25, 0.75],
            ..Default::default()
        };
        let sample = Sample {
            question: "q".into(),
            preference: Preference(vec![Some(1), None]),
            answer: "a".into(),
            distributions: vec![vec![0.25, 0.75]],
            contributions: vec![-1.0],
            penalty: -1.0,
            score: 1.0,
            kl: 0.5,
            reward: 0.25,
            advantage: -0.125,
        };
        let matrix = vec![vec![vec![1.0, 0.0]]];
        let step = PolicyStep { step: 3, matrix, value_loss: Some(0.5), tokens: 1 << 40, ..Default::default() };
        let point = KlPoint { step: 3, kl: 0.5, ..Default::default() };
        let front = FrontReport { points: vec![FrontPoint::default()], interval: [0.25, 0.5], ..Default::default() };
        let device = DeviceReport { device: "cpu".into(), name: "n".into(), reason: "r".into() };
        let objectives = vec![Objective::new("o", "O", "d", &["low", "high"])];
        let model = ModelReport { policy_parameters: 1, reward_parameters: 2, vocabulary: 3, rows: [4, 5, 6] };
        let statistics = RewardStatistics { mean: vec![vec![0.5]], std: vec![vec![0.25]], ..Default::default() };
        vec![
            EventBody::Started { config: config(), device, objectives, resumed: true },
            EventBody::Model { model },
            EventBody::StageBegan { stage: Stage::RewardModel, from: 0, total: 5 },
            EventBody::Part { stage: Stage::Policy, index: 1, count: 2, name: "n".into() },
            EventBody::KlFrontier { point },
            EventBody::Front { report: front },
            EventBody::StageEnded { stage: Stage::Sft, seconds: 1.5, cached: false },
            EventBody::Loss { stage: Stage::Sft, step: 1, total: 2, loss: 3.0, rate: 1.0 },
            EventBody::Validation { step: 1, qwk: vec![0.5] },
            EventBody::RewardModel { report },
            EventBody::Calibrated { temperatures: vec![1.25], statistics, hash: "h".into() },
            EventBody::Policy { total: 9, step },
            EventBody::Samples { step: 3, samples: vec![sample] },
            EventBody::Checkpoint { stage: Stage::Policy, step: 3 },
            EventBody::Evaluating { done: 1, total: 2 },
            EventBody::Control { policy: "sft".into(), judge: "gold".into(), report: control },
            EventBody::Summary { summary: RunSummary::default() },
            EventBody::Note { text: "n".into() },
            EventBody::Ended { outcome: Outcome::Interrupted, message: "m".into() },
        ]
    }

    fn frames() -> Vec<Frame> {
        let info = RunInfo {
            id: "r".into(),
            name: String::new(),
            preset: "smoke".into(),
            seed: 1,
            status: RunStatus::Finished,
            created: 1 << 41,
            last_seq: 2,
            message: String::new(),
            config: config(),
            summary: None,
        };
        let summarised = RunInfo { summary: Some(RunSummary::default()), ..info.clone() };
        let events = bodies().into_iter().zip(1..).map(|(body, seq)| Event { seq, time: 7, body }).collect();
        vec![
            Frame::Snapshot { info },
            Frame::Events { events },
            Frame::Info { info: summarised },
            Frame::Error { message: "e".into() },
        ]
    }

    #[test]
    fn everything_that_the_server_says_is_read_as_serde_json_reads_it() {
        for frame in frames() {
            let text = serde_json::to_string(&frame).unwrap();
            assert_eq!(from_text::<Frame>(&text), Ok(frame.clone()));
            assert_eq!(serde_json::from_str::<Frame>(&text).unwrap(), frame);
        }
        let error = from_text::<ApiError>(r#"{"error": "e"}"#).unwrap();
        assert_eq!((error.error.as_str(), error.problems.len()), ("e", 0));
    }

    #[test]
    fn what_is_missing_takes_its_default_or_is_an_error() {
        let config = from_text::<RunConfig>(r#"{"seed": 3, "policy": {"iterations": 7}, "unknown": 1}"#).unwrap();
        assert_eq!((config.seed, config.policy.iterations), (3, 7));
        assert_eq!(config.policy.prompts, RunConfig::default().policy.prompts);
        assert_eq!(from_text::<RunConfig>(r#"{"policy": {"iterations": -1}}"#), Err(Unreadable("iterations")));
        assert!(from_text::<Objective>(r#"{"id": "o"}"#).is_err());
        assert!(from_text::<Stage>("\"nothing\"").is_err());
        assert!(from_text::<Stage>("{").is_err());
    }

    #[test]
    fn what_is_written_is_what_serde_json_writes() {
        let config = config();
        let text = to_text(&config);
        assert_eq!(serde_json::from_str::<RunConfig>(&text).unwrap(), config);
        assert_eq!(to_value(&config), serde_json::to_value(&config).unwrap());
        assert_eq!(from_value::<RunConfig>(&to_value(&config)), Ok(config));
        let hello = Hello { run: "r".into(), after: 3 };
        assert_eq!(to_text(&hello), serde_json::to_string(&hello).unwrap());
        assert_eq!(to_text(&f64::NAN), "null");
    }

    #[test]
    fn the_layout_is_the_usual_one() {
        let value = to_value(&config());
        assert_eq!(pretty(&value.to_string()), serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(pretty("[]"), "[]");
        assert_eq!(pretty("7"), "7");
    }
}
