/* The key-value store of Mbed boards. */
#ifndef KVSTORE_GLOBAL_API_H
#define KVSTORE_GLOBAL_API_H

#include "host_board.h"

static inline int kv_get(const char *, void *buffer, size_t size, size_t *actual_size) {
  *actual_size = host_flash_read(buffer, size) ? size : 0;
  return *actual_size == size ? 0 : -1;
}

static inline int kv_set(const char *, const void *buffer, size_t size, uint32_t) {
  return host_flash_write(buffer, size) ? 0 : -1;
}

#endif
