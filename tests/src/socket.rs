//! Websockets to a laboratory.

use crate::lab::Lab;
use crate::process::LIMIT;
use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// A websocket that stands.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Lab {
    /// Opens a websocket with the given origin, or none.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn socket(&self, origin: Option<&str>) -> Result<Socket, Error> {
        self.socket_of(self.token(), origin).await
    }

    /// The same, by who has another token than the server's own.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn socket_of(&self, token: &str, origin: Option<&str>) -> Result<Socket, Error> {
        let mut request = format!("ws://127.0.0.1:{}/api/v1/ws", self.port()).into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse()?);
        }
        // The library clears all of this buffer whenever it looks for more, which many clients at once would measure.
        let config = WebSocketConfig::default().read_buffer_size(8 << 10);
        connect_async_with_config(request, Some(config), false).await.map(|(socket, _)| socket)
    }

    /// Opens a websocket and asks for the events of a run after number `after`.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn follow(&self, run: &str, after: u64) -> Result<Socket> {
        let mut socket = self.socket(Some(&self.origin())).await?;
        socket.send(Message::text(json!({ "run": run, "after": after }).to_string())).await?;
        Ok(socket)
    }
}

/// The next frame, as text.
///
/// # Errors
/// When none comes, or the server closes the socket.
pub async fn heard<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Result<String> {
    loop {
        let message = timeout(LIMIT, socket.next()).await.context("the server says nothing")?;
        match message.context("the socket is closed")?? {
            Message::Text(text) => return Ok(text.as_str().to_string()),
            Message::Close(reason) => bail!("the server closed the socket: {reason:?}"),
            _ => {}
        }
    }
}
