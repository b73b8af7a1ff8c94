/* Depthwise convolutions over C channels: x[H][W][x_stride], weights w[KH][KW][C], y[OH][OW][y_stride]; x_stride and
 * y_stride are the floats from a pixel to the next, so that x and y may be some channels of a larger tensor.
 * depthwise3.h has faster kernels for the commonest case.
 *
 * Everywhere, rows outside a tensor are skipped and columns outside of it are zeros. Targets without wide vectors take
 * one channel after the other and copy its plane between zeros into `scratch`, so that loads need neither checks nor
 * address sums. */
#ifndef KILOGRAD_DEPTHWISE_H
#define KILOGRAD_DEPTHWISE_H

#include "kilograd/stencil.h"

#if KG_LANES <= 4

/* How planes lie in scratch: `margin` zeros, a row, zeros up to `width`. Blocks of 4 or 8 outputs may read some more
 * than they need. */
typedef struct kg_plane {
  int32_t margin, width;
} kg_plane;

KG_INLINE kg_plane kg_forward_plane(const kg_window *g) {
  const int32_t reach = ((g->OW + 3) / 4 * 4 - 1) * g->stride_w + (g->KW - 1) * g->dilation_w + 1;
  const kg_plane plane = {.margin = g->pad_left, .width = g->pad_left + g->W > reach ? g->pad_left + g->W : reach};
  return plane;
}

KG_INLINE kg_plane kg_backward_plane(const kg_window *g) {
  const int32_t before = (g->KW - 1) * g->dilation_w - g->pad_left;
  const int32_t columns = (g->W + g->stride_w - 1) / g->stride_w;
  const int32_t reach = (columns + 3) / 4 * 4 + (g->stride_w - 1 + g->pad_left) / g->stride_w;
  const int32_t margin = before > 0 ? before / g->stride_w : 0;
  const kg_plane plane = {.margin = margin, .width = margin + (g->OW > reach ? g->OW : reach)};
  return plane;
}

/* Copies channel 0 of x[H][W][x_step] into its plane; what lies between the rows is left alone. */
static inline void kg_plane_gather_f32(float *restrict to, const kg_plane *plane, const float *restrict x, int32_t H,
                                       int32_t W, int32_t x_step) {
  to += plane->margin;
  KG_ROLLED
  for (; H > 0; --H, to += plane->width) {
    KG_UNROLL_2
    for (int32_t i = 0; i < W; ++i, x += x_step) {
      to[i] = *x;
    }
  }
}

static inline void kg_plane_clear_f32(float *to, int32_t n) {
  KG_ROLLED
  for (int32_t i = 0; i < n; ++i) {
    to[i] = 0.0f;
  }
}

/* One row of taps: sums[q] += sum over kw of x[q * stride + kw * dilation] * taps[kw]. */
KG_INLINE void kg_plane_taps_f32(float *restrict sums, const float *restrict x, const float *restrict taps, int32_t KW,
                                 int32_t stride, int32_t dilation, int32_t most) {
  for (int32_t kw = 0; kw < KW; ++kw) {
    const float tap = taps[kw];
    for (int32_t q = 0; q < most; ++q) {
      sums[q] = KG_FMA(x[q * stride + kw * dilation], tap, sums[q]);
    }
  }
}

/* `most` outputs side by side; KH rows of KW taps lie one after the other. */
KG_INLINE void kg_plane_block_f32(float *restrict y, const float *restrict x, int32_t x_row, const float *restrict taps,
                                  int32_t KH, int32_t KW, int32_t stride, int32_t dilation, float start, int32_t most) {
  float sums[8];
  for (int32_t q = 0; q < most; ++q) {
    sums[q] = start;
  }
  KG_ROLLED
  for (; KH > 0; --KH, x += x_row, taps += KW) {
    kg_plane_taps_f32(sums, x, taps, KW, stride, dilation, most);
  }
  for (int32_t q = 0; q < most; ++q) {
    y[q] = sums[q];
  }
}

/* A row of outputs, rounded up to a multiple of 4, side by side; KW, stride and dilation are literals in the fast
 * cases, and `wide` says that registers hold 8 sums. */
KG_INLINE void kg_plane_row_f32(float *restrict y, const float *restrict x, int32_t x_row, const float *restrict taps,
                                int32_t KH, int32_t columns, float start, int32_t KW, int32_t stride, int32_t dilation,
                                bool wide) {
  if (wide) {
    KG_ROLLED
    for (; columns > 4; columns -= 8, y += 8, x += 8 * stride) {
      kg_plane_block_f32(y, x, x_row, taps, KH, KW, stride, dilation, start, 8);
    }
  }
  KG_ROLLED
  for (; columns > 0; columns -= 4, y += 4, x += 4 * stride) {
    kg_plane_block_f32(y, x, x_row, taps, KH, KW, stride, dilation, start, 4);
  }
}

/* y[i * y_step] = x[i] limited to [low, high] */
static inline void kg_plane_scatter_f32(float *restrict y, int32_t y_step, const float *restrict x, int32_t n,
                                        float low, float high) {
  if (low > -KG_INFINITY || high < KG_INFINITY) {
    KG_ROLLED
    for (int32_t i = 0; i < n; ++i, y += y_step) {
      *y = kg_clamp_f32(x[i], low, high);
    }
  } else {
    KG_UNROLL_2
    for (int32_t i = 0; i < n; ++i, y += y_step) {
      *y = x[i];
    }
  }
}

/* One channel: x is a plane, w the first tap; `room` takes KH * KW taps and a row of y rounded up to a multiple of
 * 4. */
static inline void kg_plane_stencil_f32(float *restrict y, const float *restrict x, const kg_plane *plane,
                                        float *restrict room, const float *restrict w, const kg_stencil *s, float start,
                                        float low, float high) {
  float *const row = room + s->KH * s->KW;
  for (int32_t kh = 0; kh < s->KH; ++kh) {
    for (int32_t kw = 0; kw < s->KW; ++kw) {
      room[kh * s->KW + kw] = w[kh * s->w_row + kw * s->w_step];
    }
  }
  const int32_t key = s->dilation_w == 1 && s->stride_w <= 2 ? (s->stride_w - 1) * 8 + s->KW : 0;
  const int32_t x_row = s->dilation_h * plane->width, columns = s->columns;
  int32_t top = s->top;
  x += plane->margin + s->left;
  KG_ROLLED
  for (int32_t r = 0; r < s->rows; ++r, y += s->y_row, top += s->stride_h) {
    int32_t begin, end;
    kg_kernel_rows(&begin, &end, s->KH, s->dilation_h, top, s->H);
    const float *from = x + (top + begin * s->dilation_h) * plane->width, *taps = room + begin * s->KW;
#define KG_CASE(KW, STRIDE)                                                                            \
  case (STRIDE - 1) * 8 + KW:                                                                          \
    kg_plane_row_f32(row, from, x_row, taps, end - begin, columns, start, KW, STRIDE, 1, STRIDE == 1); \
    break;
    switch (key) {
      KG_CASE(2, 1)
      KG_CASE(3, 1)
      KG_CASE(4, 1)
      KG_CASE(5, 1)
      KG_CASE(7, 1)
      KG_CASE(5, 2)
      KG_CASE(7, 2)
      default:
        kg_plane_row_f32(row, from, x_row, taps, end - begin, columns, start, s->KW, s->stride_w, s->dilation_w, false);
        break;
    }
#undef KG_CASE
    kg_plane_scatter_f32(y, s->y_step, row, columns, low, high);
  }
}

/* Row kh of d_w from `taps` columns on: x is a plane moved to the first of them; literal `taps` and `stride` in the
 * fast cases. */
KG_INLINE void kg_plane_grad_taps_f32(float *restrict d_w, int32_t w_step, const float *restrict x, int32_t x_row,
                                      const float *restrict d_y, int32_t rows, int32_t columns, int32_t y_step,
                                      int32_t stride, int32_t dilation, int32_t taps) {
  float sums[8];
  for (int32_t k = 0; k < taps; ++k) {
    sums[k] = 0.0f;
  }
  KG_ROLLED
  for (; rows > 0; --rows, x += x_row) {
    const float *from = x;
    int32_t left = columns;
    KG_ROLLED
    for (; left >= 4; left -= 4, from += 4 * stride) {
      float d[4];
      for (int32_t q = 0; q < 4; ++q, d_y += y_step) {
        d[q] = *d_y;
      }
      for (int32_t q = 0; q < 4; ++q) {
        for (int32_t k = 0; k < taps; ++k) {
          sums[k] = KG_FMA(from[q * stride + k * dilation], d[q], sums[k]);
        }
      }
    }
    KG_ROLLED
    for (; left > 0; --left, from += stride, d_y += y_step) {
      for (int32_t k = 0; k < taps; ++k) {
        sums[k] = KG_FMA(from[k * dilation], *d_y, sums[k]);
      }
    }
  }
  for (int32_t k = 0; k < taps; ++k, d_w += w_step) {
    *d_w = sums[k];
  }
}

#endif

/* y = clamp(start + sum over kh, kw ascending of x * w), one fused multiply-add a term; start is bias[c], or 0 where
 * bias is NULL. `scratch` has room for KH * KW + OW' floats, OW' being OW rounded up to a multiple of 4, and H rows of
 * max(pad_left + W, (OW' - 1) * stride_w + (KW - 1) * dilation_w + 1). y must not overlap anything else. */
static inline void kg_depthwise_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                    const float *restrict bias, float *restrict scratch, const kg_window *g, int32_t C,
                                    int32_t x_stride, int32_t y_stride, float low, float high) {
  const kg_stencil s = kg_forward_stencil(g, C, x_stride, y_stride);
#if KG_LANES > 4
  (void)scratch;
  kg_stencil_f32(y, x, w, bias, &s, C, low, high);
#else
  const kg_plane plane = kg_forward_plane(g);
  kg_plane_clear_f32(scratch, g->H * plane.width);
  for (int32_t c = 0; c < C; ++c) {
    kg_plane_gather_f32(scratch, &plane, x + c, g->H, g->W, x_stride);
    kg_plane_stencil_f32(y + c, scratch, &plane, scratch + g->H * plane.width, w + c, &s, bias != NULL ? bias[c] : 0.0f,
                         low, high);
  }
#endif
}

/* d_x = sum over oh, ow ascending (kh, kw descending) of d_y * w. `scratch` has room for KH * KW + W' floats, where
 * W' is W / stride_w, rounded up, and then up to a multiple of 4, and OH rows of M + max(OW, W' + (stride_w - 1 +
 * pad_left) / stride_w), where M = max(0, (KW - 1) * dilation_w - pad_left) / stride_w. d_x must not overlap anything
 * else. */
static inline void kg_depthwise_grad_input_f32(float *restrict d_x, const float *restrict d_y, const float *restrict w,
                                               float *restrict scratch, const kg_window *g, int32_t C, int32_t x_stride,
                                               int32_t y_stride) {
#if KG_LANES > 4
  (void)scratch;
  kg_wide_grad_input_f32(d_x, d_y, w, g, C, x_stride, y_stride);
#else
  const kg_plane plane = kg_backward_plane(g);
  kg_plane_clear_f32(scratch, g->OH * plane.width);
  for (int32_t c = 0; c < C; ++c) {
    kg_plane_gather_f32(scratch, &plane, d_y + c, g->OH, g->OW, y_stride);
    for (int32_t a = 0; a < g->stride_h && a < g->H; ++a) {
      for (int32_t b = 0; b < g->stride_w && b < g->W; ++b) {
        int32_t w_offset;
        const kg_stencil s = kg_backward_stencil(g, C, x_stride, y_stride, a, b, &w_offset);
        kg_plane_stencil_f32(d_x + (a * g->W + b) * x_stride + c, scratch, &plane, scratch + g->OH * plane.width,
                             w + w_offset + c, &s, 0.0f, -KG_INFINITY, KG_INFINITY);
      }
    }
  }
#endif
}

/* d_w[kh][kw][c] = sum over oh, ow ascending of x * d_y. `scratch` as for kg_depthwise_f32. d_w must not overlap
 * anything else. */
static inline void kg_depthwise_grad_weight_f32(float *restrict d_w, const float *restrict x, const float *restrict d_y,
                                                float *restrict scratch, const kg_window *g, int32_t C,
                                                int32_t x_stride, int32_t y_stride) {
#if KG_LANES > 4
  (void)scratch;
  kg_wide_grad_weight_f32(d_w, x, d_y, g, C, x_stride, y_stride);
#else
  const kg_plane plane = kg_forward_plane(g);
  kg_plane_clear_f32(scratch, g->H * plane.width);
  for (int32_t c = 0; c < C; ++c) {
    kg_plane_gather_f32(scratch, &plane, x + c, g->H, g->W, x_stride);
    for (int32_t kh = 0; kh < g->KH; ++kh) {
      const int32_t row = kh * g->dilation_h - g->pad_top;
      int32_t top = 0, bottom = g->OH;
      while (top < bottom && top * g->stride_h + row < 0) {
        ++top;
      }
      while (bottom > top && (bottom - 1) * g->stride_h + row >= g->H) {
        --bottom;
      }
      for (int32_t kw = 0, taps = 0; kw < g->KW; kw += taps) {
        const float *from = scratch + (top * g->stride_h + row) * plane.width + kw * g->dilation_w;
#define KG_TAPS(TAPS, STRIDE, DILATION)                                                       \
  taps = TAPS;                                                                                \
  kg_plane_grad_taps_f32(d_w + (kh * g->KW + kw) * C + c, C, from, g->stride_h * plane.width, \
                         d_y + top * g->OW * y_stride + c, bottom - top, g->OW, y_stride, STRIDE, DILATION, TAPS);
        if (g->dilation_w != 1 || g->stride_w > 2 || (g->KW != 5 && g->KW != 7)) {
          KG_TAPS(1, g->stride_w, g->dilation_w)
        } else if (g->stride_w == 1) {
          if (g->KW == 5) {
            KG_TAPS(5, 1, 1)
          } else {
            KG_TAPS(7, 1, 1)
          }
        } else if (g->KW == 5) {
          KG_TAPS(5, 2, 1)
        } else {
          KG_TAPS(7, 2, 1)
        }
#undef KG_TAPS
      }
    }
  }
#endif
}

#endif
