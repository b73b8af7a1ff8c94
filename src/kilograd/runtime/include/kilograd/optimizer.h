/* The optimiser's step, and the checks that come before it.
 *
 * These kernels are called once a trained tensor and cost as much to inline as to run, so each exists once. */
#ifndef KILOGRAD_OPTIMIZER_H
#define KILOGRAD_OPTIMIZER_H

#include "kilograd/base.h"

#define KG_CHECK_LANES 8

/* Zero when every lane has seen finite numbers only: each lane summed 0 * x, which is NaN for an infinite x or NaN. */
KG_INLINE bool kg_lanes_finite_f32(const float *lanes) {
  float sum = 0.0f;
  for (int32_t i = 0; i < KG_CHECK_LANES; ++i) {
    sum += lanes[i];
  }
  return sum == 0.0f;
}

/* True when all n elements are finite. */
KG_SHARED bool kg_all_finite_f32(const float *x, int32_t n) {
  float lanes[KG_CHECK_LANES] = {0.0f};
  int32_t i = 0;
  for (; i <= n - KG_CHECK_LANES; i += KG_CHECK_LANES) {
    for (int32_t k = 0; k < KG_CHECK_LANES; ++k) {
      lanes[k] = KG_FMA(x[i + k], 0.0f, lanes[k]);
    }
  }
  for (; i < n; ++i) {
    lanes[0] = KG_FMA(x[i], 0.0f, lanes[0]);
  }
  return kg_lanes_finite_f32(lanes);
}

/* w <- w - rate * g over n weights. No overlap. */
KG_SHARED void kg_sgd_plain_f32(float *restrict w, const float *restrict g, int32_t n, float rate) {
  for (int32_t i = 0; i < n; ++i) {
    w[i] = KG_FMA(-rate, g[i], w[i]);
  }
}

/* True when kg_sgd_plain_f32 would leave every weight finite; changes nothing. */
KG_SHARED bool kg_sgd_plain_finite_f32(const float *w, const float *g, int32_t n, float rate) {
  float lanes[KG_CHECK_LANES] = {0.0f};
  int32_t i = 0;
  for (; i <= n - KG_CHECK_LANES; i += KG_CHECK_LANES) {
    for (int32_t k = 0; k < KG_CHECK_LANES; ++k) {
      lanes[k] = KG_FMA(KG_FMA(-rate, g[i + k], w[i + k]), 0.0f, lanes[k]);
    }
  }
  for (; i < n; ++i) {
    lanes[0] = KG_FMA(KG_FMA(-rate, g[i], w[i]), 0.0f, lanes[0]);
  }
  return kg_lanes_finite_f32(lanes);
}

/* The direction of the step for one weight: g + decay * w, plus momentum * v where there is a velocity. */
KG_INLINE float kg_sgd_direction_f32(float w, float g, const float *v, float momentum, float decay) {
  const float direction = KG_FMA(decay, w, g);
  return v != NULL ? KG_FMA(momentum, *v, direction) : direction;
}

/* One step over n weights, in place:
 *   velocity <- momentum * velocity + (g + decay * w),   w <- w - rate * velocity
 * velocity is NULL without momentum (then the parenthesis is the direction). With an accumulator (NULL without), it
 * collects g / period, and the step is taken with the sum, which returns to zero, when (step + 1) is a multiple of
 * period. Nothing overlaps. */
KG_SHARED void kg_sgd_f32(float *restrict w, float *restrict velocity, float *restrict accumulator,
                          const float *restrict g, int32_t n, float rate, float momentum, float decay, uint32_t step,
                          uint32_t period) {
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
KG_SHARED bool kg_sgd_finite_f32(const float *w, const float *velocity, const float *accumulator, const float *g,
                                 int32_t n, float rate, float momentum, float decay, uint32_t step, uint32_t period) {
  const float share = 1.0f / (float)period;
  const bool take = accumulator == NULL || (step + 1u) % period == 0u;
  float poison = 0.0f;
  for (int32_t i = 0; i < n; ++i) {
    const float sum = accumulator != NULL ? KG_FMA(share, g[i], accumulator[i]) : g[i];
    poison = KG_FMA(sum, 0.0f, poison);
    if (take) {
      const float direction = kg_sgd_direction_f32(w[i], sum, velocity != NULL ? &velocity[i] : NULL, momentum, decay);
      poison = KG_FMA(direction, 0.0f, poison);
      poison = KG_FMA(KG_FMA(-rate, direction, w[i]), 0.0f, poison);
    }
  }
  return poison == 0.0f;
}

#endif
