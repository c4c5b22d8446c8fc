// Vectors of floats as the compiler has them, 16 wide with AVX-512, else 8, of which it makes AVX2 or NEON code; and the
// functions of gates on them.

#pragma once

#if defined(__AVX512F__)
constexpr long L = 16;
#else
constexpr long L = 8;
#endif
// Not memcpy: with that, gcc keeps the sums of a product in memory.
typedef float V __attribute__((vector_size(4 * L), aligned(4), may_alias));
typedef int I __attribute__((vector_size(4 * L)));
// Left to itself, gcc calls many of the functions below, and a call takes vectors through memory.
#define ALWAYS_INLINE __attribute__((always_inline))
#define INLINE inline ALWAYS_INLINE

static INLINE V load(const float *from, long count) {
    if (count >= L) return *(const V *)from;
    V v{};
    for (long i = 0; i < count; i++) v[i] = from[i];
    return v;
}

static INLINE void store(float *to, V v, long count) {
    if (count >= L)
        *(V *)to = v;
    else
        for (long i = 0; i < count; i++) to[i] = v[i];
}

// Pixels x channels, channels side by side; pixels lie `step` floats apart, so that it can be a part of a larger array.
struct Array {
    float *data;
    long step;
};

static INLINE V at(const Array &a, long pixel, long channel, long count) { return load(a.data + pixel * a.step + channel, count); }
static INLINE void put(const Array &a, long pixel, long channel, long count, V v) {
    store(a.data + pixel * a.step + channel, v, count);
}

static INLINE V select(I condition, V yes, V no) { return condition ? yes : no; }

// exp(x): x = n log 2 + r, exp(r) by its series to r^7, which errs by less than 2^-24 for |r| <= log(2) / 2.
static INLINE V exponential(V x) {
    x = select(x > 43.0f, V{} + 43.0f, select(x < -43.0f, V{} - 43.0f, x));  // products of two are finite; NaN passes
    V shifted = x * 1.44269504f + 12582912.0f;                               // 1.5 * 2^23: the sum is rounded to n
    V n = shifted - 12582912.0f;
    V r = x - n * 0.693359375f + n * 2.12194440e-4f;
    V p = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)))))));
    I exponent = ((I)shifted << 23) + (127 << 23);  // the lowest bits of `shifted` are n
    return p * (V)exponent;
}

static INLINE V sigmoid(V x) { return 1.0f / (1.0f + exponential(-x)); }
static INLINE V tanh_of(V x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

// s(a) tanh(x) by one division.
static INLINE V sigmoid_times_tanh(V a, V x) {
    V p = exponential(-a), q = exponential(-2.0f * x);
    return (1.0f - q) / ((1.0f + p) * (1.0f + q));
}

// s(f) c + s(i) tanh(g): a cell's new memory.
static INLINE V update_memory(V c, V i, V f, V g) { return sigmoid(f) * c + sigmoid_times_tanh(i, g); }
