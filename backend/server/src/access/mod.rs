//! Whether a request comes from somebody who is known, and may do what it asks. The guard has made sure by then that it comes from no
//! strange page; this makes sure that it comes from no strange person.
//!
//! A browser shows a token once, in the address that the server printed, and is given a cookie for it that scripts cannot read and
//! other sites cannot send. Programs send `Authorization: Bearer TOKEN`.

pub mod keys;

use crate::error::Error;
use crate::listen::Held;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use keys::{Key, Keys, Role};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::watch;

/// Changes that compute for a moment and leave nothing behind: whoever may look may ask.
const HARMLESS: [&str; 4] = ["/api/v1/task", "/api/v1/validate", "/api/v1/config/toml", "/api/v1/config/read"];
/// Name of the token in an address.
const PARAMETER: &str = "token";

/// Who may use the server.
pub struct Access {
    /// None: everybody who reaches it.
    keys: Option<RwLock<Keys>>,
    /// How often they were replaced. Whoever was let in for longer than a moment looks again then.
    replaced: watch::Sender<u64>,
    /// Browsers send a cookie to all ports of a host, so that servers need names of their own.
    cookie: String,
    /// Whether browsers come by TLS.
    secure: bool,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub name: String,
    pub role: Role,
}

/// What somebody was let in with. A socket or a stream lasts, and the token may be taken away meanwhile.
#[derive(Clone)]
pub struct Pass {
    access: Arc<Access>,
    /// None where nobody is asked.
    key: Option<Key>,
    /// The least that somebody has to be for what lasts.
    needed: Role,
    replaced: watch::Receiver<u64>,
    /// How often the keys had been replaced when they were last looked at.
    looked: u64,
    over: bool,
}

impl Pass {
    /// Whether it lets nobody in any more: its token is not known now, or its role does not reach.
    pub fn is_over(&mut self) -> bool {
        let replaced = *self.replaced.borrow_and_update();
        if replaced != self.looked {
            self.looked = replaced;
            self.over = self.over || !self.access.admits(self.key.as_ref(), self.needed);
        }
        self.over
    }

    /// Waits until it lets nobody in any more.
    pub async fn over(&mut self) {
        while !self.is_over() {
            if self.replaced.changed().await.is_err() {
                // Nobody is there to replace anything.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Access {
    /// For whoever has one of `keys`, or, with none, for everybody; `port` is the server's own.
    pub fn new(keys: Option<Keys>, port: u16, secure: bool) -> Self {
        let cookie = format!("moslim-lab-{port}");
        Self { keys: keys.map(RwLock::new), replaced: watch::Sender::default(), cookie, secure }
    }

    /// Knows these tokens from now on, and no others.
    pub fn replace(&self, keys: Keys) {
        if let Some(known) = &self.keys {
            *known.write().unwrap_or_else(PoisonError::into_inner) = keys;
            // Not before: who is told looks at once.
            self.replaced.send_modify(|times| *times += 1);
        }
    }

    /// What is looked for among the keys, if there are any.
    fn look<T>(&self, look: impl FnOnce(&Keys) -> Option<T>) -> Option<T> {
        look(&self.keys.as_ref()?.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a token that was known by `key` lets somebody in who has to be `needed`.
    fn admits(&self, key: Option<&Key>, needed: Role) -> bool {
        let role = |key| self.look(|keys| keys.role(key));
        key.is_none_or(|key| role(key).is_some_and(|role| role >= needed))
    }

    /// Who has sent these headers, if it is somebody, and by which key it is known.
    fn person(&self, headers: &HeaderMap) -> Option<(Person, Option<Key>)> {
        if self.keys.is_none() {
            return Some((Person { name: "anybody".into(), role: Role::Admin }, None));
        }
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_string);
        let bearer = headers.get(header::AUTHORIZATION).and_then(text);
        let token = bearer.as_deref().and_then(|v| v.strip_prefix("Bearer "));
        let cookies: Vec<String> = headers.get_all(header::COOKIE).iter().filter_map(text).collect();
        let own = |pair: &str| pair.trim().split_once('=').filter(|(name, _)| *name == self.cookie).map(|(_, v)| v.to_string());
        let cookie = cookies.iter().flat_map(|line| line.split(';')).find_map(own);
        let key = match (token, &cookie) {
            (Some(token), _) => self.look(|keys| keys.of_token(token).cloned()),
            (None, Some(cookie)) => self.look(|keys| keys.of_cookie(cookie).cloned()),
            (None, None) => None,
        }?;
        Some((Person { name: key.name.clone(), role: key.role }, Some(key)))
    }

    /// What a browser is answered that has come with a token: a cookie, and the same address without the token.
    fn enter(&self, uri: &Uri) -> Option<Response> {
        let pairs = || uri.query().unwrap_or_default().split('&');
        let token = pairs().find_map(|pair| pair.strip_prefix(PARAMETER)?.strip_prefix('='))?;
        if self.keys.is_none() || is_api(uri) {
            return None;
        }
        let own = self.look(|keys| keys.of_token(token).map(|key| keys.cookie(key)))?;
        let rest: Vec<&str> = pairs().filter(|pair| !pair.starts_with("token=") && !pair.is_empty()).collect();
        // A path of two slashes would be another host.
        let path = format!("/{}", uri.path().trim_start_matches('/'));
        let place = if rest.is_empty() { path } else { format!("{path}?{}", rest.join("&")) };
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000{secure}", self.cookie, own);
        Some((StatusCode::SEE_OTHER, [(header::LOCATION, place), (header::SET_COOKIE, cookie)]).into_response())
    }
}

fn is_api(uri: &Uri) -> bool {
    uri.path() == "/api" || uri.path().starts_with("/api/")
}

/// The least that somebody has to be for a request.
pub fn needed(method: &Method, path: &str) -> Role {
    match *method {
        Method::GET | Method::HEAD => Role::View,
        // HTTP/2 opens a websocket by it, over which nothing is changed.
        Method::CONNECT if path == "/api/v1/ws" => Role::View,
        Method::POST if HARMLESS.contains(&path) => Role::View,
        Method::POST | Method::PUT | Method::PATCH => Role::Run,
        _ => Role::Admin,
    }
}

/// Middleware: nobody passes who is not known, or may not do this.
///
/// # Errors
/// 401 without a token that is known, 403 where its role does not reach.
pub async fn admit(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Result<Response, Error> {
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    if reads && let Some(response) = access.enter(request.uri()) {
        prove(&request);
        return Ok(response);
    }
    // Before somebody is looked for: a token that is taken away from here on is noticed.
    let mut replaced = access.replaced.subscribe();
    let looked = *replaced.borrow_and_update();
    let Some((person, key)) = access.person(request.headers()) else {
        if reads && !is_api(request.uri()) {
            return Ok(door());
        }
        let message = "who is asking? Send \"Authorization: Bearer TOKEN\", or open the address that the server printed";
        return Err(Error::Unauthorized(message.into()));
    };
    prove(&request);
    let needed = needed(request.method(), request.uri().path());
    if person.role < needed {
        let (name, own, least) = (&person.name, person.role.id(), needed.id());
        return Err(Error::Forbidden(format!("{name} has the role {own} here; this needs the role {least}")));
    }
    request.extensions_mut().insert(person);
    request.extensions_mut().insert(Pass { access, key, needed, replaced, looked, over: false });
    Ok(next.run(request).await)
}

/// The connection of a request is that of somebody who is known.
fn prove(request: &Request) {
    if let Some(held) = request.extensions().get::<Held>() {
        held.prove();
    }
}

/// What a browser sees that has no cookie.
fn door() -> Response {
    let page = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>MOSLIM Lab</title>\
        <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"></head><body><main id=\"door\"><h1>MOSLIM Lab</h1>\
        <p>This lab asks who you are. Open the address that it printed when it was started: it ends with <code>?token=</code> and a \
        token. Or give the token here; it is also in the file <code>token</code> of the data folder.</p>\
        <form method=\"get\" action=\"/\"><label>Token <input name=\"token\" type=\"password\" autocomplete=\"off\" \
        required></label> <button>Enter</button></form></main></body></html>";
    // The one page with a form, and the one that needs nothing else.
    let policy = "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    (StatusCode::UNAUTHORIZED, [(header::CONTENT_SECURITY_POLICY, policy)], Html(page)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn access() -> (Access, String, String) {
        let path = std::env::temp_dir().join(format!("moslim-access-{}-{:?}", std::process::id(), std::thread::current().id()));
        let (ada, lines) = keys::invite("Ada", Role::Run).unwrap();
        std::fs::write(&path, lines).unwrap();
        let group = keys::group(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let keys = Keys::new("own", group.clone(), "a secret");
        let cookie = keys.cookie(&group[0]);
        (Access::new(Some(keys), 7878, true), ada, cookie)
    }

    /// The server's own token, and no other.
    fn nobody() -> Keys {
        Keys::new("own", Vec::new(), "a secret")
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn people_are_known_by_their_token_or_their_browser() {
        let (access, token, cookie) = access();
        let own = format!("moslim-lab-7878={cookie}");
        for (pairs, known) in [
            (vec![("authorization", format!("Bearer {token}"))], true),
            (vec![("cookie", own.clone())], true),
            (vec![("cookie", format!("a=b; {own}; c=d"))], true),
            (vec![("cookie", "a=b".into()), ("cookie", own.clone())], true),
            // A token that is wrong is not made good by a cookie.
            (vec![("authorization", "Bearer x".into()), ("cookie", own.clone())], false),
            (vec![("authorization", format!("Basic {token}"))], false),
            (vec![("cookie", format!("moslim-lab-7879={cookie}"))], false),
            (vec![("cookie", format!("moslim-lab-7878={token}"))], false),
            (vec![("cookie", "moslim-lab-7878=".into())], false),
            (vec![], false),
        ] {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(access.person(&headers(&pairs)).map(|(p, _)| p.role), known.then_some(Role::Run), "{pairs:?}");
        }
        access.replace(nobody());
        assert!(access.person(&headers(&[("cookie", &own)])).is_none(), "what is no longer in the file opens nothing");
    }

    #[tokio::test]
    async fn a_pass_is_over_when_its_token_is_taken_away_or_reaches_no_longer() {
        let (access, token, _) = access();
        let access = Arc::new(access);
        let group = |role: &str, token: &str| {
            let path = std::env::temp_dir().join(format!("moslim-pass-{}", std::process::id()));
            let lines = format!("[[token]]\nname = \"Ada\"\nrole = \"{role}\"\nsha256 = \"{:x}\"", Sha256::digest(token));
            std::fs::write(&path, lines).unwrap();
            let keys = keys::group(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            Keys::new("own", keys, "a secret")
        };
        let (_, key) = access.person(&headers(&[("authorization", &format!("Bearer {token}"))])).unwrap();
        let pass = |needed| {
            let replaced = access.replaced.subscribe();
            let looked = *replaced.borrow();
            Pass { access: access.clone(), key: key.clone(), needed, replaced, looked, over: false }
        };
        let [mut looks, mut runs] = [Role::View, Role::Run].map(pass);
        assert!(!looks.is_over() && !runs.is_over());
        access.replace(group("admin", &token));
        assert!(!looks.is_over() && !runs.is_over(), "more is enough");
        access.replace(group("view", &token));
        assert!(!looks.is_over() && runs.is_over(), "less is enough for less");
        let waits = tokio::spawn(async move { looks.over().await });
        access.replace(group("view", "another token of the same name"));
        tokio::time::timeout(std::time::Duration::from_secs(5), waits).await.expect("it is told").unwrap();
        // Where nobody is asked for a token, nobody's is taken away.
        let open = Arc::new(Access::new(None, 7878, false));
        open.replace(nobody());
        let (_, key) = open.person(&headers(&[])).unwrap();
        let replaced = open.replaced.subscribe();
        let mut anybody = Pass { access: open, key, needed: Role::Admin, replaced, looked: 1, over: false };
        assert!(!anybody.is_over());
    }

    #[test]
    fn a_token_in_an_address_becomes_a_cookie_and_is_gone() {
        let (access, token, cookie) = access();
        let enter = |uri: &str| access.enter(&uri.parse().unwrap()).map(|r| r.headers().clone());
        for (from, to) in [
            ("/?token=T", "/"),
            ("/runs/a?token=T&tab=2", "/runs/a?tab=2"),
            ("/?a=b&token=T", "/?a=b"),
            ("//evil.example/?token=T", "/evil.example/"),
        ] {
            let headers = enter(&from.replace('T', &token)).unwrap_or_else(|| panic!("{from}"));
            assert_eq!(headers["location"], to);
            let set = headers["set-cookie"].to_str().unwrap();
            assert!(set.starts_with(&format!("moslim-lab-7878={cookie}; ")) && !set.contains(&token), "{set}");
            assert!(["HttpOnly", "SameSite=Strict", "Path=/", "Secure"].iter().all(|word| set.contains(word)), "{set}");
        }
        for uri in ["/?token=wrong", "/", "/?token="] {
            assert!(enter(uri).is_none(), "{uri}");
        }
        assert!(enter(&format!("/api/v1/runs?token={token}")).is_none(), "the API takes no token in an address");
    }

    #[test]
    fn roles_reach_as_far_as_they_say() {
        for (method, path, role) in [
            (Method::GET, "/api/v1/runs", Role::View),
            (Method::POST, "/api/v1/validate", Role::View),
            (Method::POST, "/api/v1/runs", Role::Run),
            (Method::POST, "/api/v1/validate/more", Role::Run),
            (Method::PUT, "/api/v1/runs/a/about", Role::Run),
            (Method::DELETE, "/api/v1/runs/a", Role::Admin),
            (Method::CONNECT, "/api/v1/ws", Role::View),
            (Method::CONNECT, "/api/v1/runs", Role::Admin),
            (Method::TRACE, "/", Role::Admin),
        ] {
            assert_eq!(needed(&method, path), role, "{method} {path}");
        }
        assert!(Role::View < Role::Run && Role::Run < Role::Admin);
    }
}
