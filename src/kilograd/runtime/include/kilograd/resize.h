/* Nearest-neighbour resizing of one image x[H][W][C] to y[OH][OW][C], and its gradient.
 *
 * Output position o reads input position min(size - 1, floor(o * scale)), the product rounded to float32. */
#ifndef KILOGRAD_RESIZE_H
#define KILOGRAD_RESIZE_H

#include "kilograd/base.h"
#include "kilograd/pool.h"
#include "kilograd/shape.h"

KG_INLINE int32_t kg_nearest(int32_t o, float scale, int32_t size) {
  const int32_t i = (int32_t)((float)o * scale);
  return i < size ? i : size - 1;
}

/* y[oh][ow] = x[nearest(oh)][nearest(ow)], pixels of `size` bytes. No overlap. */
KG_SHARED void kg_resize_nearest(void *restrict y, const void *restrict x, int32_t H, int32_t W, int32_t size,
                                 int32_t OH, int32_t OW, float scale_h, float scale_w) {
  uint8_t *to = (uint8_t *)y;
  for (int32_t oh = 0; oh < OH; ++oh) {
    const uint8_t *from = (const uint8_t *)x + kg_nearest(oh, scale_h, H) * W * size;
    for (int32_t ow = 0; ow < OW; ++ow, to += size) {
      kg_copy(to, from + kg_nearest(ow, scale_w, W) * size, size);
    }
  }
}

/* The same for whole factors: every pixel of `size` bytes becomes factor_h x factor_w pixels. No overlap. */
KG_SHARED void kg_upsample_nearest(void *restrict y, const void *restrict x, int32_t H, int32_t W, int32_t size,
                                   int32_t factor_h, int32_t factor_w) {
  uint8_t *to = (uint8_t *)y;
  const uint8_t *from = (const uint8_t *)x;
  const int32_t row = W * factor_w * size;
  for (int32_t h = 0; h < H; ++h) {
    const uint8_t *first = to;
    for (int32_t w = 0; w < W; ++w, from += size) {
      for (int32_t f = 0; f < factor_w; ++f, to += size) {
        kg_copy(to, from, size);
      }
    }
    for (int32_t f = 1; f < factor_h; ++f, to += row) {
      kg_copy(to, first, row);
    }
  }
}

/* d_x[h][w][c] = sum of d_y over the output pixels that read (h, w), in ascending order. No overlap. */
KG_SHARED void kg_resize_nearest_grad_f32(float *restrict d_x, const float *restrict d_y, int32_t H, int32_t W,
                                          int32_t C, int32_t OH, int32_t OW, float scale_h, float scale_w) {
  int32_t oh = 0;
  for (int32_t h = 0; h < H; ++h) {
    int32_t rows = 0, ow = 0;
    while (oh + rows < OH && kg_nearest(oh + rows, scale_h, H) == h) {
      ++rows;
    }
    for (int32_t w = 0; w < W; ++w, d_x += C) {
      int32_t columns = 0;
      while (ow + columns < OW && kg_nearest(ow + columns, scale_w, W) == w) {
        ++columns;
      }
      kg_sum_window_f32(d_x, d_y + (oh * OW + ow) * C, rows, columns, OW * C, C, 1.0f, C);
      ow += columns;
    }
    oh += rows;
  }
}

/* The same for whole factors. No overlap. */
KG_SHARED void kg_upsample_nearest_grad_f32(float *restrict d_x, const float *restrict d_y, int32_t H, int32_t W,
                                            int32_t C, int32_t factor_h, int32_t factor_w) {
  const int32_t row = W * factor_w * C;
  for (int32_t h = 0; h < H; ++h) {
    KG_PIXELS
    for (int32_t w = 0; w < W; ++w, d_x += C) {
      const float *from = d_y + h * factor_h * row + w * factor_w * C;
      kg_sum_window_f32(d_x, from, factor_h, factor_w, row, C, 1.0f, C);
    }
  }
}

#endif
