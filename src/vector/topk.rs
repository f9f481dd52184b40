//! The best k of a stream of scored rows.
//!
//! Results are gathered in a buffer of half as much again as k entries. When it is full, a selection keeps the best k, so
//! a kept result costs amortised constant time whatever k is, and a result that cannot qualify costs one compare. A larger
//! buffer would let the threshold lag further behind.

use std::cmp::Ordering;

/// Room beyond k before a selection runs: this part of k, at least that much.
const SLACK_PART: usize = 2;
const MIN_SLACK: usize = 8;

/// Keeps the best `k` (score, row) pairs: higher scores first, equal scores by lower row.
#[derive(Clone, Debug)]
pub struct TopK {
    k: usize,
    /// Unordered; every entry was better than `worst` when it came.
    buffer: Vec<(f32, u64)>,
    /// The k-th best at the last selection: what a newcomer must be better than.
    worst: (f32, u64),
}

impl TopK {
    /// An empty selection of at most `k` results. Takes memory only as results arrive.
    pub fn new(k: usize) -> Self {
        let worst = if k == 0 { (f32::INFINITY, 0) } else { (f32::NEG_INFINITY, u64::MAX) };
        TopK { k, buffer: Vec::new(), worst }
    }

    /// The score that must be beaten; `NEG_INFINITY` until `k` results were pushed. It never exceeds the score
    /// of the k-th best, but may lag behind it, because selections run only now and then.
    pub fn threshold(&self) -> f32 {
        self.worst.0
    }

    /// Offers one result. A NaN score never enters.
    #[inline]
    pub fn push(&mut self, score: f32, row: u64) {
        if score > self.worst.0 || (score == self.worst.0 && row < self.worst.1) {
            self.insert(score, row);
        }
    }

    /// Adds what another one has kept.
    pub fn merge(&mut self, other: TopK) {
        for (score, row) in other.buffer {
            self.push(score, row);
        }
    }

    /// The score of the k-th best; `None` if fewer were pushed.
    pub fn kth(&self) -> Option<f32> {
        let at = self.k.checked_sub(1).filter(|&at| at < self.buffer.len())?;
        Some(self.buffer.clone().select_nth_unstable_by(at, best_first).1.0)
    }

    /// The results, best first.
    pub fn into_sorted(mut self) -> Vec<(f32, u64)> {
        if self.buffer.len() > self.k {
            self.select();
        }
        self.buffer.sort_unstable_by(best_first);
        self.buffer
    }

    fn insert(&mut self, score: f32, row: u64) {
        // Adding 0.0 turns -0.0 into 0.0: the two are equal scores, but not to `total_cmp`.
        self.buffer.push((score + 0.0, row));
        let first_full = self.buffer.len() == self.k && self.worst.0 == f32::NEG_INFINITY;
        if first_full || self.buffer.len() >= self.k + (self.k / SLACK_PART).max(MIN_SLACK) {
            self.select();
        }
    }

    /// Drops all but the best k and raises the threshold to the k-th. The buffer holds at least k entries, k >= 1.
    fn select(&mut self) {
        let (_, kth, _) = self.buffer.select_nth_unstable_by(self.k - 1, best_first);
        self.worst = *kth;
        self.buffer.truncate(self.k);
    }
}

fn best_first(a: &(f32, u64), b: &(f32, u64)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Few different scores, so that ties are common; NaN among them.
    fn score() -> impl Strategy<Value = f32> {
        prop_oneof![
            9 => (-6i8..6).prop_map(|x| f32::from(x) / 4.0),
            1 => Just(f32::NAN),
            1 => Just(-0.0),
            1 => Just(f32::NEG_INFINITY),
        ]
    }

    fn expected(k: usize, all: impl Iterator<Item = (f32, u64)>) -> Vec<(f32, u64)> {
        let mut all: Vec<_> = all.filter(|(score, _)| !score.is_nan()).map(|(s, r)| (s + 0.0, r)).collect();
        all.sort_by(best_first);
        all.truncate(k);
        all
    }

    proptest! {
        #[test]
        fn push_keeps_the_best_in_any_order(
            scores in proptest::collection::vec(score(), 0..500),
            k in 0usize..90,
            stride in 1usize..500,
        ) {
            let mut top = TopK::new(k);
            let rows = (0..scores.len()).map(|i| (i * stride + stride / 2) % scores.len());
            let pairs: std::collections::BTreeMap<u64, f32> = rows.map(|row| (row as u64, scores[row])).collect();
            for (&row, &score) in pairs.iter().rev() {
                top.push(score, row);
            }
            prop_assert_eq!(top.into_sorted(), expected(k, pairs.iter().map(|(&r, &s)| (s, r))));
        }

        #[test]
        fn parts_merged_in_any_order_equal_the_whole(
            scores in proptest::collection::vec(score(), 0..900),
            k in 1usize..50,
            parts in 1usize..6,
            backwards in any::<bool>(),
        ) {
            let mut tops: Vec<TopK> = (0..parts).map(|_| TopK::new(k)).collect();
            for (row, &score) in scores.iter().enumerate() {
                tops[row / 7 % parts].push(score, row as u64);
            }
            if backwards {
                tops.reverse();
            }
            let mut all = TopK::new(k);
            tops.into_iter().for_each(|top| all.merge(top));
            let wanted = expected(k, scores.iter().enumerate().map(|(row, &score)| (score, row as u64)));
            prop_assert_eq!(all.kth(), wanted.get(k - 1).map(|(score, _)| *score));
            prop_assert_eq!(all.into_sorted(), wanted);
        }
    }

    #[test]
    fn any_order_and_any_k_equal_a_full_sort() {
        const ROWS: u64 = 200_000;
        type ScoreOf = fn(u64) -> f32;
        let orders: [ScoreOf; 4] = [
            |row| row as f32,
            |row| -(row as f32),
            |_| 0.5,
            |row| (row.wrapping_mul(0x9e37_79b9) >> 7 & 0xfff) as f32,
        ];
        for score in orders {
            for k in [1, 2, 31, 32, 33, 1000, 65_537, 199_999, 200_000, 1_000_000] {
                let mut top = TopK::new(k);
                (0..ROWS).for_each(|row| top.push(score(row), row));
                assert_eq!(top.into_sorted(), expected(k, (0..ROWS).map(|row| (score(row), row))), "k = {k}");
            }
        }
    }

    #[test]
    fn the_worst_order_costs_a_few_comparisons_a_row() {
        for k in [1, 10, 1000, 100_000] {
            let mut top = TopK::new(k);
            let mut selections = 0;
            for row in 0..1_000_000 {
                let before = top.buffer.len();
                top.push(row as f32, row);
                selections += usize::from(top.buffer.len() <= before);
            }
            let slack = (k / SLACK_PART).max(MIN_SLACK);
            assert!(selections * slack <= 1_000_000 + k, "{selections} selections for k = {k}");
        }
    }

    #[test]
    fn the_threshold_rises_once_k_results_are_in() {
        let mut top = TopK::new(3);
        top.push(5.0, 0);
        top.push(7.0, 1);
        assert_eq!(top.threshold(), f32::NEG_INFINITY);
        top.push(6.0, 2);
        assert_eq!(top.threshold(), 5.0);
        for row in 3..200 {
            top.push(row as f32, row);
        }
        assert!(top.threshold() > 100.0 && top.threshold() <= 197.0);
        assert_eq!(top.into_sorted(), [(199.0, 199), (198.0, 198), (197.0, 197)]);
    }

    #[test]
    fn memory_follows_the_results_and_stays_bounded() {
        let mut top = TopK::new(1_000_000);
        top.push(1.0, 1);
        assert!(top.buffer.capacity() < 100);
        let mut top = TopK::new(10);
        for row in 0..10_000u64 {
            top.push(row as f32, row);
            assert!(top.buffer.len() < 10 + MIN_SLACK);
        }
    }

    #[test]
    fn none_asked_none_kept() {
        let mut top = TopK::new(0);
        top.push(1.0, 1);
        top.push(f32::INFINITY, 2);
        assert_eq!(top.kth(), None);
        assert!(top.into_sorted().is_empty());
    }
}
