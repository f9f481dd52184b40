//! Columns find the rows that the row evaluator finds, before and after attributes are edited. The first line of the input is
//! the expression, each further one the attributes of an element.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vecdis::collection::columns::{judge, passing};
use vecdis::collection::filter::Filter;
use vecdis::collection::{AttributeChange, Attributes, Collection, Encoded, Params, TextChange};
use vecdis::vector::{Layout, Metric, Quantization};

/// Elements made of the lines, again and again: columns are for many rows.
const ELEMENTS: usize = 130;

fn check(collection: &Collection, filter: &Filter) {
    for chunk in &collection.chunks {
        for first in [0, chunk.live.len() / 2] {
            let rows = &chunk.live[first..];
            assert_eq!(passing(chunk, filter, first, rows), judge(chunk, filter, first, rows));
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|&byte| byte == b'\n');
    let filter = match Filter::parse(lines.next().unwrap_or_default()) {
        Ok(filter) => filter,
        Err(error) => return assert!(!error.to_string().contains(['\r', '\n']), "{error}"),
    };
    let rows: Vec<&[u8]> = lines.collect();
    if rows.is_empty() {
        return;
    }
    let layout = Layout { dim: 1, metric: Metric::L2, quantization: Quantization::Int8 };
    let mut collection = Collection::new(1, Params { raw: false, ..Params::new(layout) });
    let encoded = Encoded::new(&collection.params, &[1.0]);
    for (element, row) in rows.iter().cycle().take(ELEMENTS).enumerate() {
        let attributes = AttributeChange::Set(Some(Attributes::from(*row)));
        collection.put(&element.to_le_bytes(), &[1.0], &encoded, &attributes, &TextChange::Keep);
    }
    check(&collection, &filter);
    for element in (0..ELEMENTS).step_by(3) {
        let row = rows[(element * 7 + 1) % rows.len()];
        collection.set_attributes(&element.to_le_bytes(), (element % 2 == 0).then(|| Attributes::from(row)));
    }
    check(&collection, &filter);
});
