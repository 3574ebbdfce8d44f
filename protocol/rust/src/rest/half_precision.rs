//! FP16 and BF16 as decimal numbers: read to the nearest value, written as the shortest text.
//!
//! Knows no JSON.

use std::cmp::Ordering;

/// Bits of an f64's fraction.
const F64_FRACTION_BITS: u32 = 52;
/// The powers of ten that are exact in an f64.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];
const FIRST_EXACT: i32 = -22;
const LAST_EXACT: i32 = 22;
/// Decimal digits that tell every value of both formats from its neighbors.
const MAX_DIGITS: i32 = 5;
/// More digits than the middle between two neighbors has: 2^-134 has 94.
const MIDDLE_DIGITS: usize = 110;

/// A binary format of 16 bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    fraction_bits: u32,
    /// The exponent of the smallest normal number.
    min_exponent: i32,
    /// The bits of infinity.
    infinity: u16,
}

/// IEEE 754 half precision.
pub(super) const FP16: Format = Format { fraction_bits: 10, min_exponent: -14, infinity: 0x7c00 };
/// The upper half of an FP32.
pub(super) const BF16: Format = Format { fraction_bits: 7, min_exponent: -126, infinity: 0x7f80 };

impl Format {
    /// The value nearest to the decimal `text`, ties to even; `None` if that is infinity.
    ///
    /// `number` is the f64 nearest to the text.
    pub(super) fn round(self, number: f64, text: &[u8]) -> Option<u16> {
        self.round_by(number, || compare(text, number.abs()))
    }

    /// As [`Self::round`]; only where `number` is the middle between two values, `side` is asked how
    /// the decimal, without its sign, really compares to it.
    fn round_by(self, number: f64, side: impl FnOnce() -> Ordering) -> Option<u16> {
        let magnitude = number.abs();
        let exponent = exponent_of(magnitude);
        let significand = (magnitude.to_bits() & ((1 << F64_FRACTION_BITS) - 1)) | (1 << F64_FRACTION_BITS);
        let below_normal = u32::try_from(self.min_exponent - exponent).unwrap_or(0);
        let shift = F64_FRACTION_BITS - self.fraction_bits + below_normal;
        let mut units = 0;
        // Further out, and for an f64 that is subnormal itself, not even half a unit is left.
        if shift <= F64_FRACTION_BITS + 1 {
            units = significand >> shift;
            let rest = significand & ((1 << shift) - 1);
            let middle = 1 << (shift - 1);
            let side = rest.cmp(&middle).then_with(side);
            units += u64::from(side.is_gt() || (side.is_eq() && units % 2 == 1));
        }
        // `units` holds the leading 1 of a normal number, and a carry into the next exponent.
        let above_normal = u64::try_from(exponent - self.min_exponent).unwrap_or(0);
        let bits = (above_normal << self.fraction_bits) + units;
        let bits = u16::try_from(bits).ok().filter(|&bits| bits < self.infinity)?;
        Some(bits | (u16::from(number.is_sign_negative()) << 15))
    }

    /// The number whose text is the shortest, and of those the nearest, that reads back as `value`.
    ///
    /// `value` must be one of this format; what is not finite comes back as it is.
    pub(super) fn shortest(self, value: f64) -> f64 {
        let magnitude = value.abs();
        if magnitude == 0.0 || !magnitude.is_finite() {
            return value;
        }
        // An exact value is never in the middle.
        let Some(bits) = self.round_by(magnitude, || Ordering::Equal) else { return value };
        let exponent = exponent_of(magnitude);
        let half_unit = power_of_two(exponent.max(self.min_exponent)) / f64::from(2 << self.fraction_bits);
        // The leading digit's power of ten; log10(2) times the exponent is it, or one below.
        let mut leading = (exponent * 1233) >> 12;
        if divide(magnitude, leading + 1) >= 1.0 {
            leading += 1;
        }
        for digits in 1..=MAX_DIGITS {
            let power = leading + 1 - digits;
            let scaled = divide(magnitude, power);
            let reach = divide(half_unit, power) * 1.001;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // at least 0, five digits at most
            let nearest = f64::from((scaled + 0.5) as u32);
            let other = if nearest > scaled { nearest - 1.0 } else { nearest + 1.0 };
            for significand in [nearest, other] {
                if (significand - scaled).abs() > reach {
                    continue;
                }
                let number = decimal(significand, power);
                let side = || compare(format!("{significand}e{power}").as_bytes(), number);
                if self.round_by(number, side) == Some(bits) {
                    return number.copysign(value);
                }
            }
        }
        value
    }
}

/// The exponent of two; for subnormal numbers and 0 that of the largest subnormal.
fn exponent_of(magnitude: f64) -> i32 {
    i32::try_from(magnitude.to_bits() >> F64_FRACTION_BITS).map_or(0, |biased| biased - 1023)
}

/// 2 to `exponent`, which is one of a normal f64.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::from((exponent + 1023).unsigned_abs()) << F64_FRACTION_BITS)
}

/// About `number` over 10 to `power`.
fn divide(number: f64, power: i32) -> f64 {
    if power < 0 { number * ten_to(-power) } else { number / ten_to(power) }
}

/// The f64 nearest to `significand` (a whole number of a few digits) times 10 to `power`.
fn decimal(significand: f64, power: i32) -> f64 {
    // One correctly rounded operation on exact numbers.
    match power {
        FIRST_EXACT..0 => significand / ten_to(-power),
        0..=LAST_EXACT => significand * ten_to(power),
        _ => format!("{significand}e{power}").parse().unwrap_or(significand),
    }
}

/// 10 to `power`, which is at least 0; exact up to [`LAST_EXACT`].
fn ten_to(power: i32) -> f64 {
    usize::try_from(power)
        .ok()
        .and_then(|power| EXACT_POWERS.get(power).copied())
        .unwrap_or_else(|| 10f64.powi(power))
}

/// How the decimal number `text`, without its sign, compares to `number`.
#[cold]
fn compare(text: &[u8], number: f64) -> Ordering {
    let exact = format!("{number:.MIDDLE_DIGITS$e}");
    digits(text).cmp(&digits(exact.as_bytes()))
}

/// The power of ten of the first digit that is not 0, and the digits from there to the last such.
fn digits(text: &[u8]) -> (i64, Vec<u8>) {
    let end = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(end);
    let exponent = std::str::from_utf8(exponent.get(1..).unwrap_or_default()).unwrap_or_default();
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let point = mantissa.iter().position(|&byte| byte == b'.').unwrap_or(mantissa.len());
    let whole = mantissa[..point].iter().filter(|byte| byte.is_ascii_digit()).count();
    let mut digits: Vec<u8> = mantissa.iter().copied().filter(u8::is_ascii_digit).collect();
    digits.truncate(digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1));
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    digits.drain(..zeros);
    let places = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    (exponent.saturating_add(places(whole)).saturating_sub(places(zeros)), digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Value = fn(u16) -> f64;

    const FORMATS: [(Format, Value); 2] = [
        (FP16, |bits| half::f16::from_bits(bits).to_f64()),
        (BF16, |bits| half::bf16::from_bits(bits).to_f64()),
    ];

    fn read(format: Format, text: &str) -> Option<u16> {
        format.round(text.parse().unwrap(), text.as_bytes())
    }

    #[test]
    fn every_value_survives_as_its_shortest_text() {
        for (format, value_of) in FORMATS {
            for bits in (0..=u16::MAX).filter(|bits| bits & 0x7fff < format.infinity) {
                let value = value_of(bits);
                let shortest = format.shortest(value);
                let text = ryu::Buffer::new().format_finite(shortest).to_owned();
                assert_eq!(read(format, &text), Some(bits), "{value:e} as {text}");
                let (_, digits) = digits(text.trim_start_matches('-').as_bytes());
                if digits.len() <= 1 {
                    continue;
                }
                // With one digit fewer, neither of the two decimals around the value reads back.
                let fewer = format!("{:.*e}", digits.len() - 2, value.abs());
                let (significand, power) = fewer.split_once('e').unwrap();
                let significand: i64 = significand.replace('.', "").parse().unwrap();
                let power = power.parse::<i32>().unwrap() - i32::try_from(digits.len()).unwrap() + 2;
                for near in [significand - 1, significand, significand + 1] {
                    let shorter = format!("{near}e{power}");
                    assert_ne!(read(format, &shorter), Some(bits & 0x7fff), "{text} could be {shorter}");
                }
            }
        }
    }

    #[test]
    fn a_decimal_is_rounded_once_and_ties_go_to_even() {
        for (format, value_of) in FORMATS {
            for bits in 0..format.infinity - 1 {
                // Both neighbors and their middle are exact in an f64, and so are these texts.
                let middle = f64::midpoint(value_of(bits), value_of(bits + 1));
                let text = format!("{middle:.MIDDLE_DIGITS$e}");
                let (significand, power) = text.split_once('e').unwrap();
                let even = bits + bits % 2;
                assert_eq!(read(format, &text), Some(even), "{text}");
                // So little above or below that an f64 does not see it.
                let above = format!("{significand}1e{power}");
                assert_eq!(read(format, &above), Some(bits + 1), "{above}");
                let kept = significand.trim_end_matches(['0', '.']);
                let (kept, last) = kept.split_at(kept.len() - 1);
                let point = if kept.is_empty() { "." } else { "" };
                let last = last.parse::<u8>().unwrap() - 1;
                let below = format!("{kept}{last}{point}99999999999999999999e{power}");
                assert_eq!(read(format, &below), Some(bits), "{below}");
            }
        }
    }

    #[test]
    fn what_rounds_to_infinity_is_refused() {
        assert_eq!(read(FP16, "65504"), Some(0x7bff));
        assert_eq!(read(FP16, "65519.999999999999999999999"), Some(0x7bff));
        assert_eq!(read(FP16, "-65519.9"), Some(0xfbff));
        assert_eq!(read(FP16, "65520"), None);
        assert_eq!(read(FP16, "1e400"), None);
        assert_eq!(read(BF16, "3.3895314e38"), Some(0x7f7f));
        assert_eq!(read(BF16, "3.4e38"), None);
        assert_eq!(read(FP16, "-0.0"), Some(0x8000));
        assert_eq!(read(FP16, "-1e-400"), Some(0x8000));
        assert_eq!(
            read(FP16, "2.9802322387695312e-8"),
            Some(0),
            "half of the smallest: a tie, and 0 is even"
        );
        assert_eq!(read(FP16, "2.98023223876953125001e-8"), Some(1));
    }
}
