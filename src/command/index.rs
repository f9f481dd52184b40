//! Graphs: VINDEX and VLINKS.

use super::parse::is_word;
use super::reply::Reply;
use super::vcreate::index_name;
use super::vectors::row_of;
use super::vsim::shown_score;
use super::{Call, CommandError, Outcome, WriteOp, live, unexpected};
use crate::collection::index::Covered;
use crate::collection::{Collection, GraphWish, RowId};
use crate::graph::Node;
use crate::store::change::Change;
use crate::vector::Query;

fn reply(reply: Reply) -> Result<Outcome, CommandError> {
    Ok(Outcome::Reply(reply))
}

fn number(value: usize) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// `VINDEX key (BUILD | DROP | STATUS)`. What is asked for holds until something else is.
pub(super) fn vindex(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    let word = call.request.arg(2);
    let wish = match word {
        _ if is_word(word, "BUILD") => Some(GraphWish::Build),
        _ if is_word(word, "DROP") => Some(GraphWish::Drop),
        _ if is_word(word, "STATUS") => None,
        _ => return Err(unexpected(word)),
    };
    let (namespace, key) = (call.namespace, call.key(1));
    Ok(Box::new(move |txn| {
        let Some(collection) = live(txn, namespace, &key) else {
            return CommandError::text("ERR key does not exist").into();
        };
        let Some(wish) = wish else { return status(&collection) };
        txn.apply(&Change::WishGraph { namespace, key: key.clone(), wish }, None);
        // Graphs are no part of the data: they go at once, and come when their thread sees the wish.
        let fields = txn.view().fields(namespace, &key).map(|(_, field)| field);
        for collection in fields.chain([&collection]) {
            match wish {
                GraphWish::Build => collection.index.build_again(),
                GraphWish::Drop | GraphWish::None => collection.index.clear(),
            }
        }
        Reply::ok()
    }))
}

fn status(collection: &Collection) -> Reply {
    let index = &collection.index;
    let (used, next) = (index.graph(), index.next());
    let state = match (&used, &next) {
        (_, Some(_)) => "building",
        (Some(_), None) => "ready",
        (None, None) => "none",
    };
    let shown = next.as_ref().or(used.as_ref());
    let unlinked = |graph: &Covered| graph.unlinked_rows(collection);
    let progress = |graph: &Covered| 1.0 - unlinked(graph) as f64 / collection.rows().max(1) as f64;
    let tuning = used.as_ref().and_then(|graph| graph.tuning());
    let fields = [
        ("index", Reply::simple(index_name(collection.params.index))),
        ("state", Reply::simple(state)),
        ("progress", Reply::Double(shown.map_or(0.0, |graph| progress(graph)))),
        ("nodes", number(shown.map_or(0, |graph| graph.graph.len()))),
        ("unlinked-rows", number(shown.map_or(collection.rows(), |graph| unlinked(graph)))),
        ("m", number(shown.map_or(collection.params.m as usize, |graph| graph.graph.m()))),
        ("max-level", number(used.as_ref().map_or(0, |graph| graph.graph.max_level()))),
        ("ef", tuning.map_or(Reply::Null, |tuning| number(tuning.ef))),
        ("recall", tuning.map_or(Reply::Null, |tuning| Reply::Double(tuning.recall))),
        ("searches", number(index.searches.load(std::sync::atomic::Ordering::Relaxed))),
        ("memory-bytes", number(index.size_bytes())),
    ];
    Reply::Map(fields.into_iter().map(|(name, value)| (Reply::simple(name), value)).collect())
}

/// `VLINKS key element [WITHSCORES]`: the neighbours in the graph, by levels from the top one down; without a graph, one level
/// with none.
pub(super) fn vlinks(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let scores = match call.request.get(3) {
        None => false,
        Some(word) if call.request.len() == 4 && is_word(word, "WITHSCORES") => true,
        Some(_) => return Err(CommandError::Arity("VLINKS".into())),
    };
    let Some(collection) = call.collection(1) else { return reply(Reply::Null) };
    let Some(row) = row_of(collection, call.request.arg(2))? else { return reply(Reply::Null) };
    let graph = collection.index.graph();
    let Some((graph, node)) = graph.as_ref().and_then(|graph| Some((graph, graph.node(row)?))) else {
        let level = if scores { Reply::Map(Vec::new()) } else { Reply::Array(Vec::new()) };
        return reply(Reply::Array(vec![level]));
    };
    let query =
        if scores { Some(Query::new(&collection.params.layout, &collection.vector(row)?)) } else { None };
    let levels = (0..=graph.graph.level(node)).rev();
    let levels: Result<Vec<Reply>, _> =
        levels.map(|level| neighbours(collection, graph, (node, level), query.as_ref())).collect();
    reply(Reply::Array(levels?))
}

/// A node's neighbours on a level that are elements, with their scores if there is a query.
fn neighbours(
    collection: &Collection,
    graph: &Covered,
    (node, level): (Node, usize),
    query: Option<&Query>,
) -> Result<Reply, CommandError> {
    let live = |row: &RowId| collection.chunk(*row).is_some_and(|chunk| chunk.is_live(row.offset()));
    let rows =
        graph.graph.neighbours(node, level).into_iter().filter_map(|node| graph.row(node)).filter(live);
    let name = |row| Reply::bulk(collection.name(row));
    let Some(query) = query else { return Ok(Reply::Array(rows.map(name).collect())) };
    let scored = rows.map(|row| {
        let score = shown_score(collection.params.layout.metric, query.exact(&collection.vector(row)?));
        Ok((name(row), Reply::Double(score)))
    });
    Ok(Reply::Map(scored.collect::<Result<_, CommandError>>()?))
}
