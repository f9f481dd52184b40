//! Making one ranking of several, and a varied choice from one.
//!
//! Scores are "higher is better" throughout. Rankings are sorted, best first.

use std::collections::HashMap;
use std::hash::Hash;

/// The constant of reciprocal rank fusion when none is given.
pub const DEFAULT_CONSTANT: f64 = 60.0;

/// How rankings become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fusion {
    /// Reciprocal rank fusion: the sum of weight / (constant + rank), rank from 1; 0 where a row is not ranked. Cormack,
    /// Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet" (2009).
    Rrf {
        /// The constant.
        constant: f64,
    },
    /// The sum of weight * normalised score; 0 where a row is not ranked.
    Linear(Norm),
}

/// How the scores of a ranking are made comparable with those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norm {
    /// 0 for the lowest in the ranking, 1 for the highest; 1 for all if they are equal.
    MinMax,
    /// (score - (mean - 3 sigma)) / (6 sigma), clamped to 0..1; 0.5 for all if they are equal.
    Dbsf,
    /// As they are.
    None,
}

/// Scores by row and their weight.
pub struct Ranking<'a, T> {
    /// How much it counts.
    pub weight: f64,
    /// Best first.
    pub hits: &'a [(f64, T)],
}

/// The fused score of every row that is ranked.
pub fn fuse<T: Copy + Eq + Hash>(fusion: Fusion, rankings: &[Ranking<'_, T>]) -> HashMap<T, f64> {
    let mut fused = HashMap::new();
    for Ranking { weight, hits } in rankings {
        let shares: Vec<f64> = match fusion {
            Fusion::Rrf { constant } => {
                (1u32..).take(hits.len()).map(|rank| 1.0 / (constant + f64::from(rank))).collect()
            }
            Fusion::Linear(norm) => normalized(norm, hits.iter().map(|(score, _)| *score).collect()),
        };
        for (share, (_, row)) in shares.into_iter().zip(*hits) {
            *fused.entry(*row).or_insert(0.0) += weight * share;
        }
    }
    fused
}

/// Scores as a norm makes them.
pub fn normalized(norm: Norm, mut scores: Vec<f64>) -> Vec<f64> {
    let (offset, width, if_equal) = match norm {
        Norm::None => return scores,
        Norm::MinMax => {
            let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (least, most - least, 1.0)
        }
        Norm::Dbsf => {
            let count = f64::from(u32::try_from(scores.len().max(1)).unwrap_or(u32::MAX));
            let mean = scores.iter().sum::<f64>() / count;
            let sigma = (scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / count).sqrt();
            (mean - 3.0 * sigma, 6.0 * sigma, 0.5)
        }
    };
    for score in &mut scores {
        *score = if width > 0.0 { ((*score - offset) / width).clamp(0.0, 1.0) } else { if_equal };
    }
    scores
}

/// Maximal marginal relevance: the places of `count` of the candidates, each time the one with the highest
/// `lambda * relevance - (1 - lambda) * (highest similarity to one chosen before)`, the first of equal ones. Carbonell and
/// Goldstein, "The Use of MMR" (1998).
pub fn mmr(
    lambda: f64,
    relevance: &[f64],
    count: usize,
    similarity: impl Fn(usize, usize) -> f64,
) -> Vec<usize> {
    let mut left: Vec<usize> = (0..relevance.len()).collect();
    let mut nearest = vec![f64::NEG_INFINITY; relevance.len()];
    let mut chosen: Vec<usize> = Vec::new();
    while chosen.len() < count && !left.is_empty() {
        let gain = |&at: &usize| {
            let penalty = if chosen.is_empty() { 0.0 } else { nearest[at] };
            lambda * relevance[at] - (1.0 - lambda) * penalty
        };
        let mut best = 0;
        for place in 1..left.len() {
            if gain(&left[place]) > gain(&left[best]) {
                best = place;
            }
        }
        let next = left.remove(best);
        chosen.push(next);
        for &at in &left {
            nearest[at] = nearest[at].max(similarity(at, next));
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn reciprocal_ranks_add_up_and_a_missing_rank_adds_nothing() {
        let (dense, text) = ([(-0.5, 'a'), (-0.9, 'b')], [(7.0, 'c'), (3.0, 'a')]);
        let rankings = [Ranking { weight: 1.0, hits: &dense[..] }, Ranking { weight: 2.0, hits: &text[..] }];
        let fused = fuse(Fusion::Rrf { constant: 60.0 }, &rankings);
        close(fused[&'a'], 1.0 / 61.0 + 2.0 / 62.0);
        close(fused[&'b'], 1.0 / 62.0);
        close(fused[&'c'], 2.0 / 61.0);
    }

    #[test]
    fn linear_fusion_normalises_each_ranking_by_itself() {
        let (dense, text) = ([(0.9, 'a'), (0.6, 'b'), (0.3, 'c')], [(5.0, 'b'), (5.0, 'd')]);
        let rankings = [Ranking { weight: 0.5, hits: &dense[..] }, Ranking { weight: 0.25, hits: &text[..] }];
        let fused = fuse(Fusion::Linear(Norm::MinMax), &rankings);
        close(fused[&'a'], 0.5);
        close(fused[&'b'], 0.25 + 0.25);
        close(fused[&'c'], 0.0);
        close(fused[&'d'], 0.25);
        close(fuse(Fusion::Linear(Norm::None), &rankings)[&'b'], 0.3 + 1.25);
        let scores = normalized(Norm::Dbsf, vec![1.0, 2.0, 3.0]);
        let sigma = (2.0f64 / 3.0).sqrt();
        close(scores[0], (1.0 - (2.0 - 3.0 * sigma)) / (6.0 * sigma));
        close(scores[1], 0.5);
        assert_eq!(normalized(Norm::Dbsf, vec![4.0, 4.0]), [0.5, 0.5]);
        let mut outlier = vec![0.0; 100];
        outlier.push(1000.0);
        assert_eq!(normalized(Norm::Dbsf, outlier)[100], 1.0, "clamped");
    }

    #[test]
    fn mmr_prefers_what_is_new() {
        let relevance = [1.0, 0.95, 0.5];
        let similarity = |a: usize, b: usize| if a + b == 1 { 1.0 } else { 0.0 };
        assert_eq!(mmr(1.0, &relevance, 3, similarity), [0, 1, 2]);
        assert_eq!(mmr(0.5, &relevance, 3, similarity), [0, 2, 1]);
        assert_eq!(mmr(0.5, &relevance, 2, similarity), [0, 2]);
        assert_eq!(mmr(0.5, &[], 2, similarity), [0; 0]);
    }
}
