/* The step of an integer weight along an integer gradient.
 *
 * The gradient is int32 sums in units of 2^exponent; a channel's ratio, fraction[c] / 2^power[c] with fraction in
 * [2^14, 2^15), is what one unit is worth in steps of the weight at a learning rate of 1. A tensor is outer x channels
 * x inner elements, as in q_optimizer.h. Floats are taken apart once a tensor: no float operation at all. */
#ifndef KILOGRAD_IG_STEP_H
#define KILOGRAD_IG_STEP_H

#include "kilograd/ig_narrow.h"
#include "kilograd/q_optimizer.h"

/* Bits of noise behind the point; what is smaller is left out, with its sign. */
#define KG_IG_STEP_BITS 24

/* The noise that rounds to nearest. */
#define KG_IG_HALF 0x80000000u

/* The magnitude of a float32 as mantissa / 2^shift, mantissa in [2^14, 2^15]; 0 below 2^-126. */
typedef struct kg_ig_real {
  int32_t mantissa, shift;
} kg_ig_real;

KG_INLINE kg_ig_real kg_ig_take_apart(float x) {
  const uint32_t bits = kg_bits_f32(x);
  const int32_t power = (int32_t)(bits >> 23 & 0xffu);
  const kg_ig_real real = {.mantissa = power == 0 ? 0 : (int32_t)(((bits & 0x7fffffu) + 0x800000u + 256u) >> 9),
                           .shift = 141 - power};
  return real;
}

/* rate * fraction / 2^power * 2^exponent as a mantissa of 15 bits. */
KG_INLINE kg_ig_real kg_ig_ratio(kg_ig_real rate, int32_t fraction, int32_t power, int32_t exponent) {
  const int32_t product = (fraction * rate.mantissa + (1 << 14)) >> 15;
  const kg_ig_real real = {.mantissa = product > 32767 ? 32767 : product, .shift = power + rate.shift - 15 - exponent};
  return real;
}

/* sum * mantissa / 2^16, rounded to nearest: two products of 16 bits. */
KG_INLINE int32_t kg_ig_product(int32_t sum, int32_t mantissa) {
  const uint32_t low = (uint32_t)(sum & 0xffff) * (uint32_t)mantissa;
  return (sum >> 16) * mantissa + (int32_t)((low + 0x8000u) >> 16);
}

/* product / 2^shift with `noise` added before it is rounded down; limited to +-2^15. */
KG_INLINE int32_t kg_ig_steps(int32_t product, int32_t shift, uint32_t noise) {
  if (shift > KG_IG_STEP_BITS) {
    product >>= shift - KG_IG_STEP_BITS > 31 ? 31 : shift - KG_IG_STEP_BITS;
    shift = KG_IG_STEP_BITS;
  }
  if (shift >= 0) {
    return kg_clamp_s32((product + kg_noise_bits(noise, shift)) >> shift, -(1 << 15), 1 << 15);
  }
  return kg_clamp_s32(product, -(1 << 15), 1 << 15) * (1 << (shift < -15 ? 15 : -shift));
}

/* w <- clamp(w - |rate| * g, -127, 127), g in steps of w; rounded at random with a seed, with a remainder in 1/256 of a
 * step kept beside w where there is one, and to nearest where both are NULL. No overlap. */
KG_SHARED void kg_ig_step_s8(int8_t *restrict w, int8_t *restrict remainder, const int32_t *restrict g,
                             const int32_t *exponent, const int32_t *restrict fraction, const int32_t *restrict power,
                             int32_t outer, int32_t channels, int32_t inner, float rate, const uint32_t *seed,
                             uint32_t salt) {
  const kg_ig_real factor = kg_ig_take_apart(rate);
  uint32_t counter = seed != NULL ? kg_random_key(*seed, salt) : 0;
  for (int32_t o = 0; o < outer; ++o) {
    for (int32_t c = 0; c < channels; ++c) {
      const kg_ig_real ratio = kg_ig_ratio(factor, fraction[c], power[c], *exponent);
      const int32_t shift = ratio.shift - 16;
      for (int32_t i = 0; i < inner; ++i, ++w, ++g, ++counter) {
        const int32_t product = kg_ig_product(*g, ratio.mantissa);
        int32_t moved;
        if (remainder != NULL) {
          const int32_t rest = *remainder - kg_clamp_s32(kg_ig_steps(product, shift - 8, KG_IG_HALF), -65536, 65536);
          moved = -((rest + 128) >> 8);
          *remainder++ = (int8_t)(rest + moved * 256);
        } else {
          moved = kg_ig_steps(product, shift, seed != NULL ? kg_hash32(counter) : KG_IG_HALF);
        }
        *w = (int8_t)kg_clamp_s32(*w - moved, -KG_WEIGHT_LIMIT, KG_WEIGHT_LIMIT);
      }
    }
  }
}

/* The same for n biases int32 in +-2^30, whose steps are small: in 64 bits, rounded to nearest. No overlap. */
KG_SHARED void kg_ig_step_s32(int32_t *restrict w, const int32_t *restrict g, const int32_t *exponent,
                              const int32_t *restrict fraction, const int32_t *restrict power, int32_t n, float rate) {
  const kg_ig_real factor = kg_ig_take_apart(rate);
  const int64_t limit = KG_BIAS_LIMIT;
  for (int32_t i = 0; i < n; ++i) {
    const kg_ig_real ratio = kg_ig_ratio(factor, fraction[i], power[i], *exponent);
    int64_t moved = (int64_t)g[i] * ratio.mantissa;
    if (ratio.shift > 0) {
      const int32_t shift = ratio.shift > 62 ? 62 : ratio.shift;
      moved = (moved + ((int64_t)1 << (shift - 1))) >> shift;
    } else {
      moved *= (int64_t)1 << (ratio.shift < -15 ? 15 : -ratio.shift);
    }
    moved = w[i] - (moved < -2 * limit ? -2 * limit : moved > 2 * limit ? 2 * limit : moved);
    w[i] = (int32_t)(moved < -limit ? -limit : moved > limit ? limit : moved);
  }
}

#endif
