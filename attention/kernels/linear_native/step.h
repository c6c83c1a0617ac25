// A few new tokens behind a state, which is read and written once.
#pragma once

#include <vector>

#include "../native/chunks.h"

namespace {

// From call.first to call.last, which may be one: S += phi(k) v', z += phi(k), o = phi(q) S / (phi(q) . z + eps).
class Step : Chunks {
    const long tokens, rows;  // rows: queries of all heads that share one of keys, [group][tokens]

  public:
    explicit Step(const Call& call) : Chunks(call), tokens(call.tokens), rows(call.group * call.tokens) {}

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
        R *k = room.data(), *q = k + tokens * key_row, *z = q + rows * key_row, *v = z + key_row;
        R *result = v + tokens * value_row, *inverse = result + rows * value_row;
        map_rows(k, call.k, head, 0, tokens);
        copy_rows(v, call.v, head, 0, tokens, 0);
        for (long i = 0; i < call.group; i++)
            map_rows(q + i * tokens * key_row, call.q, head * call.group + i, 0, tokens);
        normalise(inverse, q, k, z, head);
        bool one = rows == 1;
        const R* from = call.first.S + head * D * E;
        R* to = call.last.S + head * D * E;
        constexpr long wide = VECTORS * LANES<R>;
        long e = 0;
        for (; e + wide <= E; e += wide)
            one ? columns<VECTORS, true>(from, to, q, k, v, result, e) : columns<VECTORS, false>(from, to, q, k, v, result, e);
        for (; e < E; e += LANES<R>) columns<1, false>(from, to, q, k, v, result, e);
        Scratch s{};
        for (long i = 0; i < call.group; i++) {
            s.result = result + i * tokens * value_row;
            write_rows(call.out, head * call.group + i, 0, s, tokens, inverse + i * tokens);
        }
    }

    void normalise(R* inverse, const R* q, const R* k, R* z, long head) {
        for (long d = 0; d < D; d += LANES<R>) store<R>(z + d, load<R>(call.first.z + head * D + d, D - d));
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
        memcpy(call.last.z + head * D, z, D * sizeof(R));
    }

    // Columns e to e + vectors * LANES of S, or to E; `one` query of one token keeps its sums in registers.
    template <int vectors, bool one>
    void columns(const R* from, R* to, const R* q, const R* k, const R* v, R* result, long e) {
        constexpr long L = LANES<R>;
        Lanes<R> sums[vectors] = {};
        if (!one)
            for (long i = 0; i < rows; i++)
                for (int n = 0; n < vectors; n++) store<R>(result + i * value_row + e + n * L, Lanes<R>{});
        for (long d = 0; d < D; d++) {
            Lanes<R> S[vectors];
            for (int n = 0; n < vectors; n++) S[n] = load<R>(from + d * E + e + n * L, E - e - n * L);
            for (long t = 0; t < (one ? 1 : tokens); t++) {
                for (int n = 0; n < vectors; n++)
                    S[n] += k[t * key_row + d] * load<R>(v + t * value_row + e + n * L);
                if (one)
                    for (int n = 0; n < vectors; n++) sums[n] += q[d] * S[n];
                else
                    for (long i = t; i < rows; i += tokens)
                        for (int n = 0; n < vectors; n++) {
                            R* at = result + i * value_row + e + n * L;
                            store<R>(at, load<R>(at) + q[i * key_row + d] * S[n]);
                        }
            }
            for (int n = 0; n < vectors; n++) store<R>(to + d * E + e + n * L, S[n], E - e - n * L);
        }
        if (one)
            for (int n = 0; n < vectors; n++) store<R>(result + e + n * L, sums[n]);
    }
};

}  // namespace
