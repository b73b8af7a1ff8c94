/* Depth-first search for offsets that fit a capacity: one call of kg_allocation_search.
 *
 * Problem: buffer i owns [offset_i, offset_i + size_i) during the sections [first_i, last_i). Buffers that share a
 * section share no byte; offset_i is a multiple of alignment_i and at most highest_i; all lie below the capacity.
 *
 * Any solution can be pushed down until every buffer rests on another one or on 0. The search builds such solutions
 * from the bottom up:
 *
 *   order       Buffers are placed by rising (offset, rank). Each then lies on the highest placed buffer that it shares
 *               a section with, its floor, and no other offset has to be tried.
 *   staleness   An unplaced buffer whose floor is below the last placement is not placed there any more: it waits for
 *               an unplaced one to slip under it, and that one's top bounds its offset.
 *   dominance   Never place at or above floor_j + size_j of an unplaced j: it could move down to its floor, below all
 *               that is still to come, and the sum of the offsets would fall.
 *   sections    In every section and for every height b, the unplaced buffers whose offsets are known to be at least b
 *               fit between b and the capacity (the bound of one machine with release dates).
 *   passing     When a choice has failed, later ones pass over its buffer and make it stale: if the sections show that
 *               this is fatal, so are all later choices.
 *   components  Where no unplaced buffer spans the boundary of two sections, both sides are problems of their own.
 *   twins       Equal buffers are placed in the order of rank.
 *
 * Canonical order, inference on sections, dominance and decomposition are ideas of M. Moffitt, "MiniMalloc: A
 * Lightweight Memory Allocator for Hardware-Accelerated Machine Learning", ASPLOS 2023. Without `stop` the result
 * depends on the arguments alone.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { KG_SOLVED = 1, KG_NO_SOLUTION = 0, KG_NODE_LIMIT = -1, KG_OUT_OF_MEMORY = -2 };

typedef struct {
  int32_t height; /* an offset, or a bound on one */
  int32_t buffer;
} bound;

/* The sections [from, to). */
typedef struct {
  int32_t from, to;
} range;

typedef struct {
  const int32_t *first, *last, *size, *alignment, *highest, *twin; /* [buffer] */
  int32_t capacity;
  int64_t nodes_left;
  const volatile int32_t *stop; /* another thread sets it to end the search */
  int32_t *floor;               /* [buffer] */
  int32_t *offset;              /* [buffer], -1 while unplaced */
  int64_t *failures;            /* [section], how often it was overfull */
  int32_t *load;                /* [section], scratch of prune() */
  bound *bounds, *unsorted;     /* [buffer], scratch of prune() */
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

static int32_t align_up(int32_t height, int32_t alignment) {
  return alignment == 1 ? height : (height + alignment - 1) / alignment * alignment;
}

static bool overlap(const search *s, int32_t i, int32_t j) {
  return s->first[i] < s->last[j] && s->first[j] < s->last[i];
}

/* May `i` follow a placement at (height, rank) in the canonical order? */
static bool is_fresh(const search *s, int32_t i, int32_t height, int32_t rank) {
  return s->floor[i] > height || (s->floor[i] == height && i > rank);
}

/* Sorts by ascending height, keeping the order of equals: byte by byte from the lowest. */
static void sort(bound *bounds, bound *scratch, int32_t count) {
  int32_t greatest = 0;
  for (int32_t a = 0; a < count; a++)
    if (bounds[a].height > greatest) greatest = bounds[a].height;
  for (int shift = 0; shift < 31 && greatest >> shift; shift += 8) {
    int32_t start[257] = {0};
    for (int32_t a = 0; a < count; a++) start[(bounds[a].height >> shift & 255) + 1]++;
    for (int digit = 0; digit < 256; digit++) start[digit + 1] += start[digit];
    for (int32_t a = 0; a < count; a++) scratch[start[bounds[a].height >> shift & 255]++] = bounds[a];
    memcpy(bounds, scratch, (size_t)count * sizeof *bounds);
  }
}

/* A bound on the offset of stale `i`, which has to rest on another unplaced buffer above `height`. */
static int32_t supported(const search *s, const int32_t *buffers, int32_t count, int32_t i, int32_t height) {
  int32_t least = INT32_MAX;
  for (int32_t a = 0; a < count; a++) {
    int32_t j = buffers[a];
    if (j == i || !overlap(s, i, j)) continue;
    int32_t top = (s->floor[j] > height ? s->floor[j] : height) + s->size[j];
    if (top < least) least = top;
  }
  return least > s->highest[i] ? least : align_up(least, s->alignment[i]);
}

/* True when s->bounds[0..count) leave too little room in one of the sections `where`. */
static bool overfull(search *s, int32_t count, range where) {
  sort(s->bounds, s->unsorted, count);
  int32_t *load = s->load;
  memset(load + where.from, 0, (size_t)(where.to - where.from) * sizeof *load);
  for (int32_t a = count; a-- > 0;) {
    int32_t i = s->bounds[a].buffer, size = s->size[i], room = s->capacity - s->bounds[a].height;
    int32_t from = s->first[i] > where.from ? s->first[i] : where.from;
    int32_t to = s->last[i] < where.to ? s->last[i] : where.to;
    int32_t over = 0;
    for (int32_t t = from; t < to; t++) {
      load[t] += size;
      over |= load[t] > room;
    }
    if (!over) continue;
    for (int32_t t = from; t < to; t++) s->failures[t] += load[t] > room;
    return true;
  }
  return false;
}

/* True when the sections `where` show that the unplaced `buffers` cannot be completed after a placement at (height,
 * rank). */
static bool prune(search *s, const int32_t *buffers, int32_t count, int32_t height, int32_t rank, range where) {
  int32_t used = 0;
  for (int32_t a = 0; a < count; a++) {
    int32_t i = buffers[a];
    if (s->last[i] <= where.from || s->first[i] >= where.to) continue;
    int32_t least = is_fresh(s, i, height, rank) ? s->floor[i] : supported(s, buffers, count, i, height);
    if (least > s->highest[i]) return true;
    s->bounds[used++] = (bound){least, i};
  }
  return overfull(s, used, where);
}

/* The sections of `buffers`; of those alone that overlap `only`, unless it is -1. */
static range spanned(const search *s, const int32_t *buffers, int32_t count, int32_t only) {
  range all = {INT32_MAX, 0};
  for (int32_t a = 0; a < count; a++) {
    int32_t i = buffers[a];
    if (only >= 0 && !overlap(s, i, only)) continue;
    if (s->first[i] < all.from) all.from = s->first[i];
    if (s->last[i] > all.to) all.to = s->last[i];
  }
  return all;
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

static int solve(search *s, const int32_t *buffers, int32_t count, int32_t height, int32_t rank);

static int solve_components(search *s, const int32_t *buffers, int32_t count, int32_t height, int32_t rank) {
  int status = KG_SOLVED;
  for (int32_t from = 0; from < count && status == KG_SOLVED;) {
    int32_t size = component(s, buffers + from, count - from);
    status = solve(s, buffers + from, size, height, rank);
    from += size;
  }
  return status;
}

/* Places `chosen` on its floor and solves what remains; on failure everything is as before. `checked` is the height
 * of the last placement for which prune() let `buffers` pass. */
static int place(search *s, const int32_t *buffers, int32_t count, int32_t chosen, int32_t checked) {
  if (s->nodes_left <= 0 || *s->stop) return KG_NODE_LIMIT;
  s->nodes_left--;
  size_t mark = s->arena_used;
  int32_t rest = count - 1;
  int32_t *others = take(s, (size_t)count * sizeof *others);
  int32_t *floors = take(s, (size_t)count * sizeof *floors);
  if (!others || !floors) {
    s->arena_used = mark;
    return KG_OUT_OF_MEMORY;
  }
  int32_t height = s->floor[chosen], top = height + s->size[chosen];
  s->offset[chosen] = height;
  for (int32_t a = 0, b = 0; a < count; a++) {
    int32_t i = buffers[a];
    floors[a] = s->floor[i];
    if (i == chosen) continue;
    others[b++] = i;
    if (overlap(s, i, chosen) && s->floor[i] < top) s->floor[i] = align_up(top, s->alignment[i]);
  }
  range where = spanned(s, buffers, count, height == checked ? chosen : -1);
  int status = prune(s, others, rest, height, chosen, where) ? KG_NO_SOLUTION : KG_SOLVED;
  if (status == KG_SOLVED) status = solve_components(s, others, rest, height, chosen);
  for (int32_t a = 0; a < count; a++) s->floor[buffers[a]] = floors[a];
  if (status != KG_SOLVED)
    for (int32_t a = 0; a < count; a++) s->offset[buffers[a]] = -1;
  s->arena_used = mark;
  return status;
}

static int by_height_then_rank(const void *a, const void *b) {
  const bound *x = a, *y = b;
  if (x->height != y->height) return x->height < y->height ? -1 : 1;
  return (x->buffer > y->buffer) - (x->buffer < y->buffer);
}

static int solve(search *s, const int32_t *buffers, int32_t count, int32_t height, int32_t rank) {
  int32_t ceiling = INT32_MAX;
  for (int32_t a = 0; a < count; a++) {
    int32_t top = s->floor[buffers[a]] + s->size[buffers[a]];
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
  qsort(choices, (size_t)used, sizeof *choices, by_height_then_rank);
  int status = KG_NO_SOLUTION;
  for (int32_t c = 0; c < used && status == KG_NO_SOLUTION; c++) {
    int32_t i = choices[c].buffer;
    status = place(s, buffers, count, i, height);
    if (status != KG_NO_SOLUTION) break;
    /* Every later choice passes over this one, which makes it stale: often that alone is fatal. At an unchanged
     * height nothing else has changed. */
    range where = s->floor[i] == height ? (range){s->first[i], s->last[i]} : spanned(s, buffers, count, -1);
    height = s->floor[i];
    if (prune(s, buffers, count, height, i, where)) break;
  }
  s->arena_used = mark;
  return status;
}

/* Arrays have one element a buffer; the buffers are in the order of rank, which breaks ties, so that
 * the caller's order says what is tried first. Heights and sizes are below 2^30.
 *   twin      the last equal buffer before this one, or -1
 *   nodes     in: how many placements to try; out: how many of them are left
 *   stop      not 0: end soon, as if there were no nodes left
 *   offset    out: the answer, if the result is KG_SOLVED
 *   failures  out: for each section how often it ended an attempt */
int kg_allocation_search(int32_t count, int32_t sections, const int32_t *first, const int32_t *last,
                         const int32_t *size, const int32_t *alignment, const int32_t *highest, const int32_t *twin,
                         int32_t capacity, int64_t *nodes, const volatile int32_t *stop, int32_t *offset,
                         int64_t *failures) {
  search s = {.first = first,
              .last = last,
              .size = size,
              .alignment = alignment,
              .highest = highest,
              .twin = twin,
              .capacity = capacity,
              .nodes_left = *nodes,
              .stop = stop,
              .offset = offset,
              .failures = failures};
  memset(failures, 0, (size_t)sections * sizeof *failures);
  size_t n = (size_t)count + 1, m = (size_t)sections + 1;
  /* A level of the recursion keeps others, floors and choices, 16 bytes a buffer, and rounds up. */
  s.arena_size = n * n / 2 * 16 + n * 128;
  s.floor = calloc(n, sizeof *s.floor);
  s.load = malloc(m * sizeof *s.load);
  s.bounds = malloc(n * sizeof *s.bounds);
  s.unsorted = malloc(n * sizeof *s.unsorted);
  s.arena = malloc(s.arena_size);
  int32_t *all = malloc(n * sizeof *all);
  int status = KG_OUT_OF_MEMORY;
  if (s.floor && s.load && s.bounds && s.unsorted && s.arena && all) {
    for (int32_t i = 0; i < count; i++) s.bounds[i] = (bound){first[i], i}, offset[i] = -1;
    sort(s.bounds, s.unsorted, count);
    for (int32_t a = 0; a < count; a++) all[a] = s.bounds[a].buffer;
    status =
        prune(&s, all, count, -1, -1, (range){0, sections}) ? KG_NO_SOLUTION : solve_components(&s, all, count, -1, -1);
  }
  *nodes = s.nodes_left;
  free(s.floor), free(s.load), free(s.bounds), free(s.unsorted), free(s.arena), free(all);
  return status;
}
