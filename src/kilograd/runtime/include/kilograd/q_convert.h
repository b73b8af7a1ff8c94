/* Between float32 and int8: real = scale * (q - zero_point). */
#ifndef KILOGRAD_Q_CONVERT_H
#define KILOGRAD_Q_CONVERT_H

#include "kilograd/requantize.h"

/* q[i] = clamp(rint(x[i] * inverse) + zero_point, -128, 127), ties to even; NaN gives the zero point. q must not
 * overlap x. */
static inline void kg_quantize_s8(int8_t *restrict q, const float *restrict x, int32_t n, float inverse,
                                  int32_t zero_point) {
  const float low = (float)(-128 - zero_point), high = (float)(127 - zero_point);
  for (int32_t i = 0; i < n; ++i) {
    float scaled = x[i] * inverse;
    scaled = scaled == scaled ? scaled : 0.0f;
    /* Beside 1.5 * 2^23 a float's last bit counts ones, so that the sum is rounded to a whole number. */
    const float sum = kg_clamp_f32(scaled, low, high) + 12582912.0f;
    q[i] = (int8_t)((int32_t)(kg_bits_f32(sum) - 0x4b400000u) + zero_point);
  }
}

/* x[i] = scale * (q[i] - zero_point), rounded once. x must not overlap q. */
static inline void kg_dequantize_s8(float *restrict x, const int8_t *restrict q, int32_t n, float scale,
                                    int32_t zero_point) {
  for (int32_t i = 0; i < n; ++i) {
    x[i] = (float)(q[i] - zero_point) * scale;
  }
}

/* d_x[i] = d_y[i] where low < y[i] < high, else 0: the derivative of a limit. d_x may be d_y. */
static inline void kg_mask_s8(float *d_x, const float *d_y, const int8_t *y, int32_t n, int32_t low, int32_t high) {
  KG_ELEMENTWISE
  for (int32_t i = 0; i < n; ++i) {
    const bool inside = y[i] > low && y[i] < high;
    d_x[i] = inside ? d_y[i] : 0.0f;
  }
}

#endif
