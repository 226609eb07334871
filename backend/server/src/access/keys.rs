//! The tokens that a server knows: its own, which lies in the data folder, and those of a group, which lie in a file that a person keeps.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
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

impl Key {
    fn of(name: &str, role: Role, token: &str) -> Self {
        Self { name: name.into(), role, digest: digest(token) }
    }

    /// Whether this is the token.
    pub fn is(&self, token: &str) -> bool {
        same(&self.digest, &digest(token))
    }

    /// What a browser keeps in place of the token: it opens this server alone, and the token cannot be had from it.
    pub fn cookie(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"moslim-lab cookie");
        hash.update(self.digest);
        hex(&hash.finalize())
    }

    /// Whether a browser's cookie was made of this token.
    pub fn gave(&self, cookie: &str) -> bool {
        same(self.cookie().as_bytes(), cookie.as_bytes())
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

/// The server's own token, of whoever may read its data folder: read from a file that nobody else may read, or made.
///
/// # Errors
/// When the file cannot be read or made, or holds something else.
pub fn own(path: &Path) -> Result<(String, Key)> {
    let name = path.display();
    let token = match fs::read_to_string(path) {
        Ok(text) => text.trim().to_string(),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let token = fresh()?;
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(path).with_context(|| format!("making {name}"))?;
            writeln!(file, "{token}").with_context(|| format!("writing {name}"))?;
            token
        }
        Err(e) => return Err(e).with_context(|| format!("reading {name}")),
    };
    ensure!(token.len() >= SHORTEST, "{name} holds no token of at least {SHORTEST} characters; remove it for a new one");
    let key = Key::of("this server", Role::Admin, &token);
    Ok((token, key))
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
        let (token, key) = own(&path).unwrap();
        assert!(token.len() == 32 && key.is(&token) && key.role == Role::Admin, "{token}");
        assert!(!key.is("") && !key.is(&token[1..]) && !key.is(&token.to_uppercase().replace('A', "B")));
        assert_eq!(own(&path).unwrap().0, token);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::write(&path, "short").unwrap();
        assert!(format!("{:#}", own(&path).unwrap_err()).contains("32 characters"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_group_has_names_and_roles_and_its_file_opens_nothing() {
        let path = std::env::temp_dir().join(format!("moslim-tokens-{}.toml", std::process::id()));
        let (ada, lines) = invite("Ada", Role::Run).unwrap();
        let (bo, more) = invite("Bo", Role::View).unwrap();
        fs::write(&path, format!("{lines}\n{more}")).unwrap();
        let keys = group(&path).unwrap();
        let who = |token: &str| keys.iter().find(|k| k.is(token)).map(|k| (k.name.as_str(), k.role));
        assert_eq!((who(&ada), who(&bo), who("")), (Some(("Ada", Role::Run)), Some(("Bo", Role::View)), None));
        assert!(!lines.contains(&ada));
        assert!(keys[0].gave(&keys[0].cookie()) && !keys[0].gave(&keys[1].cookie()) && !keys[0].gave(&ada));
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
}
