// Linear attention with decay on CPU cores, forward and backward: as linear-native, without its normaliser.
//
// With phi applied and D_ij = exp(g_{j+1} + ... + g_i), all is one walk over chunks of C tokens,
//
//     out = (tril(a b') * D) c + left (a T)        T = between T + (right b)'c
//
// where left, right and between are what the gates keep on the way from T to a token, from a token to T, and of
// T itself. Forward, a, b, c = q, k, v. Backward, dq: g, v, k; and from the end, with triu, dk: v, g, q and
// dv: k, q, g. Decays are products of the gates between two tokens, never quotients: they neither overflow
// nor cancel, and a gate of zero is no special case.
//
// The gradient of gate t sums the pairs i >= t > j of P_ij = D_ij (q_i k_j)(do_i v_j), i and j each before, in or
// after the chunk: as it never takes a difference of sums, its error does not grow with N.
#include <limits>

#include "../native/chunks.h"

namespace {

// What the gates of a chunk keep: one token's, all to a token, all behind it, those between two tokens, and all.
struct Gates {
    R *each, *since, *until, *decays;
    R total;
};

class Decay : Chunks {
  public:
    explicit Decay(const Call& call) : Chunks(call) {}

    void forward() {
        expect(call.out, E);
        sum_segments(KEYS, 0, call.segments - 1);
        each_segment(0, call.segments, [&](long head, long segment, Scratch& s) {
            gather(s, KEYS, head, segment);
            Gates gates = beside(s);
            each_chunk(segment, false, [&](long n, long c) {
                load_gates(gates, head, n, c, LOWER);
                load_mapped(s.q, call.q, head, n, c);
                load_side(s, KEYS, head, n, c);
                step(s, gates, {s.q, key_row, D}, {s.k, key_row, D}, {s.v, value_row, E}, s.U, c, LOWER);
                write_rows(call.out, head, n, s, c, nullptr);
            });
        });
    }

    void backward() {
        expect(call.dq, D);
        expect(call.dk, D);
        expect(call.dv, E);
        each_segment(0, call.segments, [&](long head, long segment, Scratch& s) {
            gather(s, KEYS, head, segment);
            each_chunk(segment, false, [&](long n, long c) { query_gradients(s, head, n, c); });
        });
        sum_segments(QUERIES, 1, call.segments - 1);
        each_segment(0, call.segments, [&](long head, long segment, Scratch& s) {
            gather(s, QUERIES, head, segment);
            each_chunk(segment, true, [&](long n, long c) { key_gradients(s, head, n, c); });
        });
    }

  private:
    void query_gradients(Scratch& s, long head, long n, long c) {
        Gates gates = beside(s);
        load_gates(gates, head, n, c, LOWER);
        load_side(s, KEYS, head, n, c);
        load_side(s, QUERIES, head, n, c);
        memcpy(before(head, n), s.T, E * key_row * sizeof(R));
        step(s, gates, {s.g, value_row, E}, {s.v, value_row, E}, {s.k, key_row, D}, s.T, c, LOWER, s.q);
        write_gradient(call.dq, head, n, s, s.q, c);
        R* dg = call.grad_gates + head * call.tokens + n;  // of pairs with j before the chunk and i in it
        R sum = 0;
        for (long i = c - 1; i >= 0; i--) dg[i] = sum += dots(s)[i];
    }

    void key_gradients(Scratch& s, long head, long n, long c) {
        Gates gates = beside(s);
        load_gates(gates, head, n, c, UPPER);
        load_side(s, KEYS, head, n, c);
        load_side(s, QUERIES, head, n, c);
        R across = gates.total * inner(before(head, n), s.T);
        step(s, gates, {s.v, value_row, E}, {s.g, value_row, E}, {s.q, key_row, D}, s.T, c, UPPER, s.k, pairs(s));
        write_gradient(call.dk, head, n, s, s.k, c);
        step(s, gates, {s.k, key_row, D}, {s.q, key_row, D}, {s.g, value_row, E}, s.U, c, UPPER);
        write_rows(call.dv, head, n, s, c, nullptr);
        R* dg = call.grad_gates + head * call.tokens + n;
        add_pairs_within(dg, pairs(s), s.scores, c);
        for (long t = 0; t < c; t++) {  // pairs with i after the chunk, and j before it or in it
            dg[t] += across;
            across += dots(s)[t];
        }
    }

    // dg_t += the sum of P_ij over i >= t > j in the chunk; row j of P' is that of pairs times scores.
    void add_pairs_within(R* dg, const R* pairs, const R* scores, long c) {
        R sums[C] = {};  // of row i of P, up to j
        for (long j = 0; j + 1 < c; j++) {
            Lanes<R> total = {};
            for (long i = j / LANES<R> * LANES<R>; i < padded<R>(c); i += LANES<R>) {
                Lanes<R> sum = load<R>(sums + i) + load<R>(pairs + j * C + i) * load<R>(scores + j * C + i);
                if (i <= j) sum[j - i] = 0;
                store<R>(sums + i, sum);
                total += sum;
            }
            for (long l = 0; l < LANES<R>; l++) dg[j + 1] += total[l];
        }
    }

    R inner(const R* a, const R* b) {
        Lanes<R> sum = {};
        for (long i = 0; i < E * key_row; i += LANES<R>) sum += load<R>(a + i) * load<R>(b + i);
        R total = 0;
        for (long l = 0; l < LANES<R>; l++) total += sum[l];
        return total;
    }

    // --- gates -----------------------------------------------------------------------------------------------

    Gates beside(const Scratch& s) {
        R* at = s.beside;
        auto take = [&](long size) { return (at += size) - size; };
        return {take(C), take(C), take(C), take(C * C), 1};
    }

    // Behind the gates: scores without decays, and dot products of rows.
    R* pairs(const Scratch& s) { return s.beside + 3 * C + C * C; }
    R* dots(const Scratch& s) { return pairs(s) + C * C; }

    // The subnormal numbers that decays would pass on their way to zero are slow.
    static R flushed(R x) { return x < std::numeric_limits<R>::min() ? 0 : x; }

    void load_gates(Gates& gates, long head, long n, long c, Band band) {
        const R* g = call.gates + head * call.tokens + n;
        for (long i = 0; i < c; i++) gates.each[i] = std::exp(g[i]);
        if (n == 0) gates.each[0] = std::min(gates.each[0], (R)1);  // before the first token is nothing to keep
        R since = 1, until = 1;
        for (long i = 0; i < c; i++) gates.since[i] = since = flushed(since * gates.each[i]);
        for (long i = c - 1; i >= 0; i--) gates.until[i] = until, until = flushed(until * gates.each[i]);
        for (long i = c; i < padded<R>(c); i++) gates.until[i] = gates.since[i] = 0;
        gates.total = since;
        if (band == LOWER)
            for (long i = 0; i < c; i++) decay_row(gates, i, 0, i, i - 1, gates.each[i]);
        else
            for (long j = c - 1; j >= 0; j--) decay_row(gates, j, j + 1, c, j + 1, gates.each[std::min(j + 1, c - 1)]);
    }

    // A row of decays: from `first` to before `last` those of the row `from`, once more decayed; 1; and zeros.
    void decay_row(Gates& gates, long row, long first, long last, long from, R keep) {
        R *to = gates.decays + row * C, *of = gates.decays + from * C;
        for (long i = first / LANES<R> * LANES<R>; i < last; i += LANES<R>) {
            Lanes<R> x = load<R>(of + i) * keep;
            store<R>(to + i, x < std::numeric_limits<R>::min() ? Lanes<R>{} : x);
        }
        for (long i = 0; i < first; i++) to[i] = 0;
        for (long i = last; i < C; i++) to[i] = 0;
        to[row] = 1;
    }

    // --- the sums --------------------------------------------------------------------------------------------

    // The state before a chunk, V'k, kept for the gradients of its gates.
    R* before(long head, long n) {
        return call.before + (head * ((call.tokens + C - 1) / C) + n / C) * E * key_row;
    }

    // Each sum has what the gates of its segment keep in a row of its own.
    void sum_segments(Side side, long first, long count) {
        if (count < 1) return;
        each_segment(first, count, [&](long head, long segment, Scratch& s) {
            R *total = state(side, head, segment), *kept = total + E * key_row;
            Gates gates = beside(s);
            memset(total, 0, E * key_row * sizeof(R));
            *kept = 1;
            each_chunk(segment, side == QUERIES, [&](long n, long c) {
                load_gates(gates, head, n, c, LOWER);
                load_side(s, side, head, n, c);
                R *left = side == KEYS ? s.v : s.g, *right = side == KEYS ? s.k : s.q;
                scale_rows(left, value_row, side == KEYS ? gates.until : gates.since, c, E);
                scale(total, E * key_row, gates.total);
                *kept = flushed(*kept * gates.total);
                product<R>(total, key_row, {left, 1, value_row}, right, key_row, E, padded<R>(D), c, true);
            });
        });
    }

    // T and U: the sum of the segments before this one (QUERIES: after it), as their gates have kept it.
    void gather(Scratch& s, Side side, long head, long segment) {
        memset(s.T, 0, value_row * key_row * sizeof(R));
        long first = side == KEYS ? 0 : call.segments - 1, step = side == KEYS ? 1 : -1;
        for (long other = first; other != segment; other += step) {
            const R* sum = state(side, head, other);
            if (other != first) scale(s.T, E * key_row, sum[E * key_row]);
            for (long i = 0; i < E * key_row; i++) s.T[i] += sum[i];
        }
        transpose<R>(s.U, value_row, s.T, key_row, padded<R>(E), padded<R>(D));
    }

    // --- a chunk of c tokens ---------------------------------------------------------------------------------

    // result = (tri(a b') * D) c + left (a T); T = between T + (right b)'c. With rows x of the result's width,
    // dots are those of x and left (a T); `raw` keeps a b' as it is.
    void step(Scratch& s, Gates& gates, Operand a, Operand b, Operand c, R* T, long tokens, Band band,
              const R* x = nullptr, R* raw = nullptr) {
        long columns = padded<R>(c.width);
        const R *left = band == LOWER ? gates.since : gates.until, *right = band == LOWER ? gates.until : gates.since;
        product<R>(s.result, c.row, {a.at, a.row, 1}, T, c.row, tokens, columns, a.width);
        scale_rows(s.result, c.row, left, tokens, columns);
        if (x) multiply_rows(dots(s), s.result, x, c.row, tokens, columns);

        raw = raw ? raw : s.scores;
        transpose<R>(s.turned, C, b.at, b.row, padded<R>(tokens), padded<R>(b.width));
        product<R>(raw, C, {a.at, a.row, 1}, s.turned, C, tokens, padded<R>(tokens), a.width, false, band);
        decay(s.scores, raw, gates.decays, tokens, band);
        product<R>(s.result, c.row, {s.scores, C, 1}, c.at, c.row, tokens, columns, tokens, true, FULL, band);

        for (long i = 0; i < b.width; i++)
            for (long j = 0; j < tokens; j += LANES<R>)
                store<R>(s.turned + i * C + j, load<R>(s.turned + i * C + j) * load<R>(right + j));
        for (long i = 0; i < b.width; i++) scale(T + i * c.row, columns, gates.total);
        product<R>(T, c.row, {s.turned, C, 1}, c.at, c.row, b.width, columns, tokens, true);
    }

    // Scores times decays in the tiles of the band, where the decays are zero beyond it.
    void decay(R* to, const R* raw, const R* decays, long tokens, Band band) {
        for (long i = 0; i < tokens; i++) {
            long block = i / ROWS * ROWS;
            long first = band == LOWER ? 0 : block / LANES<R> * LANES<R>;
            long last = band == LOWER ? std::min(block + ROWS, tokens) : tokens;
            for (long j = i * C + first; j < i * C + last; j += LANES<R>)
                store<R>(to + j, load<R>(raw + j) * load<R>(decays + j));
        }
    }

    void multiply_rows(R* to, const R* a, const R* b, long row, long rows, long columns) {
        for (long i = 0; i < rows; i++) {
            Lanes<R> sum = {};
            for (long j = i * row; j < i * row + columns; j += LANES<R>) sum += load<R>(a + j) * load<R>(b + j);
            to[i] = 0;
            for (long l = 0; l < LANES<R>; l++) to[i] += sum[l];
        }
    }

    void scale(R* x, long size, R factor) {
        for (long i = 0; i < size; i += LANES<R>) store<R>(x + i, load<R>(x + i) * factor);
    }

    void scale_rows(R* x, long row, const R* factors, long rows, long width) {
        for (long i = 0; i < rows; i++) scale(x + i * row, width, factors[i]);
    }

    void load_side(Scratch& s, Side side, long head, long n, long c) {
        load_mapped(side == KEYS ? s.k : s.q, side == KEYS ? call.k : call.q, head, n, c);
        load_rows(side == KEYS ? s.v : s.g, side == KEYS ? call.v : call.grad_out, head, n, c, 0);
    }
};

}  // namespace

extern "C" void linear_decay_native(const Call* call, int backward) {
    Decay decay(*call);
    backward ? decay.backward() : decay.forward();
}
