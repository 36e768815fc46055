//! Numbers in JSON text.
//!
//! Reads a number by the grammar of RFC 8259, hands on its value, collecting the digits while it checks them. Does
//! not know which datatype the number is for.

use inferd_types::Result;

use super::scan::Scanner;

/// Powers of ten that an f64 represents exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Number of significant digits that `Number::digits` always holds.
const DIGITS_MAX: usize = 19;

/// A number as written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Number<'a> {
    text: &'a [u8],
    negative: bool,
    /// Whether it has neither fraction nor exponent.
    whole: bool,
    /// All digits as one integer; valid only if `exact`.
    digits: u64,
    exact: bool,
    /// The power of ten that `digits` is multiplied by.
    exponent: i32,
}

impl<'a> Scanner<'a> {
    /// Reads a number by the grammar of RFC 8259.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<Number<'a>> {
        self.skip_space();
        let start = self.at;
        let negative = self.text.get(self.at) == Some(&b'-');
        self.at += usize::from(negative);
        let mut digits = 0u64;
        let first = self.at;
        self.gather(&mut digits);
        let mut significant = self.at - first;
        if significant == 0 {
            return Err(self.error("a number"));
        }
        if self.text[first] == b'0' {
            if significant > 1 {
                self.at = first + 1;
                return Err(self.error("a number without leading zeros"));
            }
            significant = 0;
        }
        let mut number = Number { text: &[], negative, whole: true, digits, exact: true, exponent: 0 };
        if let Some(b'.' | b'e' | b'E') = self.text.get(self.at) {
            self.fraction(&mut number, &mut significant)?;
        }
        number.exact = significant <= DIGITS_MAX;
        number.text = &self.text[start..self.at];
        Ok(number)
    }

    /// Reads what follows the integer part.
    #[inline]
    fn fraction(&mut self, number: &mut Number<'a>, significant: &mut usize) -> Result<()> {
        number.whole = false;
        if self.text[self.at] == b'.' {
            self.at += 1;
            let start = self.at;
            if number.digits == 0 {
                // Zeros before the first significant digit.
                while self.text.get(self.at) == Some(&b'0') {
                    self.at += 1;
                }
            }
            let counted = self.at;
            self.gather(&mut number.digits);
            if self.at == start {
                return Err(self.error("a digit"));
            }
            *significant += self.at - counted;
            number.exponent = i32::try_from(self.at - start).map_or(i32::MIN, |length| -length);
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            let down = self.text.get(self.at) == Some(&b'-');
            self.at += usize::from(matches!(self.text.get(self.at), Some(b'+' | b'-')));
            let (start, mut power) = (self.at, 0u64);
            self.gather(&mut power);
            if self.at == start {
                return Err(self.error("a digit"));
            }
            // An exponent of more digits overflows here, but then it is far beyond what the fast paths take.
            let power = if self.at - start > 9 { i32::MAX } else { i32::try_from(power).unwrap_or(i32::MAX) };
            number.exponent = number.exponent.saturating_add(if down { -power } else { power });
        }
        Ok(())
    }

    /// Appends digits to `digits`, which wraps if there are too many.
    #[inline]
    fn gather(&mut self, digits: &mut u64) {
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.at) {
            *digits = digits.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
    }
}

impl Number<'_> {
    /// The number as written.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.text).expect("digits, signs and letters are ASCII")
    }

    /// Whether it has neither a fraction nor an exponent.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// The value, if the number is an integer that fits `T`.
    #[inline]
    pub(crate) fn integer<T: TryFrom<i128>>(&self) -> Option<T> {
        let wide = match self {
            Number { whole: false, .. } => return None,
            Number { exact: true, .. } => i128::from(self.digits) * if self.negative { -1 } else { 1 },
            _ => self.text().parse().ok()?,
        };
        T::try_from(wide).ok()
    }

    /// The nearest f64; infinite if the number is beyond its range.
    #[inline]
    pub(crate) fn to_f64(self) -> f64 {
        // Both operands are exact, so the only rounding is that of the result (Clinger, PLDI 1990).
        match self.scaled() {
            Some(value) if self.digits <= 1 << f64::MANTISSA_DIGITS => value,
            _ => self.text().parse().unwrap_or(f64::NAN),
        }
    }

    /// The nearest f32; infinite if the number is beyond its range.
    #[inline]
    pub(crate) fn to_f32(self) -> f32 {
        if let Some(value) = self.scaled() {
            // `value` is off by at most 2 units in its last place. Unless it is that close to the middle between
            // two f32, both round to the same; the middle has only the highest of the 29 extra bits set.
            const EXTRA: u64 = (1 << 29) - 1;
            const MIDDLE: u64 = 1 << 28;
            let clear = (value.to_bits() & EXTRA).abs_diff(MIDDLE) > 4;
            let normal = value == 0.0 || value.abs() >= f64::from(f32::MIN_POSITIVE) * 2.0;
            if clear && normal && value.abs() < f64::from(f32::MAX) {
                return value as f32;
            }
        }
        self.text().parse().unwrap_or(f32::NAN)
    }

    /// `digits · 10^exponent` with one rounding of each operand and one of the result.
    #[inline]
    fn scaled(&self) -> Option<f64> {
        let power = POWERS.get(self.exponent.unsigned_abs() as usize).filter(|_| self.exact)?;
        let digits = self.digits as f64;
        let value = if self.exponent < 0 { digits / power } else { digits * power };
        Some(if self.negative { -value } else { value })
    }
}
