/* Elementwise functions of two tensors with NumPy broadcasting.
 *
 * kg_f: y[i] = f(a[i], b[i]) for n elements; y may be a or b.
 * kg_f_broadcast: the same over five loops, outermost first, of the given sizes; y is packed, and each loop moves a and
 * b by their steps (0 where an operand repeats). The innermost steps are 0 or 1. y may be an operand that never
 * repeats. */
#ifndef KILOGRAD_BINARY_H
#define KILOGRAD_BINARY_H

#include "kilograd/base.h"

/* Sizes of five loops, and how many elements each moves a and b. */
typedef struct kg_broadcast {
  int32_t size[5], a[5], b[5];
} kg_broadcast;

/* Defines kg_name_f32 and kg_name_broadcast_f32 by an expression of u = a[i] and v = b[i]; the further parameters,
 * declared and passed, begin with a comma. */
#define KG_BINARY_F32(name, declared, passed, expression)                                                 \
  KG_SHARED void kg_##name##_f32(float *y, const float *a, const float *b, int32_t n KG_LIST declared) {  \
    KG_ELEMENTWISE                                                                                        \
    for (int32_t i = 0; i < n; ++i) {                                                                     \
      const float u = a[i], v = b[i];                                                                     \
      y[i] = (expression);                                                                                \
    }                                                                                                     \
  }                                                                                                       \
  KG_INLINE void kg_##name##_row_f32(float *y, const float *a, const float *b, int32_t n, int32_t a_step, \
                                     int32_t b_step KG_LIST declared) {                                   \
    if (a_step == 0) {                                                                                    \
      const float u = *a;                                                                                 \
      KG_ELEMENTWISE                                                                                      \
      for (int32_t i = 0; i < n; ++i) {                                                                   \
        const float v = b[i];                                                                             \
        y[i] = (expression);                                                                              \
      }                                                                                                   \
    } else if (b_step == 0) {                                                                             \
      const float v = *b;                                                                                 \
      KG_ELEMENTWISE                                                                                      \
      for (int32_t i = 0; i < n; ++i) {                                                                   \
        const float u = a[i];                                                                             \
        y[i] = (expression);                                                                              \
      }                                                                                                   \
    } else {                                                                                              \
      KG_ELEMENTWISE                                                                                      \
      for (int32_t i = 0; i < n; ++i) {                                                                   \
        const float u = a[i], v = b[i];                                                                   \
        y[i] = (expression);                                                                              \
      }                                                                                                   \
    }                                                                                                     \
  }                                                                                                       \
  KG_SHARED void kg_##name##_broadcast_f32(float *y, const float *a, const float *b,                      \
                                           const kg_broadcast *s KG_LIST declared) {                      \
    for (int32_t i0 = 0; i0 < s->size[0]; ++i0) {                                                         \
      for (int32_t i1 = 0; i1 < s->size[1]; ++i1) {                                                       \
        for (int32_t i2 = 0; i2 < s->size[2]; ++i2) {                                                     \
          const float *a_row = a + i0 * s->a[0] + i1 * s->a[1] + i2 * s->a[2];                            \
          const float *b_row = b + i0 * s->b[0] + i1 * s->b[1] + i2 * s->b[2];                            \
          for (int32_t i3 = 0; i3 < s->size[3]; ++i3) {                                                   \
            kg_##name##_row_f32(y, a_row, b_row, s->size[4], s->a[4], s->b[4] KG_LIST passed);            \
            y += s->size[4];                                                                              \
            a_row += s->a[3];                                                                             \
            b_row += s->b[3];                                                                             \
          }                                                                                               \
        }                                                                                                 \
      }                                                                                                   \
    }                                                                                                     \
  }

/* Takes the parentheses off a list in a macro argument. */
#define KG_LIST(...) __VA_ARGS__

KG_BINARY_F32(sub, (), (), u - v)
KG_BINARY_F32(mul, (), (), u *v)
KG_BINARY_F32(div, (), (), u / v)
/* The sum limited to [low, high]. */
KG_BINARY_F32(add, (, float low, float high), (, low, high), kg_clamp_f32(u + v, low, high))

#endif
