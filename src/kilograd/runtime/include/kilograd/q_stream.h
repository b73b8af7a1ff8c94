/* Chains of quantised convolutions computed some rows at a time, so that no intermediate result exists as a whole.
 *
 * Each stage but the last writes into a band: the rows of its result that the next stage has yet to read, in order and
 * without gaps, the image's full width. Rows that are read no more make room for those to come, and each row is
 * computed once, by the kernel for whole images, to which a band is a small image. */
#ifndef KILOGRAD_Q_STREAM_H
#define KILOGRAD_Q_STREAM_H

#include "kilograd/q_conv.h"
#include "kilograd/q_depthwise.h"

/* A convolution from C to O channels over whole images; depthwise where groups = 0. `band` is the distance in bytes
 * from the start of scratch to its band, a multiple of 4; the last stage has none. */
typedef struct kg_stage_s8 {
  kg_window window;
  kg_output_s8 out;
  kg_part_s8 weight;
  int32_t C, O, groups, x_zero_point, band;
} kg_stage_s8;

/* Rows [begin, end) of a stage's result are there; those up to `next` are to be computed. */
typedef struct kg_band {
  int32_t begin, end, next;
} kg_band;

/* The first input row that output row oh meets. */
KG_INLINE int32_t kg_first_row(const kg_window *g, int32_t oh) {
  const int32_t top = oh * g->stride_h - g->pad_top;
  return top > 0 ? top : 0;
}

/* Behind the last input row that output row oh meets. */
KG_INLINE int32_t kg_behind_row(const kg_window *g, int32_t oh) {
  const int32_t bottom = oh * g->stride_h - g->pad_top + (g->KH - 1) * g->dilation_h + 1;
  return bottom < g->H ? bottom : g->H;
}

/* Drops the rows before `first`, and moves those behind to the start of the band; `size` bytes a row. */
KG_INLINE void kg_drop_rows(int8_t *rows, kg_band *band, int32_t first, int32_t size) {
  const int32_t dropped = first - band->begin;
  if (dropped > 0) {
    for (int32_t r = first; r < band->end; ++r, rows += size) {
      kg_copy(rows, rows + dropped * size, size);
    }
    band->begin = first;
    band->end = band->end < first ? first : band->end;
  }
}

/* The output rows [oh, end) of a stage, written to y. x holds its input from row `begin` on. `depthwise` says whether
 * the stage may be one. */
KG_INLINE void kg_stage_rows_s8(int8_t *restrict y, const int8_t *restrict x, const kg_stage_s8 *stage, int32_t oh,
                                int32_t end, int32_t begin, int16_t *restrict scratch, bool depthwise) {
  kg_window g = stage->window;
  const int32_t first = kg_first_row(&g, oh);
  x += (first - begin) * g.W * stage->C;
  g.pad_top = (int16_t)(first - oh * g.stride_h + g.pad_top);
  g.H = kg_behind_row(&stage->window, end - 1) - first;
  g.OH = end - oh;
  if (!depthwise || stage->groups > 0) {
    kg_conv2d_s8(y, x, &stage->weight, 1, &stage->out, scratch, &g, stage->C, stage->O, stage->groups,
                 stage->x_zero_point);
  } else {
    kg_depthwise_s8(y, x, stage->weight.w, &stage->out, scratch, &g, stage->C, stage->C, stage->x_zero_point);
  }
}

/* kg_stream_s8, with or without the code for depthwise stages. */
KG_INLINE void kg_stages_s8(int8_t *restrict y, const int8_t *restrict x, const kg_stage_s8 *stages, int32_t count,
                            int32_t rows, int8_t *restrict scratch, int32_t room, bool depthwise) {
  kg_band *const bands = (kg_band *)(void *)scratch, *const result = bands + count - 1;
  const int32_t OH = stages[count - 1].window.OH;
  for (int32_t i = 0; i < count; ++i) {
    bands[i].begin = bands[i].end = bands[i].next = 0;
  }
  while (result->end < OH) {
    result->next = OH - result->end < rows ? OH : result->end + rows;
    for (int32_t i = count - 1; i > 0; --i) { /* what each stage asks of the one before */
      const kg_window *g = &stages[i].window;
      kg_band *const band = &bands[i - 1];
      kg_drop_rows(scratch + stages[i - 1].band, band, kg_first_row(g, bands[i].end), g->W * stages[i].C);
      const int32_t next = kg_behind_row(g, bands[i].next - 1);
      band->next = next > band->end ? next : band->end;
    }
    for (int32_t i = 0; i < count; ++i) {
      kg_band *const band = &bands[i];
      const int32_t done = (band->end - band->begin) * stages[i].window.OW * stages[i].O;
      if (band->next > band->end) {
        kg_stage_rows_s8((band == result ? y : scratch + stages[i].band) + done,
                         i > 0 ? scratch + stages[i - 1].band : x, &stages[i], band->end, band->next,
                         i > 0 ? bands[i - 1].begin : 0, (int16_t *)(void *)(scratch + room), depthwise);
        band->end = band->next;
      }
    }
  }
}

/* y = the last of `count` stages of ... of the first of x, `rows` rows of y at a time. Every window meets the image
 * that it slides over. `scratch`, aligned to 4 bytes, holds first `count` kg_band, then the bands, where the stages
 * say; at `room`, a multiple of 4, begins what the hungriest stage needs. y must not overlap anything else. */
KG_SHARED void kg_stream_s8(int8_t *restrict y, const int8_t *restrict x, const kg_stage_s8 *stages, int32_t count,
                            int32_t rows, int8_t *restrict scratch, int32_t room) {
  kg_stages_s8(y, x, stages, count, rows, scratch, room, true);
}

/* The same for stages of which none is depthwise: a network without any needs no code for them. */
KG_SHARED void kg_stream_dense_s8(int8_t *restrict y, const int8_t *restrict x, const kg_stage_s8 *stages,
                                  int32_t count, int32_t rows, int8_t *restrict scratch, int32_t room) {
  kg_stages_s8(y, x, stages, count, rows, scratch, room, false);
}

#endif
