/* Lookups in a table f32 [V][D] by N ids i32, and what trains the table. Ids have passed kg_ids_valid. Where `padding`
 * is an id (-1: none), its row is read but not trained. */
#ifndef KILOGRAD_EMBEDDING_H
#define KILOGRAD_EMBEDDING_H

#include "kilograd/base.h"
#include "kilograd/shape.h"

/* True when every id is in [0, V). */
static inline bool kg_ids_valid(const int32_t *ids, int32_t N, int32_t V) {
  for (int32_t n = 0; n < N; ++n) {
    if (ids[n] < 0 || ids[n] >= V) {
      return false;
    }
  }
  return true;
}

/* y[n][d] = table[ids[n]][d]. No overlap. */
static inline void kg_embedding_f32(float *restrict y, const float *restrict table, const int32_t *restrict ids,
                                    int32_t N, int32_t D) {
  for (int32_t n = 0; n < N; ++n) {
    kg_copy(y + n * D, table + ids[n] * D, D * (int32_t)sizeof(float));
  }
}

/* d_table[v][d] = sum over n with ids[n] = v of d_y[n][d], n ascending; zero for the padding. No overlap. */
KG_SHARED void kg_embedding_grad_f32(float *restrict d_table, const float *restrict d_y, const int32_t *restrict ids,
                                     int32_t N, int32_t V, int32_t D, int32_t padding) {
  kg_zero(d_table, V * D * (int32_t)sizeof(float));
  for (int32_t n = 0; n < N; ++n) {
    float *restrict row = d_table + ids[n] * D;
    if (ids[n] == padding) {
      continue;
    }
    for (int32_t d = 0; d < D; ++d) {
      row[d] += d_y[n * D + d];
    }
  }
}

/* table[ids[n]][d] <- table[ids[n]][d] - rate * d_y[n][d], n ascending, the padding excepted: a step of SGD that visits
 * only the rows that were read. No overlap. */
KG_SHARED void kg_embedding_step_f32(float *restrict table, const float *restrict d_y, const int32_t *restrict ids,
                                     int32_t N, int32_t D, int32_t padding, float rate) {
  for (int32_t n = 0; n < N; ++n) {
    float *restrict row = table + ids[n] * D;
    if (ids[n] == padding) {
      continue;
    }
    for (int32_t d = 0; d < D; ++d) {
      row[d] = KG_FMA(-rate, d_y[n * D + d], row[d]);
    }
  }
}

/* True when no id before position n is ids[n]. */
static inline bool kg_first_of_its_id(const int32_t *ids, int32_t n) {
  for (int32_t m = 0; m < n; ++m) {
    if (ids[m] == ids[n]) {
      return false;
    }
  }
  return true;
}

/* True when kg_embedding_step_f32 would leave every row that it visits finite; changes nothing. A row that several
 * positions visit is followed through all of them. */
KG_SHARED bool kg_embedding_step_finite_f32(const float *table, const float *d_y, const int32_t *ids, int32_t N,
                                            int32_t D, int32_t padding, float rate) {
  float poison = 0.0f;
  for (int32_t n = 0; n < N; ++n) {
    if (ids[n] == padding || !kg_first_of_its_id(ids, n)) {
      continue;
    }
    int32_t last = N - 1;
    while (ids[last] != ids[n]) {
      --last;
    }
    for (int32_t d = 0; d < D; ++d) {
      float w = KG_FMA(-rate, d_y[n * D + d], table[ids[n] * D + d]);
      for (int32_t m = n + 1; m <= last; ++m) {
        if (ids[m] == ids[n]) {
          w = KG_FMA(-rate, d_y[m * D + d], w);
        }
      }
      poison = KG_FMA(w, 0.0f, poison);
    }
  }
  return poison == 0.0f;
}

#endif
