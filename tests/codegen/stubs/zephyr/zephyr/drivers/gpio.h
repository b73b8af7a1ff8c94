#ifndef ZEPHYR_GPIO_H
#define ZEPHYR_GPIO_H

#include <zephyr/device.h>

typedef uint32_t gpio_flags_t;
struct gpio_dt_spec {
  const struct device *port;
  uint8_t pin;
};
#define GPIO_INPUT (1u << 16)
#define GPIO_DT_SPEC_GET(node, property) HOST_GPIO_##property
#define HOST_GPIO_gpios {&host_device_zephyr_console, 11}

static inline bool gpio_is_ready_dt(const struct gpio_dt_spec *spec) { return spec->port != NULL; }
static inline int gpio_pin_configure_dt(const struct gpio_dt_spec *spec, gpio_flags_t flags) {
  return spec->pin == 11 && flags == GPIO_INPUT ? 0 : -1;
}
static inline int gpio_pin_get_dt(const struct gpio_dt_spec *spec) {
  (void)spec;
  return host_button() ? 1 : 0;
}

#endif
