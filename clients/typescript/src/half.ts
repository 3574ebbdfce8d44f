/**
 * FP16 and BF16: their bits from numbers and back. Knows nothing of tensors.
 *
 * Numbers are rounded once, from JavaScript's doubles to the nearest value, ties to even. Going through FP32
 * would round twice.
 */

const HALF_FRACTION_BITS = 10;
const HALF_EXPONENT_BITS = 5;
const BRAIN_FRACTION_BITS = 7;
const BRAIN_EXPONENT_BITS = 8;

const double = new DataView(new ArrayBuffer(8));

function exponentOf(value: number): number {
  double.setFloat64(0, value);
  return ((double.getUint32(0) >>> 20) & 0x7ff) - 1023;
}

function bitsOf(value: number, fractionBits: number, exponentBits: number): number {
  const bias = 2 ** (exponentBits - 1) - 1;
  const infinity = (2 ** exponentBits - 1) << fractionBits;
  const sign = value < 0 || Object.is(value, -0) ? 1 << (fractionBits + exponentBits) : 0;
  if (Number.isNaN(value)) return infinity | (1 << (fractionBits - 1));
  const size = Math.abs(value);
  if (size === Infinity) return sign | infinity;
  // Below the smallest normal number the spacing stays what it is there.
  const exponent = Math.max(exponentOf(size), 1 - bias);
  const steps = size / 2 ** (exponent - fractionBits);
  const below = Math.floor(steps);
  const rest = steps - below;
  const rounded = rest > 0.5 || (rest === 0.5 && below % 2 === 1) ? below + 1 : below;
  // A fraction that was rounded up to the next power of two carries into the exponent by itself.
  const bits = rounded + (exponent + bias - 1) * 2 ** fractionBits;
  return sign | Math.min(bits, infinity);
}

/** Rounds numbers to FP16, given as bits. */
export function halfBits(values: ArrayLike<number>): Uint16Array {
  return Uint16Array.from(values, (value) => bitsOf(value, HALF_FRACTION_BITS, HALF_EXPONENT_BITS));
}

/** Rounds numbers to BF16, given as bits. */
export function bfloat16Bits(values: ArrayLike<number>): Uint16Array {
  return Uint16Array.from(values, (value) => bitsOf(value, BRAIN_FRACTION_BITS, BRAIN_EXPONENT_BITS));
}

/** Returns the numbers that FP16's bits stand for. */
export function floatsOfHalf(bits: Uint16Array): Float32Array {
  const floats = new Float32Array(bits.length);
  const words = new Uint32Array(floats.buffer);
  for (let index = 0; index < bits.length; index++) {
    const half = bits[index] as number;
    const sign = (half & 0x8000) << 16;
    const exponent = (half >>> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) {
      floats[index] = (sign ? -1 : 1) * fraction * 2 ** -24;
    } else {
      // FP32's bias is greater by 112; infinities and NaN keep an exponent of all ones.
      words[index] = sign | ((exponent === 0x1f ? 0xff : exponent + 112) << 23) | (fraction << 13);
    }
  }
  return floats;
}

/** Returns the numbers that BF16's bits stand for: they are the upper halves of FP32's. */
export function floatsOfBfloat16(bits: Uint16Array): Float32Array {
  const words = new Uint32Array(bits.length);
  for (let index = 0; index < bits.length; index++) words[index] = (bits[index] as number) << 16;
  return new Float32Array(words.buffer);
}
