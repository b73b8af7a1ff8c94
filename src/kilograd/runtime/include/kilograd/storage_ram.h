/* Storage in memory that the processor reaches by address, such as PSRAM or a second bank of SRAM. C and C++.
 *
 *   static uint8_t memory[NET_STORAGE_BYTES];
 *   static kg_storage_t storage;
 *   storage = kg_ram_storage(memory, sizeof memory);
 */
#ifndef KILOGRAD_STORAGE_RAM_H
#define KILOGRAD_STORAGE_RAM_H

#include "kilograd/storage.h"

static inline uint32_t kg_ram_read(void *context, uint32_t offset, void *to, uint32_t bytes) {
  const uint8_t *memory = (const uint8_t *)context + offset;
  for (uint32_t i = 0; i < bytes; ++i) {
    ((uint8_t *)to)[i] = memory[i];
  }
  return bytes;
}

static inline uint32_t kg_ram_write(void *context, uint32_t offset, const void *from, uint32_t bytes) {
  uint8_t *memory = (uint8_t *)context + offset;
  for (uint32_t i = 0; i < bytes; ++i) {
    memory[i] = ((const uint8_t *)from)[i];
  }
  return bytes;
}

/* A storage of size_bytes at memory, which has to outlive it. */
static inline kg_storage_t kg_ram_storage(void *memory, uint32_t size_bytes) {
  const kg_storage_t storage = {memory, kg_ram_read, kg_ram_write, NULL, size_bytes, 1, 0};
  return storage;
}

#endif
