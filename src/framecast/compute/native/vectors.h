// Vectors of floats as the compiler has them: 16 wide with AVX-512, else 8, of which it makes AVX2 or NEON code.

#pragma once

#if defined(__AVX512F__)
constexpr long L = 16;
#else
constexpr long L = 8;
#endif
// Not memcpy: with that, gcc keeps the sums of a product in memory.
typedef float V __attribute__((vector_size(4 * L), aligned(4), may_alias));
typedef int I __attribute__((vector_size(4 * L)));

static inline V load(const float *from, long count) {
    if (count >= L) return *(const V *)from;
    V v{};
    for (long i = 0; i < count; i++) v[i] = from[i];
    return v;
}

static inline void store(float *to, V v, long count) {
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
