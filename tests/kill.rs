//! Eight writers and a server that is killed again and again: while it writes, takes checkpoints, seals chunks and
//! recovers. Everything that was acknowledged is there afterwards, and searches equal brute force.
//!
//! VECDIS_KILL_ROUNDS sets how many lives the server has.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::data::{Op, cosine};
use common::{Client, Model, Rng, Server, Value, command, fp32, words};

const ROUNDS: usize = 6;
/// Rounds after which a new folder is begun: what is replaced stays in the data.
const FOLDER_ROUNDS: usize = 10;
/// Those of them in which nothing is compacted.
const GROWING_ROUNDS: usize = 5;
const WRITERS: usize = 8;
/// Elements of each writer.
const ELEMENTS: usize = 60;
/// So large that a few thousand changes fill a chunk that a checkpoint seals.
const DIM: usize = 1024;
const POLICIES: [&str; 3] = ["always", "everysec", "no"];

/// One writer's view: what was acknowledged, and a change that may or may not have been made.
struct Writer {
    number: usize,
    model: Model,
    in_flight: Option<Op>,
    rng: Rng,
}

impl Writer {
    fn prefix(&self) -> String {
        format!("w{}-", self.number)
    }

    /// Changes one element at a time until the connection breaks.
    fn run(&mut self, server: &Server, acknowledged: &AtomicUsize) {
        let Ok(mut client) = Client::connect(server.address) else { return };
        let prefix = self.prefix();
        loop {
            let op = Op::random(&mut self.rng, &prefix, ELEMENTS, DIM);
            match client.try_call(&op.command("k")) {
                Ok(reply) => assert!(!reply.is_error(), "{reply}"),
                Err(_) => {
                    self.in_flight = Some(op);
                    return;
                }
            }
            self.model.apply(&op);
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Compares with what the server holds, and goes on from that.
    fn check(&mut self, client: &mut Client) {
        let elements = (0..ELEMENTS).map(|index| format!("{}{index}", self.prefix()));
        let found = Model::read(client, "k", elements);
        if found != self.model {
            let op = self.in_flight.take().expect("something acknowledged is lost");
            let mut ahead = self.model.clone();
            ahead.apply(&op);
            assert!(found == ahead, "something else than the change in flight differs: {}", op.element());
        }
        self.model = found;
        self.in_flight = None;
    }
}

/// Asks for checkpoints until the server is gone.
fn checkpoint_all_the_time(server: &Server, killed: &AtomicBool) -> usize {
    let Ok(mut client) = Client::connect(server.address) else { return 0 };
    let mut begun = 0;
    while !killed.load(Ordering::Relaxed) {
        let Ok(reply) = client.try_call(&words("BGSAVE")) else { break };
        begun += usize::from(!reply.is_error());
        std::thread::sleep(Duration::from_millis(10));
    }
    begun
}

/// Kills starting servers after a random time, so that some are hit while they recover.
fn kill_while_starting(root: &std::path::Path, rng: &mut Rng) {
    for _ in 0..2 {
        Server::start_and_kill(root, Duration::from_micros(rng.below(60_000) as u64));
    }
}

/// Compares exact searches with brute force over everything that is there.
fn check_searches(client: &mut Client, writers: &[Writer], rng: &mut Rng) {
    let all: Vec<(&String, &Vec<f32>)> = writers
        .iter()
        .flat_map(|writer| writer.model.0.iter().map(|(element, (vector, _))| (element, vector)))
        .collect();
    assert_eq!(client.ask("VCARD k"), format!(":{}", all.len()));
    for _ in 0..3 {
        let query = rng.vector(DIM);
        let mut best: Vec<f64> = all.iter().map(|(_, vector)| cosine(&query, vector)).collect();
        best.sort_by(|a, b| b.total_cmp(a));
        let mut question = command(&[b"VSIM", &b"k"[..], b"FP32", &fp32(&query)]);
        question.extend(words("COUNT 10 WITHSCORES TRUTH"));
        let Value::Array(reply) = client.call(&question) else { panic!("no hits") };
        assert_eq!(reply.len(), 2 * all.len().min(10));
        for (hit, best) in reply.chunks(2).zip(best) {
            // VSIM tells (1 + cosine) / 2.
            let told = 2.0 * hit[1].number() - 1.0;
            assert!((told - best).abs() < 1e-5, "{} has {told}, the best is {best}", hit[0]);
        }
    }
}

fn new_writers(seed: u64) -> Vec<Writer> {
    let writer = |number| {
        let rng = Rng(seed * WRITERS as u64 + number as u64);
        Writer { number, model: Model::default(), in_flight: None, rng }
    };
    (0..WRITERS).map(writer).collect()
}

#[test]
fn whenever_the_server_is_killed_nothing_acknowledged_is_lost() {
    let rounds = std::env::var("VECDIS_KILL_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let (mut folder, mut writers) = (tempfile::tempdir().unwrap(), new_writers(0));
    let mut rng = Rng(rounds as u64);
    let (acknowledged, mut checkpoints, mut chunks) = (AtomicUsize::new(0), 0, 0);
    for round in 0..rounds {
        if round > 0 && round % FOLDER_ROUNDS == 0 {
            (folder, writers) = (tempfile::tempdir().unwrap(), new_writers(round as u64));
        }
        // A small log leads to checkpoints by itself as well.
        let policy = POLICIES[round % POLICIES.len()];
        // Without compaction chunks grow until a checkpoint seals them; then they are compacted.
        let compaction = if round % FOLDER_ROUNDS < GROWING_ROUNDS { "0" } else { "20" };
        let options = [
            ["--appendfsync", policy],
            ["--auto-aof-rewrite-min-size", "4mb"],
            ["--compaction-percentage", compaction],
        ];
        let options = options.as_flattened();
        let server = Server::start_in(folder.path(), options);
        let killed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in &mut writers {
                let (server, acknowledged) = (&server, &acknowledged);
                scope.spawn(move || writer.run(server, acknowledged));
            }
            let asked = (round % 2 == 0).then(|| scope.spawn(|| checkpoint_all_the_time(&server, &killed)));
            std::thread::sleep(Duration::from_millis(100 + rng.below(900) as u64));
            server.signal("KILL");
            killed.store(true, Ordering::Relaxed);
            checkpoints += asked.map_or(0, |asked| asked.join().unwrap());
        });
        server.wait();
        kill_while_starting(folder.path(), &mut rng);
        let server = Server::start_in(folder.path(), options);
        let mut client = server.connect();
        writers.iter_mut().for_each(|writer| writer.check(&mut client));
        check_searches(&mut client, &writers, &mut rng);
        server.kill9();
        chunks = chunks.max(
            common::files_below(&folder.path().join("data"))
                .iter()
                .filter(|name| name.ends_with(".vdc"))
                .count(),
        );
    }
    let acknowledged = acknowledged.into_inner();
    println!(
        "{rounds} rounds: {acknowledged} acknowledged, {checkpoints} checkpoints asked for, at most {chunks} chunks"
    );
    assert!(acknowledged > 0 && checkpoints > 0);
    assert!(chunks > 0 || rounds < FOLDER_ROUNDS, "chunks are sealed");
}
