/* Transposed convolutions x[H][W][I] to y[OH][OW][O], weights w[KH][KW][O / groups][I].
 *
 * They are conv.h the other way round: the window is that of the convolution from y to x, so window->H and W are the
 * rows and columns of y, window->OH and OW those of x; `part` is O / groups. */
#ifndef KILOGRAD_CONV_TRANSPOSE_H
#define KILOGRAD_CONV_TRANSPOSE_H

#include "kilograd/conv.h"

/* y = start + sum over kh, kw, i ascending of x * w; start is bias[o], or 0 where bias is NULL. No overlap. */
static inline void kg_conv_transpose2d_f32(float *restrict y, const float *restrict x, const float *restrict w,
                                           const float *restrict bias, const kg_window *window, int32_t O, int32_t part,
                                           int32_t I, int32_t groups) {
  kg_conv2d_grad_input_f32(y, x, w, bias, window, O, part, I, groups);
}

/* d_x = sum over kh, kw, o ascending of d_y * w, rows of d_y that are cut off left out, columns met as zeros. No
 * overlap. */
static inline void kg_conv_transpose2d_grad_input_f32(float *restrict d_x, const float *restrict d_y,
                                                      const float *restrict w, const kg_window *window, int32_t O,
                                                      int32_t part, int32_t I, int32_t groups) {
  kg_conv2d_f32(d_x, d_y, w, NULL, false, window, O, part, I, groups, -KG_INFINITY, KG_INFINITY);
}

/* d_w[kh][kw][o][i] = sum over the pixels of x, in order, of d_y * x. No overlap. */
static inline void kg_conv_transpose2d_grad_weight_f32(float *restrict d_w, const float *restrict x,
                                                       const float *restrict d_y, const kg_window *window, int32_t O,
                                                       int32_t part, int32_t I, int32_t groups) {
  kg_conv2d_grad_weight_f32(d_w, d_y, x, window, O, part, I, groups);
}

#endif
