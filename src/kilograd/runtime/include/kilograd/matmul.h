/* Products of matrices that both change from sample to sample, `batches` of them one after another. */
#ifndef KILOGRAD_MATMUL_H
#define KILOGRAD_MATMUL_H

#include "kilograd/base.h"
#include "kilograd/reduce.h"

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

/* One block of kg_matmul_f32, `rows` by `columns` sums in registers. */
KG_INLINE void kg_matmul_block_f32(float *restrict y, const float *restrict a, const float *restrict b, int32_t rows,
                                   int32_t columns, int32_t K, int32_t N, int32_t a_m, int32_t a_k) {
  float sum[4 * KG_MATMUL_COLUMNS];
  KG_UNROLLED
  for (int32_t i = 0; i < rows * columns; ++i) {
    sum[i] = 0.0f;
  }
  KG_ROLLED
  for (int32_t k = 0; k < K; ++k) {
    KG_UNROLLED
    for (int32_t m = 0; m < rows; ++m) {
      const float factor = a[m * a_m + k * a_k];
      KG_UNROLLED
      for (int32_t n = 0; n < columns; ++n) {
        sum[m * columns + n] = KG_FMA(factor, b[k * N + n], sum[m * columns + n]);
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

/* y[m][n] = sum over k ascending of a(m, k) * b[k][n], where a(m, k) = a[m * a_m + k * a_k]: rows of a matrix (a_m = K,
 * a_k = 1) or of its transpose (a_m = 1, a_k = M). No overlap. */
static inline void kg_matmul_f32(float *restrict y, const float *restrict a, const float *restrict b, int32_t batches,
                                 int32_t M, int32_t K, int32_t N, int32_t a_m, int32_t a_k) {
  for (int32_t batch = 0; batch < batches; ++batch, y += M * N, a += M * K, b += K * N) {
    int32_t m = 0;
    for (; m + 4 <= M; m += 4) {
      int32_t n = 0;
      for (; n + KG_MATMUL_COLUMNS <= N; n += KG_MATMUL_COLUMNS) {
        kg_matmul_block_f32(y + m * N + n, a + m * a_m, b + n, 4, KG_MATMUL_COLUMNS, K, N, a_m, a_k);
      }
      for (; n < N; ++n) {
        kg_matmul_block_f32(y + m * N + n, a + m * a_m, b + n, 4, 1, K, N, a_m, a_k);
      }
    }
    for (; m < M; ++m) {
      int32_t n = 0;
      for (; n + KG_MATMUL_COLUMNS <= N; n += KG_MATMUL_COLUMNS) {
        kg_matmul_block_f32(y + m * N + n, a + m * a_m, b + n, 1, KG_MATMUL_COLUMNS, K, N, a_m, a_k);
      }
      for (; n < N; ++n) {
        kg_matmul_block_f32(y + m * N + n, a + m * a_m, b + n, 1, 1, K, N, a_m, a_k);
      }
    }
  }
}

/* y[m][n] = sum over k of a[m][k] * b[n][k], in eight chains. No overlap of y. */
static inline void kg_matmul_transposed_f32(float *restrict y, const float *a, const float *b, int32_t batches,
                                            int32_t M, int32_t K, int32_t N) {
  for (int32_t batch = 0; batch < batches; ++batch, a += M * K, b += N * K) {
    for (int32_t m = 0; m < M; ++m) {
      for (int32_t n = 0; n < N; ++n) {
        const float *row = a + m * K, *other = b + n * K;
        float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        KG_CHAINS8(K, sum[k] = KG_FMA(row[i], other[i], sum[k]));
        *y++ = kg_join8_f32(sum);
      }
    }
  }
}

#endif
