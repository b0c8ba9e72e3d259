// What CUDA offers to the source of a kernel, for a C++ compiler of the host.
#pragma once
#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#define __device__
#define __host__
#define __global__ __attribute__((noinline))
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index { unsigned x, y, z; };
static Index threadIdx, blockIdx, blockDim, gridDim;

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }

using std::abs; using std::ceil; using std::cos; using std::exp; using std::expm1;
using std::fabs; using std::floor; using std::fmax; using std::fmin; using std::isfinite;
using std::isinf; using std::isnan; using std::log; using std::log1p; using std::pow;
using std::signbit; using std::sin; using std::sqrt; using std::tanh;

template <class T> static inline T min(const T &a, const T &b) { return b < a ? b : a; }
template <class T> static inline T max(const T &a, const T &b) { return a < b ? b : a; }

#define float16 _Float16
static inline bool isnan(_Float16 x) { return x != x; }

static void __syncthreads();  // in suffix.h
