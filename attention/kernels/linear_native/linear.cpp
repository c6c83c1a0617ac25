// Linear attention on CPU cores, forward and backward: each chunk is read, mapped, multiplied and written while
// it lies in the cache of one core.
//
// With phi applied, V = [v | 1], G = [g | -(g . o)], g = do / (den + eps), all is one walk over chunks of C tokens,
//
//     out = tril(a b') c + a T        T += b'c
//
// of which only the half of a triangle that is not masked is computed. Forward, a, b, c = q, k, v; the normaliser
// is summed beside it. Backward, dq: G, V, k; and from the end, with triu, dk: V, G, q and dv: k, q, g. Without a
// mask T is the sum over all tokens. Where heads are fewer than cores a sequence is cut into segments, whose sums
// are made first: V'k, whose transpose is S and whose last row z, and G'q.
#include <omp.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "products.h"

namespace {

constexpr long C = 64;

struct Tensor {
    void* data;
    int64_t batch, head, token;  // strides in elements; that of the last dimension is 1
};

struct Call {
    Tensor q, k, v, out, grad_out, dq, dk, dv;
    void *inverse, *states, *sums, *scratch;
    int64_t batch, heads, tokens, key_width, value_width, segments, segment_tokens, threads, scratch_size, map;
    int64_t causal;
    double eps;
};

// Rows begin at multiples of 64 bytes, whatever the machine's vectors.
template <typename R> constexpr long aligned(long width) {
    constexpr long step = 64 / sizeof(R);
    return (width + step - 1) / step * step;
}

template <typename X> class Attention {
    typedef typename Wide<X>::type R;

    struct Operand {
        const R* at;
        long row, width;
    };

    // What one core works in. T: sums as they come, [E + 1][key_row]; U: their transpose, [D][value_row].
    struct Scratch {
        R *q, *k, *v, *g, *turned, *scores, *result, *T, *U, *z;
    };

    const Call& call;
    const bool causal;
    const long D, E, key_row, value_row;

    enum Side { KEYS, QUERIES };

  public:
    explicit Attention(const Call& call)
        : call(call), causal(call.causal), D(call.key_width), E(call.value_width), key_row(aligned<R>(D)),
          value_row(aligned<R>(E + 1)) {}

    void forward() {
        expect(call.out, E);
        sum_segments(KEYS, 0, causal ? call.segments - 1 : call.segments);
        each_segment(0, call.segments, [&](long head, long segment, Scratch& s) {
            gather(s, KEYS, head, 0, causal ? segment : call.segments);
            memcpy(s.z, s.T + E * key_row, key_row * sizeof(R));
            each_chunk(segment, false, [&](long n, long c) {
                load_mapped(s.q, call.q, head, n, c);
                if (causal) load_side(s, KEYS, head, n, c);
                R* inverse = (R*)call.inverse + head * call.tokens + n;
                normalise(s, inverse, c);
                step(s, {s.q, key_row, D}, {s.k, key_row, D}, {s.v, value_row, E}, s.U, c, LOWER);
                write_rows(call.out, head, n, s, c, inverse);
            });
        });
    }

    void backward() {
        expect(call.dq, D);
        expect(call.dk, D);
        expect(call.dv, E);
        each_segment(0, call.segments, [&](long head, long segment, Scratch& s) {
            gather(s, KEYS, head, 0, causal ? segment : call.segments);
            each_chunk(segment, false, [&](long n, long c) {
                load_upstream(s.g, head, n, c);
                if (causal) load_side(s, KEYS, head, n, c);
                step(s, {s.g, value_row, E + 1}, {s.v, value_row, E + 1}, {s.k, key_row, D}, s.T, c, LOWER);
                load_mapped(s.q, call.q, head, n, c);
                write_gradient(call.dq, head, n, s, s.q, c);
            });
        });
        long first = causal ? 1 : 0;
        sum_segments(QUERIES, first, call.segments - first);
        each_segment(0, call.segments, [&](long head, long segment, Scratch& s) {
            gather(s, QUERIES, head, causal ? segment + 1 : 0, call.segments);
            each_chunk(segment, true, [&](long n, long c) {
                load_side(s, KEYS, head, n, c);
                if (causal) load_side(s, QUERIES, head, n, c);
                step(s, {s.v, value_row, E + 1}, {s.g, value_row, E + 1}, {s.q, key_row, D}, s.T, c, UPPER);
                write_gradient(call.dk, head, n, s, s.k, c);
                step(s, {s.k, key_row, D}, {s.q, key_row, D}, {s.g, value_row, E}, s.U, c, UPPER);
                write_rows(call.dv, head, n, s, c, nullptr);
            });
        });
    }

  private:
    // A large result is fresh memory at each call: by 2 MB a page fault it comes in less time than by 4 kB.
    void expect([[maybe_unused]] const Tensor& x, [[maybe_unused]] long width) {
#ifdef MADV_HUGEPAGE
        constexpr uintptr_t page = 1 << 21, least = 16 * page;
        // To the end of the last row: the stride of a single batch or head may be any number.
        uintptr_t begin = (uintptr_t)x.data;
        uintptr_t end = (uintptr_t)(row(x, call.batch * call.heads - 1, call.tokens - 1) + width);
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
        long first = segment * call.segment_tokens, last = std::min(first + call.segment_tokens, call.tokens);
        long chunks = (last - first + C - 1) / C;
        for (long i = 0; i < chunks; i++) {
            long n = first + (reverse ? chunks - 1 - i : i) * C;
            work(n, std::min(C, last - n));
        }
    }

    Scratch scratch(int core) {
        R* at = (R*)call.scratch + core * call.scratch_size;
        auto take = [&](long size) { return (at += size) - size; };
        long wide = std::max(key_row, value_row);
        return {take(C * key_row), take(C * key_row), take(C * value_row), take(C * value_row), take(wide * C),
                take(C * C), take(C * wide), take(value_row * key_row), take(key_row * value_row), take(2 * key_row)};
    }

    // --- the sums --------------------------------------------------------------------------------------------

    R* state(Side side, long head, long segment) {
        return (R*)(side == KEYS ? call.states : call.sums) + (head * call.segments + segment) * (E + 1) * key_row;
    }

    void sum_segments(Side side, long first, long count) {
        if (count < 1) return;
        each_segment(first, count, [&](long head, long segment, Scratch& s) {
            R* total = state(side, head, segment);
            memset(total, 0, (E + 1) * key_row * sizeof(R));
            each_chunk(segment, false, [&](long n, long c) {
                load_side(s, side, head, n, c);
                const R *left = side == KEYS ? s.v : s.g, *right = side == KEYS ? s.k : s.q;
                product<R>(total, key_row, {left, 1, value_row}, right, key_row, E + 1, padded<R>(D), c, true);
            });
        });
    }

    // T and U: the sums of the segments from `first` to before `last`.
    void gather(Scratch& s, Side side, long head, long first, long last) {
        memset(s.T, 0, value_row * key_row * sizeof(R));
        for (long segment = first; segment < last; segment++) {
            const R* sum = state(side, head, segment);
            for (long i = 0; i < (E + 1) * key_row; i++) s.T[i] += sum[i];
        }
        transpose<R>(s.U, value_row, s.T, key_row, padded<R>(E), padded<R>(D));
    }

    // --- a chunk of c tokens ---------------------------------------------------------------------------------

    // result = tri(a b') c + a T; T += b'c.
    void step(Scratch& s, Operand a, Operand b, Operand c, R* T, long tokens, Band band) {
        long columns = padded<R>(c.width);
        if (causal) {
            transpose<R>(s.turned, C, b.at, b.row, padded<R>(tokens), padded<R>(b.width));
            product<R>(s.scores, C, {a.at, a.row, 1}, s.turned, C, tokens, padded<R>(tokens), a.width, false, band);
            mask(s.scores, C, tokens, band);
            product<R>(s.result, c.row, {s.scores, C, 1}, c.at, c.row, tokens, columns, tokens, false, FULL, band);
        }
        product<R>(s.result, c.row, {a.at, a.row, 1}, T, c.row, tokens, columns, a.width, causal);
        if (causal) product<R>(T, c.row, {b.at, 1, b.row}, c.at, c.row, a.width, columns, tokens, true);
    }

    // 1 / (phi(q) . z + eps), z up to each token. Summed by chunks: a sum of a million terms is none in float32.
    void normalise(Scratch& s, R* inverse, long tokens) {
        R* within = s.z + key_row;
        memset(within, 0, key_row * sizeof(R));
        for (long i = 0; i < tokens; i += LANES<R>) {
            Lanes<R> products[LANES<R>] = {};
            for (long d = 0; d < D; d += LANES<R>) {
                Lanes<R> before = load<R>(s.z + d), z = load<R>(within + d);
                for (long l = 0; l < LANES<R>; l++) {
                    if (causal) z += load<R>(s.k + (i + l) * key_row + d);
                    products[l] += load<R>(s.q + (i + l) * key_row + d) * (before + z);
                }
                store<R>(within + d, z);
            }
            store<R>(inverse + i, 1 / (sums<R>(products) + (R)call.eps), tokens - i);
        }
        for (long d = 0; d < D; d += LANES<R>) store<R>(s.z + d, load<R>(s.z + d) + load<R>(within + d));
    }

    // --- to and from memory ----------------------------------------------------------------------------------

    X* row(const Tensor& x, long head, long n) {
        return (X*)x.data + head / call.heads * x.batch + head % call.heads * x.head + n * x.token;
    }

    void load_side(Scratch& s, Side side, long head, long n, long c) {
        if (side == KEYS) {
            load_mapped(s.k, call.k, head, n, c);
            load_values(s.v, head, n, c);
        } else {
            load_mapped(s.q, call.q, head, n, c);
            load_upstream(s.g, head, n, c);
        }
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
        clear(to, key_row, c);
    }

    void end_row(R* row, R last) {
        for (long e = E; e < value_row; e++) row[e] = 0;
        row[E] = last;
    }

    void load_values(R* to, long head, long n, long c) {
        for (long i = 0; i < c; i++) {
            const X* from = row(call.v, head, n + i);
            R* at = to + i * value_row;
            for (long e = 0; e < E; e += LANES<R>) store<R>(at + e, load<X>(from + e, E - e));
            end_row(at, 1);
        }
        clear(to, value_row, c);
    }

    void load_upstream(R* to, long head, long n, long c) {
        const R* inverse = (const R*)call.inverse + head * call.tokens + n;
        clear(to, value_row, c);
        for (long i = 0; i < c; i += LANES<R>) {
            Lanes<R> products[LANES<R>] = {};
            long count = std::min(LANES<R>, c - i);
            for (long l = 0; l < count; l++) {
                const X *from = row(call.grad_out, head, n + i + l), *out = row(call.out, head, n + i + l);
                for (long e = 0; e < E; e += LANES<R>) {
                    Lanes<R> g = load<X>(from + e, E - e) * inverse[i + l];
                    products[l] += g * load<X>(out + e, E - e);
                    store<R>(to + (i + l) * value_row + e, g);
                }
            }
            Lanes<R> inner = -sums<R>(products);
            for (long l = 0; l < count; l++) end_row(to + (i + l) * value_row, inner[l]);
        }
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

// STORAGE: the type of q, k, v and the results. One library each, so that what is compiled is what is needed.
extern "C" void linear_native(const Call* call, int backward) {
    Attention<STORAGE> attention(*call);
    backward ? attention.backward() : attention.forward();
}
