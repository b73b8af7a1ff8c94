#ifndef CMSIS_VIO_H
#define CMSIS_VIO_H

#include "host_board.h"

#define vioBUTTON0 (1u)
#define vioAIN0 (0u)

static inline void vioInit(void) {}
static inline uint32_t vioGetSignal(uint32_t mask) { return host_button() ? mask : 0u; }
static inline int32_t vioGetValue(uint32_t id) {
  static int32_t last;
  return last = (last * 37 + 11 + (int32_t)id) % 4096;
}

#endif
