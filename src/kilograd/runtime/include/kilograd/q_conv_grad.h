/* Gradients of quantised convolutions and fully connected layers, in float32 and real units: d_y[OH][OW][O], weights
 * w[O][KH][KW][I] int8 with a scale for each of the O, x[H][W][C] int8 with one scale and zero point. Integers become
 * floats a few at a time, in scratch of KG_Q_PACKED floats, and are used for a whole row of tiles. */
#ifndef KILOGRAD_Q_CONV_GRAD_H
#define KILOGRAD_Q_CONV_GRAD_H

#include "kilograd/conv.h"
#include "kilograd/tile.h"

#define KG_Q_PACKED 256

/* Terms that are converted at a time. */
#define KG_Q_TERMS (KG_Q_PACKED / KG_LANES)

/* True when each output pixel meets the input pixel of its own place and no other. */
KG_INLINE bool kg_covers(const kg_window *g) {
  return g->KH == 1 && g->KW == 1 && g->stride_h == 1 && g->stride_w == 1 && g->pad_top == 0 && g->pad_left == 0 &&
         g->OH == g->H && g->OW == g->W;
}

/* `lanes` channels of kg_linear_grad_input_rows_s8. */
KG_INLINE void kg_linear_grad_input_lanes_s8(float *restrict d_x, const float *restrict d_y, const int8_t *restrict w,
                                             const float *restrict scales, float *restrict packed, bool accumulate,
                                             int32_t lines, int32_t x_line, int32_t y_line, int32_t P, int32_t x_step,
                                             int32_t y_step, int32_t O, int32_t w_step, int32_t lanes) {
  for (int32_t o = 0; o < O; o += KG_Q_TERMS) {
    const int32_t n = O - o < KG_Q_TERMS ? O - o : KG_Q_TERMS;
    for (int32_t t = 0; t < n; ++t) {
      for (int32_t l = 0; l < lanes; ++l) {
        packed[t * lanes + l] = scales[o + t] * (float)w[(o + t) * w_step + l];
      }
    }
    for (int32_t line = 0; line < lines; ++line) {
      for (int32_t p = 0, rows = 0; p < P; p += rows) {
        float *to = d_x + line * x_line + p * x_step;
        const float *from = d_y + line * y_line + p * y_step + o, *a[KG_ROWS];
        kg_vector sums[KG_ROWS];
#define KG_TILE(ROWS)                                                          \
  rows = ROWS;                                                                 \
  for (int32_t r = 0; r < ROWS; ++r) {                                         \
    a[r] = from + r * y_step;                                                  \
  }                                                                            \
  kg_tile_start_f32(sums, to, x_step, NULL, accumulate || o > 0, ROWS, lanes); \
  kg_tile_rows_f32(sums, a, packed, lanes, n, ROWS, lanes);                    \
  kg_tile_finish_f32(sums, to, x_step, -KG_INFINITY, KG_INFINITY, ROWS, lanes);
        KG_WITH_ROWS(P - p, lanes, KG_TILE)
#undef KG_TILE
      }
    }
  }
}

/* `lines` runs of P pixels: d_x has x_step floats from pixel to pixel and x_line from run to run, d_y y_step and
 * y_line, w has w_step bytes from output channel to output channel; adds to d_x where accumulate is set. */
static inline void kg_linear_grad_input_rows_s8(float *restrict d_x, const float *restrict d_y,
                                                const int8_t *restrict w, const float *restrict scales,
                                                float *restrict scratch, bool accumulate, int32_t lines, int32_t x_line,
                                                int32_t y_line, int32_t P, int32_t x_step, int32_t y_step, int32_t I,
                                                int32_t O, int32_t w_step) {
  for (int32_t i = 0, lanes = 0; i < I; i += lanes) {
#define KG_CHANNELS(LANES)                                                                                          \
  lanes = LANES;                                                                                                    \
  kg_linear_grad_input_lanes_s8(d_x + i, d_y, w + i, scales, scratch, accumulate, lines, x_line, y_line, P, x_step, \
                                y_step, O, w_step, LANES);
    KG_WITH_LANES(I - i, KG_CHANNELS)
#undef KG_CHANNELS
  }
}

/* d_x = sum over kh, kw, o ascending of d_y * (scales[o] * w), one fused multiply-add a term, over the pixels of d_y
 * that exist. d_x has C floats a pixel, of which I of each group are written. d_x must not overlap anything else. */
static inline void kg_conv2d_grad_input_s8(float *restrict d_x, const float *restrict d_y, const int8_t *restrict w,
                                           const float *restrict scales, float *restrict scratch, const kg_window *g,
                                           int32_t C, int32_t I, int32_t O, int32_t groups) {
  const int32_t group_in = C / groups, group_out = O / groups, w_step = g->KH * g->KW * I;
  const bool covers = kg_covers(g);
  for (int32_t p = 0; !covers && p < g->H * g->W; ++p) {
    for (int32_t q = 0; q < groups; ++q) {
      for (int32_t i = 0; i < I; ++i) {
        d_x[p * C + q * group_in + i] = 0.0f;
      }
    }
  }
  for (int32_t kh = 0; kh < g->KH; ++kh) {
    const int32_t row = kh * g->dilation_h - g->pad_top;
    int32_t top, bottom;
    kg_range_inside(&top, &bottom, g->OH, g->stride_h, row, g->H);
    for (int32_t kw = 0; kw < g->KW; ++kw) {
      const int32_t column = kw * g->dilation_w - g->pad_left, tap = (kh * g->KW + kw) * I;
      int32_t left, right;
      kg_range_inside(&left, &right, g->OW, g->stride_w, column, g->W);
      for (int32_t q = 0; q < groups; ++q) {
        kg_linear_grad_input_rows_s8(
            d_x + ((top * g->stride_h + row) * g->W + left * g->stride_w + column) * C + q * group_in,
            d_y + (top * g->OW + left) * O + q * group_out, w + q * group_out * w_step + tap, scales + q * group_out,
            scratch, !covers, bottom - top, g->stride_h * g->W * C, g->OW * O, right - left, g->stride_w * C, O, I,
            group_out, w_step);
      }
    }
  }
}

/* x - zero_point of `lanes` channels for the `n` output pixels from `first` on, as they meet kernel tap (row, column);
 * 0 outside the input. */
KG_INLINE void kg_pack_pixels_s8(float *restrict packed, const int8_t *restrict x, const kg_window *g, int32_t C,
                                 int32_t row, int32_t column, int32_t first, int32_t n, int32_t zero_point,
                                 int32_t lanes) {
  if (kg_covers(g)) {
    x += first * C;
    for (int32_t t = 0; t < n; ++t, x += C, packed += lanes) {
      for (int32_t l = 0; l < lanes; ++l) {
        packed[l] = (float)(x[l] - zero_point);
      }
    }
    return;
  }
  int32_t oh = first / g->OW, ow = first % g->OW;
  for (int32_t t = 0; t < n; ++t, packed += lanes) {
    const int32_t ih = oh * g->stride_h + row, iw = ow * g->stride_w + column;
    if (ih >= 0 && ih < g->H && iw >= 0 && iw < g->W) {
      const int8_t *from = x + (ih * g->W + iw) * C;
      for (int32_t l = 0; l < lanes; ++l) {
        packed[l] = (float)(from[l] - zero_point);
      }
    } else {
      for (int32_t l = 0; l < lanes; ++l) {
        packed[l] = 0.0f;
      }
    }
    if (++ow == g->OW) {
      ow = 0;
      ++oh;
    }
  }
}

/* `lanes` input channels of one tap and O output channels; the gradients of two output channels are w_step apart. */
KG_INLINE void kg_grad_weight_lanes_s8(float *restrict d_w, const int8_t *restrict x, const float *restrict d_y,
                                       float *restrict packed, const kg_window *g, int32_t C, int32_t O, int32_t y_step,
                                       int32_t w_step, int32_t row, int32_t column, float scale, int32_t zero_point,
                                       int32_t lanes) {
  const int32_t pixels = g->OH * g->OW;
  for (int32_t p = 0; p < pixels; p += KG_Q_TERMS) {
    const int32_t n = pixels - p < KG_Q_TERMS ? pixels - p : KG_Q_TERMS;
    const float factor = p + n < pixels ? 1.0f : scale;
    kg_pack_pixels_s8(packed, x, g, C, row, column, p, n, zero_point, lanes);
    for (int32_t o = 0, rows = 0; o < O; o += rows) {
      float *to = d_w + o * w_step;
      kg_vector sums[KG_ROWS];
#define KG_TILE(ROWS)                                                                   \
  rows = ROWS;                                                                          \
  kg_tile_start_f32(sums, to, w_step, NULL, p > 0, ROWS, lanes);                        \
  kg_tile_outer_f32(sums, d_y + p * y_step + o, y_step, packed, lanes, n, ROWS, lanes); \
  for (int32_t r = 0; r < ROWS; ++r) {                                                  \
    for (int32_t l = 0; l < lanes; ++l) {                                               \
      KG_LANE(sums[r], l) *= factor;                                                    \
    }                                                                                   \
  }                                                                                     \
  kg_tile_finish_f32(sums, to, w_step, -KG_INFINITY, KG_INFINITY, ROWS, lanes);
      KG_WITH_ROWS(O - o, lanes, KG_TILE)
#undef KG_TILE
    }
  }
}

/* d_w[o][kh][kw][i] = scale * sum over oh, ow ascending of d_y * (x - zero_point), one fused multiply-add a term and
 * one product at the end; what lies outside the input counts as zero_point. x is at the first of the I channels. d_w
 * must not overlap anything else. */
static inline void kg_conv2d_grad_weight_s8(float *restrict d_w, const int8_t *restrict x, const float *restrict d_y,
                                            float *restrict scratch, const kg_window *g, int32_t C, int32_t I,
                                            int32_t O, int32_t groups, float scale, int32_t zero_point) {
  const int32_t group_in = C / groups, group_out = O / groups, w_step = g->KH * g->KW * I;
  for (int32_t q = 0; q < groups; ++q) {
    for (int32_t kh = 0; kh < g->KH; ++kh) {
      const int32_t row = kh * g->dilation_h - g->pad_top;
      for (int32_t kw = 0; kw < g->KW; ++kw) {
        const int32_t column = kw * g->dilation_w - g->pad_left;
        float *to = d_w + q * group_out * w_step + (kh * g->KW + kw) * I;
        for (int32_t i = 0, lanes = 0; i < I; i += lanes) {
#define KG_CHANNELS(LANES)                                                                                             \
  lanes = LANES;                                                                                                       \
  kg_grad_weight_lanes_s8(to + i, x + q * group_in + i, d_y + q * group_out, scratch, g, C, group_out, O, w_step, row, \
                          column, scale, zero_point, LANES);
          KG_WITH_LANES(I - i, KG_CHANNELS)
#undef KG_CHANNELS
        }
      }
    }
  }
}

#endif
