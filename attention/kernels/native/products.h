// Small matrix products that stay in the cache, whole or within a triangle.
#pragma once

#include <algorithm>

#include "vectors.h"

// A matrix as it is read element by element: in either order.
template <typename R> struct Elements { const R* at; long row, column; };

// Which (i, k) of a square exist: all, k <= i, or k >= i.
enum Band { FULL, LOWER, UPPER };

template <typename R, int rows, int vectors>
__attribute__((always_inline)) inline void tile(R* out, long out_row, const R* a, long a_row, long a_column, const R* b, long b_row, long depth,
                 bool add) {
    Lanes<R> sums[rows][vectors] = {};
    for (long k = 0; k < depth; k++, a += a_column, b += b_row) {
        Lanes<R> right[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) right[v] = load<R>(b + v * LANES<R>);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
            for (int v = 0; v < vectors; v++) sums[i][v] += a[i * a_row] * right[v];
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
            R* to = out + i * out_row + v * LANES<R>;
            store<R>(to, add ? load<R>(to) + sums[i][v] : sums[i][v]);
        }
}

// The tile of so many rows: a number the compiler must know, to keep the sums in registers.
template <typename R, int vectors, int rows = ROWS>
inline void tile_of(long count, R* out, long out_row, const R* a, long a_row, long a_column, const R* b,
                    long b_row, long depth, bool add) {
    if (count == rows) return tile<R, rows, vectors>(out, out_row, a, a_row, a_column, b, b_row, depth, add);
    if constexpr (rows > 1)
        tile_of<R, vectors, rows - 1>(count, out, out_row, a, a_row, a_column, b, b_row, depth, add);
}

// out = a b, or out += a b, where a b is summed first: a long sum in float32 needs sums of its parts. Columns
// are whole vectors. `within` is the band of the output that is wanted (what lies beyond may be overwritten),
// `of` the band of a that is not zero: next to its edge a is zero.
template <typename R>
void product(R* out, long out_row, Elements<R> a, const R* b, long b_row, long rows, long columns, long depth,
             bool add = false, Band within = FULL, Band of = FULL) {
    constexpr long wide = VECTORS * LANES<R>;
    for (long j = 0; j < columns;) {
        long width = columns - j >= wide ? wide : LANES<R>;
        for (long i = 0; i < rows; i += ROWS) {
            long count = std::min<long>(ROWS, rows - i);
            if ((within == LOWER && j >= i + count) || (within == UPPER && j + width <= i)) continue;
            long first = of == UPPER ? i : 0, last = of == LOWER ? std::min(depth, i + count) : depth;
            R* to = out + i * out_row + j;
            const R* left = a.at + i * a.row + first * a.column;
            const R* right = b + first * b_row + j;
            if (width == wide)
                tile_of<R, VECTORS>(count, to, out_row, left, a.row, a.column, right, b_row, last - first, add);
            else
                tile_of<R, 1>(count, to, out_row, left, a.row, a.column, right, b_row, last - first, add);
        }
        j += width;
    }
}

// Zeros beyond the band in the tiles on its edge, so that a product may read whole tiles.
template <typename R> void mask(R* scores, long row, long size, Band band) {
    for (long i = 0; i < size; i++) {
        long block = i / ROWS * ROWS;
        if (band == LOWER)
            for (long j = i + 1; j < std::min(size, block + ROWS); j++) scores[i * row + j] = 0;
        else
            for (long j = block; j < i; j++) scores[i * row + j] = 0;
    }
}
