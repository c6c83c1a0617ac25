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
// are made first: V'k, whose transpose is S and whose last row z, and G'q. They begin with the state of the tokens
// before, and with the gradient of the last state. Heads of queries that share one of keys are taken in turn. Packed
// sequences are cut into segments of their own; one of a single chunk is a product of scores, with or without a mask.
#include "pieces.h"
#include "step.h"

namespace {

// Beside the scratch that all programs have: the normaliser z before a chunk and within, and a second result.
class Attention : Pieces {
    const bool causal;

  public:
    explicit Attention(const Call& call) : Pieces(call), causal(call.causal) {}

    void forward() {
        expect(call.out, E);
        sum_pieces(KEYS);
        each_segment(0, count(QUERIES), [&](long head, long i, Scratch& s) {
            const Piece own = piece(QUERIES, i);
            const bool alone = brief(own), seen = causal || alone;
            R* z = s.beside;
            if (alone) memset(z, 0, key_row * sizeof(R));
            else gather(s, KEYS, head, i), memcpy(z, s.T + E * key_row, key_row * sizeof(R));
            each_chunk(own.begin, own.end, false, [&](long n, long c) {
                Operand k{s.k, key_row, D}, v{s.v, value_row, E};
                if (seen) load_side(s, KEYS, head, n, c), turn(s, k, c);
                if (seen && !causal) add_tokens(s, c);
                each_query_head(head, [&](long own) {
                    Operand q{s.q, key_row, D};
                    load_mapped(s.q, call.q, own, n, c);
                    R* inverse = call.inverse + own * call.q.tokens + n;
                    normalise(s, inverse, c);
                    if (seen) see(s, s.result, q, k, v, c, causal ? LOWER : FULL, false);
                    if (!alone) product<R>(s.result, value_row, {s.q, key_row, 1}, s.U, value_row, c, padded<R>(E), D, causal);
                    write_rows(call.out, own, n, s, c, inverse);
                });
                if (causal && !alone) add(s.U, k, v, c), add_tokens(s, c);
            });
            if (i == (causal ? own.last - 1 : own.first)) write_state(state_at(head, own.sequence), s.U, z);
        });
    }

    void backward() {
        expect(call.dq, D);
        expect(call.dk, D);
        expect(call.dv, E);
        each_segment(0, count(QUERIES), [&](long head, long i, Scratch& s) {
            const Piece own = piece(QUERIES, i);
            const bool alone = brief(own), seen = causal || alone;
            if (!alone) gather(s, KEYS, head, i);
            each_chunk(own.begin, own.end, false, [&](long n, long c) {
                Operand g{s.g, value_row, E + 1}, v{s.v, value_row, E + 1}, k{s.k, key_row, D};
                if (seen) load_side(s, KEYS, head, n, c), turn(s, v, c);
                each_query_head(head, [&](long own) {
                    load_side(s, QUERIES, own, n, c);
                    if (seen) see(s, s.result, g, v, k, c, causal ? LOWER : FULL, false);
                    if (!alone) product<R>(s.result, key_row, {s.g, value_row, 1}, s.T, key_row, c, padded<R>(D), E + 1, causal);
                    write_gradient(call.dq, own, n, s, s.q, c);
                });
                if (causal && !alone) add(s.T, v, k, c);
            });
        });
        sum_pieces(QUERIES);
        each_segment(0, count(KEYS), [&](long head, long i, Scratch& s) {
            const Piece own = piece(KEYS, i);
            const bool alone = brief(own), seen = causal || alone;
            if (!alone) gather(s, QUERIES, head, i);
            R* dk = s.beside + 2 * key_row;
            each_chunk(own.begin, own.end, true, [&](long n, long c) {
                Operand v{s.v, value_row, E + 1}, k{s.k, key_row, D};
                load_side(s, KEYS, head, n, c);
                if (!alone) {
                    product<R>(dk, key_row, {s.v, value_row, 1}, s.T, key_row, c, padded<R>(D), E + 1);
                    product<R>(s.result, value_row, {s.k, key_row, 1}, s.U, value_row, c, padded<R>(E), D);
                }
                bool adding = !alone;
                if (seen) each_query_head(head, [&](long own) {
                    Operand g{s.g, value_row, E + 1}, narrow{s.g, value_row, E}, q{s.q, key_row, D};
                    load_side(s, QUERIES, own, n, c);
                    turn(s, g, c);
                    see(s, dk, v, g, q, c, causal ? UPPER : FULL, adding);
                    turn(s, q, c);
                    see(s, s.result, k, q, narrow, c, causal ? UPPER : FULL, adding);
                    if (!alone) add(s.T, g, q, c), add(s.U, q, narrow, c);
                    adding = true;
                });
                write_rows(call.dv, head, n, s, c, nullptr);
                std::swap(s.result, dk);
                write_gradient(call.dk, head, n, s, s.k, c);
                std::swap(s.result, dk);
            });
            if (i == own.first) write_state(state_at(head, own.sequence), s.U, s.T + E * key_row);
        });
    }

  private:
    template <typename F> void each_query_head(long head, F work) {
        for (long i = 0; i < call.group; i++) work(head * call.group + i);
    }

    // --- the sums --------------------------------------------------------------------------------------------

    // The sums that other pieces build on: where causal all but those of the last (of queries: the first) of each sequence.
    void sum_pieces(Side side) {
        if (!summed() || (causal && !call.ends && count(side) == 1)) return;
        each_segment(0, count(side), [&](long head, long i, Scratch& s) {
            const Piece own = piece(side, i);
            if (own.slot < 0 || (causal && i == (side == KEYS ? own.last - 1 : own.first))) return;
            R* total = state(side, head, own.slot);
            memset(total, 0, (E + 1) * key_row * sizeof(R));
            sum(s, total, side, head, own);
        });
    }

    // total += the piece's V'k or G'q.
    void sum(Scratch& s, R* total, Side side, long head, const Piece& own) {
        each_chunk(own.begin, own.end, false, [&](long n, long c) {
            const R *left = side == KEYS ? s.v : s.g, *right = side == KEYS ? s.k : s.q;
            auto of = [&](long each) {
                load_side(s, side, each, n, c);
                product<R>(total, key_row, {left, 1, value_row}, right, key_row, E + 1, padded<R>(D), c, true);
            };
            side == KEYS ? of(head) : each_query_head(head, of);
        });
    }

    // T and U: the state before the sequence (QUERIES: the gradient of that behind it), and the sums of its pieces; where
    // causal of those before piece i (QUERIES: after it).
    void gather(Scratch& s, Side side, long head, long i) {
        const State& begin = side == KEYS ? call.first : call.behind;
        const Piece own = piece(side, i);
        memset(s.T, 0, value_row * key_row * sizeof(R));
        if (begin.S) {
            long at = state_at(head, own.sequence);
            memset(s.U, 0, key_row * value_row * sizeof(R));
            for (long d = 0; d < D; d++) {
                memcpy(s.U + d * value_row, begin.S + (at * D + d) * E, E * sizeof(R));
                s.U[d * value_row + E] = begin.z[at * D + d];
            }
            transpose<R>(s.T, key_row, s.U, value_row, padded<R>(D), padded<R>(E + 1));
        }
        long first = causal && side == QUERIES ? i + 1 : own.first;
        long last = causal && side == KEYS ? i : own.last;
        if (own.slot >= 0) for (long other = first; other < last; other++) {
            const R* sum = state(side, head, piece(side, other).slot);
            for (long j = 0; j < (E + 1) * key_row; j++) s.T[j] += sum[j];
        }
        else if (!causal) sum(s, s.T, side, head, own);
        transpose<R>(s.U, value_row, s.T, key_row, padded<R>(E), padded<R>(D));
    }

    void write_state(long at, const R* S, const R* z) {
        const State& to = call.last;
        if (!to.S) return;
        for (long d = 0; d < D; d++) memcpy(to.S + (at * D + d) * E, S + d * value_row, E * sizeof(R));
        memcpy(to.z + at * D, z, D * sizeof(R));
    }

    // --- a chunk of c tokens ---------------------------------------------------------------------------------

    void turn(Scratch& s, Operand b, long tokens) {
        transpose<R>(s.turned, C, b.at, b.row, padded<R>(tokens), padded<R>(b.width));
    }

    // result = tri(a b') c, or is added to; b is what was turned.
    void see(Scratch& s, R* result, Operand a, Operand b, Operand c, long tokens, Band band, bool adding) {
        product<R>(s.scores, C, {a.at, a.row, 1}, s.turned, C, tokens, padded<R>(tokens), b.width, false, band);
        if (band != FULL) mask(s.scores, C, tokens, band);
        long columns = padded<R>(c.width);
        product<R>(result, c.row, {s.scores, C, 1}, c.at, c.row, tokens, columns, tokens, adding, FULL, band);
    }

    // T += b'c.
    void add(R* T, Operand b, Operand c, long tokens) {
        product<R>(T, c.row, {b.at, 1, b.row}, c.at, c.row, b.width, padded<R>(c.width), tokens, true);
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
    }

    // z += the keys of the chunk.
    void add_tokens(Scratch& s, long tokens) {
        for (long d = 0; d < D; d += LANES<R>) {
            Lanes<R> sum = {};
            for (long i = 0; i < tokens; i++) sum += load<R>(s.k + i * key_row + d);
            store<R>(s.beside + d, load<R>(s.beside + d) + sum);
        }
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
        const R* inverse = call.inverse + head * call.q.tokens + n;
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

extern "C" void linear_native_step(const Call* call, const Addresses* addresses) {
    Step(*call, *addresses).run();
}
