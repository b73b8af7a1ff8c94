/* What the depthwise kernels share: one operation that forward and, for each residue of the stride, the gradient of x
 * are; and that operation, with the gradient of w, for targets that take channels side by side in wide vectors. */
#ifndef KILOGRAD_STENCIL_H
#define KILOGRAD_STENCIL_H

#include "kilograd/tile.h"
#include "kilograd/window.h"

/* y[r][j] = start + sum over kh, kw ascending of x[r * stride_h + top + kh * dilation_h][j * stride_w + left + kw *
 * dilation_w] * w[kh][kw], in every channel: what forward is and, for each residue of the stride, the gradient of x.
 * *_row and *_step are the floats from row to row and from column to column. */
typedef struct kg_stencil {
  int32_t rows, columns, y_row, y_step;
  int32_t H, W, x_row, x_step;
  int32_t KH, KW, w_row, w_step;
  int32_t stride_h, stride_w, dilation_h, dilation_w, top, left;
} kg_stencil;

/* The kernel rows [*begin, *end) that meet a row in [0, H), where row 0 of the kernel meets row `top`. */
KG_INLINE void kg_kernel_rows(int32_t *begin, int32_t *end, int32_t KH, int32_t dilation, int32_t top, int32_t H) {
  int32_t from = 0, to = KH;
  while (from < to && top + from * dilation < 0) {
    ++from;
  }
  while (to > from && top + (to - 1) * dilation >= H) {
    --to;
  }
  *begin = from;
  *end = to;
}

/* The stencil of kg_depthwise_f32. */
KG_INLINE kg_stencil kg_forward_stencil(const kg_window *g, int32_t C, int32_t x_stride, int32_t y_stride) {
  const kg_stencil s = {
      .rows = g->OH,
      .columns = g->OW,
      .y_row = g->OW * y_stride,
      .y_step = y_stride,
      .H = g->H,
      .W = g->W,
      .x_row = g->W * x_stride,
      .x_step = x_stride,
      .KH = g->KH,
      .KW = g->KW,
      .w_row = g->KW * C,
      .w_step = C,
      .stride_h = g->stride_h,
      .stride_w = g->stride_w,
      .dilation_h = g->dilation_h,
      .dilation_w = g->dilation_w,
      .top = -g->pad_top,
      .left = -g->pad_left,
  };
  return s;
}

/* One axis of the gradient of x at the positions residue, residue + stride, ...: the taps that meet them are every
 * step-th down from `last`, `count` of them; they meet d_y from `first` on, `dilation` apart. */
typedef struct kg_phase {
  int32_t last, step, count, first, dilation;
} kg_phase;

KG_INLINE kg_phase kg_phase_of(int32_t residue, int32_t K, int32_t stride, int32_t dilation, int32_t before) {
  kg_phase phase = {.last = -1, .step = 1, .dilation = 1};
  for (int32_t k = 0; k < K; ++k) {
    const int32_t distance = residue + before - k * dilation;
    if (distance % stride == 0) {
      if (phase.count == 1) {
        phase.step = k - phase.last;
        phase.dilation = phase.step * dilation / stride;
      }
      phase.last = k;
      phase.first = distance / stride;
      ++phase.count;
    }
  }
  return phase;
}

/* The stencil of kg_depthwise_grad_input_f32 for one residue; its taps start at `*w_offset`. */
KG_INLINE kg_stencil kg_backward_stencil(const kg_window *g, int32_t C, int32_t x_stride, int32_t y_stride,
                                         int32_t residue_h, int32_t residue_w, int32_t *w_offset) {
  const kg_phase v = kg_phase_of(residue_h, g->KH, g->stride_h, g->dilation_h, g->pad_top);
  const kg_phase h = kg_phase_of(residue_w, g->KW, g->stride_w, g->dilation_w, g->pad_left);
  const kg_stencil s = {
      .rows = (g->H - residue_h + g->stride_h - 1) / g->stride_h,
      .columns = (g->W - residue_w + g->stride_w - 1) / g->stride_w,
      .y_row = g->stride_h * g->W * x_stride,
      .y_step = g->stride_w * x_stride,
      .H = g->OH,
      .W = g->OW,
      .x_row = g->OW * y_stride,
      .x_step = y_stride,
      .KH = v.count,
      .KW = h.count,
      .w_row = -v.step * g->KW * C,
      .w_step = -h.step * C,
      .stride_h = 1,
      .stride_w = 1,
      .dilation_h = v.dilation,
      .dilation_w = h.dilation,
      .top = v.first,
      .left = h.first,
  };
  *w_offset = (v.count > 0 && h.count > 0) ? (v.last * g->KW + h.last) * C : 0;
  return s;
}

#if KG_LANES > 4

/* `rows` pixels of y from (r, j) on, `lanes` channels. */
KG_INLINE void kg_stencil_tile_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                   const float *restrict bias, const kg_stencil *s, int32_t r, int32_t j, float low,
                                   float high, int32_t rows, int32_t lanes) {
  const int32_t first = j * s->stride_w + s->left, top = r * s->stride_h + s->top;
  const bool inside = first >= 0 && first + (rows - 1) * s->stride_w + (s->KW - 1) * s->dilation_w < s->W;
  int32_t begin, end;
  kg_vector sums[KG_ROWS];
  kg_tile_start_f32(sums, NULL, 0, bias, false, rows, lanes);
  kg_kernel_rows(&begin, &end, s->KH, s->dilation_h, top, s->H);
  for (int32_t kh = begin; kh < end; ++kh) {
    const float *row = x + (top + kh * s->dilation_h) * s->x_row;
    for (int32_t kw = 0; kw < s->KW; ++kw) {
      const kg_vector tap = kg_vector_load(w + kh * s->w_row + kw * s->w_step, lanes);
      const int32_t column = first + kw * s->dilation_w;
      for (int32_t q = 0; q < rows; ++q) {
        const int32_t at = column + q * s->stride_w;
        const float *from = inside || (at >= 0 && at < s->W) ? row + at * s->x_step : kg_zeros;
        sums[q] = kg_vector_fma_lanes(kg_vector_load(from, lanes), tap, sums[q], lanes);
      }
    }
  }
  kg_tile_finish_f32(sums, y, s->y_step, low, high, rows, lanes);
}

/* `lanes` channels of all pixels. */
KG_INLINE void kg_stencil_lanes_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                    const float *restrict bias, const kg_stencil *s, float low, float high,
                                    int32_t lanes) {
  for (int32_t r = 0; r < s->rows; ++r) {
    for (int32_t j = 0, rows = 0; j < s->columns; j += rows) {
#define KG_TILE(ROWS) \
  rows = ROWS;        \
  kg_stencil_tile_f32(y + r * s->y_row + j * s->y_step, x, w, bias, s, r, j, low, high, ROWS, lanes);
      KG_WITH_ROWS(s->columns - j, lanes, KG_TILE)
#undef KG_TILE
    }
  }
}

static inline void kg_stencil_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                  const float *restrict bias, const kg_stencil *s, int32_t C, float low, float high) {
  for (int32_t c = 0, lanes = 0; c < C; c += lanes) {
    const float *start = bias != NULL ? bias + c : NULL;
#define KG_CHANNELS(LANES) \
  lanes = LANES;           \
  kg_stencil_lanes_f32(y + c, x + c, w + c, start, s, low, high, LANES);
    KG_WITH_LANES(C - c, KG_CHANNELS)
#undef KG_CHANNELS
  }
}

/* `taps` columns of row kh of d_w from kw on, `lanes` channels. */
KG_INLINE void kg_depthwise_grad_taps_f32(float *restrict d_w, const float *restrict x, const float *restrict d_y,
                                          const kg_window *g, int32_t C, int32_t x_stride, int32_t y_stride, int32_t kh,
                                          int32_t kw, int32_t taps, int32_t lanes) {
  kg_vector sums[KG_ROWS];
  kg_tile_start_f32(sums, NULL, 0, NULL, false, taps, lanes);
  for (int32_t oh = 0; oh < g->OH; ++oh) {
    const int32_t ih = oh * g->stride_h - g->pad_top + kh * g->dilation_h;
    if (ih < 0 || ih >= g->H) {
      continue;
    }
    for (int32_t ow = 0; ow < g->OW; ++ow) {
      const int32_t first = ow * g->stride_w - g->pad_left + kw * g->dilation_w;
      const bool inside = first >= 0 && first + (taps - 1) * g->dilation_w < g->W;
      const kg_vector d = kg_vector_load(d_y + (oh * g->OW + ow) * y_stride, lanes);
      for (int32_t k = 0; k < taps; ++k) {
        const int32_t at = first + k * g->dilation_w;
        const float *from = inside || (at >= 0 && at < g->W) ? x + (ih * g->W + at) * x_stride : kg_zeros;
        sums[k] = kg_vector_fma_lanes(kg_vector_load(from, lanes), d, sums[k], lanes);
      }
    }
  }
  kg_tile_finish_f32(sums, d_w + (kh * g->KW + kw) * C, C, -KG_INFINITY, KG_INFINITY, taps, lanes);
}

/* `lanes` channels of all taps. */
KG_INLINE void kg_depthwise_grad_lanes_f32(float *restrict d_w, const float *restrict x, const float *restrict d_y,
                                           const kg_window *g, int32_t C, int32_t x_stride, int32_t y_stride,
                                           int32_t lanes) {
  for (int32_t kh = 0; kh < g->KH; ++kh) {
    for (int32_t kw = 0, taps = 0; kw < g->KW; kw += taps) {
#define KG_TAPS(TAPS) \
  taps = TAPS;        \
  kg_depthwise_grad_taps_f32(d_w, x, d_y, g, C, x_stride, y_stride, kh, kw, TAPS, lanes);
      if (g->KW - kw == 3) {
        KG_TAPS(3)
      } else {
        KG_WITH_ROWS(g->KW - kw, lanes, KG_TAPS)
      }
#undef KG_TAPS
    }
  }
}

/* kg_depthwise_grad_input_f32 */
static inline void kg_wide_grad_input_f32(float *restrict d_x, const float *restrict d_y, const float *restrict w,
                                          const kg_window *g, int32_t C, int32_t x_stride, int32_t y_stride) {
  for (int32_t a = 0; a < g->stride_h && a < g->H; ++a) {
    for (int32_t b = 0; b < g->stride_w && b < g->W; ++b) {
      int32_t w_offset;
      const kg_stencil s = kg_backward_stencil(g, C, x_stride, y_stride, a, b, &w_offset);
      kg_stencil_f32(d_x + (a * g->W + b) * x_stride, d_y, w + w_offset, NULL, &s, C, -KG_INFINITY, KG_INFINITY);
    }
  }
}

/* kg_depthwise_grad_weight_f32 */
static inline void kg_wide_grad_weight_f32(float *restrict d_w, const float *restrict x, const float *restrict d_y,
                                           const kg_window *g, int32_t C, int32_t x_stride, int32_t y_stride) {
  for (int32_t c = 0, lanes = 0; c < C; c += lanes) {
#define KG_CHANNELS(LANES) \
  lanes = LANES;           \
  kg_depthwise_grad_lanes_f32(d_w + c, x + c, d_y + c, g, C, x_stride, y_stride, LANES);
    KG_WITH_LANES(C - c, KG_CHANNELS)
#undef KG_CHANNELS
  }
}

#endif
#endif
