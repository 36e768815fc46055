//! The slot word: the state of a slot, and which side owns it.
//!
//! `FREE → OPEN(n) → OPEN(n + k) → TAKEN(n) → DONE(n) → FREE`. The gateway opens, appends, withdraws and frees; the
//! worker takes and finishes. Every step from OPEN is a compare-and-swap, so exactly one side wins. A worker that
//! streams goes `TAKEN → PARTIAL` with each response and waits; the gateway answers with TAKEN (continue) or
//! STOPPED (no further response is wanted), from which only DONE follows. Knows nothing of the arena's layout or
//! the slot's content.

/// The owner of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// The gateway's: empty.
    Free = 0,
    /// Staged: the gateway may still append rows or withdraw; the worker may take it.
    Open = 1,
    /// The worker's.
    Taken = 2,
    /// The gateway's: it holds outputs or a failure.
    Done = 3,
    /// The gateway's: it holds one of several responses, and the worker waits.
    Partial = 4,
    /// The worker's: no further response is wanted.
    Stopped = 5,
}

/// A slot word, unpacked: 28 bits of generation, 4 of state, 32 of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Counts the openings of both slots: distinguishes batches, and tells which of two is older.
    pub(crate) generation: u32,
    pub(crate) state: State,
    /// Rows of the batch.
    pub(crate) rows: u32,
}

/// Generations are counted modulo 2^28.
pub(crate) const GENERATION_MASK: u32 = (1 << 28) - 1;

impl Word {
    pub(crate) fn new(generation: u32, state: State, rows: u32) -> Word {
        Word { generation: generation & GENERATION_MASK, state, rows }
    }

    pub(crate) fn pack(self) -> u64 {
        u64::from(self.generation) << 36 | u64::from(self.state as u8) << 32 | u64::from(self.rows)
    }

    /// `None` for a state that does not exist.
    pub(crate) fn unpack(word: u64) -> Option<Word> {
        let state = match word >> 32 & 0xf {
            0 => State::Free,
            1 => State::Open,
            2 => State::Taken,
            3 => State::Done,
            4 => State::Partial,
            5 => State::Stopped,
            _ => return None,
        };
        Some(Word { generation: (word >> 36) as u32, state, rows: word as u32 })
    }

    /// Whether this generation is older than `other`'s, with wrap-around.
    pub(crate) fn older_than(self, other: Word) -> bool {
        let ahead = other.generation.wrapping_sub(self.generation) & GENERATION_MASK;
        ahead != 0 && ahead <= GENERATION_MASK / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_survives_packing_at_its_extremes() {
        for state in [State::Free, State::Open, State::Taken, State::Done, State::Partial, State::Stopped] {
            for generation in [0, 1, GENERATION_MASK] {
                for rows in [0, 1, u32::MAX] {
                    let word = Word::new(generation, state, rows);
                    assert_eq!(Word::unpack(word.pack()), Some(word));
                }
            }
        }
        assert_eq!(Word::unpack(6 << 32), None);
        assert_eq!(Word::unpack(u64::MAX), None);
    }

    #[test]
    fn the_older_of_two_generations_is_known_across_the_wrap() {
        let word = |generation| Word::new(generation, State::Open, 1);
        assert!(word(1).older_than(word(2)) && !word(2).older_than(word(1)));
        assert!(word(GENERATION_MASK).older_than(word(0)) && !word(0).older_than(word(GENERATION_MASK)));
        assert!(!word(5).older_than(word(5)));
    }
}
