//! What survives crashes, stops and damage.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::data::Op;
use common::{
    Client, Command, Model, Rng, Server, Value, copy_folder, files_below, refused_start, vadd, words,
};

const POLICIES: [&str; 3] = ["always", "everysec", "no"];

/// The newest file of the log.
fn last_log_file(root: &Path) -> std::path::PathBuf {
    let files = files_below(&root.join("data"));
    let is_log = |name: &&String| name.starts_with("log-") && name.ends_with(".vdl");
    let last = files.iter().rfind(is_log);
    root.join("data").join(last.unwrap_or_else(|| panic!("no log in {files:?}")))
}

/// Waits until no checkpoint is under way.
fn wait_for_checkpoint(client: &mut Client) {
    let begin = std::time::Instant::now();
    while !client.ask("INFO persistence").contains("rdb_bgsave_in_progress:0") {
        assert!(begin.elapsed() < common::WAIT_MAX, "{}", client.ask("INFO persistence"));
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn acknowledged_writes_survive_a_crash_under_every_policy() {
    for policy in POLICIES {
        let folder = tempfile::tempdir().unwrap();
        let options = ["--appendfsync", policy];
        let mut model = Model::default();
        let mut rng = Rng(11);
        // Three lives: what was replayed once must be replayed again, with more behind it.
        for _ in 0..3 {
            let server = Server::start_in(folder.path(), &options);
            let mut client = server.connect();
            model.check(&mut client, "k");
            model.run_random(&mut client, "k", &mut rng, 1500, 400);
            model.check(&mut client, "k");
            server.kill9();
        }
        let server = Server::start_in(folder.path(), &options);
        model.check(&mut server.connect(), "k");
    }
}

#[test]
fn checkpoints_in_the_middle_change_nothing() {
    for checkpoint in ["SAVE", "BGSAVE", "BGREWRITEAOF"] {
        let folder = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        let mut rng = Rng(12);
        for _ in 0..2 {
            let server = Server::start_in(folder.path(), &[]);
            let mut client = server.connect();
            model.check(&mut client, "k");
            for _ in 0..2 {
                model.run_random(&mut client, "k", &mut rng, 400, 300);
                let reply = client.ask(checkpoint);
                assert!(reply.starts_with('+'), "{checkpoint}: {reply}");
                model.run_random(&mut client, "k", &mut rng, 400, 300);
                wait_for_checkpoint(&mut client);
            }
            server.kill9();
        }
        let server = Server::start_in(folder.path(), &[]);
        model.check(&mut server.connect(), "k");
    }
}

/// One of several writers: changes one at a time until the connection breaks. Gives what was acknowledged and the
/// change that was in flight.
fn write_until_killed(server: &Server, seed: u64, acknowledged: &AtomicUsize) -> (Model, Op) {
    let mut client = server.connect();
    let (mut model, mut rng) = (Model::default(), Rng(seed));
    loop {
        let op = Op::random(&mut rng, &format!("w{seed}-"), 100, 8);
        match client.try_call(&op.command("k")) {
            Ok(reply) => assert!(!reply.is_error(), "{reply}"),
            Err(_) => return (model, op),
        }
        model.apply(&op);
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_crash_while_writing_and_checkpointing_loses_nothing_acknowledged() {
    for (policy, writes) in [("everysec", 6000), ("always", 1500)] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start_in(folder.path(), &["--appendfsync", policy]);
        let acknowledged = AtomicUsize::new(0);
        let outcomes: Vec<(Model, Op)> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|seed| {
                    let (server, acknowledged) = (&server, &acknowledged);
                    scope.spawn(move || write_until_killed(server, seed, acknowledged))
                })
                .collect();
            let mut client = server.connect();
            while acknowledged.load(Ordering::Relaxed) < writes {
                let reply = client.ask("BGSAVE");
                assert!(reply.starts_with('+') || reply.contains("in progress"), "{reply}");
                wait_for_checkpoint(&mut client);
                assert!(
                    !writers.iter().all(std::thread::ScopedJoinHandle::is_finished),
                    "the server has died"
                );
            }
            client.ask("BGSAVE");
            server.signal("KILL");
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        server.wait();
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect();
        for (seed, (model, in_flight)) in outcomes.into_iter().enumerate() {
            let elements = (0..100).map(|index| format!("w{seed}-{index}"));
            let found = Model::read(&mut client, "k", elements);
            let mut ahead = model.clone();
            ahead.apply(&in_flight);
            for (element, content) in &found.0 {
                let expected = [model.0.get(element), ahead.0.get(element)];
                assert!(
                    expected.contains(&Some(content)),
                    "{policy}: {element} is {content:?}, not {expected:?}"
                );
            }
            for element in model.0.keys().filter(|element| *element != in_flight.element()) {
                assert!(found.0.contains_key(element), "{policy}: {element} is lost");
            }
        }
    }
}

#[test]
fn a_log_that_grows_over_many_short_lives_leads_to_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(22));
    let options = ["--auto-aof-rewrite-min-size", "64kb"];
    let mut longest_bytes = 0;
    for _ in 0..8 {
        let server = Server::start_in(folder.path(), &options);
        let mut client = server.connect();
        model.check(&mut client, "k");
        // Far less than leads to a checkpoint by itself.
        model.run_random(&mut client, "k", &mut rng, 200, 50);
        wait_for_checkpoint(&mut client);
        server.kill9();
        let files = files_below(&folder.path().join("data"));
        let logs = files.iter().filter(|name| name.starts_with("log-"));
        let sizes = logs.map(|name| fs::metadata(folder.path().join("data").join(name)).unwrap().len());
        longest_bytes = longest_bytes.max(sizes.sum());
    }
    assert!(longest_bytes > 48 << 10, "{longest_bytes} bytes of log do not try it");
    assert!(longest_bytes < 96 << 10, "the log grew to {longest_bytes} bytes");
}

#[test]
fn updates_are_as_durable_as_inserts() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &["--appendfsync", "always"]);
    let mut client = server.connect();
    let (mut model, mut rng) = (Model::default(), Rng(13));
    let mut put = |client: &mut Client, count: usize, attributes: &str| {
        let ops: Vec<Op> = (0..count)
            .map(|index| Op::Add(format!("e{index}"), rng.vector(24), Some(attributes.to_owned())))
            .collect();
        model.run(client, "k", &ops);
        model.clone()
    };
    put(&mut client, 3000, "first");
    client.check(&[("SAVE", "+OK")]);
    let model = put(&mut client, 1000, "second");
    let search = words("VSIM k ELE e5 COUNT 20 WITHSCORES WITHATTRIBS");
    let before = client.call(&search);
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    model.check(&mut client, "k");
    assert_eq!(client.call(&search), before);
}

#[test]
fn a_transaction_survives_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    client.check(&[("VADD before VALUES 1 1 a", ":1")]);
    let mut rng = Rng(14);
    let mut body: Vec<Command> = vec![words("MULTI")];
    body.extend((0..100).map(|index| vadd("k", &rng.vector(8), &format!("e{index}"), "")));
    body.extend([words("VREM k e7"), words("VADD other VALUES 1 1 a"), words("EXEC")]);
    assert_eq!(client.pipeline(&body).last().unwrap().items().len(), 102);
    server.kill9();

    let size = fs::metadata(last_log_file(folder.path())).unwrap().len();
    for (cut, elements, others) in [(0, ":99", ":1"), (1, ":0", ":0"), (100, ":0", ":0"), (3000, ":0", ":0")]
    {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        fs::File::options()
            .write(true)
            .open(last_log_file(copy.path()))
            .unwrap()
            .set_len(size - cut)
            .unwrap();
        let server = Server::start_in(copy.path(), &[]);
        server.connect().check(&[("VCARD k", elements), ("VCARD other", others), ("VCARD before", ":1")]);
    }
}

#[test]
fn a_torn_tail_is_cut_and_the_rest_is_a_prefix() {
    const COUNT: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    for index in 0..COUNT {
        client.check(&[(&format!("VADD k VALUES 2 1 {index} e{index}"), ":1")]);
    }
    server.kill9();
    let size = fs::metadata(last_log_file(folder.path())).unwrap().len();
    for cut in 1..=40 {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        fs::File::options()
            .write(true)
            .open(last_log_file(copy.path()))
            .unwrap()
            .set_len(size - cut)
            .unwrap();
        let server = Server::start_in(copy.path(), &[]);
        let mut client = server.connect();
        let found = Model::read(&mut client, "k", (0..COUNT).map(|index| format!("e{index}"))).0.len();
        assert!((COUNT - 2..COUNT).contains(&found), "{found} left after cutting {cut}");
        client.check(&[(&format!("VISMEMBER k e{}", found - 1), ":1"), ("VCARD k", &format!(":{found}"))]);
        // Writing goes on, and what is written after the cut is found again.
        client.check(&[("VADD k VALUES 2 5 5 late", ":1")]);
        if cut % 10 == 0 {
            server.kill9();
            let server = Server::start_in(copy.path(), &[]);
            server.connect().check(&[("VISMEMBER k late", ":1"), ("VCARD k", &format!(":{}", found + 1))]);
        }
    }
}

#[test]
fn a_damaged_log_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    Model::default().run_random(&mut server.connect(), "k", &mut Rng(15), 300, 100);
    server.kill9();
    let log = last_log_file(folder.path());
    let sound = fs::read(&log).unwrap();
    for position in [sound.len() / 3, sound.len() / 2] {
        let mut damaged = sound.clone();
        damaged[position] ^= 4;
        fs::write(&log, damaged).unwrap();
        let (code, output) = refused_start(folder.path(), &[]);
        assert_eq!(code, Some(1), "{output}");
        let name = log.file_name().unwrap().to_str().unwrap();
        assert!(output.lines().any(|line| line.contains(name)), "{output}");
    }
    fs::write(&log, sound).unwrap();
    assert_ne!(Server::start_in(folder.path(), &[]).connect().ask("VCARD k"), ":0");
}

#[test]
fn a_damaged_checkpoint_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    Model::default().run_random(&mut client, "k", &mut Rng(16), 300, 100);
    client.check(&[("SAVE", "+OK")]);
    server.kill9();
    let data = folder.path().join("data");
    let own = |name: &String| name == "manifest" || name.starts_with("state-");
    let files: Vec<String> = files_below(&data).into_iter().filter(own).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for name in files {
        let sound = fs::read(data.join(&name)).unwrap();
        let mut damaged = sound.clone();
        damaged[sound.len() / 2] ^= 1;
        fs::write(data.join(&name), damaged).unwrap();
        let (code, output) = refused_start(folder.path(), &[]);
        assert_eq!(code, Some(1), "{output}");
        assert!(output.lines().any(|line| line.contains(&name)), "{name}: {output}");
        fs::write(data.join(&name), sound).unwrap();
    }
    assert_ne!(Server::start_in(folder.path(), &[]).connect().ask("VCARD k"), ":0");
}

#[test]
fn a_second_server_on_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let (code, output) = refused_start(folder.path(), &[]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("data"), "{output}");
    server.connect().check(&[("VADD k VALUES 1 1 a", ":1")]);
    server.kill9();
    Server::start_in(folder.path(), &[]).connect().check(&[("VCARD k", ":1")]);
}

#[test]
fn a_clean_stop_exits_with_0_and_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(17));
    for end in ["TERM", "INT", "SHUTDOWN", "SHUTDOWN NOSAVE", "SHUTDOWN SAVE"] {
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect();
        model.check(&mut client, "k");
        model.run_random(&mut client, "k", &mut rng, 300, 200);
        let status = match end {
            "TERM" | "INT" => server.terminate(end),
            shutdown => {
                // It closes the connection instead of answering.
                let reply = client.try_call(&words(shutdown));
                assert!(reply.is_err(), "{shutdown}: {reply:?}");
                server.wait()
            }
        };
        assert_eq!(status.code(), Some(0), "{end}");
    }
    model.check(&mut Server::start_in(folder.path(), &[]).connect(), "k");
}

#[test]
fn without_a_log_the_last_checkpoint_survives() {
    let options = ["--appendonly", "no"];
    let folder = tempfile::tempdir().unwrap();
    let (mut saved, mut rng) = (Model::default(), Rng(18));
    let server = Server::start_in(folder.path(), &options);
    let mut client = server.connect();
    saved.run_random(&mut client, "k", &mut rng, 500, 200);
    client.check(&[("SAVE", "+OK")]);
    saved.clone().run_random(&mut client, "k", &mut rng, 500, 200);
    server.kill9();
    let server = Server::start_in(folder.path(), &options);
    let mut client = server.connect();
    saved.check(&mut client, "k");
    saved.run_random(&mut client, "k", &mut rng, 500, 200);
    assert_eq!(server.terminate("TERM").code(), Some(0));
    saved.check(&mut Server::start_in(folder.path(), &options).connect(), "k");
}

#[test]
fn removed_keys_stay_removed() {
    let folder = tempfile::tempdir().unwrap();
    for save in [false, true] {
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect();
        for key in ["a", "b", "c"] {
            client.check(&[(&format!("VADD {key} VALUES 1 1 x"), ":1")]);
        }
        if save {
            client.check(&[("SAVE", "+OK")]);
        }
        client.check(&[("DEL a", ":1"), ("VREM b x", ":1"), ("DBSIZE", ":1")]);
        server.kill9();
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect();
        client.check(&[("EXISTS a b c", ":1"), ("VADD a VALUES 2 1 2 y", ":1"), ("FLUSHALL", "+OK")]);
        server.kill9();
        let server = Server::start_in(folder.path(), &[]);
        server.connect().check(&[("DBSIZE", ":0"), ("VADD a VALUES 3 1 2 3 x", ":1"), ("DEL a", ":1")]);
    }
}

#[test]
fn changing_attributes_adds_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    let mut rng = Rng(19);
    let vectors: Vec<Vec<f32>> = (0..1000).map(|_| rng.vector(8)).collect();
    let add = |(index, vector): (usize, &Vec<f32>)| vadd("k", vector, &format!("e{index}"), "SETATTR old");
    client.pipeline(&vectors.iter().enumerate().map(add).collect::<Vec<_>>());
    let rows = |client: &mut Client| client.call(&words("VINFO k")).field("rows").clone();
    assert_eq!(rows(&mut client), Value::Integer(1000));
    for text in ["new", "newer"] {
        let set: Vec<Command> =
            (0..1000).map(|index| words(&format!("VSETATTR k e{index} {text}"))).collect();
        assert!(client.pipeline(&set).iter().all(|reply| *reply == Value::Integer(1)));
    }
    assert_eq!(rows(&mut client), Value::Integer(1000));
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    assert_eq!(rows(&mut client), Value::Integer(1000));
    client.check(&[("VGETATTR k e0", "newer"), ("VGETATTR k e999", "newer"), ("VCARD k", ":1000")]);
}

#[test]
fn files_of_others_do_not_hurt() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(20));
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("chunks")).unwrap();
    fs::create_dir_all(data.join("somebody's folder")).unwrap();
    let unknown =
        ["notes.txt", "core.1234", "dump.rdb", "log-.bak", "chunks/notes", "somebody's folder/file"];
    let leftover = [".tmp-1234", "chunks/.tmp-5678"];
    for name in unknown.iter().chain(&leftover) {
        fs::write(data.join(name), "something").unwrap();
    }
    for _ in 0..2 {
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect();
        model.check(&mut client, "k");
        model.run_random(&mut client, "k", &mut rng, 100, 50);
        client.check(&[("SAVE", "+OK")]);
        server.kill9();
    }
    model.check(&mut Server::start_in(folder.path(), &[]).connect(), "k");
    let files = files_below(&data);
    for name in unknown {
        assert!(files.iter().any(|file| file == name), "{name} was removed: {files:?}");
    }
}

#[test]
fn small_collections_have_no_files_of_their_own() {
    const KEYS: usize = 2000;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    let mut rng = Rng(21);
    let commands: Vec<Command> = (0..KEYS * 10)
        .map(|index| vadd(&format!("key{}", index / 10), &rng.vector(16), &format!("e{}", index % 10), ""))
        .collect();
    assert!(client.pipeline(&commands).iter().all(|reply| *reply == Value::Integer(1)));
    client.check(&[("SAVE", "+OK"), ("DBSIZE", &format!(":{KEYS}"))]);
    server.kill9();
    let files = files_below(&folder.path().join("data"));
    assert!(files.len() < 10, "{files:?}");
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    client.check(&[("DBSIZE", &format!(":{KEYS}")), ("VCARD key0", ":10"), ("VCARD key1999", ":10")]);
}
