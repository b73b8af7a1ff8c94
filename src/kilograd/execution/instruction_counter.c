/* Count the instructions that an emulator runs, from its call at the start of every basic block.
 *
 * A block is straight-line Thumb code, so its instructions can be counted in the code once: a halfword
 * whose upper five bits are 0b11101 or more begins a 32-bit instruction (ARMv7-M manual, A5.1). An
 * instruction in an IT block counts whether or not its condition holds, as it occupies the pipeline
 * either way. */

#include <stddef.h>
#include <stdint.h>

typedef struct {
  uint64_t executed;            /* instructions since the caller cleared it */
  uint64_t limit;               /* stop before a block that would exceed it */
  const uint16_t *code;         /* [halfwords], the image in flash */
  uint32_t base;                /* its address */
  uint32_t halfwords;           /* its size */
  uint32_t *block_bytes;        /* [halfwords], size of the block that starts there, 0: none seen */
  uint32_t *block_instructions; /* [halfwords], its instructions */
  uint64_t *instructions;       /* [halfwords], instructions run in blocks that start there */
  int (*stop)(void *engine);
  uint32_t limit_reached;
} InstructionCounter;

void kg_count_block(void *engine, uint64_t address, uint32_t size_bytes, void *user_data);

static uint32_t count(const uint16_t *code, uint32_t halfwords) {
  uint32_t instructions = 0;
  for (uint32_t i = 0; i < halfwords; ++instructions) {
    i += (code[i] >> 11) >= 0x1d ? 2u : 1u;
  }
  return instructions;
}

void kg_count_block(void *engine, uint64_t address, uint32_t size_bytes, void *user_data) {
  InstructionCounter *counter = user_data;
  const uint64_t start = (address - counter->base) / 2u;
  if (address < counter->base || start + size_bytes / 2u > counter->halfwords) {
    return; /* outside the image: the fetch itself will fault */
  }
  if (counter->block_bytes[start] != size_bytes) {
    counter->block_bytes[start] = size_bytes;
    counter->block_instructions[start] = count(counter->code + start, size_bytes / 2u);
  }
  const uint32_t instructions = counter->block_instructions[start];
  if (counter->executed + instructions > counter->limit) {
    counter->limit_reached = 1;
    counter->stop(engine);
    return;
  }
  counter->executed += instructions;
  counter->instructions[start] += instructions;
}
