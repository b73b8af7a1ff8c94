#ifndef GPIO_H
#define GPIO_H

#include "esp_err.h"

typedef enum { GPIO_NUM_0 = 0 } gpio_num_t;
typedef enum { GPIO_MODE_INPUT = 1 } gpio_mode_t;
typedef enum { GPIO_PULLUP_DISABLE = 0, GPIO_PULLUP_ENABLE = 1 } gpio_pullup_t;
typedef struct {
  uint64_t pin_bit_mask;
  gpio_mode_t mode;
  gpio_pullup_t pull_up_en;
  int pull_down_en;
  int intr_type;
} gpio_config_t;

static inline esp_err_t gpio_config(const gpio_config_t *config) { return config->pin_bit_mask == 1 ? ESP_OK : -1; }
static inline int gpio_get_level(gpio_num_t pin) { return pin == GPIO_NUM_0 && host_button() ? 0 : 1; }

#endif
