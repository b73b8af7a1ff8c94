#ifndef ADC_ONESHOT_H
#define ADC_ONESHOT_H

#include "esp_err.h"

typedef enum { ADC_UNIT_1 = 0 } adc_unit_t;
typedef enum { ADC_CHANNEL_0 = 0 } adc_channel_t;
typedef enum { ADC_ATTEN_DB_12 = 3 } adc_atten_t;
typedef enum { ADC_BITWIDTH_12 = 12 } adc_bitwidth_t;
typedef struct host_adc *adc_oneshot_unit_handle_t;
typedef struct {
  adc_unit_t unit_id;
  int clk_src;
  int ulp_mode;
} adc_oneshot_unit_init_cfg_t;
typedef struct {
  adc_atten_t atten;
  adc_bitwidth_t bitwidth;
} adc_oneshot_chan_cfg_t;

static inline esp_err_t adc_oneshot_new_unit(const adc_oneshot_unit_init_cfg_t *config,
                                             adc_oneshot_unit_handle_t *unit) {
  *unit = NULL;
  return config->unit_id == ADC_UNIT_1 ? ESP_OK : -1;
}
static inline esp_err_t adc_oneshot_config_channel(adc_oneshot_unit_handle_t unit, adc_channel_t channel,
                                                   const adc_oneshot_chan_cfg_t *config) {
  (void)unit, (void)channel;
  return config->bitwidth == ADC_BITWIDTH_12 ? ESP_OK : -1;
}
static inline esp_err_t adc_oneshot_read(adc_oneshot_unit_handle_t unit, adc_channel_t channel, int *reading) {
  static int last;
  (void)unit, (void)channel;
  *reading = last = (last * 37 + 11) % 4096;
  return ESP_OK;
}

#endif
