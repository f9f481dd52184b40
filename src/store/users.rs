//! Users, API keys and namespaces as they are kept: plain tables, changed by [`UserChange`]s. What the rules of a user
//! mean is decided by `access/`.
//!
//! In the log a change is a kind byte, a namespace (u32) and these fields, integers little-endian, a byte string with its
//! length (u32) before it:
//!
//! | kind | fields |
//! |---|---|
//! | 32 set user | name, record |
//! | 33 drop user | name |
//! | 34 name namespace | name |
//! | 35 drop namespace | |
//! | 37 usage | name, usage, number of keys u32, and of each: id u64, last used u64 |
//! | 36 usage | the same without tokens, as written before they were counted |
//!
//! A record is its version (u8), rules, namespace u32, limits (3 x u64), usage, number of keys u32, and of each
//! key: id u64, hash (32 bytes), label, created, last used, expires (u64 each, unix milliseconds, 0 for never). Usage is commands,
//! texts, tokens (u64 each). Version 1 of a record has no tokens.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use super::change::{PayloadError, Reader, put_bytes};
use super::state::NamespaceId;

/// Version of a user's record.
const RECORD_VERSION: u8 = 2;
/// The first kind of change that is told here.
pub(super) const FIRST_KIND: u8 = 32;
/// The last one.
pub(super) const LAST_KIND: u8 = 37;

/// What a user may use. 0: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Commands in a second.
    pub requests_per_s: u64,
    /// Vectors in the user's namespace.
    pub vectors: u64,
    /// Bytes of these vectors, four for each component.
    pub bytes: u64,
}

/// What a user has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Commands sent.
    pub commands: u64,
    /// Texts given to be embedded.
    pub texts: u64,
    /// Tokens that models read of them.
    pub tokens: u64,
}

/// An API key: of the secret only its hash is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The part of the key that names it.
    pub id: u64,
    /// blake3 of the whole key.
    pub hash: [u8; 32],
    /// What people call it.
    pub label: Bytes,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds; 0: never.
    pub last_used_ms: u64,
    /// Unix milliseconds; 0: never.
    pub expires_ms: u64,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRecord {
    /// The rules as ACL LIST shows them, without the name.
    pub rules: Bytes,
    /// Where the user's keys are.
    pub namespace: NamespaceId,
    /// What may be used.
    pub limits: Limits,
    /// What has been used.
    pub usage: Usage,
    /// The API keys, oldest first.
    pub keys: Vec<ApiKey>,
}

/// A change to users or namespaces.
#[derive(Clone, Debug, PartialEq)]
pub enum UserChange {
    /// Makes a user or puts it in place of the one of that name.
    Set {
        /// Name.
        name: Bytes,
        /// All of it.
        record: Arc<UserRecord>,
    },
    /// Removes a user.
    Drop {
        /// Name.
        name: Bytes,
    },
    /// Gives a namespace a name.
    NameNamespace {
        /// Which.
        namespace: NamespaceId,
        /// Name.
        name: Bytes,
    },
    /// Removes a namespace with its collections and users.
    DropNamespace {
        /// Which.
        namespace: NamespaceId,
    },
    /// Notes what a user has used.
    Use {
        /// Name.
        name: Bytes,
        /// All that has been used so far.
        usage: Usage,
        /// Keys by id, and when each was last used, unix milliseconds.
        last_used_ms: Vec<(u64, u64)>,
    },
}

/// All users and namespaces.
#[derive(Clone, Default)]
pub struct Users {
    /// Users by name.
    pub by_name: OrdMap<Bytes, Arc<UserRecord>>,
    /// Namespaces by name. The one of all who have none of their own is not among them.
    pub namespaces: OrdMap<Bytes, NamespaceId>,
    /// The largest number given to a namespace so far.
    last_namespace: u32,
}

impl Users {
    /// The number of the next namespace: none is used again.
    pub fn next_namespace(&self) -> NamespaceId {
        NamespaceId(self.last_namespace + 1)
    }

    /// Name of a namespace; `None` for the common one.
    pub fn namespace_name(&self, namespace: NamespaceId) -> Option<&Bytes> {
        self.namespaces.iter().find(|(_, id)| **id == namespace).map(|(name, _)| name)
    }

    /// Makes a change; whether something is different now. The collections of a dropped namespace are not here.
    pub(super) fn apply(&mut self, change: &UserChange) -> bool {
        match change {
            UserChange::Set { name, record } => {
                let before = self.by_name.insert(name.clone(), Arc::clone(record));
                before.is_none_or(|before| before != *record)
            }
            UserChange::Drop { name } => self.by_name.remove(name).is_some(),
            UserChange::NameNamespace { namespace, name } => {
                self.last_namespace = self.last_namespace.max(namespace.0);
                self.namespaces.insert(name.clone(), *namespace) != Some(*namespace)
            }
            UserChange::DropNamespace { namespace } => {
                let before = (self.namespaces.len(), self.by_name.len());
                let keep =
                    |(name, id): (&Bytes, &NamespaceId)| (id != namespace).then(|| (name.clone(), *id));
                self.namespaces = self.namespaces.iter().filter_map(keep).collect();
                let keep = |(name, record): (&Bytes, &Arc<UserRecord>)| {
                    (record.namespace != *namespace).then(|| (name.clone(), Arc::clone(record)))
                };
                self.by_name = self.by_name.iter().filter_map(keep).collect();
                before != (self.namespaces.len(), self.by_name.len())
            }
            UserChange::Use { name, usage, last_used_ms } => {
                let Some(record) = self.by_name.get_mut(name) else { return false };
                let record = Arc::make_mut(record);
                record.usage = *usage;
                for key in &mut record.keys {
                    if let Some((_, at_ms)) = last_used_ms.iter().find(|(id, _)| *id == key.id) {
                        key.last_used_ms = *at_ms;
                    }
                }
                true
            }
        }
    }

    /// All of it as changes one after the other, for the state file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.last_namespace.to_le_bytes());
        for (name, &namespace) in &self.namespaces {
            UserChange::NameNamespace { namespace, name: name.clone() }.encode(&mut out);
        }
        for (name, record) in &self.by_name {
            UserChange::Set { name: name.clone(), record: Arc::clone(record) }.encode(&mut out);
        }
        out
    }

    /// Reads what [`Self::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        let mut reader = Reader::new(bytes);
        let mut users = Self { last_namespace: reader.u32()?, ..Self::default() };
        while !reader.is_empty() {
            let (kind, namespace) = (reader.byte()?, NamespaceId(reader.u32()?));
            users.apply(&UserChange::decode(kind, namespace, &mut reader)?);
        }
        Ok(users)
    }
}

impl UserChange {
    /// Appends the change to a payload.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut head = |kind: u8, namespace: NamespaceId| {
            out.push(kind);
            out.extend_from_slice(&namespace.0.to_le_bytes());
        };
        match self {
            Self::Set { name, record } => {
                head(32, record.namespace);
                put_bytes(out, name);
                record.encode(out);
            }
            Self::Drop { name } => {
                head(33, NamespaceId::default());
                put_bytes(out, name);
            }
            Self::NameNamespace { namespace, name } => {
                head(34, *namespace);
                put_bytes(out, name);
            }
            Self::DropNamespace { namespace } => head(35, *namespace),
            Self::Use { name, usage, last_used_ms } => {
                head(37, NamespaceId::default());
                put_bytes(out, name);
                usage.encode(out);
                put_count(out, last_used_ms.len());
                for (id, at_ms) in last_used_ms {
                    put_numbers(out, &[*id, *at_ms]);
                }
            }
        }
    }

    /// Reads what comes behind the kind and the namespace.
    pub(super) fn decode(
        kind: u8,
        namespace: NamespaceId,
        reader: &mut Reader<'_>,
    ) -> Result<Self, PayloadError> {
        Ok(match kind {
            32 => Self::Set { name: reader.element()?, record: Arc::new(UserRecord::decode(reader)?) },
            33 => Self::Drop { name: reader.element()? },
            34 => Self::NameNamespace { namespace, name: reader.element()? },
            35 => Self::DropNamespace { namespace },
            _ => {
                let name = reader.element()?;
                let usage = Usage::decode(reader, kind > 36)?;
                let mut last_used_ms = Vec::new();
                for _ in 0..reader.u32()? {
                    last_used_ms.push((reader.u64()?, reader.u64()?));
                }
                Self::Use { name, usage, last_used_ms }
            }
        })
    }
}

impl Usage {
    fn encode(&self, out: &mut Vec<u8>) {
        put_numbers(out, &[self.commands, self.texts, self.tokens]);
    }

    /// Before tokens were counted, they were not written either.
    fn decode(reader: &mut Reader<'_>, has_tokens: bool) -> Result<Self, PayloadError> {
        let (commands, texts) = (reader.u64()?, reader.u64()?);
        Ok(Self { commands, texts, tokens: if has_tokens { reader.u64()? } else { 0 } })
    }
}

impl UserRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(RECORD_VERSION);
        put_bytes(out, &self.rules);
        out.extend_from_slice(&self.namespace.0.to_le_bytes());
        put_numbers(out, &[self.limits.requests_per_s, self.limits.vectors, self.limits.bytes]);
        self.usage.encode(out);
        put_count(out, self.keys.len());
        for key in &self.keys {
            put_numbers(out, &[key.id]);
            out.extend_from_slice(&key.hash);
            put_bytes(out, &key.label);
            put_numbers(out, &[key.created_ms, key.last_used_ms, key.expires_ms]);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, PayloadError> {
        let version = reader.byte()?;
        if !(1..=RECORD_VERSION).contains(&version) {
            return Err(PayloadError::new("a user is of another version"));
        }
        let (rules, namespace) = (reader.element()?, NamespaceId(reader.u32()?));
        let limits = Limits { requests_per_s: reader.u64()?, vectors: reader.u64()?, bytes: reader.u64()? };
        let usage = Usage::decode(reader, version > 1)?;
        let mut keys = Vec::new();
        for _ in 0..reader.u32()? {
            keys.push(ApiKey {
                id: reader.u64()?,
                hash: reader.hash()?,
                label: reader.element()?,
                created_ms: reader.u64()?,
                last_used_ms: reader.u64()?,
                expires_ms: reader.u64()?,
            });
        }
        Ok(Self { rules, namespace, limits, usage, keys })
    }
}

fn put_numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).unwrap_or_else(|_| unreachable!("a user's keys are bounded"));
    out.extend_from_slice(&count.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let mut users = Users::default();
        let (name, namespace) = (Bytes::from_static(b"customer"), NamespaceId(3));
        users.apply(&UserChange::NameNamespace { namespace, name: name.clone() });
        let key = ApiKey {
            id: 7,
            hash: [9; 32],
            label: Bytes::from_static(b"laptop"),
            created_ms: 1,
            last_used_ms: 0,
            expires_ms: 5,
        };
        let record = UserRecord {
            rules: Bytes::from_static(b"on ~* +@all"),
            namespace,
            limits: Limits { requests_per_s: 1, vectors: 2, bytes: 3 },
            keys: vec![key],
            ..UserRecord::default()
        };
        users.apply(&UserChange::Set { name, record: record.into() });
        users
    }

    #[test]
    fn users_are_read_back_as_they_were_written() {
        let mut users = users();
        let name = Bytes::from_static(b"customer");
        let usage = Usage { commands: 10, texts: 4, tokens: 9 };
        users.apply(&UserChange::Use { name: name.clone(), usage, last_used_ms: vec![(7, 99), (8, 1)] });
        let record = &users.by_name[&name];
        assert_eq!((record.usage, record.keys[0].last_used_ms), (usage, 99));
        let read = Users::decode(&users.encode()).unwrap();
        assert_eq!(read.by_name, users.by_name);
        assert_eq!(read.namespaces, users.namespaces);
        assert_eq!(read.next_namespace(), NamespaceId(4));
        let bytes = users.encode();
        assert!(Users::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn a_dropped_namespace_takes_its_users_with_it_and_its_number_is_not_used_again() {
        let mut users = users();
        assert!(users.apply(&UserChange::DropNamespace { namespace: NamespaceId(3) }));
        assert!(users.by_name.is_empty() && users.namespaces.is_empty());
        assert!(!users.apply(&UserChange::DropNamespace { namespace: NamespaceId(3) }));
        assert_eq!(Users::decode(&users.encode()).unwrap().next_namespace(), NamespaceId(4));
    }
}
