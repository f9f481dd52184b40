//! A static model: every token has one vector, and a text's vector is the mean of its tokens' vectors, made unit length.

use super::tokenizer::Tokenizer;
use super::{Embedded, Embedder, Failure, Role};

/// See the module's text.
pub struct StaticModel {
    tokenizer: Tokenizer,
    max_tokens: usize,
    dims: usize,
    /// What a step of each token's codes is.
    scales: Vec<f32>,
    /// A row of `dims` signed bytes for each token.
    codes: &'static [i8],
}

impl StaticModel {
    /// A model from little-endian f32 `scales`, one for each token, and its `codes`.
    ///
    /// # Errors
    /// When they do not fit together.
    pub fn new(
        tokenizer: Tokenizer,
        max_tokens: usize,
        dims: usize,
        scales: &[u8],
        codes: &'static [u8],
    ) -> Result<Self, String> {
        let (scales, rest) = scales.as_chunks::<4>();
        let scales: Vec<f32> = scales.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if !rest.is_empty() || codes.len() != scales.len() * dims {
            return Err("scales and codes do not fit together".to_owned());
        }
        Ok(Self { tokenizer, max_tokens, dims, scales, codes: bytemuck::cast_slice(codes) })
    }

    /// The mean of the tokens' vectors, unit length; zeros without a known token.
    fn mean(&self, tokens: &[u32]) -> Vec<f32> {
        let mut sum = vec![0.0f32; self.dims];
        for &token in tokens {
            let token = token as usize;
            let Some(&scale) = self.scales.get(token) else { continue };
            let row = &self.codes[token * self.dims..(token + 1) * self.dims];
            for (sum, &code) in sum.iter_mut().zip(row) {
                *sum += scale * f32::from(code);
            }
        }
        super::normalise(&mut sum);
        sum
    }
}

impl Embedder for StaticModel {
    fn embed(&self, texts: &[&str], _: &Role) -> Result<Embedded, Failure> {
        let mut embedded = Embedded { vectors: Vec::with_capacity(texts.len()), tokens: 0 };
        for text in texts {
            let tokens = self.tokenizer.words(text, self.max_tokens)?;
            embedded.tokens += tokens.len();
            embedded.vectors.push(self.mean(&tokens));
        }
        Ok(embedded)
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(&self.tokenizer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::builtin;
    use super::*;

    fn cosine(model: &StaticModel, a: &str, b: &str) -> f32 {
        let embedded = model.embed(&[a, b], &Role::Document).unwrap();
        embedded.vectors[0].iter().zip(&embedded.vectors[1]).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn texts_of_like_meaning_are_closer_than_others() {
        let model = builtin::load().unwrap();
        let triples = [
            ("a small boat on the sea", "a ship in the ocean", "a rule of grammar"),
            ("the doctor treats the patient", "medical care in a hospital", "a fast red car"),
            ("hourly wage", "salary paid per hour", "a river in the mountains"),
            ("the cat sleeps", "a kitten is resting", "quarterly tax report"),
        ];
        for (text, like, unlike) in triples {
            let (near, far) = (cosine(&model, text, like), cosine(&model, text, unlike));
            assert!(near > far + 0.1, "{text}: {near} to {like}, {far} to {unlike}");
        }
    }

    #[test]
    fn vectors_have_unit_length_and_a_text_without_words_has_none() {
        let model = builtin::load().unwrap();
        let embedded = model.embed(&["hello world", "", "  "], &Role::Query).unwrap();
        assert_eq!(embedded.tokens, 2);
        let norm = |vector: &[f32]| vector.iter().map(|value| value * value).sum::<f32>();
        assert_eq!(embedded.vectors[0].len(), builtin::DIMS);
        assert!((norm(&embedded.vectors[0]) - 1.0).abs() < 1e-5);
        assert!(norm(&embedded.vectors[1]) == 0.0 && norm(&embedded.vectors[2]) == 0.0);
    }
}
