/* Storage in NOR flash that is read like memory and written by functions of yours: QSPI flash in memory-mapped mode, or
 * the microcontroller's own. C and C++.
 *
 *   static kg_flash_t flash = {...};
 *   static kg_storage_t storage;
 *   storage = kg_flash_storage(&flash);
 *
 * Programming turns ones to zeros, so that what is written has to be erased before, which the network does. What was
 * programmed is compared with what was asked for. Flash of other kinds, and caches in front of it, are for program and
 * erase to care for: when they return, base has to read what they wrote.
 */
#ifndef KILOGRAD_STORAGE_FLASH_H
#define KILOGRAD_STORAGE_FLASH_H

#include "kilograd/storage.h"

typedef struct kg_flash {
  const uint8_t *base; /* where offset 0 is read */
  void *user;          /* handed to the functions */

  /* Programs bytes that lie within one page of page_bytes. false is an error. */
  bool (*program)(void *user, uint32_t offset, const uint8_t *from, uint32_t bytes);

  /* Erases the block of erase_bytes at offset. false is an error. */
  bool (*erase)(void *user, uint32_t offset);

  uint32_t size_bytes;
  uint32_t page_bytes;  /* what program takes at most; a multiple of write_bytes */
  uint32_t write_bytes; /* program starts and ends at multiples of this: 1 for QSPI flash, 4 to 32 for internal */
  uint32_t erase_bytes;
} kg_flash_t;

static inline uint32_t kg_flash_read(void *context, uint32_t offset, void *to, uint32_t bytes) {
  const uint8_t *from = ((const kg_flash_t *)context)->base + offset;
  for (uint32_t i = 0; i < bytes; ++i) {
    ((uint8_t *)to)[i] = from[i];
  }
  return bytes;
}

static inline uint32_t kg_flash_write(void *context, uint32_t offset, const void *from, uint32_t bytes) {
  const kg_flash_t *flash = (const kg_flash_t *)context;
  const uint8_t *data = (const uint8_t *)from;
  uint32_t done = 0;
  while (done < bytes) {
    const uint32_t room = flash->page_bytes - (offset + done) % flash->page_bytes;
    const uint32_t count = bytes - done < room ? bytes - done : room;
    if (!flash->program(flash->user, offset + done, data + done, count)) {
      return done;
    }
    for (uint32_t i = 0; i < count; ++i) {
      if (flash->base[offset + done + i] != data[done + i]) {
        return done;
      }
    }
    done += count;
  }
  return done;
}

static inline bool kg_flash_erase(void *context, uint32_t offset, uint32_t bytes) {
  const kg_flash_t *flash = (const kg_flash_t *)context;
  for (uint32_t done = 0; done < bytes; done += flash->erase_bytes) {
    if (!flash->erase(flash->user, offset + done)) {
      return false;
    }
  }
  return true;
}

/* The storage in flash, which has to outlive it. */
static inline kg_storage_t kg_flash_storage(kg_flash_t *flash) {
  kg_storage_t storage;
  storage.context = flash;
  storage.read = kg_flash_read;
  storage.write = kg_flash_write;
  storage.erase = kg_flash_erase;
  storage.size_bytes = flash->size_bytes;
  storage.block_bytes = flash->write_bytes;
  storage.erase_bytes = flash->erase_bytes;
  return storage;
}

#endif
