/* The optimiser's step of weights that lie in secondary storage, a chunk at a time: RAM has the gradient, and of
 * weights, velocity and accumulator no more than a chunk each.
 */
#ifndef KILOGRAD_STORED_STEP_H
#define KILOGRAD_STORED_STEP_H

#include "kilograd/base.h"
#include "kilograd/crc32.h"
#include "kilograd/optimizer.h"
#include "kilograd/storage.h"

/* Where a tensor lies in storage, and its CRC-32. */
typedef struct kg_stored {
  const kg_storage_t *storage;
  uint32_t offset;
  uint32_t *crc;
} kg_stored;

/* What kg_stored_sgd_f32 works with. Without momentum there is no velocity; period is 1 without accumulator. */
typedef struct kg_sgd {
  float momentum;
  float decay;
  uint32_t period;
  uint32_t chunk_bytes; /* a multiple of the storage's block and of 4 */
} kg_sgd;

/* The step of kg_sgd_f32 (kg_sgd_plain_f32 without decay, momentum and accumulator) over n weights:
 *   next = step(now, g) for w, [velocity], [accumulator], in this order in now and next, which do not overlap.
 * Next values are read back. scratch has a word, which becomes 1 where all of next is finite and 0 elsewhere, and
 * behind it a chunk for each tensor. False where the storage fails; *next[k].crc is then unspecified. */
KG_SHARED bool kg_stored_sgd_f32(const kg_stored *now, const kg_stored *next, const float *g, uint32_t n, float rate,
                                 uint32_t step, const kg_sgd *sgd, void *scratch) {
  const kg_storage_t *storage = now[0].storage;
  if (storage == NULL) {
    return false;
  }
  const bool has_velocity = sgd->momentum != 0.0f, has_accumulator = sgd->period > 1;
  const uint32_t count = 1u + (has_velocity ? 1u : 0u) + (has_accumulator ? 1u : 0u);
  const uint32_t unit = storage->erase_bytes, block = storage->block_bytes, all = n * 4;
  const uint32_t most = sgd->chunk_bytes / 4;
  uint32_t *finite = (uint32_t *)scratch;
  float *w = (float *)(void *)(finite + 1);
  float *velocity = has_velocity ? w + most : NULL;
  float *accumulator = has_accumulator ? w + (count - 1) * most : NULL;
  uint32_t read[3] = {0}, written[3] = {0};
  *finite = 1;
  if (unit != 0) {
    for (uint32_t k = 0; k < count; ++k) {
      if (!next[k].storage->erase(next[k].storage->context, next[k].offset, (all + unit - 1) / unit * unit)) {
        return false;
      }
    }
  }
  for (uint32_t start = 0; start < n; start += most) {
    const uint32_t elements = n - start < most ? n - start : most, bytes = elements * 4;
    const uint32_t moved = (bytes + block - 1) / block * block;
    for (uint32_t k = 0; k < count; ++k) {
      float *chunk = w + k * most;
      const kg_storage_t *from = now[k].storage;
      if (from->read(from->context, now[k].offset + start * 4, chunk, moved) != moved) {
        return false;
      }
      read[k] = kg_crc32_tensor(read[k], chunk, bytes);
    }
    if (count == 1 && sgd->decay == 0.0f) {
      *finite &= kg_sgd_plain_finite_f32(w, g + start, (int32_t)elements, rate) ? 1u : 0u;
      kg_sgd_plain_f32(w, g + start, (int32_t)elements, rate);
    } else {
      *finite &= kg_sgd_finite_f32(w, velocity, accumulator, g + start, (int32_t)elements, rate, sgd->momentum,
                                   sgd->decay, step, sgd->period)
                     ? 1u
                     : 0u;
      kg_sgd_f32(w, velocity, accumulator, g + start, (int32_t)elements, rate, sgd->momentum, sgd->decay, step,
                 sgd->period);
    }
    for (uint32_t k = 0; k < count; ++k) {
      float *chunk = w + k * most;
      const uint32_t wanted = kg_crc32_tensor(written[k], chunk, bytes);
      const kg_storage_t *to = next[k].storage;
      if (to->write(to->context, next[k].offset + start * 4, chunk, moved) != moved ||
          to->read(to->context, next[k].offset + start * 4, chunk, moved) != moved) {
        return false;
      }
      written[k] = kg_crc32_tensor(written[k], chunk, bytes);
      if (written[k] != wanted) {
        return false;
      }
    }
  }
  for (uint32_t k = 0; k < count; ++k) {
    if (read[k] != *now[k].crc) {
      return false;
    }
    *next[k].crc = written[k];
  }
  return true;
}

/* Whether the step before found everything finite. */
KG_INLINE bool kg_stored_sgd_finite(const void *scratch) { return *(const uint32_t *)scratch != 0; }

#endif
