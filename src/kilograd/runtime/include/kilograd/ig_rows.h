/* The inner loop of integer gradients: rows of int8 times int16 factors, summed in int32.
 *
 *   sums[l] += sum over t of rows[t * step + l] * factors[t]
 *
 * for `lanes` neighbours l. Integer sums have no order, so neither the blocking nor the instruction set changes a
 * bit. */
#ifndef KILOGRAD_IG_ROWS_H
#define KILOGRAD_IG_ROWS_H

#include "kilograd/requantize.h"
#include "kilograd/tile.h"

#define KG_IG_LANES 4

/* `lanes` neighbours, by the plain loop. */
KG_INLINE void kg_ig_rows_plain(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                                const int16_t *restrict factors, int32_t n, int32_t lanes) {
  int32_t sum[KG_IG_LANES];
  for (int32_t l = 0; l < lanes; ++l) {
    sum[l] = sums[l];
  }
  KG_ROLLED
  for (int32_t t = 0; t < n; ++t, rows += step) {
    const int32_t factor = factors[t];
    for (int32_t l = 0; l < lanes; ++l) {
      sum[l] += rows[l] * factor;
    }
  }
  for (int32_t l = 0; l < lanes; ++l) {
    sums[l] = sum[l];
  }
}

#if KG_SIMD32

/* A word from any address. */
KG_INLINE uint32_t kg_ig_load(const void *from) {
  uint32_t word;
  __builtin_memcpy(&word, from, 4);
  return word;
}

/* Four lanes, two rows at a time: the bytes of each are spread over two words, and the words of both rows are
 * interleaved so that each holds one lane of both. */
KG_INLINE void kg_ig_rows_4(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                            const int16_t *restrict factors, int32_t n) {
  int32_t sum[KG_IG_LANES];
  for (int32_t l = 0; l < KG_IG_LANES; ++l) {
    sum[l] = sums[l];
  }
  const int32_t pairs = n / 2;
  KG_ROLLED
  for (int32_t t = 0; t < pairs; ++t, rows += 2 * step, factors += 2) {
    const uint32_t first = kg_ig_load(rows), second = kg_ig_load(rows + step);
    const uint32_t first_even = (uint32_t)__sxtb16((int8x4_t)first);
    const uint32_t first_odd = (uint32_t)__sxtb16((int8x4_t)(first >> 8 | first << 24));
    const uint32_t second_even = (uint32_t)__sxtb16((int8x4_t)second);
    const uint32_t second_odd = (uint32_t)__sxtb16((int8x4_t)(second >> 8 | second << 24));
    const uint32_t lanes[KG_IG_LANES] = {
        (first_even & 0xffffu) | second_even << 16, (first_odd & 0xffffu) | second_odd << 16,
        first_even >> 16 | (second_even & 0xffff0000u), first_odd >> 16 | (second_odd & 0xffff0000u)};
    const int16x2_t factor = (int16x2_t)kg_ig_load(factors);
    for (int32_t l = 0; l < KG_IG_LANES; ++l) {
      sum[l] = __smlad((int16x2_t)lanes[l], factor, sum[l]);
    }
  }
  for (int32_t l = 0; l < KG_IG_LANES; ++l) {
    sums[l] = sum[l];
  }
  kg_ig_rows_plain(sums, rows, step, factors, n & 1, KG_IG_LANES);
}

#else

KG_INLINE void kg_ig_rows_4(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                            const int16_t *restrict factors, int32_t n) {
  kg_ig_rows_plain(sums, rows, step, factors, n, KG_IG_LANES);
}

#endif

/* Functions of their own, since what is inlined into a large loop is given too few registers. */
KG_OUTLINE void kg_ig_rows_4x1(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                               const int16_t *restrict factors, int32_t n) {
  kg_ig_rows_4(sums, rows, step, factors, n);
}

KG_OUTLINE void kg_ig_rows_1x1(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                               const int16_t *restrict factors, int32_t n) {
  kg_ig_rows_plain(sums, rows, step, factors, n, 1);
}

/* Any number of lanes up to 4. */
KG_INLINE void kg_ig_rows(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                          const int16_t *restrict factors, int32_t n, int32_t lanes) {
  if (lanes == KG_IG_LANES) {
    kg_ig_rows_4x1(sums, rows, step, factors, n);
    return;
  }
  for (int32_t l = 0; l < lanes; ++l) {
    kg_ig_rows_1x1(sums + l, rows + l, step, factors, n);
  }
}

#endif
