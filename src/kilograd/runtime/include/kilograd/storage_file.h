/* Storage in a file, where there is an operating system or a C library with files. C and C++.
 *
 *   FILE *file = fopen("net_storage.bin", "r+b");
 *   static kg_storage_t storage;
 *   storage = kg_file_storage(file, NET_STORAGE_BYTES);
 *
 * The file may be shorter than size_bytes and grows as it is written: a copy of the image is enough to begin with.
 * Where there is no C library (-ffreestanding), this header declares nothing.
 */
#ifndef KILOGRAD_STORAGE_FILE_H
#define KILOGRAD_STORAGE_FILE_H

#if __STDC_HOSTED__

#include <stdio.h>

#include "kilograd/storage.h"

static inline uint32_t kg_file_read(void *context, uint32_t offset, void *to, uint32_t bytes) {
  FILE *file = (FILE *)context;
  return fseek(file, (long)offset, SEEK_SET) == 0 ? (uint32_t)fread(to, 1, bytes, file) : 0;
}

static inline uint32_t kg_file_write(void *context, uint32_t offset, const void *from, uint32_t bytes) {
  FILE *file = (FILE *)context;
  const uint32_t count = fseek(file, (long)offset, SEEK_SET) == 0 ? (uint32_t)fwrite(from, 1, bytes, file) : 0;
  return fflush(file) == 0 ? count : 0;
}

/* The storage in an open file, which has to outlive it. */
static inline kg_storage_t kg_file_storage(FILE *file, uint32_t size_bytes) {
  const kg_storage_t storage = {file, kg_file_read, kg_file_write, NULL, size_bytes, 1, 0};
  return storage;
}

#endif

#endif
