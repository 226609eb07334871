//! Conversations, and the chat templates that models bring for them.

#[cfg(not(target_family = "wasm"))]
mod jinja;
/// A tab has no off-the-shelf models, and what reads their templates would be a twentieth of what people have to fetch.
#[cfg(target_family = "wasm")]
mod jinja {
    use super::Message;
    use anyhow::{Result, bail};
    use std::convert::Infallible;

    pub struct ChatTemplate(Infallible);

    impl ChatTemplate {
        pub fn new(_: &str, _: Option<&str>, _: Option<&str>) -> Result<Self> {
            bail!("chat templates need the lab with a server");
        }

        pub fn render(&self, _: &[Message], _: bool) -> Result<String> {
            match self.0 {}
        }
    }
}

pub use jinja::ChatTemplate;
use serde::{Deserialize, Serialize};

/// Something that was said, and by whom: `system`, `user` or `assistant`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub role: String,
    pub content: String,
}

impl Message {
    /// What `role` said.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}
