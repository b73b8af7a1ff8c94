/* Quantised functions element by element; y may be an input of its own size. */
#ifndef KILOGRAD_Q_ELEMENTWISE_H
#define KILOGRAD_Q_ELEMENTWISE_H

#include "kilograd/requantize.h"

/* y[i] = clamp(((a[i] * a_factor + b[i] * b_factor + added) >> shift) + zero_point, low, high). Factors are below 2^21
 * and |added| below 2^30; `added` holds both zero points and half a unit. */
static inline void kg_add_s8(int8_t *y, const int8_t *a, const int8_t *b, int32_t n, int32_t a_factor, int32_t b_factor,
                             int32_t added, int32_t shift, int32_t zero_point, int32_t low, int32_t high) {
  KG_ELEMENTWISE
  for (int32_t i = 0; i < n; ++i) {
    const int32_t sum = a[i] * a_factor + b[i] * b_factor + added;
    y[i] = kg_saturate_s8((sum >> shift) + zero_point);
  }
  kg_limit_s8(y, n, low, high);
}

/* y[p][c] = clamp(requantize((a[p][c] - a_zero_point) * (b[c] - b_zero_point)) + zero_point, low, high) for P rows. */
static inline void kg_mul_s8(int8_t *y, const int8_t *a, const int8_t *b, int32_t P, int32_t C, int32_t a_zero_point,
                             int32_t b_zero_point, int32_t multiplier, int32_t shift, int32_t zero_point, int32_t low,
                             int32_t high) {
  int8_t *to = y;
  for (int32_t p = 0; p < P; ++p, to += C, a += C) {
    for (int32_t c = 0; c < C; ++c) {
      const int32_t product = (a[c] - a_zero_point) * (b[c] - b_zero_point);
      to[c] = kg_saturate_s8(kg_requantize(product, multiplier, shift) + zero_point);
    }
  }
  kg_limit_s8(y, P * C, low, high);
}

/* y = clamp(requantize(x - x_zero_point) + zero_point, -128, 127) for `rows` rows of n bytes that start x_pitch and
 * y_pitch bytes apart. No overlap. */
static inline void kg_rescale_s8(int8_t *restrict y, const int8_t *restrict x, int32_t rows, int32_t n, int32_t x_pitch,
                                 int32_t y_pitch, int32_t x_zero_point, int32_t multiplier, int32_t shift,
                                 int32_t zero_point) {
  for (int32_t r = 0; r < rows; ++r, x += x_pitch, y += y_pitch) {
    for (int32_t i = 0; i < n; ++i) {
      y[i] = kg_saturate_s8(kg_requantize(x[i] - x_zero_point, multiplier, shift) + zero_point);
    }
  }
}

/* y[i] = table[x[i] + 128] */
static inline void kg_table_s8(int8_t *y, const int8_t *x, const int8_t *table, int32_t n) {
  for (int32_t i = 0; i < n; ++i) {
    y[i] = table[x[i] + 128];
  }
}

/* d_x[i] = d_y[i] * slopes[x[i] + 128]; d_x may be d_y. */
static inline void kg_table_grad_s8(float *d_x, const float *d_y, const int8_t *x, const float *slopes, int32_t n) {
  for (int32_t i = 0; i < n; ++i) {
    d_x[i] = d_y[i] * slopes[x[i] + 128];
  }
}

#endif
