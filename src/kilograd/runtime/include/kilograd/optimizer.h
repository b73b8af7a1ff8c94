/* The optimiser's step, and the checks that come before it. */
#ifndef KILOGRAD_OPTIMIZER_H
#define KILOGRAD_OPTIMIZER_H

#include "kilograd/base.h"

/* True when all n elements are finite. */
static inline bool kg_all_finite_f32(const float *x, int32_t n) {
  uint32_t bad = 0;
  for (int32_t i = 0; i < n; ++i) {
    bad |= (uint32_t)!kg_finite_f32(x[i]);
  }
  return bad == 0;
}

/* The direction of the step for one weight: g + decay * w, plus momentum * v where there is a velocity. */
KG_INLINE float kg_sgd_direction_f32(float w, float g, const float *v, float momentum, float decay) {
  float direction = KG_FMA(decay, w, g);
  return v != NULL ? KG_FMA(momentum, *v, direction) : direction;
}

/* One step over n weights, in place:
 *   velocity <- momentum * velocity + (g + decay * w),   w <- w - rate * velocity
 * velocity is NULL without momentum (then the parenthesis is the direction). With an accumulator (NULL without), it
 * collects g / period, and the step is taken with the sum, which returns to zero, when (step + 1) is a multiple of
 * period. Nothing overlaps. */
static inline void kg_sgd_f32(float *restrict w, float *restrict velocity, float *restrict accumulator,
                              const float *restrict g, int32_t n, float rate, float momentum, float decay,
                              uint32_t step, uint32_t period) {
  const float share = 1.0f / (float)period;
  const bool take = accumulator == NULL || (step + 1u) % period == 0u;
  for (int32_t i = 0; i < n; ++i) {
    const float sum = accumulator != NULL ? KG_FMA(share, g[i], accumulator[i]) : g[i];
    if (take) {
      const float direction = kg_sgd_direction_f32(w[i], sum, velocity != NULL ? &velocity[i] : NULL, momentum, decay);
      if (velocity != NULL) {
        velocity[i] = direction;
      }
      w[i] = KG_FMA(-rate, direction, w[i]);
    }
    if (accumulator != NULL) {
      accumulator[i] = take ? 0.0f : sum;
    }
  }
}

/* True when kg_sgd_f32 with the same arguments would leave everything finite; changes nothing. */
static inline bool kg_sgd_finite_f32(const float *w, const float *velocity, const float *accumulator, const float *g,
                                     int32_t n, float rate, float momentum, float decay, uint32_t step,
                                     uint32_t period) {
  const float share = 1.0f / (float)period;
  const bool take = accumulator == NULL || (step + 1u) % period == 0u;
  uint32_t bad = 0;
  for (int32_t i = 0; i < n; ++i) {
    const float sum = accumulator != NULL ? KG_FMA(share, g[i], accumulator[i]) : g[i];
    const float direction = kg_sgd_direction_f32(w[i], sum, velocity != NULL ? &velocity[i] : NULL, momentum, decay);
    const float next = KG_FMA(-rate, direction, w[i]);
    bad |= (uint32_t)!(take ? kg_finite_f32(direction) && kg_finite_f32(next) : kg_finite_f32(sum));
  }
  return bad == 0;
}

#endif
