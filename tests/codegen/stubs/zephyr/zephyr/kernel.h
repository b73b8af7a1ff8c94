#ifndef ZEPHYR_KERNEL_H
#define ZEPHYR_KERNEL_H

#include <sys/types.h>

#include "host_board.h"

static inline int64_t k_uptime_get(void) { return host_milliseconds; }
static inline uint32_t k_uptime_get_32(void) { return host_milliseconds; }
static inline int32_t k_msleep(int32_t milliseconds) { return milliseconds < 0; }

#endif
