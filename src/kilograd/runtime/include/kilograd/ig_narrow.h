/* Integer gradients: how sums become int8 gradients, and the noise that they are rounded with.
 *
 * An int8 gradient g in [-127, 127] stands for g * 2^exponent, one exponent a tensor. A kernel computes int32 sums of
 * at most 2^30 in magnitude in units of 2^unit and keeps
 *   g = clamp((sum + noise) >> shift, -127, 127),   exponent = unit + shift,
 * with noise uniform in [0, 2^shift), so that the mean over the noise is the sum. The shift is the one that earlier
 * steps asked for, less the headroom of the gradient that the sums are of: the bits that it could have more. `wanted`
 * is the smallest with which nothing would have been cut off in this one, for a gradient without headroom. */
#ifndef KILOGRAD_IG_NARROW_H
#define KILOGRAD_IG_NARROW_H

#include "kilograd/random.h"
#include "kilograd/requantize.h"

#define KG_IG_MAX_SHIFT 24

/* The first `bits` of 32, as a number in [0, 2^bits); bits in [0, 32). */
KG_INLINE int32_t kg_noise_bits(uint32_t noise, int32_t bits) { return (int32_t)(noise >> 1 >> (31 - bits)); }

/* Bits of a magnitude: 0 for 0, 8 for 255. */
KG_INLINE int32_t kg_bit_length(uint32_t magnitude) {
  int32_t bits = 0;
  for (; magnitude != 0; magnitude >>= 1) {
    ++bits;
  }
  return bits;
}

/* How many bits smaller than 7 the largest of n magnitudes is; 0 where all are zero. */
static inline int32_t kg_headroom_s8(const int8_t *g, int32_t n) {
  uint32_t seen = 0;
  for (int32_t i = 0; i < n; ++i) {
    seen |= (uint32_t)(g[i] ^ g[i] >> 7);
  }
  return seen != 0 ? 7 - kg_bit_length(seen & 0x7fu) : 0;
}

/* What a kernel that narrows its sums has in hand. */
typedef struct kg_narrow {
  int32_t shift;
  int32_t headroom;
  uint32_t key;
  uint32_t seen; /* the bits that any sum's magnitude has */
} kg_narrow;

KG_INLINE kg_narrow kg_narrow_begin(int32_t shift, int32_t headroom, const uint32_t *seed, uint32_t salt) {
  const kg_narrow narrow = {.shift = kg_clamp_s32(shift - headroom, 0, KG_IG_MAX_SHIFT),
                            .headroom = headroom,
                            .key = kg_random_key(*seed, salt),
                            .seen = 0};
  return narrow;
}

KG_INLINE int8_t kg_narrow_s8(kg_narrow *narrow, int32_t sum, uint32_t index) {
  narrow->seen |= (uint32_t)(sum ^ sum >> 31);
  const int32_t noise = kg_noise_bits(kg_hash32(narrow->key + index), narrow->shift);
  return (int8_t)kg_clamp_s32((sum + noise) >> narrow->shift, -127, 127);
}

KG_INLINE void kg_narrow_end(const kg_narrow *narrow, int32_t unit, int32_t *exponent, int32_t *wanted) {
  const int32_t bits = kg_bit_length(narrow->seen);
  *exponent = unit + narrow->shift;
  *wanted = (bits > 7 ? bits - 7 : 0) + narrow->headroom;
}

/* The shift of the next step: what this one wanted where that is more, else one less at most, so that one small
 * gradient does not let the next large one be cut off. */
static inline void kg_shift_step(int32_t *shift, const int32_t *wanted) {
  *shift = *wanted < *shift ? *shift - 1 : *wanted;
}

#endif
