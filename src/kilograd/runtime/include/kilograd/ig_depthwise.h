/* Integer gradients of quantised depthwise convolutions: d_y[OH][OW][C] and d_x[H][W][C] int8 with an exponent each,
 * weights w[KH][KW][C] int8 with a scale a channel, x[H][W][C] int8 with one zero point. */
#ifndef KILOGRAD_IG_DEPTHWISE_H
#define KILOGRAD_IG_DEPTHWISE_H

#include "kilograd/conv.h"
#include "kilograd/ig_narrow.h"
#include "kilograd/q_tile.h"

#define KG_IG_BLOCK 4

/* A tap that meets an input pixel: where its pixel of d_y lies, and its number. */
typedef struct kg_ig_met {
  int32_t d_y, tap;
} kg_ig_met;

KG_INLINE int32_t kg_ig_meet(kg_ig_met *restrict met, const kg_window *g, int32_t C, int32_t ih, int32_t iw) {
  int32_t count = 0;
  for (int32_t kh = 0; kh < g->KH; ++kh) {
    const int32_t row = ih + g->pad_top - kh * g->dilation_h, oh = row / g->stride_h;
    if (row < 0 || oh * g->stride_h != row || oh >= g->OH) {
      continue;
    }
    for (int32_t kw = 0; kw < g->KW; ++kw) {
      const int32_t column = iw + g->pad_left - kw * g->dilation_w, ow = column / g->stride_w;
      if (column >= 0 && ow * g->stride_w == column && ow < g->OW) {
        met[count].d_y = (oh * g->OW + ow) * C;
        met[count++].tap = kh * g->KW + kw;
      }
    }
  }
  return count;
}

/* `lanes` channels of one input pixel; w_step bytes from tap to tap. */
KG_INLINE void kg_ig_depthwise_lanes(int8_t *restrict d_x, kg_narrow *restrict narrow, const int8_t *restrict d_y,
                                     const int8_t *restrict w, const int32_t *restrict multiplier,
                                     const kg_ig_met *restrict met, int32_t count, int32_t w_step, int32_t index,
                                     int32_t lanes) {
  int32_t sums[KG_IG_BLOCK] = {0};
  KG_ROLLED
  for (int32_t t = 0; t < count; ++t) {
    const int8_t *const from = d_y + met[t].d_y, *const weight = w + met[t].tap * w_step;
    for (int32_t l = 0; l < lanes; ++l) {
      sums[l] += from[l] * weight[l];
    }
  }
  for (int32_t l = 0; l < lanes; ++l) {
    d_x[l] = kg_narrow_s8(narrow, sums[l] * multiplier[l], (uint32_t)(index + l));
  }
}

/* d_x = narrowed multiplier[c] * sum over kh, kw of d_y * w over the pixels of d_y that exist, in units of
 * 2^(d_exponent - unit). The products must not exceed 2^30. The weight comes in `count` parts along the channels; the
 * noise of an element depends on its place in d_x alone. Scratch holds KH * KW of kg_ig_met. Nothing overlaps. */
static inline void kg_ig_depthwise_grad_input(int8_t *restrict d_x, int32_t *exponent, int32_t *wanted,
                                              const int8_t *restrict d_y, const int32_t *d_exponent,
                                              const kg_part_s8 *parts, int32_t count,
                                              const int32_t *restrict multiplier, const int32_t *shift,
                                              void *restrict scratch, const kg_window *g, int32_t C, int32_t unit,
                                              const uint32_t *seed, uint32_t salt) {
  kg_ig_met *const met = (kg_ig_met *)scratch;
  kg_narrow narrow = kg_narrow_begin(*shift, kg_headroom_s8(d_y, g->OH * g->OW * C), seed, salt);
  for (int32_t p = 0; p < g->H * g->W; ++p) {
    const int32_t taps = kg_ig_meet(met, g, C, p / g->W, p % g->W);
    for (int32_t part = 0, c = 0; part < count; ++part) {
      const int32_t own = parts[part].I;
      const int8_t *w = parts[part].w;
      for (int32_t rest = own; rest > 0;) {
        const int32_t at = p * C + c, lanes = rest < KG_IG_BLOCK ? 1 : KG_IG_BLOCK;
        if (lanes == KG_IG_BLOCK) {
          kg_ig_depthwise_lanes(d_x + at, &narrow, d_y + c, w, multiplier + c, met, taps, own, at, KG_IG_BLOCK);
        } else {
          kg_ig_depthwise_lanes(d_x + at, &narrow, d_y + c, w, multiplier + c, met, taps, own, at, 1);
        }
        c += lanes, w += lanes, rest -= lanes;
      }
    }
  }
  kg_narrow_end(&narrow, *d_exponent - unit, exponent, wanted);
}

/* `lanes` channels of one tap: rows [top, bottom) and columns [left, right) of d_y, whose first pixels are given. */
KG_INLINE void kg_ig_depthwise_tap(int32_t *restrict d_w, const int8_t *restrict x, const int8_t *restrict d_y,
                                   int32_t lines, int32_t n, int32_t x_line, int32_t y_line, int32_t x_step, int32_t C,
                                   int32_t zero_point, int32_t lanes) {
  int32_t sums[KG_IG_BLOCK] = {0};
  for (int32_t line = 0; line < lines; ++line) {
    const int8_t *from = x + line * x_line, *factor = d_y + line * y_line;
    KG_ROLLED
    for (int32_t t = 0; t < n; ++t, from += x_step, factor += C) {
      for (int32_t l = 0; l < lanes; ++l) {
        sums[l] += factor[l] * (from[l] - zero_point);
      }
    }
  }
  for (int32_t l = 0; l < lanes; ++l) {
    d_w[l] = sums[l];
  }
}

/* d_w[kh][kw][c] = sum over oh, ow of d_y * (x - zero_point), exactly, for `channels` of the C that x and d_y have;
 * what lies outside the input counts as zero_point. d_y has at most 2^16 pixels. Nothing overlaps. */
static inline void kg_ig_depthwise_grad_weight(int32_t *restrict d_w, const int8_t *restrict x,
                                               const int8_t *restrict d_y, const kg_window *g, int32_t channels,
                                               int32_t C, int32_t zero_point) {
  for (int32_t kh = 0; kh < g->KH; ++kh) {
    const int32_t row = kh * g->dilation_h - g->pad_top;
    int32_t top, bottom;
    kg_range_inside(&top, &bottom, g->OH, g->stride_h, row, g->H);
    for (int32_t kw = 0; kw < g->KW; ++kw, d_w += channels) {
      const int32_t column = kw * g->dilation_w - g->pad_left;
      int32_t left, right, c = 0;
      kg_range_inside(&left, &right, g->OW, g->stride_w, column, g->W);
      const int8_t *const from = x + ((top * g->stride_h + row) * g->W + left * g->stride_w + column) * C;
      const int8_t *const factors = d_y + (top * g->OW + left) * C;
      for (; c + KG_IG_BLOCK <= channels; c += KG_IG_BLOCK) {
        kg_ig_depthwise_tap(d_w + c, from + c, factors + c, bottom - top, right - left, g->stride_h * g->W * C,
                            g->OW * C, g->stride_w * C, C, zero_point, KG_IG_BLOCK);
      }
      for (; c < channels; ++c) {
        kg_ig_depthwise_tap(d_w + c, from + c, factors + c, bottom - top, right - left, g->stride_h * g->W * C,
                            g->OW * C, g->stride_w * C, C, zero_point, 1);
      }
    }
  }
}

#endif
