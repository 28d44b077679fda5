/* Products of rounded inputs and weights in int8 (products.c), as other kernels ask for them. */
#include "vectors.h"

enum { PANEL = 64 }; /* rows of a weight that lie together */

/* A weight of M rows and E columns, a multiple of four: levels of its rows, as `pack` lays them out, and what belongs to
   each row, with room for all of the last panel. */
typedef struct {
    int64_t rows, columns;
    const int8_t *levels;
    const int32_t *offsets;
    const float *scales, *bias;
} weight;

/* What is multiplied: rows of several matrices side by side, each filled up to a multiple of four columns. */
typedef struct {
    const float *rows;
    const int64_t *which; /* row n is row which[n]; NULL: it is row n */
    int64_t stride, columns;
} input;

/* Inputs (n, E) in levels. */
typedef struct {
    uint8_t *levels; /* (n, E) */
    float *steps;    /* (n) what a level is worth */
} rounded;

rounded round_rows(int64_t n, int64_t parts, const input *inputs, int64_t width);

/* Rows `row` to `end` of inputs times rows `first`, a multiple of a panel, to `last` of a weight, the bias added: to out
   (end - row, stride). */
void multiply_some(const weight *by, int64_t first, int64_t last, rounded x, int64_t row, int64_t end, float *out,
                   int64_t stride);
