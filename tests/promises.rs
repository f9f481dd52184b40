//! The promises of the server about data and safety, one test for each, through a real server. The simulated disk
//! (`src/store/tests_crash.rs`) and the tests of single modules go deeper; here is what a user would see.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::data::Op;
use common::{
    Client, Command, Model, Rng, Server, Value, WAIT_MAX, command, copy_folder, files_below, fp32,
    refused_start, vadd, words,
};

/// Rows and dimension of a collection whose originals a checkpoint seals into a file of its own.
const SEALED_ROWS: usize = 4200;
const SEALED_DIM: usize = 1024;

/// The number after `field:` in INFO.
fn info(client: &mut Client, field: &str) -> u64 {
    let text = client.ask("INFO");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {field} in {text}")).trim().parse().unwrap()
}

/// The files of the data folder whose names begin with `prefix`.
fn files(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let data = root.join("data");
    files_below(&data)
        .into_iter()
        .filter(|name| name.starts_with(prefix))
        .map(|name| data.join(name))
        .collect()
}

/// Inverts a bit of a file.
fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 8;
    fs::write(file, bytes).unwrap();
}

fn sealed_vectors() -> Vec<Vec<f32>> {
    let mut rng = Rng(40);
    (0..SEALED_ROWS).map(|_| rng.vector(SEALED_DIM)).collect()
}

/// A data folder with one sealed chunk and a log of `tail` records, left by a killed server.
fn sealed_folder(root: &Path, vectors: &[Vec<f32>], tail: usize) {
    let server = Server::start_in(root, &[]);
    let mut client = server.connect();
    let adds: Vec<Command> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| vadd("k", vector, &format!("e{index}"), ""))
        .collect();
    assert!(client.pipeline(&adds).iter().all(|reply| *reply == Value::Integer(1)));
    client.check(&[("SAVE", "+OK")]);
    for index in 0..tail {
        client.check(&[(&format!("VADD tail VALUES 2 1 {index} t{index}"), ":1")]);
    }
    server.kill9();
    assert_eq!(files(root, "chunks/").len(), 1);
}

#[test]
fn p01_what_was_answered_survives_a_crash() {
    for policy in ["always", "everysec", "no"] {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start_in(folder.path(), &["--appendfsync", policy]);
        let (mut client, mut model) = (server.connect(), Model::default());
        model.run_random(&mut client, "k", &mut Rng(1), 500, 100);
        if policy == "always" {
            assert_eq!(info(&mut client, "log_unsynced_records"), 0);
        } else if policy == "no" {
            assert!(info(&mut client, "log_unsynced_records") > 0);
        }
        server.kill9();
        model.check(&mut Server::start_in(folder.path(), &[]).connect(), "k");
    }
}

#[test]
fn p02_each_command_and_each_transaction_is_there_as_a_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    let mut lines = Vec::new();
    for index in 0..20 {
        lines.push(format!("VADD single VALUES 2 1 1 e{index}"));
        let body = (0..3).map(|at| format!("VADD multi VALUES 2 1 1 e{index}-{at}"));
        lines.extend(["MULTI".to_owned()].into_iter().chain(body).chain(["EXEC".to_owned()]));
    }
    client.pipeline(&lines.iter().map(|line| words(line)).collect::<Vec<_>>());
    server.kill9();
    let mut rng = Rng(2);
    for _ in 0..40 {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        let log = &files(copy.path(), "log-")[0];
        let whole = fs::read(log).unwrap();
        fs::write(log, &whole[..36 + rng.below(whole.len() - 36)]).unwrap();
        let server = Server::start_in(copy.path(), &[]);
        let mut client = server.connect();
        let count = |client: &mut Client, key| client.call(&words(&format!("VCARD {key}"))).number() as i64;
        let (singles, members) = (count(&mut client, "single"), count(&mut client, "multi"));
        assert!(members % 3 == 0, "{members} members of transactions of three");
        assert!(singles == members / 3 || singles == members / 3 + 1, "{singles} and {members}");
        let ends = [format!("e{}-2", members / 3 - 1), format!("e{}-0", members / 3)];
        let found = ends.map(|name| client.ask(&format!("VISMEMBER multi {name}")));
        assert!(members == 0 || found == [":1", ":0"], "{members}: {found:?}");
        server.kill9();
    }
}

#[test]
fn p03_after_a_failed_write_reads_go_on_and_writes_resume_in_a_new_file() {
    const FILE_BYTES: u64 = 64 << 10;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_limited(folder.path(), &["--appendfsync", "always"], FILE_BYTES);
    let (mut client, mut model, mut rng) = (server.connect(), Model::default(), Rng(3));
    let mut refused = 0;
    for index in 0..20 {
        model.run(&mut client, "k", &[Op::Add(format!("e{index}"), rng.vector(8), None)]);
    }
    // New attributes make the log grow, not what a checkpoint holds.
    for index in 0..1000 {
        let op = Op::SetAttributes(format!("e{}", index % 20), format!("{index:200}"));
        let reply = client.call(&op.command("k"));
        if reply.is_error() {
            let text = reply.text();
            assert!(
                text.starts_with("MISCONF Errors writing to the AOF file: ") && text.contains("log-"),
                "{text}"
            );
            refused += 1;
            model.check(&mut client, "k");
            let begin = std::time::Instant::now();
            while client.call(&op.command("k")).is_error() {
                assert!(begin.elapsed() < WAIT_MAX, "writes do not resume");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        model.apply(&op);
    }
    assert!(refused >= 3, "the file was full {refused} times");
    assert_eq!(info(&mut client, "log_failures"), refused);
    assert!(client.ask("INFO persistence").contains("aof_last_write_status:ok"));
    model.check(&mut client, "k");
    server.kill9();
    model.check(&mut Server::start_in(folder.path(), &[]).connect(), "k");
}

#[test]
fn p04_a_torn_tail_is_cut_and_told_and_damage_before_it_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut model = Model::default();
    model.run_random(&mut server.connect(), "k", &mut Rng(4), 300, 50);
    server.kill9();
    let log = &files(folder.path(), "log-")[0];
    let whole = fs::read(log).unwrap();
    flip(log, whole.len() / 2);
    let (code, output) = refused_start(folder.path(), &[]);
    let name = log.file_name().unwrap().to_str().unwrap();
    let told = |line: &str| line.contains(name) && line.contains("damaged at byte");
    assert!(code == Some(1) && output.lines().any(told), "{output}");
    fs::write(log, [&whole[..], &[7; 100]].concat()).unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    assert_eq!(info(&mut client, "log_cut_bytes"), 100);
    model.check(&mut client, "k");
}

#[test]
fn p05_a_flipped_bit_is_an_error_that_names_the_file_and_never_a_wrong_answer() {
    let sound = tempfile::tempdir().unwrap();
    let vectors = sealed_vectors();
    sealed_folder(sound.path(), &vectors, 3);
    let content = fs::read(&files(sound.path(), "chunks/")[0]).unwrap();
    let originals_at =
        content.windows(64).rposition(|window| window == &fp32(&vectors[0])[..64]).expect("the originals");

    // Codes, tables and the small files: the server does not start.
    let mut damages: Vec<(&str, usize)> =
        [70, 9000, originals_at / 3, originals_at / 2].map(|at| ("chunks/", at)).to_vec();
    for prefix in ["manifest", "state-"] {
        let len = fs::read(&files(sound.path(), prefix)[0]).unwrap().len();
        damages.extend([20, len / 2, len - 1].map(|at| (prefix, at)));
    }
    for (prefix, at) in damages {
        let file = &files(sound.path(), prefix)[0];
        flip(file, at);
        let (code, output) = refused_start(sound.path(), &[]);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(
            code == Some(1) && output.contains(name) && output.contains("damaged"),
            "byte {at}: {output}"
        );
        flip(file, at);
    }
    // Originals: all others are served; a question that needs the bad block is answered with an error.
    let chunk = &files(sound.path(), "chunks/")[0];
    let bad = 2000;
    flip(chunk, originals_at + bad * SEALED_DIM * 4 + 5);
    let server = Server::start_in(sound.path(), &[]);
    let mut client = server.connect();
    for _ in 0..2 {
        for ask in [words(&format!("VEMB k e{bad}")), vsim(&vectors[bad], "")] {
            let reply = client.call(&ask);
            let name = chunk.file_name().unwrap().to_str().unwrap();
            assert!(reply.is_error() && reply.text().contains(name), "{reply}");
        }
    }
    for good in [0, 1000, 3000, SEALED_ROWS - 1] {
        let reply = client.call(&words(&format!("VEMB k e{good}")));
        let found: Vec<f32> = reply.items().iter().map(|item| item.number() as f32).collect();
        assert_eq!(found, vectors[good]);
    }
    client.check(&[("VCARD k", &format!(":{SEALED_ROWS}")), ("VADD k2 VALUES 1 1 a", ":1"), ("SAVE", "+OK")]);
}

fn vsim(vector: &[f32], options: &str) -> Command {
    let mut question = command(&[b"VSIM", &b"k"[..], b"FP32", &fp32(vector)]);
    question.extend(words(options));
    question
}

#[test]
fn p06_files_of_others_stay_and_a_second_server_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("chunks")).unwrap();
    let theirs = ["notes", "log-5.vdl", "state-x.vds", "chunks/picture.png"];
    let ours = [".tmp-manifest", "chunks/.tmp-0.vdc", "chunks/0000000000000009-00000000.vdc"];
    theirs.iter().chain(&ours).for_each(|name| fs::write(data.join(name), "something").unwrap());
    let server = Server::start_in(folder.path(), &[]);
    let (code, output) = refused_start(folder.path(), &[]);
    assert!(code == Some(1) && output.contains("is in use by another server"), "{output}");
    server.connect().check(&[("VADD k VALUES 1 1 a", ":1"), ("SAVE", "+OK")]);
    let files = files_below(&data);
    assert!(theirs.iter().all(|name| files.contains(&(*name).to_owned())), "{files:?}");
    assert!(ours.iter().all(|name| !files.contains(&(*name).to_owned())), "{files:?}");
}

/// What `write_a_data_folder_to_keep` in `src/store/tests.rs` wrote.
fn kept_content() -> BTreeMap<&'static str, Model> {
    let vector = |element: u16, shift: f32| -> Vec<f32> {
        (0..8).map(|at| f32::from(element * 8 + at) - 700.0 + shift).collect()
    };
    let five = |attributes: Option<&str>| {
        let entry = |element| (format!("e{element}"), (vector(element, 0.0), attributes.map(str::to_owned)));
        Model((0..5).map(entry).collect())
    };
    let mut sealed = Model::default();
    for element in (0..200).filter(|element| *element != 10) {
        let shift = if element < 10 { 0.5 } else { f32::from(u8::from(element == 20)) / 4.0 };
        let attributes = match element {
            12 => Some("changed".to_owned()),
            _ => (element % 2 == 0).then(|| "{\"n\":1}".to_owned()),
        };
        sealed.0.insert(format!("e{element}"), (vector(element, shift), attributes));
    }
    BTreeMap::from([("sealed", sealed), ("partial", five(None)), ("renamed", five(Some("new")))])
}

#[test]
fn p07_older_data_opens_and_newer_data_refuses() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data-1");
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&kept, &folder.path().join("data"));
    for name in files_below(&kept) {
        let file = folder.path().join("data").join(&name);
        let sound = fs::read(&file).unwrap();
        let mut newer = sound.clone();
        newer[8] += 1;
        let crc = crc32fast::hash(&newer[..12]);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        fs::write(&file, newer).unwrap();
        let (code, output) = refused_start(folder.path(), &[]);
        let told = |line: &str| line.contains(&name) && line.contains("newer than this program can read");
        assert!(code == Some(1) && output.lines().any(told), "{name}: {output}");
        fs::write(&file, sound).unwrap();
    }
    for _ in 0..2 {
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect();
        client.check(&[("DBSIZE", ":3")]);
        for (key, model) in kept_content() {
            model.check(&mut client, key);
        }
        client.check(&[("SAVE", "+OK")]);
        server.kill9();
    }
}

#[test]
fn p08_hostile_requests_neither_crash_nor_grow_the_server() {
    let server = Server::start(&[]);
    server.connect().check(&[("VADD k VALUES 1 1 a", ":1")]);
    let before = server.memory_bytes("VmHWM");
    let streams: [Vec<u8>; 7] = [
        b"*1\r\n".repeat(1_000_000),
        b"*2147483648\r\n".to_vec(),
        b"*1\r\n$9999999999\r\n".to_vec(),
        b"*-5\r\n$-7\r\n".to_vec(),
        b"*3\r\n$4\r\nVADD\n$1\r\nk\r\n".to_vec(),
        b"*1\r\n$500000000\r\nx".to_vec(),
        vec![b'('; 100_000],
    ];
    let mut open = Vec::new();
    for stream in streams {
        let mut client = server.connect();
        // The server may close the connection before all is sent.
        let _ = std::io::Write::write_all(&mut client.stream, &stream);
        open.push(client);
    }
    for line in [
        "VADD k VALUES 1000000000 1 b",
        "VADD k VALUES 0 b",
        &format!("VSIM k VALUES 1 1 FILTER {}", "(".repeat(8000)),
    ] {
        let reply = server.connect().ask(line);
        assert!(reply.starts_with("-ERR"), "{}: {reply}", &line[..30]);
    }
    server.connect().check(&[("VCARD k", ":1")]);
    let grown = server.memory_bytes("VmHWM") - before;
    assert!(grown < 64 << 20, "grown by {grown} bytes");
}

#[test]
fn p09_no_secret_is_told() {
    const SECRET: &str = "correct-horse-battery";
    let server = Server::start(&["--requirepass", SECRET, "--loglevel", "debug"]);
    let mut client = server.connect();
    let mut told = vec![client.ask(&format!("AUTH {SECRET}x")), client.ask(&format!("AUTH {SECRET}"))];
    assert_eq!(told[1], "+OK");
    for line in [
        "CONFIG GET *".to_owned(),
        "INFO everything".to_owned(),
        "CLIENT LIST".to_owned(),
        "CONFIG SET requirepass new-secret loglevel loud".to_owned(),
        format!("HELLO 9 AUTH default {SECRET}"),
        format!("AUTH default {SECRET} more"),
        format!("CONFIG SET requirepass {SECRET}"),
    ] {
        told.push(client.ask(&line));
    }
    told.push(server.output());
    for text in told {
        assert!(!text.contains(SECRET) && !text.contains("new-secret"), "{text}");
    }
}

#[test]
fn p10_nothing_outside_the_data_folder_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &["--appendfsync", "always"]);
    let (mut client, mut model) = (server.connect(), Model::default());
    model.run_random(&mut client, "../../escape", &mut Rng(10), 200, 50);
    model.run_random(&mut client, "/tmp/escape", &mut Rng(11), 200, 50);
    client.check(&[("SAVE", "+OK")]);
    let inside = folder.path().canonicalize().unwrap();
    // What whoever runs the tests has left open is inherited.
    let inherited: Vec<_> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .collect();
    let mut open = server.open_files();
    open.retain(|name| !inherited.iter().any(|path| path.as_os_str() == name.as_str()));
    let foreign = open.iter().filter(|name| {
        let harmless = ["socket:", "pipe:", "anon_inode:", "/dev/null", "/proc/", "/sys/"];
        !harmless.iter().any(|prefix| name.starts_with(prefix)) && !Path::new(name).starts_with(&inside)
    });
    assert_eq!(foreign.count(), 0, "{open:?}");
    // One socket for listening, one for the client, and a pair for signals; none goes out.
    let sockets: BTreeSet<_> = open.iter().filter(|name| name.starts_with("socket:")).collect();
    assert!(sockets.len() <= 4, "{open:?}");
    let mut names: Vec<String> = files_below(folder.path());
    names.retain(|name| !name.starts_with("data/") && name != "output");
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn p11_the_same_log_leads_to_the_same_state_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &["--enable-debug-command", "yes"]);
    let (mut client, mut rng) = (server.connect(), Rng(12));
    for key in ["a", "b", "c"] {
        Model::default().run_random(&mut client, key, &mut rng, 500, 100);
    }
    client.check(&[("RENAME a d", "+OK"), ("DEL b", ":1"), ("EXPIRE c 100000", ":1")]);
    let digests = client.ask("DEBUG DIGEST-VALUE c d");
    server.kill9();
    let mut states = Vec::new();
    for _ in 0..2 {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        let server = Server::start_in(copy.path(), &["--enable-debug-command", "yes"]);
        let mut client = server.connect();
        client.check(&[("DEBUG DIGEST-VALUE c d", &digests), ("SAVE", "+OK")]);
        server.kill9();
        let [state] = &files(copy.path(), "state-")[..] else { panic!("one state file") };
        states.push((state.file_name().unwrap().to_owned(), fs::read(state).unwrap()));
    }
    assert!(states[0] == states[1]);
}

#[test]
fn p12_an_update_is_as_durable_as_an_insert() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &["--appendfsync", "always"]);
    server.connect().check(&[
        ("VADD k VALUES 2 1 0 a SETATTR old", ":1"),
        ("SAVE", "+OK"),
        ("VADD k VALUES 2 0 1 a SETATTR new", ":0"),
    ]);
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    server.connect().check(&[("VEMB k a", "[0 1]"), ("VGETATTR k a", "new"), ("VCARD k", ":1")]);
}

#[test]
fn p13_a_restart_maps_sealed_chunks_and_replays_only_the_tail() {
    let folder = tempfile::tempdir().unwrap();
    let vectors = sealed_vectors();
    sealed_folder(folder.path(), &vectors, 7);
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    assert_eq!(info(&mut client, "log_replayed_records"), 7);
    let originals_bytes = (SEALED_ROWS * SEALED_DIM * 4) as u64;
    let used_bytes = info(&mut client, "used_memory");
    assert!(used_bytes < originals_bytes / 2, "{used_bytes} bytes of heap for mapped rows");
    assert_eq!(client.call(&vsim(&vectors[77], "COUNT 1")).items()[0].text(), "e77");
    client.check(&[("VCARD tail", ":7")]);
}
