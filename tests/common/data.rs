//! Generated data, and a model of what a collection should hold.

use std::collections::BTreeMap;

use super::client::{Client, Command, command, vadd};

/// A small generator of random numbers, the same for every run (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Nearly normal with variance 1: a sum of twelve uniform numbers.
    pub fn normal(&mut self) -> f32 {
        ((0..12).map(|_| self.unit()).sum::<f64>() - 6.0) as f32
    }

    pub fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.normal()).collect()
    }
}

/// Vectors in clusters, as embeddings of real things are.
pub fn clustered(rng: &mut Rng, count: usize, dim: usize) -> Vec<Vec<f32>> {
    let clusters = count.div_ceil(50);
    let centres: Vec<Vec<f32>> = (0..clusters).map(|_| rng.vector(dim)).collect();
    (0..count)
        .map(|_| {
            let centre = &centres[rng.below(clusters)];
            centre.iter().map(|component| component + 0.4 * rng.normal()).collect()
        })
        .collect()
}

/// Cosine in f64.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// What a collection should hold: element -> vector and attributes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model(pub BTreeMap<String, (Vec<f32>, Option<String>)>);

/// One change of a [`Model`].
#[derive(Clone, Debug)]
pub enum Op {
    Add(String, Vec<f32>, Option<String>),
    Remove(String),
    SetAttributes(String, String),
}

impl Op {
    pub fn element(&self) -> &str {
        let (Self::Add(element, ..) | Self::Remove(element) | Self::SetAttributes(element, _)) = self;
        element
    }

    pub fn command(&self, key: &str) -> Command {
        match self {
            Self::Add(element, vector, None) => vadd(key, vector, element, ""),
            Self::Add(element, vector, Some(text)) => {
                vadd(key, vector, element, &format!("SETATTR '{text}'"))
            }
            Self::Remove(element) => command(&["VREM", key, element]),
            Self::SetAttributes(element, text) => command(&["VSETATTR", key, element, text]),
        }
    }

    /// A random change of one of the elements `prefix0`, `prefix1`, ... below `elements`.
    pub fn random(rng: &mut Rng, prefix: &str, elements: usize, dim: usize) -> Self {
        let element = format!("{prefix}{}", rng.below(elements));
        let attributes = |rng: &mut Rng| format!("{{\"n\":{}}}", rng.below(1000));
        match rng.below(10) {
            0 => Self::Remove(element),
            1..3 => Self::SetAttributes(element, attributes(rng)),
            3..6 => Self::Add(element, rng.vector(dim), Some(attributes(rng))),
            _ => Self::Add(element, rng.vector(dim), None),
        }
    }
}

impl Model {
    pub fn apply(&mut self, op: &Op) {
        match op.clone() {
            Op::Add(element, vector, attributes) => {
                let entry = self.0.entry(element).or_default();
                entry.0 = vector;
                entry.1 = attributes.or(entry.1.take());
            }
            Op::Remove(element) => drop(self.0.remove(&element)),
            Op::SetAttributes(element, text) => {
                if let Some(entry) = self.0.get_mut(&element) {
                    entry.1 = Some(text);
                }
            }
        }
    }

    /// Applies changes here and in the server.
    pub fn run(&mut self, client: &mut Client, key: &str, ops: &[Op]) {
        let commands: Vec<Command> = ops.iter().map(|op| op.command(key)).collect();
        for (reply, op) in client.pipeline(&commands).iter().zip(ops) {
            assert!(!reply.is_error(), "{op:?}: {reply}");
            self.apply(op);
        }
    }

    /// Random changes of the elements `e0`, `e1`, ... below `elements`.
    pub fn run_random(
        &mut self,
        client: &mut Client,
        key: &str,
        rng: &mut Rng,
        changes: usize,
        elements: usize,
    ) {
        let ops: Vec<Op> = (0..changes).map(|_| Op::random(rng, "e", elements, 8)).collect();
        self.run(client, key, &ops);
    }

    /// Reads elements back; those that are not there are left out.
    pub fn read(client: &mut Client, key: &str, elements: impl Iterator<Item = String>) -> Self {
        let elements: Vec<String> = elements.collect();
        let questions: Vec<Command> = elements
            .iter()
            .flat_map(|element| [command(&["VEMB", key, element]), command(&["VGETATTR", key, element])])
            .collect();
        let replies = client.pipeline(&questions);
        let mut model = Self::default();
        for (element, answers) in elements.into_iter().zip(replies.chunks(2)) {
            if let super::Value::Array(items) = &answers[0] {
                let vector = items.iter().map(|item| item.number() as f32).collect();
                let attributes = (answers[1] != super::Value::Null).then(|| answers[1].text());
                model.0.insert(element, (vector, attributes));
            }
        }
        model
    }

    /// Compares with the server: the same elements, vectors bit for bit, attributes.
    #[track_caller]
    pub fn check(&self, client: &mut Client, key: &str) {
        assert_eq!(client.ask(&format!("VCARD {key}")), format!(":{}", self.0.len()));
        let found = Self::read(client, key, self.0.keys().cloned());
        for (element, expected) in &self.0 {
            assert_eq!(found.0.get(element), Some(expected), "{element}");
        }
    }
}
