/* Products of matrices that both change from sample to sample, `batches` of them one after another. */
#ifndef KILOGRAD_MATMUL_H
#define KILOGRAD_MATMUL_H

#include "kilograd/base.h"

/* How many columns are summed at a time; bits do not depend on it. */
#ifdef __AVX__
#define KG_MATMUL_COLUMNS 16
#else
#define KG_MATMUL_COLUMNS 4
#endif

#if defined(__clang__)
#define KG_UNROLLED _Pragma("clang loop unroll(full)")
#else
#define KG_UNROLLED _Pragma("GCC unroll 16")
#endif

/* Where a(m, k) and b(k, n) lie: a[m * a_m + k * a_k] and b[k * b_k + n * b_n]. */
typedef struct kg_matmul_steps {
  int32_t a_m, a_k, b_k, b_n;
} kg_matmul_steps;

/* One block of kg_matmul_f32, `rows` by `columns` sums in registers. */
KG_INLINE void kg_matmul_block_f32(float *restrict y, const float *restrict a, const float *restrict b, int32_t rows,
                                   int32_t columns, int32_t K, int32_t N, kg_matmul_steps s) {
  float sum[4 * KG_MATMUL_COLUMNS];
  KG_UNROLLED
  for (int32_t i = 0; i < rows * columns; ++i) {
    sum[i] = 0.0f;
  }
  KG_SMALL
  for (int32_t k = 0; k < K; ++k) {
    KG_UNROLLED
    for (int32_t m = 0; m < rows; ++m) {
      const float factor = a[m * s.a_m + k * s.a_k];
      KG_UNROLLED
      for (int32_t n = 0; n < columns; ++n) {
        sum[m * columns + n] = KG_FMA(factor, b[k * s.b_k + n * s.b_n], sum[m * columns + n]);
      }
    }
  }
  KG_UNROLLED
  for (int32_t m = 0; m < rows; ++m) {
    KG_UNROLLED
    for (int32_t n = 0; n < columns; ++n) {
      y[m * N + n] = sum[m * columns + n];
    }
  }
}

/* `rows` rows of y. */
KG_INLINE void kg_matmul_rows_f32(float *restrict y, const float *restrict a, const float *restrict b, int32_t rows,
                                  int32_t columns, int32_t K, int32_t N, kg_matmul_steps s) {
  int32_t n = 0;
  for (; n + columns <= N; n += columns) {
    kg_matmul_block_f32(y + n, a, b + n * s.b_n, rows, columns, K, N, s);
  }
  for (; n < N; ++n) {
    kg_matmul_block_f32(y + n, a, b + n * s.b_n, rows, 1, K, N, s);
  }
}

/* y[m][n] = sum over k ascending of a(m, k) * b(k, n). No overlap of y; `columns` at a time. */
KG_INLINE void kg_matmul_any_f32(float *restrict y, const float *restrict a, const float *restrict b, int32_t columns,
                                 int32_t batches, int32_t M, int32_t K, int32_t N, kg_matmul_steps s) {
  for (int32_t batch = 0; batch < batches; ++batch, a += M * K, b += K * N) {
    const float *a_row = a;
    int32_t left = M;
    for (; left >= 4; left -= 4, y += 4 * N, a_row += 4 * s.a_m) {
      kg_matmul_rows_f32(y, a_row, b, 4, columns, K, N, s);
    }
    for (; left > 0; --left, y += N, a_row += s.a_m) {
      kg_matmul_rows_f32(y, a_row, b, 1, columns, K, N, s);
    }
  }
}

/* y[m][n] = sum over k ascending of a[m][k] * b[k][n]. No overlap of y. */
static inline void kg_matmul_f32(float *restrict y, const float *restrict a, const float *restrict b, int32_t batches,
                                 int32_t M, int32_t K, int32_t N) {
  const kg_matmul_steps steps = {.a_m = K, .a_k = 1, .b_k = N, .b_n = 1};
  kg_matmul_any_f32(y, a, b, KG_MATMUL_COLUMNS, batches, M, K, N, steps);
}

/* y[m][n] = sum over k ascending of a[k][m] * b[k][n]. No overlap of y. */
static inline void kg_matmul_transposed_a_f32(float *restrict y, const float *restrict a, const float *restrict b,
                                              int32_t batches, int32_t M, int32_t K, int32_t N) {
  const kg_matmul_steps steps = {.a_m = 1, .a_k = M, .b_k = N, .b_n = 1};
  kg_matmul_any_f32(y, a, b, KG_MATMUL_COLUMNS, batches, M, K, N, steps);
}

/* y[m][n] = sum over k ascending of a[m][k] * b[n][k]. No overlap of y. */
static inline void kg_matmul_transposed_b_f32(float *restrict y, const float *restrict a, const float *restrict b,
                                              int32_t batches, int32_t M, int32_t K, int32_t N) {
  const kg_matmul_steps steps = {.a_m = K, .a_k = 1, .b_k = 1, .b_n = K};
  kg_matmul_any_f32(y, a, b, 4, batches, M, K, N, steps);
}

#endif
