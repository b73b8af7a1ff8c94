/* dense: predicts and learns. Written by kilograd; no malloc, no globals.
 *
 *   static dense_t net;
 *   dense_init(&net);
 *   dense_predict(&net, dense_input(&net));    the answer is in dense_output(&net)
 *   dense_train_step(&net, dense_input(&net), target, 0.01f, step, &loss);
 */
#ifndef DENSE_H
#define DENSE_H

#include "kilograd/base.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DENSE_ARENA_BYTES 300
#define DENSE_STATE_BYTES 536
#define DENSE_INPUT_SIZE 4 /* f32[1,4] */
#define DENSE_OUTPUT_SIZE 3 /* f32[1,3] */
#define DENSE_TARGET_SIZE 1 /* i32[1] */
#define DENSE_CHECKPOINT_BYTES (DENSE_STATE_BYTES + KG_CHECKPOINT_HEADER_BYTES)

/* What is learned. */
typedef struct dense_state {
  float v0_weight[32]; /* f32[4,8] of 0.weight */
  float v0_bias[8]; /* f32[8] of 0.bias */
  float v2_weight[24]; /* f32[8,3] of 2.weight */
  float v2_bias[3]; /* f32[3] of 2.bias */
  float v0_weight_velocity[32]; /* f32[4,8] */
  float v0_bias_velocity[8]; /* f32[8] */
  float v2_weight_velocity[24]; /* f32[8,3] */
  float v2_bias_velocity[3]; /* f32[3] */
} dense_state_t;

/* All the memory that the network uses besides the stack. */
typedef struct dense {
  union {
    uint8_t bytes[DENSE_ARENA_BYTES];
    float f32[DENSE_ARENA_BYTES / 4];
  } arena; /* tensors of the running call */
  dense_state_t state;
} dense_t;

/* Sets the state to that of the compiled network. Call it once, before anything else. */
void dense_init(dense_t *net);

/* Where an input can be put without memory of its own; the next call overwrites it. Layout as in
 * DENSE_INPUT_SIZE, channels last. */
float *dense_input(dense_t *net);

/* Computes the output for one input (f32[1,4]). input may be dense_input(net), or memory of the
 * caller, which is only read. */
kg_status dense_predict(dense_t *net, const float *input);

/* The output of the last prediction (f32[1,3]), valid until the next call. */
const float *dense_output(const dense_t *net);

/* Where a target (i32[1]) can be put without memory of its own; the next call overwrites it. */
int32_t *dense_target(dense_t *net);

/* Learns from one sample: forward, backward, update. *loss is the loss before the update. step counts samples from
 * 0. On an error the state is as before the call (KG_ERROR_PARTIAL excepted). */
kg_status dense_train_step(dense_t *net, const float *input, const int32_t *target, float learning_rate, uint32_t step,
                           float *loss);

/* Writes the state as a checkpoint of DENSE_CHECKPOINT_BYTES bytes; returns the bytes written, 0 if capacity is
 * smaller. */
size_t dense_save(const dense_t *net, uint8_t *buffer, size_t capacity);

/* Takes the state from a checkpoint. A corrupt one, or one of another network, is refused and changes nothing. */
kg_status dense_load(dense_t *net, const uint8_t *buffer, size_t size);

#ifdef __cplusplus
}
#endif

#endif
