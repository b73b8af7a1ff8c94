/* The optimiser's step on integer weights, in real units: next = w - round(rate * direction / scale), saturating.
 * next may be w. A direction that is not finite gives a number in range.
 *
 * A tensor is outer x channels x inner elements with one scale a channel: a weight OHWI is 1 x O x HWI, a depthwise
 * weight HWC is HW x C x 1, a bias 1 x O x 1. Weights are int8 in [-127, 127], biases int32 in [-2^30, 2^30].
 *
 * These kernels are called once a trained tensor and cost as much to inline as to run, so each exists once. */
#ifndef KILOGRAD_Q_OPTIMIZER_H
#define KILOGRAD_Q_OPTIMIZER_H

#include "kilograd/optimizer.h"
#include "kilograd/random.h"
#include "kilograd/requantize.h"

#define KG_WEIGHT_LIMIT 127
#define KG_BIAS_LIMIT (1 << 30)

/* x rounded down; |x| < 2^31. */
KG_INLINE int32_t kg_floor_f32(float x) {
  const int32_t whole = (int32_t)x;
  return whole - ((float)whole > x ? 1 : 0);
}

/* x rounded to nearest, ties to even; |x| < 2^22. Beside 1.5 * 2^23 a float's last bit counts ones. */
KG_INLINE int32_t kg_rint_small_f32(float x) { return (int32_t)(kg_bits_f32(x + 12582912.0f) - 0x4b400000u); }

/* The same for |x| < 2^31; from 2^23 on every float is whole. */
KG_INLINE int32_t kg_rint_f32(float x) {
  const float size = x < 0.0f ? -x : x;
  if (size >= 8388608.0f) return (int32_t)x;
  const int32_t whole = (int32_t)(kg_bits_f32(size + 8388608.0f) - 0x4b000000u);
  return x < 0.0f ? -whole : whole;
}

/* What one step of a channel is worth in integers: rate / scale, or rate * scale without quantisation-aware scaling. */
KG_INLINE float kg_step_factor_f32(float rate, float scale, bool aware) { return aware ? rate / scale : rate * scale; }

/* x limited to [low, high]; NaN becomes low, so that it can be made an integer. */
KG_INLINE float kg_limit_f32(float x, float low, float high) {
  x = x > low ? x : low;
  return x < high ? x : high;
}

/* n weights of one channel, whose steps are factor * d, rounded to nearest. */
KG_INLINE void kg_move_nearest_s8(int8_t *next, const int8_t *w, const float *restrict d, int32_t n, float factor) {
  for (int32_t i = 0; i < n; ++i) {
    const int32_t moved = kg_rint_small_f32(kg_limit_f32(d[i] * factor, -256.0f, 256.0f));
    next[i] = (int8_t)kg_clamp_s32(w[i] - moved, -KG_WEIGHT_LIMIT, KG_WEIGHT_LIMIT);
  }
}

/* Rounded stochastically; the first of them draws random number `counter`. */
KG_INLINE void kg_move_stochastic_s8(int8_t *next, const int8_t *w, const float *restrict d, int32_t n, float factor,
                                     uint32_t counter) {
  for (int32_t i = 0; i < n; ++i, ++counter) {
    const float step = kg_limit_f32(d[i] * factor, -256.0f, 256.0f) + kg_uniform_f32(kg_hash32(counter));
    next[i] = (int8_t)kg_clamp_s32(w[i] - kg_floor_f32(step), -KG_WEIGHT_LIMIT, KG_WEIGHT_LIMIT);
  }
}

/* What rounding leaves is kept in the remainder. */
KG_INLINE void kg_move_residual_s8(int8_t *next, int8_t *next_remainder, const int8_t *w, const int8_t *remainder,
                                   const float *restrict d, int32_t n, float factor) {
  const float fine = factor * 256.0f;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t rest = remainder[i] - kg_rint_small_f32(kg_limit_f32(d[i] * fine, -65536.0f, 65536.0f));
    const int32_t moved = (rest + 128) >> 8;
    next_remainder[i] = (int8_t)(rest - moved * 256);
    next[i] = (int8_t)kg_clamp_s32(w[i] + moved, -KG_WEIGHT_LIMIT, KG_WEIGHT_LIMIT);
  }
}

/* Rounding to nearest. */
KG_SHARED void kg_sgd_nearest_s8(int8_t *next, const int8_t *w, const float *restrict d, const float *restrict scales,
                                 int32_t outer, int32_t channels, int32_t inner, float rate, bool aware) {
  for (int32_t o = 0; o < outer; ++o) {
    for (int32_t c = 0; c < channels; ++c, w += inner, next += inner, d += inner) {
      kg_move_nearest_s8(next, w, d, inner, kg_step_factor_f32(rate, scales[c], aware));
    }
  }
}

/* Stochastic rounding: floor(x + u) with u uniform in [0, 1), so that the mean of the steps is the real step. `seed` is
 * that of the step, `salt` tells tensors apart. */
KG_SHARED void kg_sgd_stochastic_s8(int8_t *next, const int8_t *w, const float *restrict d,
                                    const float *restrict scales, int32_t outer, int32_t channels, int32_t inner,
                                    float rate, bool aware, const uint32_t *seed, uint32_t salt) {
  uint32_t counter = kg_random_key(*seed, salt);
  for (int32_t o = 0; o < outer; ++o) {
    for (int32_t c = 0; c < channels; ++c, w += inner, next += inner, d += inner, counter += (uint32_t)inner) {
      kg_move_stochastic_s8(next, w, d, inner, kg_step_factor_f32(rate, scales[c], aware), counter);
    }
  }
}

/* Rounding with a remainder beside each weight, in 1/256 of its integer step: nothing is lost, and small steps add up.
 */
KG_SHARED void kg_sgd_residual_s8(int8_t *next, int8_t *next_remainder, const int8_t *w, const int8_t *remainder,
                                  const float *restrict d, const float *restrict scales, int32_t outer,
                                  int32_t channels, int32_t inner, float rate, bool aware) {
  for (int32_t o = 0; o < outer; ++o) {
    for (int32_t c = 0; c < channels; ++c) {
      kg_move_residual_s8(next, next_remainder, w, remainder, d, inner, kg_step_factor_f32(rate, scales[c], aware));
      next += inner, next_remainder += inner, w += inner, remainder += inner, d += inner;
    }
  }
}

/* A bias, one scale an element; with `seed` NULL to nearest, else stochastically. */
KG_SHARED void kg_sgd_s32(int32_t *next, const int32_t *w, const float *restrict d, const float *restrict scales,
                          int32_t channels, float rate, bool aware, const uint32_t *seed, uint32_t salt) {
  const uint32_t key = seed != NULL ? kg_random_key(*seed, salt) : 0u;
  const float limit = 1073741824.0f;
  for (int32_t c = 0; c < channels; ++c) {
    const float step = kg_limit_f32(d[c] * kg_step_factor_f32(rate, scales[c], aware), -limit, limit);
    const int32_t moved =
        seed != NULL ? kg_floor_f32(step + kg_uniform_f32(kg_hash32(key + (uint32_t)c))) : kg_rint_f32(step);
    next[c] = kg_clamp_s32(w[c] - moved, -KG_BIAS_LIMIT, KG_BIAS_LIMIT);
  }
}

/* d[i] = g[i] + decay * scale * w[i], the gradient of the weight decay added in real units. d may be g. */
KG_SHARED void kg_decay_s8(float *d, const float *g, const int8_t *w, const float *scales, int32_t outer,
                           int32_t channels, int32_t inner, float decay) {
  for (int32_t o = 0; o < outer; ++o) {
    for (int32_t c = 0; c < channels; ++c) {
      const float factor = decay * scales[c];
      for (int32_t i = 0; i < inner; ++i, ++w, ++d, ++g) {
        *d = KG_FMA(factor, (float)*w, *g);
      }
    }
  }
}

/* The same for a bias. */
KG_SHARED void kg_decay_s32(float *d, const float *g, const int32_t *w, const float *scales, int32_t channels,
                            float decay) {
  for (int32_t c = 0; c < channels; ++c) {
    d[c] = KG_FMA(decay * scales[c], (float)w[c], g[c]);
  }
}

/* The direction of a step: the gradient, summed over `period` samples with an accumulator, smoothed by momentum with a
 * velocity (each NULL without); zero between steps. d may be g; accumulator and velocity are updated in place. */
KG_SHARED void kg_direction_f32(float *d, const float *g, float *velocity, float *accumulator, int32_t n,
                                float momentum, uint32_t step, uint32_t period) {
  const float share = 1.0f / (float)period;
  const bool take = accumulator == NULL || (step + 1u) % period == 0u;
  for (int32_t i = 0; i < n; ++i) {
    const float sum = accumulator != NULL ? KG_FMA(share, g[i], accumulator[i]) : g[i];
    float direction = take ? sum : 0.0f;
    if (velocity != NULL && take) {
      direction = KG_FMA(momentum, velocity[i], sum);
      velocity[i] = direction;
    }
    if (accumulator != NULL) {
      accumulator[i] = take ? 0.0f : sum;
    }
    d[i] = direction;
  }
}

/* True when kg_direction_f32 with the same arguments would leave everything finite; changes nothing. */
KG_SHARED bool kg_direction_finite_f32(const float *g, const float *velocity, const float *accumulator, int32_t n,
                                       float momentum, uint32_t period) {
  const float share = 1.0f / (float)period;
  float poison = 0.0f;
  for (int32_t i = 0; i < n; ++i) {
    float sum = accumulator != NULL ? KG_FMA(share, g[i], accumulator[i]) : g[i];
    poison = KG_FMA(sum, 0.0f, poison);
    sum = velocity != NULL ? KG_FMA(momentum, velocity[i], sum) : sum;
    poison = KG_FMA(sum, 0.0f, poison);
  }
  return poison == 0.0f;
}

#endif
