/* The geometry that a convolution and its gradients share.
 *
 * Output pixel (oh, ow) meets input pixel (oh * stride_h - pad_top + kh * dilation_h,
 * ow * stride_w - pad_left + kw * dilation_w) under kernel tap (kh, kw). */
#ifndef KILOGRAD_WINDOW_H
#define KILOGRAD_WINDOW_H

#include "kilograd/base.h"

typedef struct kg_window {
  int32_t H, W;   /* input rows and columns */
  int32_t OH, OW; /* output rows and columns */
  int16_t KH, KW; /* kernel rows and columns */
  int16_t stride_h, stride_w;
  int16_t dilation_h, dilation_w;
  int16_t pad_top, pad_left; /* what lies below and to the right follows from OH and OW */
} kg_window;

#endif
