//! Tests of users, rules and logging in.

use super::catalog::Listed;
use super::selector::{Asked, Denied, KeyAccess};
use super::user::{RuleError, hash_password, merge_selectors};
use super::*;
use crate::hex;

fn catalog() -> &'static Catalog {
    let listed = |name, categories: &[&'static str], subcommands: &[&'static str]| Listed {
        name,
        shown: name.to_owned(),
        always: name == "auth",
        categories: categories.to_vec(),
        subcommands: subcommands.iter().map(|name| (*name, vec!["connection"])).collect(),
    };
    let commands = [
        listed("auth", &["connection"], &[]),
        listed("get", &["read"], &[]),
        listed("set", &["write"], &[]),
        listed("select", &["connection"], &[]),
        listed("client", &["slow"], &["id", "kill"]),
    ];
    Box::leak(Box::new(Catalog::new(commands.into_iter())))
}

fn user(rules: &str) -> User {
    let mut user = User::new();
    for rule in merge_selectors(rules.split(' ').map(str::as_bytes)).unwrap() {
        user.apply(&rule, catalog()).unwrap();
    }
    user
}

fn ask(user: &User, command: &str, keys: &[(&str, KeyAccess)]) -> Result<(), Denied> {
    let catalog = catalog();
    let keys: Vec<_> = keys.iter().map(|(key, access)| (key.as_bytes(), *access)).collect();
    let (name, argument) = command.split_once(' ').unwrap_or((command, ""));
    let command = catalog.find(name).unwrap();
    user.check(&Asked { command, first_argument: Some(argument.as_bytes()), keys: &keys }, catalog)
}

#[test]
fn rules_are_shown_as_redis_shows_them() {
    let password = hex::encode(&hash_password(b"pw"));
    for (rules, shown) in [
        ("on", "on sanitize-payload resetchannels -@all"),
        ("nopass ~* &* +@all", "off nopass sanitize-payload ~* &* +@all"),
        ("%RW~q %R~q %W~r &c", "off sanitize-payload ~q %W~r resetchannels &c -@all"),
        (
            "+client|id +get +@read -get +client",
            "off sanitize-payload resetchannels -@all +@read -get +client",
        ),
        ("+@all -@write +SELECT|0", "off sanitize-payload resetchannels +@all -@write +select|0"),
        (
            "+get (+@all ~x:* %R~y)",
            "off sanitize-payload resetchannels -@all +get (~x:* %R~y resetchannels +@all)",
        ),
        ("+get nocommands allkeys resetkeys", "off sanitize-payload resetchannels -@all"),
        ("on +get ~a >pw (~b) reset", "off sanitize-payload resetchannels -@all"),
        ("(~a) (~b) clearselectors", "off sanitize-payload resetchannels -@all"),
        (">pw >pw", &format!("off sanitize-payload #{password} resetchannels -@all")),
        (">pw nopass", "off nopass sanitize-payload resetchannels -@all"),
        (&format!(">pw !{password}"), "off sanitize-payload resetchannels -@all"),
        (">pw <pw", "off sanitize-payload resetchannels -@all"),
    ] {
        let user = user(rules);
        assert_eq!(user.line(), shown, "{rules}");
        assert_eq!(User::restore(&user.line(), catalog()), user, "{rules}");
    }
}

#[test]
fn what_is_no_rule_is_refused_and_changes_nothing() {
    for (rule, error) in [
        ("+bogus", RuleError::Unknown),
        ("+@bogus", RuleError::Unknown),
        ("+client|bogus", RuleError::Unknown),
        ("-select|0", RuleError::Unknown),
        ("+get|", RuleError::Syntax),
        ("bogus", RuleError::Syntax),
        ("%X~a", RuleError::Syntax),
        ("%~a", RuleError::Syntax),
        ("~a b", RuleError::Syntax),
        ("<pw", RuleError::NoPassword),
        ("#abc", RuleError::BadHash),
        (&"#".repeat(65), RuleError::BadHash),
        (&format!("#{}", "A".repeat(64)), RuleError::BadHash),
        ("(+bogus)", RuleError::Unknown),
    ] {
        let mut user = User::new();
        assert_eq!(user.apply(rule.as_bytes(), catalog()), Err(error), "{rule}");
        assert_eq!(user, User::new(), "{rule}");
    }
    let mut all = user("~* &*");
    assert_eq!(all.apply(b"~a", catalog()), Err(RuleError::KeysAreAll));
    assert_eq!(all.apply(b"&a", catalog()), Err(RuleError::ChannelsAreAll));
    assert_eq!(merge_selectors([&b"(~a"[..], b"+get"].into_iter()), Err(b"(~a".to_vec()));
}

#[test]
fn commands_keys_and_selectors_decide() {
    let read = |key| [(key, KeyAccess::READ)];
    let write = |key| [(key, KeyAccess::WRITE)];
    let limited = user("+get +client|id +select|0 %R~r:* ~a");
    assert_eq!(ask(&limited, "get", &read("r:1")), Ok(()));
    assert_eq!(ask(&limited, "get", &write("r:1")), Err(Denied::Key(0)));
    assert_eq!(
        ask(&limited, "get", &[("r:1", KeyAccess::LOOK), ("b", KeyAccess::LOOK)]),
        Err(Denied::Key(1))
    );
    assert_eq!(ask(&limited, "set", &write("a")), Err(Denied::Command));
    assert_eq!(ask(&limited, "client|id", &[]), Ok(()));
    assert_eq!(ask(&limited, "client|kill", &[]), Err(Denied::Command));
    assert_eq!(ask(&limited, "select 0", &[]), Ok(()));
    assert_eq!(ask(&limited, "select 1", &[]), Err(Denied::Command));
    assert_eq!(ask(&limited, "auth", &[]), Ok(()), "logging in is always allowed");
    assert_eq!(ask(&user("+select|0 -@connection"), "select 0", &[]), Err(Denied::Command));
    let two = user("+get ~a (+set ~b)");
    assert_eq!(ask(&two, "set", &write("b")), Ok(()));
    assert_eq!(ask(&two, "set", &write("a")), Err(Denied::Key(0)), "by the selector that allows most");
    assert_eq!(ask(&two, "get", &read("b")), Err(Denied::Key(0)));
    assert!(two.is_limited_to_keys() && two.allows_key(b"b", KeyAccess::LOOK));
    assert!(!user("+get ~a (+set ~*)").is_limited_to_keys());
    assert_eq!(ask(&user("+@all ~* -@read"), "get", &read("a")), Err(Denied::Command));
    assert!(user("+@all ~*").allows_everything() && !user("+@all ~* -get").allows_everything());
}

fn access(options: &[(&str, &str)]) -> Result<Access, AccessError> {
    let mut config = Config::default();
    for (name, value) in options {
        config.set(name, value).unwrap();
    }
    Access::new(catalog(), &config)
}

#[test]
fn who_knows_the_password_logs_in() {
    let access =
        access(&[("requirepass", "secret"), ("user", "ann on >a >b ~* +@all"), ("user", "bob >b")]).unwrap();
    let logs_in =
        |name: &str, password: &str| access.log_in(name.as_bytes(), password.as_bytes(), 0).is_some();
    assert!(logs_in("default", "secret") && logs_in("ann", "a") && logs_in("ann", "b"));
    for (name, password) in [("default", ""), ("ann", "c"), ("ann", ""), ("bob", "b"), ("nobody", "a")] {
        assert!(!logs_in(name, password), "{name} {password}");
    }
    assert!(!access.is_open());
    access.set_default_password(&Secret::default());
    assert!(access.is_open() && logs_in("default", "anything"));
}

#[test]
fn a_key_stands_for_its_owner_until_it_is_revoked_or_its_time_is_over() {
    let access = access(&[]).unwrap();
    let (text, id, hash) = api_key::create().unwrap();
    let (created_ms, last_used_ms, expires_ms) = (1, 0, 1000);
    let key = ApiKey { id, hash, label: Bytes::new(), created_ms, last_used_ms, expires_ms };
    let (name, namespace) = (Bytes::from_static(b"ann"), NamespaceId(4));
    let rules = Bytes::from_static(b"on ~* +@all");
    let record = UserRecord { rules, namespace, keys: vec![key], ..UserRecord::default() };
    let mut users = Users::default();
    users.by_name.insert(name.clone(), record.clone().into());
    access.follow_all(|| users.clone());
    for user in ["ann", "default"] {
        let login = access.log_in(user.as_bytes(), text.as_bytes(), 999).unwrap();
        assert_eq!((&login.account.name, login.key), (&name, Some(id)));
        assert_eq!(login.account.namespace(), namespace);
    }
    assert!(access.log_in(b"bob", text.as_bytes(), 0).is_none(), "a key of somebody else");
    assert!(access.log_in(b"default", text.as_bytes(), 1000).is_none(), "its time is over");
    let other = api_key::create().unwrap().0;
    assert!(access.log_in(b"default", other.as_bytes(), 0).is_none(), "though any password is right");
    assert_eq!(
        access.take_usage(),
        [Used { name: name.clone(), usage: Usage::default(), last_used_ms: vec![(id, 999)] }]
    );
    assert!(access.take_usage().is_empty(), "noted once");
    users.by_name.insert(name.clone(), UserRecord { keys: Vec::new(), ..record }.into());
    assert!(access.follow(&name, || users.clone()).is_none());
    assert!(access.log_in(b"ann", text.as_bytes(), 0).is_none() && access.is_dead(id, 0));
    users.by_name.remove(&name);
    assert!(access.follow(&name, || users.clone()).is_some(), "the account is gone");
}

#[test]
fn an_acl_file_is_written_as_it_is_read_and_a_wrong_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.acl");
    let name = path.to_str().unwrap();
    std::fs::write(
        &path,
        "# ours\n\nuser ann on >pw ~a +get (~b +set)\nuser default on nopass ~* &* +@all\n",
    )
    .unwrap();
    let access = access(&[("aclfile", name)]).unwrap();
    assert!(access.account(b"ann").unwrap().is_configured());
    access.save_file(&path).unwrap();
    let hash = hex::encode(&hash_password(b"pw"));
    let text = format!(
        "user ann on sanitize-payload #{hash} ~a resetchannels -@all +get (~b resetchannels -@all +set)\n\
         user default on nopass sanitize-payload ~* &* +@all\n"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    std::fs::write(&path, "user bob on nopass\n").unwrap();
    let gone: Vec<_> = access.load_file(&path).unwrap().iter().map(|account| account.name.clone()).collect();
    assert_eq!(gone, ["ann"]);
    assert!(access.account(b"bob").is_some() && access.account(b"ann").is_none());
    for (line, place) in [
        ("usr x", ":1: a line"),
        ("user x on\nuser y s3cret", ":2: rule 1: Syntax"),
        ("user x (+get", ":1: a sel"),
    ] {
        std::fs::write(&path, line).unwrap();
        let error = access.load_file(&path).map(|gone| gone.len()).unwrap_err().to_string();
        assert!(error.contains(place) && !error.contains("s3cret"), "{error}");
    }
    assert!(access.account(b"bob").is_some(), "nothing has changed");
    assert!(matches!(super::tests::access(&[("aclfile", name), ("user", "x on")]), Err(AccessError::Both)));
}

#[test]
fn refusals_of_one_kind_are_one_entry() {
    let log = Log::default();
    let refuse = |object: &str, at_ms: u64| {
        log.add(log::Entry {
            id: 0,
            count: 1,
            reason: log::Reason::Key,
            in_multi: false,
            object: object.as_bytes().to_vec(),
            user: b"ann".to_vec(),
            client: String::new(),
            created_ms: at_ms,
            updated_ms: at_ms,
        });
    };
    for (object, at_ms) in [("a", 0), ("b", 10), ("a", 20), ("a", 60_020)] {
        refuse(object, at_ms);
    }
    let seen: Vec<_> =
        log.newest(10).iter().map(|entry| (entry.object.clone(), entry.count, entry.id)).collect();
    assert_eq!(seen, [(b"a".to_vec(), 3, 0), (b"b".to_vec(), 1, 1)]);
    (0..1000).for_each(|at| refuse(&at.to_string(), 100_000));
    assert_eq!((log.newest(10_000).len(), log.count(log::Reason::Key)), (128, 1004));
    log.reset();
    assert!(log.newest(10).is_empty());
}
