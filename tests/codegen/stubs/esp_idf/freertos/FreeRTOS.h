/* FreeRTOS and what starts an application of ESP-IDF. */
#ifndef FREERTOS_H
#define FREERTOS_H

#include "esp_err.h"

typedef uint32_t TickType_t;
#define pdMS_TO_TICKS(milliseconds) ((TickType_t)(milliseconds) / 10u)

void app_main(void);

int main(void) {
  app_main();
  return 0;
}

#endif
