// How cores share sequences: each is cut into pieces, whose sums are made first where others build on them.
#pragma once

#include <vector>

#include "../native/chunks.h"

namespace {

// Tokens of one sequence, from `begin` to before `end`. Its pieces are those from `first` to before `last`.
struct Piece {
    long begin, end, first, last, sequence;
    long slot;  // where its sum is kept; -1 of a packed sequence of one piece, whose sum nobody else needs
};

class Pieces : protected Chunks {
    std::vector<Piece> packed;  // of keys and of queries alike
    long slots = 0;

  protected:
    explicit Pieces(const Call& call) : Chunks(call) {
        if (call.ends) for (long i = 0; i < call.sequences; i++) cut(i, call.ends[i], call.ends[i + 1]);
    }

    long count(Side side) const {
        return call.ends ? (long)packed.size() : side == KEYS ? call.segments : call.query_segments;
    }

    Piece piece(Side side, long i) const {
        if (call.ends) return packed[i];
        long size = side == KEYS ? call.segment_tokens : call.query_segment_tokens;
        long tokens = side == KEYS ? call.tokens : call.q.tokens;
        return {i * size, std::min((i + 1) * size, tokens), 0, count(side), 0, i};
    }

    // Whether a packed sequence is one chunk with nothing before or behind: its scores say all, and no state is made.
    bool brief(const Piece& own) const {
        return call.ends && !call.first.S && !call.last.S && own.last - own.first == 1 && own.end - own.begin <= C;
    }

    // Whether any sum has a place.
    bool summed() const { return !call.ends || slots; }

    // Of the states that a call is given, that of a sequence and a head of keys.
    long state_at(long head, long sequence) const {
        return (head / call.heads * call.sequences + sequence) * call.heads + head % call.heads;
    }

  private:
    void cut(long sequence, long begin, long end) {
        long size = call.segment_tokens, first = packed.size();
        long last = first + std::max(1L, (end - begin + size - 1) / size);
        for (long i = first; i < last; i++, begin += size)
            packed.push_back({begin, std::min(begin + size, end), first, last, sequence, last - first > 1 ? slots++ : -1});
    }
};

}  // namespace
