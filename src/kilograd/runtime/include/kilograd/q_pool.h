/* Quantised pooling over x[H][W][C] int8. */
#ifndef KILOGRAD_Q_POOL_H
#define KILOGRAD_Q_POOL_H

#include "kilograd/pool.h"
#include "kilograd/requantize.h"

#define KG_Q_SUMS 16

/* `lanes` channels of kg_average_s8. */
KG_INLINE void kg_average_lanes_s8(int8_t *restrict y, const int8_t *restrict x, int32_t rows, int32_t columns,
                                   int32_t row_step, int32_t column_step, int32_t x_zero_point, int32_t multiplier,
                                   int32_t shift, int32_t zero_point, int32_t lanes) {
  int32_t sums[KG_Q_SUMS];
  for (int32_t l = 0; l < lanes; ++l) {
    sums[l] = -rows * columns * x_zero_point;
  }
  for (int32_t r = 0; r < rows; ++r) {
    for (int32_t i = 0; i < columns; ++i) {
      const int8_t *from = x + r * row_step + i * column_step;
      for (int32_t l = 0; l < lanes; ++l) {
        sums[l] += from[l];
      }
    }
  }
  for (int32_t l = 0; l < lanes; ++l) {
    y[l] = kg_saturate_s8(kg_requantize(sums[l], multiplier, shift) + zero_point);
  }
}

/* y[c] = saturate(requantize(sum over rows and columns of (x - x_zero_point)) + zero_point); fewer than 2^22 terms. y
 * must not overlap x. */
static inline void kg_average_s8(int8_t *restrict y, const int8_t *restrict x, int32_t rows, int32_t columns,
                                 int32_t row_step, int32_t C, int32_t x_zero_point, int32_t multiplier, int32_t shift,
                                 int32_t zero_point) {
  int32_t c = 0;
  for (; c + KG_Q_SUMS <= C; c += KG_Q_SUMS) {
    kg_average_lanes_s8(y + c, x + c, rows, columns, row_step, C, x_zero_point, multiplier, shift, zero_point,
                        KG_Q_SUMS);
  }
  for (; c + 4 <= C; c += 4) {
    kg_average_lanes_s8(y + c, x + c, rows, columns, row_step, C, x_zero_point, multiplier, shift, zero_point, 4);
  }
  for (; c < C; ++c) {
    kg_average_lanes_s8(y + c, x + c, rows, columns, row_step, C, x_zero_point, multiplier, shift, zero_point, 1);
  }
}

/* How a window's sum of n counted taps becomes a mean: the factor multiplier[n - least] / 2^shift[n - least]. */
typedef struct kg_means_s8 {
  const int32_t *multiplier, *shift;
  int32_t least, x_zero_point, zero_point;
} kg_means_s8;

/* Average pooling: windows, padding and n as in kg_avg_pool2d_f32; what lies outside the image is 0. No overlap. */
static inline void kg_avg_pool2d_s8(int8_t *restrict y, const int8_t *restrict x, const kg_means_s8 *means, int32_t H,
                                    int32_t W, int32_t C, int32_t OH, int32_t OW, int32_t KH, int32_t KW,
                                    int32_t stride_h, int32_t stride_w, int32_t top, int32_t bottom, int32_t left,
                                    int32_t right, bool counted, int32_t divisor) {
  for (int32_t oh = 0; oh < OH; ++oh) {
    const int32_t start_h = oh * stride_h - top, h = kg_max_i32(start_h, 0);
    const int32_t rows = kg_min_i32(start_h + KH, H) - h, height = kg_counted_taps(start_h, KH, H, bottom, counted);
    for (int32_t ow = 0; ow < OW; ++ow, y += C) {
      const int32_t start_w = ow * stride_w - left, w = kg_max_i32(start_w, 0);
      const int32_t columns = kg_min_i32(start_w + KW, W) - w;
      const int32_t n = divisor != 0 ? divisor : height * kg_counted_taps(start_w, KW, W, right, counted);
      const int32_t at = n - means->least;
      kg_average_s8(y, x + (h * W + w) * C, rows, columns, W * C, C, means->x_zero_point, means->multiplier[at],
                    means->shift[at], means->zero_point);
    }
  }
}

/* Maximum pooling as kg_max_pool2d_f32; index may be NULL. No overlap. */
static inline void kg_max_pool2d_s8(int8_t *restrict y, uint8_t *restrict index, const int8_t *restrict x, int32_t H,
                                    int32_t W, int32_t C, int32_t OH, int32_t OW, int32_t KH, int32_t KW,
                                    int32_t stride_h, int32_t stride_w, int32_t top, int32_t left, int32_t dilation_h,
                                    int32_t dilation_w) {
  for (int32_t oh = 0; oh < OH; ++oh) {
    const int32_t h = oh * stride_h - top;
    const int32_t kh_begin = kg_first_tap(h, dilation_h), kh_end = kg_stop_tap(h, KH, dilation_h, H);
    for (int32_t ow = 0; ow < OW; ++ow, y += C) {
      const int32_t w = ow * stride_w - left;
      const int32_t kw_begin = kg_first_tap(w, dilation_w), kw_end = kg_stop_tap(w, KW, dilation_w, W);
      for (int32_t kh = kh_begin; kh < kh_end; ++kh) {
        for (int32_t kw = kw_begin; kw < kw_end; ++kw) {
          const int8_t *from = x + ((h + kh * dilation_h) * W + w + kw * dilation_w) * C;
          const bool first = kh == kh_begin && kw == kw_begin;
          const uint8_t tap = (uint8_t)(kh * KW + kw);
          if (index == NULL) {
            for (int32_t c = 0; c < C; ++c) {
              y[c] = first || from[c] > y[c] ? from[c] : y[c];
            }
          } else {
            for (int32_t c = 0; c < C; ++c) {
              const bool larger = first || from[c] > y[c];
              y[c] = larger ? from[c] : y[c];
              index[c] = larger ? tap : index[c];
            }
          }
        }
      }
      index = index != NULL ? index + C : NULL;
    }
  }
}

#endif
