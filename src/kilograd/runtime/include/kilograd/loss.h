/* Losses over `rows` rows of K numbers, averaged over the rows, and their gradients. */
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
static inline void kg_cross_entropy_f32(float *loss, const float *logits, const int32_t *target, int32_t rows,
                                        int32_t K) {
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
static inline void kg_cross_entropy_grad_f32(float *d_x, const float *logits, const int32_t *target, int32_t rows,
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

#endif
