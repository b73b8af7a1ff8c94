/* Fully connected layers and 1x1 convolutions: P pixels (rows), I channels in, O channels out, weights [I][O]. */
#ifndef KILOGRAD_LINEAR_H
#define KILOGRAD_LINEAR_H

#include "kilograd/tile.h"

/* One tile of kg_linear_f32. */
KG_INLINE void kg_linear_tile_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                  const float *restrict bias, bool accumulate, int32_t x_stride, int32_t I, int32_t O,
                                  float low, float high, int32_t rows, int32_t lanes) {
  kg_vector sums[KG_ROWS];
  const float *a[KG_ROWS];
  for (int32_t r = 0; r < rows; ++r) {
    a[r] = x + r * x_stride;
  }
  kg_tile_start_f32(sums, y, O, bias, accumulate, rows, lanes);
  kg_tile_rows_f32(sums, a, w, O, I, rows, lanes);
  kg_tile_finish_f32(sums, y, O, low, high, rows, lanes);
}

/* `lanes` outputs of all pixels. */
KG_INLINE void kg_linear_lanes_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                   const float *restrict bias, bool accumulate, int32_t P, int32_t x_stride, int32_t I,
                                   int32_t O, float low, float high, int32_t lanes) {
  for (int32_t p = 0, rows = 0; p < P; p += rows) {
#define KG_TILE(ROWS) \
  rows = ROWS;        \
  kg_linear_tile_f32(y + p * O, x + p * x_stride, w, bias, accumulate, x_stride, I, O, low, high, ROWS, lanes);
    KG_WITH_ROWS(P - p, lanes, KG_TILE)
#undef KG_TILE
  }
}

/* y[p][o] = clamp(start + sum over i ascending of x[p][i] * w[i][o]), one fused multiply-add a term.
 *
 * start is y[p][o] where accumulate is set, else bias[o], or 0 where bias is NULL. x has x_stride floats a pixel, of
 * which the kernel reads the first I. y must not overlap x, w or bias. low = -KG_INFINITY and high = KG_INFINITY: no
 * clamp. */
static inline void kg_linear_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                 const float *restrict bias, bool accumulate, int32_t P, int32_t x_stride, int32_t I,
                                 int32_t O, float low, float high) {
  for (int32_t o = 0, lanes = 0; o < O; o += lanes) {
    const float *start = bias != NULL ? bias + o : NULL;
#define KG_CHANNELS(LANES) \
  lanes = LANES;           \
  kg_linear_lanes_f32(y + o, x, w + o, start, accumulate, P, x_stride, I, O, low, high, LANES);
    KG_WITH_LANES(O - o, KG_CHANNELS)
#undef KG_CHANNELS
  }
}

/* `lanes` channels of kg_linear_grad_input_rows_f32. */
KG_INLINE void kg_linear_grad_input_lanes_f32(float *restrict d_x, const float *restrict d_y, const float *restrict w,
                                              bool accumulate, int32_t lines, int32_t x_line, int32_t y_line, int32_t P,
                                              int32_t x_step, int32_t y_step, int32_t O, int32_t w_step,
                                              int32_t lanes) {
#if defined(KG_PACK)
  float packed[KG_PACK * KG_LANES];
  const int32_t limit = KG_PACK;
#else
  const int32_t limit = O;
#endif
  for (int32_t o = 0; o < O; o += limit) {
    const int32_t n = O - o < limit ? O - o : limit;
#if defined(KG_PACK)
    int32_t t = 0;
    for (; t + 4 <= n; t += 4) {
      for (int32_t l = 0; l < lanes; ++l) {
        const float *from = w + l * w_step + o + t;
        packed[t * lanes + l] = from[0];
        packed[(t + 1) * lanes + l] = from[1];
        packed[(t + 2) * lanes + l] = from[2];
        packed[(t + 3) * lanes + l] = from[3];
      }
    }
    for (; t < n; ++t) {
      for (int32_t l = 0; l < lanes; ++l) {
        packed[t * lanes + l] = w[l * w_step + o + t];
      }
    }
#endif
    for (int32_t line = 0; line < lines; ++line) {
      for (int32_t p = 0, rows = 0; p < P; p += rows) {
        float *to = d_x + line * x_line + p * x_step;
        const float *from = d_y + line * y_line + p * y_step + o;
        kg_vector sums[KG_ROWS];
#if defined(KG_PACK)
#define KG_RUN(ROWS)                   \
  const float *a[KG_ROWS];             \
  for (int32_t r = 0; r < ROWS; ++r) { \
    a[r] = from + r * y_step;          \
  }                                    \
  kg_tile_rows_f32(sums, a, packed, lanes, n, ROWS, lanes);
#else
#define KG_RUN(ROWS) kg_tile_dots_f32(sums, from, y_step, w, w_step, n, ROWS, lanes);
#endif
#define KG_TILE(ROWS)                                                          \
  rows = ROWS;                                                                 \
  kg_tile_start_f32(sums, to, x_step, NULL, accumulate || o > 0, ROWS, lanes); \
  KG_RUN(ROWS)                                                                 \
  kg_tile_finish_f32(sums, to, x_step, -KG_INFINITY, KG_INFINITY, ROWS, lanes);
        KG_WITH_ROWS(P - p, lanes, KG_TILE)
#undef KG_TILE
#undef KG_RUN
      }
    }
  }
}

/* kg_linear_grad_input_f32 on `lines` runs of P pixels: d_x has x_step floats from pixel to pixel and x_line from run
 * to run, d_y y_step and y_line, w has w_step from row to row; adds to d_x where accumulate is set. */
static inline void kg_linear_grad_input_rows_f32(float *restrict d_x, const float *restrict d_y,
                                                 const float *restrict w, bool accumulate, int32_t lines,
                                                 int32_t x_line, int32_t y_line, int32_t P, int32_t x_step,
                                                 int32_t y_step, int32_t I, int32_t O, int32_t w_step) {
  for (int32_t i = 0, lanes = 0; i < I; i += lanes) {
#define KG_CHANNELS(LANES)                                                                                           \
  lanes = LANES;                                                                                                     \
  kg_linear_grad_input_lanes_f32(d_x + i, d_y, w + i * w_step, accumulate, lines, x_line, y_line, P, x_step, y_step, \
                                 O, w_step, LANES);
    KG_WITH_LANES(I - i, KG_CHANNELS)
#undef KG_CHANNELS
  }
}

/* d_x[p][i] = sum over o ascending of d_y[p][o] * w[i][o], one fused multiply-add a term. d_x has x_stride floats a
 * pixel, of which the kernel writes the first I. d_x must not overlap d_y or w. */
static inline void kg_linear_grad_input_f32(float *restrict d_x, const float *restrict d_y, const float *restrict w,
                                            int32_t P, int32_t x_stride, int32_t I, int32_t O) {
  kg_linear_grad_input_rows_f32(d_x, d_y, w, false, 1, 0, 0, P, x_stride, O, I, O, O);
}

/* kg_linear_grad_weight_f32 on `lines` runs of P pixels: x has x_step floats from pixel to pixel and x_line from run to
 * run, d_y y_step and y_line; d_w has w_step from row to row. */
static inline void kg_linear_grad_weight_rows_f32(float *restrict d_w, const float *restrict x,
                                                  const float *restrict d_y, int32_t lines, int32_t x_line,
                                                  int32_t y_line, int32_t P, int32_t x_step, int32_t y_step, int32_t I,
                                                  int32_t O, int32_t w_step) {
  for (int32_t o = 0, lanes = 0; o < O; o += lanes) {
    for (int32_t i = 0, rows = 0; i < I; i += rows) {
      kg_vector sums[KG_ROWS];
#define KG_CHANNELS(LANES) \
  lanes = LANES;           \
  KG_WITH_ROWS(I - i, LANES, KG_TILE)
#define KG_TILE(ROWS)                                                                                        \
  rows = ROWS;                                                                                               \
  kg_tile_start_f32(sums, NULL, 0, NULL, false, ROWS, lanes);                                                \
  for (int32_t line = 0; line < lines; ++line) {                                                             \
    kg_tile_outer_f32(sums, x + line * x_line + i, x_step, d_y + line * y_line + o, y_step, P, ROWS, lanes); \
  }                                                                                                          \
  kg_tile_finish_f32(sums, d_w + i * w_step + o, w_step, -KG_INFINITY, KG_INFINITY, ROWS, lanes);
      KG_WITH_LANES(O - o, KG_CHANNELS)
#undef KG_TILE
#undef KG_CHANNELS
    }
  }
}

/* d_w[i][o] = sum over p ascending of x[p][i] * d_y[p][o], one fused multiply-add a term. d_w must not overlap x or
 * d_y. */
static inline void kg_linear_grad_weight_f32(float *restrict d_w, const float *restrict x, const float *restrict d_y,
                                             int32_t P, int32_t I, int32_t O) {
  kg_linear_grad_weight_rows_f32(d_w, x, d_y, 1, 0, 0, P, I, O, I, O, O);
}

#endif
