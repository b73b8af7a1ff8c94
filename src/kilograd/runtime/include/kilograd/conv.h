/* Convolutions: x[H][W][C], weights w[KH][KW][I][O], y[OH][OW][O]; g groups share out the C input and the O output
 * channels in order, and w holds I input channels of each group: all C / g of them, or a part. Then x points to the
 * first channel of the part in the first group. */
#ifndef KILOGRAD_CONV_H
#define KILOGRAD_CONV_H

#include "kilograd/linear.h"
#include "kilograd/window.h"

/* One tile of kg_conv2d_f32: `rows` output pixels of a row from (oh, ow) on, `lanes` channels; I and O as there, y at
 * the first of these sums, x, w and bias at the channels that they meet. */
KG_INLINE void kg_conv2d_tile_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                  const float *restrict bias, bool accumulate, const kg_window *g, int32_t C, int32_t I,
                                  int32_t O, int32_t oh, int32_t ow, float low, float high, int32_t rows,
                                  int32_t lanes) {
  const int32_t first = ow * g->stride_w - g->pad_left;
  const int32_t last = first + (rows - 1) * g->stride_w + (g->KW - 1) * g->dilation_w;
  const bool inside = first >= 0 && last < g->W;
  /* Whole channels of neighbouring pixels: the taps of a kernel row lie side by side, in x and in w. */
  const bool joined = inside && g->dilation_w == 1 && I == C;
  const int32_t taps = joined ? 1 : g->KW, terms = joined ? g->KW * I : I;
  const int32_t limit = inside || terms < KG_ZEROS ? terms : KG_ZEROS, step = g->stride_w * C;
  kg_vector sums[KG_ROWS];
  kg_tile_start_f32(sums, y, O, bias, accumulate, rows, lanes);
  for (int32_t kh = 0; kh < g->KH; ++kh) {
    const int32_t ih = oh * g->stride_h - g->pad_top + kh * g->dilation_h;
    if (ih < 0 || ih >= g->H) {
      w += g->KW * I * O;
      continue;
    }
    for (int32_t kw = 0; kw < taps; ++kw) {
      const int32_t column = first + kw * g->dilation_w;
      const float *a[KG_ROWS];
      for (int32_t r = 0; r < rows; ++r) {
        a[r] = x + (ih * g->W + column) * C + r * step;
      }
      if (KG_UNLIKELY(!inside)) {
        for (int32_t r = 0; r < rows; ++r) {
          const int32_t at = column + r * g->stride_w;
          a[r] = at >= 0 && at < g->W ? a[r] : kg_zeros;
        }
      }
      for (int32_t left = terms; left > 0; left -= limit) {
        const int32_t n = left < limit ? left : limit;
        kg_tile_rows_f32(sums, a, w, O, n, rows, lanes);
        w += n * O;
        if (KG_UNLIKELY(left > limit)) {
          for (int32_t r = 0; r < rows; ++r) {
            a[r] += a[r] == kg_zeros ? 0 : n;
          }
        }
      }
    }
  }
  kg_tile_finish_f32(sums, y, O, low, high, rows, lanes);
}

/* `lanes` output channels of all pixels. */
KG_INLINE void kg_conv2d_lanes_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                   const float *restrict bias, bool accumulate, const kg_window *g, int32_t C,
                                   int32_t I, int32_t O, float low, float high, int32_t lanes) {
  for (int32_t oh = 0; oh < g->OH; ++oh) {
    for (int32_t ow = 0, rows = 0; ow < g->OW; ow += rows, y += rows * O) {
#define KG_TILE(ROWS) \
  rows = ROWS;        \
  kg_conv2d_tile_f32(y, x, w, bias, accumulate, g, C, I, O, oh, ow, low, high, ROWS, lanes);
      KG_WITH_ROWS(g->OW - ow, lanes, KG_TILE)
#undef KG_TILE
    }
  }
}

/* y = clamp(start + sum over kh, kw, i ascending of x * w), one fused multiply-add a term.
 *
 * Kernel rows outside the input are skipped, kernel columns outside of it meet zeros. start is y where accumulate is
 * set, else bias[o], or 0 where bias is NULL. y must not overlap anything else. */
static inline void kg_conv2d_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                 const float *restrict bias, bool accumulate, const kg_window *g, int32_t C, int32_t I,
                                 int32_t O, int32_t groups, float low, float high) {
  const int32_t group_in = C / groups, group_out = O / groups;
  for (int32_t q = 0; q < groups; ++q, x += group_in) {
    for (int32_t o = q * group_out, end = o + group_out, lanes = 0; o < end; o += lanes) {
      const float *start = bias != NULL ? bias + o : NULL;
#define KG_CHANNELS(LANES) \
  lanes = LANES;           \
  kg_conv2d_lanes_f32(y + o, x, w + o, start, accumulate, g, C, I, O, low, high, LANES);
      KG_WITH_LANES(end - o, KG_CHANNELS)
#undef KG_CHANNELS
    }
  }
}

/* The output positions [*begin, *end) of `count` that meet an input position in [0, size) under a tap: those for which
 * 0 <= position * stride + offset < size. */
KG_INLINE void kg_range_inside(int32_t *begin, int32_t *end, int32_t count, int32_t stride, int32_t offset,
                               int32_t size) {
  int32_t from = 0, to = count;
  while (from < to && from * stride + offset < 0) {
    ++from;
  }
  while (to > from && (to - 1) * stride + offset >= size) {
    --to;
  }
  *begin = from;
  *end = to;
}

/* d_x = start + sum over kh, kw, o ascending of d_y * w, over the pixels of d_y that exist; start is bias[i], or 0
 * where bias is NULL. Writes I channels of each group. d_x must not overlap anything else. */
static inline void kg_conv2d_grad_input_f32(float *restrict d_x, const float *restrict d_y, const float *restrict w,
                                            const float *restrict bias, const kg_window *g, int32_t C, int32_t I,
                                            int32_t O, int32_t groups) {
  const int32_t group_in = C / groups, group_out = O / groups;
  for (int32_t p = 0; p < g->H * g->W; ++p) {
    for (int32_t q = 0; q < groups; ++q) {
      for (int32_t i = 0; i < I; ++i) {
        d_x[p * C + q * group_in + i] = bias != NULL ? bias[q * group_in + i] : 0.0f;
      }
    }
  }
  for (int32_t kh = 0; kh < g->KH; ++kh) {
    const int32_t row = kh * g->dilation_h - g->pad_top;
    int32_t top, bottom;
    kg_range_inside(&top, &bottom, g->OH, g->stride_h, row, g->H);
    for (int32_t kw = 0; kw < g->KW; ++kw, w += I * O) {
      const int32_t column = kw * g->dilation_w - g->pad_left;
      int32_t left, right;
      kg_range_inside(&left, &right, g->OW, g->stride_w, column, g->W);
      for (int32_t q = 0; q < groups; ++q) {
        kg_linear_grad_input_rows_f32(
            d_x + ((top * g->stride_h + row) * g->W + left * g->stride_w + column) * C + q * group_in,
            d_y + (top * g->OW + left) * O + q * group_out, w + q * group_out, true, bottom - top,
            g->stride_h * g->W * C, g->OW * O, right - left, g->stride_w * C, O, I, group_out, O);
      }
    }
  }
}

/* d_w[kh][kw][i][o] = sum over oh, ow ascending of x * d_y, over the pixels of x that exist. d_w must not overlap
 * anything else. */
static inline void kg_conv2d_grad_weight_f32(float *restrict d_w, const float *restrict x, const float *restrict d_y,
                                             const kg_window *g, int32_t C, int32_t I, int32_t O, int32_t groups) {
  const int32_t group_in = C / groups, group_out = O / groups;
  for (int32_t kh = 0; kh < g->KH; ++kh) {
    const int32_t row = kh * g->dilation_h - g->pad_top;
    int32_t top, bottom;
    kg_range_inside(&top, &bottom, g->OH, g->stride_h, row, g->H);
    for (int32_t kw = 0; kw < g->KW; ++kw, d_w += I * O) {
      const int32_t column = kw * g->dilation_w - g->pad_left;
      int32_t left, right;
      kg_range_inside(&left, &right, g->OW, g->stride_w, column, g->W);
      for (int32_t q = 0; q < groups; ++q) {
        kg_linear_grad_weight_rows_f32(
            d_w + q * group_out,
            x + ((top * g->stride_h + row) * g->W + left * g->stride_w + column) * C + q * group_in,
            d_y + (top * g->OW + left) * O + q * group_out, bottom - top, g->stride_h * g->W * C, g->OW * O,
            right - left, g->stride_w * C, O, I, group_out, O);
      }
    }
  }
}

#endif
