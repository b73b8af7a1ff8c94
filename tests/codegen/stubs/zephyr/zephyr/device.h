/* Zephyr's devices; the device tree has a console, a button sw0, an ADC channel and a storage partition. */
#ifndef ZEPHYR_DEVICE_H
#define ZEPHYR_DEVICE_H

#include "host_board.h"

struct device {
  const char *name;
};
static const struct device host_device_zephyr_console = {"console"};
#define DT_CHOSEN(property) property
#define DT_ALIAS(alias) alias
#define DT_PATH(node) node
#define DEVICE_DT_GET(node) HOST_DEVICE(node)
#define HOST_DEVICE(node) (&host_device_##node)

static inline bool device_is_ready(const struct device *device) { return device->name != NULL; }

#endif
