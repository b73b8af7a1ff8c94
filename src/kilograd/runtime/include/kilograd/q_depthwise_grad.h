/* Gradients of quantised depthwise convolutions, in float32 and real units: a few channels at a time become floats in
 * `scratch` and go through the kernels of depthwise.h and depthwise3.h, whose order of sums they have. */
#ifndef KILOGRAD_Q_DEPTHWISE_GRAD_H
#define KILOGRAD_Q_DEPTHWISE_GRAD_H

#include "kilograd/depthwise.h"
#include "kilograd/depthwise3.h"

/* True for what the kernels of depthwise3.h do. */
KG_INLINE bool kg_slides(const kg_window *g) {
  const bool strides = g->stride_h == g->stride_w && (g->stride_w == 1 || g->stride_w == 2);
  return g->KH <= 3 && g->KW == 3 && strides && g->dilation_h == 1 && g->dilation_w == 1;
}

/* d_x = sum over oh, ow ascending of d_y * (scales[c] * w), w[KH][KW][C], `block` channels at a time. d_x may be d_y
 * where they have the same size; a block of d_y is then set aside first. `scratch` has room for KH * KW * block floats,
 * where d_x is d_y for OH * OW * block more, and for what kg_depthwise_grad_input_f32 takes. */
static inline void kg_depthwise_grad_input_s8(float *d_x, const float *d_y, const int8_t *restrict w,
                                              const float *restrict scales, float *restrict scratch, const kg_window *g,
                                              int32_t C, int32_t stride, int32_t block) {
  const int32_t taps = g->KH * g->KW, pixels = g->OH * g->OW;
  float *const aside = scratch + taps * block, *const room = d_x == d_y ? aside + pixels * block : aside;
  for (int32_t c = 0, n = 0; c < C; c += n) {
    n = C - c < block ? C - c : block;
    for (int32_t t = 0; t < taps; ++t) {
      for (int32_t l = 0; l < n; ++l) {
        scratch[t * n + l] = scales[c + l] * (float)w[t * C + c + l];
      }
    }
    const float *from = d_y + c;
    int32_t y_stride = stride;
    if (d_x == d_y) {
      for (int32_t p = 0; p < pixels; ++p) {
        for (int32_t l = 0; l < n; ++l) {
          aside[p * n + l] = d_y[p * stride + c + l];
        }
      }
      from = aside;
      y_stride = n;
    }
    if (kg_slides(g)) {
      kg_depthwise3_grad_input_f32(d_x + c, from, scratch, g, n, stride, y_stride);
    } else {
      kg_depthwise_grad_input_f32(d_x + c, from, scratch, room, g, n, stride, y_stride);
    }
  }
}

/* d_w[kh][kw][c] = scale * sum over oh, ow ascending of (x - zero_point) * d_y, `block` channels at a time; x and d_y
 * have x_stride and y_stride elements a pixel. `scratch` has room for (H * W + KH * KW) * block floats and for what
 * kg_depthwise_grad_weight_f32 takes. d_w must not overlap anything else. */
static inline void kg_depthwise_grad_weight_s8(float *restrict d_w, const int8_t *restrict x, const float *restrict d_y,
                                               float *restrict scratch, const kg_window *g, int32_t C, int32_t x_stride,
                                               int32_t y_stride, float scale, int32_t zero_point, int32_t block) {
  const int32_t taps = g->KH * g->KW, pixels = g->H * g->W;
  float *const plane = scratch, *const sums = plane + pixels * block, *const room = sums + taps * block;
  for (int32_t c = 0, n = 0; c < C; c += n) {
    n = C - c < block ? C - c : block;
    for (int32_t p = 0; p < pixels; ++p) {
      for (int32_t l = 0; l < n; ++l) {
        plane[p * n + l] = (float)(x[p * x_stride + c + l] - zero_point);
      }
    }
    if (kg_slides(g)) {
      kg_depthwise3_grad_weight_f32(sums, plane, d_y + c, g, n, n, y_stride);
    } else {
      kg_depthwise_grad_weight_f32(sums, plane, d_y + c, room, g, n, n, y_stride);
    }
    for (int32_t t = 0; t < taps; ++t) {
      for (int32_t l = 0; l < n; ++l) {
        d_w[t * C + c + l] = scale * sums[t * n + l];
      }
    }
  }
}

#endif
