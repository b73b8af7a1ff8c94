#ifndef ZEPHYR_FLASH_MAP_H
#define ZEPHYR_FLASH_MAP_H

#include <string.h>
#include <sys/types.h>

#include "host_board.h"

struct flash_area {
  uint8_t fa_id;
  off_t fa_off;
  size_t fa_size;
};
#define FIXED_PARTITION_ID(label) HOST_PARTITION_##label
#define HOST_PARTITION_storage_partition 3

static inline int flash_area_open(uint8_t id, const struct flash_area **area) {
  static const struct flash_area storage = {3, 0, HOST_FLASH_BYTES};
  *area = &storage;
  return id == storage.fa_id ? 0 : -1;
}
static inline void flash_area_close(const struct flash_area *area) { (void)area; }
static inline uint32_t flash_area_align(const struct flash_area *area) { return area->fa_id == 3 ? 8 : 0; }
static inline int flash_area_read(const struct flash_area *area, off_t offset, void *data, size_t size) {
  (void)area;
  static uint8_t flash[HOST_FLASH_BYTES];
  if (!host_flash_read(flash, sizeof flash)) return -1;
  memcpy(data, flash + offset, size);
  return 0;
}
static inline int flash_area_erase(const struct flash_area *area, off_t offset, size_t size) {
  static uint8_t flash[HOST_FLASH_BYTES];
  memset(flash, 0xff, sizeof flash);
  return offset == 0 && size == area->fa_size && host_flash_write(flash, sizeof flash) ? 0 : -1;
}
static inline int flash_area_write(const struct flash_area *area, off_t offset, const void *data, size_t size) {
  static uint8_t flash[HOST_FLASH_BYTES];
  if (size % flash_area_align(area) != 0 || !host_flash_read(flash, sizeof flash)) return -1;
  memcpy(flash + offset, data, size);
  return host_flash_write(flash, sizeof flash) ? 0 : -1;
}

#endif
