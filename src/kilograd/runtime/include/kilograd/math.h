/* Elementary functions in float arithmetic alone, so that every target computes the same bits.
 * Polynomials after S. L. Moshier's Cephes library; errors are within 1.5 units in the last place, those of the
 * logistic function and tanh within 2.5. */
#ifndef KILOGRAD_MATH_H
#define KILOGRAD_MATH_H

#include "kilograd/base.h"

/* e^x = 2^n (1 + q) with n = x / ln 2 rounded: gives q and, in *n, the bits of an integer. |x| <= 104. NaN stays NaN.
 */
KG_INLINE float kg_exp_reduced_f32(float x, uint32_t *n) {
  const float magic = 12582912.0f; /* 3 * 2^22: its lowest bit counts ones */
  const float shifted = KG_FMA(x, 1.44269504f, magic);
  const float whole = shifted - magic;
  *n = kg_bits_f32(shifted) - 0x4b400000u;
  float r = KG_FMA(whole, -0.693359375f, x);
  r = KG_FMA(whole, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = KG_FMA(p, r, 1.3981999507e-3f);
  p = KG_FMA(p, r, 8.3334519073e-3f);
  p = KG_FMA(p, r, 4.1665795894e-2f);
  p = KG_FMA(p, r, 1.6666665459e-1f);
  p = KG_FMA(p, r, 5.0000001201e-1f);
  return KG_FMA(p, r * r, r);
}

/* e^x. Overflows to infinity above 88.72, underflows to 0 below -103.97. */
KG_INLINE float kg_exp_f32(float x) {
  uint32_t n;
  const float q = kg_exp_reduced_f32(kg_clamp_f32(x, -104.0f, 89.0f), &n);
  /* 2^n in two factors, since it may be no normal float; n + 256 keeps the halving unsigned. */
  const uint32_t half = (n + 256u) >> 1;
  const float first = kg_from_bits_f32((half - 1u) << 23), second = kg_from_bits_f32((n + 256u - half - 1u) << 23);
  return (1.0f + q) * first * second;
}

/* e^x - 1 for x <= 0, without cancellation near 0. */
KG_INLINE float kg_expm1_f32(float x) {
  uint32_t n;
  const float q = kg_exp_reduced_f32(x < -18.0f ? -18.0f : x, &n); /* e^-18 is less than half a unit of 1 */
  const float scale = kg_from_bits_f32((n + 127u) << 23);
  return KG_FMA(q, scale, scale - 1.0f);
}

/* 1 / (1 + e^-x); 0 below -88.72. */
KG_INLINE float kg_sigmoid_f32(float x) { return 1.0f / (1.0f + kg_exp_f32(-x)); }

/* The magnitude of `magnitude` with the sign of `sign`. */
KG_INLINE float kg_copy_sign_f32(float magnitude, float sign) {
  return kg_from_bits_f32((kg_bits_f32(magnitude) & 0x7fffffffu) | (kg_bits_f32(sign) & 0x80000000u));
}

KG_INLINE float kg_abs_f32(float x) { return kg_copy_sign_f32(x, 0.0f); }

/* tanh |x| = -t / (2 + t) with t = e^(-2 |x|) - 1. */
KG_INLINE float kg_tanh_f32(float x) {
  const float t = kg_expm1_f32(-2.0f * kg_abs_f32(x));
  return kg_copy_sign_f32(t / (2.0f + t), x);
}

/* The error function: x + x p(x^2) up to 1, then 1 - e^q(|x|); p and q are minimax fits of relative error below
 * 2^-29. */
KG_INLINE float kg_erf_f32(float x) {
  const float a = kg_abs_f32(x), t = a > 4.0f ? 4.0f : a, z = t * t;
  float p = 7.853906705793288e-05f;
  p = KG_FMA(p, z, -8.010208495739459e-04f);
  p = KG_FMA(p, z, 5.188329564396224e-03f);
  p = KG_FMA(p, z, -2.685381307722709e-02f);
  p = KG_FMA(p, z, 1.1283585182465301e-01f);
  p = KG_FMA(p, z, -3.761262582855336e-01f);
  p = KG_FMA(p, z, 1.2837916572829608e-01f);
  float q = 1.8637925587953962e-04f;
  q = KG_FMA(q, t, -2.947658915009534e-03f);
  q = KG_FMA(q, t, 2.183806638508159e-02f);
  q = KG_FMA(q, t, -1.031067593742585e-01f);
  q = KG_FMA(q, t, -6.381448274759953e-01f);
  q = KG_FMA(q, t, -1.127089193232083e+00f);
  q = KG_FMA(q, t, -3.4152229764200065e-04f);
  const float y = a < 1.0f ? KG_FMA(p, a, a) : 1.0f - kg_exp_f32(q);
  return kg_copy_sign_f32(y, x);
}

/* The square root of a processor without one, correctly rounded: digit by digit on the significand. */
static inline float kg_soft_sqrt_f32(float x) {
  const uint32_t bits = kg_bits_f32(x);
  if ((bits << 1) == 0 || bits == 0x7f800000u || x != x) {
    return x; /* zeros, infinity and NaN */
  }
  if (bits >> 31) {
    return kg_from_bits_f32(0x7fc00000u);
  }
  int32_t exponent = (int32_t)(bits >> 23) - 127;
  uint32_t significand = bits & 0x7fffffu;
  if (exponent == -127) { /* subnormal */
    for (exponent = -126; significand < 0x800000u; --exponent) {
      significand <<= 1;
    }
  } else {
    significand |= 0x800000u;
  }
  if (exponent & 1) {
    significand <<= 1;
    exponent -= 1;
  }
  /* 25 digits of the root, the last one for rounding; the remainder is never half way. */
  uint32_t root = 0, doubled = 0, rest = significand << 1;
  for (uint32_t digit = 0x1000000u; digit != 0; digit >>= 1, rest <<= 1) {
    if (doubled + digit <= rest) {
      rest -= doubled + digit;
      doubled += digit << 1;
      root += digit;
    }
  }
  root += root & 1u;
  return kg_from_bits_f32((root >> 1) + ((uint32_t)(exponent / 2 + 126) << 23));
}

/* The square root, correctly rounded; NaN below zero. */
KG_INLINE float kg_sqrt_f32(float x) {
#if defined(__SSE2__) || defined(__aarch64__) || defined(__riscv_flen) || (defined(__ARM_FP) && (__ARM_FP & 4))
  return __builtin_sqrtf(x);
#else
  return kg_soft_sqrt_f32(x);
#endif
}

/* The natural logarithm: -infinity at 0, NaN below. */
static inline float kg_log_f32(float x) {
  if (!(x > 0.0f) || x == KG_INFINITY) {
    return x == 0.0f ? -KG_INFINITY : x > 0.0f ? x : kg_from_bits_f32(0x7fc00000u);
  }
  float exponent = 0.0f;
  if (x < 1.17549435e-38f) { /* subnormal */
    x *= 8388608.0f;
    exponent = -23.0f;
  }
  const uint32_t bits = kg_bits_f32(x);
  exponent += (float)((int32_t)(bits >> 23) - 126);
  float m = kg_from_bits_f32((bits & 0x7fffffu) | 0x3f000000u); /* in [1/2, 1) */
  if (m < 0.707106781f) {
    m += m;
    exponent -= 1.0f;
  }
  m -= 1.0f;
  const float z = m * m;
  float p = 7.0376836292e-2f;
  p = KG_FMA(p, m, -1.1514610310e-1f);
  p = KG_FMA(p, m, 1.1676998740e-1f);
  p = KG_FMA(p, m, -1.2420140846e-1f);
  p = KG_FMA(p, m, 1.4249322787e-1f);
  p = KG_FMA(p, m, -1.6668057665e-1f);
  p = KG_FMA(p, m, 2.0000714765e-1f);
  p = KG_FMA(p, m, -2.4999993993e-1f);
  p = KG_FMA(p, m, 3.3333331174e-1f);
  float y = m * z * p;
  y = KG_FMA(exponent, -2.12194440e-4f, y);
  y = KG_FMA(-0.5f, z, y);
  return KG_FMA(exponent, 0.693359375f, m + y);
}

/* log(1 + x) for x >= 0: the error of rounding 1 + x is made good to first order. */
static inline float kg_log1p_f32(float x) {
  const float sum = 1.0f + x;
  const float lost = x < 1.0f ? x - (sum - 1.0f) : 1.0f - (sum - x);
  return sum == KG_INFINITY ? sum : kg_log_f32(sum) + lost / sum;
}

#endif
