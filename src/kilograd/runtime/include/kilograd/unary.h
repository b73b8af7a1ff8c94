/* Elementwise functions of one tensor of n floats, and their gradients.
 *
 * kg_map_f: y[i] = f(x[i]); y may be x. kg_map_f_grad: d_x[i] = d_y[i] * f', where f' is computed from z, the input or
 * the output of f, whichever the comment says; d_x may be d_y or z. NaN in, NaN out. */
#ifndef KILOGRAD_UNARY_H
#define KILOGRAD_UNARY_H

#include "kilograd/base.h"
#include "kilograd/math.h"

KG_INLINE float kg_square_f32(float x) { return x * x; }

/* Defines a kernel by its signature and an expression of v = x[i]; LONG for one that is more than a few
 * instructions. */
#define KG_MAP_F32(signature, expression) KG_MAP_LOOP(KG_ELEMENTWISE, signature, expression)
#define KG_MAP_LONG_F32(signature, expression) KG_MAP_LOOP(KG_ELEMENTWISE_LONG, signature, expression)
#define KG_MAP_LOOP(hint, signature, expression) \
  KG_SHARED void signature {                     \
    hint for (int32_t i = 0; i < n; ++i) {       \
      const float v = x[i];                      \
      y[i] = (expression);                       \
    }                                            \
  }

/* Defines a kernel by its signature and an expression of g = d_y[i] and v = z[i]. */
#define KG_MAP_GRAD_F32(signature, expression) KG_MAP_GRAD_LOOP(KG_ELEMENTWISE, signature, expression)
#define KG_MAP_GRAD_LONG_F32(signature, expression) KG_MAP_GRAD_LOOP(KG_ELEMENTWISE_LONG, signature, expression)
#define KG_MAP_GRAD_LOOP(hint, signature, expression) \
  KG_SHARED void signature {                          \
    hint for (int32_t i = 0; i < n; ++i) {            \
      const float g = d_y[i], v = z[i];               \
      d_x[i] = (expression);                          \
    }                                                 \
  }

/* --- Piecewise linear and rational --- */

KG_MAP_F32(kg_map_relu_f32(float *y, const float *x, int32_t n), v < 0.0f ? 0.0f : v)
/* z is the output. */
KG_MAP_GRAD_F32(kg_map_relu_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n), v <= 0.0f ? 0.0f : g)

KG_MAP_F32(kg_map_clamp_f32(float *y, const float *x, int32_t n, float low, float high), kg_clamp_f32(v, low, high))
/* z is the output; zero where it sits on a bound. */
KG_MAP_GRAD_F32(kg_map_clamp_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n, float low, float high),
                v <= low || v >= high ? 0.0f : g)

KG_MAP_F32(kg_map_leaky_relu_f32(float *y, const float *x, int32_t n, float slope), v > 0.0f ? v : slope * v)
/* z is the input, or the output when slope >= 0: they have the same sign. */
KG_MAP_GRAD_F32(kg_map_leaky_relu_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n, float slope),
                v > 0.0f ? g : slope * g)

KG_MAP_F32(kg_map_hard_sigmoid_f32(float *y, const float *x, int32_t n, float alpha, float beta),
           kg_clamp_f32(KG_FMA(alpha, v, beta), 0.0f, 1.0f))
/* z is the output; zero where it sits on a bound. */
KG_MAP_GRAD_F32(kg_map_hard_sigmoid_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n, float alpha),
                v <= 0.0f || v >= 1.0f ? 0.0f : alpha * g)

KG_MAP_F32(kg_map_hard_swish_f32(float *y, const float *x, int32_t n),
           kg_clamp_f32(KG_FMA(v, 1.0f / 6.0f, 0.5f), 0.0f, 1.0f) * v)
/* z is the input: 0 up to -3, 1 from 3, v/3 + 1/2 between. */
KG_MAP_GRAD_F32(kg_map_hard_swish_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n),
                (v <= -3.0f  ? 0.0f
                 : v >= 3.0f ? 1.0f
                             : KG_FMA(v, 1.0f / 3.0f, 0.5f)) *
                    g)

KG_MAP_F32(kg_map_neg_f32(float *y, const float *x, int32_t n), -v)

KG_MAP_F32(kg_map_abs_f32(float *y, const float *x, int32_t n), kg_abs_f32(v))
/* z is the input; zero at 0. */
KG_MAP_GRAD_F32(kg_map_abs_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n),
                v == 0.0f ? 0.0f : kg_copy_sign_f32(1.0f, v) * g)

KG_MAP_F32(kg_map_reciprocal_f32(float *y, const float *x, int32_t n), 1.0f / v)
/* z is the output: -y^2. */
KG_MAP_GRAD_F32(kg_map_reciprocal_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n),
                -kg_square_f32(v) * g)

/* --- Roots and powers --- */

KG_MAP_F32(kg_map_sqrt_f32(float *y, const float *x, int32_t n), kg_sqrt_f32(v))
/* z is the output: 1 / (2 y). */
KG_MAP_GRAD_F32(kg_map_sqrt_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n), 0.5f * g / v)

KG_MAP_LONG_F32(kg_map_rsqrt_f32(float *y, const float *x, int32_t n), 1.0f / kg_sqrt_f32(v))
/* z is the output: -y^3 / 2. */
KG_MAP_GRAD_F32(kg_map_rsqrt_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n),
                -0.5f * kg_square_f32(v) * v * g)

/* x^k for |k| < 128: the powers x^(2^bit) of the set bits of |k| are multiplied, lowest first. */
KG_INLINE float kg_integer_power_f32(float x, int32_t k) {
  const int32_t size = k < 0 ? -k : k;
  float y = 1.0f;
  for (int32_t bit = 0; bit < 7; ++bit, x *= x) {
    y = (size >> bit) & 1 ? y * x : y;
  }
  return k < 0 ? 1.0f / y : y;
}
KG_MAP_LONG_F32(kg_map_integer_power_f32(float *y, const float *x, int32_t n, int32_t k), kg_integer_power_f32(v, k))
/* z is the input: k x^(k-1). */
KG_MAP_GRAD_LONG_F32(kg_map_integer_power_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n, int32_t k),
                     kg_integer_power_f32(v, k - 1) * (float)k * g)

/* x^k = e^(k log x) for x >= 0; the relative error grows with |k log x|. NaN below 0. */
KG_MAP_LONG_F32(kg_map_power_f32(float *y, const float *x, int32_t n, float k), kg_exp_f32(kg_log_f32(v) * k))
/* z is the input: k x^(k-1). */
KG_MAP_GRAD_LONG_F32(kg_map_power_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n, float k),
                     kg_exp_f32(kg_log_f32(v) * (k - 1.0f)) * k * g)

/* --- Exponentials --- */

KG_MAP_LONG_F32(kg_map_exp_f32(float *y, const float *x, int32_t n), kg_exp_f32(v))
/* z is the output: y. */
KG_MAP_GRAD_F32(kg_map_exp_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n), v *g)

KG_MAP_LONG_F32(kg_map_log_f32(float *y, const float *x, int32_t n), kg_log_f32(v))
/* z is the input: 1 / x. */
KG_MAP_GRAD_F32(kg_map_log_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n), g / v)

KG_MAP_LONG_F32(kg_map_sigmoid_f32(float *y, const float *x, int32_t n), kg_sigmoid_f32(v))
/* z is the output: y (1 - y). */
KG_MAP_GRAD_F32(kg_map_sigmoid_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n), (1.0f - v) * v * g)

KG_MAP_LONG_F32(kg_map_tanh_f32(float *y, const float *x, int32_t n), kg_tanh_f32(v))
/* z is the output: 1 - y^2. */
KG_MAP_GRAD_F32(kg_map_tanh_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n), KG_FMA(-v, v, 1.0f) * g)

KG_MAP_LONG_F32(kg_map_elu_f32(float *y, const float *x, int32_t n, float alpha),
                v > 0.0f ? v : alpha * kg_expm1_f32(v))
/* z is the output, alpha >= 0: 1 above 0, else y + alpha. */
KG_MAP_GRAD_F32(kg_map_elu_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n, float alpha),
                v > 0.0f ? g : (v + alpha) * g)

/* s = 1 / (1 + e^-x) and its derivative s (1 - s), both from e^-|x| so that neither cancels. */
KG_INLINE float kg_logistic_f32(float x, float *slope) {
  const float e = kg_exp_f32(-kg_abs_f32(x)), q = 1.0f / (1.0f + e);
  *slope = e * q * q;
  return x < 0.0f ? e * q : q;
}

/* x s(x), s the logistic function. */
KG_MAP_LONG_F32(kg_map_silu_f32(float *y, const float *x, int32_t n), kg_sigmoid_f32(v) * v)
/* z is the input: s (1 + x (1 - s)). */
KG_INLINE float kg_silu_slope_f32(float x) {
  float slope;
  const float s = kg_logistic_f32(x, &slope);
  return KG_FMA(x, slope, s);
}
KG_MAP_GRAD_LONG_F32(kg_map_silu_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n),
                     kg_silu_slope_f32(v) * g)

KG_MAP_LONG_F32(kg_map_erf_f32(float *y, const float *x, int32_t n), kg_erf_f32(v))
/* z is the input: 2 / sqrt(pi) e^(-x^2). */
KG_MAP_GRAD_LONG_F32(kg_map_erf_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n),
                     1.12837917f * kg_exp_f32(-v * v) * g)

/* x F(x), F the normal distribution: (1 + erf(x / sqrt 2)) / 2. */
KG_INLINE float kg_normal_f32(float x) { return KG_FMA(0.5f, kg_erf_f32(0.707106781f * x), 0.5f); }
KG_MAP_LONG_F32(kg_map_gelu_f32(float *y, const float *x, int32_t n), kg_normal_f32(v) * v)
/* z is the input: F(x) + x e^(-x^2 / 2) / sqrt(2 pi). */
KG_MAP_GRAD_LONG_F32(kg_map_gelu_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n),
                     KG_FMA(0.398942280f * v, kg_exp_f32(-0.5f * v * v), kg_normal_f32(v)) * g)

/* x/2 (1 + tanh u) = x s(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3); this is 2 u. */
KG_INLINE float kg_gelu_tanh_argument_f32(float x) { return x * KG_FMA(0.0713548163f, x * x, 1.59576912f); }
KG_MAP_LONG_F32(kg_map_gelu_tanh_f32(float *y, const float *x, int32_t n),
                kg_sigmoid_f32(kg_gelu_tanh_argument_f32(v)) * v)
/* z is the input: s + x s (1 - s) (2 u)'. */
KG_INLINE float kg_gelu_tanh_slope_f32(float x) {
  float slope;
  const float s = kg_logistic_f32(kg_gelu_tanh_argument_f32(x), &slope);
  return KG_FMA(x * KG_FMA(0.214064449f, x * x, 1.59576912f), slope, s);
}
KG_MAP_GRAD_LONG_F32(kg_map_gelu_tanh_grad_f32(float *d_x, const float *d_y, const float *z, int32_t n),
                     kg_gelu_tanh_slope_f32(v) * g)

#endif
