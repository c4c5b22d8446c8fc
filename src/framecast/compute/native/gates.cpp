// The gates of a recurrent cell in one pass over memory, forward and backward, in float32.
//
//     update:  c' = s(f) c + s(i) tanh(g)        expose:  h = s(o) tanh(u)        s(x) = 1 / (1 + exp(-x))
//
// A gate can be a part of a convolution's result. Backward computes s and tanh again from what went in, which is cheaper
// than to keep them.

#include "vectors.h"

template <class Work> static void for_pixels(long pixels, long channels, int threads, Work work) {
#pragma omp parallel for num_threads(threads)
    for (long p = 0; p < pixels; p++)
        for (long c = 0; c < channels; c += L) work(p, c, channels - c);
}

extern "C" {

// arrays: c, i, f, g, and c' to write.
void framecast_update(const Array *a, long pixels, long channels, int threads) {
    for_pixels(pixels, channels, threads, [=](long p, long c, long n) {
        put(a[4], p, c, n, update_memory(at(a[0], p, c, n), at(a[1], p, c, n), at(a[2], p, c, n), at(a[3], p, c, n)));
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
