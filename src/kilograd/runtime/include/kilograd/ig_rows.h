/* The inner loop of integer gradients: rows of int8 times int16 factors, summed in int32.
 *
 *   sums[k * 4 + l] += sum over t of rows[t * step + l] * factors[k * pitch + t]
 *
 * for `lanes` neighbours l and `columns` sets of factors k. Integer sums have no order, so neither the blocking nor the
 * instruction set changes a bit. */
#ifndef KILOGRAD_IG_ROWS_H
#define KILOGRAD_IG_ROWS_H

#include "kilograd/requantize.h"
#include "kilograd/tile.h"

/* Sets of factors at a time: what the registers hold. */
#if KG_SIMD32
#define KG_IG_COLUMNS 2
#else
#define KG_IG_COLUMNS 1
#endif

#define KG_IG_LANES 4

/* The general loop. */
KG_INLINE void kg_ig_rows_plain(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                                const int16_t *restrict factors, int32_t pitch, int32_t n, int32_t columns,
                                int32_t lanes) {
  int32_t sum[KG_IG_COLUMNS * KG_IG_LANES];
  for (int32_t i = 0; i < columns * KG_IG_LANES; ++i) {
    sum[i] = sums[i];
  }
  KG_ROLLED
  for (int32_t t = 0; t < n; ++t, rows += step, ++factors) {
    for (int32_t k = 0; k < columns; ++k) {
      const int32_t factor = factors[k * pitch];
      for (int32_t l = 0; l < lanes; ++l) {
        sum[k * KG_IG_LANES + l] += factor * rows[l];
      }
    }
  }
  for (int32_t i = 0; i < columns * KG_IG_LANES; ++i) {
    sums[i] = sum[i];
  }
}

#if KG_SIMD32

KG_INLINE uint32_t kg_ig_load(const void *from) {
  uint32_t word;
  __builtin_memcpy(&word, from, 4);
  return word;
}

/* Four lanes, two rows at a time: the four bytes of each are spread over two words, and the words of both rows are
 * interleaved so that a word holds one lane of both. */
KG_INLINE void kg_ig_rows_4(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                            const int16_t *restrict factors, int32_t pitch, int32_t n, int32_t columns) {
  int32_t sum[KG_IG_COLUMNS * KG_IG_LANES];
  for (int32_t i = 0; i < columns * KG_IG_LANES; ++i) {
    sum[i] = sums[i];
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
    for (int32_t k = 0; k < columns; ++k) {
      const int16x2_t factor = (int16x2_t)kg_ig_load(factors + k * pitch);
      for (int32_t l = 0; l < KG_IG_LANES; ++l) {
        sum[k * KG_IG_LANES + l] = __smlad((int16x2_t)lanes[l], factor, sum[k * KG_IG_LANES + l]);
      }
    }
  }
  for (int32_t i = 0; i < columns * KG_IG_LANES; ++i) {
    sums[i] = sum[i];
  }
  if ((n & 1) != 0) {
    kg_ig_rows_plain(sums, rows, step, factors, pitch, 1, columns, KG_IG_LANES);
  }
}

#else

KG_INLINE void kg_ig_rows_4(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                            const int16_t *restrict factors, int32_t pitch, int32_t n, int32_t columns) {
  kg_ig_rows_plain(sums, rows, step, factors, pitch, n, columns, KG_IG_LANES);
}

#endif

/* Functions of their own, since what is inlined into a large loop is given too few registers. */
KG_OUTLINE void kg_ig_rows_4x1(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                               const int16_t *restrict factors, int32_t n) {
  kg_ig_rows_4(sums, rows, step, factors, 0, n, 1);
}

KG_OUTLINE void kg_ig_rows_1x1(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                               const int16_t *restrict factors, int32_t n) {
  kg_ig_rows_plain(sums, rows, step, factors, 0, n, 1, 1);
}

#if KG_IG_COLUMNS == 2
KG_OUTLINE void kg_ig_rows_4x2(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                               const int16_t *restrict factors, int32_t pitch, int32_t n) {
  kg_ig_rows_4(sums, rows, step, factors, pitch, n, 2);
}
#endif

/* Any number of lanes up to 4 and of columns up to KG_IG_COLUMNS. */
KG_INLINE void kg_ig_rows(int32_t *restrict sums, const int8_t *restrict rows, int32_t step,
                          const int16_t *restrict factors, int32_t pitch, int32_t n, int32_t columns, int32_t lanes) {
#if KG_IG_COLUMNS == 2
  if (lanes == KG_IG_LANES && columns == 2) {
    kg_ig_rows_4x2(sums, rows, step, factors, pitch, n);
    return;
  }
#endif
  for (int32_t k = 0; k < columns; ++k) {
    if (lanes == KG_IG_LANES) {
      kg_ig_rows_4x1(sums + k * KG_IG_LANES, rows, step, factors + k * pitch, n);
      continue;
    }
    for (int32_t l = 0; l < lanes; ++l) {
      kg_ig_rows_1x1(sums + k * KG_IG_LANES + l, rows + l, step, factors + k * pitch, n);
    }
  }
}

#endif
