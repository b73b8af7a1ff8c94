/* Quantised depthwise convolutions over C channels: x[H][W][stride], weights w[KH][KW][C], y[OH][OW][stride], all int8;
 * `stride` is the bytes from a pixel to the next, so that x and y may be some channels of a larger tensor. */
#ifndef KILOGRAD_Q_DEPTHWISE_H
#define KILOGRAD_Q_DEPTHWISE_H

#include "kilograd/q_rows.h"

#define KG_Q_BLOCK 16

/* `lanes` channels of one output pixel: the kernel rows [begin, end) meet x from row `top`, column `left` on. */
KG_INLINE void kg_depthwise_pixel_s8(int8_t *restrict y, const int8_t *restrict x, const int8_t *restrict w,
                                     const kg_output_s8 *out, int32_t channel, const kg_window *g, int32_t C,
                                     int32_t stride, int32_t begin, int32_t end, int32_t top, int32_t left,
                                     int32_t x_zero_point, int32_t lanes) {
  int32_t sums[KG_Q_BLOCK];
  for (int32_t l = 0; l < lanes; ++l) {
    sums[l] = out->bias[channel + l];
  }
  for (int32_t kh = begin; kh < end; ++kh) {
    const int8_t *row = x + (top + kh * g->dilation_h) * g->W * stride;
    for (int32_t kw = 0; kw < g->KW; ++kw) {
      const int32_t iw = left + kw * g->dilation_w;
      if (iw >= 0 && iw < g->W) {
        const int8_t *from = row + iw * stride, *tap = w + (kh * g->KW + kw) * C;
        for (int32_t l = 0; l < lanes; ++l) {
          sums[l] += (from[l] - x_zero_point) * tap[l];
        }
      }
    }
  }
  for (int32_t l = 0; l < lanes; ++l) {
    const int32_t q = kg_requantize(sums[l], out->multiplier[channel + l], out->shift[channel + l]) + out->zero_point;
    y[l] = (int8_t)kg_clamp_s32(q, out->low, out->high);
  }
}

/* y = clamp(requantize(bias[c] + sum over kh, kw of (x - x_zero_point) * w) + zero_point, low, high). Taps outside the
 * input add nothing. |bias| <= 2^30 and at most 2^15 taps. y must not overlap anything else.
 *
 * `scratch`, aligned to 4 bytes, is used where dilation_w = 1 and stride_w <= 2 only: with n = KW / 2 + 1 it has room
 * for KH * (2 + 16 * n) elements of int16, and for 4 * ((KH - 1) * dilation_h + 2) rows of max(pad_left + W, (OW' - 1)
 * * stride_w + 2 * n), rounded up to an even number, where OW' is OW rounded up to a multiple of 4. */
static inline void kg_depthwise_s8(int8_t *restrict y, const int8_t *restrict x, const int8_t *restrict w,
                                   const kg_output_s8 *out, int16_t *restrict scratch, const kg_window *g, int32_t C,
                                   int32_t stride, int32_t x_zero_point) {
#if KG_SIMD32
  if (g->dilation_w == 1 && g->stride_w <= 2) {
    kg_depthwise_rows_s8(y, x, w, out, scratch, g, C, stride, x_zero_point);
    return;
  }
#else
  (void)scratch;
#endif
  for (int32_t oh = 0; oh < g->OH; ++oh) {
    const int32_t top = oh * g->stride_h - g->pad_top;
    int32_t begin, end;
    kg_kernel_rows(&begin, &end, g->KH, g->dilation_h, top, g->H);
    for (int32_t ow = 0; ow < g->OW; ++ow, y += stride) {
      const int32_t left = ow * g->stride_w - g->pad_left;
      int32_t c = 0;
      for (; c + KG_Q_BLOCK <= C; c += KG_Q_BLOCK) {
        kg_depthwise_pixel_s8(y + c, x + c, w + c, out, c, g, C, stride, begin, end, top, left, x_zero_point,
                              KG_Q_BLOCK);
      }
      for (; c < C; ++c) {
        kg_depthwise_pixel_s8(y + c, x + c, w + c, out, c, g, C, stride, begin, end, top, left, x_zero_point, 1);
      }
    }
  }
}

#endif
