/* Clip masks as bits: bit i % 8 of byte i / 8 is set where element i was strictly inside its limits. */
#ifndef KILOGRAD_Q_MASK_H
#define KILOGRAD_Q_MASK_H

#include "kilograd/base.h"

/* The mask of n elements of y; the bits behind the last are zero. No overlap. */
KG_SHARED void kg_pack_mask_s8(uint8_t *restrict bits, const int8_t *restrict y, int32_t n, int32_t low, int32_t high) {
  /* low < y < high is one unsigned comparison. */
  const uint32_t width = high - low > 1 ? (uint32_t)(high - low - 1) : 0u;
  for (int32_t i = 0; i < n; i += 8, ++bits) {
    const int32_t count = n - i < 8 ? n - i : 8;
    uint32_t byte = 0;
    for (int32_t k = 0; k < count; ++k) {
      byte |= ((uint32_t)(y[i + k] - low - 1) < width ? 1u : 0u) << k;
    }
    *bits = (uint8_t)byte;
  }
}

/* d_x[i] = d_y[i] where bit i is set, else 0. d_x may be d_y. */
KG_SHARED void kg_mask_bits_f32(float *d_x, const float *d_y, const uint8_t *bits, int32_t n) {
  for (int32_t i = 0; i < n; i += 8, ++bits) {
    const int32_t count = n - i < 8 ? n - i : 8;
    uint32_t byte = *bits;
    for (int32_t k = 0; k < count; ++k, byte >>= 1) {
      d_x[i + k] = (byte & 1u) != 0u ? d_y[i + k] : 0.0f;
    }
  }
}

#endif
