/* Convolutions: x[H][W][C], weights w[KH][KW][I][O], y[OH][OW][O]; g groups share out the C input and the O output
 * channels in order, and w holds I input channels of each group: all C / g of them, or a part. Then x points to the
 * first channel of the part in the first group. */
#ifndef KILOGRAD_CONV_H
#define KILOGRAD_CONV_H

#include "kilograd/window.h"

/* y = clamp(start + sum over kh, kw, i ascending of x * w), one fused multiply-add a term.
 *
 * Kernel rows outside the input are skipped, kernel columns outside of it meet zeros. start is y where accumulate is
 * set, else bias[o], or 0 where bias is NULL. y must not overlap anything else. */
static inline void kg_conv2d_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                 const float *restrict bias, bool accumulate, const kg_window *g, int32_t C, int32_t I,
                                 int32_t O, int32_t groups, float low, float high) {
  const int32_t group_in = C / groups, group_out = O / groups;
  for (int32_t oh = 0; oh < g->OH; ++oh) {
    for (int32_t ow = 0; ow < g->OW; ++ow) {
      for (int32_t o = 0; o < O; ++o, ++y) {
        const float *xg = x + o / group_out * group_in;
        float sum = accumulate ? *y : bias != NULL ? bias[o] : 0.0f;
        for (int32_t kh = 0; kh < g->KH; ++kh) {
          const int32_t ih = oh * g->stride_h - g->pad_top + kh * g->dilation_h;
          if (ih < 0 || ih >= g->H) {
            continue;
          }
          for (int32_t kw = 0; kw < g->KW; ++kw) {
            const int32_t iw = ow * g->stride_w - g->pad_left + kw * g->dilation_w;
            const bool inside = iw >= 0 && iw < g->W;
            for (int32_t i = 0; i < I; ++i) {
              const float value = inside ? xg[(ih * g->W + iw) * C + i] : 0.0f;
              sum = KG_FMA(value, w[((kh * g->KW + kw) * I + i) * O + o], sum);
            }
          }
        }
        *y = kg_clamp_f32(sum, low, high);
      }
    }
  }
}

/* d_x = start + sum over kh, kw, o ascending of d_y * w, over the pixels of d_y that exist; start is bias[i], or 0
 * where bias is NULL. Writes I channels of each group. d_x must not overlap anything else. */
static inline void kg_conv2d_grad_input_f32(float *restrict d_x, const float *restrict d_y, const float *restrict w,
                                            const float *restrict bias, const kg_window *g, int32_t C, int32_t I,
                                            int32_t O, int32_t groups) {
  const int32_t group_in = C / groups, group_out = O / groups;
  for (int32_t ih = 0; ih < g->H; ++ih) {
    for (int32_t iw = 0; iw < g->W; ++iw, d_x += C) {
      for (int32_t q = 0; q < groups; ++q) {
        for (int32_t i = 0; i < I; ++i) {
          float sum = bias != NULL ? bias[q * group_in + i] : 0.0f;
          for (int32_t kh = 0; kh < g->KH; ++kh) {
            for (int32_t kw = 0; kw < g->KW; ++kw) {
              const int32_t h = ih + g->pad_top - kh * g->dilation_h, v = iw + g->pad_left - kw * g->dilation_w;
              const int32_t oh = h / g->stride_h, ow = v / g->stride_w;
              if (h < 0 || v < 0 || oh >= g->OH || ow >= g->OW || oh * g->stride_h != h || ow * g->stride_w != v) {
                continue;
              }
              const float *d_y_pixel = d_y + (oh * g->OW + ow) * O + q * group_out;
              const float *w_row = w + ((kh * g->KW + kw) * I + i) * O + q * group_out;
              for (int32_t o = 0; o < group_out; ++o) {
                sum = KG_FMA(d_y_pixel[o], w_row[o], sum);
              }
            }
          }
          d_x[q * group_in + i] = sum;
        }
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
    for (int32_t kw = 0; kw < g->KW; ++kw) {
      for (int32_t i = 0; i < I; ++i) {
        for (int32_t o = 0; o < O; ++o) {
          float sum = 0.0f;
          for (int32_t oh = 0; oh < g->OH; ++oh) {
            for (int32_t ow = 0; ow < g->OW; ++ow) {
              const int32_t ih = oh * g->stride_h - g->pad_top + kh * g->dilation_h;
              const int32_t iw = ow * g->stride_w - g->pad_left + kw * g->dilation_w;
              if (ih >= 0 && ih < g->H && iw >= 0 && iw < g->W) {
                sum =
                    KG_FMA(x[(ih * g->W + iw) * C + o / group_out * group_in + i], d_y[(oh * g->OW + ow) * O + o], sum);
              }
            }
          }
          *d_w++ = sum;
        }
      }
    }
  }
}

#endif
