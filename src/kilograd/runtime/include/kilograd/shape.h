/* Copies: nothing here computes. Sizes and steps are in bytes, so every element type goes through the same code.
 *
 * Copies and fills are the compiler's __builtin_memcpy and __builtin_memset: small literal sizes become a few load and
 * store instructions, the rest a call of memcpy or memset. GCC and Clang turn plain loops into the same calls and ask
 * every freestanding program to supply these functions: zig cc links its own, and arm-none-eabi-gcc takes them from
 * newlib (-lc; with -nostdlib, name -lc -lgcc). No other library function is called. */
#ifndef KILOGRAD_SHAPE_H
#define KILOGRAD_SHAPE_H

#include "kilograd/base.h"

#if defined(__GNUC__)
typedef uint32_t __attribute__((may_alias)) kg_word; /* four bytes of any element type */
#else
typedef uint32_t kg_word;
#endif

/* True when pointers and sizes are multiples of four bytes. */
KG_INLINE bool kg_whole_words(const void *y, const void *x, int32_t sizes) {
  return (((uintptr_t)y | (uintptr_t)x | (uintptr_t)sizes) & 3u) == 0;
}

/* Copies size bytes. No overlap. */
KG_INLINE void kg_copy(void *restrict y, const void *restrict x, int32_t size) {
  if (kg_whole_words(y, x, size)) { /* inline copies of whole words, even where unaligned loads fault */
    __builtin_memcpy(__builtin_assume_aligned(y, 4), __builtin_assume_aligned(x, 4), (size_t)size);
  } else {
    __builtin_memcpy(y, x, (size_t)size);
  }
}

/* Sets size bytes to zero. */
static inline void kg_zero(void *y, int32_t size) { __builtin_memset(y, 0, (size_t)size); }

/* Sets size bytes to `value`. */
static inline void kg_fill_bytes(void *y, int32_t value, int32_t size) { __builtin_memset(y, value, (size_t)size); }

/* Sets count four-byte elements to the bits `value`. */
static inline void kg_fill_words(void *y, uint32_t value, int32_t count) {
  kg_word *to = (kg_word *)y;
  for (int32_t i = 0; i < count; ++i) {
    to[i] = value;
  }
}

/* Copies `rows` rows of `size` bytes; rows start x_pitch and y_pitch bytes apart. No overlap. */
static inline void kg_copy_rows(void *restrict y, const void *restrict x, int32_t rows, int32_t size, int32_t x_pitch,
                                int32_t y_pitch) {
  if (size == x_pitch && size == y_pitch) {
    kg_copy(y, x, rows * size);
    return;
  }
  uint8_t *to = (uint8_t *)y;
  const uint8_t *from = (const uint8_t *)x;
  for (int32_t r = 0; r < rows; ++r, to += y_pitch, from += x_pitch) {
    kg_copy(to, from, size);
  }
}

/* Copies `count` pieces of `size` bytes; pieces start x_step and y_step bytes apart. No overlap. */
static inline void kg_copy_pieces(void *restrict y, const void *restrict x, int32_t count, int32_t size, int32_t x_step,
                                  int32_t y_step) {
  if (size == 4 && kg_whole_words(y, x, x_step | y_step)) {
    kg_word *to = (kg_word *)y;
    const kg_word *from = (const kg_word *)x;
    const int32_t to_step = y_step / 4, from_step = x_step / 4;
    for (int32_t i = 0; i < count; ++i) {
      to[i * to_step] = from[i * from_step];
    }
  } else if (size == 1) {
    uint8_t *to = (uint8_t *)y;
    const uint8_t *from = (const uint8_t *)x;
    for (int32_t i = 0; i < count; ++i) {
      to[i * y_step] = from[i * x_step];
    }
  } else {
    kg_copy_rows(y, x, count, size, x_step, y_step);
  }
}

/* Copies a grid shape[6] of pieces of `size` bytes; along axis i they start x_step[i] and y_step[i] bytes apart. No
 * overlap. */
static inline void kg_copy_grid(void *restrict y, const void *restrict x, const int32_t shape[6],
                                const int32_t x_step[6], const int32_t y_step[6], int32_t size) {
  uint8_t *to = (uint8_t *)y;
  const uint8_t *from = (const uint8_t *)x;
  int32_t i[5] = {0, 0, 0, 0, 0};
  for (;;) {
    kg_copy_pieces(to, from, shape[5], size, x_step[5], y_step[5]);
    int32_t axis = 4;
    for (; axis >= 0; --axis) { /* the next row: count up like an odometer */
      to += y_step[axis];
      from += x_step[axis];
      if (++i[axis] < shape[axis]) {
        break;
      }
      to -= shape[axis] * y_step[axis];
      from -= shape[axis] * x_step[axis];
      i[axis] = 0;
    }
    if (axis < 0) {
      return;
    }
  }
}

/* y[c][r] = x[r][c] for x of R rows and C columns of `size` bytes an element. Runs of eight columns keep both sides in
 * few cache lines. No overlap. */
static inline void kg_transpose(void *restrict y, const void *restrict x, int32_t R, int32_t C, int32_t size) {
  uint8_t *to = (uint8_t *)y;
  const uint8_t *from = (const uint8_t *)x;
  for (int32_t c = 0; c < C; c += 8) {
    const int32_t columns = C - c < 8 ? C - c : 8;
    for (int32_t r = 0; r < R; ++r) {
      kg_copy_pieces(to + (c * R + r) * size, from + (r * C + c) * size, columns, size, size, R * size);
    }
  }
}

#endif
