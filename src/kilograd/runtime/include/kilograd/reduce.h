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

#endif
