/* picture: predicts and learns. Written by kilograd; no malloc, no globals.
 *
 *   static picture_t net;
 *   picture_init(&net);
 *   picture_predict(&net, picture_input(&net));    the answer is in picture_output(&net)
 *   picture_train_step(&net, picture_input(&net), target, 0.01f, step, &loss);
 */
#ifndef PICTURE_H
#define PICTURE_H

#include "kilograd/base.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PICTURE_ARENA_BYTES 944
#define PICTURE_STATE_BYTES 148
#define PICTURE_INPUT_SIZE 64 /* f32[1,1,8,8] */
#define PICTURE_OUTPUT_SIZE 3 /* f32[1,3] */
#define PICTURE_TARGET_SIZE 1 /* i32[1] */
#define PICTURE_CHECKPOINT_BYTES (PICTURE_STATE_BYTES + KG_CHECKPOINT_HEADER_BYTES)

/* What is learned. */
typedef struct picture_state {
  float v3_bias[4]; /* f32[4] of 3.bias */
  float v5_weight_trained[12]; /* f32[1,1,2,6] of 5.weight */
  float v8_weight[18]; /* f32[6,3] of 8.weight */
  float v8_bias[3]; /* f32[3] of 8.bias */
} picture_state_t;

/* All the memory that the network uses besides the stack. */
typedef struct picture {
  union {
    uint8_t bytes[PICTURE_ARENA_BYTES];
    float f32[PICTURE_ARENA_BYTES / 4];
  } arena; /* tensors of the running call */
  picture_state_t state;
} picture_t;

/* Sets the state to that of the compiled network. Call it once, before anything else. */
void picture_init(picture_t *net);

/* Where an input can be put without memory of its own; the next call overwrites it. Layout as in
 * PICTURE_INPUT_SIZE, channels last. */
float *picture_input(picture_t *net);

/* Computes the output for one input (f32[1,1,8,8]). input may be picture_input(net), or memory of the
 * caller, which is only read. */
kg_status picture_predict(picture_t *net, const float *input);

/* The output of the last prediction (f32[1,3]), valid until the next call. */
const float *picture_output(const picture_t *net);

/* Where a target (i32[1]) can be put without memory of its own; the next call overwrites it. */
int32_t *picture_target(picture_t *net);

/* Learns from one sample: forward, backward, update. *loss is the loss before the update. step counts samples from
 * 0. On an error the state is as before the call (KG_ERROR_PARTIAL excepted). */
kg_status picture_train_step(picture_t *net, const float *input, const int32_t *target, float learning_rate,
                             uint32_t step, float *loss);

/* Writes the state as a checkpoint of PICTURE_CHECKPOINT_BYTES bytes; returns the bytes written, 0 if capacity is
 * smaller. */
size_t picture_save(const picture_t *net, uint8_t *buffer, size_t capacity);

/* Takes the state from a checkpoint. A corrupt one, or one of another network, is refused and changes nothing. */
kg_status picture_load(picture_t *net, const uint8_t *buffer, size_t size);

#ifdef __cplusplus
}
#endif

#endif
