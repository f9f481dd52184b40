//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Command, Rng, Server, Value, vadd, words};

#[test]
fn replies() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("EXEC", "-ERR EXEC without MULTI"),
        ("DISCARD", "-ERR DISCARD without MULTI"),
        ("UNWATCH", "+OK"),
        ("MULTI", "+OK"),
        ("EXEC", "[]"),
        ("MULTI", "+OK"),
        ("MULTI", "-ERR MULTI calls can not be nested"),
        ("WATCH k", "-ERR WATCH inside MULTI is not allowed"),
        ("VADD k VALUES 2 1 0 a", "+QUEUED"),
        ("UNWATCH", "+QUEUED"),
        ("PING", "+QUEUED"),
        ("EXEC", "[:1 +OK +PONG]"),
        ("MULTI", "+OK"),
        ("VREM k a", "+QUEUED"),
        ("DISCARD", "+OK"),
        ("VISMEMBER k a", ":1"),
        ("EXEC", "-ERR EXEC without MULTI"),
        ("WATCH", "-ERR wrong number of arguments for 'watch' command"),
    ]);
}

#[test]
fn replies_in_resp3() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    client.check(&[
        ("MULTI", "+OK"),
        ("VADD k VALUES 2 1 0 a SETATTR '{\"n\":1}'", "+QUEUED"),
        ("VSIM k ELE a WITHSCORES WITHATTRIBS", "+QUEUED"),
        ("VISMEMBER k b", "+QUEUED"),
        ("EXEC", "[#t {a=>[,1 {\"n\":1}]} #f]"),
        ("WATCH k", "+OK"),
        ("VREM k a", "#t"),
        ("MULTI", "+OK"),
        ("PING", "+QUEUED"),
    ]);
    assert_eq!(client.raw("EXEC"), "_\r\n");
}

#[test]
fn a_command_refused_while_queueing_aborts() {
    const ABORT: &str = "-EXECABORT Transaction discarded because of previous errors.";
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (refused, error) in [
        ("nonsense", "-ERR unknown command 'nonsense', with args beginning with: "),
        ("VADD k", "-ERR wrong number of arguments for 'VADD' command"),
        ("VCARD", "-ERR wrong number of arguments for 'VCARD' command"),
    ] {
        client.check(&[
            ("MULTI", "+OK"),
            ("VADD k VALUES 2 1 0 a", "+QUEUED"),
            (refused, error),
            ("PING", "+QUEUED"),
            ("EXEC", ABORT),
            ("EXISTS k", ":0"),
            ("EXEC", "-ERR EXEC without MULTI"),
        ]);
    }
}

#[test]
fn reads_see_earlier_writes_and_errors_do_not_stop_the_rest() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("MULTI", "+OK"),
        ("VCARD k", "+QUEUED"),
        ("VADD k VALUES 2 1 0 a", "+QUEUED"),
        ("VCARD k", "+QUEUED"),
        ("VADD k VALUES 3 1 0 0 wrong", "+QUEUED"),
        ("VADD k VALUES 2 x 0 wrong", "+QUEUED"),
        ("VADD k VALUES 2 0 1 b SETATTR '{\"n\":2}'", "+QUEUED"),
        ("VSIM k VALUES 2 0 1 COUNT 1", "+QUEUED"),
        ("VSIM k VALUES 2 0 1 FILTER '.n == 2'", "+QUEUED"),
        ("VSIM k ELE nobody", "+QUEUED"),
        ("VADD k VALUES 2 1 1 b", "+QUEUED"),
        ("VEMB k b", "+QUEUED"),
        ("VGETATTR k b", "+QUEUED"),
        ("VREM k a", "+QUEUED"),
        ("VISMEMBER k a", "+QUEUED"),
        ("DBSIZE", "+QUEUED"),
        ("DEL k", "+QUEUED"),
        ("EXISTS k", "+QUEUED"),
        ("VADD k VALUES 3 1 2 3 c", "+QUEUED"),
        ("VDIM k", "+QUEUED"),
    ]);
    let replies = client.call(&words("EXEC"));
    let expected = [
        ":0",
        ":1",
        ":1",
        "-ERR Vector dimension mismatch - got 3 but set has 2",
        "-ERR invalid vector specification",
        ":1",
        "[b]",
        "[b]",
        "-ERR element not found in set",
        ":0",
        "[1 1]",
        "{\"n\":2}",
        ":1",
        ":0",
        ":1",
        ":1",
        ":0",
        ":1",
        ":3",
    ];
    let replies: Vec<String> = replies.items().iter().map(Value::to_string).collect();
    assert_eq!(replies, expected);
    client.check(&[("VCARD k", ":1"), ("VEMB k c", "[1 2 3]")]);
}

#[test]
fn watch_aborts_when_a_key_was_changed() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut other = server.connect();
    // What is there, what another client does, whether EXEC goes through.
    let table: &[(&[&str], &[&str], bool)] = &[
        (&["VADD k VALUES 2 1 0 a"], &[], true),
        (&["VADD k VALUES 2 1 0 a"], &["VSIM k ELE a", "VADD unrelated VALUES 1 1 a"], true),
        (&["VADD k VALUES 2 1 0 a"], &["VADD k VALUES 2 1 0 b"], false),
        (&["VADD k VALUES 2 1 0 a"], &["VADD k VALUES 2 0 1 a"], false),
        (&["VADD k VALUES 2 1 0 a"], &["VSETATTR k a '{}'"], false),
        (&["VADD k VALUES 2 1 0 a", "VADD k VALUES 2 1 0 b"], &["VREM k b"], false),
        (&["VADD k VALUES 2 1 0 a"], &["VREM k a"], false),
        (&["VADD k VALUES 2 1 0 a"], &["DEL k"], false),
        (&["VADD k VALUES 2 1 0 a"], &["DEL k", "VADD k VALUES 2 1 0 a"], false),
        (&["VADD k VALUES 2 1 0 a"], &["FLUSHALL"], false),
        (&[], &["VADD k VALUES 2 1 0 a"], false),
        (&[], &[], true),
    ];
    for (before, meanwhile, goes_through) in table {
        client.check(&[("FLUSHALL", "+OK")]);
        before.iter().for_each(|line| drop(other.ask(line)));
        client.check(&[("WATCH other k", "+OK")]);
        for line in *meanwhile {
            let reply = other.ask(line);
            assert!(!reply.starts_with('-'), "{line}: {reply}");
        }
        client.check(&[("MULTI", "+OK"), ("VADD mark VALUES 1 1 a", "+QUEUED")]);
        let reply = client.raw("EXEC");
        assert_eq!(reply, if *goes_through { "*1\r\n:1\r\n" } else { "*-1\r\n" }, "{before:?} {meanwhile:?}");
        client.check(&[("EXISTS mark", if *goes_through { ":1" } else { ":0" })]);
    }
}

#[test]
fn watch_is_forgotten_by_unwatch_discard_and_exec() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let ends: [&[&str]; 3] = [&["UNWATCH"], &["MULTI", "DISCARD"], &["MULTI", "EXEC"]];
    for (index, end) in ends.iter().enumerate() {
        client.check(&[("WATCH k", "+OK")]);
        end.iter().for_each(|line| drop(client.ask(line)));
        server.connect().ask(&format!("VADD k VALUES 1 1 e{index}"));
        client.check(&[("MULTI", "+OK"), ("PING", "+QUEUED"), ("EXEC", "[+PONG]")]);
    }
    // One's own changes count too, also those of the same pipeline.
    let commands: Vec<Command> =
        ["WATCH k", "VADD k VALUES 1 1 x", "MULTI", "PING", "EXEC"].iter().map(|line| words(line)).collect();
    assert_eq!(client.pipeline(&commands)[4], Value::Null);
}

#[test]
fn thousands_of_additions_in_one_transaction() {
    const COUNT: usize = 5000;
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut rng = Rng(1);
    let vectors: Vec<Vec<f32>> = (0..COUNT).map(|_| rng.vector(64)).collect();
    let mut commands = vec![words("MULTI")];
    commands.extend(
        vectors.iter().enumerate().map(|(index, vector)| vadd("k", vector, &format!("e{index}"), "")),
    );
    commands.push(words("VCARD k"));
    commands.push(words("EXEC"));
    let replies = client.pipeline(&commands);
    assert!(replies[1..=COUNT + 1].iter().all(|reply| reply.to_string() == "+QUEUED"));
    let done = replies[COUNT + 2].items();
    assert!(done[..COUNT].iter().all(|reply| *reply == Value::Integer(1)));
    assert_eq!(done[COUNT], Value::Integer(COUNT as i64));
    for index in [0, COUNT / 2, COUNT - 1] {
        let found = client.call(&words(&format!("VEMB k e{index}")));
        let found: Vec<f64> = found.items().iter().map(Value::number).collect();
        assert_eq!(found, vectors[index].iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    }
}

#[test]
fn nobody_sees_half_a_transaction() {
    let server = Server::start(&[]);
    let mut writer = server.connect();
    let put = |writer: &mut common::Client, round: usize| {
        let lines = [
            "MULTI".to_owned(),
            format!("VADD k VALUES 2 1 {round} a SETATTR {round}"),
            format!("VADD k VALUES 2 2 {round} b SETATTR {round}"),
            format!("VSETATTR k c {round}"),
            "EXEC".to_owned(),
        ];
        let commands: Vec<Command> = lines.iter().map(|line| words(line)).collect();
        let replies = writer.pipeline(&commands);
        assert!(replies.iter().all(|reply| !reply.is_error()), "{replies:?}");
    };
    writer.check(&[("VADD k VALUES 2 0 1 c", ":1")]);
    put(&mut writer, 0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect();
                    for _ in 0..300 {
                        let answer = client.call(&words("VSIM k VALUES 2 1 1 WITHATTRIBS"));
                        let seen: Vec<String> =
                            answer.items().chunks(2).map(|pair| pair[1].to_string()).collect();
                        assert_eq!(seen.len(), 3, "{answer}");
                        assert!(seen.iter().all(|round| *round == seen[0]), "{answer}");
                        let body = ["MULTI", "VGETATTR k a", "VGETATTR k c", "EXEC"].map(words);
                        let answer = &client.pipeline(&body)[3];
                        assert_eq!(answer.items()[0], answer.items()[1]);
                    }
                })
            })
            .collect();
        let updates = scope.spawn(|| {
            let mut round = 0;
            while !done.load(Ordering::Relaxed) {
                round += 1;
                put(&mut writer, round);
            }
            assert!(round > 1);
        });
        let read: Vec<_> = readers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        updates.join().unwrap();
        assert!(read.into_iter().all(|result| result.is_ok()));
    });
}
