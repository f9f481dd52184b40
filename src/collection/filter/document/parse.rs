//! Makes tests of a JSON document.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::super::{FilterError, MAX_FILTER_DEPTH};
use super::test::{Literal, Order, Test};
use super::{Document, Node, PathTest};

/// A JSON value whose objects keep what is said twice: both hold then.
enum Json {
    Literal(Literal),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Literal(Literal::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Literal(Literal::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Literal(Literal::Number(value as f64)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Literal(Literal::Number(value as f64)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Literal(Literal::Number(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Literal(Literal::Text(value.as_bytes().into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Json::Object(fields))
    }
}

/// How deep brackets are nested; JSON's own parser stops at a depth of its own.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

impl Document {
    /// Parses a document whose length has been checked.
    ///
    /// # Errors
    /// [`FilterError::TooDeep`], or [`FilterError::Document`] with the place of what is not understood.
    pub fn parse(text: &[u8]) -> Result<Self, FilterError> {
        if depth(text) > MAX_FILTER_DEPTH {
            return Err(FilterError::TooDeep);
        }
        let json = serde_json::from_slice(text).map_err(|error| FilterError::Document {
            place: "is not JSON".to_owned(),
            what: error.to_string(),
        })?;
        Self::from_json(json, &mut Place::default(), false)
    }

    /// The document of a filter, or of operators.
    fn from_json(json: Json, place: &mut Place, operators: bool) -> Result<Self, FilterError> {
        let mut builder = Builder { tests: Vec::new() };
        let root =
            if operators { builder.operators(None, json, place)? } else { builder.filter(json, place)? };
        let mut paths: Vec<Box<[u8]>> = builder.tests.iter().filter_map(|(path, _)| path.clone()).collect();
        paths.sort_unstable();
        paths.dedup();
        let tests = builder.tests.into_iter().map(|(path, test)| {
            let path = path.and_then(|path| paths.binary_search(&path).ok());
            PathTest { path, test }
        });
        Ok(Self { tests: tests.collect(), paths, root })
    }
}

/// Where in the document something is.
#[derive(Default)]
struct Place(Vec<String>);

impl Place {
    fn error(&self, what: impl Into<String>) -> FilterError {
        let path = self.0.join(".").replace(".[", "[");
        let place = if path.is_empty() { "at its top".to_owned() } else { format!("at {path}") };
        FilterError::Document { place, what: what.into() }
    }

    fn inside<T>(
        &mut self,
        step: &str,
        act: impl FnOnce(&mut Self) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        self.0.push(step.to_owned());
        let result = act(self);
        self.0.pop();
        result
    }
}

struct Builder {
    tests: Vec<(Option<Box<[u8]>>, Test)>,
}

impl Builder {
    /// A filter: conditions of which all must hold.
    fn filter(&mut self, json: Json, place: &mut Place) -> Result<Node, FilterError> {
        let Json::Object(conditions) = json else { return Err(place.error("a filter is an object")) };
        let nodes = conditions.into_iter().map(|(name, json)| {
            place.inside(&name, |place| match name.as_str() {
                "$and" => self.filters(json, place).map(Node::All),
                "$or" => self.filters(json, place).map(Node::Any),
                "$not" => self.filter(json, place).map(|node| Node::Not(Box::new(node))),
                name if name.starts_with('$') => Err(place.error("there is no such operator here")),
                path => self.operators(Some(path), json, place),
            })
        });
        Ok(joined(nodes.collect::<Result<_, _>>()?))
    }

    fn filters(&mut self, json: Json, place: &mut Place) -> Result<Vec<Node>, FilterError> {
        match json {
            Json::Array(filters) if !filters.is_empty() => {
                let nodes = filters.into_iter().enumerate();
                nodes
                    .map(|(at, json)| place.inside(&format!("[{at}]"), |place| self.filter(json, place)))
                    .collect()
            }
            _ => Err(place.error("it takes a list of filters, of one at least")),
        }
    }

    /// What must hold for the value at a path, or for the whole value.
    fn operators(&mut self, path: Option<&str>, json: Json, place: &mut Place) -> Result<Node, FilterError> {
        let operators = match json {
            Json::Object(operators) if !operators.is_empty() => operators,
            Json::Object(_) => return Err(place.error("an operator is missing")),
            json => return Ok(self.test(path, Test::OneOf([literal(json, place)?].into()))),
        };
        let nodes = operators
            .into_iter()
            .map(|(name, json)| place.inside(&name, |place| self.operator(path, &name, json, place)));
        Ok(joined(nodes.collect::<Result<_, _>>()?))
    }

    fn operator(
        &mut self,
        path: Option<&str>,
        name: &str,
        json: Json,
        place: &mut Place,
    ) -> Result<Node, FilterError> {
        let negated = |node| Node::Not(Box::new(node));
        Ok(match name {
            "$eq" => self.test(path, Test::OneOf([literal(json, place)?].into())),
            "$ne" => negated(self.test(path, Test::OneOf([literal(json, place)?].into()))),
            "$in" => self.test(path, Test::OneOf(literals(json, place)?)),
            "$nin" => negated(self.test(path, Test::OneOf(literals(json, place)?))),
            "$gt" => self.test(path, Test::Compare(Order::Greater, bound(json, place)?)),
            "$gte" => self.test(path, Test::Compare(Order::GreaterOrEqual, bound(json, place)?)),
            "$lt" => self.test(path, Test::Compare(Order::Less, bound(json, place)?)),
            "$lte" => self.test(path, Test::Compare(Order::LessOrEqual, bound(json, place)?)),
            "$exists" => {
                let Json::Literal(Literal::Bool(wanted)) = json else {
                    return Err(place.error("it takes true or false"));
                };
                let exists = self.test(path, Test::Exists);
                if wanted { exists } else { negated(exists) }
            }
            "$contains" => self.test(path, Test::Contains(literal(json, place)?)),
            "$size" => {
                self.test(path, Test::Size(size(&json).ok_or_else(|| place.error("it takes a count"))?))
            }
            "$elemMatch" => {
                let Json::Object(fields) = &json else {
                    return Err(place.error("it takes an object"));
                };
                let is_filter = |name: &str| !name.starts_with('$') || matches!(name, "$and" | "$or");
                let of_objects = fields.iter().any(|(name, _)| is_filter(name));
                let document = Box::new(Document::from_json(json, place, !of_objects)?);
                self.test(path, Test::AnyItem { document, of_objects })
            }
            "$not" => match json {
                Json::Object(_) => negated(self.operators(path, json, place)?),
                _ => return Err(place.error("it takes an object of operators")),
            },
            _ => return Err(place.error("there is no such operator")),
        })
    }

    fn test(&mut self, path: Option<&str>, test: Test) -> Node {
        self.tests.push((path.map(|path| path.as_bytes().into()), test));
        Node::Test(self.tests.len() - 1)
    }
}

/// All of the nodes, as one.
fn joined(mut nodes: Vec<Node>) -> Node {
    match nodes.pop() {
        Some(only) if nodes.is_empty() => only,
        last => {
            nodes.extend(last);
            Node::All(nodes)
        }
    }
}

fn literal(json: Json, place: &Place) -> Result<Literal, FilterError> {
    match json {
        Json::Literal(literal) => Ok(literal),
        _ => Err(place.error("it takes a string, a number, a boolean or null")),
    }
}

fn literals(json: Json, place: &Place) -> Result<Box<[Literal]>, FilterError> {
    let Json::Array(items) = json else { return Err(place.error("it takes a list of values")) };
    items.into_iter().map(|item| literal(item, place)).collect()
}

fn bound(json: Json, place: &Place) -> Result<Literal, FilterError> {
    match json {
        Json::Literal(bound @ (Literal::Number(_) | Literal::Text(_))) => Ok(bound),
        _ => Err(place.error("it takes a number or a string")),
    }
}

/// A whole number of items. No attribute has as many as a larger number says.
fn size(json: &Json) -> Option<usize> {
    let Json::Literal(Literal::Number(number)) = json else { return None };
    let bounded = number.min(f64::from(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be a whole number"
    )]
    (bounded >= 0.0 && bounded.fract() == 0.0).then_some(bounded as usize)
}
