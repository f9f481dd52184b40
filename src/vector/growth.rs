//! How blocks of memory grow, so that small collections take little and large ones long stretches.

/// How an arena's blocks grow: `per_size` blocks of `first` cells, as many again of the same size, then `per_size` blocks of
/// twice the size, and so on: every `per_size` blocks double the arena. The last block takes what is left of all cells.
pub(super) struct Growth {
    /// Cells of each of the first blocks.
    pub first: usize,
    /// Blocks of one size.
    pub per_size: usize,
    /// Number of the last block.
    pub last: usize,
    /// All cells.
    pub cells: usize,
}

impl Growth {
    /// Block and offset inside it of position `at`.
    pub fn locate(&self, at: usize) -> (usize, usize) {
        let block = self.block_at(at);
        (block, at - self.block_start(block))
    }

    /// The block of position `at`. Neighbours in a graph lie anywhere, so it does not branch on where.
    #[inline]
    pub fn block_at(&self, at: usize) -> usize {
        let base = self.first * self.per_size;
        if at < base {
            return at / self.first;
        }
        let doublings = (at / base).ilog2();
        let within = at - (base << doublings);
        // Blocks of 2^n cells.
        let block = self.per_size * (1 + doublings as usize) + ((within / self.first) >> doublings);
        block.min(self.last)
    }

    /// Where each block begins.
    pub const fn starts<const BLOCKS: usize>(&self) -> [usize; BLOCKS] {
        let (mut starts, mut block) = ([0; BLOCKS], 0);
        while block < BLOCKS {
            starts[block] = self.block_start(block);
            block += 1;
        }
        starts
    }

    /// Cells of a block.
    pub fn block_len(&self, block: usize) -> usize {
        if block == self.last {
            return self.cells - self.block_start(block);
        }
        self.first << (block / self.per_size).saturating_sub(1)
    }

    /// Where a block begins.
    pub const fn block_start(&self, block: usize) -> usize {
        match block / self.per_size {
            0 => block * self.first,
            size => {
                let doubled = (self.first * self.per_size) << (size - 1);
                doubled + block % self.per_size * (self.first << (size - 1))
            }
        }
    }
}
