/* Random numbers without a generator's state: a hash of (seed, what for, index), the same on every target and the same
 * again when a computation is repeated. */
#ifndef KILOGRAD_RANDOM_H
#define KILOGRAD_RANDOM_H

#include "kilograd/base.h"

/* A bijection of 32 bits with good avalanche: "lowbias32" of Wellons' hash prospector. */
KG_INLINE uint32_t kg_hash32(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  x ^= x >> 16;
  return x;
}

/* The key of one tensor in one step; element i then draws kg_hash32(key + i). */
KG_INLINE uint32_t kg_random_key(uint32_t seed, uint32_t salt) { return kg_hash32(seed ^ kg_hash32(salt)); }

/* The upper 24 bits as a float in [0, 1). */
KG_INLINE float kg_uniform_f32(uint32_t bits) { return (float)(int32_t)(bits >> 8) * 5.9604644775390625e-8f; }

/* The seed of the next step. */
static inline void kg_advance_u32(uint32_t *seed) { *seed += 1u; }

#endif
