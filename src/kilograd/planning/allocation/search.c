/* Depth-first search for offsets that fit a capacity: one call of kg_allocation_search.
 *
 * Problem: buffer i occupies bytes [offset_i, offset_i + size_i) during sections [first_i, last_i); buffers that
 * share a section must not share a byte; offset_i is a multiple of alignment_i and at most highest_i.
 *
 * Any solution can be pushed down until every buffer rests on another one or on offset 0. The search builds
 * exactly these solutions, from the bottom up:
 *
 *   order        buffers are placed by rising (offset, rank). Each then lands on the highest placed buffer that it
 *                shares a section with; that height is its `floor`, and nothing else has to be tried.
 *   staleness    an unplaced buffer whose floor lies below the last placement is never placed on that floor: it
 *                waits for another unplaced buffer to slip under it, which raises its bound.
 *   dominance    never place at or above floor_j + size_j of any unplaced j: j could move down to its floor,
 *                below everything still to come, and the sum of all offsets would fall.
 *   sections     in each section the unplaced buffers with bound >= b, together, must fit between b and the
 *                capacity, for every b (the one-machine bound with release dates).
 *   components   when no unplaced buffer spans a boundary between sections, both sides are separate problems;
 *                one that fails makes the choice above both fail.
 *   twins        equal buffers are placed in rank order.
 *
 * The ideas are those of M. Moffitt, "MiniMalloc", ASPLOS 2023. The result depends on the arguments only: the limit
 * is a count of nodes, never of seconds.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { KG_SOLVED = 1, KG_NO_SOLUTION = 0, KG_NODE_LIMIT = -1, KG_OUT_OF_MEMORY = -2 };

typedef struct {
  int64_t height; /* bound on the buffer's offset */
  int32_t buffer;
} bound;

typedef struct {
  const int32_t *first, *last, *twin;
  const int64_t *size, *alignment, *highest;
  int64_t capacity;
  int64_t nodes_left;
  const volatile int32_t *stop; /* another thread sets it to end the search */
  int64_t *floor;               /* [buffer] */
  int64_t *offset;              /* [buffer], -1 while unplaced */
  int64_t *load;                /* [section], scratch of prune() */
  char *arena;                  /* the stack of the recursion's arrays */
  size_t arena_used, arena_size;
} search;

static void *take(search *s, size_t bytes) {
  bytes = (bytes + 15u) & ~(size_t)15u;
  if (s->arena_used + bytes > s->arena_size) return NULL;
  void *p = s->arena + s->arena_used;
  s->arena_used += bytes;
  return p;
}

static int64_t align_up(int64_t height, int64_t alignment) { return (height + alignment - 1) / alignment * alignment; }

static bool overlap(const search *s, int32_t i, int32_t j) {
  return s->first[i] < s->last[j] && s->first[j] < s->last[i];
}

/* May `i` follow a placement at (height, rank) in the canonical order? */
static bool is_fresh(const search *s, int32_t i, int64_t height, int32_t rank) {
  return s->floor[i] > height || (s->floor[i] == height && i > rank);
}

static int by_descending_height(const void *a, const void *b) {
  const bound *x = a, *y = b;
  if (x->height != y->height) return x->height < y->height ? 1 : -1;
  return (x->buffer > y->buffer) - (x->buffer < y->buffer);
}

/* True when the unplaced `buffers` cannot be completed after a placement at (height, rank). */
static bool prune(search *s, const int32_t *buffers, int32_t count, int64_t height, int32_t rank) {
  size_t mark = s->arena_used;
  bound *bounds = take(s, (size_t)count * sizeof *bounds);
  if (!bounds) return false;
  bool dead = false;
  for (int32_t a = 0; a < count && !dead; a++) {
    int32_t i = buffers[a];
    int64_t least = s->floor[i];
    if (!is_fresh(s, i, height, rank)) {
      least = INT64_MAX;
      for (int32_t b = 0; b < count; b++) {
        int32_t j = buffers[b];
        if (j == i || !overlap(s, i, j)) continue;
        int64_t start = s->floor[j] > height ? s->floor[j] : height;
        if (start + s->size[j] < least) least = start + s->size[j];
      }
      if (least != INT64_MAX) least = align_up(least, s->alignment[i]);
    }
    dead = least > s->highest[i];
    bounds[a] = (bound){least, i};
  }
  if (!dead) {
    qsort(bounds, (size_t)count, sizeof *bounds, by_descending_height);
    for (int32_t a = 0; a < count; a++) {
      int32_t i = bounds[a].buffer;
      memset(s->load + s->first[i], 0, (size_t)(s->last[i] - s->first[i]) * sizeof *s->load);
    }
    for (int32_t a = 0; a < count && !dead; a++) {
      int32_t i = bounds[a].buffer;
      int64_t room = s->capacity - bounds[a].height, size = s->size[i];
      for (int32_t t = s->first[i]; t < s->last[i]; t++) {
        s->load[t] += size;
        dead |= s->load[t] > room;
      }
    }
  }
  s->arena_used = mark;
  return dead;
}

/* The first component of `buffers`, which are sorted by first section: how many of them it has. */
static int32_t component(const search *s, const int32_t *buffers, int32_t count) {
  int32_t end = s->last[buffers[0]], size = 1;
  while (size < count && s->first[buffers[size]] < end) {
    if (s->last[buffers[size]] > end) end = s->last[buffers[size]];
    size++;
  }
  return size;
}

static int solve(search *s, const int32_t *buffers, int32_t count, int64_t height, int32_t rank);

static int solve_components(search *s, const int32_t *buffers, int32_t count, int64_t height, int32_t rank) {
  int status = KG_SOLVED;
  for (int32_t from = 0; from < count && status == KG_SOLVED;) {
    int32_t size = component(s, buffers + from, count - from);
    status = solve(s, buffers + from, size, height, rank);
    from += size;
  }
  return status;
}

/* Places `chosen` on its floor and solves what remains; on failure everything is as before. */
static int place(search *s, const int32_t *buffers, int32_t count, int32_t chosen) {
  if (s->nodes_left <= 0 || *s->stop) return KG_NODE_LIMIT;
  s->nodes_left--;
  size_t mark = s->arena_used;
  int32_t rest = count - 1;
  int32_t *others = take(s, (size_t)count * sizeof *others);
  int64_t *floors = take(s, (size_t)count * sizeof *floors);
  if (!others || !floors) {
    s->arena_used = mark;
    return KG_OUT_OF_MEMORY;
  }
  int64_t height = s->floor[chosen], top = height + s->size[chosen];
  s->offset[chosen] = height;
  for (int32_t a = 0, b = 0; a < count; a++) {
    int32_t i = buffers[a];
    floors[a] = s->floor[i];
    if (i == chosen) continue;
    others[b++] = i;
    if (overlap(s, i, chosen) && s->floor[i] < top) s->floor[i] = align_up(top, s->alignment[i]);
  }
  int status = prune(s, others, rest, height, chosen) ? KG_NO_SOLUTION : KG_SOLVED;
  if (status == KG_SOLVED) status = solve_components(s, others, rest, height, chosen);
  for (int32_t a = 0; a < count; a++) s->floor[buffers[a]] = floors[a];
  if (status != KG_SOLVED)
    for (int32_t a = 0; a < count; a++) s->offset[buffers[a]] = -1;
  s->arena_used = mark;
  return status;
}

static int by_ascending_height(const void *a, const void *b) {
  const bound *x = a, *y = b;
  if (x->height != y->height) return x->height < y->height ? -1 : 1;
  return (x->buffer > y->buffer) - (x->buffer < y->buffer);
}

static int solve(search *s, const int32_t *buffers, int32_t count, int64_t height, int32_t rank) {
  int64_t ceiling = INT64_MAX;
  for (int32_t a = 0; a < count; a++) {
    int64_t top = s->floor[buffers[a]] + s->size[buffers[a]];
    if (top < ceiling) ceiling = top;
  }
  size_t mark = s->arena_used;
  bound *choices = take(s, (size_t)count * sizeof *choices);
  if (!choices) return KG_OUT_OF_MEMORY;
  int32_t used = 0;
  for (int32_t a = 0; a < count; a++) {
    int32_t i = buffers[a];
    if (!is_fresh(s, i, height, rank) || s->floor[i] >= ceiling) continue;
    if (s->twin[i] >= 0 && s->offset[s->twin[i]] < 0) continue;
    choices[used++] = (bound){s->floor[i], i};
  }
  qsort(choices, (size_t)used, sizeof *choices, by_ascending_height);
  int status = KG_NO_SOLUTION;
  for (int32_t c = 0; c < used && status == KG_NO_SOLUTION; c++) {
    int32_t i = choices[c].buffer;
    status = place(s, buffers, count, i);
    if (status != KG_NO_SOLUTION) break;
    /* Every later choice passes over this one, which makes it stale: often that alone is fatal. */
    if (prune(s, buffers, count, s->floor[i], i)) break;
  }
  s->arena_used = mark;
  return status;
}

/* Arrays have one element a buffer; the buffers are in the order of rank, which breaks ties, so that the
 * caller's order says what is tried first. twin: the last equal buffer before this one, or -1.
 * nodes: in, how many placements to try; out, how many of them are left. offset: the answer, if KG_SOLVED. */
int kg_allocation_search(int32_t count, int32_t sections, const int32_t *first, const int32_t *last,
                         const int64_t *size, const int64_t *alignment, const int64_t *highest, const int32_t *twin,
                         int64_t capacity, int64_t *nodes, const volatile int32_t *stop, int64_t *offset) {
  size_t n = (size_t)count;
  search s = {.first = first,
              .last = last,
              .twin = twin,
              .size = size,
              .alignment = alignment,
              .highest = highest,
              .capacity = capacity,
              .nodes_left = *nodes,
              .stop = stop,
              .offset = offset};
  /* Each level of the recursion keeps 32 bytes a buffer and needs 16 more for a moment. */
  s.arena_size = n * (n + 1) / 2 * 32 + n * 128 + 64;
  bound *start = malloc((n + 1) * sizeof *start);
  int32_t *all = malloc((n + 1) * sizeof *all);
  s.floor = calloc(n + 1, sizeof *s.floor);
  s.load = malloc(((size_t)sections + 1) * sizeof *s.load);
  s.arena = malloc(s.arena_size);
  int status = KG_OUT_OF_MEMORY;
  if (start && all && s.floor && s.load && s.arena) {
    for (int32_t i = 0; i < count; i++) start[i] = (bound){first[i], i}, offset[i] = -1;
    qsort(start, n, sizeof *start, by_ascending_height);
    for (int32_t a = 0; a < count; a++) all[a] = start[a].buffer;
    bool dead = prune(&s, all, count, -1, -1);
    status = dead ? KG_NO_SOLUTION : solve_components(&s, all, count, -1, -1);
  }
  *nodes = s.nodes_left;
  free(start), free(all), free(s.floor), free(s.load), free(s.arena);
  return status;
}
