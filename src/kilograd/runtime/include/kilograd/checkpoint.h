/* The learned state as a byte string that knows what it belongs to.
 *
 *   bytes 0-3 "KGCP"   4-7 version   8-11 identity of network and state layout   12-15 bytes of state
 *   16-.. the state    then CRC-32 (ISO-HDLC) of everything before it; numbers are little-endian
 */
#ifndef KILOGRAD_CHECKPOINT_H
#define KILOGRAD_CHECKPOINT_H

#include "kilograd/base.h"

#define KG_CHECKPOINT_VERSION 1u

/* CRC-32 of size bytes, polynomial 0xEDB88320, continued from crc (0 at the start). */
static inline uint32_t kg_crc32(uint32_t crc, const uint8_t *data, size_t size) {
  static const uint32_t table[16] = {
      0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
      0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
  };
  crc = ~crc;
  for (size_t i = 0; i < size; ++i) {
    crc ^= data[i];
    crc = (crc >> 4) ^ table[crc & 15u];
    crc = (crc >> 4) ^ table[crc & 15u];
  }
  return ~crc;
}

static inline void kg_put_u32(uint8_t *to, uint32_t x) {
  for (int32_t i = 0; i < 4; ++i) {
    to[i] = (uint8_t)(x >> (8 * i));
  }
}

static inline uint32_t kg_get_u32(const uint8_t *from) {
  return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

/* Writes size bytes of state with header and checksum; returns the bytes written, 0 when capacity is too small. */
static inline size_t kg_checkpoint_write(uint8_t *buffer, size_t capacity, uint32_t identity, const void *state,
                                         uint32_t size) {
  const uint8_t *from = (const uint8_t *)state;
  if (capacity < (size_t)size + KG_CHECKPOINT_HEADER_BYTES) {
    return 0;
  }
  kg_put_u32(buffer, 0x5043474bu); /* "KGCP" */
  kg_put_u32(buffer + 4, KG_CHECKPOINT_VERSION);
  kg_put_u32(buffer + 8, identity);
  kg_put_u32(buffer + 12, size);
  for (uint32_t i = 0; i < size; ++i) {
    buffer[16 + i] = from[i];
  }
  kg_put_u32(buffer + 16 + size, kg_crc32(0, buffer, 16 + (size_t)size));
  return (size_t)size + KG_CHECKPOINT_HEADER_BYTES;
}

/* Reads what kg_checkpoint_write wrote; KG_ERROR_CHECKPOINT, and nothing changed, when anything is off. */
static inline kg_status kg_checkpoint_read(const uint8_t *buffer, size_t bytes, uint32_t identity, void *state,
                                           uint32_t size) {
  uint8_t *to = (uint8_t *)state;
  if (bytes != (size_t)size + KG_CHECKPOINT_HEADER_BYTES || kg_get_u32(buffer) != 0x5043474bu ||
      kg_get_u32(buffer + 4) != KG_CHECKPOINT_VERSION || kg_get_u32(buffer + 8) != identity ||
      kg_get_u32(buffer + 12) != size || kg_get_u32(buffer + 16 + size) != kg_crc32(0, buffer, 16 + (size_t)size)) {
    return KG_ERROR_CHECKPOINT;
  }
  for (uint32_t i = 0; i < size; ++i) {
    to[i] = buffer[16 + i];
  }
  return KG_OK;
}

#endif
