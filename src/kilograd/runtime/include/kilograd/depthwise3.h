/* Depthwise convolutions as in depthwise.h, with the same bits, for KH <= 3, KW = 3, equal strides of 1 or 2 and no
 * dilation. Targets without wide vectors take one channel after the other; the taps and a window that slides along a
 * row stay in registers. No scratch. */
#ifndef KILOGRAD_DEPTHWISE3_H
#define KILOGRAD_DEPTHWISE3_H

#include "kilograd/stencil.h"

#if KG_LANES <= 4

/* The window of a row: `column` is where its next column comes from, at[k] that column's element in row k. */
typedef struct kg_slider {
  const float *at[3];
  float window[3][3];
  int32_t column;
} kg_slider;

/* Makes room for `stride` columns at the right of the window. */
KG_INLINE void kg_slider_shift_f32(kg_slider *slider, int32_t KH, int32_t KW, int32_t stride) {
  for (int32_t k = 0; k < KH; ++k) {
    for (int32_t i = 0; i + stride < KW; ++i) {
      slider->window[k][i] = slider->window[k][i + stride];
    }
  }
}

/* Reads `count` columns into the window from its column `first` on; zeros outside of [0, W), which are looked out for
 * where `checked` is set. */
KG_INLINE void kg_slider_read_f32(kg_slider *slider, int32_t first, int32_t count, int32_t KH, int32_t W, int32_t step,
                                  bool checked) {
  for (int32_t i = first; i < first + count; ++i) {
    const bool inside = !checked || (slider->column >= 0 && slider->column < W);
    for (int32_t k = 0; k < KH; ++k) {
      slider->window[k][i] = inside ? *slider->at[k] : 0.0f;
      slider->at[k] += step;
    }
    slider->column += checked ? 1 : 0;
  }
}

/* The window before the first step: all but the last `stride` columns, moved right by that many. */
KG_INLINE void kg_slider_start_f32(kg_slider *slider, const float *x, int32_t x_row, int32_t step, int32_t left,
                                   int32_t KH, int32_t KW, int32_t W, int32_t stride) {
  slider->column = left;
  for (int32_t k = 0; k < KH; ++k) {
    slider->at[k] = x + k * x_row + left * step;
  }
  kg_slider_read_f32(slider, stride, KW - stride, KH, W, step, true);
}

/* How many of the next `left` steps read only columns in [0, W). */
KG_INLINE int32_t kg_slider_steps(const kg_slider *slider, int32_t left, int32_t W, int32_t stride) {
  const int32_t steps = slider->column < 0 ? 0 : (W - slider->column) / stride;
  return steps < 0 ? 0 : steps < left ? steps : left;
}

/* One output: the window times the taps. */
KG_INLINE float kg_slider_sum_f32(const kg_slider *slider, const float *taps, float start, int32_t KH, int32_t KW) {
  float sum = start;
  for (int32_t k = 0; k < KH; ++k) {
    for (int32_t i = 0; i < KW; ++i) {
      sum = KG_FMA(slider->window[k][i], taps[k * 3 + i], sum);
    }
  }
  return sum;
}

/* `rows` rows of outputs of a stencil, all of which meet x with KH rows of KW taps, the first at x. */
KG_INLINE void kg_slide_rows_f32(float *restrict y, const float *restrict x, const float *restrict taps,
                                 const kg_stencil *s, int32_t rows, float start, int32_t KH, int32_t KW,
                                 int32_t stride) {
  const int32_t step = s->x_step, y_step = s->y_step, W = s->W;
  float t[9];
  for (int32_t k = 0; k < KH * 3; ++k) {
    t[k] = taps[k];
  }
  KG_ROLLED
  for (; rows > 0; --rows, x += s->stride_h * s->x_row, y += s->y_row) {
    float *to = y;
    kg_slider slider;
    kg_slider_start_f32(&slider, x, s->x_row, step, s->left, KH, KW, W, stride);
    KG_ROLLED
    for (int32_t left = s->columns; left > 0; --left, to += y_step) {
      int32_t n = kg_slider_steps(&slider, left, W, stride);
      slider.column += n * stride;
      left -= n;
      KG_UNROLL_2
      for (; n > 0; --n, to += y_step) {
        kg_slider_shift_f32(&slider, KH, KW, stride);
        kg_slider_read_f32(&slider, KW - stride, stride, KH, W, step, false);
        *to = kg_slider_sum_f32(&slider, t, start, KH, KW);
      }
      if (left == 0) {
        break;
      }
      kg_slider_shift_f32(&slider, KH, KW, stride);
      kg_slider_read_f32(&slider, KW - stride, stride, KH, W, step, true);
      *to = kg_slider_sum_f32(&slider, t, start, KH, KW);
    }
  }
}

/* The rows [*begin, *end) of a kernel of KH rows that row r of a stencil meets, and how many rows from r on meet the
 * same. */
KG_INLINE int32_t kg_stencil_rows(const kg_stencil *s, int32_t r, int32_t *begin, int32_t *end) {
  const int32_t top = r * s->stride_h + s->top;
  kg_kernel_rows(begin, end, s->KH, s->dilation_h, top, s->H);
  int32_t n = 1;
  if (*end - *begin == s->KH) {
    while (r + n < s->rows && top + n * s->stride_h + (s->KH - 1) * s->dilation_h < s->H) {
      ++n;
    }
  }
  return n;
}

/* One channel. */
static inline void kg_slide_stencil_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                        const kg_stencil *s, float start, float low, float high) {
  float taps[9];
  for (int32_t kh = 0; kh < s->KH; ++kh) {
    for (int32_t kw = 0; kw < s->KW; ++kw) {
      taps[kh * 3 + kw] = w[kh * s->w_row + kw * s->w_step];
    }
  }
  KG_ROLLED
  for (int32_t r = 0, n = 0; r < s->rows; r += n) {
    int32_t begin, end;
    n = kg_stencil_rows(s, r, &begin, &end);
    const float *from = x + (r * s->stride_h + s->top + begin) * s->x_row, *with = taps + begin * 3;
    float *to = y + r * s->y_row;
#define KG_CASE(KH, KW, STRIDE)                                     \
  case KH * 8 + KW * 2 + STRIDE:                                    \
    kg_slide_rows_f32(to, from, with, s, n, start, KH, KW, STRIDE); \
    break;
    switch ((end - begin) * 8 + s->KW * 2 + s->stride_w) {
      KG_CASE(3, 3, 1)
      KG_CASE(2, 3, 1)
      KG_CASE(1, 3, 1)
      KG_CASE(3, 3, 2)
      KG_CASE(2, 3, 2)
      KG_CASE(1, 3, 2)
      KG_CASE(2, 2, 1)
      KG_CASE(1, 2, 1)
      KG_CASE(2, 1, 1)
      KG_CASE(1, 1, 1)
      default: /* no kernel row meets x */
        for (int32_t j = 0; j < s->columns; ++j) {
          to[j * s->y_step] = start;
        }
        break;
    }
#undef KG_CASE
  }
  if (low > -KG_INFINITY || high < KG_INFINITY) {
    for (int32_t r = s->rows; r > 0; --r, y += s->y_row) {
      float *to = y;
      for (int32_t j = s->columns; j > 0; --j, to += s->y_step) {
        *to = kg_clamp_f32(*to, low, high);
      }
    }
  }
}

/* sums[k][i] += sum over `rows` rows of d_y of what tap (k, i) meets times d_y. */
KG_INLINE void kg_slide_grad_rows_f32(float *restrict sums, const float *restrict x, const float *restrict d_y,
                                      const kg_stencil *s, int32_t rows, int32_t KH, int32_t stride) {
  const int32_t step = s->x_step, y_step = s->y_step, W = s->W;
  float t[9];
  for (int32_t k = 0; k < KH * 3; ++k) {
    t[k] = sums[k];
  }
  KG_ROLLED
  for (; rows > 0; --rows, x += s->stride_h * s->x_row, d_y += s->y_row) {
    const float *from = d_y;
    kg_slider slider;
    kg_slider_start_f32(&slider, x, s->x_row, step, s->left, KH, 3, W, stride);
    KG_ROLLED
    for (int32_t left = s->columns; left > 0; --left, from += y_step) {
      int32_t n = kg_slider_steps(&slider, left, W, stride);
      slider.column += n * stride;
      left -= n;
      KG_UNROLL_2
      for (; n > 0; --n, from += y_step) {
        kg_slider_shift_f32(&slider, KH, 3, stride);
        kg_slider_read_f32(&slider, 3 - stride, stride, KH, W, step, false);
        for (int32_t k = 0; k < KH * 3; ++k) {
          t[k] = KG_FMA(slider.window[k / 3][k % 3], *from, t[k]);
        }
      }
      if (left == 0) {
        break;
      }
      kg_slider_shift_f32(&slider, KH, 3, stride);
      kg_slider_read_f32(&slider, 3 - stride, stride, KH, W, step, true);
      for (int32_t k = 0; k < KH * 3; ++k) {
        t[k] = KG_FMA(slider.window[k / 3][k % 3], *from, t[k]);
      }
    }
  }
  for (int32_t k = 0; k < KH * 3; ++k) {
    sums[k] = t[k];
  }
}

/* d_w of one channel; the stencil is that of forward. */
static inline void kg_slide_grad_weight_f32(float *restrict d_w, const float *restrict x, const float *restrict d_y,
                                            const kg_stencil *s) {
  float sums[9] = {0.0f};
  KG_ROLLED
  for (int32_t r = 0, n = 0; r < s->rows; r += n) {
    int32_t begin, end;
    n = kg_stencil_rows(s, r, &begin, &end);
    const float *from = x + (r * s->stride_h + s->top + begin) * s->x_row, *d = d_y + r * s->y_row;
    float *to = sums + begin * 3;
#define KG_CASE(KH, STRIDE)                                \
  case KH * 2 + STRIDE:                                    \
    kg_slide_grad_rows_f32(to, from, d, s, n, KH, STRIDE); \
    break;
    switch ((end - begin) * 2 + s->stride_w) {
      KG_CASE(3, 1)
      KG_CASE(2, 1)
      KG_CASE(1, 1)
      KG_CASE(3, 2)
      KG_CASE(2, 2)
      KG_CASE(1, 2)
      default: /* no kernel row meets x */
        break;
    }
#undef KG_CASE
  }
  for (int32_t kh = 0; kh < s->KH; ++kh) {
    for (int32_t kw = 0; kw < 3; ++kw) {
      d_w[kh * s->w_row + kw * s->w_step] = sums[kh * 3 + kw];
    }
  }
}

#endif

/* y = clamp(start + sum over kh, kw ascending of x * w), one fused multiply-add a term; start is bias[c], or 0 where
 * bias is NULL. y must not overlap anything else. */
static inline void kg_depthwise3_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                     const float *restrict bias, const kg_window *g, int32_t C, int32_t x_stride,
                                     int32_t y_stride, float low, float high) {
  const kg_stencil s = kg_forward_stencil(g, C, x_stride, y_stride);
#if KG_LANES > 4
  kg_stencil_f32(y, x, w, bias, &s, C, low, high);
#else
  for (int32_t c = 0; c < C; ++c) {
    kg_slide_stencil_f32(y + c, x + c, w + c, &s, bias != NULL ? bias[c] : 0.0f, low, high);
  }
#endif
}

/* d_x = sum over oh, ow ascending (kh, kw descending) of d_y * w. d_x must not overlap anything else. */
static inline void kg_depthwise3_grad_input_f32(float *restrict d_x, const float *restrict d_y, const float *restrict w,
                                                const kg_window *g, int32_t C, int32_t x_stride, int32_t y_stride) {
#if KG_LANES > 4
  kg_wide_grad_input_f32(d_x, d_y, w, g, C, x_stride, y_stride);
#else
  for (int32_t a = 0; a < g->stride_h && a < g->H; ++a) {
    for (int32_t b = 0; b < g->stride_w && b < g->W; ++b) {
      int32_t w_offset;
      const kg_stencil s = kg_backward_stencil(g, C, x_stride, y_stride, a, b, &w_offset);
      for (int32_t c = 0; c < C; ++c) {
        kg_slide_stencil_f32(d_x + (a * g->W + b) * x_stride + c, d_y + c, w + w_offset + c, &s, 0.0f, -KG_INFINITY,
                             KG_INFINITY);
      }
    }
  }
#endif
}

/* d_w[kh][kw][c] = sum over oh, ow ascending of x * d_y. d_w must not overlap anything else. */
static inline void kg_depthwise3_grad_weight_f32(float *restrict d_w, const float *restrict x,
                                                 const float *restrict d_y, const kg_window *g, int32_t C,
                                                 int32_t x_stride, int32_t y_stride) {
#if KG_LANES > 4
  kg_wide_grad_weight_f32(d_w, x, d_y, g, C, x_stride, y_stride);
#else
  const kg_stencil s = kg_forward_stencil(g, C, x_stride, y_stride);
  for (int32_t c = 0; c < C; ++c) {
    kg_slide_grad_weight_f32(d_w + c, x + c, d_y + c, &s);
  }
#endif
}

#endif
