/* Small functions with known results, costs and faults, for the tests of toolchains and emulator. */

#include "probe.h"

uint32_t ones[4] = {1u, 1u, 1u, 1u};
uint32_t zeros[25];
uint32_t marker = 0x12345678u;

uint32_t sum_tables(void) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < 4u; ++i) {
    sum += ones[i];
  }
  for (uint32_t i = 0; i < 25u; ++i) {
    sum += zeros[i];
  }
  return sum;
}

int32_t weigh(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f) {
  return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f;
}

float halve(int32_t numerator) {
  return (float)numerator / 2.0f;
}

/* A walk over float operations that hashes every result's bits; NaN has no agreed bits, so it counts
 * as one value. */
uint32_t float_bits(uint32_t rounds) {
  uint32_t state = 12345u;
  uint32_t hash = 2166136261u;
  union {
    uint32_t bits;
    float value;
  } x = {.value = 1.5f}, y, z;
  for (uint32_t i = 0; i < rounds; ++i) {
    state = state * 1664525u + 1013904223u;
    y.bits = state & 0xBFFFFFFFu; /* below 2 in magnitude, subnormals included */
    state = state * 1664525u + 1013904223u;
    z.bits = state & 0xBFFFFFFFu;
    switch (state >> 29) {
      case 0: x.value = y.value + z.value; break;
      case 1: x.value = y.value - z.value; break;
      case 2: x.value = y.value * z.value; break;
      case 3: x.value = y.value / z.value; break;
      case 4: x.value = __builtin_fmaf(y.value, z.value, x.value); break;
      case 5: x.value = (float)(int32_t)(y.value * 1000.0f) * z.value; break;
      case 6: x.value = y.value * z.value + x.value; break;
      default: x.value = y.value < z.value ? y.value : z.value; break;
    }
    if (x.value != x.value) {
      x.bits = 0x7FC00000u;
    }
    hash = (hash ^ x.bits) * 16777619u;
  }
  return hash;
}

void store(uint32_t address, uint32_t value) {
  *(volatile uint32_t *)(uintptr_t)address = value;
}

void store_byte(uint32_t address, uint32_t value) {
  *(volatile uint8_t *)(uintptr_t)address = (uint8_t)value;
}

uint32_t load(uint32_t address) {
  return *(volatile uint32_t *)(uintptr_t)address;
}

uint32_t jump(uint32_t address) {
  return ((uint32_t(*)(void))(uintptr_t)address)();
}

void trap(void) {
  __builtin_trap();
}

void spin(void) {
  for (volatile uint32_t i = 0;; ++i) {
  }
}

__attribute__((noinline)) static uint32_t innermost(uint32_t n) {
  volatile uint8_t buffer[200];
  for (uint32_t i = 0; i < 200u; ++i) {
    buffer[i] = (uint8_t)(i + n);
  }
  return buffer[n % 200u];
}

__attribute__((noinline)) static uint32_t middle(uint32_t n) {
  volatile uint32_t buffer[30];
  for (uint32_t i = 0; i < 30u; ++i) {
    buffer[i] = innermost(n + i);
  }
  return buffer[n % 30u];
}

uint32_t call_chain(uint32_t n) {
  return middle(n) + innermost(n);
}

/* More than the immediate of any ARMv6-M stack adjustment holds. */
uint32_t large_frame(uint32_t n) {
  volatile uint32_t buffer[1000];
  for (uint32_t i = 0; i < 1000u; ++i) {
    buffer[i] = i;
  }
  return buffer[n % 1000u];
}

uint32_t aligned_frame(uint32_t n) {
  volatile uint32_t buffer[16] __attribute__((aligned(64)));
  for (uint32_t i = 0; i < 16u; ++i) {
    buffer[i] = (uint32_t)(uintptr_t)&buffer[i];
  }
  return buffer[n % 16u] % 64u;
}

uint32_t dispatch(uint32_t kind, uint32_t n) {
  switch (kind) {
    case 0: return call_chain(n);
    case 1: return n * 3u + 1u;
    case 2: return zeros[n % 25u];
    case 3: return large_frame(n);
    case 4: return n ^ marker;
    case 5: return n / 7u;
    case 6: return ones[n % 4u] + n;
    default: return 0u;
  }
}

uint32_t recurse(uint32_t n) {
  volatile uint32_t buffer[16];
  buffer[n % 16u] = n;
  return n == 0u ? 0u : recurse(n - 1u) + buffer[n % 16u];
}

static uint32_t (*volatile callback)(uint32_t) = call_chain;

uint32_t call_pointer(uint32_t n) {
  return callback(n) + 1u;
}

__attribute__((noinline)) static uint32_t sum_bytes(const volatile uint8_t *bytes, uint32_t n) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < n; ++i) {
    sum += bytes[i];
  }
  return sum;
}

uint32_t variable_frame(uint32_t n) {
  uint8_t *buffer = __builtin_alloca(n);
  for (uint32_t i = 0; i < n; ++i) {
    buffer[i] = 1u;
  }
  return sum_bytes(buffer, n);
}

/* Stands for a driver that the board brings along; weak, so that callers assume nothing of it. */
__attribute__((weak)) uint32_t read_storage(uint32_t block, uint8_t *to, uint32_t size) {
  (void)to;
  return block + size;
}

uint32_t use_storage(uint32_t block) {
  uint8_t buffer[8] = {0};
  const uint32_t status = read_storage(block, buffer, sizeof buffer);
  return status * 1000u + buffer[0] + buffer[7];
}
