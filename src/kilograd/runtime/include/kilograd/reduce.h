/* Sums over the middle of three runs of axes, x[outer][count][inner], and their transpose. */
#ifndef KILOGRAD_REDUCE_H
#define KILOGRAD_REDUCE_H

#include "kilograd/base.h"

/* Neighbouring sums that a block keeps in registers. The bits do not depend on it. */
#if defined(__arm__) || defined(__riscv)
#define KG_REDUCE_LANES 16
#else
#define KG_REDUCE_LANES 32
#endif

/* y[j] = scale * (x[j] + x[inner + j] + ...), `lanes` sums side by side, each one chain in ascending order. */
KG_INLINE void kg_reduce_lanes_f32(float *restrict y, const float *restrict x, int32_t count, int32_t inner,
                                   float scale, int32_t lanes) {
  float sum[KG_REDUCE_LANES];
  for (int32_t j = 0; j < lanes; ++j) {
    sum[j] = x[j];
  }
  for (int32_t b = 1; b < count; ++b) {
    x += inner;
    for (int32_t j = 0; j < lanes; ++j) {
      sum[j] += x[j];
    }
  }
  for (int32_t j = 0; j < lanes; ++j) {
    y[j] = sum[j] * scale;
  }
}

/* The sum over b of x[b * inner] in eight interleaved chains that start at 0 (chain b modulo 8, each ascending), joined
 * as ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)). */
KG_INLINE float kg_reduce_chains_f32(const float *restrict x, int32_t count, int32_t inner) {
  float s[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  int32_t b = 0;
  for (; b + 8 <= count; b += 8, x += 8 * inner) {
    for (int32_t j = 0; j < 8; ++j) {
      s[j] += x[j * inner];
    }
  }
  for (int32_t j = 0; j < 7; ++j) { /* what is left, without an index that the compiler does not know */
    if (b + j < count) {
      s[j] += x[j * inner];
    }
  }
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* y[a][c] = scale * (sum over b of x[a][b][c]). The order of a sum is one ascending chain where inner >= 4, and that of
 * kg_reduce_chains_f32 where inner < 4. No overlap. */
static inline void kg_reduce_f32(float *restrict y, const float *restrict x, int32_t outer, int32_t count,
                                 int32_t inner, float scale) {
  for (int32_t a = 0; a < outer; ++a, x += count * inner, y += inner) {
    int32_t c = 0;
    if (inner == 1) {
      y[0] = kg_reduce_chains_f32(x, count, 1) * scale;
      continue;
    }
    if (inner < 4) {
      for (; c < inner; ++c) {
        y[c] = kg_reduce_chains_f32(x + c, count, inner) * scale;
      }
      continue;
    }
    for (; c + KG_REDUCE_LANES <= inner; c += KG_REDUCE_LANES) {
      kg_reduce_lanes_f32(y + c, x + c, count, inner, scale, KG_REDUCE_LANES);
    }
    for (; c + 8 <= inner; c += 8) {
      kg_reduce_lanes_f32(y + c, x + c, count, inner, scale, 8);
    }
    for (; c < inner; ++c) {
      kg_reduce_lanes_f32(y + c, x + c, count, inner, scale, 1);
    }
  }
}

/* y[a][b][c] = scale * x[a][c]. No overlap. */
static inline void kg_spread_f32(float *restrict y, const float *restrict x, int32_t outer, int32_t count,
                                 int32_t inner, float scale) {
  for (int32_t a = 0; a < outer; ++a, x += inner) {
    if (inner == 1) {
      const float value = x[0] * scale;
      for (int32_t b = 0; b < count; ++b) {
        y[b] = value;
      }
      y += count;
      continue;
    }
    for (int32_t b = 0; b < count; ++b, y += inner) {
      for (int32_t c = 0; c < inner; ++c) {
        y[c] = x[c] * scale;
      }
    }
  }
}

/* The sum of eight interleaved chains: a long sum of contiguous numbers runs in chain i modulo 8, each ascending. */
KG_INLINE float kg_join8_f32(const float *chain) {
  return ((chain[0] + chain[4]) + (chain[2] + chain[6])) + ((chain[1] + chain[5]) + (chain[3] + chain[7]));
}

/* Adds an expression of i to chain[i modulo 8] for i from 0 to D - 1. */
#define KG_CHAINS8(D, update)            \
  do {                                   \
    int32_t begin = 0;                   \
    KG_SMALL                             \
    for (; begin + 8 <= D; begin += 8) { \
      for (int32_t k = 0; k < 8; ++k) {  \
        const int32_t i = begin + k;     \
        update;                          \
      }                                  \
    }                                    \
    for (int32_t k = 0; k < 8; ++k) {    \
      const int32_t i = begin + k;       \
      if (i < D) {                       \
        update;                          \
      }                                  \
    }                                    \
  } while (false)

/* How many sums go on in registers at a time; bits do not depend on it. */
#ifdef __AVX__
#define KG_SUMS 32
#else
#define KG_SUMS 8
#endif

/* y[a][c] = sum over b of u[a][b][c] * v[a][b][c], one fused multiply-add a term. b ascends; with inner = 1 the sum
 * runs in eight chains. No overlap of y; u may be v. */
static inline void kg_reduce_product_f32(float *restrict y, const float *u, const float *v, int32_t outer,
                                         int32_t count, int32_t inner) {
  for (int32_t a = 0; a < outer; ++a, u += count * inner, v += count * inner, y += inner) {
    if (inner == 1) {
      float chain[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
      KG_CHAINS8(count, chain[k] = KG_FMA(u[i], v[i], chain[k]));
      y[0] = kg_join8_f32(chain);
      continue;
    }
    int32_t c = 0;
    for (; c + KG_SUMS <= inner; c += KG_SUMS) {
      float sum[KG_SUMS] = {0.0f};
      KG_SMALL
      for (int32_t b = 0; b < count; ++b) {
        for (int32_t k = 0; k < KG_SUMS; ++k) {
          sum[k] = KG_FMA(u[b * inner + c + k], v[b * inner + c + k], sum[k]);
        }
      }
      for (int32_t k = 0; k < KG_SUMS; ++k) {
        y[c + k] = sum[k];
      }
    }
    for (; c < inner; ++c) {
      float sum = 0.0f;
      KG_SMALL
      for (int32_t b = 0; b < count; ++b) {
        sum = KG_FMA(u[b * inner + c], v[b * inner + c], sum);
      }
      y[c] = sum;
    }
  }
}

#endif
