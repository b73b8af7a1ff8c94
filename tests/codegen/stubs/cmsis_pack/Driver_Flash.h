#ifndef DRIVER_FLASH_H
#define DRIVER_FLASH_H

#include <string.h>

#include "Driver_Common.h"

typedef void (*ARM_Flash_SignalEvent_t)(uint32_t event);
typedef struct {
  uint32_t event_ready : 1;
  uint32_t data_width : 2;
  uint32_t erase_chip : 1;
} ARM_FLASH_CAPABILITIES;
typedef struct {
  uint32_t busy : 1;
  uint32_t error : 1;
} ARM_FLASH_STATUS;
typedef const struct {
  void *sector_info;
  uint32_t sector_count;
  uint32_t sector_size;
} ARM_FLASH_INFO;
typedef struct {
  ARM_FLASH_CAPABILITIES (*GetCapabilities)(void);
  int32_t (*Initialize)(ARM_Flash_SignalEvent_t callback);
  int32_t (*PowerControl)(ARM_POWER_STATE state);
  int32_t (*ReadData)(uint32_t address, void *data, uint32_t count);
  int32_t (*ProgramData)(uint32_t address, const void *data, uint32_t count);
  int32_t (*EraseSector)(uint32_t address);
  ARM_FLASH_STATUS (*GetStatus)(void);
  ARM_FLASH_INFO *(*GetInfo)(void);
} const ARM_DRIVER_FLASH;

static uint8_t host_flash[HOST_FLASH_BYTES];
static ARM_FLASH_CAPABILITIES host_flash_capabilities(void) {
  ARM_FLASH_CAPABILITIES capabilities = {0, 2, 0}; /* words of 32 bits */
  return capabilities;
}
static int32_t host_flash_initialize(ARM_Flash_SignalEvent_t callback) { return callback == NULL ? 0 : -1; }
static int32_t host_flash_power(ARM_POWER_STATE state) { return state == ARM_POWER_FULL ? 0 : -1; }
static int32_t host_flash_get(uint32_t address, void *data, uint32_t count) {
  if (!host_flash_read(host_flash, sizeof host_flash)) return -1;
  memcpy(data, host_flash + address, count * 4);
  return (int32_t)count;
}
static int32_t host_flash_program(uint32_t address, const void *data, uint32_t count) {
  for (uint32_t i = 0; i < count * 4; ++i) {
    if (host_flash[address + i] != 0xff) return -1; /* programmed without an erase */
  }
  memcpy(host_flash + address, data, count * 4);
  return host_flash_write(host_flash, sizeof host_flash) ? (int32_t)count : -1;
}
static int32_t host_flash_erase(uint32_t address) {
  if (address % 256 != 0) return -1;
  memset(host_flash + address, 0xff, 256);
  return 0;
}
static ARM_FLASH_STATUS host_flash_status(void) {
  ARM_FLASH_STATUS status = {0, 0};
  return status;
}
static ARM_FLASH_INFO *host_flash_info(void) {
  static ARM_FLASH_INFO info = {NULL, HOST_FLASH_BYTES / 256, 256};
  return &info;
}
ARM_DRIVER_FLASH Driver_Flash0 = {host_flash_capabilities, host_flash_initialize, host_flash_power,  host_flash_get,
                                  host_flash_program,      host_flash_erase,      host_flash_status, host_flash_info};

#endif
