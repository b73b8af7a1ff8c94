#ifndef NVS_H
#define NVS_H

#include <string.h>

#include "esp_err.h"

typedef uint32_t nvs_handle_t;
typedef enum { NVS_READONLY, NVS_READWRITE } nvs_open_mode_t;

static inline esp_err_t nvs_open(const char *space, nvs_open_mode_t mode, nvs_handle_t *handle) {
  (void)mode;
  *handle = 1;
  return strlen(space) <= 15 ? ESP_OK : -1;
}
static inline esp_err_t nvs_get_blob(nvs_handle_t handle, const char *key, void *value, size_t *length) {
  return handle == 1 && strlen(key) <= 15 && host_flash_read(value, *length) ? ESP_OK : -1;
}
static inline esp_err_t nvs_set_blob(nvs_handle_t handle, const char *key, const void *value, size_t length) {
  return handle == 1 && strlen(key) <= 15 && host_flash_write(value, length) ? ESP_OK : -1;
}
static inline esp_err_t nvs_commit(nvs_handle_t handle) { return handle == 1 ? ESP_OK : -1; }
static inline void nvs_close(nvs_handle_t handle) { (void)handle; }

#endif
