// The gates of a recurrent cell in one pass over memory, forward and backward, in float32.
//
//     update:  c' = s(f) c + s(i) tanh(g)        expose:  h = s(o) tanh(u)        s(x) = 1 / (1 + exp(-x))
//
// A gate can be a part of a convolution's result. Backward computes s and tanh again from what went in, which is cheaper
// than to keep them.

#include <algorithm>

#include "vectors.h"

static inline V select(I condition, V yes, V no) { return condition ? yes : no; }

// exp(x): x = n log 2 + r, exp(r) by its series to r^7, which errs by less than 2^-24 for |r| <= log(2) / 2.
static inline V exponential(V x) {
    x = select(x > 43.0f, V{} + 43.0f, select(x < -43.0f, V{} - 43.0f, x));  // products of two are finite; NaN passes
    V shifted = x * 1.44269504f + 12582912.0f;                               // 1.5 * 2^23: the sum is rounded to n
    V n = shifted - 12582912.0f;
    V r = x - n * 0.693359375f + n * 2.12194440e-4f;
    V p = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)))))));
    I exponent = ((I)shifted << 23) + (127 << 23);  // the lowest bits of `shifted` are n
    return p * (V)exponent;
}

static inline V sigmoid(V x) { return 1.0f / (1.0f + exponential(-x)); }
static inline V tanh_of(V x) { return 2.0f * sigmoid(2.0f * x) - 1.0f; }

// s(a) tanh(x) by one division.
static inline V sigmoid_times_tanh(V a, V x) {
    V p = exponential(-a), q = exponential(-2.0f * x);
    return (1.0f - q) / ((1.0f + p) * (1.0f + q));
}

template <class Work> static void for_pixels(long pixels, long channels, int threads, Work work) {
#pragma omp parallel for num_threads(threads)
    for (long p = 0; p < pixels; p++)
        for (long c = 0; c < channels; c += L) work(p, c, channels - c);
}

static inline V at(const Array &a, long pixel, long channel, long count) { return load(a.data + pixel * a.step + channel, count); }
static inline void put(const Array &a, long pixel, long channel, long count, V v) {
    store(a.data + pixel * a.step + channel, v, count);
}

extern "C" {

// arrays: c, i, f, g, and c' to write.
void framecast_update(const Array *a, long pixels, long channels, int threads) {
    for_pixels(pixels, channels, threads, [=](long p, long c, long n) {
        put(a[4], p, c, n, sigmoid(at(a[2], p, c, n)) * at(a[0], p, c, n) + sigmoid_times_tanh(at(a[1], p, c, n), at(a[3], p, c, n)));
    });
}

// arrays: c, i, f, g, the gradient by c', and the gradients by c, i, f and g to write.
void framecast_update_gradients(const Array *a, long pixels, long channels, int threads) {
    for_pixels(pixels, channels, threads, [=](long p, long c, long n) {
        V memory = at(a[0], p, c, n), gradient = at(a[4], p, c, n);
        V i = sigmoid(at(a[1], p, c, n)), f = sigmoid(at(a[2], p, c, n)), g = tanh_of(at(a[3], p, c, n));
        put(a[5], p, c, n, gradient * f);
        put(a[6], p, c, n, gradient * g * i * (1.0f - i));
        put(a[7], p, c, n, gradient * memory * f * (1.0f - f));
        put(a[8], p, c, n, gradient * i * (1.0f - g * g));
    });
}

// arrays: o, u, and h to write.
void framecast_expose(const Array *a, long pixels, long channels, int threads) {
    for_pixels(pixels, channels, threads, [=](long p, long c, long n) {
        put(a[2], p, c, n, sigmoid_times_tanh(at(a[0], p, c, n), at(a[1], p, c, n)));
    });
}

// arrays: o, u, the gradient by h, and the gradients by o and u to write.
void framecast_expose_gradients(const Array *a, long pixels, long channels, int threads) {
    for_pixels(pixels, channels, threads, [=](long p, long c, long n) {
        V gradient = at(a[2], p, c, n), o = sigmoid(at(a[0], p, c, n)), u = tanh_of(at(a[1], p, c, n));
        put(a[3], p, c, n, gradient * u * o * (1.0f - o));
        put(a[4], p, c, n, gradient * o * (1.0f - u * u));
    });
}
}
