#ifndef PROBE_H
#define PROBE_H

#include <stddef.h>
#include <stdint.h>

uint32_t sum_tables(void);
int32_t weigh(int32_t a, int32_t b, int32_t c, int32_t d, int32_t e, int32_t f);
float halve(int32_t numerator);
uint32_t float_bits(uint32_t rounds);
void store(uint32_t address, uint32_t value);
void store_byte(uint32_t address, uint32_t value);
uint32_t load(uint32_t address);
uint32_t jump(uint32_t address);
void trap(void);
void spin(void);
uint32_t call_chain(uint32_t n);
uint32_t large_frame(uint32_t n);
uint32_t aligned_frame(uint32_t n);
uint32_t dispatch(uint32_t kind, uint32_t n);
uint32_t recurse(uint32_t n);
uint32_t call_pointer(uint32_t n);
uint32_t variable_frame(uint32_t n);
uint32_t read_storage(uint32_t block, uint8_t *to, uint32_t size);
uint32_t use_storage(uint32_t block);

#endif
