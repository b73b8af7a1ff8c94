#include "dense.h"

#include "kilograd/base.h"
#include "kilograd/checkpoint.h"
#include "kilograd/linear.h"
#include "kilograd/loss.h"
#include "kilograd/optimizer.h"
#include "kilograd/reduce.h"
#include "kilograd/shape.h"
#include "kilograd/unary.h"

#include "dense_tables.h"

/* The arena at a byte offset, as an element type. One offset serves tensors of several types at different times, so
 * build this file with -fno-strict-aliasing. */
#define NET ((dense_t *)kg_opaque(net))
#define F32(offset) ((float *)(void *)(NET->arena.bytes + (offset)))
#define I32(offset) ((int32_t *)(void *)(NET->arena.bytes + (offset)))
#define I8(offset) ((int8_t *)(void *)(NET->arena.bytes + (offset)))
#define U8(offset) ((uint8_t *)(void *)(NET->arena.bytes + (offset)))

KG_STATIC_ASSERT(sizeof(dense_state_t) == DENSE_STATE_BYTES, state_is_packed);
KG_STATIC_ASSERT(sizeof(dense_t) == DENSE_ARENA_BYTES + sizeof(dense_state_t), nothing_else_is_stored);

void dense_init(dense_t *net) {
  kg_copy_rows(net->state.v0_weight, dense_v0_weight_init, 1, 128, 0, 0);
  kg_copy_rows(net->state.v0_bias, dense_v0_bias_init, 1, 32, 0, 0);
  kg_copy_rows(net->state.v2_weight, dense_v2_weight_init, 1, 96, 0, 0);
  kg_copy_rows(net->state.v2_bias, dense_v2_bias_init, 1, 12, 0, 0);
  kg_zero(net->state.v0_weight_velocity, 128);
  kg_zero(net->state.v0_bias_velocity, 32);
  kg_zero(net->state.v2_weight_velocity, 96);
  kg_zero(net->state.v2_bias_velocity, 12);
}

float *dense_input(dense_t *net) { return F32(0); }

const float *dense_output(const dense_t *net) {
  return (const float *)(const void *)(net->arena.bytes + 0);
}

kg_status dense_predict(dense_t *net, const float *input) {
  /* %relu: f32[1,8] = linear{low=0.0}(%input, %v0_weight, %v0_bias) 0 */
  kg_linear_f32(F32(16), input, NET->state.v0_weight, NET->state.v0_bias, false, 1, 4, 4, 8, 0.0f, KG_INFINITY);
  /* %linear_1: f32[1,3] = linear(%relu, %v2_weight, %v2_bias) 2 */
  kg_linear_f32(F32(0), F32(16), NET->state.v2_weight, NET->state.v2_bias, false, 1, 8, 8, 3, -KG_INFINITY,
                KG_INFINITY);
  return KG_OK;
}

int32_t *dense_target(dense_t *net) { return I32(60); }

kg_status dense_train_step(dense_t *net, const float *input, const int32_t *target, float learning_rate, uint32_t step,
                           float *loss) {
  (void)step; /* only accumulation over samples reads it */
  if (!kg_finite_f32(learning_rate)) return KG_ERROR_NONFINITE;
  /* %relu: f32[1,8] = linear{low=0.0}(%input, %v0_weight, %v0_bias) 0 */
  kg_linear_f32(F32(16), input, NET->state.v0_weight, NET->state.v0_bias, false, 1, 4, 4, 8, 0.0f, KG_INFINITY);
  /* %linear_1: f32[1,3] = linear(%relu, %v2_weight, %v2_bias) 2 */
  kg_linear_f32(F32(48), F32(16), NET->state.v2_weight, NET->state.v2_bias, false, 1, 8, 8, 3, -KG_INFINITY,
                KG_INFINITY);
  /* %loss: f32[] = cross_entropy(%linear_1, %target) loss */
  if (!kg_labels_valid(target, 1, 3)) return KG_ERROR_LABEL;
  kg_cross_entropy_f32(loss, F32(48), target, 1, 3);
  /* finite_check(%loss) loss */
  if (!kg_all_finite_f32(loss, 1)) return KG_ERROR_NONFINITE;
  /* %d_linear_1: f32[1,3] = cross_entropy_grad(%linear_1, %target) backward of loss */
  kg_cross_entropy_grad_f32(F32(48), F32(48), target, 1, 3);
  /* %d_v2_weight: f32[8,3] = linear_grad_weight(%relu, %d_linear_1) backward of 2 */
  kg_linear_grad_weight_f32(F32(160), F32(16), F32(48), 1, 8, 3);
  /* %d_v2_bias: f32[3] = reduce{axes=(0,)}(%d_linear_1) backward of 2 */
  kg_reduce_f32(F32(256), F32(48), 1, 1, 3, 1.0f);
  /* sgd_check{momentum=0.9}(%v2_weight, %d_v2_weight, %learning_rate, %step, %v2_weight.velocity) update of
   * v2_weight */
  if (!kg_sgd_finite_f32(NET->state.v2_weight, NET->state.v2_weight_velocity, NULL, F32(160), 24, learning_rate, 0.9f,
                         0.0f, step, 1))
    return KG_ERROR_NONFINITE;
  /* sgd_check{momentum=0.9}(%v2_bias, %d_v2_bias, %learning_rate, %step, %v2_bias.velocity) update of v2_bias */
  if (!kg_sgd_finite_f32(NET->state.v2_bias, NET->state.v2_bias_velocity, NULL, F32(256), 3, learning_rate, 0.9f, 0.0f,
                         step, 1))
    return KG_ERROR_NONFINITE;
  /* %d_relu: f32[1,8] = linear_grad_input(%d_linear_1, %v2_weight) backward of 2 */
  kg_linear_grad_input_f32(F32(268), F32(48), NET->state.v2_weight, 1, 8, 8, 3);
  /* %d_linear: f32[1,8] = relu_grad(%d_relu, %relu) backward of 1 */
  kg_map_relu_grad_f32(F32(268), F32(268), F32(16), 8);
  /* %d_v0_weight: f32[4,8] = linear_grad_weight(%input, %d_linear) backward of 0 */
  kg_linear_grad_weight_f32(F32(32), input, F32(268), 1, 4, 8);
  /* %d_v0_bias: f32[8] = reduce{axes=(0,)}(%d_linear) backward of 0 */
  kg_reduce_f32(F32(0), F32(268), 1, 1, 8, 1.0f);
  /* sgd_check{momentum=0.9}(%v0_weight, %d_v0_weight, %learning_rate, %step, %v0_weight.velocity) update of
   * v0_weight */
  if (!kg_sgd_finite_f32(NET->state.v0_weight, NET->state.v0_weight_velocity, NULL, F32(32), 32, learning_rate, 0.9f,
                         0.0f, step, 1))
    return KG_ERROR_NONFINITE;
  /* sgd_check{momentum=0.9}(%v0_bias, %d_v0_bias, %learning_rate, %step, %v0_bias.velocity) update of v0_bias */
  if (!kg_sgd_finite_f32(NET->state.v0_bias, NET->state.v0_bias_velocity, NULL, F32(0), 8, learning_rate, 0.9f, 0.0f,
                         step, 1))
    return KG_ERROR_NONFINITE;
  /* %v0_weight.next: f32[4,8], %v0_weight.next_1: f32[4,8] = sgd_step{momentum=0.9}(%v0_weight, %d_v0_weight,
   * %learning_rate, %step, %v0_weight.velocity) update of v0_weight */
  kg_sgd_f32(NET->state.v0_weight, NET->state.v0_weight_velocity, NULL, F32(32), 32, learning_rate, 0.9f, 0.0f, step,
             1);
  /* %v0_bias.next: f32[8], %v0_bias.next_1: f32[8] = sgd_step{momentum=0.9}(%v0_bias, %d_v0_bias, %learning_rate,
   * %step, %v0_bias.velocity) update of v0_bias */
  kg_sgd_f32(NET->state.v0_bias, NET->state.v0_bias_velocity, NULL, F32(0), 8, learning_rate, 0.9f, 0.0f, step, 1);
  /* %v2_weight.next: f32[8,3], %v2_weight.next_1: f32[8,3] = sgd_step{momentum=0.9}(%v2_weight, %d_v2_weight,
   * %learning_rate, %step, %v2_weight.velocity) update of v2_weight */
  kg_sgd_f32(NET->state.v2_weight, NET->state.v2_weight_velocity, NULL, F32(160), 24, learning_rate, 0.9f, 0.0f, step,
             1);
  /* %v2_bias.next: f32[3], %v2_bias.next_1: f32[3] = sgd_step{momentum=0.9}(%v2_bias, %d_v2_bias, %learning_rate,
   * %step, %v2_bias.velocity) update of v2_bias */
  kg_sgd_f32(NET->state.v2_bias, NET->state.v2_bias_velocity, NULL, F32(256), 3, learning_rate, 0.9f, 0.0f, step, 1);
  return KG_OK;
}

size_t dense_save(const dense_t *net, uint8_t *buffer, size_t capacity) {
  return kg_checkpoint_write(buffer, capacity, 0x0ea52967u, &net->state, DENSE_STATE_BYTES);
}

kg_status dense_load(dense_t *net, const uint8_t *buffer, size_t size) {
  return kg_checkpoint_read(buffer, size, 0x0ea52967u, &net->state, DENSE_STATE_BYTES);
}
