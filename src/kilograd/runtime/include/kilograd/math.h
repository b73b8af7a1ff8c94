/* Elementary functions in float arithmetic alone, so that every target computes the same bits.
 * Polynomials after S. L. Moshier's Cephes library; errors are within 2 units in the last place. */
#ifndef KILOGRAD_MATH_H
#define KILOGRAD_MATH_H

#include "kilograd/base.h"

/* e^x. Overflows to infinity above 88.72, underflows to 0 below -103.97. */
static inline float kg_exp_f32(float x) {
  if (x != x) {
    return x;
  }
  if (x > 88.72284f) {
    return KG_INFINITY;
  }
  if (x < -103.97208f) {
    return 0.0f;
  }
  const float n = KG_FMA(x, 1.44269504f, 12582912.0f) - 12582912.0f; /* x / ln 2, rounded */
  float r = KG_FMA(n, -0.693359375f, x);
  r = KG_FMA(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = KG_FMA(p, r, 1.3981999507e-3f);
  p = KG_FMA(p, r, 8.3334519073e-3f);
  p = KG_FMA(p, r, 4.1665795894e-2f);
  p = KG_FMA(p, r, 1.6666665459e-1f);
  p = KG_FMA(p, r, 5.0000001201e-1f);
  const float y = KG_FMA(p, r * r, r) + 1.0f;
  const int32_t exponent = (int32_t)n, half = exponent / 2; /* in two steps: 2^exponent may be no normal float */
  return y * kg_from_bits_f32((uint32_t)(half + 127) << 23) * kg_from_bits_f32((uint32_t)(exponent - half + 127) << 23);
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

#endif
