/* What runs before main on a Cortex-M: vector table, FPU, .data, .bss.
 *
 * The processor itself loads the stack pointer from the first word of the table. The linker script
 * defines the symbols. main is optional: a program that only exports functions, to be called by a
 * debugger or an emulator, ends up in kg_idle at once. */

#include <stdint.h>

extern uint32_t _estack, _sdata, _edata, _sbss, _ebss;
extern const uint32_t _sidata;

int main(void);
void kg_idle(void);
void kg_fault(void);
void _start(void);
void Reset_Handler(void);

__attribute__((weak, noinline)) int main(void) { return 0; }

__attribute__((noinline)) void kg_idle(void) {
  for (;;) {
    __asm volatile("wfi");
  }
}

__attribute__((noinline)) void kg_fault(void) {
  for (;;) {
    __asm volatile("bkpt 0");
  }
}

void _start(void) {
#ifdef __ARM_FP
  /* CPACR: full access to coprocessors 10 and 11, the FPU. ARMv7-M manual, B3.2.20. */
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
  __asm volatile("dsb\n\tisb");
#endif
  const uint32_t *from = &_sidata;
  for (uint32_t *to = &_sdata; to < &_edata; ++to) {
    *to = *from++;
  }
  for (uint32_t *to = &_sbss; to < &_ebss; ++to) {
    *to = 0;
  }
  (void)main();
  kg_idle();
}

void Reset_Handler(void) { _start(); }

typedef union {
  uint32_t *stack;
  void (*handler)(void);
} Vector;

/* Stack, reset, then the fourteen system exceptions; a zero is a reserved entry. */
__attribute__((section(".vectors"), used)) static const Vector vectors[16] = {
    {.stack = &_estack},
    {.handler = _start},
    {.handler = kg_fault},
    {.handler = kg_fault},
    {.handler = kg_fault},
    {.handler = kg_fault},
    {.handler = kg_fault},
    {0},
    {0},
    {0},
    {0},
    {.handler = kg_fault},
    {.handler = kg_fault},
    {0},
    {.handler = kg_fault},
    {.handler = kg_fault},
};
