/* A board that is this computer, for the stubs of all frameworks: standard input and output are the serial stream, each
 * character of the standard input is 10 ms of the button in the example that has one, the flash is a file. */
#ifndef HOST_BOARD_H
#define HOST_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define HOST_FLASH_BYTES 65536

static uint32_t host_milliseconds;

static inline size_t host_read(void *data, size_t size) {
  const size_t count = fread(data, 1, size, stdin);
  if (count == 0) exit(EXIT_SUCCESS);
  return count;
}

static inline size_t host_write(const void *data, size_t size) {
  const size_t count = fwrite(data, 1, size, stdout);
  fflush(stdout);
  return count;
}

static inline bool host_button(void) {
  char character = 0;
  host_read(&character, 1);
  host_milliseconds += 10;
  return character == '1';
}

static inline bool host_flash_read(void *data, size_t size) {
  FILE *file = fopen("flash.bin", "rb");
  if (file == NULL) return false;
  const size_t count = fread(data, 1, size, file);
  fclose(file);
  return count == size;
}

static inline bool host_flash_write(const void *data, size_t size) {
  FILE *file = fopen("flash.bin", "wb");
  if (file == NULL) return false;
  const size_t count = fwrite(data, 1, size, file);
  fclose(file);
  return count == size;
}

#endif
