/* Secondary storage of a network that pages: what the firmware gives it. C and C++.
 *
 * Offsets count from the start of the storage. Every transfer starts and ends at a multiple of block_bytes, every erase
 * at one of erase_bytes; memory is aligned to 4 bytes. Drivers for memory, memory-mapped flash, block devices and files
 * are in the storage_*.h beside this file.
 */
#ifndef KILOGRAD_STORAGE_H
#define KILOGRAD_STORAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct kg_storage {
  void *context; /* handed to the functions */

  /* Both return the number of bytes moved; anything but bytes is an error. */
  uint32_t (*read)(void *context, uint32_t offset, void *to, uint32_t bytes);
  uint32_t (*write)(void *context, uint32_t offset, const void *from, uint32_t bytes);

  /* Erases before a write; false is an error. Not called, and may be NULL, where erase_bytes is 0. */
  bool (*erase)(void *context, uint32_t offset, uint32_t bytes);

  uint32_t size_bytes;
  uint32_t block_bytes; /* at least 1 */
  uint32_t erase_bytes; /* 0 where a write needs no erase */
} kg_storage_t;

#endif
