/* What every kernel stands on: fixed-width types, the fused multiply-add, status codes.
 *
 * Floating point rules, so that a host and a microcontroller compute the same bits: contraction is off and no
 * fast-math flag is given; a multiply-add is written KG_FMA and rounds once on every target; every sum has a stated
 * order; exp, log and tanh are those of math.h beside this file.
 */
#ifndef KILOGRAD_BASE_H
#define KILOGRAD_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kilograd/status.h"

#if defined(__GNUC__)
#define KG_INLINE static inline __attribute__((always_inline))
#else
#define KG_INLINE static inline
#endif

#define KG_INFINITY __builtin_inff()

#define KG_STATIC_ASSERT(condition, name) typedef char kg_assert_##name[(condition) ? 1 : -1]

/* Kernels whose every call shares one copy: specialising them would cost flash and gain nothing. */
#if defined(__GNUC__)
#define KG_SHARED static __attribute__((noinline, unused))
#else
#define KG_SHARED static
#endif

/* The same pointer, of which the compiler knows nothing: it then computes addresses where they are used, instead of
 * keeping hundreds of them on the stack of a long straight-line function. */
KG_INLINE void *kg_opaque(void *pointer) {
#if defined(__GNUC__)
  __asm__ volatile("" : "+r"(pointer));
#endif
  return pointer;
}

/* The bits of a float and back. */
KG_INLINE uint32_t kg_bits_f32(float x) {
  union {
    float f;
    uint32_t u;
  } pun = {.f = x};
  return pun.u;
}

KG_INLINE float kg_from_bits_f32(uint32_t bits) {
  union {
    uint32_t u;
    float f;
  } pun = {.u = bits};
  return pun.f;
}

/* True when x is neither NaN nor infinite. */
KG_INLINE bool kg_finite_f32(float x) { return (kg_bits_f32(x) & 0x7f800000u) != 0x7f800000u; }

/* a * b + c, rounded once: the hardware's where there is one. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__aarch64__) || defined(__riscv_flen)
#define KG_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#include "kilograd/soft_fma.h"
#define KG_FMA(a, b, c) kg_soft_fma_f32((a), (b), (c))
#endif

/* Before a loop that is fast enough without being unrolled: saves flash where flash is small. */
#if defined(__clang__) && defined(__arm__)
#define KG_SMALL _Pragma("clang loop unroll(disable)")
#else
#define KG_SMALL
#endif

/* Before a loop whose iterations touch only their own elements: y[i] may lie on x[i], so that the compiler cannot see
 * for itself that the loop may be vectorised. Said only where there are vectors; a loop too short for them is no fault.
 * KG_ELEMENTWISE_LONG is the same for a long body. */
#if defined(__clang__) && (defined(__AVX__) || defined(__aarch64__))
#pragma clang diagnostic ignored "-Wpass-failed"
#define KG_ELEMENTWISE _Pragma("clang loop vectorize(assume_safety)")
#define KG_ELEMENTWISE_LONG KG_ELEMENTWISE
#elif defined(__GNUC__) && !defined(__clang__) && (defined(__AVX__) || defined(__aarch64__))
#define KG_ELEMENTWISE _Pragma("GCC ivdep")
#define KG_ELEMENTWISE_LONG KG_ELEMENTWISE
#else
#define KG_ELEMENTWISE
#define KG_ELEMENTWISE_LONG KG_SMALL
#endif

/* x limited to [low, high]; NaN stays NaN. */
KG_INLINE float kg_clamp_f32(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

#endif
