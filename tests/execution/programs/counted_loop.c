/* A loop whose instructions can be counted by hand: two before it, three a round, two behind it. */

#include <stdint.h>

uint32_t count_up(uint32_t n);

__attribute__((naked)) uint32_t count_up(uint32_t n __attribute__((unused))) {
  __asm volatile(
      ".syntax unified\n"
      "movs r1, #0\n"
      "movs r2, #1\n"
      "1: adds r1, r1, r2\n"
      "subs r0, r0, #1\n"
      "bne 1b\n"
      "mov r0, r1\n"
      "bx lr\n");
}
