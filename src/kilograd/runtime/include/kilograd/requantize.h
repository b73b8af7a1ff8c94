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

/* floor(sum * multiplier / 2^shift + 1/2), that is to nearest with ties upwards, limited to +-2^30. */
KG_INLINE int32_t kg_requantize(int32_t sum, int32_t multiplier, int32_t shift) {
  const int64_t product = (int64_t)sum * multiplier;
  if (shift > 32) { /* the lower half decides nothing, and the result is below 2^30 */
    return (((int32_t)(product >> 32) >> (shift - 33)) + 1) >> 1;
  }
  const int64_t result = (product + ((int64_t)1 << (shift - 1))) >> shift;
  const int64_t limit = KG_REQUANTIZE_LIMIT;
  return (int32_t)(result < -limit ? -limit : result > limit ? limit : result);
}

KG_INLINE int32_t kg_clamp_s32(int32_t q, int32_t low, int32_t high) {
  q = q < low ? low : q;
  return q > high ? high : q;
}

#endif
