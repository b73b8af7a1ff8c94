#ifndef ZEPHYR_UART_H
#define ZEPHYR_UART_H

#include <zephyr/device.h>

static inline int uart_poll_in(const struct device *device, unsigned char *character) {
  (void)device;
  return host_read(character, 1) == 1 ? 0 : -1;
}
static inline void uart_poll_out(const struct device *device, unsigned char character) {
  (void)device;
  (void)host_write(&character, 1);
}

#endif
