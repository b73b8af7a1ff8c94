/* CMSIS-RTOS2 with one thread, which runs when the kernel starts. */
#ifndef CMSIS_OS2_H
#define CMSIS_OS2_H

#include "host_board.h"

typedef enum { osOK = 0, osError = -1 } osStatus_t;
typedef void (*osThreadFunc_t)(void *argument);
typedef void *osThreadId_t;
typedef struct {
  const char *name;
  uint32_t attr_bits;
  void *cb_mem;
  uint32_t cb_size;
  void *stack_mem;
  uint32_t stack_size;
  int priority;
} osThreadAttr_t;

static osThreadFunc_t host_thread;
static inline osStatus_t osKernelInitialize(void) { return osOK; }
static inline osThreadId_t osThreadNew(osThreadFunc_t function, void *argument, const osThreadAttr_t *attributes) {
  host_thread = function;
  return argument == NULL && attributes->stack_size >= 2048 ? &host_thread : NULL;
}
static inline osStatus_t osKernelStart(void) {
  host_thread(NULL);
  return osError;
}
static inline uint32_t osKernelGetTickCount(void) { return host_milliseconds; }
static inline uint32_t osKernelGetTickFreq(void) { return 1000; }
static inline osStatus_t osThreadYield(void) { return osOK; }
static inline osStatus_t osDelay(uint32_t ticks) { return ticks ? osOK : osError; }

#endif
