/* The Preferences library of the ESP32 core. */
#ifndef PREFERENCES_H
#define PREFERENCES_H

#include "host_board.h"

class Preferences {
 public:
  bool begin(const char *, bool) { return true; }
  void end() {}
  size_t getBytes(const char *, void *data, size_t size) { return host_flash_read(data, size) ? size : 0; }
  size_t putBytes(const char *, const void *data, size_t size) { return host_flash_write(data, size) ? size : 0; }
};

#endif
