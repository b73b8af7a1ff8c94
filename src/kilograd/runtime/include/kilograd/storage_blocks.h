/* Storage on a device that moves whole blocks by functions of yours: an SD card, eMMC, NAND flash behind a translation
 * layer. C and C++.
 *
 *   static kg_blocks_t card = {...};
 *   static kg_storage_t storage;
 *   storage = kg_blocks_storage(&card);
 *
 * The network takes blocks first_block to first_block + blocks - 1, without a file system: a partition of its own, or
 * the blocks of a file that is known to be contiguous.
 */
#ifndef KILOGRAD_STORAGE_BLOCKS_H
#define KILOGRAD_STORAGE_BLOCKS_H

#include "kilograd/storage.h"

typedef struct kg_blocks {
  void *user; /* handed to the functions */

  /* Move count blocks from block number first on. false is an error. Memory is aligned to 4 bytes. */
  bool (*read)(void *user, uint32_t first, void *to, uint32_t count);
  bool (*write)(void *user, uint32_t first, const void *from, uint32_t count);

  uint32_t first_block;
  uint32_t blocks;
  uint32_t block_bytes; /* 512 for SD cards */
} kg_blocks_t;

static inline uint32_t kg_blocks_read(void *context, uint32_t offset, void *to, uint32_t bytes) {
  const kg_blocks_t *device = (const kg_blocks_t *)context;
  const uint32_t first = device->first_block + offset / device->block_bytes;
  return device->read(device->user, first, to, bytes / device->block_bytes) ? bytes : 0;
}

static inline uint32_t kg_blocks_write(void *context, uint32_t offset, const void *from, uint32_t bytes) {
  const kg_blocks_t *device = (const kg_blocks_t *)context;
  const uint32_t first = device->first_block + offset / device->block_bytes;
  return device->write(device->user, first, from, bytes / device->block_bytes) ? bytes : 0;
}

/* The storage on a device, which has to outlive it. Of a device of 4 GiB or more, the first 4 GiB less one block. */
static inline kg_storage_t kg_blocks_storage(kg_blocks_t *device) {
  const uint32_t most = 0xffffffffu / device->block_bytes;
  kg_storage_t storage;
  storage.context = device;
  storage.read = kg_blocks_read;
  storage.write = kg_blocks_write;
  storage.erase = NULL;
  storage.size_bytes = (device->blocks < most ? device->blocks : most) * device->block_bytes;
  storage.block_bytes = device->block_bytes;
  storage.erase_bytes = 0;
  return storage;
}

#endif
