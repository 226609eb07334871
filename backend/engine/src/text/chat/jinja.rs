//! Chat templates as models bring them: Jinja that turns messages into the text that a model was taught to continue.

use super::Message;
use anyhow::{Context, Result, anyhow};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use web_time::{SystemTime, UNIX_EPOCH};

/// Steps that a template may take: a hundred times what the longest ones need for a conversation.
const FUEL: u64 = 1_000_000;
/// Longest text that a template may make, bytes.
const LONGEST: usize = 4 << 20;
/// The name under which the one template is known.
const NAME: &str = "chat_template";

/// A chat template that has been read.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// What a template's own `raise_exception` says.
fn raise(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Today, as `strftime` has it.
fn today(format: &str) -> Result<String, Error> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let invalid = |e: jiff::Error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}"));
    let now = jiff::Timestamp::from_second(seconds).map_err(invalid)?;
    jiff::fmt::strtime::format(format, now).map_err(invalid)
}

impl ChatTemplate {
    /// Reads a template. `bos`, `eos`: texts of the tokens that begin a sequence and end an answer.
    ///
    /// # Errors
    /// When it is no Jinja; the message has the line.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise);
        environment.add_function("strftime_now", |format: String| today(&format));
        environment.add_template_owned(NAME, source.to_string()).map_err(described).context("the chat template")?;
        Ok(Self { environment, bos: bos.unwrap_or_default().into(), eos: eos.unwrap_or_default().into() })
    }

    /// The text of a conversation; with `answered` set to false it ends where the assistant's answer begins.
    ///
    /// # Errors
    /// When the template refuses the messages, takes too many steps, or makes too long a text.
    pub fn render(&self, messages: &[Message], answered: bool) -> Result<String> {
        let template = self.environment.get_template(NAME).map_err(described).context("the chat template")?;
        let values = context! {
            messages => messages,
            add_generation_prompt => !answered,
            bos_token => self.bos,
            eos_token => self.eos,
        };
        let mut out = Limited { text: Vec::new() };
        template.render_captured_to(values, &mut out).map_err(described).context("the chat template")?;
        String::from_utf8(out.text).context("the chat template")
    }
}

/// The error with its line and the reason behind it.
fn described(error: Error) -> anyhow::Error {
    let at = error.line().map_or(String::new(), |line| format!("line {line}: "));
    match std::error::Error::source(&error) {
        Some(source) => anyhow!("{at}{error}: {source}"),
        None => anyhow!("{at}{error}"),
    }
}

/// A text that does not grow beyond [`LONGEST`].
struct Limited {
    text: Vec<u8>,
}

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.text.len() + bytes.len() > LONGEST {
            return Err(std::io::Error::other(format!("it makes a text of more than {LONGEST} bytes")));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
        {{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}\
        {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
        {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn rendered(source: &str, messages: &[Message]) -> Result<String> {
        ChatTemplate::new(source, Some("<s>"), None)?.render(messages, false)
    }

    #[test]
    fn a_conversation_becomes_text() {
        let question = Message::new("user", "How & <why>?");
        let text = rendered(CHATML, std::slice::from_ref(&question)).unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHow & <why>?<|im_end|>\n<|im_start|>assistant\n"
        );
        let answered = [Message::new("system", "Short."), question, Message::new("assistant", "So.")];
        let whole = ChatTemplate::new(CHATML, None, None).unwrap().render(&answered, true).unwrap();
        assert!(whole.starts_with("<|im_start|>system\nShort.") && whole.ends_with("assistant\nSo.<|im_end|>\n"), "{whole}");
    }

    #[test]
    fn what_templates_of_the_field_use_is_there() {
        let source = "{{- bos_token }}\n{%- set text = messages[0].content.strip() | upper %}\n    {%- if 'x' in text.lower().split(',') %}\n\
            {{ text.replace(',', ';') }}\n    {%- endif %}\n{%- if messages[0].content.startswith(' a') %}{{ strftime_now('%Y') | length }}{% endif %}";
        assert_eq!(rendered(source, &[Message::new("user", " a,x ")]).unwrap(), "<s>A;X4");
    }

    #[test]
    fn hostile_templates_end() {
        let one = [Message::new("user", "a")];
        for (source, said) in [
            ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "fuel"),
            ("{% set x = 'aaaaaaaaaaaaaaaa' * 100000000 %}{{ x }}", ""),
            ("{% for i in range(9000) %}{{ messages[0].content * 1000 }}{% endfor %}", ""),
            ("{{ raise_exception('no roles but two') }}", "no roles but two"),
            ("{% include 'other' %}", "other"),
            ("{% if %}", "line 1"),
        ] {
            let error = format!("{:#}", rendered(source, &one).unwrap_err());
            assert!(error.contains("chat template") && error.contains(said), "{source}: {error}");
        }
    }

    #[test]
    fn no_template_makes_it_fall() {
        use rand::seq::IndexedRandom;
        use rand::{Rng, SeedableRng};
        let pieces = [
            "{%",
            "%}",
            "{{",
            "}}",
            "-",
            " for m in messages ",
            " if ",
            " else ",
            " endif ",
            " endfor ",
            "m",
            ".",
            "content",
            "[",
            "]",
            "0",
            "'a'",
            "+",
            "*",
            "99999999",
            "|",
            "trim",
            "(",
            ")",
            " set x = ",
            " in ",
            "range",
            " not ",
            " loop.first ",
            "\n",
            "text",
            "{#",
            "#}",
            " macro f() ",
            " endmacro ",
            "f()",
            ".strip()",
            ".split('a')",
            " tojson ",
            "~",
            "==",
            "x",
        ];
        let count = std::env::var("MOSLIM_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let one = [Message::new("user", "a")];
        let mut rendered = 0;
        for _ in 0..count {
            let n = rng.random_range(1..24);
            let source: String = (0..n).map(|_| *pieces.choose(&mut rng).unwrap()).collect();
            rendered += usize::from(self::rendered(&source, &one).is_ok());
        }
        assert!(rendered > 10, "{rendered}");
    }
}
