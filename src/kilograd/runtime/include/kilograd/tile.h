/* Register tiles: the inner loops of linear layers and convolutions.
 *
 * A tile is rows x lanes sums that stay in registers while each runs through one chain of fused multiply-adds. Its size
 * is chosen for the target; no bit depends on it, since no sum is split. Callers pass rows and lanes as literals, at
 * most KG_ROWS and KG_LANES, so that the loops over them unroll. */
#ifndef KILOGRAD_TILE_H
#define KILOGRAD_TILE_H

#include "kilograd/base.h"

/* Wide vectors want transposed weights, KG_PACK terms of them at a time on the stack. Where registers hold one float,
 * 32 of them take 16 sums with their 4 + 4 factors, and transposing gains nothing. */
#if defined(KG_NARROW) /* as on a microcontroller: for tests */
#define KG_ROWS 4
#define KG_LANES 4
#elif defined(__AVX512F__)
#define KG_ROWS 8
#define KG_LANES 16
#define KG_PACK 64
#elif defined(__AVX__)
#define KG_ROWS 4
#define KG_LANES 16
#define KG_PACK 64
#elif defined(__aarch64__)
#define KG_ROWS 4
#define KG_LANES 8
#define KG_PACK 64
#else
#define KG_ROWS 4
#define KG_LANES 4
#endif

#if defined(__clang__)
#define KG_UNROLL_2 _Pragma("clang loop unroll_count(2)")
#define KG_ROLLED _Pragma("clang loop unroll(disable)")
#elif defined(__GNUC__)
#define KG_UNROLL_2 _Pragma("GCC unroll 2")
#define KG_ROLLED _Pragma("GCC unroll 1")
#else
#define KG_UNROLL_2
#define KG_ROLLED
#endif

/* Keeps the compiler from turning a rare branch into conditional moves on the common path. */
#if defined(__GNUC__)
#define KG_UNLIKELY(condition) __builtin_expect((condition), 0)
#else
#define KG_UNLIKELY(condition) (condition)
#endif

/* Keeps a pointer of its own in a register: compilers like to rebuild many pointers from one index in every turn. */
#if defined(__GNUC__) && defined(__arm__)
#define KG_KEEP(pointer) __asm__("" : "+r"(pointer))
#else
#define KG_KEEP(pointer) (void)(pointer)
#endif

/* Expands CALL with the largest literal of KG_ROWS, 4, 2, 1 that is at most `left`; one lane only takes KG_ROWS or 1,
 * to save code. */
#define KG_WITH_ROWS(left, lanes, CALL)                   \
  if ((left) >= KG_ROWS) {                                \
    CALL(KG_ROWS)                                         \
  } else if (KG_ROWS > 4 && (lanes) > 1 && (left) >= 4) { \
    CALL(4)                                               \
  } else if ((lanes) > 1 && (left) >= 2) {                \
    CALL(2)                                               \
  } else {                                                \
    CALL(1)                                               \
  }

/* Expands CALL with the largest literal of KG_LANES, 8, 4, 1 that is at most `left`. */
#define KG_WITH_LANES(left, CALL)           \
  if ((left) >= KG_LANES) {                 \
    CALL(KG_LANES)                          \
  } else if (KG_LANES > 8 && (left) >= 8) { \
    CALL(8)                                 \
  } else if (KG_LANES > 4 && (left) >= 4) { \
    CALL(4)                                 \
  } else {                                  \
    CALL(1)                                 \
  }

#if KG_LANES > 4 && defined(__GNUC__)
typedef float kg_vector __attribute__((vector_size(4 * KG_LANES)));
#define KG_LANE(vector, l) (vector)[l]
#else
typedef struct kg_vector {
  float lane[KG_LANES];
} kg_vector;
#define KG_LANE(vector, l) (vector).lane[l]
#endif

/* The first `lanes` lanes from memory; the rest is 0. */
KG_INLINE kg_vector kg_vector_load(const float *from, int32_t lanes) {
  kg_vector v = {0};
  for (int32_t l = 0; l < KG_LANES; ++l) {
    KG_LANE(v, l) = l < lanes ? from[l] : 0.0f;
  }
  return v;
}

KG_INLINE void kg_vector_store(float *to, kg_vector v, int32_t lanes) {
  for (int32_t l = 0; l < lanes; ++l) {
    to[l] = KG_LANE(v, l);
  }
}

/* a * b + c in the first `lanes` lanes. */
KG_INLINE kg_vector kg_vector_fma(float a, kg_vector b, kg_vector c, int32_t lanes) {
#if defined(__clang__) && KG_LANES > 4
  kg_vector factor = {0};
  for (int32_t l = 0; l < KG_LANES; ++l) {
    factor[l] = a;
  }
  (void)lanes;
  return __builtin_elementwise_fma(factor, b, c);
#else
  for (int32_t l = 0; l < lanes; ++l) {
    KG_LANE(c, l) = KG_FMA(a, KG_LANE(b, l), KG_LANE(c, l));
  }
  return c;
#endif
}

/* a * b + c in each of the first `lanes` lanes. */
KG_INLINE kg_vector kg_vector_fma_lanes(kg_vector a, kg_vector b, kg_vector c, int32_t lanes) {
#if defined(__clang__) && KG_LANES > 4
  (void)lanes;
  return __builtin_elementwise_fma(a, b, c);
#else
  for (int32_t l = 0; l < lanes; ++l) {
    KG_LANE(c, l) = KG_FMA(KG_LANE(a, l), KG_LANE(b, l), KG_LANE(c, l));
  }
  return c;
#endif
}

/* What a tile at the edge of a tensor reads in place of what lies beyond, so many channels at a time. */
#define KG_ZEROS 64
static const float kg_zeros[KG_ZEROS] = {0.0f};

/* sums[r][l] = y[r * pitch + l] where accumulate is set, else bias[l], or 0 where bias is NULL */
KG_INLINE void kg_tile_start_f32(kg_vector *sums, const float *y, int32_t pitch, const float *bias, bool accumulate,
                                 int32_t rows, int32_t lanes) {
  const kg_vector zero = {0};
  if (accumulate) {
    for (int32_t r = 0; r < rows; ++r) {
      sums[r] = kg_vector_load(y + r * pitch, lanes);
    }
  } else {
    const kg_vector start = bias != NULL ? kg_vector_load(bias, lanes) : zero;
    for (int32_t r = 0; r < rows; ++r) {
      sums[r] = start;
    }
  }
}

/* y[r * pitch + l] = sums[r][l] limited to [low, high]; NaN stays NaN. */
KG_INLINE void kg_tile_finish_f32(kg_vector *sums, float *y, int32_t pitch, float low, float high, int32_t rows,
                                  int32_t lanes) {
  if (low > -KG_INFINITY || high < KG_INFINITY) {
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t l = 0; l < lanes; ++l) {
        KG_LANE(sums[r], l) = kg_clamp_f32(KG_LANE(sums[r], l), low, high);
      }
    }
  }
  for (int32_t r = 0; r < rows; ++r) {
    kg_vector_store(y + r * pitch, sums[r], lanes);
  }
}

/* sums[r][l] += sum over t of a[r][t] * b[t * b_step + l] */
KG_INLINE void kg_tile_rows_f32(kg_vector *sums, const float *const *a, const float *b, int32_t b_step, int32_t n,
                                int32_t rows, int32_t lanes) {
  const float *from[KG_ROWS];
  for (int32_t r = 0; r < rows; ++r) {
    from[r] = a[r];
  }
  KG_UNROLL_2
  for (; n > 0; --n, b += b_step) {
    const kg_vector factor = kg_vector_load(b, lanes);
    for (int32_t r = 0; r < rows; ++r) {
      sums[r] = kg_vector_fma(*from[r]++, factor, sums[r], lanes);
    }
  }
}

/* sums[r][l] += sum over t of a[t * a_step + r] * b[t * b_step + l] */
KG_INLINE void kg_tile_outer_f32(kg_vector *sums, const float *a, int32_t a_step, const float *b, int32_t b_step,
                                 int32_t n, int32_t rows, int32_t lanes) {
  KG_UNROLL_2
  for (; n > 0; --n, a += a_step, b += b_step) {
    const kg_vector factor = kg_vector_load(b, lanes);
    for (int32_t r = 0; r < rows; ++r) {
      sums[r] = kg_vector_fma(a[r], factor, sums[r], lanes);
    }
  }
}

/* sums[r][l] += sum over t of a[r * a_pitch + t] * b[l * b_pitch + t] */
KG_INLINE void kg_tile_dots_f32(kg_vector *sums, const float *a, int32_t a_pitch, const float *b, int32_t b_pitch,
                                int32_t n, int32_t rows, int32_t lanes) {
  const float *from[KG_ROWS], *with[KG_LANES];
  for (int32_t r = 0; r < rows; ++r) {
    from[r] = a + r * a_pitch;
  }
  for (int32_t l = 0; l < lanes; ++l) {
    with[l] = b + l * b_pitch;
  }
  KG_UNROLL_2
  for (; n > 0; --n) {
    kg_vector factor = {0};
    for (int32_t l = 0; l < lanes; ++l) {
      KG_LANE(factor, l) = *with[l]++;
    }
    for (int32_t r = 0; r < rows; ++r) {
      sums[r] = kg_vector_fma(*from[r]++, factor, sums[r], lanes);
    }
    for (int32_t l = 0; l < lanes; ++l) {
      KG_KEEP(with[l]);
    }
    for (int32_t r = 0; r < rows; ++r) {
      KG_KEEP(from[r]);
    }
  }
}

#endif
