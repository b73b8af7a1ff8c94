/* Softmax over rows of K numbers, and its gradients. A row's sums run in ascending order. */
#ifndef KILOGRAD_SOFTMAX_H
#define KILOGRAD_SOFTMAX_H

#include "kilograd/base.h"
#include "kilograd/loss.h"
#include "kilograd/math.h"

/* The sum of K numbers, ascending. */
KG_INLINE float kg_row_sum_f32(const float *x, int32_t K) {
  float sum = 0.0f;
  for (int32_t k = 0; k < K; ++k) {
    sum += x[k];
  }
  return sum;
}

/* y[k] = exp(x[k] - m) / (sum over j of exp(x[j] - m)), m the largest of the row. y may be x. */
KG_SHARED void kg_softmax_f32(float *y, const float *x, int32_t rows, int32_t K) {
  for (int32_t r = 0; r < rows; ++r, x += K, y += K) {
    const float largest = kg_row_max_f32(x, K);
    KG_ELEMENTWISE_LONG
    for (int32_t k = 0; k < K; ++k) {
      y[k] = kg_exp_f32(x[k] - largest);
    }
    const float scale = 1.0f / kg_row_sum_f32(y, K);
    KG_ELEMENTWISE
    for (int32_t k = 0; k < K; ++k) {
      y[k] *= scale;
    }
  }
}

/* d_x[k] = y[k] (d_y[k] - s), s = sum over j of d_y[j] y[j]. d_x may be d_y or y. */
KG_SHARED void kg_softmax_grad_f32(float *d_x, const float *d_y, const float *y, int32_t rows, int32_t K) {
  for (int32_t r = 0; r < rows; ++r, y += K, d_y += K, d_x += K) {
    float sum = 0.0f;
    for (int32_t k = 0; k < K; ++k) {
      sum = KG_FMA(d_y[k], y[k], sum);
    }
    KG_ELEMENTWISE
    for (int32_t k = 0; k < K; ++k) {
      d_x[k] = y[k] * (d_y[k] - sum);
    }
  }
}

/* y[k] = x[k] - m - log(sum over j of exp(x[j] - m)), m the largest of the row. y may be x. */
KG_SHARED void kg_log_softmax_f32(float *y, const float *x, int32_t rows, int32_t K) {
  for (int32_t r = 0; r < rows; ++r, x += K, y += K) {
    const float largest = kg_row_max_f32(x, K);
    float sum = 0.0f;
    KG_SMALL
    for (int32_t k = 0; k < K; ++k) {
      sum += kg_exp_f32(x[k] - largest);
    }
    const float log_sum = kg_log_f32(sum);
    KG_ELEMENTWISE
    for (int32_t k = 0; k < K; ++k) {
      y[k] = (x[k] - largest) - log_sum;
    }
  }
}

/* d_x[k] = d_y[k] - s exp(y[k]), s = sum over j of d_y[j]. d_x may be d_y or y. */
KG_SHARED void kg_log_softmax_grad_f32(float *d_x, const float *d_y, const float *y, int32_t rows, int32_t K) {
  for (int32_t r = 0; r < rows; ++r, y += K, d_y += K, d_x += K) {
    const float sum = kg_row_sum_f32(d_y, K);
    KG_ELEMENTWISE_LONG
    for (int32_t k = 0; k < K; ++k) {
      d_x[k] = KG_FMA(-sum, kg_exp_f32(y[k]), d_y[k]);
    }
  }
}

#endif
