/* Pooling of one image x[H][W][C] into y[OH][OW][C], and the gradients.
 *
 * A window is a grid of taps. Sums over a window run in ascending order (row, then column), one chain a channel; a
 * maximum is the first of equal ones, and NaN wins over every number. The number of a tap is row * KW + column. */
#ifndef KILOGRAD_POOL_H
#define KILOGRAD_POOL_H

#include "kilograd/base.h"
#include "kilograd/shape.h"

/* Channels that a block keeps in registers, and the way to a maximum (KG_SCALAR asks for that of a core without vector
 * unit). The bits do not depend on it. */
#if defined(__arm__) || defined(__riscv) || defined(KG_SCALAR)
#define KG_SUM_LANES 8
#else
#define KG_SUM_LANES 16
#define KG_MAX_LANES 16
#endif

/* Before a loop over pixels: vectorise over the channels inside instead, which are contiguous. */
#if defined(__clang__)
#define KG_PIXELS _Pragma("clang loop vectorize(disable)")
#else
#define KG_PIXELS
#endif

/* The first tap, of taps `dilation` apart from `start` on, that is not before 0. */
KG_INLINE int32_t kg_first_tap(int32_t start, int32_t dilation) {
  return start < 0 ? (dilation - 1 - start) / dilation : 0;
}

/* One past the last of `taps` taps that is before `size`. */
KG_INLINE int32_t kg_stop_tap(int32_t start, int32_t taps, int32_t dilation, int32_t size) {
  return start + (taps - 1) * dilation < size ? taps : (size - start + dilation - 1) / dilation;
}

KG_INLINE int32_t kg_min_i32(int32_t a, int32_t b) { return a < b ? a : b; }
KG_INLINE int32_t kg_max_i32(int32_t a, int32_t b) { return a > b ? a : b; }

/* Windows [first, stop) among `windows`, `taps` wide and `stride` apart from -before on, that cover position p. */
KG_INLINE int32_t kg_first_window(int32_t p, int32_t taps, int32_t stride, int32_t before) {
  return p + before < taps ? 0 : (p + before - taps) / stride + 1;
}

KG_INLINE int32_t kg_stop_window(int32_t p, int32_t stride, int32_t before, int32_t windows) {
  return kg_min_i32(windows, (p + before) / stride + 1);
}

/* PyTorch's adaptive windows: window i of n over `size` positions is [floor(i size / n), ceil((i + 1) size / n)). */
KG_INLINE int32_t kg_adaptive_start(int32_t i, int32_t size, int32_t n) { return i * size / n; }
KG_INLINE int32_t kg_adaptive_stop(int32_t i, int32_t size, int32_t n) { return ((i + 1) * size + n - 1) / n; }

#if defined(KG_MAX_LANES)
/* Side by side, without branches. */
KG_INLINE void kg_max_lanes_f32(float *restrict y, uint8_t *restrict index, const float *restrict x, int32_t rows,
                                int32_t columns, int32_t row_step, int32_t column_step, int32_t tap, int32_t KW,
                                bool indexed, int32_t lanes) {
  float best[KG_MAX_LANES];
  int32_t at[KG_MAX_LANES];
  for (int32_t j = 0; j < lanes; ++j) {
    best[j] = -KG_INFINITY;
    at[j] = tap;
  }
  for (int32_t r = 0; r < rows; ++r, x += row_step, tap += KW) {
    const float *from = x;
    for (int32_t k = 0; k < columns; ++k, from += column_step) {
      for (int32_t j = 0; j < lanes; ++j) {
        const float v = from[j];
        const bool take = (v > best[j]) | ((v != v) & (best[j] == best[j]));
        best[j] = take ? v : best[j];
        at[j] = take ? tap + k : at[j];
      }
    }
  }
  for (int32_t j = 0; j < lanes; ++j) {
    y[j] = best[j];
    if (indexed) {
      index[j] = (uint8_t)at[j];
    }
  }
}

KG_INLINE void kg_max_channels_f32(float *restrict y, uint8_t *restrict index, const float *restrict x, int32_t rows,
                                   int32_t columns, int32_t row_step, int32_t column_step, int32_t tap, int32_t KW,
                                   bool indexed, int32_t C) {
  int32_t c = 0;
  for (; c + KG_MAX_LANES <= C; c += KG_MAX_LANES) {
    kg_max_lanes_f32(y + c, indexed ? index + c : NULL, x + c, rows, columns, row_step, column_step, tap, KW, indexed,
                     KG_MAX_LANES);
  }
  for (; c + 4 <= C; c += 4) {
    kg_max_lanes_f32(y + c, indexed ? index + c : NULL, x + c, rows, columns, row_step, column_step, tap, KW, indexed,
                     4);
  }
  for (; c < C; ++c) {
    kg_max_lanes_f32(y + c, indexed ? index + c : NULL, x + c, rows, columns, row_step, column_step, tap, KW, indexed,
                     1);
  }
}
#else
/* Channel by channel on a scalar core: one comparison for a tap that is no new maximum. */
KG_INLINE void kg_max_channels_f32(float *restrict y, uint8_t *restrict index, const float *restrict x, int32_t rows,
                                   int32_t columns, int32_t row_step, int32_t column_step, int32_t tap, int32_t KW,
                                   bool indexed, int32_t C) {
  for (int32_t c = 0; c < C; ++c, ++x) {
    const float *row = x, *from = x + column_step;
    float best = x[0];
    int32_t at = tap, number = tap, k = 1;
    for (int32_t r = 0; r < rows; ++r, row += row_step, from = row, number += KW, k = 0) {
      for (; k < columns; ++k, from += column_step) {
        const float v = *from;
        if (__builtin_expect(!(v <= best), 0)) {
          if (best == best) { /* not NaN yet */
            best = v;
            at = number + k;
          }
        }
      }
    }
    y[c] = best;
    if (indexed) {
      index[c] = (uint8_t)at;
    }
  }
}
#endif

/* y[c] = the maximum over taps [rows][columns] of x, row_step and column_step floats apart; index[c] (unless NULL) =
 * its number, the first tap being number `tap` and rows KW apart. -infinity is number `tap`. */
KG_SHARED void kg_max_window_f32(float *restrict y, uint8_t *restrict index, const float *restrict x, int32_t rows,
                                 int32_t columns, int32_t row_step, int32_t column_step, int32_t tap, int32_t KW,
                                 int32_t C) {
  if (index != NULL) {
    kg_max_channels_f32(y, index, x, rows, columns, row_step, column_step, tap, KW, true, C);
  } else {
    kg_max_channels_f32(y, NULL, x, rows, columns, row_step, column_step, tap, KW, false, C);
  }
}

KG_INLINE void kg_sum_lanes_f32(float *restrict y, const float *restrict x, int32_t rows, int32_t columns,
                                int32_t row_step, int32_t column_step, float scale, int32_t lanes) {
  float sum[KG_SUM_LANES];
  for (int32_t j = 0; j < lanes; ++j) {
    sum[j] = 0.0f;
  }
  for (int32_t r = 0; r < rows; ++r, x += row_step) {
    const float *from = x;
    for (int32_t k = 0; k < columns; ++k, from += column_step) {
      for (int32_t j = 0; j < lanes; ++j) {
        sum[j] += from[j];
      }
    }
  }
  for (int32_t j = 0; j < lanes; ++j) {
    y[j] = sum[j] * scale;
  }
}

/* y[c] = scale * (0 + the sum over taps [rows][columns] of x, row_step and column_step floats apart). */
KG_SHARED void kg_sum_window_f32(float *restrict y, const float *restrict x, int32_t rows, int32_t columns,
                                 int32_t row_step, int32_t column_step, float scale, int32_t C) {
  int32_t c = 0;
  for (; c + KG_SUM_LANES <= C; c += KG_SUM_LANES) {
    kg_sum_lanes_f32(y + c, x + c, rows, columns, row_step, column_step, scale, KG_SUM_LANES);
  }
  for (; c + 4 <= C; c += 4) {
    kg_sum_lanes_f32(y + c, x + c, rows, columns, row_step, column_step, scale, 4);
  }
  for (; c < C; ++c) {
    kg_sum_lanes_f32(y + c, x + c, rows, columns, row_step, column_step, scale, 1);
  }
}

/* y[oh][ow][c] = max over taps (kh, kw) inside the image of x[oh stride_h - top + kh dilation_h][...][c]; index (unless
 * NULL) = kh * KW + kw of the maximum, so KH * KW <= 255. Every window has a tap inside. No overlap. */
KG_SHARED void kg_max_pool2d_f32(float *restrict y, uint8_t *restrict index, const float *restrict x, int32_t H,
                                 int32_t W, int32_t C, int32_t OH, int32_t OW, int32_t KH, int32_t KW, int32_t stride_h,
                                 int32_t stride_w, int32_t top, int32_t left, int32_t dilation_h, int32_t dilation_w) {
  for (int32_t oh = 0; oh < OH; ++oh) {
    const int32_t h = oh * stride_h - top;
    const int32_t kh = kg_first_tap(h, dilation_h), rows = kg_stop_tap(h, KH, dilation_h, H) - kh;
    KG_PIXELS
    for (int32_t ow = 0; ow < OW; ++ow, y += C) {
      const int32_t w = ow * stride_w - left;
      const int32_t kw = kg_first_tap(w, dilation_w), columns = kg_stop_tap(w, KW, dilation_w, W) - kw;
      const float *from = x + ((h + kh * dilation_h) * W + w + kw * dilation_w) * C;
      kg_max_window_f32(y, index, from, rows, columns, dilation_h * W * C, dilation_w * C, kh * KW + kw, KW, C);
      index = index != NULL ? index + C : NULL;
    }
  }
}

/* d_x += d_y at the tap that `index` names, per channel; d_x points at the window's tap 0 (which may lie outside the
 * image), taps are row_step and column_step floats apart. `reciprocal` = ceil(65536 / KW). */
KG_INLINE void kg_max_window_grad_f32(float *d_x, const float *restrict d_y, const uint8_t *restrict index,
                                      int32_t origin, int32_t row_step, int32_t column_step, int32_t KW,
                                      int32_t reciprocal, int32_t C) {
  for (int32_t c = 0; c < C; ++c) {
    const int32_t tap = index[c], kh = (tap * reciprocal) >> 16; /* = tap / KW: exact for tap and KW below 256 */
    const int32_t at = origin + kh * row_step + (tap - kh * KW) * column_step + c;
    d_x[at] += d_y[c];
  }
}

/* d_x[h][w][c] = sum, over windows in ascending order whose index names (h, w), of d_y[oh][ow][c]. No overlap. */
KG_SHARED void kg_max_pool2d_grad_f32(float *restrict d_x, const float *restrict d_y, const uint8_t *restrict index,
                                      int32_t H, int32_t W, int32_t C, int32_t OH, int32_t OW, int32_t KW,
                                      int32_t stride_h, int32_t stride_w, int32_t top, int32_t left, int32_t dilation_h,
                                      int32_t dilation_w) {
  const int32_t reciprocal = (65535 + KW) / KW;
  kg_zero(d_x, H * W * C * (int32_t)sizeof(float));
  for (int32_t oh = 0; oh < OH; ++oh) {
    KG_PIXELS
    for (int32_t ow = 0; ow < OW; ++ow, d_y += C, index += C) {
      const int32_t origin = ((oh * stride_h - top) * W + ow * stride_w - left) * C;
      kg_max_window_grad_f32(d_x, d_y, index, origin, dilation_h * W * C, dilation_w * C, KW, reciprocal, C);
    }
  }
}

/* The maximum over adaptive windows; index (unless NULL) = kh * KW + kw inside its window, KW being at least the
 * widest window, and below 256. No overlap. */
KG_SHARED void kg_adaptive_max_pool2d_f32(float *restrict y, uint8_t *restrict index, const float *restrict x,
                                          int32_t H, int32_t W, int32_t C, int32_t OH, int32_t OW, int32_t KW) {
  for (int32_t oh = 0; oh < OH; ++oh) {
    const int32_t h = kg_adaptive_start(oh, H, OH), rows = kg_adaptive_stop(oh, H, OH) - h;
    KG_PIXELS
    for (int32_t ow = 0; ow < OW; ++ow, y += C) {
      const int32_t w = kg_adaptive_start(ow, W, OW), columns = kg_adaptive_stop(ow, W, OW) - w;
      kg_max_window_f32(y, index, x + (h * W + w) * C, rows, columns, W * C, C, 0, KW, C);
      index = index != NULL ? index + C : NULL;
    }
  }
}

/* The gradient of kg_adaptive_max_pool2d_f32, like kg_max_pool2d_grad_f32. No overlap. */
KG_SHARED void kg_adaptive_max_pool2d_grad_f32(float *restrict d_x, const float *restrict d_y,
                                               const uint8_t *restrict index, int32_t H, int32_t W, int32_t C,
                                               int32_t OH, int32_t OW, int32_t KW) {
  const int32_t reciprocal = (65535 + KW) / KW;
  kg_zero(d_x, H * W * C * (int32_t)sizeof(float));
  for (int32_t oh = 0; oh < OH; ++oh) {
    KG_PIXELS
    for (int32_t ow = 0; ow < OW; ++ow, d_y += C, index += C) {
      const int32_t origin = (kg_adaptive_start(oh, H, OH) * W + kg_adaptive_start(ow, W, OW)) * C;
      kg_max_window_grad_f32(d_x, d_y, index, origin, W * C, C, KW, reciprocal, C);
    }
  }
}

/* One over what a mean divides by: `divisor` unless 0, else the window's area; where counted is set, an axis counts its
 * taps inside [-before, size + after), otherwise those inside [0, size). */
KG_INLINE int32_t kg_counted_taps(int32_t start, int32_t taps, int32_t size, int32_t after, bool counted) {
  const int32_t stop = kg_min_i32(start + taps, counted ? size + after : size);
  return stop - (counted ? start : kg_max_i32(start, 0));
}

/* y[oh][ow][c] = (sum of the window's taps inside the image) / n, as a multiplication by 1 / n. n is `divisor`, or
 * where that is 0 the number of taps inside the image, together with those inside the padding (top, bottom, left,
 * right) if counted. Every window has a tap inside. No overlap. */
KG_SHARED void kg_avg_pool2d_f32(float *restrict y, const float *restrict x, int32_t H, int32_t W, int32_t C,
                                 int32_t OH, int32_t OW, int32_t KH, int32_t KW, int32_t stride_h, int32_t stride_w,
                                 int32_t top, int32_t bottom, int32_t left, int32_t right, bool counted,
                                 int32_t divisor) {
  for (int32_t oh = 0; oh < OH; ++oh) {
    const int32_t start_h = oh * stride_h - top, h = kg_max_i32(start_h, 0);
    const int32_t rows = kg_min_i32(start_h + KH, H) - h, height = kg_counted_taps(start_h, KH, H, bottom, counted);
    KG_PIXELS
    for (int32_t ow = 0; ow < OW; ++ow, y += C) {
      const int32_t start_w = ow * stride_w - left, w = kg_max_i32(start_w, 0);
      const int32_t columns = kg_min_i32(start_w + KW, W) - w;
      const int32_t n = divisor != 0 ? divisor : height * kg_counted_taps(start_w, KW, W, right, counted);
      kg_sum_window_f32(y, x + (h * W + w) * C, rows, columns, W * C, C, 1.0f / (float)n, C);
    }
  }
}

/* d_x = d_y * scale, or d_x + d_y * scale unless first. */
KG_INLINE void kg_spread_window_f32(float *restrict d_x, const float *restrict d_y, float scale, bool first,
                                    int32_t C) {
  if (first) {
    for (int32_t c = 0; c < C; ++c) {
      d_x[c] = d_y[c] * scale;
    }
  } else {
    for (int32_t c = 0; c < C; ++c) {
      d_x[c] = KG_FMA(d_y[c], scale, d_x[c]);
    }
  }
}

/* d_x[h][w][c] = sum, over the windows that cover (h, w) in ascending order, of d_y[oh][ow][c] / n. No overlap. */
KG_SHARED void kg_avg_pool2d_grad_f32(float *restrict d_x, const float *restrict d_y, int32_t H, int32_t W, int32_t C,
                                      int32_t OH, int32_t OW, int32_t KH, int32_t KW, int32_t stride_h,
                                      int32_t stride_w, int32_t top, int32_t bottom, int32_t left, int32_t right,
                                      bool counted, int32_t divisor) {
  for (int32_t h = 0; h < H; ++h) {
    const int32_t oh0 = kg_first_window(h, KH, stride_h, top), oh1 = kg_stop_window(h, stride_h, top, OH);
    KG_PIXELS
    for (int32_t w = 0; w < W; ++w, d_x += C) {
      const int32_t ow0 = kg_first_window(w, KW, stride_w, left), ow1 = kg_stop_window(w, stride_w, left, OW);
      if (oh0 >= oh1 || ow0 >= ow1) {
        kg_zero(d_x, C * (int32_t)sizeof(float));
      }
      for (int32_t oh = oh0; oh < oh1; ++oh) {
        const int32_t height = kg_counted_taps(oh * stride_h - top, KH, H, bottom, counted);
        for (int32_t ow = ow0; ow < ow1; ++ow) {
          const int32_t width = kg_counted_taps(ow * stride_w - left, KW, W, right, counted);
          const float scale = 1.0f / (float)(divisor != 0 ? divisor : height * width);
          kg_spread_window_f32(d_x, d_y + (oh * OW + ow) * C, scale, oh == oh0 && ow == ow0, C);
        }
      }
    }
  }
}

/* The mean over adaptive windows. No overlap. */
KG_SHARED void kg_adaptive_avg_pool2d_f32(float *restrict y, const float *restrict x, int32_t H, int32_t W, int32_t C,
                                          int32_t OH, int32_t OW) {
  for (int32_t oh = 0; oh < OH; ++oh) {
    const int32_t h = kg_adaptive_start(oh, H, OH), rows = kg_adaptive_stop(oh, H, OH) - h;
    KG_PIXELS
    for (int32_t ow = 0; ow < OW; ++ow, y += C) {
      const int32_t w = kg_adaptive_start(ow, W, OW), columns = kg_adaptive_stop(ow, W, OW) - w;
      kg_sum_window_f32(y, x + (h * W + w) * C, rows, columns, W * C, C, 1.0f / (float)(rows * columns), C);
    }
  }
}

/* d_x[h][w][c] = sum, over the adaptive windows that cover (h, w) in ascending order, of d_y[oh][ow][c] / their size.
 * Windows that cover p are [floor(p n / size), ceil((p + 1) n / size)): the same formula, sizes exchanged. No overlap.
 */
KG_SHARED void kg_adaptive_avg_pool2d_grad_f32(float *restrict d_x, const float *restrict d_y, int32_t H, int32_t W,
                                               int32_t C, int32_t OH, int32_t OW) {
  for (int32_t h = 0; h < H; ++h) {
    const int32_t oh0 = kg_adaptive_start(h, OH, H), oh1 = kg_adaptive_stop(h, OH, H);
    KG_PIXELS
    for (int32_t w = 0; w < W; ++w, d_x += C) {
      const int32_t ow0 = kg_adaptive_start(w, OW, W), ow1 = kg_adaptive_stop(w, OW, W);
      for (int32_t oh = oh0; oh < oh1; ++oh) {
        const int32_t height = kg_adaptive_stop(oh, H, OH) - kg_adaptive_start(oh, H, OH);
        for (int32_t ow = ow0; ow < ow1; ++ow) {
          const int32_t width = kg_adaptive_stop(ow, W, OW) - kg_adaptive_start(ow, W, OW);
          const float scale = 1.0f / (float)(height * width);
          kg_spread_window_f32(d_x, d_y + (oh * OW + ow) * C, scale, oh == oh0 && ow == ow0, C);
        }
      }
    }
  }
}

#endif
