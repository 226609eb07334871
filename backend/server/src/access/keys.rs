//! The tokens that a server knows: its own, which lies in the data folder, and those of a group, which lie in a file that a person keeps.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// What somebody may do, each more than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything.
    View,
    /// Also start, stop and describe runs, and ask finished ones.
    Run,
    /// Everything.
    Admin,
}

impl Role {
    /// As files and messages have it.
    pub fn id(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Run => "run",
            Self::Admin => "admin",
        }
    }
}

/// A token that is known. The token itself is not kept, only what tells it from others.
#[derive(Debug, Clone)]
pub struct Key {
    /// Whose it is.
    pub name: String,
    pub role: Role,
    digest: [u8; 32],
}

/// The tokens that a server knows, and what it makes cookies with.
pub struct Keys {
    known: Vec<Key>,
    /// Of the secret that cookies are made with.
    cookies: [u8; 32],
}

impl Keys {
    /// The server's `own` token and those of a group; cookies are made with `secret`, which nobody else may know.
    pub fn new(own: &str, group: Vec<Key>, secret: &str) -> Self {
        let own = Key { name: "this server".into(), role: Role::Admin, digest: digest(own) };
        Self { known: [vec![own], group].concat(), cookies: digest(secret) }
    }

    /// Whose token this is.
    pub fn of_token(&self, token: &str) -> Option<&Key> {
        let digest = digest(token);
        self.known.iter().find(|key| same(&key.digest, &digest))
    }

    /// Whose browser was given this cookie.
    pub fn of_cookie(&self, cookie: &str) -> Option<&Key> {
        self.known.iter().find(|key| same(self.cookie(key).as_bytes(), cookie.as_bytes()))
    }

    /// What a browser keeps in place of the token: it opens this server alone, and the token cannot be had from it. Whoever knows the hash
    /// of a token, which stands in the group's file, cannot make its cookie without the secret. Both parts have one length, so that no
    /// cookie can be lengthened into another.
    pub fn cookie(&self, key: &Key) -> String {
        let mut hash = Sha256::new();
        hash.update(self.cookies);
        hash.update(key.digest);
        hex(&hash.finalize())
    }

    /// Which role a token has now that was known by `key`; `None` where it is known no more, also if its name is.
    pub fn role(&self, key: &Key) -> Option<Role> {
        self.known.iter().find(|known| known.digest == key.digest).map(|known| known.role)
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Compares without telling by its time how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |apart, (a, b)| apart | (a ^ b)) == 0
}

/// A new token: 128 random bits.
///
/// # Errors
/// When the system gives no random numbers.
pub fn fresh() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom_04::fill(&mut bytes).map_err(|e| anyhow::anyhow!("the system gives no random numbers: {e}"))?;
    Ok(hex(&bytes))
}

/// What a file holds that nobody else may read, or a new token in a new one: the server's own token, and what its cookies are made with, for
/// whoever may read its data folder. An empty file is what is left where its writing was cut off, and counts as none.
///
/// # Errors
/// When the file cannot be read or made, or holds something else.
pub fn kept(path: &Path) -> Result<String> {
    let name = path.display();
    let read = || match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_string()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(e).with_context(|| format!("reading {name}")),
    };
    let mut token = read()?;
    if token.is_empty() {
        make(path, &fresh()?, &fresh()?).with_context(|| format!("making {name}"))?;
        // Another process may have been faster, and its token is the one that stays.
        token = read()?;
    }
    ensure!(token.len() >= SHORTEST, "{name} holds no token of at least {SHORTEST} characters; remove it for a new one");
    Ok(token)
}

/// Makes a file with a token in it, whole or not at all, unless there is one with something in it. `unique` tells the file that is written
/// first from those of others.
fn make(path: &Path, token: &str, unique: &str) -> io::Result<()> {
    let nowhere = || io::Error::new(ErrorKind::InvalidInput, "the path names no file in a folder");
    let (folder, name) = path.parent().zip(path.file_name()).ok_or_else(nowhere)?;
    // As `moslim_engine::keep::files::maker` reads it: what a killed process leaves goes with the other leftovers.
    let unique = format!("{:x}{}", std::process::id(), unique.get(..8).unwrap_or_default());
    let temporary = folder.join(format!(".{}.{unique}.tmp", name.to_string_lossy()));
    let made = (|| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        if fs::read(path).is_ok_and(|text| text.trim_ascii().is_empty()) {
            fs::remove_file(path)?;
        }
        match fs::hard_link(&temporary, path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Ok(()) => {}
            // Not every file system has links.
            Err(_) if !path.exists() => fs::rename(&temporary, path)?,
            Err(e) => return Err(e),
        }
        // The folder's entry must reach the disk, too.
        #[cfg(unix)]
        fs::File::open(folder)?.sync_all()?;
        Ok(())
    })();
    let _ = fs::remove_file(&temporary);
    made
}

/// What cookies are made with, as [`kept`] has it. Where there is no room for it, it is another one with each start: browsers show their token
/// again then, and whoever has to make room can come in.
///
/// # Errors
/// Those of [`kept`], other than that the disk is full.
pub fn secret(path: &Path) -> Result<String> {
    or_in_memory(kept(path))
}

fn or_in_memory(kept: Result<String>) -> Result<String> {
    let full = |error: &anyhow::Error| {
        let kind = error.root_cause().downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    };
    match kept {
        Err(error) if full(&error) => {
            tracing::warn!("{error:#}; until there is room, browsers have to show their token again after each start");
            fresh()
        }
        kept => kept,
    }
}

/// Characters of the shortest token: whoever guesses has to be hopeless.
const SHORTEST: usize = 32;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default)]
    token: Vec<Named>,
}

/// A token as a group's file has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    role: Role,
    /// SHA-256 of the token, in hexadecimal digits: the file opens nothing to whoever reads it.
    sha256: String,
}

/// The tokens of a group's file.
///
/// # Errors
/// When it cannot be read; the message names the file and the place.
pub fn group(path: &Path) -> Result<Vec<Key>> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
    let group: Group = toml::from_str(&text).map_err(|e| anyhow::anyhow!("{name}: {e}"))?;
    let mut keys = Vec::new();
    for (at, Named { name: whose, role, sha256 }) in group.token.iter().enumerate() {
        let place = format!("{name}: token {}", at + 1);
        ensure!(!whose.is_empty() && whose.chars().count() <= 64, "{place}: a name has 1 to 64 characters");
        let digits: Option<Vec<u8>> = (sha256.is_ascii() && sha256.len() == 64)
            .then(|| (0..64).step_by(2).map(|i| u8::from_str_radix(&sha256[i..i + 2], 16).ok()).collect())
            .flatten();
        let digest = digits.and_then(|d| d.try_into().ok());
        let digest = digest.with_context(|| format!("{place} ({whose}): sha256 is 64 hexadecimal digits"))?;
        ensure!(!keys.iter().any(|k: &Key| k.name == *whose), "{place}: there are two named {whose}");
        keys.push(Key { name: whose.clone(), role: *role, digest });
    }
    Ok(keys)
}

/// A new token, and the lines of a group's file that make it known.
///
/// # Errors
/// When the system gives no random numbers.
pub fn invite(name: &str, role: Role) -> Result<(String, String)> {
    let token = fresh()?;
    let named = Named { name: name.into(), role, sha256: hex(&digest(&token)) };
    Ok((token, toml::to_string(&Group { token: vec![named] })?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_token_stays_and_is_for_its_owner_alone() {
        let folder = std::env::temp_dir().join(format!("moslim-token-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("token");
        let token = kept(&path).unwrap();
        let keys = Keys::new(&token, Vec::new(), "a secret");
        assert!(token.len() == 32 && keys.of_token(&token).is_some_and(|key| key.role == Role::Admin), "{token}");
        for other in ["", &token[1..], &token.to_uppercase().replace('A', "B")] {
            assert!(keys.of_token(other).is_none(), "{other}");
        }
        assert_eq!(kept(&path).unwrap(), token);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::write(&path, "short").unwrap();
        assert!(format!("{:#}", kept(&path).unwrap_err()).contains("32 characters"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_was_cut_off_is_made_anew_and_a_full_disk_keeps_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cookie-key");
        for left in ["", "\n"] {
            fs::write(&path, left).unwrap();
            let made = secret(&path).unwrap();
            assert!(made.len() == 32 && secret(&path).unwrap() == made, "{left:?}: {made}");
        }
        // Whoever was faster is listened to.
        let first = secret(&path).unwrap();
        make(&path, &fresh().unwrap(), &fresh().unwrap()).unwrap();
        assert_eq!(secret(&path).unwrap(), first);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["cookie-key"]);

        let failed = |kind: ErrorKind| or_in_memory(Err(io::Error::from(kind)).context("making cookie-key"));
        for full in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            assert_eq!(failed(full).unwrap().len(), 32);
        }
        assert!(failed(ErrorKind::PermissionDenied).is_err());
    }

    #[test]
    fn a_group_has_names_and_roles_and_its_file_opens_nothing() {
        let path = std::env::temp_dir().join(format!("moslim-tokens-{}.toml", std::process::id()));
        let (ada, lines) = invite("Ada", Role::Run).unwrap();
        let (bo, more) = invite("Bo", Role::View).unwrap();
        fs::write(&path, format!("{lines}\n{more}")).unwrap();
        let known = group(&path).unwrap();
        let keys = |secret: &str| Keys::new("own", known.clone(), secret);
        let here = keys("a secret");
        let who = |token: &str| here.of_token(token).map(|k| (k.name.as_str(), k.role));
        assert_eq!((who(&ada), who(&bo), who("")), (Some(("Ada", Role::Run)), Some(("Bo", Role::View)), None));
        assert!(!lines.contains(&ada));
        let [cookie, elsewhere] = ["a secret", "another"].map(|secret| keys(secret).cookie(&known[0]));
        let whose = |cookie: &str| here.of_cookie(cookie).map(|k| k.name.as_str());
        assert_eq!((whose(&cookie), whose(&here.cookie(&known[1]))), (Some("Ada"), Some("Bo")));
        for made in ["", &ada, &elsewhere, &hex(&known[0].digest), &hex(&Sha256::digest(known[0].digest))] {
            assert_eq!(whose(made), None, "{made}");
        }
        for (text, said) in [
            ("[[token]]\nname = \"A\"\nrole = \"king\"\nsha256 = \"\"", "king"),
            ("[[token]]\nname = \"A\"\nrole = \"run\"\nsha256 = \"é\"", "token 1 (A): sha256 is 64"),
            (&format!("{lines}\n{lines}"), "two named Ada"),
            ("token = 1", "invalid type"),
        ] {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", group(&path).unwrap_err());
            assert!(error.contains(said) && error.contains(".toml"), "{error}");
        }
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_token_is_known_by_itself_and_not_by_its_name() {
        let key = |role, token: &str| Key { name: "Ada".into(), role, digest: digest(token) };
        let (old, keys) = (key(Role::Run, "old"), |group| Keys::new("own", group, "a secret"));
        assert_eq!(keys(vec![key(Role::View, "old")]).role(&old), Some(Role::View));
        assert_eq!(keys(vec![key(Role::Run, "new")]).role(&old), None);
    }
}
