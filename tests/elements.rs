//! Elements one by one and in order: VGET, VSCAN, VCOUNT, VRANGE, VRANDMEMBER, VLINKS, VEMB RAW, VREM of several.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Client, Command, Rng, Server, Value, command, fp32, vadd, words};

type Name = Vec<u8>;

fn vadd_bytes(key: &str, name: &[u8], vector: &[f32]) -> Command {
    command(&[b"VADD", key.as_bytes(), b"FP32", &fp32(vector), name])
}

/// Elements `e0`, `e1`, ... with attribute `n`.
fn fill(client: &mut Client, key: &str, count: usize) {
    let mut rng = Rng(41);
    let add =
        |index| vadd(key, &rng.vector(4), &format!("e{index}"), &format!("SETATTR '{{\"n\":{index}}}'"));
    let replies = client.pipeline(&(0..count).map(add).collect::<Vec<_>>());
    assert!(replies.iter().all(|reply| *reply == Value::Integer(1)));
}

/// The names in a reply.
fn names(reply: &Value) -> Vec<Name> {
    let name = |item: &Value| match item {
        Value::Bulk(name) => name.clone(),
        other => panic!("not a name: {other}"),
    };
    reply.items().iter().map(name).collect()
}

fn texts(reply: &Value) -> Vec<String> {
    reply.items().iter().map(Value::text).collect()
}

#[test]
fn vget_gives_an_element() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 3 -4 a SETATTR x", ":1"),
        ("VADD k VALUES 2 1 0 b", ":1"),
        ("VADD b VALUES 2 3 -4 a BIN", ":1"),
        ("VGET k a", "[id a]"),
        ("vget k a withvector withattribs", "[id a vector [3 -4] attributes x]"),
        ("VGET k a WITHATTRIBS", "[id a attributes x]"),
        ("VGET k b WITHATTRIBS", "[id b attributes nil]"),
        ("VGET k a WITHVECTOR WITHVECTOR", "[id a vector [3 -4]]"),
        ("VGET b a WITHVECTOR", "[id a vector [3 -4]]"),
        ("VGET k no", "nil"),
        ("VGET no a", "nil"),
        ("VGET k a WHAT", "-ERR syntax error, unexpected 'WHAT'"),
        ("VGET k", "-ERR wrong number of arguments for 'VGET' command"),
    ]);
    let mut client = server.connect_resp3();
    let got = client.call(&words("VGET k a WITHATTRIBS WITHVECTOR"));
    assert!(matches!(&got, Value::Map(fields) if fields.len() == 3), "{got}");
    assert_eq!(got.field("vector").to_string(), "[,3 ,-4]");
    assert_eq!((got.field("id").text(), got.field("attributes").text()), ("a".into(), "x".into()));
    client.check(&[("VGET k b", "{id=>b}"), ("VGET k no", "nil")]);
}

/// All pages of a VSCAN, with `between` called after each.
fn scan(client: &mut Client, options: &str, mut between: impl FnMut()) -> Vec<Name> {
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let page = client.call(&words(&format!("VSCAN k {cursor} {options}")));
        found.extend(names(&page.items()[1]));
        cursor = page.items()[0].text();
        if cursor == "0" {
            return found;
        }
        between();
    }
}

#[test]
fn vscan_grammar_and_pages() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client, "k", 100);
    client.check(&[
        ("VSCAN no 0", "[0 []]"),
        ("VSCAN k x", "-ERR invalid cursor"),
        ("VSCAN k -1", "-ERR invalid cursor"),
        ("VSCAN k 99999999999999999999", "-ERR invalid cursor"),
        ("VSCAN k 18446744073709551615", "[0 []]"),
        ("VSCAN k 0 WHAT 1", "-ERR syntax error, unexpected 'WHAT'"),
        ("VSCAN k 0 COUNT", "-ERR syntax error, unexpected 'COUNT'"),
        ("VSCAN k 0 COUNT 0", "-ERR invalid COUNT"),
        ("VSCAN k 0 COUNT -1", "-ERR invalid COUNT"),
        ("VSCAN k 0 COUNT x", "-ERR invalid COUNT"),
        ("VSCAN k", "-ERR wrong number of arguments for 'VSCAN' command"),
    ]);
    assert!(client.ask("VSCAN k 0 FILTER (").starts_with("-ERR syntax error in FILTER expression"));
    let mut all: Vec<Name> = (0..100).map(|index| format!("e{index}").into_bytes()).collect();
    all.sort();
    for options in ["", "COUNT 1", "count 7", "COUNT 99", "COUNT 100", "COUNT 9223372036854775807"] {
        let mut found = scan(&mut client, options, || ());
        found.sort();
        assert_eq!(found, all, "{options}: each once while nothing changes");
    }
    assert_eq!(names(&client.call(&words("VSCAN k 0")).items()[1]).len(), 10);
    // Pages come in an order of their own.
    let mut few = scan(&mut client, "COUNT 9 FILTER '.n >= 97'", || ());
    few.sort();
    assert_eq!(few, [b"e97", b"e98", b"e99"]);
    assert_eq!(scan(&mut client, "FILTER .n==200 COUNT 3", || ()).len(), 0);
}

#[test]
fn vscan_misses_nothing_that_is_there_all_the_time() {
    let server = Server::start(&[]);
    let (mut client, mut writer) = (server.connect(), server.connect());
    fill(&mut client, "k", 600);
    let mut rng = Rng(42);
    for count in [3, 17, 100] {
        let mut added = 0;
        let found = scan(&mut client, &format!("COUNT {count}"), || {
            // Fewer new rows than a page has elements, so that the scan comes to its end.
            for _ in 0..count - 2 {
                writer.call(&vadd("k", &rng.vector(4), &format!("e{}", rng.below(600)), ""));
            }
            added += 1;
            writer.call(&vadd("k", &rng.vector(4), &format!("late{added}"), ""));
            writer.ask(&format!("VREM k late{}", added - 1));
            writer.ask(&format!("VSETATTR k e{} '{{}}'", rng.below(600)));
        });
        let found: BTreeSet<Name> = found.into_iter().collect();
        for index in 0..600 {
            assert!(found.contains(format!("e{index}").as_bytes()), "e{index} with COUNT {count}");
        }
    }
    assert!(server.connect().ask("VCARD k").starts_with(":60"));
}

#[test]
fn vscan_beside_a_writer_and_over_checkpoints() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client, "k", 2000);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let mut writer = server.connect();
            scope.spawn(move || {
                let mut rng = Rng(43);
                for round in 0..60 {
                    let adds: Vec<Command> = (0..50)
                        .map(|_| vadd("k", &rng.vector(4), &format!("e{}", rng.below(2000)), ""))
                        .collect();
                    writer.pipeline(&adds);
                    writer.ask(&format!("VADD k VALUES 4 1 2 3 4 x{round}"));
                    writer.ask(&format!("VREM k x{round}"));
                    if round % 20 == 0 {
                        writer.ask("SAVE");
                    }
                }
            });
            let found: BTreeSet<Name> = scan(&mut client, "COUNT 20", || ()).into_iter().collect();
            let missed = (0..2000).find(|index| !found.contains(format!("e{index}").as_bytes()));
            assert_eq!(missed, None);
            assert!(found.iter().all(|name| name[0] == b'e' || name[0] == b'x'));
        });
    }
}

#[test]
fn vcount_counts() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client, "k", 100);
    client.check(&[
        ("VCOUNT no", ":0"),
        ("VCOUNT no FILTER .n==1", ":0"),
        ("VCOUNT k", ":100"),
        ("vcount k filter '.n >= 90'", ":10"),
        ("VCOUNT k FILTER '.n in [1, 5, 500]'", ":2"),
        ("VCOUNT k FILTER 1", ":100"),
        ("VCOUNT k FILTER .missing==1", ":0"),
        ("VSETATTR k e1 '{\"n\":95}'", ":1"),
        ("VADD k VALUES 4 1 2 3 4 e2", ":0"),
        ("VADD k VALUES 4 1 2 3 4 e3 SETATTR '{\"n\":96}'", ":0"),
        ("VREM k e99", ":1"),
        ("VSETATTR k e98 ''", ":1"),
        ("VCOUNT k", ":99"),
        ("VCOUNT k FILTER '.n >= 90'", ":10"),
        ("VCOUNT k FILTER 1", ":98"),
        ("VCOUNT k WHAT", "-ERR syntax error, unexpected 'WHAT'"),
        ("VCOUNT k WHAT x", "-ERR syntax error, unexpected 'WHAT'"),
        ("VCOUNT k FILTER", "-ERR syntax error, unexpected 'FILTER'"),
        ("VCOUNT", "-ERR wrong number of arguments for 'VCOUNT' command"),
    ]);
    assert!(client.ask("VCOUNT k FILTER '.n >'").starts_with("-ERR syntax error in FILTER expression"));
}

#[test]
fn vrange_grammar() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for name in ["a", "ab", "b", "c", "''"] {
        client.ask(&format!("VADD k VALUES 1 1 {name}"));
    }
    const START: &str = "-ERR invalid start range format";
    const END: &str = "-ERR invalid end range format";
    const ENDS: &str = "-ERR '-' can only be used as first argument, '+' only as second";
    client.check(&[
        ("VRANGE k - +", "['' a ab b c]"),
        ("vrange k [a [b", "[a ab b]"),
        ("VRANGE k (a (b", "[ab]"),
        ("VRANGE k [a (b", "[a ab]"),
        ("VRANGE k (a [b", "[ab b]"),
        ("VRANGE k (a +", "[ab b c]"),
        ("VRANGE k - (a", "['']"),
        ("VRANGE k [aa [ac", "[ab]"),
        ("VRANGE k [b [a", "[]"),
        ("VRANGE k (a (a", "[]"),
        ("VRANGE k [a [a", "[a]"),
        ("VRANGE k - + 2", "['' a]"),
        ("VRANGE k - + 0", "[]"),
        ("VRANGE k - + -1", "['' a ab b c]"),
        ("VRANGE k - + 100", "['' a ab b c]"),
        ("VRANGE k (ab + 1", "[b]"),
        ("VRANGE no - +", "[]"),
        ("VRANGE k a +", START),
        ("VRANGE k [ +", START),
        ("VRANGE k '' +", START),
        ("VRANGE k -- +", START),
        ("VRANGE k - b", END),
        ("VRANGE k - (", END),
        ("VRANGE k + -", ENDS),
        ("VRANGE k + +", ENDS),
        ("VRANGE k - -", ENDS),
        ("VRANGE no + -", ENDS),
        ("VRANGE no x y z", "-ERR invalid COUNT value"),
        ("VRANGE k x y", START),
        ("VRANGE k - + 1.5", "-ERR invalid COUNT value"),
        ("VRANGE k -", "-ERR wrong number of arguments for 'VRANGE' command"),
        ("VRANGE k - + 1 2", "-ERR wrong number of arguments for 'VRANGE' command"),
    ]);
}

/// A name of few different bytes, so that many begin alike.
fn random_name(rng: &mut Rng) -> Name {
    (0..1 + rng.below(9)).map(|_| [0, b'a', b'b', b'\n', 0x80, 0xff][rng.below(6)]).collect()
}

/// Random ranges, answered by the server and by the model.
fn compare_ranges(client: &mut Client, model: &BTreeSet<Name>, rng: &mut Rng, ranges: usize) {
    let bound = |rng: &mut Rng, open: &str| -> (Name, Bound<Name>) {
        let name = random_name(rng);
        match rng.below(5) {
            0 => (open.into(), Bound::Unbounded),
            1 | 2 => ([b"[", &name[..]].concat(), Bound::Included(name)),
            _ => ([b"(", &name[..]].concat(), Bound::Excluded(name)),
        }
    };
    for _ in 0..ranges {
        let ((start, lower), (end, upper)) = (bound(rng, "-"), bound(rng, "+"));
        let count = [usize::MAX, 0, 1, 10, 500][rng.below(5)];
        let within = |name: &&Name| {
            let after = match &lower {
                Bound::Unbounded => true,
                Bound::Included(lower) => *name >= lower,
                Bound::Excluded(lower) => *name > lower,
            };
            after
                && match &upper {
                    Bound::Unbounded => true,
                    Bound::Included(upper) => *name <= upper,
                    Bound::Excluded(upper) => *name < upper,
                }
        };
        let expected: Vec<Name> = model.iter().filter(within).take(count).cloned().collect();
        let mut line = command(&[b"VRANGE", &b"k"[..], &start, &end]);
        if count != usize::MAX {
            line.push(count.to_string().into_bytes());
        }
        assert_eq!(names(&client.call(&line)), expected, "{}", line.join(&b' ').escape_ascii());
    }
}

#[test]
fn vrange_agrees_with_a_sorted_set() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    let mut rng = Rng(44);
    let mut model = BTreeSet::new();
    while model.len() < 3000 {
        model.insert(random_name(&mut rng));
    }
    let mut shuffled: Vec<Name> = model.iter().cloned().collect();
    shuffled.sort_by_cached_key(|_| rng.next());
    let adds: Vec<Command> = shuffled.iter().map(|name| vadd_bytes("k", name, &rng.vector(4))).collect();
    client.pipeline(&adds);
    compare_ranges(&mut client, &model, &mut rng, 150);
    // A third goes, a third gets new vectors, some are new.
    let mut changes = Vec::new();
    for (index, name) in shuffled.iter().enumerate() {
        match index % 3 {
            0 => {
                changes.push(command(&[b"VREM", &b"k"[..], name]));
                model.remove(name);
            }
            1 => changes.push(vadd_bytes("k", name, &rng.vector(4))),
            _ => {}
        }
    }
    for _ in 0..300 {
        let name = random_name(&mut rng);
        changes.push(vadd_bytes("k", &name, &rng.vector(4)));
        model.insert(name);
    }
    for part in changes.chunks(500) {
        client.pipeline(part);
        client.ask("VRANGE k - + 1");
    }
    compare_ranges(&mut client, &model, &mut rng, 150);
    client.check(&[("SAVE", "+OK"), ("VREM k no", ":0")]);
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    compare_ranges(&mut server.connect(), &model, &mut rng, 100);
}

#[test]
fn vrange_pages_while_writes_go_on() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client, "k", 1000);
    let mut stable: Vec<Name> = (0..1000).map(|index| format!("e{index}").into_bytes()).collect();
    stable.sort();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (mut writer, done) = (server.connect(), &done);
        scope.spawn(move || {
            let mut rng = Rng(45);
            while !done.load(Ordering::Relaxed) {
                let element = rng.below(1000);
                writer.call(&vadd("k", &rng.vector(4), &format!("e{element}"), ""));
                writer.call(&vadd("k", &rng.vector(4), &format!("e{element}x"), ""));
                writer.ask(&format!("VREM k e{}x", rng.below(1000)));
            }
        });
        for _ in 0..10 {
            let mut found: Vec<Name> = Vec::new();
            loop {
                let start = match found.last() {
                    Some(last) => [b"(", &last[..]].concat(),
                    None => b"-".to_vec(),
                };
                let page = names(&client.call(&command(&[b"VRANGE", &b"k"[..], &start, b"+", b"23"])));
                if page.is_empty() {
                    break;
                }
                found.extend(page);
            }
            assert!(found.is_sorted_by(|a, b| a < b), "pages are in order and nothing comes twice");
            found.retain(|name| !name.ends_with(b"x"));
            assert_eq!(found, stable);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn vrandmember_grammar() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VRANDMEMBER no", "nil"),
        ("VRANDMEMBER no 5", "[]"),
        ("VRANDMEMBER no -5", "[]"),
        ("VRANDMEMBER no x", "-ERR COUNT value is not an integer"),
        ("VADD k VALUES 1 1 a", ":1"),
        ("VRANDMEMBER k", "a"),
        ("VRANDMEMBER k 0", "[]"),
        ("VRANDMEMBER k 5", "[a]"),
        ("VRANDMEMBER k 9223372036854775807", "[a]"),
        ("VRANDMEMBER k -3", "[a a a]"),
        ("VRANDMEMBER k x", "-ERR COUNT value is not an integer"),
        ("VRANDMEMBER k 1.5", "-ERR COUNT value is not an integer"),
        ("VRANDMEMBER k ''", "-ERR COUNT value is not an integer"),
        ("VRANDMEMBER k 9223372036854775808", "-ERR COUNT value is not an integer"),
        ("VRANDMEMBER k 1 2", "-ERR wrong number of arguments for 'VRANDMEMBER' command"),
    ]);
    // A small request must not ask for any amount of memory.
    assert!(client.ask("VRANDMEMBER k -9223372036854775808").starts_with("-ERR "));
    assert_eq!(client.raw("VRANDMEMBER no"), "$-1\r\n");
    assert_eq!(server.connect_resp3().raw("VRANDMEMBER no"), "_\r\n");
}

#[test]
fn vrandmember_is_roughly_uniform() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client, "k", 100);
    // Dead rows and moved elements must not weigh.
    for index in 0..100 {
        match index % 4 {
            0 => client.call(&vadd("k", &[1.0; 4], &format!("e{index}"), "")),
            1 => continue,
            _ => client.call(&words(&format!("VREM k e{index}"))),
        };
    }
    let alive: Vec<String> =
        (0..100).filter(|index| index % 4 < 2).map(|index| format!("e{index}")).collect();
    assert_eq!(alive.len(), 50);
    for count in [1, 7, 49, 50, 51, 5000] {
        let some = texts(&client.call(&words(&format!("VRANDMEMBER k {count}"))));
        assert_eq!(some.len(), count.min(50));
        assert_eq!(some.iter().collect::<BTreeSet<_>>().len(), some.len(), "all different");
    }
    let singles: Vec<Command> = (0..10_000).map(|_| words("VRANDMEMBER k")).collect();
    let singles = client.pipeline(&singles).iter().map(Value::text).collect();
    let repeated = texts(&client.call(&words("VRANDMEMBER k -10000")));
    let fives: Vec<Command> = (0..2000).map(|_| words("VRANDMEMBER k 5")).collect();
    let fives: Vec<String> = client.pipeline(&fives).iter().flat_map(texts).collect();
    for (kind, drawn) in [("one", singles), ("repeated", repeated), ("distinct", fives)] {
        assert_eq!(drawn.len(), 10_000);
        let mut counts: BTreeMap<String, usize> = alive.iter().map(|name| (name.clone(), 0)).collect();
        drawn.into_iter().for_each(|name| *counts.get_mut(&name).expect("a live element") += 1);
        // 200 expected each, standard deviation 14.
        assert!(counts.values().all(|count| (100..=300).contains(count)), "{kind}: {counts:?}");
    }
    assert_ne!(client.ask("VRANDMEMBER k 50"), client.ask("VRANDMEMBER k 50"), "in no fixed order");
}

#[test]
fn vlinks_answers_from_an_empty_graph() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    const ARITY: &str = "-ERR wrong number of arguments for 'VLINKS' command";
    client.check(&[
        ("VADD k VALUES 2 1 0 a", ":1"),
        ("VADD k VALUES 2 1 0 b", ":1"),
        ("VLINKS k a", "[[]]"),
        ("vlinks k a withscores", "[[]]"),
        ("VLINKS k no", "nil"),
        ("VLINKS no a", "nil"),
        ("VLINKS k a WHAT", ARITY),
        ("VLINKS k a WITHSCORES x", ARITY),
        ("VLINKS k", ARITY),
    ]);
    let mut client = server.connect_resp3();
    client.check(&[("VLINKS k a", "[[]]"), ("VLINKS k a WITHSCORES", "[{}]"), ("VLINKS no a", "nil")]);
}

/// The code of `VEMB key element RAW`, and its numbers.
fn raw_code(client: &mut Client, key: &str, element: usize) -> (String, Vec<u8>, Vec<f64>) {
    let reply = client.call(&words(&format!("VEMB {key} {element} RAW")));
    let Value::Bulk(code) = &reply.items()[1] else { panic!("{reply}") };
    let numbers = reply.items()[2..].iter().map(Value::number).collect();
    (reply.items()[0].text(), code.clone(), numbers)
}

#[track_caller]
fn assert_all_near(found: impl Iterator<Item = f64>, expected: &[f32], tolerance: f64) {
    for (found, &expected) in found.zip(expected) {
        assert!((found - f64::from(expected)).abs() <= tolerance, "{found} for {expected}");
    }
}

fn check_raw_codes(client: &mut Client, vectors: &[Vec<f32>]) {
    for (index, vector) in vectors.iter().enumerate() {
        let max = vector.iter().fold(0.0_f64, |max, x| max.max(f64::from(x.abs())));
        let norm = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let (kind, code, numbers) = raw_code(client, "f32", index);
        assert_eq!((kind.as_str(), code.len(), numbers.len()), ("f32", vector.len() * 4, 1));
        assert!((numbers[0] - norm).abs() < 1e-5 * norm);
        let unit = code.as_chunks().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
        assert_all_near(unit.map(|x| x * numbers[0]), vector, 1e-5 * norm);

        for key in ["int8", "rawno", "l2"] {
            let (kind, code, numbers) = raw_code(client, key, index);
            assert_eq!((kind.as_str(), code.len(), numbers.len()), ("int8", vector.len(), 2));
            assert!((numbers[0] - norm).abs() < 1e-5 * norm);
            // The code is of the unit vector under COSINE, of the vector itself else.
            let factor = numbers[1] / 127.0 * if key == "l2" { 1.0 } else { numbers[0] };
            assert_all_near(
                code.iter().map(|byte| f64::from(byte.cast_signed()) * factor),
                vector,
                max / 127.0,
            );
            assert!(code.iter().any(|byte| byte.cast_signed().unsigned_abs() == 127));
        }
        let (kind, code, numbers) = raw_code(client, "bin", index);
        assert_eq!((kind.as_str(), code.len(), numbers.len()), ("bin", vector.len().div_ceil(64) * 8, 1));
        let bits = (0..code.len() * 8).map(|bit| code[bit / 8] >> (bit % 8) & 1 == 1);
        let signs = vector.iter().map(|x| *x > 0.0).chain(std::iter::repeat(false));
        assert!(bits.zip(signs).all(|(bit, sign)| bit == sign), "{index}");
    }
}

#[test]
fn vemb_raw_holds_what_rebuilds_the_vector() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng(46);
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    for dim in [1, 64, 65, 100] {
        let vectors: Vec<Vec<f32>> = (0..20).map(|_| rng.vector(dim)).collect();
        client.check(&[
            ("FLUSHALL", "+OK"),
            (&format!("VCREATE f32 DIM {dim} NOQUANT"), "+OK"),
            (&format!("VCREATE int8 DIM {dim}"), "+OK"),
            (&format!("VCREATE rawno DIM {dim} RAW NO"), "+OK"),
            (&format!("VCREATE l2 DIM {dim} METRIC L2"), "+OK"),
            (&format!("VCREATE bin DIM {dim} BIN"), "+OK"),
        ]);
        for key in ["f32", "int8", "rawno", "l2", "bin"] {
            for (index, vector) in vectors.iter().enumerate() {
                client.call(&vadd(key, vector, &index.to_string(), ""));
            }
        }
        check_raw_codes(&mut client, &vectors);
        if dim == 100 {
            client.check(&[
                ("SAVE", "+OK"),
                ("VEMB int8 no RAW", "nil"),
                ("VEMB no 1 RAW", "nil"),
                ("VEMB int8 1 WHAT", "-ERR invalid option"),
                ("VEMB int8 1 RAW RAW", "-ERR invalid option"),
            ]);
            server.kill9();
            let server = Server::start_in(folder.path(), &[]);
            check_raw_codes(&mut server.connect(), &vectors);
            return;
        }
    }
}

#[test]
fn vemb_raw_of_zeros() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VADD q VALUES 2 0 0 z", ":1"), ("VADD f VALUES 2 0 0 z NOQUANT", ":1")]);
    client.check(&[("VADD b VALUES 2 0 0 z BIN", ":1"), ("VEMB b z", "[-1 -1]")]);
    for (key, zeros) in [("q", "\0\0"), ("f", "\0\0\0\0\0\0\0\0"), ("b", "\0\0\0\0\0\0\0\0")] {
        let reply = client.call(&words(&format!("VEMB {key} z RAW")));
        assert_eq!(reply.items()[1], Value::Bulk(zeros.into()), "{key}");
        // As in Redis, which divides by it.
        assert_eq!(reply.items()[2].number(), 1.0, "{key}");
    }
    let raw = server.connect_resp3().raw("VEMB q z RAW");
    assert!(raw.starts_with("*4\r\n+int8\r\n$2\r\n") && raw.contains("\r\n,0\r\n"), "{raw:?}");
}

#[test]
fn vrem_takes_several_elements() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    fill(&mut client, "k", 20);
    client.check(&[
        ("VREM k e0", ":1"),
        ("VREM k e0", ":0"),
        ("VREM k e1 e2", ":2"),
        ("VREM k e2 e3 no e3", ":1"),
        ("VREM k no none", ":0"),
        ("VREM no a b", ":0"),
        ("VCARD k", ":16"),
    ]);
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect_resp3();
    client.check(&[
        ("VCARD k", ":16"),
        ("VREM k e4", "#t"),
        ("VREM k e4", "#f"),
        ("VREM k e5 e6", ":2"),
        ("VREM k e6 e5", ":0"),
        ("VREM k", "-ERR wrong number of arguments for 'VREM' command"),
    ]);
    let rest: Vec<String> = (7..20).map(|index| format!("e{index}")).collect();
    client.check(&[(&format!("VREM k {} e7", rest.join(" ")), ":13"), ("EXISTS k", ":0")]);
}
