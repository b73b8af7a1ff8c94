/* Fully connected layers and 1x1 convolutions: P pixels (rows), I channels in, O channels out, weights [I][O]. */
#ifndef KILOGRAD_LINEAR_H
#define KILOGRAD_LINEAR_H

#include "kilograd/base.h"

/* y[p][o] = clamp(start + sum over i ascending of x[p][i] * w[i][o]), one fused multiply-add a term.
 *
 * start is y[p][o] where accumulate is set, else bias[o], or 0 where bias is NULL. x has x_stride floats a pixel, of
 * which the kernel reads the first I. y must not overlap x, w or bias. low = -KG_INFINITY and high = KG_INFINITY: no
 * clamp. */
static inline void kg_linear_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                 const float *restrict bias, bool accumulate, int32_t P, int32_t x_stride, int32_t I,
                                 int32_t O, float low, float high) {
  for (int32_t p = 0; p < P; ++p) {
    for (int32_t o = 0; o < O; ++o) {
      float sum = accumulate ? y[p * O + o] : bias != NULL ? bias[o] : 0.0f;
      for (int32_t i = 0; i < I; ++i) {
        sum = KG_FMA(x[p * x_stride + i], w[i * O + o], sum);
      }
      y[p * O + o] = kg_clamp_f32(sum, low, high);
    }
  }
}

/* d_x[p][i] = sum over o of d_y[p][o] * w[i][o]. d_x has x_stride floats a pixel, of which the kernel writes the
 * first I. The sum runs in four interleaved chains (o modulo 4, each ascending), joined as (c0 + c1) + (c2 + c3). */
static inline void kg_linear_grad_input_f32(float *restrict d_x, const float *restrict d_y, const float *restrict w,
                                            int32_t P, int32_t x_stride, int32_t I, int32_t O) {
  for (int32_t p = 0; p < P; ++p) {
    for (int32_t i = 0; i < I; ++i) {
      float chain[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      for (int32_t o = 0; o < O; ++o) {
        chain[o & 3] = KG_FMA(d_y[p * O + o], w[i * O + o], chain[o & 3]);
      }
      d_x[p * x_stride + i] = (chain[0] + chain[1]) + (chain[2] + chain[3]);
    }
  }
}

/* d_w[i][o] = sum over p ascending of x[p][i] * d_y[p][o]. */
static inline void kg_linear_grad_weight_f32(float *restrict d_w, const float *restrict x, const float *restrict d_y,
                                             int32_t P, int32_t I, int32_t O) {
  for (int32_t i = 0; i < I; ++i) {
    for (int32_t o = 0; o < O; ++o) {
      float sum = 0.0f;
      for (int32_t p = 0; p < P; ++p) {
        sum = KG_FMA(x[p * I + i], d_y[p * O + o], sum);
      }
      d_w[i * O + o] = sum;
    }
  }
}

#endif
