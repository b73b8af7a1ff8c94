/* Integer gradients of pooling. */
#ifndef KILOGRAD_IG_POOL_H
#define KILOGRAD_IG_POOL_H

#include "kilograd/base.h"

/* d_x[h][w][c] = d_y[oh][ow][c] where its index names (h, w), else 0; no two windows share a pixel. No overlap. */
KG_SHARED void kg_ig_max_pool2d_grad(int8_t *restrict d_x, const int8_t *restrict d_y, const uint8_t *restrict index,
                                     int32_t H, int32_t W, int32_t C, int32_t OH, int32_t OW, int32_t KW,
                                     int32_t stride_h, int32_t stride_w, int32_t top, int32_t left, int32_t dilation_h,
                                     int32_t dilation_w) {
  const int32_t reciprocal = (65535 + KW) / KW; /* tap * reciprocal >> 16 = tap / KW for tap and KW below 256 */
  for (int32_t i = 0; i < H * W * C; ++i) {
    d_x[i] = 0;
  }
  for (int32_t oh = 0; oh < OH; ++oh) {
    for (int32_t ow = 0; ow < OW; ++ow) {
      const int32_t origin = ((oh * stride_h - top) * W + ow * stride_w - left) * C;
      for (int32_t c = 0; c < C; ++c, ++d_y, ++index) {
        const int32_t tap = *index, kh = (tap * reciprocal) >> 16;
        d_x[origin + (kh * dilation_h * W + (tap - kh * KW) * dilation_w) * C + c] = *d_y;
      }
    }
  }
}

#endif
