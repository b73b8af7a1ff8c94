/* From int32 sums to int8: one rounding of a 64-bit product with a 31-bit multiplier.
 *
 * A real factor m / 2^shift has m in [2^30, 2^31) and shift in [1, 62]. */
#ifndef KILOGRAD_REQUANTIZE_H
#define KILOGRAD_REQUANTIZE_H

#include "kilograd/base.h"

/* Arm's 16-bit multiply-accumulates; KG_PORTABLE leaves them out, for tests. The bits are the same. */
#if defined(__ARM_FEATURE_SIMD32) && !defined(KG_PORTABLE)
#include <arm_acle.h>
#define KG_SIMD32 1
#else
#define KG_SIMD32 0
#endif

/* What no requantised value goes beyond, so that a zero point can be added to it. */
#define KG_REQUANTIZE_LIMIT (1 << 30)

/* A function of its own, where inlining would take registers from a loop that rarely calls it. */
#if defined(__GNUC__)
#define KG_OUTLINE static __attribute__((noinline, unused))
#else
#define KG_OUTLINE static
#endif

/* kg_requantize for factors of 1/4 and more. */
KG_OUTLINE int32_t kg_requantize_large(int32_t sum, int32_t multiplier, int32_t shift) {
  const int64_t limit = KG_REQUANTIZE_LIMIT;
  const int64_t result = ((int64_t)sum * multiplier + ((int64_t)1 << (shift - 1))) >> shift;
  return (int32_t)(result < -limit ? -limit : result > limit ? limit : result);
}

/* floor(sum * multiplier / 2^shift + 1/2), that is to nearest with ties upwards, limited to +-2^30. */
KG_INLINE int32_t kg_requantize(int32_t sum, int32_t multiplier, int32_t shift) {
  if (shift > 32) { /* the lower half decides nothing, and the result is below 2^30 */
    const int32_t high = (int32_t)(((int64_t)sum * multiplier) >> 32);
    return (high + (1 << (shift - 33))) >> (shift - 32);
  }
  return kg_requantize_large(sum, multiplier, shift);
}

/* q limited to [low, high]. */
KG_INLINE int32_t kg_clamp_s32(int32_t q, int32_t low, int32_t high) {
  q = q < low ? low : q;
  return q > high ? high : q;
}

/* q limited to int8. */
KG_INLINE int8_t kg_saturate_s8(int32_t q) {
#if KG_SIMD32
  return (int8_t)__ssat(q, 8);
#else
  return (int8_t)kg_clamp_s32(q, -128, 127);
#endif
}

/* y limited to [low, high]: what is left to do after kg_saturate_s8. */
KG_OUTLINE void kg_limit_s8(int8_t *y, int32_t n, int32_t low, int32_t high) {
  if (low > -128 || high < 127) {
    for (int32_t i = 0; i < n; ++i) {
      y[i] = (int8_t)kg_clamp_s32(y[i], low, high);
    }
  }
}

#endif
