/* Devices behind the drivers of secondary storage, and pages through them. */
#include "kilograd/page.h"
#include "kilograd/storage_blocks.h"
#include "kilograd/storage_file.h"
#include "kilograd/storage_flash.h"
#include "kilograd/storage_ram.h"

enum { SIZE = 16384, BLOCK = 512, ERASE = 2048, PAGE = 256 };

static uint8_t memory[SIZE];
static uint32_t calls, fail_at, wrong; /* fail_at counts from 1 */
static bool stuck;                     /* flash claims success and stays as it is */

static bool next(void) { return ++calls != fail_at; }

/* Flash: programming only clears bits, within one page; erasing sets a block. */
static bool flash_program(void *user, uint32_t offset, const uint8_t *from, uint32_t bytes) {
  wrong += (uint32_t)(user != memory) + (bytes == 0) + (offset / PAGE != (offset + bytes - 1) / PAGE);
  if (!next()) return false;
  if (stuck) return true;
  for (uint32_t i = 0; i < bytes; ++i) {
    wrong += (uint32_t)((from[i] & ~memory[offset + i]) != 0);
    memory[offset + i] &= from[i];
  }
  return true;
}

static bool flash_erase(void *user, uint32_t offset) {
  wrong += (uint32_t)(user != memory) + (offset % ERASE != 0);
  if (!next()) return false;
  for (uint32_t i = 0; i < ERASE; ++i) memory[offset + i] = 0xff;
  return true;
}

static kg_flash_t flash = {.base = memory,
                           .user = memory,
                           .program = flash_program,
                           .erase = flash_erase,
                           .size_bytes = SIZE,
                           .page_bytes = PAGE,
                           .write_bytes = 1,
                           .erase_bytes = ERASE};

static bool card_read(void *user, uint32_t first, void *to, uint32_t count) {
  wrong += (uint32_t)(user != memory) + (first < 2) + ((first - 2 + count) * BLOCK > SIZE);
  if (!next()) return false;
  for (uint32_t i = 0; i < count * BLOCK; ++i) ((uint8_t *)to)[i] = memory[(first - 2) * BLOCK + i];
  return true;
}

static bool card_write(void *user, uint32_t first, const void *from, uint32_t count) {
  wrong += (uint32_t)(user != memory) + (first < 2) + ((first - 2 + count) * BLOCK > SIZE);
  if (!next()) return false;
  for (uint32_t i = 0; i < count * BLOCK; ++i) memory[(first - 2) * BLOCK + i] = ((const uint8_t *)from)[i];
  return true;
}

static kg_blocks_t card = {.user = memory,
                           .read = card_read,
                           .write = card_write,
                           .first_block = 2,
                           .blocks = SIZE / BLOCK,
                           .block_bytes = BLOCK};

static kg_storage_t storage;
static uint32_t crc, block[BLOCK / 4];

bool open_storage(const char *kind, const char *path) {
  calls = fail_at = wrong = 0;
  for (uint32_t i = 0; i < SIZE; ++i) memory[i] = 0x5a;
  if (kind[0] == 'r') storage = kg_ram_storage(memory, SIZE);
  if (kind[0] == 'n') storage = kg_flash_storage(&flash);
  if (kind[0] == 'c') storage = kg_blocks_storage(&card);
  if (kind[0] == 'f') storage = kg_file_storage(fopen(path, "w+b"), SIZE);
  return kg_storage_fits(&storage, SIZE, BLOCK, ERASE, true);
}

void stick(bool on) { stuck = on; }
void fail(uint32_t at) { calls = 0, fail_at = at; }
uint32_t mistakes(void) { return wrong; }
uint32_t calls_made(void) { return calls; }
uint8_t *content(void) { return memory; }
bool out(uint32_t offset, const void *x, uint32_t bytes) {
  return kg_page_out(&storage, offset, &crc, x, bytes, block);
}
bool keep(uint32_t offset, void *x, uint32_t bytes) { return kg_page_keep(&storage, offset, &crc, x, bytes, block); }
bool in(uint32_t offset, void *x, uint32_t bytes) { return kg_page_in(&storage, offset, &crc, x, bytes, block); }

bool fits(uint32_t size, uint32_t needed, uint32_t block_bytes, uint32_t planned, uint32_t erase, uint32_t unit) {
  kg_storage_t one = kg_ram_storage(memory, size);
  one.block_bytes = block_bytes;
  one.erase_bytes = erase;
  one.erase = kg_flash_erase;
  return kg_storage_fits(&one, needed, planned, unit, true);
}

bool lacks(int what) {
  kg_storage_t one = kg_flash_storage(&flash);
  if (what == 0) return kg_storage_fits(NULL, 1, 1, ERASE, true);
  if (what == 1) one.read = NULL;
  if (what == 2) one.write = NULL;
  if (what == 3) one.erase = NULL;
  return kg_storage_fits(&one, 1, 1, ERASE, true);
}

bool read_only(void) {
  kg_storage_t one = kg_ram_storage(memory, SIZE);
  one.write = NULL;
  return kg_storage_fits(&one, SIZE, 1, 1, false);
}

uint32_t size_of_card(uint32_t blocks) {
  kg_blocks_t large = card;
  large.blocks = blocks;
  return kg_blocks_storage(&large).size_bytes;
}

uint32_t crc_of(const void *data, uint32_t size) { return kg_crc32_tensor(0, data, size); }
