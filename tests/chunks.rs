//! A collection large enough for sealed chunks: their files, crashes around them, damage to them.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::data::Op;
use common::{Command, Model, Rng, Server, Value, files_below, words};

/// More than one chunk's 65,536 rows.
const ELEMENTS: usize = 70_000;
const DIM: usize = 8;

fn chunk_files(root: &Path) -> Vec<String> {
    let files = files_below(&root.join("data"));
    files.into_iter().filter(|name| name.starts_with("chunks/") && !name.contains(".tmp")).collect()
}

/// Adds all elements, half of them with attributes.
fn fill(server: &Server, model: &mut Model, rng: &mut Rng) {
    let ops: Vec<Op> = (0..ELEMENTS)
        .map(|index| {
            let attributes = index.is_multiple_of(2).then(|| format!("{{\"n\":{}}}", index % 100));
            Op::Add(format!("e{index}"), rng.vector(DIM), attributes)
        })
        .collect();
    model.run(&mut server.connect(), "k", &ops);
}

#[test]
fn sealed_chunks_and_the_changes_after_them_survive() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(31));
    let server = Server::start_in(folder.path(), &[]);
    fill(&server, &mut model, &mut rng);
    server.connect().check(&[("SAVE", "+OK")]);
    assert_eq!(chunk_files(folder.path()).len(), 1);
    // Updates, removals and attributes on sealed rows: in the log only, then in a checkpoint, then in the log again.
    let server = (0..3).fold(server, |server, round| {
        let mut client = server.connect();
        model.run_random(&mut client, "k", &mut rng, 3000, ELEMENTS);
        if round == 1 {
            client.check(&[("BGSAVE", "+Background saving started")]);
            model.run_random(&mut client, "k", &mut rng, 3000, ELEMENTS);
        }
        server.kill9();
        let server = Server::start_in(folder.path(), &[]);
        model.check(&mut server.connect(), "k");
        server
    });
    // What is found is what is there: each of some elements finds itself, removed ones are not found.
    let mut client = server.connect();
    let present: Vec<&String> = model.0.keys().step_by(997).collect();
    let searches: Vec<Command> =
        present.iter().map(|element| words(&format!("VSIM k ELE {element} COUNT 1 WITHSCORES"))).collect();
    for (answer, element) in client.pipeline(&searches).iter().zip(&present) {
        assert_eq!(answer.items()[0].text(), **element);
        assert!((answer.items()[1].number() - 1.0).abs() < 1e-6, "{answer}");
    }
    let removed: Vec<String> = (0..ELEMENTS)
        .map(|index| format!("e{index}"))
        .filter(|element| !model.0.contains_key(element))
        .collect();
    assert!(removed.len() > 100);
    for element in removed.iter().step_by(50) {
        client.check(&[(&format!("VISMEMBER k {element}"), ":0"), (&format!("VEMB k {element}"), "nil")]);
    }
    let info = client.call(&words("VINFO k"));
    assert_eq!(info.field("size"), &Value::Integer(model.0.len() as i64));
    let attributes = model.0.values().filter(|(_, attributes)| attributes.is_some()).count();
    assert_eq!(info.field("attributes-count"), &Value::Integer(attributes as i64));
}

#[test]
fn a_crash_before_the_checkpoint_that_counts_a_chunk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(32));
    let server = Server::start_in(folder.path(), &[]);
    fill(&server, &mut model, &mut rng);
    server.connect().check(&[("BGSAVE", "+Background saving started")]);
    server.kill9();
    for _ in 0..2 {
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect();
        model.check(&mut client, "k");
        model.run_random(&mut client, "k", &mut rng, 500, ELEMENTS);
        server.kill9();
    }
}

#[test]
fn chunk_files_go_with_their_collection() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(33));
    let server = Server::start_in(folder.path(), &[]);
    fill(&server, &mut model, &mut rng);
    server.connect().check(&[
        ("SAVE", "+OK"),
        ("DEL k", ":1"),
        ("VADD k VALUES 2 1 2 a", ":1"),
        ("SAVE", "+OK"),
    ]);
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    server.connect().check(&[("VCARD k", ":1"), ("VDIM k", ":2"), ("SAVE", "+OK")]);
    assert_eq!(server.terminate("TERM").code(), Some(0));
    assert_eq!(chunk_files(folder.path()), Vec::<String>::new());
}

/// Codes and tables are checked at the start, originals when they are first read: a flipped bit anywhere is either an
/// error that names the file, or not seen by what is asked.
#[test]
fn a_damaged_chunk_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(34));
    let server = Server::start_in(folder.path(), &[]);
    fill(&server, &mut model, &mut rng);
    assert_eq!(server.terminate("TERM").code(), Some(0));
    let name = chunk_files(folder.path()).pop().unwrap();
    let path = folder.path().join("data").join(&name);
    let sound = fs::read(&path).unwrap();
    let (mut at_start, mut on_reading) = (0, 0);
    for part in 1..12 {
        let mut damaged = sound.clone();
        damaged[sound.len() * part / 12] ^= 8;
        fs::write(&path, &damaged).unwrap();
        // A refused start says so; else the originals are damaged and reading them does.
        let server = match Server::try_start_in(folder.path(), &[]) {
            Ok(server) => server,
            Err((code, output)) => {
                at_start += 1;
                assert_eq!(code, Some(1), "{output}");
                assert!(output.contains(&name), "{output}");
                continue;
            }
        };
        let mut client = server.connect();
        let questions: Vec<Command> =
            model.0.keys().step_by(20).map(|element| words(&format!("VEMB k {element}"))).collect();
        let replies = client.pipeline(&questions);
        let expected = model.0.values().step_by(20);
        for (reply, (vector, _)) in replies.iter().zip(expected) {
            if reply.is_error() {
                on_reading += 1;
                assert!(reply.to_string().contains(&name), "{reply}");
            } else {
                let found: Vec<f64> = reply.items().iter().map(Value::number).collect();
                assert_eq!(found, vector.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            }
        }
        server.kill9();
    }
    assert!(at_start > 0 && on_reading > 0, "{at_start} {on_reading}");
    fs::write(&path, &sound).unwrap();
    model.check(&mut Server::start_in(folder.path(), &[]).connect(), "k");
}

/// Attributes that come and change beside few vectors: more than grows on after a checkpoint, and then more than one piece of
/// the state file takes.
#[test]
fn large_attributes_of_few_elements_survive_wherever_they_are_kept() {
    const FEW: usize = 24;
    const LARGE_BYTES: usize = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(35));
    let server = Server::start_in(folder.path(), &[]);
    let large = |letter: &str| letter.repeat(LARGE_BYTES);
    let adds: Vec<Op> =
        (0..FEW).map(|index| Op::Add(format!("e{index}"), rng.vector(DIM), Some(large("a")))).collect();
    model.run(&mut server.connect(), "k", &adds);
    server.connect().check(&[("SAVE", "+OK")]);
    assert_eq!(chunk_files(folder.path()).len(), 1);
    let changes: Vec<Op> = (0..FEW).map(|index| Op::SetAttributes(format!("e{index}"), large("b"))).collect();
    model.run(&mut server.connect(), "k", &changes);
    server.connect().check(&[("SAVE", "+OK")]);
    let data = folder.path().join("data");
    let state = files_below(&data).into_iter().find(|name| name.starts_with("state-")).unwrap();
    let state_bytes = fs::metadata(data.join(state)).unwrap().len();
    assert!(state_bytes > (FEW * LARGE_BYTES) as u64, "{state_bytes} bytes");
    server.kill9();
    model.check(&mut Server::start_in(folder.path(), &[]).connect(), "k");
}
