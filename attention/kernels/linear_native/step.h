// A few new tokens behind a state, which is read and written once.
#pragma once

#include <vector>

#include "../native/chunks.h"

namespace {

// Where the tensors of a step are; all else a call tells, which steps of the same shapes share.
struct Addresses {
    void *q, *k, *v, *out;
    State first, last;
};

// From the first state to the last, which may be one: S += phi(k) v', z += phi(k), o = phi(q) S / (phi(q) . z + eps).
class Step : Chunks {
    const long tokens, rows;  // rows: queries of all heads that share one of keys, [group][tokens]
    const State first, last;

    static Tensor at(Tensor x, void* data) { return x.data = data, x; }

    const Tensor q, k, v, out;

  public:
    Step(const Call& call, const Addresses& a)
        : Chunks(call), tokens(call.tokens), rows(call.group * call.tokens), first(a.first), last(a.last),
          q(at(call.q, a.q)), k(at(call.k, a.k)), v(at(call.v, a.v)), out(at(call.out, a.out)) {}

    void run() {
        long heads = call.batch * call.heads;
#pragma omp parallel for num_threads(call.threads) if (call.threads > 1)
        for (long head = 0; head < heads; head++) step(head);
    }

  private:
    void step(long head) {
        thread_local std::vector<R> room;
        size_t size = (tokens + rows + 1) * key_row + (tokens + rows) * value_row + rows;
        if (room.size() < size) room.resize(size);
        R *phi_k = room.data(), *phi_q = phi_k + tokens * key_row, *z = phi_q + rows * key_row, *values = z + key_row;
        R *result = values + tokens * value_row, *inverse = result + rows * value_row;
        map_rows(phi_k, k, head, 0, tokens);
        copy_rows(values, v, head, 0, tokens, 0);
        for (long i = 0; i < call.group; i++)
            map_rows(phi_q + i * tokens * key_row, q, head * call.group + i, 0, tokens);
        normalise(inverse, phi_q, phi_k, z, head);
        const R* from = first.S + head * D * E;
        R* to = last.S + head * D * E;
        rows == 1 ? all_columns<true>(from, to, phi_q, phi_k, values, result)
                  : all_columns<false>(from, to, phi_q, phi_k, values, result);
        Scratch s{};
        for (long i = 0; i < call.group; i++) {
            s.result = result + i * tokens * value_row;
            write_rows(out, head * call.group + i, 0, s, tokens, inverse + i * tokens);
        }
    }

    template <bool one> void all_columns(const R* from, R* to, const R* q, const R* k, const R* v, R* result) {
        constexpr long wide = VECTORS * LANES<R>;
        long e = 0;
        for (; e + wide <= E; e += wide) columns<VECTORS, true, one>(from, to, q, k, v, result, e);
        for (; e + LANES<R> <= E; e += LANES<R>) columns<1, true, one>(from, to, q, k, v, result, e);
        if (e < E) columns<1, false, one>(from, to, q, k, v, result, e);
    }

    void normalise(R* inverse, const R* q, const R* k, R* z, long head) {
        for (long d = 0; d < D; d += LANES<R>) store<R>(z + d, load<R>(first.z + head * D + d, D - d));
        for (long t = 0; t < tokens; t++) {
            for (long d = 0; d < D; d += LANES<R>) store<R>(z + d, load<R>(z + d) + load<R>(k + t * key_row + d));
            for (long i = 0; i < call.group; i++) {
                Lanes<R> products = {};
                for (long d = 0; d < D; d += LANES<R>)
                    products += load<R>(q + (i * tokens + t) * key_row + d) * load<R>(z + d);
                R sum = call.eps;
                for (long l = 0; l < LANES<R>; l++) sum += products[l];
                inverse[i * tokens + t] = 1 / sum;
            }
        }
        memcpy(last.z + head * D, z, D * sizeof(R));
    }

    // Columns e to e + vectors * LANES of S, or to E where not `whole`; the sums of `one` query stay in registers.
    template <int vectors, bool whole, bool one>
    void columns(const R* from, R* to, const R* q, const R* k, const R* v, R* result, long e) {
        constexpr long L = LANES<R>;
        Lanes<R> S[vectors], sums[vectors] = {};
        result += e, v += e, from += e, to += e;
        if constexpr (!one)
            for (long i = 0; i < rows; i++)
                for (int n = 0; n < vectors; n++) store<R>(result + i * value_row + n * L, Lanes<R>{});
        for (long d = 0; d < D; d++, from += E, to += E) {
#pragma GCC unroll 8
            for (int n = 0; n < vectors; n++) S[n] = whole ? load<R>(from + n * L) : load<R>(from, E - e);
            for (long t = 0; t < (one ? 1 : tokens); t++) {
                R key = k[t * key_row + d];
#pragma GCC unroll 8
                for (int n = 0; n < vectors; n++) S[n] += key * load<R>(v + t * value_row + n * L);
                for (long i = t; i < (one ? 1 : rows); i += one ? 1 : tokens) {
                    R query = q[i * key_row + d], *at = result + i * value_row;
#pragma GCC unroll 8
                    for (int n = 0; n < vectors; n++)
                        if constexpr (one) sums[n] += query * S[n];
                        else store<R>(at + n * L, load<R>(at + n * L) + query * S[n]);
                }
            }
#pragma GCC unroll 8
            for (int n = 0; n < vectors; n++) whole ? store<R>(to + n * L, S[n]) : store<R>(to, S[n], E - e);
        }
        if constexpr (one)
#pragma GCC unroll 8
            for (int n = 0; n < vectors; n++) store<R>(result + n * L, sums[n]);
    }
};

}  // namespace
