//! A user: whether it may log in, how, and its selectors. The rules are those of Redis's ACL SETUSER.

use bytes::Bytes;
use ring::digest;
use thiserror::Error;

use super::catalog::Catalog;
use super::selector::{Asked, Denied, KeyAccess, Selector};
use crate::hex;

/// Passwords a user may have.
const MAX_PASSWORDS: usize = 1024;
/// Selectors a user may have.
const MAX_SELECTORS: usize = 1024;

/// SHA-256 of a password, as Redis keeps and shows it.
pub type PasswordHash = [u8; 32];

/// Why a rule is refused. The texts are Redis's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RuleError {
    /// No such command or category.
    #[error("Unknown command or category name in ACL")]
    Unknown,
    /// Not a rule.
    #[error("Syntax error")]
    Syntax,
    /// There is no such password to remove.
    #[error("The password you are trying to remove from the user does not exist")]
    NoPassword,
    /// Not SHA-256 in hexadecimal digits.
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
    )]
    BadHash,
    /// All keys are allowed already.
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try \
         'resetkeys' to start with an empty list of patterns"
    )]
    KeysAreAll,
    /// All channels are allowed already.
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. \
         Try 'resetchannels' to start with an empty list of channels"
    )]
    ChannelsAreAll,
    /// More passwords or selectors than a user may have.
    #[error("Too many passwords or selectors")]
    TooMany,
}

/// SHA-256 of a password.
pub fn hash_password(password: &[u8]) -> PasswordHash {
    let mut hash = PasswordHash::default();
    hash.copy_from_slice(digest::digest(&digest::SHA256, password).as_ref());
    hash
}

/// Whether two hashes are equal; takes equally long whatever differs.
fn equal(a: &PasswordHash, b: &PasswordHash) -> bool {
    // blake3 hashes compare in constant time.
    blake3::Hash::from_bytes(*a) == blake3::Hash::from_bytes(*b)
}

/// 64 lower-case hexadecimal digits.
fn hash_from_hex(text: &[u8]) -> Result<PasswordHash, RuleError> {
    if text.iter().any(u8::is_ascii_uppercase) {
        return Err(RuleError::BadHash);
    }
    let hash = blake3::Hash::from_hex(text).map_err(|_| RuleError::BadHash)?;
    Ok(*hash.as_bytes())
}

/// What a user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Whether it may log in.
    pub enabled: bool,
    /// Whether any password is right.
    pub nopass: bool,
    /// Redis checks some payloads unless told not to; there are none here, but tools show it.
    pub skip_sanitize: bool,
    /// SHA-256 of each password.
    pub passwords: Vec<PasswordHash>,
    /// Its own selector.
    pub root: Selector,
    /// Further ones.
    pub selectors: Vec<Selector>,
    /// Everything is allowed: nothing needs to be looked at.
    everything: bool,
}

impl User {
    /// A user that may do nothing.
    pub fn new() -> Self {
        Self {
            enabled: false,
            nopass: false,
            skip_sanitize: false,
            passwords: Vec::new(),
            root: Selector::default(),
            selectors: Vec::new(),
            everything: false,
        }
    }

    /// The default user as long as nobody has changed it: no password, everything allowed.
    pub fn unrestricted(catalog: &Catalog) -> Self {
        let mut user = Self::new();
        for rule in ["on", "nopass", "~*", "&*", "+@all"] {
            user.apply(rule.as_bytes(), catalog).unwrap_or_else(|_| unreachable!("these are rules"));
        }
        user
    }

    /// A user by the rules of a line, as [`Self::line`] writes it. Rules that are none, such as those about commands of
    /// another version, are passed over: they allow nothing.
    pub fn restore(line: &[u8], catalog: &Catalog) -> Self {
        let mut user = Self::new();
        let words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        for rule in merge_selectors(words).unwrap_or_default() {
            // Passed over, as said above.
            let _ = user.apply(&rule, catalog);
        }
        user
    }

    /// Applies a rule; one in parentheses is a selector.
    ///
    /// # Errors
    /// When it is none; nothing has changed then.
    pub fn apply(&mut self, rule: &[u8], catalog: &Catalog) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        match rule {
            b"" => {}
            _ if is("on") => self.enabled = true,
            _ if is("off") => self.enabled = false,
            _ if is("nopass") => {
                self.nopass = true;
                self.passwords.clear();
            }
            _ if is("resetpass") => {
                self.nopass = false;
                self.passwords.clear();
            }
            _ if is("sanitize-payload") => self.skip_sanitize = false,
            _ if is("skip-sanitize-payload") => self.skip_sanitize = true,
            _ if is("clearselectors") => self.selectors.clear(),
            _ if is("reset") => *self = Self::new(),
            [b'>', password @ ..] => self.add_password(hash_password(password))?,
            [b'#', text @ ..] => self.add_password(hash_from_hex(text)?)?,
            [b'<', password @ ..] => self.remove_password(&hash_password(password))?,
            [b'!', text @ ..] => self.remove_password(&hash_from_hex(text)?)?,
            [b'(', inside @ .., b')'] => {
                let mut selector = Selector::default();
                for rule in inside.split(|byte| *byte == b' ').filter(|rule| !rule.is_empty()) {
                    selector.apply(rule, catalog)?;
                }
                if self.selectors.len() >= MAX_SELECTORS {
                    return Err(RuleError::TooMany);
                }
                self.selectors.push(selector);
            }
            _ => self.root.apply(rule, catalog)?,
        }
        self.everything = self.root.allows_everything(catalog);
        Ok(())
    }

    fn add_password(&mut self, hash: PasswordHash) -> Result<(), RuleError> {
        if !self.passwords.contains(&hash) {
            if self.passwords.len() >= MAX_PASSWORDS {
                return Err(RuleError::TooMany);
            }
            self.passwords.push(hash);
        }
        self.nopass = false;
        Ok(())
    }

    fn remove_password(&mut self, hash: &PasswordHash) -> Result<(), RuleError> {
        let place = self.passwords.iter().position(|known| known == hash).ok_or(RuleError::NoPassword)?;
        self.passwords.remove(place);
        Ok(())
    }

    /// Whether a password is one of the user's. All are compared, whichever is right.
    pub fn has_password(&self, password: &[u8]) -> bool {
        let given = hash_password(password);
        let matching = self.passwords.iter().filter(|known| equal(known, &given)).count();
        self.nopass || matching > 0
    }

    /// Whether a request is allowed by one of the selectors.
    ///
    /// # Errors
    /// What of it is not, by the selector that allows most.
    pub fn check(&self, asked: &Asked<'_>, catalog: &Catalog) -> Result<(), Denied> {
        if self.everything {
            return Ok(());
        }
        let mut denied = match self.root.check(asked, catalog) {
            Ok(()) => return Ok(()),
            Err(denied) => denied,
        };
        for selector in &self.selectors {
            match selector.check(asked, catalog) {
                Ok(()) => return Ok(()),
                Err(other) => denied = denied.max(other),
            }
        }
        Err(denied)
    }

    /// Whether nothing needs to be looked at.
    pub fn allows_everything(&self) -> bool {
        self.everything
    }

    /// Whether there are keys it may not use.
    pub fn is_limited_to_keys(&self) -> bool {
        !(self.root.allows_every_key() || self.selectors.iter().any(Selector::allows_every_key))
    }

    /// Whether a key may be used in that way by some command.
    pub fn allows_key(&self, key: &[u8], access: KeyAccess) -> bool {
        self.root.allows_key(key, access)
            || self.selectors.iter().any(|selector| selector.allows_key(key, access))
    }

    /// The words that ACL GETUSER shows as flags.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        let sanitize = if self.skip_sanitize { "skip-sanitize-payload" } else { "sanitize-payload" };
        let enabled = if self.enabled { "on" } else { "off" };
        [Some(enabled), self.nopass.then_some("nopass"), Some(sanitize)].into_iter().flatten()
    }

    /// All rules in one line, without the name, as ACL LIST and the ACL file have them.
    pub fn line(&self) -> Bytes {
        let mut parts: Vec<Vec<u8>> = self.flags().map(|flag| flag.as_bytes().to_vec()).collect();
        parts.extend(self.passwords.iter().map(|hash| format!("#{}", hex::encode(hash)).into_bytes()));
        parts.push(self.root.line());
        parts.extend(self.selectors.iter().map(|selector| [b"(", &selector.line()[..], b")"].concat()));
        parts.join(&b' ').into()
    }
}

impl Default for User {
    fn default() -> Self {
        Self::new()
    }
}

/// Puts the words of selectors together: `(a`, `b)` become `(a b)`.
///
/// # Errors
/// The first word of a selector that does not end.
pub fn merge_selectors<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, Vec<u8>> {
    let mut merged = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    let mut first: Option<Vec<u8>> = None;
    for word in words {
        let whole = match open.take() {
            Some(begun) => [&begun[..], word].join(&b' '),
            None => word.to_vec(),
        };
        match whole.first() == Some(&b'(') && whole.last() != Some(&b')') {
            true => {
                first.get_or_insert_with(|| word.to_vec());
                open = Some(whole);
            }
            false => {
                first = None;
                merged.push(whole);
            }
        }
    }
    match first {
        Some(begun) => Err(begun),
        None => Ok(merged),
    }
}
