#ifndef ESP_TIMER_H
#define ESP_TIMER_H

#include "host_board.h"

static inline int64_t esp_timer_get_time(void) { return (int64_t)host_milliseconds * 1000; }

#endif
