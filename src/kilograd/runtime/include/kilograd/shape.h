/* Copies: nothing here computes. Sizes are in bytes, so every element type goes through the same code. */
#ifndef KILOGRAD_SHAPE_H
#define KILOGRAD_SHAPE_H

#include "kilograd/base.h"

/* Sets size bytes to one value. */
static inline void kg_fill(void *y, uint8_t value, int32_t size) {
  uint8_t *to = (uint8_t *)y;
  for (int32_t i = 0; i < size; ++i) {
    to[i] = value;
  }
}

/* Sets size bytes to zero. */
static inline void kg_zero(void *y, int32_t size) { kg_fill(y, 0, size); }

/* Copies `rows` rows of `size` bytes; rows start x_pitch and y_pitch bytes apart. No overlap. */
static inline void kg_copy_rows(void *restrict y, const void *restrict x, int32_t rows, int32_t size, int32_t x_pitch,
                                int32_t y_pitch) {
  for (int32_t r = 0; r < rows; ++r) {
    uint8_t *to = (uint8_t *)y + (ptrdiff_t)r * y_pitch;
    const uint8_t *from = (const uint8_t *)x + (ptrdiff_t)r * x_pitch;
    for (int32_t i = 0; i < size; ++i) {
      to[i] = from[i];
    }
  }
}

#endif
