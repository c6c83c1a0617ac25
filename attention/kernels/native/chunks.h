// What the programs share: a call's tensors, the threads and chunks that share its work, and rows to and from memory.
#pragma once

#include <omp.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "products.h"

namespace {

constexpr long C = 64;

// STORAGE: the type of q, k, v and the results. One library each, so that what is compiled is what is needed.
typedef STORAGE X;
typedef Wide<X>::type R;

struct Tensor {
    void* data;
    int64_t batch, head, token;  // strides in elements; that of the last dimension is 1
    int64_t heads, tokens;
};

// S [B, Hkv, D, Dv] and z [B, Hkv, D], contiguous; or nothing.
struct State { R *S, *z; };

// Of the pointers, those of which a program knows nothing are null.
struct Call {
    Tensor q, k, v, out, grad_out, dq, dk, dv;
    R *inverse, *gates, *grad_gates, *before, *states, *sums, *scratch;
    State first, last, behind;
    int64_t batch, heads, tokens, key_width, value_width, segments, segment_tokens, threads, scratch_size, map;
    int64_t causal, group, query_segments, query_segment_tokens;  // group: heads of queries to one of keys
    int64_t sequences;
    const int64_t* ends;  // where packed sequences begin, and the last ends; null of those that are not packed
    double eps;
};

// Rows begin at multiples of 64 bytes, whatever the machine's vectors.
constexpr long aligned(long width) {
    constexpr long step = 64 / sizeof(R);
    return (width + step - 1) / step * step;
}

struct Operand {
    const R* at;
    long row, width;
};

// What one core works in. T: sums as they come, [E + 1][key_row]; U: their transpose, [D][value_row].
struct Scratch {
    R *q, *k, *v, *g, *turned, *scores, *result, *T, *U, *beside;
};

class Chunks {
  protected:
    const Call& call;
    const long D, E, key_row, value_row;

    enum Side { KEYS, QUERIES };

    explicit Chunks(const Call& call)
        : call(call), D(call.key_width), E(call.value_width), key_row(aligned(D)), value_row(aligned(E + 1)) {}

    // A large result is fresh memory at each call: by 2 MB a page fault it comes in less time than by 4 kB.
    void expect([[maybe_unused]] const Tensor& x, [[maybe_unused]] long width) {
#ifdef MADV_HUGEPAGE
        constexpr uintptr_t page = 1 << 21, least = 16 * page;
        // To the end of the last row: the stride of a single batch or head may be any number.
        uintptr_t begin = (uintptr_t)x.data;
        uintptr_t end = (uintptr_t)(row(x, call.batch * x.heads - 1, x.tokens - 1) + width);
        begin = (begin + page - 1) / page * page, end = end / page * page;
        if (end > begin + least) madvise((void*)begin, end - begin, MADV_HUGEPAGE);
#endif
    }

    // --- who works on what -----------------------------------------------------------------------------------

    template <typename F> void each_segment(long first, long count, F work) {
        long tasks = call.batch * call.heads * count;
#pragma omp parallel num_threads(call.threads)
        {
            Scratch s = scratch(omp_get_thread_num());
#pragma omp for schedule(dynamic)
            for (long task = 0; task < tasks; task++) work(task / count, first + task % count, s);
        }
    }

    template <typename F> void each_chunk(long segment, bool reverse, F work) {
        long first = segment * call.segment_tokens;
        each_chunk(first, std::min(first + call.segment_tokens, call.tokens), reverse, work);
    }

    template <typename F> void each_chunk(long first, long last, bool reverse, F work) {
        long chunks = (last - first + C - 1) / C;
        for (long i = 0; i < chunks; i++) {
            long n = first + (reverse ? chunks - 1 - i : i) * C;
            work(n, std::min(C, last - n));
        }
    }

    Scratch scratch(int core) {
        R* at = call.scratch + core * call.scratch_size;
        auto take = [&](long size) { return (at += size) - size; };
        long wide = std::max(key_row, value_row);
        return {take(C * key_row), take(C * key_row), take(C * value_row), take(C * value_row), take(wide * C),
                take(C * C), take(C * wide), take(value_row * key_row), take(key_row * value_row), at};
    }

    // The sum of a segment's V'k or G'q, [E + 1][key_row].
    R* state(Side side, long head, long segment) {
        R* all = side == KEYS ? call.states : call.sums;
        long segments = side == KEYS ? call.segments : call.query_segments;
        // Sequences longer than a segment end in a shorter one each, so that they are cut into fewer than twice as many.
        if (call.ends) segments *= 2;
        return all + (head * segments + segment) * (E + 1) * key_row;
    }

    // --- to and from memory ----------------------------------------------------------------------------------

    X* row(const Tensor& x, long head, long n) {
        return (X*)x.data + head / x.heads * x.batch + head % x.heads * x.head + n * x.token;
    }

    // Rows beyond the last token, up to a whole vector: a transpose reads them.
    void clear(R* to, long row, long c) { memset(to + c * row, 0, (padded<R>(c) - c) * row * sizeof(R)); }

    template <typename F> auto with_map(F f) {
        switch (call.map) {
            case ELU: return f(std::integral_constant<Map, ELU>());
            case RELU: return f(std::integral_constant<Map, RELU>());
            default: return f(std::integral_constant<Map, IDENTITY>());
        }
    }

    void load_mapped(R* to, const Tensor& x, long head, long n, long c) {
        map_rows(to, x, head, n, c);
        clear(to, key_row, c);
    }

    void map_rows(R* to, const Tensor& x, long head, long n, long c) {
        with_map([&](auto map) {
            for (long i = 0; i < c; i++) {
                const X* from = row(x, head, n + i);
                for (long d = 0; d < D; d += LANES<R>) {
                    Lanes<R> y = phi<map()>(load<X>(from + d, D - d));
                    for (long l = D - d; l < LANES<R>; l++) y[l] = 0;  // phi(0) is not
                    store<R>(to + i * key_row + d, y);
                }
            }
        });
    }

    // Rows as wide as the values, the last of each followed by a number and zeros.
    void load_rows(R* to, const Tensor& x, long head, long n, long c, R last) {
        copy_rows(to, x, head, n, c, last);
        clear(to, value_row, c);
    }

    void copy_rows(R* to, const Tensor& x, long head, long n, long c, R last) {
        for (long i = 0; i < c; i++) {
            const X* from = row(x, head, n + i);
            R* at = to + i * value_row;
            for (long e = 0; e < E; e += LANES<R>) store<R>(at + e, load<X>(from + e, E - e));
            end_row(at, last);
        }
    }

    void end_row(R* row, R last) {
        for (long e = E; e < value_row; e++) row[e] = 0;
        row[E] = last;
    }

    // The result, each row by a factor of its own.
    void write_rows(const Tensor& x, long head, long n, const Scratch& s, long c, const R* factors) {
        for (long i = 0; i < c; i++) {
            X* to = row(x, head, n + i);
            R factor = factors ? factors[i] : 1;
            for (long e = 0; e < E; e += LANES<R>)
                store<X>(to + e, load<R>(s.result + i * value_row + e) * factor, E - e);
        }
    }

    // The result, a gradient with respect to phi(x), as one with respect to x.
    void write_gradient(const Tensor& x, long head, long n, const Scratch& s, const R* mapped, long c) {
        with_map([&](auto map) {
            for (long i = 0; i < c; i++) {
                X* to = row(x, head, n + i);
                for (long d = 0; d < D; d += LANES<R>) {
                    long at = i * key_row + d;
                    store<X>(to + d, load<R>(s.result + at) * slope<map()>(load<R>(mapped + at)), D - d);
                }
            }
        });
    }
};

}  // namespace
