#ifndef UART_H
#define UART_H

#include "esp_err.h"
#include "freertos/FreeRTOS.h"

typedef int uart_port_t;
typedef void *QueueHandle_t;
typedef enum { UART_DATA_8_BITS = 3 } uart_word_length_t;
typedef enum { UART_STOP_BITS_1 = 1 } uart_stop_bits_t;
typedef enum { UART_PARITY_DISABLE = 0 } uart_parity_t;
typedef enum { UART_HW_FLOWCTRL_DISABLE = 0 } uart_hw_flowcontrol_t;
typedef struct {
  int baud_rate;
  uart_word_length_t data_bits;
  uart_parity_t parity;
  uart_stop_bits_t stop_bits;
  uart_hw_flowcontrol_t flow_ctrl;
  uint8_t rx_flow_ctrl_thresh;
} uart_config_t;
#define UART_NUM_0 0

static inline esp_err_t uart_driver_install(uart_port_t port, int rx_buffer_size, int tx_buffer_size, int queue_size,
                                            QueueHandle_t *queue, int flags) {
  (void)tx_buffer_size, (void)queue_size, (void)queue, (void)flags;
  return port == UART_NUM_0 && rx_buffer_size > 128 ? ESP_OK : -1; /* more than the hardware's FIFO */
}
static inline esp_err_t uart_param_config(uart_port_t port, const uart_config_t *config) {
  return port == UART_NUM_0 && config->baud_rate > 0 ? ESP_OK : -1;
}
static inline int uart_read_bytes(uart_port_t port, void *buffer, uint32_t length, TickType_t ticks) {
  (void)port, (void)ticks;
  return (int)host_read(buffer, length);
}
static inline int uart_write_bytes(uart_port_t port, const void *source, size_t size) {
  (void)port;
  return (int)host_write(source, size);
}

#endif
