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
#include "../native/chunks.h"

namespace {

// Beside the scratch that all programs have: the normaliser z before a chunk, and within.
class Attention : Chunks {
    const bool causal;

  public:
    explicit Attention(const Call& call) : Chunks(call), causal(call.causal) {}

    void forward() {
        expect(call.out, E);
        sum_segments(KEYS, 0, causal ? call.segments - 1 : call.segments);
        each_segment(0, call.segments, [&](long head, long segment, Scratch& s) {
            gather(s, KEYS, head, 0, causal ? segment : call.segments);
            memcpy(s.beside, s.T + E * key_row, key_row * sizeof(R));
            each_chunk(segment, false, [&](long n, long c) {
                load_mapped(s.q, call.q, head, n, c);
                if (causal) load_side(s, KEYS, head, n, c);
                R* inverse = call.inverse + head * call.tokens + n;
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
    // --- the sums --------------------------------------------------------------------------------------------

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
        R *z = s.beside, *within = z + key_row;
        memset(within, 0, key_row * sizeof(R));
        for (long i = 0; i < tokens; i += LANES<R>) {
            Lanes<R> products[LANES<R>] = {};
            for (long d = 0; d < D; d += LANES<R>) {
                Lanes<R> before = load<R>(z + d), sum = load<R>(within + d);
                for (long l = 0; l < LANES<R>; l++) {
                    if (causal) sum += load<R>(s.k + (i + l) * key_row + d);
                    products[l] += load<R>(s.q + (i + l) * key_row + d) * (before + sum);
                }
                store<R>(within + d, sum);
            }
            store<R>(inverse + i, 1 / (sums<R>(products) + (R)call.eps), tokens - i);
        }
        for (long d = 0; d < D; d += LANES<R>) store<R>(z + d, load<R>(z + d) + load<R>(within + d));
    }

    void load_side(Scratch& s, Side side, long head, long n, long c) {
        if (side == KEYS) {
            load_mapped(s.k, call.k, head, n, c);
            load_rows(s.v, call.v, head, n, c, 1);
        } else {
            load_mapped(s.q, call.q, head, n, c);
            load_upstream(s.g, head, n, c);
        }
    }

    void load_upstream(R* to, long head, long n, long c) {
        const R* inverse = call.inverse + head * call.tokens + n;
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
};

}  // namespace

extern "C" void linear_native(const Call* call, int backward) {
    Attention attention(*call);
    backward ? attention.backward() : attention.forward();
}
