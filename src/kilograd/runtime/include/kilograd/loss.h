/* Losses and their gradients: over `rows` rows of K numbers, averaged over the rows, or over n numbers, averaged over
 * all of them. */
#ifndef KILOGRAD_LOSS_H
#define KILOGRAD_LOSS_H

#include "kilograd/base.h"
#include "kilograd/math.h"

/* True when every class index is in [0, K). */
static inline bool kg_labels_valid(const int32_t *target, int32_t rows, int32_t K) {
  for (int32_t r = 0; r < rows; ++r) {
    if (target[r] < 0 || target[r] >= K) {
      return false;
    }
  }
  return true;
}

/* The largest of K numbers. A NaN may be passed over; it shows in the sum of exponentials. */
static inline float kg_row_max_f32(const float *x, int32_t K) {
  float largest = x[0];
  for (int32_t k = 1; k < K; ++k) {
    largest = x[k] <= largest ? largest : x[k];
  }
  return largest;
}

/* loss = mean over rows of log(sum over k of exp(x[k] - m)) + m - x[target], m the largest of the row. */
KG_SHARED void kg_cross_entropy_f32(float *loss, const float *logits, const int32_t *target, int32_t rows, int32_t K) {
  float total = 0.0f;
  for (int32_t r = 0; r < rows; ++r, logits += K) {
    const float largest = kg_row_max_f32(logits, K);
    float sum = 0.0f;
    for (int32_t k = 0; k < K; ++k) {
      sum += kg_exp_f32(logits[k] - largest);
    }
    total += kg_log_f32(sum) + (largest - logits[target[r]]);
  }
  *loss = total / (float)rows;
}

/* d_x[r][k] = (softmax(x[r])[k] - (k == target[r])) / rows. d_x may be x. */
KG_SHARED void kg_cross_entropy_grad_f32(float *d_x, const float *logits, const int32_t *target, int32_t rows,
                                         int32_t K) {
  for (int32_t r = 0; r < rows; ++r, logits += K, d_x += K) {
    const float largest = kg_row_max_f32(logits, K);
    float sum = 0.0f;
    for (int32_t k = 0; k < K; ++k) {
      d_x[k] = kg_exp_f32(logits[k] - largest);
      sum += d_x[k];
    }
    const float scale = 1.0f / (sum * (float)rows);
    for (int32_t k = 0; k < K; ++k) {
      d_x[k] *= scale;
    }
    d_x[target[r]] -= 1.0f / (float)rows;
  }
}

/* loss = mean over i of (x[i] - t[i])^2; the sum ascends. */
KG_SHARED void kg_mean_squared_error_f32(float *loss, const float *x, const float *target, int32_t n) {
  float total = 0.0f;
  for (int32_t i = 0; i < n; ++i) {
    const float difference = x[i] - target[i];
    total = KG_FMA(difference, difference, total);
  }
  *loss = total / (float)n;
}

/* d_x[i] = 2 / n (x[i] - t[i]). d_x may be x. */
KG_SHARED void kg_mean_squared_error_grad_f32(float *d_x, const float *x, const float *target, int32_t n) {
  const float scale = 2.0f / (float)n;
  KG_ELEMENTWISE
  for (int32_t i = 0; i < n; ++i) {
    d_x[i] = scale * (x[i] - target[i]);
  }
}

/* loss = mean over i of max(x[i], 0) - x[i] t[i] + log(1 + e^-|x[i]|); the sum ascends. A NaN stays one. */
KG_SHARED void kg_binary_cross_entropy_f32(float *loss, const float *x, const float *target, int32_t n) {
  float total = 0.0f;
  KG_SMALL
  for (int32_t i = 0; i < n; ++i) {
    const float v = x[i], positive = v < 0.0f ? 0.0f : v;
    total += kg_log1p_f32(kg_exp_f32(-kg_abs_f32(v))) + KG_FMA(-v, target[i], positive);
  }
  *loss = total / (float)n;
}

/* d_x[i] = (1 / (1 + e^-x[i]) - t[i]) / n. d_x may be x. */
KG_SHARED void kg_binary_cross_entropy_grad_f32(float *d_x, const float *x, const float *target, int32_t n) {
  const float scale = 1.0f / (float)n;
  KG_ELEMENTWISE_LONG
  for (int32_t i = 0; i < n; ++i) {
    d_x[i] = scale * (kg_sigmoid_f32(x[i]) - target[i]);
  }
}

#endif
