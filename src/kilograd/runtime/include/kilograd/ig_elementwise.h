/* Sums, means and masks of int8 gradients, each with an exponent. */
#ifndef KILOGRAD_IG_ELEMENTWISE_H
#define KILOGRAD_IG_ELEMENTWISE_H

#include "kilograd/ig_narrow.h"

/* a * 2^16 in units of the larger exponent, `behind` bits below it, rounded down. */
KG_INLINE int32_t kg_ig_aligned(int32_t a, int32_t behind) { return (a * (1 << 16)) >> (behind > 31 ? 31 : behind); }

/* g = narrowed a + b. g may be a or b. */
static inline void kg_ig_add(int8_t *g, int32_t *exponent, int32_t *wanted, const int8_t *a, const int32_t *a_exponent,
                             const int8_t *b, const int32_t *b_exponent, const int32_t *shift, int32_t n,
                             const uint32_t *seed, uint32_t salt) {
  const int32_t high = *a_exponent > *b_exponent ? *a_exponent : *b_exponent;
  const int32_t a_behind = high - *a_exponent, b_behind = high - *b_exponent;
  const int32_t a_room = kg_headroom_s8(a, n) + a_behind, b_room = kg_headroom_s8(b, n) + b_behind;
  kg_narrow narrow = kg_narrow_begin(*shift, kg_clamp_s32(a_room < b_room ? a_room : b_room, 0, 16), seed, salt);
  for (int32_t i = 0; i < n; ++i) {
    const int32_t sum = kg_ig_aligned(a[i], a_behind) + kg_ig_aligned(b[i], b_behind);
    g[i] = kg_narrow_s8(&narrow, sum, (uint32_t)i);
  }
  kg_narrow_end(&narrow, high - 16, exponent, wanted);
}

/* g[o][p][i] = (d[o][i] * multiplier + noise) / 2^16 for p in [0, count), multiplier in (2^15, 2^16], so that nothing
 * is cut off; exponent = d_exponent + power. No overlap. */
static inline void kg_ig_spread(int8_t *restrict g, int32_t *exponent, const int8_t *restrict d,
                                const int32_t *d_exponent, int32_t outer, int32_t count, int32_t inner,
                                int32_t multiplier, int32_t power, const uint32_t *seed, uint32_t salt) {
  uint32_t counter = kg_random_key(*seed, salt);
  for (int32_t o = 0; o < outer; ++o, d += inner) {
    for (int32_t p = 0; p < count; ++p, g += inner) {
      for (int32_t i = 0; i < inner; ++i, ++counter) {
        const int32_t noise = (int32_t)(kg_hash32(counter) >> 16);
        g[i] = (int8_t)((d[i] * multiplier + noise) >> 16);
      }
    }
  }
  *exponent = *d_exponent + power;
}

/* sums[i] = sum over n of g[n][i], exactly; n up to 2^24. No overlap. */
static inline void kg_ig_sum_rows(int32_t *restrict sums, const int8_t *restrict g, int32_t n, int32_t channels) {
  for (int32_t i = 0; i < channels; ++i) {
    int32_t sum = 0;
    for (int32_t p = 0; p < n; ++p) {
      sum += g[p * channels + i];
    }
    sums[i] = sum;
  }
}

/* d_x = d_y where low < y < high, else 0. d_x may be d_y. */
static inline void kg_ig_mask(int8_t *d_x, const int8_t *d_y, const int8_t *y, int32_t n, int32_t low, int32_t high) {
  for (int32_t i = 0; i < n; ++i) {
    d_x[i] = (int8_t)(y[i] > low && y[i] < high ? d_y[i] : 0);
  }
}

/* d_x = d_y where bit i % 8 of byte i / 8 is set, else 0. d_x may be d_y. */
static inline void kg_ig_mask_bits(int8_t *d_x, const int8_t *d_y, const uint8_t *bits, int32_t n) {
  for (int32_t i = 0; i < n; ++i) {
    d_x[i] = (int8_t)((bits[i / 8] >> (i % 8) & 1) != 0 ? d_y[i] : 0);
  }
}

/* g = narrowed d * slopes[x + 128], slopes being int16 in units of 2^-unit. g may be d. */
static inline void kg_ig_table(int8_t *g, int32_t *exponent, int32_t *wanted, const int8_t *d,
                               const int32_t *d_exponent, const int8_t *x, const int32_t *slopes, const int32_t *shift,
                               int32_t n, int32_t unit, const uint32_t *seed, uint32_t salt) {
  kg_narrow narrow = kg_narrow_begin(*shift, kg_headroom_s8(d, n), seed, salt);
  for (int32_t i = 0; i < n; ++i) {
    g[i] = kg_narrow_s8(&narrow, d[i] * slopes[x[i] + 128], (uint32_t)i);
  }
  kg_narrow_end(&narrow, *d_exponent - unit, exponent, wanted);
}

#endif
