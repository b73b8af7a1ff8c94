/* The EEPROM library; begin and commit as the cores have them that keep the EEPROM in RAM. */
#ifndef EEPROM_H
#define EEPROM_H

#include "host_board.h"

class EEPROMClass {
 public:
  void begin(size_t) {}
  bool commit() { return true; }
  uint16_t length() { return 4096; }
  uint8_t read(int address) {
    load();
    return bytes_[address];
  }
  void write(int address, uint8_t value) {
    load();
    bytes_[address] = value;
    host_flash_write(bytes_, sizeof bytes_);
  }

 private:
  void load() { (void)host_flash_read(bytes_, sizeof bytes_); }
  uint8_t bytes_[4096] = {};
};

static EEPROMClass EEPROM;

#endif
