/* Layer and group normalisation: (x - mean) / sqrt(variance + epsilon) * scale + shift, and their gradients.
 *
 * Mean and variance are of two passes (the variance is the mean of the squared deviations). They are computed again
 * in the gradients, with the same bits, rather than kept. */
#ifndef KILOGRAD_NORM_H
#define KILOGRAD_NORM_H

#include "kilograd/base.h"
#include "kilograd/math.h"
#include "kilograd/reduce.h"

/* --- Layer normalisation: rows of D numbers, scale[D] and shift[D] or NULL --- */

/* Mean and 1 / sqrt(variance + epsilon) of D numbers, both sums in eight chains. */
KG_SHARED void kg_row_statistics_f32(const float *x, int32_t D, float epsilon, float *mean, float *inverse) {
  float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  KG_CHAINS8(D, sum[k] += x[i]);
  const float center = kg_join8_f32(sum) / (float)D;
  float square[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
  KG_CHAINS8(D, square[k] = KG_FMA(x[i] - center, x[i] - center, square[k]));
  *mean = center;
  *inverse = 1.0f / kg_sqrt_f32(kg_join8_f32(square) / (float)D + epsilon);
}

/* y[r][i] = n scale[i] + shift[i], n = (x[r][i] - mean) inverse. y may be x. */
KG_SHARED void kg_layer_norm_f32(float *y, const float *x, const float *scale, const float *shift, int32_t rows,
                                 int32_t D, float epsilon) {
  for (int32_t r = 0; r < rows; ++r, x += D, y += D) {
    float mean, inverse;
    kg_row_statistics_f32(x, D, epsilon, &mean, &inverse);
    if (scale == NULL) {
      KG_ELEMENTWISE
      for (int32_t i = 0; i < D; ++i) {
        y[i] = (x[i] - mean) * inverse;
      }
    } else {
      KG_ELEMENTWISE
      for (int32_t i = 0; i < D; ++i) {
        y[i] = KG_FMA((x[i] - mean) * inverse, scale[i], shift[i]);
      }
    }
  }
}

/* d_x[i] = inverse (g[i] - mean(g) - n[i] mean(g n)), g = d_y scale, a row; sums in eight chains. d_x may be d_y or
 * x. */
KG_SHARED void kg_layer_norm_grad_input_f32(float *d_x, const float *d_y, const float *x, const float *scale,
                                            int32_t rows, int32_t D, float epsilon) {
  for (int32_t r = 0; r < rows; ++r, x += D, d_y += D, d_x += D) {
    float mean, inverse;
    kg_row_statistics_f32(x, D, epsilon, &mean, &inverse);
    float sum[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    float dot[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (scale == NULL) {
      KG_CHAINS8(D, sum[k] += d_y[i]; dot[k] = KG_FMA(d_y[i], x[i] - mean, dot[k]));
    } else {
      KG_CHAINS8(D, const float g = d_y[i] * scale[i]; sum[k] += g; dot[k] = KG_FMA(g, x[i] - mean, dot[k]));
    }
    const float mean_g = kg_join8_f32(sum) / (float)D;
    const float slope = kg_join8_f32(dot) / (float)D * inverse * inverse; /* of the deviation x - mean */
    if (scale == NULL) {
      KG_ELEMENTWISE
      for (int32_t i = 0; i < D; ++i) {
        d_x[i] = inverse * KG_FMA(mean - x[i], slope, d_y[i] - mean_g);
      }
    } else {
      KG_ELEMENTWISE
      for (int32_t i = 0; i < D; ++i) {
        d_x[i] = inverse * KG_FMA(mean - x[i], slope, KG_FMA(d_y[i], scale[i], -mean_g));
      }
    }
  }
}

/* d_scale[i] = sum over r ascending of d_y[r][i] n[r][i]. No overlap. */
KG_SHARED void kg_layer_norm_grad_scale_f32(float *restrict d_scale, const float *restrict d_y, const float *restrict x,
                                            int32_t rows, int32_t D, float epsilon) {
  for (int32_t r = 0; r < rows; ++r, x += D, d_y += D) {
    float mean, inverse;
    kg_row_statistics_f32(x, D, epsilon, &mean, &inverse);
    for (int32_t i = 0; i < D; ++i) {
      d_scale[i] = KG_FMA(d_y[i], (x[i] - mean) * inverse, r == 0 ? 0.0f : d_scale[i]);
    }
  }
}

/* --- Group normalisation: x[N][P][C], P pixels, groups of M neighbouring channels, scale[C] and shift[C] --- */

/* Every channel's entry becomes the sum of its group, in ascending order of the channels, times `factor`. */
KG_INLINE void kg_share_group_f32(float *channels, int32_t C, int32_t M, float factor) {
  for (int32_t begin = 0; begin < C; begin += M) {
    float sum = 0.0f;
    for (int32_t c = begin; c < begin + M; ++c) {
      sum += channels[c];
    }
    for (int32_t c = begin; c < begin + M; ++c) {
      channels[c] = sum * factor;
    }
  }
}

/* Mean and 1 / sqrt(variance + epsilon) of each channel's group: sums over the pixels ascending a channel, then over
 * the channels. */
KG_SHARED void kg_group_statistics_f32(float *restrict mean, float *restrict inverse, const float *restrict x,
                                       int32_t P, int32_t C, int32_t M, float epsilon) {
  const float share = 1.0f / (float)(P * M);
  for (int32_t c = 0; c < C; ++c) {
    mean[c] = 0.0f;
    inverse[c] = 0.0f;
  }
  for (int32_t p = 0; p < P; ++p) {
    for (int32_t c = 0; c < C; ++c) {
      mean[c] += x[p * C + c];
    }
  }
  kg_share_group_f32(mean, C, M, share);
  for (int32_t p = 0; p < P; ++p) {
    for (int32_t c = 0; c < C; ++c) {
      const float deviation = x[p * C + c] - mean[c];
      inverse[c] = KG_FMA(deviation, deviation, inverse[c]);
    }
  }
  kg_share_group_f32(inverse, C, M, share);
  for (int32_t c = 0; c < C; ++c) {
    inverse[c] = 1.0f / kg_sqrt_f32(inverse[c] + epsilon);
  }
}

/* y = n scale + shift, n = (x - mean) inverse. scratch holds 2 C floats. y may be x. */
KG_SHARED void kg_group_norm_f32(float *y, const float *x, const float *scale, const float *shift, float *scratch,
                                 int32_t N, int32_t P, int32_t C, int32_t M, float epsilon) {
  float *mean = scratch, *slope = scratch + C;
  for (int32_t n = 0; n < N; ++n) {
    kg_group_statistics_f32(mean, slope, x, P, C, M, epsilon);
    for (int32_t c = 0; c < C; ++c) {
      slope[c] *= scale[c];
    }
    for (int32_t p = 0; p < P; ++p, x += C, y += C) {
      KG_ELEMENTWISE
      for (int32_t c = 0; c < C; ++c) {
        y[c] = KG_FMA(x[c] - mean[c], slope[c], shift[c]);
      }
    }
  }
}

/* sum[c] = sum over p ascending of d_y, dot[c] = of d_y (x - mean). */
KG_SHARED void kg_group_sums_f32(float *restrict sum, float *restrict dot, const float *restrict d_y,
                                 const float *restrict x, const float *restrict mean, int32_t P, int32_t C) {
  for (int32_t c = 0; c < C; ++c) {
    sum[c] = 0.0f;
    dot[c] = 0.0f;
  }
  for (int32_t p = 0; p < P; ++p) {
    for (int32_t c = 0; c < C; ++c) {
      sum[c] += d_y[p * C + c];
      dot[c] = KG_FMA(d_y[p * C + c], x[p * C + c] - mean[c], dot[c]);
    }
  }
}

/* d_x = inverse (g - mean(g) - n mean(g n)), g = d_y scale, the means over the group. scratch holds 4 C floats. d_x
 * may be d_y or x. */
KG_SHARED void kg_group_norm_grad_input_f32(float *d_x, const float *d_y, const float *x, const float *scale,
                                            float *scratch, int32_t N, int32_t P, int32_t C, int32_t M, float epsilon) {
  float *mean = scratch, *inverse = mean + C, *sum = inverse + C, *dot = sum + C;
  const float share = 1.0f / (float)(P * M);
  for (int32_t n = 0; n < N; ++n) {
    kg_group_statistics_f32(mean, inverse, x, P, C, M, epsilon);
    kg_group_sums_f32(sum, dot, d_y, x, mean, P, C);
    for (int32_t c = 0; c < C; ++c) {
      sum[c] *= scale[c];
      dot[c] *= scale[c];
    }
    kg_share_group_f32(sum, C, M, share);
    kg_share_group_f32(dot, C, M, share);
    for (int32_t c = 0; c < C; ++c) {
      dot[c] *= inverse[c] * inverse[c];
    }
    for (int32_t p = 0; p < P; ++p, x += C, d_y += C, d_x += C) {
      KG_ELEMENTWISE
      for (int32_t c = 0; c < C; ++c) {
        d_x[c] = inverse[c] * KG_FMA(mean[c] - x[c], dot[c], KG_FMA(d_y[c], scale[c], -sum[c]));
      }
    }
  }
}

/* d_scale[c] = sum over n, of inverse times (sum over p ascending of d_y (x - mean)). scratch holds 4 C floats. No
 * overlap. */
KG_SHARED void kg_group_norm_grad_scale_f32(float *restrict d_scale, const float *restrict d_y, const float *restrict x,
                                            float *restrict scratch, int32_t N, int32_t P, int32_t C, int32_t M,
                                            float epsilon) {
  float *mean = scratch, *inverse = mean + C, *sum = inverse + C, *dot = sum + C;
  for (int32_t n = 0; n < N; ++n, x += P * C, d_y += P * C) {
    kg_group_statistics_f32(mean, inverse, x, P, C, M, epsilon);
    kg_group_sums_f32(sum, dot, d_y, x, mean, P, C);
    for (int32_t c = 0; c < C; ++c) {
      d_scale[c] = KG_FMA(dot[c], inverse[c], n == 0 ? 0.0f : d_scale[c]);
    }
  }
}

#endif
