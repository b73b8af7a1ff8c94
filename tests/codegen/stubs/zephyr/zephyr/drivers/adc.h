#ifndef ZEPHYR_ADC_H
#define ZEPHYR_ADC_H

#include <zephyr/device.h>

struct adc_dt_spec {
  const struct device *dev;
  uint8_t channel_id;
};
struct adc_sequence {
  const void *options;
  uint32_t channels;
  void *buffer;
  size_t buffer_size;
  uint8_t resolution;
};
#define ADC_DT_SPEC_GET(node) HOST_ADC_##node
#define HOST_ADC_DT_PATH(node) {&host_device_zephyr_console, 0}

static inline bool adc_is_ready_dt(const struct adc_dt_spec *spec) { return spec->dev != NULL; }
static inline int adc_channel_setup_dt(const struct adc_dt_spec *spec) { return spec->channel_id; }
static inline int adc_sequence_init_dt(const struct adc_dt_spec *spec, struct adc_sequence *sequence) {
  sequence->channels = 1u << spec->channel_id;
  sequence->resolution = 12;
  return 0;
}
static inline int adc_read_dt(const struct adc_dt_spec *spec, const struct adc_sequence *sequence) {
  static int16_t last;
  (void)spec;
  last = (int16_t)((last * 37 + 11) % 4096);
  *(int16_t *)sequence->buffer = last;
  return sequence->channels == 1u && sequence->buffer_size == sizeof last ? 0 : -1;
}

#endif
