/* Quantised depthwise convolution where there are Arm's 16-bit multiply-accumulates.
 *
 * Channels are taken four at a time. The input rows under the kernel lie in a ring, channel by channel, as int16 from
 * which the zero point is taken off, between zeros, so that a word holds two neighbours. An output at an even place
 * starts with a word, one at an odd place in the middle of it: taps come in both alignments, (w0, w1), (w2, 0) and
 * (0, w0), (w1, w2). */
#ifndef KILOGRAD_Q_ROWS_H
#define KILOGRAD_Q_ROWS_H

#include "kilograd/q_tile.h"
#include "kilograd/stencil.h"
#include "kilograd/window.h"

#if KG_SIMD32

#if defined(__GNUC__)
#define KG_FENCE __asm__ volatile("" : : : "memory");
#else
#define KG_FENCE
#endif

/* A ring of `slots` rows of `width` elements a channel, and a row of zeros; `pitch` elements to the next channel. */
typedef struct kg_ring {
  int32_t slots, width, pitch;
} kg_ring;

KG_INLINE kg_ring kg_ring_of(const kg_window *g) {
  const int32_t words = g->KW / 2 + 1, slots = (g->KH - 1) * g->dilation_h + 1;
  const int32_t reach = ((g->OW + 3) / 4 * 4 - 1) * g->stride_w + 2 * words, filled = g->pad_left + g->W;
  const int32_t width = ((reach > filled ? reach : filled) + 1) / 2 * 2;
  const kg_ring ring = {.slots = slots, .width = width, .pitch = (slots + 1) * width};
  return ring;
}

KG_INLINE uint32_t kg_low_halves(uint32_t a, uint32_t b) { return (a & 0xffffu) | b << 16; }
KG_INLINE uint32_t kg_high_halves(uint32_t a, uint32_t b) { return a >> 16 | (b & 0xffff0000u); }

KG_INLINE void kg_store_word(int16_t *to, uint32_t word) { __builtin_memcpy(to, &word, 4); }

/* Two neighbours of four channels, `pitch` elements apart. */
KG_INLINE void kg_spread_pair_s8(int16_t *to, int32_t pitch, uint32_t a, uint32_t b, int16x2_t offset) {
  const uint32_t a_even = (uint32_t)__sxtab16(offset, (int8x4_t)a);
  const uint32_t b_even = (uint32_t)__sxtab16(offset, (int8x4_t)b);
  const uint32_t a_odd = (uint32_t)__sxtab16(offset, (int8x4_t)kg_odd_bytes(a));
  const uint32_t b_odd = (uint32_t)__sxtab16(offset, (int8x4_t)kg_odd_bytes(b));
  kg_store_word(to, kg_low_halves(a_even, b_even));
  kg_store_word(to + pitch, kg_low_halves(a_odd, b_odd));
  kg_store_word(to + 2 * pitch, kg_high_halves(a_even, b_even));
  kg_store_word(to + 3 * pitch, kg_high_halves(a_odd, b_odd));
}

/* Spreads a row of W pixels over the rows of `lanes` channels. */
KG_OUTLINE void kg_spread_row_s8(int16_t *to, int32_t pitch, const int8_t *x, int32_t W, int32_t stride,
                                 int32_t zero_point, int32_t lanes) {
  if (lanes == 4) {
    const int16x2_t offset = (int16x2_t)((uint32_t)(-zero_point & 0xffff) * 0x10001u);
    KG_ROLLED
    for (; W >= 2; W -= 2, x += 2 * stride, to += 2) {
      kg_spread_pair_s8(to, pitch, kg_load_s8x4(x), kg_load_s8x4(x + stride), offset);
    }
  }
  for (; W > 0; --W, x += stride, ++to) {
    for (int32_t l = 0; l < lanes; ++l) {
      to[l * pitch] = (int16_t)(x[l] - zero_point);
    }
  }
}

/* The taps of one channel in both alignments, [KH][KW / 2 + 1] times (even, odd). */
KG_OUTLINE void kg_pair_taps_s8(int16_t *to, const int8_t *w, int32_t KH, int32_t KW, int32_t C) {
  for (; KH > 0; --KH) {
    uint32_t before = 0;
    int32_t left = KW;
    KG_ROLLED
    for (; left > 1; left -= 2, w += 2 * C, to += 4) {
      const uint32_t a = (uint32_t)w[0], b = (uint32_t)w[C];
      kg_store_word(to, kg_low_halves(a, b));
      kg_store_word(to + 2, kg_low_halves(before, a));
      before = b;
    }
    const uint32_t last = left > 0 ? (uint32_t)*w : 0;
    kg_store_word(to, last & 0xffffu);
    kg_store_word(to + 2, kg_low_halves(before, last));
    w += left * C;
    to += 4;
  }
}

/* Adds a kernel row to four outputs; `taps` as kg_pair_taps_s8 leaves them. The fence keeps the loads of the next row
 * from being moved up here, where no register is free for them. */
KG_INLINE const uint32_t *kg_row_dots_s8(int32_t *sums, const uint32_t *x, const uint32_t *taps, int32_t words,
                                         int32_t stride) {
  int16x2_t a = (int16x2_t)x[0], b = (int16x2_t)x[1], c = stride == 1 ? 0 : (int16x2_t)x[2], d = 0;
  for (int32_t j = 0; j < words; ++j) {
    int16x2_t pair[2];
    taps = kg_load_pair(pair, taps);
    if (stride == 1) {
      b = (int16x2_t)x[j + 1];
      sums[0] = __smlad(a, pair[0], sums[0]);
      sums[1] = __smlad(a, pair[1], sums[1]);
      sums[2] = __smlad(b, pair[0], sums[2]);
      sums[3] = __smlad(b, pair[1], sums[3]);
      a = b;
    } else {
      d = (int16x2_t)x[j + 3];
      sums[0] = __smlad(a, pair[0], sums[0]);
      sums[1] = __smlad(b, pair[0], sums[1]);
      sums[2] = __smlad(c, pair[0], sums[2]);
      sums[3] = __smlad(d, pair[0], sums[3]);
      a = b;
      b = c;
      c = d;
    }
  }
  KG_FENCE
  return taps;
}

/* What a row of outputs of one channel needs: kernel row kh meets base + rows[kh]. Where shift is 33 to 54, an output
 * is (upper half of sum * multiplier + added) >> (shift - 32), zero point included. */
typedef struct kg_row_s8 {
  const int16_t *base;
  const int32_t *rows;
  const uint32_t *taps;
  int32_t KH, words, bias, multiplier, shift, zero_point, added;
} kg_row_s8;

/* Four sums from element `at` on. */
KG_INLINE void kg_row_sums_s8(int32_t *sums, const kg_row_s8 *r, int32_t at, int32_t KH, int32_t words,
                              int32_t stride) {
  const int16_t *const base = r->base + at;
  const uint32_t *taps = r->taps;
  const int32_t *rows = r->rows;
  for (int32_t q = 0; q < 4; ++q) {
    sums[q] = r->bias;
  }
  KG_ROLLED
  for (int32_t kh = KH; kh > 0; --kh) {
    taps = kg_row_dots_s8(sums, (const uint32_t *)(const void *)(base + *rows++), taps, words, stride);
  }
}

/* Any kernel, any factor, any number of columns from `at` on. */
KG_INLINE void kg_row_any_s8(int8_t *y, int32_t y_step, int32_t columns, const kg_row_s8 *r, int32_t at,
                             int32_t stride) {
  for (; columns > 0; columns -= 4, at += 4 * stride) {
    int32_t sums[4];
    kg_row_sums_s8(sums, r, at, r->KH, r->words, stride);
    for (int32_t q = 0; q < 4 && q < columns; ++q, y += y_step) {
      *y = kg_saturate_s8(kg_requantize(sums[q], r->multiplier, r->shift) + r->zero_point);
    }
  }
}

KG_OUTLINE void kg_row_any_1_s8(int8_t *y, int32_t y_step, int32_t columns, const kg_row_s8 *r, int32_t at) {
  kg_row_any_s8(y, y_step, columns, r, at, 1);
}

KG_OUTLINE void kg_row_any_2_s8(int8_t *y, int32_t y_step, int32_t columns, const kg_row_s8 *r, int32_t at) {
  kg_row_any_s8(y, y_step, columns, r, at, 2);
}

/* Four outputs; 32 < shift < 55. */
KG_INLINE int8_t *kg_row_store_s8(int8_t *y, int32_t y_step, const int32_t *sums, const kg_row_s8 *r) {
  const int32_t multiplier = r->multiplier, added = r->added, places = r->shift - 32;
  for (int32_t q = 0; q < 4; ++q, y += y_step) {
    const int32_t high = (int32_t)(((int64_t)sums[q] * multiplier) >> 32);
    *y = kg_saturate_s8((high + added) >> places);
  }
  return y;
}

/* A multiple of four columns; literal KH, words and stride. */
KG_INLINE void kg_row_fixed_s8(int8_t *y, int32_t y_step, int32_t columns, const kg_row_s8 *r, int32_t KH,
                               int32_t words, int32_t stride) {
  KG_ROLLED
  for (int32_t at = 0; columns > 0; columns -= 4, at += 4 * stride) {
    int32_t sums[4];
    kg_row_sums_s8(sums, r, at, KH, words, stride);
    y = kg_row_store_s8(y, y_step, sums, r);
  }
}

/* The same for three rows of three taps, whose row pointers stay in registers. */
KG_INLINE void kg_row_3_s8(int8_t *y, int32_t y_step, int32_t columns, const kg_row_s8 *r, int32_t stride) {
  const uint32_t *x0 = (const uint32_t *)(const void *)(r->base + r->rows[0]);
  const uint32_t *x1 = (const uint32_t *)(const void *)(r->base + r->rows[1]);
  const uint32_t *x2 = (const uint32_t *)(const void *)(r->base + r->rows[2]);
  const uint32_t *const taps = r->taps;
  KG_ROLLED
  for (; columns > 0; columns -= 4, x0 += 2 * stride, x1 += 2 * stride, x2 += 2 * stride) {
    int32_t sums[4] = {r->bias, r->bias, r->bias, r->bias};
    const uint32_t *next = kg_row_dots_s8(sums, x0, taps, 2, stride);
    next = kg_row_dots_s8(sums, x1, next, 2, stride);
    kg_row_dots_s8(sums, x2, next, 2, stride);
    y = kg_row_store_s8(y, y_step, sums, r);
  }
}

#define KG_ROW_FUNCTION(NAME, CALL, ...)                                                 \
  KG_OUTLINE void NAME(int8_t *y, int32_t y_step, int32_t columns, const kg_row_s8 *r) { \
    CALL(y, y_step, columns, r, __VA_ARGS__);                                            \
  }
KG_ROW_FUNCTION(kg_row_3_1_s8, kg_row_3_s8, 1)
KG_ROW_FUNCTION(kg_row_3_2_s8, kg_row_3_s8, 2)
KG_ROW_FUNCTION(kg_row_5_1_s8, kg_row_fixed_s8, 5, 3, 1)
KG_ROW_FUNCTION(kg_row_5_2_s8, kg_row_fixed_s8, 5, 3, 2)
KG_ROW_FUNCTION(kg_row_7_1_s8, kg_row_fixed_s8, 7, 4, 1)
KG_ROW_FUNCTION(kg_row_7_2_s8, kg_row_fixed_s8, 7, 4, 2)
#undef KG_ROW_FUNCTION

/* Which of the functions above does whole blocks. */
KG_INLINE int32_t kg_row_key(const kg_window *g) { return g->KH == g->KW ? g->KW * 2 + g->stride_w : 0; }

/* A row of outputs of one channel: whole blocks by the function for the kernel, the rest by the one for all. */
KG_INLINE void kg_row_of_s8(int8_t *y, int32_t y_step, int32_t columns, const kg_row_s8 *r, int32_t key,
                            int32_t stride) {
  int32_t done = columns / 4 * 4;
  if (done == 0 || r->shift < 33 || r->shift > 54) {
    done = 0;
  } else if (key == 7) {
    kg_row_3_1_s8(y, y_step, done, r);
  } else if (key == 8) {
    kg_row_3_2_s8(y, y_step, done, r);
  } else if (key == 11) {
    kg_row_5_1_s8(y, y_step, done, r);
  } else if (key == 12) {
    kg_row_5_2_s8(y, y_step, done, r);
  } else if (key == 15) {
    kg_row_7_1_s8(y, y_step, done, r);
  } else if (key == 16) {
    kg_row_7_2_s8(y, y_step, done, r);
  } else {
    done = 0;
  }
  if (done < columns) {
    y += done * y_step;
    if (stride == 1) {
      kg_row_any_1_s8(y, y_step, columns - done, r, done);
    } else {
      kg_row_any_2_s8(y, y_step, columns - done, r, 2 * done);
    }
  }
}

/* kg_depthwise_s8 for `lanes` channels, at most 4. Scratch holds KH row offsets, the taps and the ring. */
static inline void kg_depthwise_lanes_s8(int8_t *restrict y, const int8_t *restrict x, const int8_t *restrict w,
                                         const kg_output_s8 *out, int32_t channel, int16_t *restrict scratch,
                                         const kg_window *g, int32_t C, int32_t stride, int32_t x_zero_point,
                                         int32_t lanes) {
  const kg_ring ring = kg_ring_of(g);
  const int32_t words = g->KW / 2 + 1, taps = g->KH * words * 4, key = kg_row_key(g);
  int32_t *const offsets = (int32_t *)(void *)scratch;
  int16_t *const pairs = scratch + 2 * g->KH, *const rows = pairs + 4 * taps;
  kg_row_s8 row[4];
  for (int32_t l = 0; l < lanes; ++l) {
    const int32_t shift = out->shift[channel + l];
    kg_pair_taps_s8(pairs + l * taps, w + l, g->KH, g->KW, C);
    row[l].base = rows + l * ring.pitch;
    row[l].rows = offsets;
    row[l].taps = (const uint32_t *)(const void *)(pairs + l * taps);
    row[l].KH = g->KH;
    row[l].words = words;
    row[l].bias = out->bias[channel + l];
    row[l].multiplier = out->multiplier[channel + l];
    row[l].shift = shift;
    row[l].zero_point = out->zero_point;
    row[l].added = shift > 32 && shift < 55 ? (1 << (shift - 33)) + out->zero_point * (1 << (shift - 32)) : 0;
  }
  int32_t next = 0, slot = 0; /* the next input row, and where it goes */
  for (int32_t oh = 0; oh < g->OH; ++oh, y += g->OW * stride) {
    const int32_t top = oh * g->stride_h - g->pad_top, bottom = top + ring.slots;
    for (; next < bottom && next < g->H; ++next) {
      if (next >= top) {
        kg_spread_row_s8(rows + slot * ring.width + g->pad_left, ring.pitch, x + next * g->W * stride, g->W, stride,
                         x_zero_point, lanes);
      }
      slot = slot + 1 < ring.slots ? slot + 1 : 0;
    }
    for (int32_t kh = 0; kh < g->KH; ++kh) {
      const int32_t ih = top + kh * g->dilation_h;
      const bool inside = ih >= 0 && ih < g->H;
      offsets[kh] = (inside ? ih % ring.slots : ring.slots) * ring.width;
    }
    for (int32_t l = 0; l < lanes; ++l) {
      kg_row_of_s8(y + l, stride, g->OW, &row[l], key, g->stride_w);
    }
  }
}

/* kg_depthwise_s8 where dilation_w = 1 and stride_w <= 2. */
static inline void kg_depthwise_rows_s8(int8_t *restrict y, const int8_t *restrict x, const int8_t *restrict w,
                                        const kg_output_s8 *out, int16_t *restrict scratch, const kg_window *g,
                                        int32_t C, int32_t stride, int32_t x_zero_point) {
  const int32_t size = g->KH * (2 + 16 * (g->KW / 2 + 1)) + 4 * kg_ring_of(g).pitch;
  for (int32_t i = 0; i < size; ++i) {
    scratch[i] = 0;
  }
  for (int32_t c = 0; c < C; c += 4) {
    kg_depthwise_lanes_s8(y + c, x + c, w + c, out, c, scratch, g, C, stride, x_zero_point, C - c < 4 ? C - c : 4);
  }
  if (out->low > -128 || out->high < 127) {
    for (int32_t p = 0; p < g->OH * g->OW; ++p) {
      kg_limit_s8(y + p * stride, C, out->low, out->high);
    }
  }
}

#endif
#endif
