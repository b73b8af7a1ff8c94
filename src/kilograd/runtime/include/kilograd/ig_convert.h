/* Where float gradients become int8 ones and int8 ones float again. No float operation an element in the first. */
#ifndef KILOGRAD_IG_CONVERT_H
#define KILOGRAD_IG_CONVERT_H

#include "kilograd/ig_narrow.h"

/* The exponent of a gradient of zeros. */
#define KG_IG_ZERO_EXPONENT (-126)

/* The smallest exponent with which no |d[i]| exceeds 127 * 2^exponent; numbers below 2^-126 are zeros. */
KG_INLINE int32_t kg_ig_exponent(const float *d, int32_t n) {
  uint32_t largest = 0;
  for (int32_t i = 0; i < n; ++i) {
    const uint32_t bits = kg_bits_f32(d[i]) & 0x7fffffffu;
    largest = bits > largest ? bits : largest;
  }
  const int32_t power = (int32_t)(largest >> 23);
  const int32_t above = (largest & 0x7fffffu) > 0x7e0000u ? 1 : 0; /* of 127 * 2^k */
  return power == 0 ? KG_IG_ZERO_EXPONENT : power - 133 + above;
}

/* g = sign(d) * floor(|d| / 2^exponent + noise) with 16 bits behind the point; d is finite, g may not overlap it. */
static inline void kg_ig_quantize(int8_t *restrict g, int32_t *exponent, const float *restrict d, int32_t n,
                                  const uint32_t *seed, uint32_t salt) {
  const uint32_t key = kg_random_key(*seed, salt);
  *exponent = kg_ig_exponent(d, n);
  for (int32_t i = 0; i < n; ++i) {
    const uint32_t bits = kg_bits_f32(d[i]);
    const int32_t power = (int32_t)(bits >> 23 & 0xffu), places = *exponent + 134 - power;
    const uint32_t mantissa = (bits & 0x7fffffu) | 0x800000u;
    const uint32_t fixed = power == 0 || places > 31 ? 0 : mantissa >> places;
    const int32_t rounded = (int32_t)((fixed + (kg_hash32(key + (uint32_t)i) >> 16)) >> 16);
    const int32_t magnitude = rounded > 127 ? 127 : rounded;
    g[i] = (int8_t)((bits >> 31) != 0 ? -magnitude : magnitude);
  }
}

/* scale * 2^exponent, limited to normal float32. */
KG_INLINE float kg_ig_factor(float scale, int32_t exponent) {
  return scale * kg_from_bits_f32((uint32_t)(kg_clamp_s32(exponent, -126, 127) + 127) << 23);
}

/* d = g * (scale * 2^exponent). No overlap. */
static inline void kg_ig_dequantize_s8(float *restrict d, const int8_t *restrict g, const int32_t *exponent, int32_t n,
                                       float scale) {
  const float factor = kg_ig_factor(scale, *exponent);
  for (int32_t i = 0; i < n; ++i) {
    d[i] = (float)g[i] * factor;
  }
}

static inline void kg_ig_dequantize_s32(float *restrict d, const int32_t *restrict g, const int32_t *exponent,
                                        int32_t n, float scale) {
  const float factor = kg_ig_factor(scale, *exponent);
  for (int32_t i = 0; i < n; ++i) {
    d[i] = (float)g[i] * factor;
  }
}

#endif
