//! VMODEL: the models that embed texts.

use std::sync::Arc;
use std::time::Instant;

use super::parse::is_word;
use super::reply::Reply;
use super::request::Request;
use super::{CommandError, Context, Waiting};
use crate::embed::{EmbedError, Model, Role, Text};
use crate::hex;

/// Models one BENCH may compare.
const MAX_BENCH_MODELS: usize = 16;
/// Times BENCH embeds its texts, each time with another number in them so that the cache does not answer.
const BENCH_ROUNDS: usize = 4;

/// Pairs of sentences that mean about the same, for BENCH: each against its partner and against the others.
const PAIRS: [(&str, &str); 12] = [
    ("A child plays football in the park", "A kid is kicking a ball on the grass"),
    ("The invoice must be paid within thirty days", "Payment is due one month after the bill"),
    ("Heavy rain flooded the streets of the town", "The roads were under water after the storm"),
    ("She cooked pasta with tomatoes and basil", "He prepared spaghetti in a tomato sauce"),
    ("The patient was given antibiotics for the infection", "A doctor treated the disease with drugs"),
    (
        "The train to Paris leaves at noon",
        "At twelve o'clock a railway service departs for the French capital",
    ),
    (
        "Interest rates were raised by the central bank",
        "The monetary authority made borrowing more expensive",
    ),
    ("The telescope photographed a distant galaxy", "Astronomers took a picture of far-away stars"),
    ("Our cat sleeps on the sofa all day", "The kitten naps on the couch"),
    ("The programmer fixed an error in the software", "A developer corrected a bug in the code"),
    ("The jury found the defendant guilty", "The court convicted the accused"),
    ("Wheat is harvested in late summer", "Farmers gather the grain in August"),
];

/// `VMODEL LIST | INFO name | LOAD name | UNLOAD name | DEFAULT [name] | BENCH name [name ...]`
pub(super) fn vmodel(context: &Arc<Context>, request: &Request) -> Result<Waiting, CommandError> {
    let verb = request.arg(1);
    let names: Vec<String> =
        request.args().skip(2).map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let context = Arc::clone(context);
    let work: Work = match (&names[..], verb) {
        ([], verb) if is_word(verb, "LIST") => Box::new(list),
        ([], verb) if is_word(verb, "DEFAULT") => {
            Box::new(|context| Ok(bulk(&context.config().embedding_model)))
        }
        ([name], verb) if is_word(verb, "DEFAULT") => named(name, set_default),
        ([name], verb) if is_word(verb, "INFO") => named(name, info),
        ([name], verb) if is_word(verb, "LOAD") => named(name, load),
        ([name], verb) if is_word(verb, "UNLOAD") => named(name, unload),
        ([_, ..], verb) if is_word(verb, "BENCH") && names.len() <= MAX_BENCH_MODELS => {
            let names = names.clone();
            Box::new(move |context| {
                names.iter().map(|name| bench(context, name)).collect::<Result<_, _>>().map(Reply::Array)
            })
        }
        _ => return Err(super::unexpected(verb)),
    };
    // Files are read and models run: not on a thread that serves.
    Ok(Box::pin(async move {
        let done = tokio::task::spawn_blocking(move || work(&context).unwrap_or_else(Reply::from)).await;
        done.unwrap_or_else(|_| Reply::error("ERR the server is shutting down"))
    }))
}

fn bulk(text: &str) -> Reply {
    Reply::bulk(text.as_bytes())
}

type Work = Box<dyn FnOnce(&Context) -> Result<Reply, CommandError> + Send>;

fn named(name: &str, run: fn(&Context, &str) -> Result<Reply, CommandError>) -> Work {
    let name = name.to_owned();
    Box::new(move |context| run(context, &name))
}

fn list(context: &Context) -> Result<Reply, CommandError> {
    let default = context.config().embedding_model.clone();
    let models = context.embedding.registry.all();
    Ok(Reply::Array(models.iter().map(|model| describe(model, &default)).collect()))
}

fn info(context: &Context, name: &str) -> Result<Reply, CommandError> {
    let default = context.config().embedding_model.clone();
    Ok(describe(&*context.embedding.registry.get(name)?, &default))
}

fn describe(model: &Model, default: &str) -> Reply {
    let hash = hex::encode(&model.id.hash);
    let fields = [
        ("name", bulk(&model.id.name)),
        ("kind", bulk(model.kind())),
        ("dims", Reply::integer(model.dims)),
        ("max-tokens", Reply::integer(model.max_tokens)),
        ("hash", bulk(&hash)),
        ("licence", bulk(model.licence())),
        ("loaded", Reply::Boolean(model.is_loaded())),
        ("default", Reply::Boolean(model.id.name == default)),
    ];
    Reply::fields(fields)
}

fn load(context: &Context, name: &str) -> Result<Reply, CommandError> {
    context.embedding.load(&*context.embedding.registry.get(name)?)?;
    Ok(Reply::ok())
}

fn unload(context: &Context, name: &str) -> Result<Reply, CommandError> {
    Ok(Reply::Boolean(context.embedding.registry.unload(name)))
}

fn set_default(context: &Context, name: &str) -> Result<Reply, CommandError> {
    context.embedding.registry.embedder(name)?;
    let mut config = context.config.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    name.clone_into(&mut config.embedding_model);
    Ok(Reply::ok())
}

/// Speed of a model and how far it tells related from unrelated sentences.
fn bench(context: &Context, name: &str) -> Result<Reply, CommandError> {
    let model = context.embedding.registry.embedder(name)?;
    context.embedding.load(&model)?;
    let embed = |texts: Vec<String>| {
        let (role, payer) = (Role::Document, Arc::default());
        let text = |text: String| Text {
            model: Arc::clone(&model),
            role: role.clone(),
            text: text.into(),
            payer: Arc::clone(&payer),
            realm: 0,
        };
        let answers = context.embedding.embed(texts.into_iter().map(text).collect()).blocking_recv();
        answers.map_err(|_| EmbedError::Stopped)?.into_iter().collect::<Result<Vec<_>, _>>()
    };
    let sentences = || PAIRS.iter().flat_map(|(a, b)| [*a, *b]);
    let vectors = embed(sentences().map(str::to_owned).collect())?;
    let began = Instant::now();
    let salt = context.started_ms;
    for round in 0..BENCH_ROUNDS {
        let stamp = began.elapsed().as_nanos();
        embed(sentences().map(|text| format!("{text} {salt} {stamp} {round}")).collect())?;
    }
    let texts = (BENCH_ROUNDS * vectors.len()) as f64;
    let seconds = began.elapsed().as_secs_f64();
    let fields = [
        ("name", bulk(name)),
        ("dims", Reply::integer(model.dims)),
        ("texts-per-second", Reply::Double(texts / seconds)),
        ("ms-per-text", Reply::Double(seconds * 1000.0 / texts)),
        ("contrast", Reply::Double(contrast(&vectors))),
    ];
    Ok(Reply::fields(fields))
}

/// Mean cosine of the sentences of a pair minus that of sentences of different pairs.
fn contrast(vectors: &[crate::embed::Vector]) -> f64 {
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let (mut related, mut unrelated) = (Vec::new(), Vec::new());
    for (at, a) in vectors.iter().enumerate() {
        for (other, b) in vectors.iter().enumerate().skip(at + 1) {
            let pair = at / 2 == other / 2;
            if pair { &mut related } else { &mut unrelated }.push(cosine(a, b));
        }
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    mean(&related) - mean(&unrelated)
}
