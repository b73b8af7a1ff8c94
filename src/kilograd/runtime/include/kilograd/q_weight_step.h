/* Gradient, check and step of an int8 weight w[O][KH][KW][I] in one: only a block of the gradient exists at a time, of
 * some output channels under one kernel tap and a few input channels. Formulas and bits are those of
 * kg_conv2d_grad_weight_s8, kg_all_finite_f32 and kg_sgd_*_s8 one after the other.
 *
 * A block has as many input channels as a register tile has lanes, so that each input pixel becomes floats once for all
 * output channels of the block, and no more of the gradient is needed to work as in kg_conv2d_grad_weight_s8. */
#ifndef KILOGRAD_Q_WEIGHT_STEP_H
#define KILOGRAD_Q_WEIGHT_STEP_H

#include "kilograd/q_conv_grad.h"
#include "kilograd/q_optimizer.h"

/* How a weight moves: by `rate`, with a scale for each output channel; `seed` and `salt` are of stochastic rounding,
 * the remainders of residual rounding, NULL with the others. next may be w, and next_remainder may be remainder. */
typedef struct kg_weight_step {
  int8_t *next, *next_remainder;
  const int8_t *w, *remainder;
  const float *scales;
  const uint32_t *seed;
  uint32_t salt;
  float rate;
  bool aware;
} kg_weight_step;

/* The step of `lanes` weights from index `first` on in each of `rows` output channels from `channel` on, along
 * d[rows][lanes]; the same weights of two channels are `pitch` apart. */
typedef void kg_block_step(const kg_weight_step *s, const float *restrict d, int32_t channel, int32_t rows,
                           int32_t first, int32_t pitch, int32_t lanes);

KG_SHARED void kg_block_step_nearest_s8(const kg_weight_step *s, const float *restrict d, int32_t channel, int32_t rows,
                                        int32_t first, int32_t pitch, int32_t lanes) {
  for (int32_t r = 0; r < rows; ++r, first += pitch, d += lanes) {
    const float factor = kg_step_factor_f32(s->rate, s->scales[channel + r], s->aware);
    kg_move_nearest_s8(s->next + first, s->w + first, d, lanes, factor);
  }
}

KG_SHARED void kg_block_step_stochastic_s8(const kg_weight_step *s, const float *restrict d, int32_t channel,
                                           int32_t rows, int32_t first, int32_t pitch, int32_t lanes) {
  const uint32_t key = kg_random_key(*s->seed, s->salt);
  for (int32_t r = 0; r < rows; ++r, first += pitch, d += lanes) {
    const float factor = kg_step_factor_f32(s->rate, s->scales[channel + r], s->aware);
    kg_move_stochastic_s8(s->next + first, s->w + first, d, lanes, factor, key + (uint32_t)first);
  }
}

KG_SHARED void kg_block_step_residual_s8(const kg_weight_step *s, const float *restrict d, int32_t channel,
                                         int32_t rows, int32_t first, int32_t pitch, int32_t lanes) {
  for (int32_t r = 0; r < rows; ++r, first += pitch, d += lanes) {
    const float factor = kg_step_factor_f32(s->rate, s->scales[channel + r], s->aware);
    kg_move_residual_s8(s->next + first, s->next_remainder + first, s->w + first, s->remainder + first, d, lanes,
                        factor);
  }
}

/* `lanes` input channels of one tap, the first of them at w[0][first]. */
KG_INLINE bool kg_weight_step_lanes_s8(const kg_weight_step *s, kg_block_step *step, const int8_t *restrict x,
                                       const float *restrict d_y, float *restrict scratch, int32_t room,
                                       const kg_window *g, int32_t C, int32_t O, int32_t pitch, int32_t first,
                                       int32_t row, int32_t column, float scale, int32_t zero_point, int32_t lanes) {
  float *const d = scratch + KG_Q_PACKED;
  for (int32_t o = 0, rows = 0; o < O; o += rows) {
    rows = O - o < room / lanes ? O - o : room / lanes;
    kg_grad_weight_lanes_s8(d, x, d_y + o, scratch, g, C, rows, O, lanes, row, column, scale, zero_point, lanes);
    if (!kg_all_finite_f32(d, rows * lanes)) return false;
    step(s, d, o, rows, o * pitch + first, pitch, lanes);
  }
  return true;
}

KG_INLINE bool kg_weight_step_s8(const kg_weight_step *s, kg_block_step *step, const int8_t *restrict x,
                                 const float *restrict d_y, float *restrict scratch, int32_t room, const kg_window *g,
                                 int32_t C, int32_t I, int32_t O, float scale, int32_t zero_point) {
  const int32_t pitch = g->KH * g->KW * I;
  for (int32_t kh = 0; kh < g->KH; ++kh) {
    const int32_t row = kh * g->dilation_h - g->pad_top;
    for (int32_t kw = 0; kw < g->KW; ++kw) {
      const int32_t column = kw * g->dilation_w - g->pad_left, tap = (kh * g->KW + kw) * I;
      for (int32_t i = 0, lanes = 0; i < I; i += lanes) {
#define KG_CHANNELS(LANES)                                                                                      \
  lanes = LANES;                                                                                                \
  if (!kg_weight_step_lanes_s8(s, step, x + i, d_y, scratch, room, g, C, O, pitch, tap + i, row, column, scale, \
                               zero_point, LANES)) {                                                            \
    return false;                                                                                               \
  }
        KG_WITH_LANES(I - i, KG_CHANNELS)
#undef KG_CHANNELS
      }
    }
  }
  return true;
}

/* A step from x[H][W][C], at the first of the I input channels that are trained, and d_y[OH][OW][O]; one for each
 * rounding. False when part of the gradient is NaN or infinite: some weights of `next` are then new, others not.
 * scratch has KG_Q_PACKED floats and `room` for the gradient, at least KG_ROWS * KG_LANES. Nothing may overlap but next
 * and w, next_remainder and remainder. */
#define KG_WEIGHT_STEP(ROUNDING)                                                                                      \
  KG_SHARED bool kg_weight_step_##ROUNDING##_s8(                                                                      \
      const kg_weight_step *s, const int8_t *restrict x, const float *restrict d_y, float *restrict scratch,          \
      int32_t room, const kg_window *g, int32_t C, int32_t I, int32_t O, float scale, int32_t zero_point) {           \
    return kg_weight_step_s8(s, kg_block_step_##ROUNDING##_s8, x, d_y, scratch, room, g, C, I, O, scale, zero_point); \
  }
KG_WEIGHT_STEP(nearest)
KG_WEIGHT_STEP(stochastic)
KG_WEIGHT_STEP(residual)
#undef KG_WEIGHT_STEP

#endif
