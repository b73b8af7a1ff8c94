/* Sums over the middle of three runs of axes, x[outer][count][inner], and their transpose. */
#ifndef KILOGRAD_REDUCE_H
#define KILOGRAD_REDUCE_H

#include "kilograd/base.h"

/* y[a][c] = scale * (sum over b ascending of x[a][b][c]). No overlap. */
static inline void kg_reduce_f32(float *restrict y, const float *restrict x, int32_t outer, int32_t count,
                                 int32_t inner, float scale) {
  for (int32_t a = 0; a < outer; ++a, x += count * inner, y += inner) {
    for (int32_t c = 0; c < inner; ++c) {
      y[c] = x[c];
    }
    for (int32_t b = 1; b < count; ++b) {
      for (int32_t c = 0; c < inner; ++c) {
        y[c] += x[b * inner + c];
      }
    }
    for (int32_t c = 0; c < inner; ++c) {
      y[c] *= scale;
    }
  }
}

/* y[a][b][c] = scale * x[a][c]. No overlap. */
static inline void kg_spread_f32(float *restrict y, const float *restrict x, int32_t outer, int32_t count,
                                 int32_t inner, float scale) {
  for (int32_t a = 0; a < outer; ++a, x += inner) {
    for (int32_t b = 0; b < count; ++b, y += inner) {
      for (int32_t c = 0; c < inner; ++c) {
        y[c] = x[c] * scale;
      }
    }
  }
}

/* y[a][c] = sum over b of u[a][b][c] * v[a][b][c], one fused multiply-add a term. b ascends; with inner = 1 the sum
 * runs in eight interleaved chains (b modulo 8, each ascending), joined as ((0+4)+(2+6)) + ((1+5)+(3+7)). No overlap of
 * y; u may be v. */
static inline void kg_reduce_product_f32(float *restrict y, const float *u, const float *v, int32_t outer,
                                         int32_t count, int32_t inner) {
  for (int32_t a = 0; a < outer; ++a, u += count * inner, v += count * inner, y += inner) {
    if (inner == 1) {
      float chain[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
      int32_t b = 0;
      for (; b + 8 <= count; b += 8) {
        for (int32_t k = 0; k < 8; ++k) {
          chain[k] = KG_FMA(u[b + k], v[b + k], chain[k]);
        }
      }
      for (int32_t k = 0; b < count; ++b, ++k) {
        chain[k] = KG_FMA(u[b], v[b], chain[k]);
      }
      y[0] = ((chain[0] + chain[4]) + (chain[2] + chain[6])) + ((chain[1] + chain[5]) + (chain[3] + chain[7]));
      continue;
    }
    int32_t c = 0;
    for (; c + 16 <= inner; c += 16) { /* sixteen sums in registers */
      float sum[16] = {0.0f};
      for (int32_t b = 0; b < count; ++b) {
        for (int32_t k = 0; k < 16; ++k) {
          sum[k] = KG_FMA(u[b * inner + c + k], v[b * inner + c + k], sum[k]);
        }
      }
      for (int32_t k = 0; k < 16; ++k) {
        y[c + k] = sum[k];
      }
    }
    for (; c < inner; ++c) {
      float sum = 0.0f;
      for (int32_t b = 0; b < count; ++b) {
        sum = KG_FMA(u[b * inner + c], v[b * inner + c], sum);
      }
      y[c] = sum;
    }
  }
}

#endif
