// Vectors of the machine's width, in GCC's and Clang's own terms: how they are read, written and mapped.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

// One register; and a tile of a product, ROWS x VECTORS sums: as many as leave registers for its operands.
#if defined(__AVX512F__)
constexpr int BYTES = 64, ROWS = 6, VECTORS = 4;
#elif defined(__AVX__)
constexpr int BYTES = 32, ROWS = 6, VECTORS = 2;
#elif defined(__aarch64__)
constexpr int BYTES = 16, ROWS = 6, VECTORS = 4;
#else
constexpr int BYTES = 16, ROWS = 4, VECTORS = 3;
#endif

template <typename R> constexpr long LANES = BYTES / sizeof(R);
template <typename T, int bytes> struct Vector { typedef T type __attribute__((vector_size(bytes))); };
template <typename R> using Lanes = typename Vector<R, BYTES>::type;
template <typename T, typename R> using AsMany = typename Vector<T, LANES<R> * sizeof(T)>::type;

template <typename R> constexpr long padded(long width) { return (width + LANES<R> - 1) / LANES<R> * LANES<R>; }

struct bfloat16 { uint16_t bits; };
typedef _Float16 float16;

// What a storage type is computed in.
template <typename X> struct Wide { typedef float type; };
template <> struct Wide<double> { typedef double type; };

template <typename X, typename R = typename Wide<X>::type> inline Lanes<R> load(const X* from) {
    if constexpr (sizeof(X) == 2 && !std::is_same_v<X, float16>) {
        AsMany<uint16_t, R> bits;
        memcpy(&bits, from, sizeof bits);
        return (Lanes<R>)(__builtin_convertvector(bits, AsMany<uint32_t, R>) << 16);
    } else {
        AsMany<X, R> lanes;
        memcpy(&lanes, from, sizeof lanes);
        return __builtin_convertvector(lanes, Lanes<R>);
    }
}

template <typename X, typename R = typename Wide<X>::type> inline void store(X* to, Lanes<R> lanes) {
    if constexpr (sizeof(X) == 2 && !std::is_same_v<X, float16>) {
        auto bits = (AsMany<uint32_t, R>)lanes;
        auto even = (bits >> 16) & 1;  // ties go there; a NaN stays one, its low bits are zero
        auto narrow = __builtin_convertvector((bits + 0x7fff + even) >> 16, AsMany<uint16_t, R>);
        memcpy(to, &narrow, sizeof narrow);
    } else {
        auto narrow = __builtin_convertvector(lanes, AsMany<X, R>);
        memcpy(to, &narrow, sizeof narrow);
    }
}

// The first `count` lanes, the others zero.
template <typename X, typename R = typename Wide<X>::type> inline Lanes<R> load(const X* from, long count) {
    if (count >= LANES<R>) return load<X>(from);
    X room[LANES<R>] = {};
    memcpy(room, from, count * sizeof(X));
    return load<X>(room);
}

template <typename X, typename R = typename Wide<X>::type> inline void store(X* to, Lanes<R> lanes, long count) {
    if (count >= LANES<R>) return store<X>(to, lanes);
    X room[LANES<R>];
    store<X>(room, lanes);
    memcpy(to, room, count * sizeof(X));
}

// e^x for x <= 0, zero where it would be below the normal numbers, NaN of NaN; within 3 units in the last place.
// 2^(x log2 e) by its whole part as an exponent and a polynomial of degree 6 (Taylor's, on |r| <= ln 2 / 2).
__attribute__((always_inline)) inline Lanes<float> exp(Lanes<float> x) {
    typedef AsMany<int32_t, float> Ints;
    Lanes<float> shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: the fraction is rounded away
    Lanes<float> whole = shifted - 12582912.0f;
    Lanes<float> r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Lanes<float> y = r * (1 / 720.0f) + 1 / 120.0f;
    y = y * r + 1 / 24.0f;
    y = y * r + 1 / 6.0f;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    auto power = (Lanes<float>)(((Ints)shifted << 23) + 0x3f800000);
    return x < -87.0f ? Lanes<float>{} : y * power;
}

inline Lanes<double> exp(Lanes<double> x) {
    for (int i = 0; i < LANES<double>; i++) x[i] = std::exp(x[i]);
    return x;
}

enum Map { ELU, RELU, IDENTITY };

template <Map map, typename V> __attribute__((always_inline)) inline V phi(V x) {
    if constexpr (map == ELU) return x > 0 ? x + 1 : exp(x > 0 ? V{} : x);
    if constexpr (map == RELU) return x < 0 ? V{} : x;
    return x;
}

// phi'(x) from y = phi(x): e^x = y below zero, and 1 from there on, where y is above 1.
template <Map map, typename V> inline V slope(V y) {
    if constexpr (map == ELU) return y > 1 ? V{} + 1 : y;
    if constexpr (map == RELU) return y > 0 ? V{} + 1 : y;
    return V{} + 1;
}

// Lanes whose index has the bit `step` go to the other of two rows: a transpose is one such exchange a bit.
template <int step, typename V, size_t... I> inline void exchange(V& a, V& b, std::index_sequence<I...>) {
    constexpr int n = sizeof...(I);
    V first = __builtin_shufflevector(a, b, (I & step ? n + I - step : I)...);
    b = __builtin_shufflevector(a, b, (I & step ? n + I : I + step)...);
    a = first;
}

template <int step, typename R> inline void exchange_all(Lanes<R>* rows) {
    if constexpr (step < LANES<R>) {
        for (int i = 0; i < LANES<R>; i++)
            if (!(i & step)) exchange<step>(rows[i], rows[i + step], std::make_index_sequence<LANES<R>>());
        exchange_all<2 * step, R>(rows);
    }
}

// The sum of each of as many vectors as one has lanes; they are lost.
template <typename R> inline Lanes<R> sums(Lanes<R>* vectors) {
    exchange_all<1, R>(vectors);
    for (int i = 1; i < LANES<R>; i++) vectors[0] += vectors[i];
    return vectors[0];
}

// to[j][i] = from[i][j]; rows and columns are whole vectors.
template <typename R>
inline void transpose(R* to, long to_row, const R* from, long from_row, long rows, long columns) {
    for (long i = 0; i < rows; i += LANES<R>)
        for (long j = 0; j < columns; j += LANES<R>) {
            Lanes<R> block[LANES<R>];
            for (int l = 0; l < LANES<R>; l++) block[l] = load<R>(from + (i + l) * from_row + j);
            exchange_all<1, R>(block);
            for (int l = 0; l < LANES<R>; l++) store<R>(to + (j + l) * to_row + i, block[l]);
        }
}
