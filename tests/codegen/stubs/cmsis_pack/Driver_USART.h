#ifndef DRIVER_USART_H
#define DRIVER_USART_H

#include "Driver_Common.h"

#define ARM_USART_MODE_ASYNCHRONOUS 0x01u
#define ARM_USART_DATA_BITS_8 0u
#define ARM_USART_PARITY_NONE 0u
#define ARM_USART_STOP_BITS_1 0u
#define ARM_USART_CONTROL_TX 0x15u
#define ARM_USART_CONTROL_RX 0x16u
#define ARM_USART_ABORT_RECEIVE 0x19u

typedef void (*ARM_USART_SignalEvent_t)(uint32_t event);
typedef struct {
  uint32_t tx_busy : 1;
  uint32_t rx_busy : 1;
} ARM_USART_STATUS;
typedef struct {
  int32_t (*Initialize)(ARM_USART_SignalEvent_t callback);
  int32_t (*PowerControl)(ARM_POWER_STATE state);
  int32_t (*Send)(const void *data, uint32_t count);
  int32_t (*Receive)(void *data, uint32_t count);
  uint32_t (*GetRxCount)(void);
  int32_t (*Control)(uint32_t control, uint32_t argument);
  ARM_USART_STATUS (*GetStatus)(void);
} const ARM_DRIVER_USART;

static uint32_t host_usart_count;
static int32_t host_usart_initialize(ARM_USART_SignalEvent_t callback) { return callback == NULL ? 0 : -1; }
static int32_t host_usart_power(ARM_POWER_STATE state) { return state == ARM_POWER_FULL ? 0 : -1; }
static int32_t host_usart_send(const void *data, uint32_t count) { return host_write(data, count) == count ? 0 : -1; }
static int32_t host_usart_receive(void *data, uint32_t count) {
  host_usart_count = (uint32_t)host_read(data, count);
  return 0;
}
static uint32_t host_usart_rx_count(void) { return host_usart_count; }
static int32_t host_usart_control(uint32_t control, uint32_t argument) { return control != 0 || argument == 0 ? 0 : -1; }
static ARM_USART_STATUS host_usart_status(void) {
  ARM_USART_STATUS status = {0, 0};
  return status;
}
ARM_DRIVER_USART Driver_USART0 = {host_usart_initialize, host_usart_power,   host_usart_send,  host_usart_receive,
                                  host_usart_rx_count,   host_usart_control, host_usart_status};

#endif
