/* Moves of tensors between RAM and secondary storage (storage.h).
 *
 * Every page has a CRC-32 in RAM, made when the page is written and compared when it is read, so that a page that is
 * stale, torn or has a flipped bit is never taken for the tensor. block is one block of RAM, aligned to 4 bytes, for
 * the last bytes of a tensor that is no multiple of it, NULL for one that is. All functions return false where the
 * storage fails; the memory they write to is then unspecified.
 */
#ifndef KILOGRAD_PAGE_H
#define KILOGRAD_PAGE_H

#include "kilograd/base.h"
#include "kilograd/crc32.h"
#include "kilograd/storage.h"

/* Whether a storage serves a program whose tensors start at multiples of unit, in transfers of block bytes at most, and
 * need size bytes. A storage with finer blocks than the program was compiled for does. */
static inline bool kg_storage_fits(const kg_storage_t *storage, uint32_t size, uint32_t block, uint32_t unit,
                                   bool writes) {
  if (storage == NULL || storage->read == NULL || storage->size_bytes < size || storage->block_bytes == 0 ||
      block % storage->block_bytes != 0) {
    return false;
  }
  if (!writes) {
    return true;
  }
  return storage->write != NULL &&
         (storage->erase_bytes == 0 || (storage->erase != NULL && unit % storage->erase_bytes == 0));
}

/* tensor[0..bytes) = the bytes at offset. */
static inline bool kg_page_read(const kg_storage_t *storage, uint32_t offset, void *tensor, uint32_t bytes,
                                void *block) {
  if (storage == NULL) {
    return false;
  }
  const uint32_t size = storage->block_bytes, tail = bytes % size, body = bytes - tail;
  uint8_t *to = (uint8_t *)tensor;
  const uint8_t *from = (const uint8_t *)block;
  if (body != 0 && storage->read(storage->context, offset, tensor, body) != body) {
    return false;
  }
  if (tail != 0) {
    if (storage->read(storage->context, offset + body, block, size) != size) {
      return false;
    }
    KG_SMALL
    for (uint32_t i = 0; i < tail; ++i) {
      to[body + i] = from[i];
    }
  }
  return true;
}

/* The bytes at offset = tensor[0..bytes), blocks erased first; what is left of the last block is what block held. */
static inline bool kg_page_write(const kg_storage_t *storage, uint32_t offset, const void *tensor, uint32_t bytes,
                                 void *block) {
  if (storage == NULL) {
    return false;
  }
  const uint32_t size = storage->block_bytes, unit = storage->erase_bytes, tail = bytes % size, body = bytes - tail;
  const uint8_t *from = (const uint8_t *)tensor;
  uint8_t *to = (uint8_t *)block;
  if (unit != 0 && !storage->erase(storage->context, offset, (bytes + unit - 1) / unit * unit)) {
    return false;
  }
  if (body != 0 && storage->write(storage->context, offset, tensor, body) != body) {
    return false;
  }
  if (tail != 0) {
    KG_SMALL
    for (uint32_t i = 0; i < tail; ++i) {
      to[i] = from[body + i];
    }
    return storage->write(storage->context, offset + body, block, size) == size;
  }
  return true;
}

/* Reads a page into tensor and compares it with its checksum. */
KG_SHARED bool kg_page_in(const kg_storage_t *storage, uint32_t offset, const uint32_t *crc, void *tensor,
                          uint32_t bytes, void *block) {
  return kg_page_read(storage, offset, tensor, bytes, block) && kg_crc32_tensor(0, tensor, bytes) == *crc;
}

/* Writes tensor to a page and keeps its checksum. */
KG_SHARED bool kg_page_out(const kg_storage_t *storage, uint32_t offset, uint32_t *crc, const void *tensor,
                           uint32_t bytes, void *block) {
  *crc = kg_crc32_tensor(0, tensor, bytes);
  return kg_page_write(storage, offset, tensor, bytes, block);
}

/* kg_page_out of the next value of a state, which is read back (into tensor, where it is already) and compared: a write
 * that went wrong has to fail this step, since the next one could not undo it. */
KG_SHARED bool kg_page_keep(const kg_storage_t *storage, uint32_t offset, uint32_t *crc, void *tensor, uint32_t bytes,
                            void *block) {
  return kg_page_out(storage, offset, crc, tensor, bytes, block) &&
         kg_page_in(storage, offset, crc, tensor, bytes, block);
}

/* The bank that the next values of stored states go to: 1 and 2 take turns, 0 are the initial values. */
KG_INLINE uint32_t kg_next_bank(uint32_t bank) { return bank == 1u ? 2u : 1u; }

/* What the step stored is what counts from here on. */
static inline void kg_commit(uint32_t *bank, uint32_t *crcs, const uint32_t *next_crcs, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    crcs[i] = next_crcs[i];
  }
  *bank = kg_next_bank(*bank);
}

#endif
