/* What the examples use of the Arduino language; stands in for a board's core. */
#ifndef ARDUINO_H
#define ARDUINO_H

#include "host_board.h"

#define LOW 0
#define INPUT_PULLUP 2
#define A0 14

class SerialPort {
 public:
  void begin(unsigned long) {}
  void setTimeout(unsigned long) {}
  size_t readBytes(char *buffer, size_t length) { return host_read(buffer, length); }
  size_t write(const uint8_t *buffer, size_t size) { return host_write(buffer, size); }
};

static SerialPort Serial;

static inline void pinMode(uint8_t, uint8_t) {}
static inline int digitalRead(uint8_t pin) { return pin == 2 && host_button() ? LOW : 1; }
static inline int analogRead(uint8_t) {
  static int reading;
  return reading = (reading * 37 + 11) % 1024;
}
static inline unsigned long millis() { return host_milliseconds; }
static inline void delay(unsigned long) {}

void setup();
void loop();

int main() {
  setup();
  for (;;) loop();
}

#endif
