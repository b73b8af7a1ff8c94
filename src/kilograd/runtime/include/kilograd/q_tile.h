/* Tiles of int8 sums: what convolutions and fully connected layers share.
 *
 * Two input pixels at a time are widened to int16 columns from which the zero point is taken off, so that padding is
 * 0; each then meets two output channels. Integer sums have no order, so neither blocking nor instruction set changes
 * a bit. Weights lie [O][terms], row by row at any address. */
#ifndef KILOGRAD_Q_TILE_H
#define KILOGRAD_Q_TILE_H

#include "kilograd/requantize.h"
#include "kilograd/tile.h"

/* Pixels and channels of a tile. */
#define KG_Q_ROWS 2
#define KG_Q_LANES 2

/* How sums become int8: y = clamp(requantize(sum + bias[o], multiplier[o], shift[o]) + zero_point, low, high). Kernels
 * saturate, which is one instruction, and call kg_limit_s8 at the end. */
typedef struct kg_output_s8 {
  const int32_t *bias, *multiplier, *shift;
  int32_t zero_point, low, high;
} kg_output_s8;

/* The weight of I input channels of each group: [O][KH][KW][I]. */
typedef struct kg_part_s8 {
  const int8_t *w;
  int32_t I;
} kg_part_s8;

/* int16 elements between the columns of two neighbouring pixels of a pair, and those that a pair takes. */
#define KG_Q_PITCH(terms) (((terms) + 3) / 4 * 4)

#if KG_SIMD32

/* Four int8 from any address. */
KG_INLINE uint32_t kg_load_s8x4(const int8_t *from) {
  uint32_t word;
  __builtin_memcpy(&word, from, 4);
  return word;
}

/* The last terms % 4 of `terms` int8, the rest 0; x points to them, behind the others. */
KG_INLINE uint32_t kg_load_tail_s8(const int8_t *x, int32_t terms) {
  const int32_t n = terms & 3;
  if (terms >= 4) {
    return kg_load_s8x4(x + n - 4) >> (32 - 8 * n);
  }
  uint32_t word = 0;
  for (int32_t i = 0; i < n; ++i) {
    word |= (uint32_t)(uint8_t)x[i] << (8 * i);
  }
  return word;
}

/* Bytes 1 and 3 at the place of bytes 0 and 2. */
KG_INLINE uint32_t kg_odd_bytes(uint32_t word) { return word >> 8 | word << 24; }

/* Column r of a pair: four terms of a pixel are two words, (0, 2) and (1, 3); first come those of both pixels, then
 * these. */
KG_INLINE void kg_widen_s8(int16_t *columns, const int8_t *x, int32_t terms, int32_t zero_point, int32_t r) {
  const uint32_t offset = (uint32_t)(-zero_point & 0xffff) * 0x10001u;
  uint32_t *to = (uint32_t *)(void *)columns + r;
  const int32_t whole = terms;
  KG_ROLLED
  for (; terms >= 4; terms -= 4, x += 4, to += 4) {
    const uint32_t word = kg_load_s8x4(x);
    to[0] = (uint32_t)__sxtab16((int16x2_t)offset, (int8x4_t)word);
    to[2] = (uint32_t)__sxtab16((int16x2_t)offset, (int8x4_t)kg_odd_bytes(word));
  }
  if (terms > 0) { /* the weights that meet what lies behind the end are 0 */
    const uint32_t word = kg_load_tail_s8(x, whole);
    to[0] = (uint32_t)__sxtab16((int16x2_t)offset, (int8x4_t)word);
    to[2] = (uint32_t)__sxtab16((int16x2_t)offset, (int8x4_t)kg_odd_bytes(word));
  }
}

/* The next two words of a column, one for each pixel, in one instruction: compilers take two. */
KG_INLINE const uint32_t *kg_load_pair(int16x2_t pair[2], const uint32_t *x) {
#if defined(__GNUC__) && defined(__thumb2__)
  __asm__ volatile("ldrd %0, %1, [%2], #8" : "=&r"(pair[0]), "=&r"(pair[1]), "+&r"(x) : : "memory");
  return x;
#else
  pair[0] = (int16x2_t)x[0];
  pair[1] = (int16x2_t)x[1];
  return x + 2;
#endif
}

/* Four terms: sums[r * KG_Q_LANES + l] += column r . w[l]; each factor is used up before the next is made, so that the
 * loop below gets by with 13 registers. */
KG_INLINE const uint32_t *kg_dots_4_s8(int32_t *sums, const uint32_t *x, const uint32_t *w, int32_t rows,
                                       int32_t lanes) {
  for (int32_t half = 0; half < 2; ++half) {
    int16x2_t pair[2];
    x = kg_load_pair(pair, x);
    for (int32_t l = 0; l < lanes; ++l) {
      const int16x2_t factor = __sxtb16((int8x4_t)(half > 0 ? kg_odd_bytes(w[l]) : w[l]));
      for (int32_t r = 0; r < rows; ++r) {
        int32_t *sum = &sums[r * KG_Q_LANES + l];
        *sum = __smlad(pair[r], factor, *sum);
      }
    }
  }
  return x;
}

/* sums[r * KG_Q_LANES + l] += sum over t of column r [t] * w[l * w_pitch + t] */
KG_INLINE void kg_dots_s8(int32_t *sums, const int16_t *columns, const int8_t *w, int32_t w_pitch, int32_t terms,
                          int32_t rows, int32_t lanes) {
  const uint32_t *x = (const uint32_t *)(const void *)columns, *const end = x + terms / 4 * 4;
  const int8_t *v = w + (lanes - 1) * w_pitch;
  uint32_t words[KG_Q_LANES];
  if ((terms & 4) != 0) {
    words[0] = kg_load_s8x4(w);
    words[1] = lanes > 1 ? kg_load_s8x4(v) : 0;
    x = kg_dots_4_s8(sums, x, words, rows, lanes);
    w += 4, v += 4;
  }
  KG_ROLLED
  while (x != end) {
    for (int32_t step = 0; step < 2; ++step) {
      words[0] = kg_load_s8x4(w + 4 * step);
      words[1] = lanes > 1 ? kg_load_s8x4(v + 4 * step) : 0;
      x = kg_dots_4_s8(sums, x, words, rows, lanes);
    }
    w += 8, v += 8;
  }
  if ((terms & 3) != 0) {
    words[0] = kg_load_tail_s8(w, terms);
    words[1] = lanes > 1 ? kg_load_tail_s8(v, terms) : 0;
    kg_dots_4_s8(sums, x, words, rows, lanes);
  }
}

#else

/* Column r of a pair. */
KG_INLINE void kg_widen_s8(int16_t *columns, const int8_t *x, int32_t terms, int32_t zero_point, int32_t r) {
  columns += r * KG_Q_PITCH(terms);
  for (int32_t t = 0; t < terms; ++t) {
    columns[t] = (int16_t)(x[t] - zero_point);
  }
}

/* sums[r * KG_Q_LANES + l] += sum over t of column r [t] * w[l * w_pitch + t] */
KG_INLINE void kg_dots_s8(int32_t *sums, const int16_t *columns, const int8_t *w, int32_t w_pitch, int32_t terms,
                          int32_t rows, int32_t lanes) {
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t l = 0; l < lanes; ++l) {
      const int16_t *a = columns + r * KG_Q_PITCH(terms);
      const int8_t *b = w + l * w_pitch;
      int32_t sum = 0;
      for (int32_t t = 0; t < terms; ++t) {
        sum += a[t] * b[t];
      }
      sums[r * KG_Q_LANES + l] += sum;
    }
  }
}

#endif

/* One tile: `rows` pixels, O elements apart, and `lanes` channels of y. The columns and the weights of the parts follow
 * one another as in kg_conv2d_s8; `row` is the first channel's. */
KG_INLINE void kg_tile_s8(int8_t *restrict y, const int16_t *restrict columns, const kg_part_s8 *parts, int32_t count,
                          const kg_output_s8 *out, int32_t O, int32_t taps, int32_t row, int32_t rows, int32_t lanes) {
  int32_t sums[KG_Q_ROWS * KG_Q_LANES];
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t l = 0; l < lanes; ++l) {
      sums[r * KG_Q_LANES + l] = out->bias[row + l];
    }
  }
  for (int32_t k = 0; k < count; ++k) {
    const int32_t terms = taps * parts[k].I;
    kg_dots_s8(sums, columns, parts[k].w + row * terms, terms, terms, rows, lanes);
    columns += KG_Q_ROWS * KG_Q_PITCH(terms);
  }
  for (int32_t l = 0; l < lanes; ++l) {
    const int32_t multiplier = out->multiplier[row + l], shift = out->shift[row + l];
    for (int32_t r = 0; r < rows; ++r) {
      const int32_t q = kg_requantize(sums[r * KG_Q_LANES + l], multiplier, shift);
      y[r * O + l] = kg_saturate_s8(q + out->zero_point);
    }
  }
}

/* The channels [begin, end) of `rows` pixels. */
KG_INLINE void kg_tiles_rows_s8(int8_t *restrict y, const int16_t *restrict columns, const kg_part_s8 *parts,
                                int32_t count, const kg_output_s8 *out, int32_t O, int32_t taps, int32_t begin,
                                int32_t end, int32_t rows) {
  int32_t o = begin;
  KG_ROLLED
  for (; o + KG_Q_LANES <= end; o += KG_Q_LANES) {
    kg_tile_s8(y + o, columns, parts, count, out, O, taps, o, rows, KG_Q_LANES);
  }
  if (o < end) {
    kg_tile_s8(y + o, columns, parts, count, out, O, taps, o, rows, 1);
  }
}

/* Functions of their own, since what is inlined into a large loop is given too few registers. */
KG_OUTLINE void kg_tiles_2_s8(int8_t *restrict y, const int16_t *restrict columns, const kg_part_s8 *parts,
                              int32_t count, const kg_output_s8 *out, int32_t O, int32_t taps, int32_t begin,
                              int32_t end) {
  kg_tiles_rows_s8(y, columns, parts, count, out, O, taps, begin, end, 2);
}

KG_OUTLINE void kg_tiles_1_s8(int8_t *restrict y, const int16_t *restrict columns, const kg_part_s8 *parts,
                              int32_t count, const kg_output_s8 *out, int32_t O, int32_t taps, int32_t begin,
                              int32_t end) {
  kg_tiles_rows_s8(y, columns, parts, count, out, O, taps, begin, end, 1);
}

#endif
