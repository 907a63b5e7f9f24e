//! How a series' values become integers, and back, without losing a bit.
//!
//! `value = (value_int + base) / 10^scale`, one correctly rounded division of two exactly representable numbers, so the
//! result is the double nearest to the decimal. A series gets the smallest scale at which every ordinary value comes
//! back bit for bit; NaN, infinities and -0.0 are never ordinary and stay in the column `value`.

/// Largest scale tried.
pub(crate) const SCALE_MAX: u8 = 6;

const POW10: [f64; SCALE_MAX as usize + 1] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];

/// Integers up to here, and powers of ten up to 10^22, are exact as doubles, which makes the division exact to the bit.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// At scale 0 nothing is divided, so every double below 2^62 that is an integer can be used; two of them subtract in 64
/// bits.
const INTEGER_MAX: f64 = 4_611_686_018_427_387_904.0;

/// How a series is stored within a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) scale: u8,
    pub(crate) base: i64,
}

impl Scale {
    /// Finds the scale of a series; `None` when its values are best kept as they are.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let ordinary = || values.iter().copied().filter(|v| is_ordinary(*v));
        let mut scale = 0;
        for v in ordinary() {
            while integer(v, scale).is_none() {
                scale += 1;
                if scale > SCALE_MAX {
                    return None;
                }
            }
        }
        let base = integer(ordinary().next()?, scale)?;
        // A later value may have asked for a scale at which an earlier one is too large.
        ordinary().all(|v| integer(v, scale).is_some()).then_some(Self { scale, base })
    }

    /// Returns what the column `value_int` holds; `None` when the value goes into `value`.
    pub(crate) fn encode(self, value: f64) -> Option<i64> {
        if !is_ordinary(value) {
            return None;
        }
        integer(value, self.scale).map(|n| n - self.base)
    }

    /// Returns the value again; `None` when the bytes cannot be from a block.
    pub(crate) fn decode(self, stored: i64) -> Option<f64> {
        let power = POW10.get(usize::from(self.scale))?;
        Some(stored.checked_add(self.base)? as f64 / power)
    }
}

fn is_ordinary(v: f64) -> bool {
    v.is_finite() && (v != 0.0 || v.is_sign_positive())
}

fn integer(v: f64, scale: u8) -> Option<i64> {
    let power = POW10[usize::from(scale)];
    let scaled = v * power;
    let limit = if scale == 0 { INTEGER_MAX } else { EXACT_MAX };
    if scaled.abs() >= limit {
        return None;
    }
    let n = scaled.round() as i64;
    ((n as f64 / power).to_bits() == v.to_bits()).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_bit_pattern_survives_one_of_the_two_columns(bits in prop::collection::vec(any::<u64>(), 1..20)) {
            let values: Vec<f64> = bits.into_iter().map(f64::from_bits).collect();
            check(&values);
        }

        #[test]
        fn decimals_become_integers(ns in prop::collection::vec(-1_000_000_000i64..1_000_000_000, 1..20), s in 0usize..=6) {
            let values: Vec<f64> = ns.iter().map(|n| *n as f64 / POW10[s]).collect();
            let scale = Scale::of(&values).expect("decimals of few digits");
            prop_assert!(usize::from(scale.scale) <= s);
            check(&values);
        }
    }

    fn check(values: &[f64]) {
        let Some(scale) = Scale::of(values) else { return };
        for v in values {
            let back = scale.encode(*v).map_or(*v, |n| scale.decode(n).unwrap());
            assert_eq!(back.to_bits(), v.to_bits(), "{v}");
        }
    }

    #[test]
    fn specials_do_not_spoil_a_series() {
        let values = [5.0, f64::NAN, -0.0, f64::INFINITY, 7.5];
        let scale = Scale::of(&values).unwrap();
        assert_eq!(scale, Scale { scale: 1, base: 50 });
        assert_eq!(values.map(|v| scale.encode(v)), [Some(0), None, None, None, Some(25)]);
        assert_eq!(Scale::of(&[f64::NAN]), None);
        assert_eq!(Scale::of(&[std::f64::consts::PI]), None);
        assert_eq!(Scale::of(&[0.5, 1e16]), None);
        let big = [(1u64 << 61) as f64, -((1u64 << 61) as f64)];
        assert!(Scale::of(&big).is_some());
        check(&big);
        assert_eq!(Scale { scale: 9, base: 0 }.decode(1), None);
        assert_eq!(Scale { scale: 0, base: i64::MAX }.decode(1), None);
    }
}
