/* A fused multiply-add in integer arithmetic, for processors without one: the same bits as the hardware's.
 *
 * The exact product of two 24-bit significands has 48 bits. Product and addend are aligned in 64 bits with one
 * sticky bit below, added, and rounded once to nearest, ties to even. */
#ifndef KILOGRAD_SOFT_FMA_H
#define KILOGRAD_SOFT_FMA_H

#include "kilograd/base.h"

/* x shifted right with every lost bit collected in the lowest one. */
static inline uint64_t kg_shift_right_sticky(uint64_t x, int32_t n) {
  if (n >= 64) {
    return x != 0;
  }
  return n <= 0 ? x : (x >> n) | ((x << (64 - n)) != 0);
}

static inline int32_t kg_leading_zeros(uint64_t x) {
  int32_t n = 0;
  for (int32_t step = 32; step > 0; step >>= 1) {
    if ((x >> (64 - step)) == 0) {
      x <<= step;
      n += step;
    }
  }
  return n;
}

/* value = significand * 2^exponent, rounded to a float; significand may carry a sticky lowest bit when it has more
 * than 26 bits. */
static inline float kg_round_pack_f32(bool negative, uint64_t significand, int32_t exponent) {
  const uint32_t sign = negative ? 0x80000000u : 0u;
  if (significand == 0) {
    return kg_from_bits_f32(sign);
  }
  const int32_t shift = 40 - kg_leading_zeros(significand); /* leaves 24 bits */
  int32_t drop = shift;
  if (exponent + drop < -149) {
    drop = -149 - exponent; /* subnormal: fewer bits are kept */
  }
  uint64_t kept = significand;
  if (drop > 0) {
    if (drop > 62) {
      return kg_from_bits_f32(sign);
    }
    const uint64_t rest = significand & ((UINT64_C(1) << drop) - 1u);
    const uint64_t half = UINT64_C(1) << (drop - 1);
    kept = significand >> drop;
    kept += (rest > half || (rest == half && (kept & 1u) != 0)) ? 1u : 0u;
  } else {
    kept = significand << -drop;
  }
  /* kept is at most 2^24; adding it to the exponent field carries into it as it should. */
  const int32_t biased = exponent + drop + 150;
  if (biased >= 255 || (biased == 254 && kept == (UINT64_C(1) << 24))) {
    return kg_from_bits_f32(sign | 0x7f800000u);
  }
  if (kept < (UINT64_C(1) << 23)) {
    return kg_from_bits_f32(sign | (uint32_t)kept);
  }
  return kg_from_bits_f32(sign | (uint32_t)(((uint64_t)(uint32_t)(biased - 1) << 23) + kept));
}

/* The significand and exponent of a finite float: |x| = significand * 2^exponent. */
static inline uint32_t kg_unpack_f32(uint32_t bits, int32_t *exponent) {
  const int32_t field = (int32_t)((bits >> 23) & 0xffu);
  *exponent = (field == 0 ? 1 : field) - 150;
  return (bits & 0x7fffffu) | (field == 0 ? 0u : 0x800000u);
}

/* a * b + c rounded once. */
static inline float kg_soft_fma_f32(float a, float b, float c) {
  const uint32_t ua = kg_bits_f32(a), ub = kg_bits_f32(b), uc = kg_bits_f32(c);
  if (kg_finite_f32(a) && kg_finite_f32(b) && !kg_finite_f32(c)) {
    return c; /* also where a * b alone would overflow */
  }
  if (!kg_finite_f32(a) || !kg_finite_f32(b) || (ua << 1) == 0 || (ub << 1) == 0) {
    return a * b + c; /* exact, infinite or NaN: no rounding to double up */
  }
  int32_t ea, eb, ec;
  const uint32_t ma = kg_unpack_f32(ua, &ea), mb = kg_unpack_f32(ub, &eb), mc = kg_unpack_f32(uc, &ec);
  const bool product_negative = ((ua ^ ub) >> 31) != 0, c_negative = (uc >> 31) != 0;
  uint64_t product = (uint64_t)ma * mb;
  uint64_t addend = mc;
  int32_t exponent = ea + eb;
  if (mc == 0) {
    return kg_round_pack_f32(product_negative, product, exponent);
  }
  /* Both up to bit 61, so that the larger keeps all its bits and the smaller loses only to the sticky bit. */
  const int32_t product_up = kg_leading_zeros(product) - 2, addend_up = kg_leading_zeros(addend) - 2;
  product <<= product_up;
  addend <<= addend_up;
  exponent -= product_up;
  ec -= addend_up;
  if (exponent >= ec) {
    addend = kg_shift_right_sticky(addend, exponent - ec);
  } else {
    product = kg_shift_right_sticky(product, ec - exponent);
    exponent = ec;
  }
  if (product_negative == c_negative) {
    return kg_round_pack_f32(product_negative, product + addend, exponent);
  }
  if (product == addend) {
    return 0.0f;
  }
  return product > addend ? kg_round_pack_f32(product_negative, product - addend, exponent)
                          : kg_round_pack_f32(c_negative, addend - product, exponent);
}

#endif
