/* One scale and one shift a channel: x[rows][C]. */
#ifndef KILOGRAD_AFFINE_H
#define KILOGRAD_AFFINE_H

#include "kilograd/base.h"

/* y[r][c] = x[r][c] * scale[c] + shift[c], rounded once. y may be x. */
KG_SHARED void kg_channel_affine_f32(float *y, const float *x, const float *scale, const float *shift, int32_t rows,
                                     int32_t C) {
  for (int32_t r = 0; r < rows; ++r, x += C, y += C) {
    KG_ELEMENTWISE
    for (int32_t c = 0; c < C; ++c) {
      y[c] = KG_FMA(x[c], scale[c], shift[c]);
    }
  }
}

#endif
