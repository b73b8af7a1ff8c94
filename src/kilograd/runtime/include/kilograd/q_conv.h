/* Quantised convolutions and fully connected layers: x[H][W][C] int8, weights w[O][KH][KW][I] int8, y[OH][OW][O] int8;
 * g groups share out the C input and the O output channels in order. */
#ifndef KILOGRAD_Q_CONV_H
#define KILOGRAD_Q_CONV_H

#include "kilograd/q_tile.h"
#include "kilograd/shape.h"
#include "kilograd/window.h"

/* The KH * KW * I input bytes of output pixel (oh, ow), side by side: where they lie in x, or gathered in `room` with
 * zero points for what lies outside. x is at the first channel. */
static inline const int8_t *kg_column_s8(int8_t *restrict room, const int8_t *restrict x, const kg_window *g, int32_t C,
                                         int32_t I, int32_t oh, int32_t ow, int32_t zero_point) {
  const int32_t top = oh * g->stride_h - g->pad_top, left = ow * g->stride_w - g->pad_left;
  const bool inside = left >= 0 && left + (g->KW - 1) * g->dilation_w < g->W;
  if (g->KH == 1 && g->KW == 1 && inside && top >= 0 && top < g->H) {
    return x + (top * g->W + left) * C;
  }
  int8_t *to = room;
  for (int32_t kh = 0; kh < g->KH; ++kh) {
    const int32_t ih = top + kh * g->dilation_h;
    if (ih < 0 || ih >= g->H) {
      kg_fill_bytes(to, zero_point, g->KW * I);
      to += g->KW * I;
    } else if (inside && g->dilation_w == 1 && I == C) {
      kg_copy(to, x + (ih * g->W + left) * C, g->KW * I);
      to += g->KW * I;
    } else {
      for (int32_t kw = 0; kw < g->KW; ++kw, to += I) {
        const int32_t iw = left + kw * g->dilation_w;
        if (iw < 0 || iw >= g->W) {
          kg_fill_bytes(to, zero_point, I);
        } else {
          kg_copy(to, x + (ih * g->W + iw) * C, I);
        }
      }
    }
  }
  return room;
}

/* y = clamp(requantize(bias[o] + sum over kh, kw, i of (x - x_zero_point) * w) + zero_point, low, high).
 *
 * The weight comes in `count` parts along the input channels of each group, in order. Taps outside the input add
 * nothing. |bias| <= 2^30 and at most 2^15 terms a sum, so that no sum leaves int32. `scratch`, aligned to 4 bytes, has
 * room for two columns of int16, each part of them rounded up to a multiple of 4 elements, and for the bytes of the
 * widest part. y must not overlap anything else. */
static inline void kg_conv2d_s8(int8_t *restrict y, const int8_t *restrict x, const kg_part_s8 *parts, int32_t count,
                                const kg_output_s8 *out, int16_t *restrict scratch, const kg_window *g, int32_t C,
                                int32_t O, int32_t groups, int32_t x_zero_point) {
  const int32_t group_in = C / groups, group_out = O / groups, taps = g->KH * g->KW, pixels = g->OH * g->OW;
  int32_t size = 0;
  for (int32_t k = 0; k < count; ++k) {
    size += KG_Q_ROWS * KG_Q_PITCH(taps * parts[k].I);
  }
  int8_t *const result = y, *const room = (int8_t *)(void *)(scratch + size);
  for (int32_t p = 0, oh = 0, ow = 0, rows = 0; p < pixels; p += rows, y += rows * O) {
    rows = pixels - p < KG_Q_ROWS ? pixels - p : KG_Q_ROWS;
    const int32_t next_h = ow + 1 < g->OW ? oh : oh + 1, next_w = ow + 1 < g->OW ? ow + 1 : 0;
    for (int32_t q = 0; q < groups; ++q) {
      const int8_t *from = x + q * group_in;
      int16_t *columns = scratch;
      for (int32_t k = 0; k < count; ++k) {
        const int32_t I = parts[k].I;
        kg_widen_s8(columns, kg_column_s8(room, from, g, C, I, oh, ow, x_zero_point), taps * I, x_zero_point, 0);
        if (rows == KG_Q_ROWS) {
          const int8_t *column = kg_column_s8(room, from, g, C, I, next_h, next_w, x_zero_point);
          kg_widen_s8(columns, column, taps * I, x_zero_point, 1);
        }
        columns += KG_Q_ROWS * KG_Q_PITCH(taps * I);
        from += I;
      }
      const int32_t begin = q * group_out;
      if (rows == KG_Q_ROWS) {
        kg_tiles_2_s8(y, scratch, parts, count, out, O, taps, begin, begin + group_out);
      } else {
        kg_tiles_1_s8(y, scratch, parts, count, out, O, taps, begin, begin + group_out);
      }
    }
    ow = next_w + (rows == KG_Q_ROWS);
    oh = next_h;
    if (ow == g->OW) {
      ow = 0;
      ++oh;
    }
  }
  kg_limit_s8(result, pixels * O, out->low, out->high);
}

#endif
