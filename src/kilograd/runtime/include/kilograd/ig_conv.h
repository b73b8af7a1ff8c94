/* Integer gradients of quantised convolutions and fully connected layers: d_y[OH][OW][O] and d_x[H][W][C] int8 with an
 * exponent each, weights w[O][KH][KW][I] int8 with a scale for each of the O, x[H][W][C] int8 with one zero point. */
#ifndef KILOGRAD_IG_CONV_H
#define KILOGRAD_IG_CONV_H

#include "kilograd/conv.h"
#include "kilograd/ig_narrow.h"
#include "kilograd/ig_rows.h"
#include "kilograd/q_tile.h"

/* Fraction bits of the multipliers of kg_ig_conv2d_grad_input. */
#define KG_IG_FRACTION 14

/* Factors that kg_ig_conv2d_grad_weight gathers at a time, and more where one row of d_y has more. */
#define KG_IG_FACTORS 256

/* int16 factors, rounded up so that what follows them is aligned. */
#define KG_IG_PITCH(count) (((count) + 1) / 2 * 2)

/* Writes the terms that meet input pixel (ih, iw), d_y times its channel's multiplier, tap by tap, and the number
 * of each tap; returns how many taps there are. */
KG_INLINE int32_t kg_ig_gather(int16_t *restrict factors, int32_t *restrict taps, const int8_t *restrict d_y,
                               const int32_t *restrict multiplier, const kg_window *g, int32_t O, int32_t n, int32_t ih,
                               int32_t iw) {
  int32_t count = 0;
  for (int32_t kh = 0; kh < g->KH; ++kh) {
    const int32_t row = ih + g->pad_top - kh * g->dilation_h, oh = row / g->stride_h;
    if (row < 0 || oh * g->stride_h != row || oh >= g->OH) {
      continue;
    }
    for (int32_t kw = 0; kw < g->KW; ++kw) {
      const int32_t column = iw + g->pad_left - kw * g->dilation_w, ow = column / g->stride_w;
      if (column < 0 || ow * g->stride_w != column || ow >= g->OW) {
        continue;
      }
      const int8_t *from = d_y + (oh * g->OW + ow) * O;
      for (int32_t o = 0; o < n; ++o) {
        *factors++ = (int16_t)((from[o] * multiplier[o] + (1 << (KG_IG_FRACTION - 1))) >> KG_IG_FRACTION);
      }
      taps[count++] = kh * g->KW + kw;
    }
  }
  return count;
}

/* I channels of one pixel. */
KG_INLINE void kg_ig_pixel(int8_t *restrict d_x, kg_narrow *restrict narrow, const int8_t *restrict w,
                           const int16_t *restrict factors, const int32_t *restrict taps, int32_t count, int32_t w_step,
                           int32_t I, int32_t n, int32_t index) {
  for (int32_t i = 0; i < I; i += KG_IG_LANES) {
    const int32_t lanes = I - i < KG_IG_LANES ? I - i : KG_IG_LANES;
    int32_t sums[KG_IG_LANES] = {0};
    for (int32_t t = 0; t < count; ++t) {
      kg_ig_rows(sums, w + taps[t] * I + i, w_step, factors + t * n, n, lanes);
    }
    for (int32_t l = 0; l < lanes; ++l) {
      d_x[i + l] = kg_narrow_s8(narrow, sums[l], (uint32_t)(index + i + l));
    }
  }
}

/* d_x = narrowed sum over kh, kw, o of w * round(d_y * multiplier[o] / 2^KG_IG_FRACTION) over the pixels of d_y that
 * exist, in units of 2^(d_exponent - unit). The rounded factors must fit int16, and the sums 2^30. The weight comes in
 * `count` parts along the input channels; the noise of an element depends on its place in d_x alone. Scratch holds
 * KG_IG_PITCH(KH * KW * O / groups) int16, then KH * KW int32. Nothing overlaps. */
static inline void kg_ig_conv2d_grad_input(int8_t *restrict d_x, int32_t *exponent, int32_t *wanted,
                                           const int8_t *restrict d_y, const int32_t *d_exponent,
                                           const kg_part_s8 *parts, int32_t count, const int32_t *restrict multiplier,
                                           const int32_t *shift, void *restrict scratch, const kg_window *g, int32_t C,
                                           int32_t O, int32_t groups, int32_t unit, const uint32_t *seed,
                                           uint32_t salt) {
  const int32_t group_in = C / groups, n = O / groups;
  int16_t *const factors = (int16_t *)scratch;
  int32_t *const taps = (int32_t *)(void *)(factors + KG_IG_PITCH(g->KH * g->KW * n));
  kg_narrow narrow = kg_narrow_begin(*shift, kg_headroom_s8(d_y, g->OH * g->OW * O), seed, salt);
  for (int32_t p = 0; p < g->H * g->W; ++p) {
    for (int32_t q = 0; q < groups; ++q) {
      const int32_t met = kg_ig_gather(factors, taps, d_y + q * n, multiplier + q * n, g, O, n, p / g->W, p % g->W);
      int32_t begin = p * C + q * group_in;
      for (int32_t part = 0; part < count; ++part) {
        const int32_t I = parts[part].I, w_step = g->KH * g->KW * I;
        kg_ig_pixel(d_x + begin, &narrow, parts[part].w + q * n * w_step, factors, taps, met, w_step, I, n, begin);
        begin += I;
      }
    }
  }
  kg_narrow_end(&narrow, *d_exponent - unit, exponent, wanted);
}

/* The sum of n factors. */
KG_INLINE int32_t kg_ig_sum(const int16_t *factors, int32_t n) {
  int32_t sum = 0;
  for (int32_t t = 0; t < n; ++t) {
    sum += factors[t];
  }
  return sum;
}

/* One pixel: the outer product. */
KG_INLINE void kg_ig_outer(int32_t *restrict d_w, const int8_t *restrict x, const int8_t *restrict d_y, int32_t I,
                           int32_t n, int32_t zero_point) {
  for (int32_t o = 0; o < n; ++o, d_w += I) {
    const int32_t factor = d_y[o];
    for (int32_t i = 0; i < I; ++i) {
      d_w[i] = factor * (x[i] - zero_point);
    }
  }
}

/* Factors in hand: those of one output channel, `lines` rows of d_y from `first` on. */
typedef struct kg_ig_lines {
  const int16_t *factors;
  int32_t first, lines;
} kg_ig_lines;

/* I channels of one tap and output channel; adds to what earlier lines gave. */
KG_INLINE void kg_ig_tap(int32_t *restrict d_w, const int8_t *restrict x, const kg_ig_lines *from, const kg_window *g,
                         int32_t C, int32_t I, int32_t row, int32_t column, int32_t zero_point) {
  int32_t top, bottom, left, right, offset = 0;
  kg_range_inside(&top, &bottom, g->OH, g->stride_h, row, g->H);
  kg_range_inside(&left, &right, g->OW, g->stride_w, column, g->W);
  top = top < from->first ? from->first : top;
  bottom = bottom > from->first + from->lines ? from->first + from->lines : bottom;
  int32_t lines = bottom > top ? bottom - top : 0, n = right - left;
  const int32_t x_line = g->stride_h * g->W * C, x_step = g->stride_w * C;
  const int16_t *const factors = from->factors + (top - from->first) * g->OW + left;
  const int8_t *const pixels = x + ((top * g->stride_h + row) * g->W + left * g->stride_w + column) * C;
  if (n == g->OW && x_line == n * x_step) { /* the lines follow each other in both */
    n *= lines;
    lines = lines > 0 ? 1 : 0;
  }
  for (int32_t line = 0; line < lines; ++line) {
    offset += zero_point * kg_ig_sum(factors + line * g->OW, n);
  }
  for (int32_t i = 0; i < I; i += KG_IG_LANES) {
    const int32_t lanes = I - i < KG_IG_LANES ? I - i : KG_IG_LANES;
    int32_t sums[KG_IG_LANES] = {0};
    for (int32_t line = 0; line < lines; ++line) {
      kg_ig_rows(sums, pixels + line * x_line + i, x_step, factors + line * g->OW, n, lanes);
    }
    for (int32_t l = 0; l < lanes; ++l) {
      d_w[i + l] = (from->first > 0 ? d_w[i + l] : 0) + sums[l] - offset;
    }
  }
}

/* d_w[o][kh][kw][i] = sum over oh, ow of d_y * (x - zero_point), exactly; what lies outside the input counts as
 * zero_point. x is at the first of the I channels. d_y has at most 2^16 pixels. Scratch holds KG_IG_FACTORS int16, or
 * OW if that is more. Nothing overlaps. */
static inline void kg_ig_conv2d_grad_weight(int32_t *restrict d_w, const int8_t *restrict x, const int8_t *restrict d_y,
                                            void *restrict scratch, const kg_window *g, int32_t C, int32_t I, int32_t O,
                                            int32_t groups, int32_t zero_point) {
  const int32_t group_in = C / groups, n = O / groups;
  if (g->H * g->W * g->OH * g->OW * g->KH * g->KW == 1) {
    for (int32_t q = 0; q < groups; ++q) {
      kg_ig_outer(d_w + q * n * I, x + q * group_in, d_y + q * n, I, n, zero_point);
    }
    return;
  }
  int16_t *const factors = (int16_t *)scratch;
  const int32_t most = KG_IG_FACTORS / g->OW > 0 ? KG_IG_FACTORS / g->OW : 1;
  kg_ig_lines from = {.factors = factors};
  for (; from.first < g->OH; from.first += from.lines) {
    from.lines = g->OH - from.first < most ? g->OH - from.first : most;
    for (int32_t o = 0; o < O; ++o) {
      const int8_t *value = d_y + from.first * g->OW * O + o;
      for (int32_t t = 0; t < from.lines * g->OW; ++t, value += O) {
        factors[t] = *value;
      }
      for (int32_t kh = 0; kh < g->KH; ++kh) {
        for (int32_t kw = 0; kw < g->KW; ++kw) {
          kg_ig_tap(d_w + ((o * g->KH + kh) * g->KW + kw) * I, x + o / n * group_in, &from, g, C, I,
                    kh * g->dilation_h - g->pad_top, kw * g->dilation_w - g->pad_left, zero_point);
        }
      }
    }
  }
}

#endif
