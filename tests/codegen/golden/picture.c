#include "picture.h"

#include "kilograd/base.h"
#include "kilograd/checkpoint.h"
#include "kilograd/conv.h"
#include "kilograd/depthwise3.h"
#include "kilograd/linear.h"
#include "kilograd/loss.h"
#include "kilograd/optimizer.h"
#include "kilograd/reduce.h"
#include "kilograd/shape.h"
#include "kilograd/unary.h"

#include "picture_tables.h"

/* The arena at a byte offset, as an element type. One offset serves tensors of several types at different times, so
 * build this file with -fno-strict-aliasing. */
#define NET ((picture_t *)kg_opaque(net))
#define F32(offset) ((float *)(void *)(NET->arena.bytes + (offset)))
#define I32(offset) ((int32_t *)(void *)(NET->arena.bytes + (offset)))
#define I8(offset) ((int8_t *)(void *)(NET->arena.bytes + (offset)))
#define U8(offset) ((uint8_t *)(void *)(NET->arena.bytes + (offset)))

KG_STATIC_ASSERT(sizeof(picture_state_t) == PICTURE_STATE_BYTES, state_is_packed);
KG_STATIC_ASSERT(sizeof(picture_t) == PICTURE_ARENA_BYTES + sizeof(picture_state_t), nothing_else_is_stored);

void picture_init(picture_t *net) {
  kg_copy_rows(net->state.v3_bias, picture_v3_bias_init, 1, 16, 0, 0);
  kg_copy_rows(net->state.v5_weight_trained, picture_v5_weight_trained_init, 1, 48, 0, 0);
  kg_copy_rows(net->state.v8_weight, picture_v8_weight_init, 1, 72, 0, 0);
  kg_copy_rows(net->state.v8_bias, picture_v8_bias_init, 1, 12, 0, 0);
}

float *picture_input(picture_t *net) { return F32(0); }

const float *picture_output(const picture_t *net) {
  return (const float *)(const void *)(net->arena.bytes + 0);
}

kg_status picture_predict(picture_t *net, const float *input) {
  /* %input_1: f32[1,8,8,1] = reshape{shape=(1, 8, 8, 1)}(%input) 0 */
  /* %relu: f32[1,4,4,4] = conv2d{stride=(2, 2), padding=((1, 1), (1, 1)), low=0.0}(%input_1, %v0_weight, %v1_bias) 0 */
  kg_conv2d_f32(F32(256), input, picture_v0_weight, picture_v1_bias, false,
                &(const kg_window){.H = 8, .W = 8, .OH = 4, .OW = 4, .KH = 3, .KW = 3, .stride_h = 2, .stride_w = 2,
                                   .dilation_h = 1, .dilation_w = 1, .pad_top = 1, .pad_left = 1},
                1, 1, 4, 1, 0.0f, KG_INFINITY);
  /* %clamp: f32[1,4,4,4] = depthwise_conv2d{padding=((1, 1), (1, 1)), low=0.0, high=6.0}(%relu, %v3_weight,
   * %v3_bias) 3 */
  kg_depthwise3_f32(F32(512), F32(256), picture_v3_weight, NET->state.v3_bias,
                    &(const kg_window){.H = 4, .W = 4, .OH = 4, .OW = 4, .KH = 3, .KW = 3, .stride_h = 1, .stride_w = 1,
                                       .dilation_h = 1, .dilation_w = 1, .pad_top = 1, .pad_left = 1},
                    4, 4, 4, 0.0f, 6.0f);
  /* %conv2d_1: f32[1,4,4,6] = conv2d{parts=2}(%clamp, %v5_weight.trained, %v5_weight.frozen, %v5_bias) 5 */
  kg_linear_f32(F32(0), F32(512), NET->state.v5_weight_trained, picture_v5_bias, false, 16, 4, 2, 6, -KG_INFINITY,
                KG_INFINITY);
  kg_linear_f32(F32(0), F32(512) + 2, picture_v5_weight_frozen, NULL, true, 16, 4, 2, 6, -KG_INFINITY, KG_INFINITY);
  /* %reduce: f32[1,1,1,6] = reduce{axes=(1, 2), mean=True, keep=True}(%conv2d_1) 6 */
  kg_reduce_f32(F32(384), F32(0), 1, 16, 6, 0.0625f);
  /* %reduce_2: f32[1,6] = reshape{shape=(1, 6)}(%reduce) 7 */
  /* %linear: f32[1,3] = linear(%reduce_2, %v8_weight, %v8_bias) 8 */
  kg_linear_f32(F32(0), F32(384), NET->state.v8_weight, NET->state.v8_bias, false, 1, 6, 6, 3, -KG_INFINITY,
                KG_INFINITY);
  return KG_OK;
}

int32_t *picture_target(picture_t *net) { return I32(896); }

kg_status picture_train_step(picture_t *net, const float *input, const int32_t *target, float learning_rate,
                             uint32_t step, float *loss) {
  (void)step; /* only accumulation over samples reads it */
  if (!kg_finite_f32(learning_rate)) return KG_ERROR_NONFINITE;
  /* %input_1: f32[1,8,8,1] = reshape{shape=(1, 8, 8, 1)}(%input) 0 */
  /* %relu: f32[1,4,4,4] = conv2d{stride=(2, 2), padding=((1, 1), (1, 1)), low=0.0}(%input_1, %v0_weight, %v1_bias) 0 */
  kg_conv2d_f32(F32(640), input, picture_v0_weight, picture_v1_bias, false,
                &(const kg_window){.H = 8, .W = 8, .OH = 4, .OW = 4, .KH = 3, .KW = 3, .stride_h = 2, .stride_w = 2,
                                   .dilation_h = 1, .dilation_w = 1, .pad_top = 1, .pad_left = 1},
                1, 1, 4, 1, 0.0f, KG_INFINITY);
  /* %clamp: f32[1,4,4,4] = depthwise_conv2d{padding=((1, 1), (1, 1)), low=0.0, high=6.0}(%relu, %v3_weight,
   * %v3_bias) 3 */
  kg_depthwise3_f32(F32(384), F32(640), picture_v3_weight, NET->state.v3_bias,
                    &(const kg_window){.H = 4, .W = 4, .OH = 4, .OW = 4, .KH = 3, .KW = 3, .stride_h = 1, .stride_w = 1,
                                       .dilation_h = 1, .dilation_w = 1, .pad_top = 1, .pad_left = 1},
                    4, 4, 4, 0.0f, 6.0f);
  /* %slice: f32[1,4,4,2] = slice{axis=-1, start=0, stop=2}(%clamp) backward of 5 */
  kg_copy_rows(F32(640), F32(384), 16, 8, 16, 8);
  /* %conv2d_1: f32[1,4,4,6] = conv2d{parts=2}(%clamp, %v5_weight.trained, %v5_weight.frozen, %v5_bias) 5 */
  kg_linear_f32(F32(0), F32(384), NET->state.v5_weight_trained, picture_v5_bias, false, 16, 4, 2, 6, -KG_INFINITY,
                KG_INFINITY);
  kg_linear_f32(F32(0), F32(384) + 2, picture_v5_weight_frozen, NULL, true, 16, 4, 2, 6, -KG_INFINITY, KG_INFINITY);
  /* %reduce: f32[1,1,1,6] = reduce{axes=(1, 2), mean=True, keep=True}(%conv2d_1) 6 */
  kg_reduce_f32(F32(768), F32(0), 1, 16, 6, 0.0625f);
  /* %reduce_2: f32[1,6] = reshape{shape=(1, 6)}(%reduce) 7 */
  /* %linear: f32[1,3] = linear(%reduce_2, %v8_weight, %v8_bias) 8 */
  kg_linear_f32(F32(72), F32(768), NET->state.v8_weight, NET->state.v8_bias, false, 1, 6, 6, 3, -KG_INFINITY,
                KG_INFINITY);
  /* %loss: f32[] = cross_entropy(%linear, %target) loss */
  if (!kg_labels_valid(target, 1, 3)) return KG_ERROR_LABEL;
  kg_cross_entropy_f32(loss, F32(72), target, 1, 3);
  /* %d_linear: f32[1,3] = cross_entropy_grad(%linear, %target) backward of loss */
  kg_cross_entropy_grad_f32(F32(72), F32(72), target, 1, 3);
  /* finite_check(%loss) loss */
  if (!kg_all_finite_f32(loss, 1)) return KG_ERROR_NONFINITE;
  /* %d_v8_bias: f32[3] = reduce{axes=(0,)}(%d_linear) backward of 8 */
  kg_reduce_f32(F32(0), F32(72), 1, 1, 3, 1.0f);
  /* sgd_check(%v8_bias, %d_v8_bias, %learning_rate, %step) update of v8_bias */
  if (!kg_sgd_plain_finite_f32(NET->state.v8_bias, F32(0), 3, learning_rate)) return KG_ERROR_NONFINITE;
  /* %v8_bias.next: f32[3] = sgd_step(%v8_bias, %d_v8_bias, %learning_rate, %step) update of v8_bias */
  kg_sgd_plain_f32(NET->state.v8_bias, F32(0), 3, learning_rate);
  /* %d_reduce_2: f32[1,6] = linear_grad_input(%d_linear, %v8_weight) backward of 8 */
  kg_linear_grad_input_f32(F32(792), F32(72), NET->state.v8_weight, 1, 6, 6, 3);
  /* %d_reduce: f32[1,1,1,6] = reshape{shape=(1, 1, 1, 6)}(%d_reduce_2) backward of 7 */
  /* %d_v8_weight: f32[6,3] = linear_grad_weight(%reduce_2, %d_linear) backward of 8 */
  kg_linear_grad_weight_f32(F32(0), F32(768), F32(72), 1, 6, 3);
  /* sgd_check(%v8_weight, %d_v8_weight, %learning_rate, %step) update of v8_weight */
  if (!kg_sgd_plain_finite_f32(NET->state.v8_weight, F32(0), 18, learning_rate)) return KG_ERROR_PARTIAL;
  /* %v8_weight.next: f32[6,3] = sgd_step(%v8_weight, %d_v8_weight, %learning_rate, %step) update of v8_weight */
  kg_sgd_plain_f32(NET->state.v8_weight, F32(0), 18, learning_rate);
  /* %d_conv2d_1: f32[1,4,4,6] = spread{axes=(1, 2), sizes=(4, 4), mean=True, keep=True}(%d_reduce) backward of 6 */
  kg_spread_f32(F32(0), F32(792), 1, 16, 6, 0.0625f);
  /* %d_v5_weight.trained: f32[1,1,2,6] = conv2d_grad_weight{kernel=(1, 1)}(%slice, %d_conv2d_1) backward of 5 */
  kg_linear_grad_weight_f32(F32(896), F32(640), F32(0), 16, 2, 6);
  /* %d_clamp: f32[1,4,4,4] = conv2d_grad_input{size=(4, 4), parts=2}(%d_conv2d_1, %v5_weight.trained,
   * %v5_weight.frozen) backward of 5 */
  kg_linear_grad_input_f32(F32(640), F32(0), NET->state.v5_weight_trained, 16, 4, 2, 6);
  kg_linear_grad_input_f32(F32(640) + 2, F32(0), picture_v5_weight_frozen, 16, 4, 2, 6);
  /* %d_depthwise_conv2d: f32[1,4,4,4] = clamp_grad{low=0.0, high=6.0}(%d_clamp, %clamp) backward of 4 */
  kg_map_clamp_grad_f32(F32(640), F32(640), F32(384), 64, 0.0f, 6.0f);
  /* %d_v3_bias: f32[4] = reduce{axes=(0, 1, 2)}(%d_depthwise_conv2d) backward of 3 */
  kg_reduce_f32(F32(0), F32(640), 1, 16, 4, 1.0f);
  /* sgd_check(%v3_bias, %d_v3_bias, %learning_rate, %step) update of v3_bias */
  if (!kg_sgd_plain_finite_f32(NET->state.v3_bias, F32(0), 4, learning_rate)) return KG_ERROR_PARTIAL;
  /* %v3_bias.next: f32[4] = sgd_step(%v3_bias, %d_v3_bias, %learning_rate, %step) update of v3_bias */
  kg_sgd_plain_f32(NET->state.v3_bias, F32(0), 4, learning_rate);
  /* sgd_check(%v5_weight.trained, %d_v5_weight.trained, %learning_rate, %step) update of v5_weight.trained */
  if (!kg_sgd_plain_finite_f32(NET->state.v5_weight_trained, F32(896), 12, learning_rate)) return KG_ERROR_PARTIAL;
  /* %v5_weight.trained.next: f32[1,1,2,6] = sgd_step(%v5_weight.trained, %d_v5_weight.trained, %learning_rate,
   * %step) update of v5_weight.trained */
  kg_sgd_plain_f32(NET->state.v5_weight_trained, F32(896), 12, learning_rate);
  return KG_OK;
}

size_t picture_save(const picture_t *net, uint8_t *buffer, size_t capacity) {
  return kg_checkpoint_write(buffer, capacity, 0xec72062au, &net->state, PICTURE_STATE_BYTES);
}

kg_status picture_load(picture_t *net, const uint8_t *buffer, size_t size) {
  return kg_checkpoint_read(buffer, size, 0xec72062au, &net->state, PICTURE_STATE_BYTES);
}
