/* Depthwise convolutions over C channels: x[H][W][x_stride], weights w[KH][KW][C], y[OH][OW][y_stride]; x_stride and
 * y_stride are the floats from a pixel to the next, so that x and y may be some channels of a larger tensor.
 *
 * Everywhere, rows outside a tensor are skipped and columns outside of it are zeros. */
#ifndef KILOGRAD_DEPTHWISE_H
#define KILOGRAD_DEPTHWISE_H

#include "kilograd/window.h"

/* y = clamp(start + sum over kh, kw ascending of x * w), one fused multiply-add a term; start is bias[c], or 0 where
 * bias is NULL. y must not overlap anything else. */
static inline void kg_depthwise_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                    const float *restrict bias, const kg_window *g, int32_t C, int32_t x_stride,
                                    int32_t y_stride, float low, float high) {
  for (int32_t oh = 0; oh < g->OH; ++oh) {
    for (int32_t ow = 0; ow < g->OW; ++ow, y += y_stride) {
      for (int32_t c = 0; c < C; ++c) {
        float sum = bias != NULL ? bias[c] : 0.0f;
        for (int32_t kh = 0; kh < g->KH; ++kh) {
          const int32_t ih = oh * g->stride_h - g->pad_top + kh * g->dilation_h;
          if (ih < 0 || ih >= g->H) {
            continue;
          }
          for (int32_t kw = 0; kw < g->KW; ++kw) {
            const int32_t iw = ow * g->stride_w - g->pad_left + kw * g->dilation_w;
            const float value = iw >= 0 && iw < g->W ? x[(ih * g->W + iw) * x_stride + c] : 0.0f;
            sum = KG_FMA(value, w[(kh * g->KW + kw) * C + c], sum);
          }
        }
        y[c] = kg_clamp_f32(sum, low, high);
      }
    }
  }
}

/* d_x = sum over oh, ow ascending (kh, kw descending) of d_y * w. d_x must not overlap anything else. */
static inline void kg_depthwise_grad_input_f32(float *restrict d_x, const float *restrict d_y, const float *restrict w,
                                               const kg_window *g, int32_t C, int32_t x_stride, int32_t y_stride) {
  for (int32_t ih = 0; ih < g->H; ++ih) {
    for (int32_t iw = 0; iw < g->W; ++iw, d_x += x_stride) {
      for (int32_t c = 0; c < C; ++c) {
        float sum = 0.0f;
        for (int32_t kh = g->KH - 1; kh >= 0; --kh) {
          const int32_t h = ih + g->pad_top - kh * g->dilation_h, oh = h / g->stride_h;
          if (h < 0 || oh >= g->OH || oh * g->stride_h != h) {
            continue;
          }
          for (int32_t kw = g->KW - 1; kw >= 0; --kw) {
            const int32_t v = iw + g->pad_left - kw * g->dilation_w, ow = v / g->stride_w;
            if (ow * g->stride_w == v) {
              const float value = v >= 0 && ow < g->OW ? d_y[(oh * g->OW + ow) * y_stride + c] : 0.0f;
              sum = KG_FMA(value, w[(kh * g->KW + kw) * C + c], sum);
            }
          }
        }
        d_x[c] = sum;
      }
    }
  }
}

/* d_w[kh][kw][c] = sum over oh, ow ascending of x * d_y. d_w must not overlap anything else. */
static inline void kg_depthwise_grad_weight_f32(float *restrict d_w, const float *restrict x, const float *restrict d_y,
                                                const kg_window *g, int32_t C, int32_t x_stride, int32_t y_stride) {
  for (int32_t kh = 0; kh < g->KH; ++kh) {
    for (int32_t kw = 0; kw < g->KW; ++kw) {
      for (int32_t c = 0; c < C; ++c) {
        float sum = 0.0f;
        for (int32_t oh = 0; oh < g->OH; ++oh) {
          const int32_t ih = oh * g->stride_h - g->pad_top + kh * g->dilation_h;
          if (ih < 0 || ih >= g->H) {
            continue;
          }
          for (int32_t ow = 0; ow < g->OW; ++ow) {
            const int32_t iw = ow * g->stride_w - g->pad_left + kw * g->dilation_w;
            const float value = iw >= 0 && iw < g->W ? x[(ih * g->W + iw) * x_stride + c] : 0.0f;
            sum = KG_FMA(value, d_y[(oh * g->OW + ow) * y_stride + c], sum);
          }
        }
        *d_w++ = sum;
      }
    }
  }
}

#endif
