// What a CPU does between the convolutions of a DenseNet, in as few passes over memory as there can be: it is memory
// that these steps wait for. Maps are rows of channels, one for each pixel, `ld` numbers apart; sums are taken in fp32
// over a few rows, and over all of them in fp64, in an order that the number of threads alone decides. Compiled by
// fused.py.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <omp.h>

namespace {

constexpr int64_t kRows = 64;  // of which the sums are taken in fp32

struct bf16 {
  uint16_t bits;
};

struct fp16 {  // _Float16 is one, but no g++ below 12 has it, and on x86 no clang++ below 15
  uint16_t bits;
};

inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float read(float value) { return value; }
inline float read(bf16 value) { return of_bits(static_cast<uint32_t>(value.bits) << 16); }
inline float read(fp16 value) {  // whose exponents are 112 less
  const uint32_t sign = (value.bits & 0x8000u) << 16, size = value.bits & 0x7fffu;
  const uint32_t finite = bits_of(of_bits(size << 13) * 0x1p112f);
  return of_bits(sign | (size < 0x7c00 ? finite : size << 13 | 0x7f800000));
}

// All are rounded to the nearest, of two to the even one.
inline void write(float& at, float value) { at = value; }
inline void write(bf16& at, float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  at.bits = static_cast<uint16_t>(value == value ? rounded : 0x7fc0);
}
inline void write(fp16& at, float value) {
  const uint32_t bits = bits_of(value), size = bits & 0x7fffffff;
  const uint32_t normal = (size - 0x38000000 + 0xfff + ((size >> 13) & 1)) >> 13;
  // Below 2^-14 they are multiples of 2^-24, as fp32 numbers from 0.5 on are.
  const uint32_t subnormal = bits_of(of_bits(size) + 0.5f) - 0x3f000000;
  const uint32_t infinite = size > 0x7f800000 ? 0x7e00 : 0x7c00;
  at.bits = static_cast<uint16_t>((bits >> 16 & 0x8000) |
                                  (size < 0x38800000 ? subnormal : size < 0x477ff000 ? normal : infinite));
}

// What a ReLU lets through lies above this; without a ReLU all does.
inline float floor_of(int relu) { return relu ? 0.0f : -std::numeric_limits<float>::infinity(); }

// The 2 x 2 average pooling that comes behind, on maps of this height and width; of nothing where none does.
struct Pooling {
  int64_t height, width;

  bool on() const { return width > 0; }

  // The first of the four rows that a row behind it comes from; the next is beside it, the others are a width further.
  int64_t before(int64_t row) const {
    const int64_t line = row / (width / 2), image = line / (height / 2);
    return (image * height + 2 * (line % (height / 2))) * width + 2 * (row % (width / 2));
  }

  // The row behind it that a row goes into; none (-1) for the last row or column where it is odd.
  int64_t behind(int64_t row) const {
    if (!on()) return row;
    const int64_t line = row / width, y = line % height / 2, x = row % width / 2;
    return y < height / 2 && x < width / 2 ? (line / height * (height / 2) + y) * (width / 2) + x : -1;
  }
};

// Calls f(thread, first row, row behind the last) for every few rows; each thread has its part of them.
template <class F>
void each(int64_t rows, int threads, F f) {
#pragma omp parallel num_threads(threads)
  {
    const int64_t thread = omp_get_thread_num(), of = omp_get_num_threads();
    const int64_t end = rows * (thread + 1) / of;
    for (int64_t row = rows * thread / of; row < end; row += kRows) f(thread, row, std::min(row + kRows, end));
  }
}

// Two sums for each channel.
class Sums {
 public:
  Sums(int64_t channels, int threads)
      : width_(2 * channels), apart_(width_ + kApart), few_(apart_ * threads), all_(apart_ * threads) {}

  // Those of a thread's next few rows, which begin at nothing: the first sums, and behind them the second ones.
  float* few(int64_t thread) {
    float* sums = few_.data() + apart_ * thread;
    std::fill_n(sums, width_, 0.0f);
    return sums;
  }

  // Adds them up.
  void add(int64_t thread) {
    for (int64_t at = apart_ * thread; at < apart_ * thread + width_; ++at) all_[at] += few_[at];
  }

  double total(int64_t at) const {
    double sum = 0;
    for (size_t from = at; from < all_.size(); from += apart_) sum += all_[from];
    return sum;
  }

 private:
  static constexpr int64_t kApart = 64;  // numbers between those of two threads, which would share a cache line

  int64_t width_;
  int64_t apart_;
  std::vector<float> few_;
  std::vector<double> all_;
};

// Of each channel: `apart` numbers lie between the first of each kind.
struct Moments {
  float* mean;
  int64_t apart;

  float* variance() const { return mean + apart; }     // biased
  float* inverse() const { return mean + 2 * apart; }  // 1 / sqrt(variance + eps)
};

// By distances to the mean of the first rows: Chan, Golub, LeVeque, "Algorithms for Computing the Sample Variance",
// 1983. The maps are copied on the way, where there is a `copy`.
template <class T>
void moments(const T* maps, int64_t ld, T* copy, int64_t ld_copy, int64_t rows, int64_t channels, int threads,
             double eps, Moments found) {
  std::vector<float> from(channels);
  const int64_t first = std::min(kRows, rows);
  for (int64_t row = 0; row < first; ++row)
    for (int64_t c = 0; c < channels; ++c) from[c] += read(maps[row * ld + c]) / first;
  Sums sums(channels, threads);
  const float* __restrict origin = from.data();
  each(rows, threads, [&](int64_t thread, int64_t begin, int64_t end) {
    float* __restrict sum = sums.few(thread);
    float* __restrict squares = sum + channels;
    for (int64_t row = begin; row < end; ++row) {
      const T* __restrict x = maps + row * ld;
      if (copy) std::memcpy(copy + row * ld_copy, x, channels * sizeof(T));
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float apart = read(x[c]) - origin[c];
        sum[c] += apart;
        squares[c] += apart * apart;
      }
    }
    sums.add(thread);
  });
  for (int64_t c = 0; c < channels; ++c) {
    const double apart = sums.total(c) / rows;
    const double variance = sums.total(channels + c) / rows - apart * apart;
    found.mean[c] = static_cast<float>(from[c] + apart);
    // One that is not finite stays so: the training finds it.
    found.variance()[c] = static_cast<float>(variance < 0 ? 0 : variance);
    found.inverse()[c] = static_cast<float>(1 / std::sqrt(found.variance()[c] + eps));
  }
}

// Lets a BatchNorm's running statistics follow these moments of so many rows, and says what it does to the maps: they
// are multiplied by `scale`, and `shift` is added.
void follow(Moments found, int64_t rows, int64_t channels, const float* weight, const float* bias, float momentum,
            float* running_mean, float* running_variance, float* scale, float* shift) {
  const float unbiased = static_cast<float>(static_cast<double>(rows) / (rows - 1));
  for (int64_t c = 0; c < channels; ++c) {
    running_mean[c] += momentum * (found.mean[c] - running_mean[c]);
    running_variance[c] += momentum * (found.variance()[c] * unbiased - running_variance[c]);
    scale[c] = weight[c] * found.inverse()[c];
    shift[c] = bias[c] - found.mean[c] * scale[c];
  }
}

// made = maps * scale + shift, ReLU of that, and the pooling of that; `rows` are those of what is made.
template <class T>
void normalise(const T* maps, int64_t ld, T* made, Pooling pooling, int64_t rows, int64_t channels, int threads,
               const float* __restrict scale, const float* __restrict shift, int relu) {
  const float floor = floor_of(relu);
  const auto one = [&](const T* x, int64_t c) {
    const float value = read(x[c]) * scale[c] + shift[c];
    return value < floor ? floor : value;
  };
  each(rows, threads, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      T* __restrict y = made + row * channels;
      if (pooling.on()) {
        const T* __restrict x = maps + pooling.before(row) * ld;
        const T* __restrict below = x + pooling.width * ld;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c)
          write(y[c], 0.25f * (one(x, c) + one(x + ld, c) + one(below, c) + one(below + ld, c)));
      } else {
        const T* __restrict x = maps + row * ld;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) write(y[c], one(x, c));
      }
    }
  });
}

// With g the gradient before the ReLU: those of bias and weight, the sums of g and of g * normalised maps. Weight * the
// sums of g and of g * (maps - mean) are added to `sum_g` and `sum_gx`, and weight * g goes into `total`, where there
// is one: in place of what was there, or on top of it. `gradient` is that behind the pooling.
template <class T>
void gather(const T* gradient, int64_t ld_gradient, Pooling pooling, const T* maps, int64_t ld, float* total,
            int64_t ld_total, int fresh, int64_t rows, int64_t channels, int threads, Moments found,
            const float* __restrict weight, const float* __restrict scale, const float* __restrict shift, int relu,
            float* of_weight, float* of_bias, float* sum_g, float* sum_gx) {
  const float* __restrict mean = found.mean;
  const float floor = floor_of(relu);
  Sums sums(channels, threads);
  each(rows, threads, [&](int64_t thread, int64_t begin, int64_t end) {
    float* __restrict sum = sums.few(thread);
    float* __restrict product = sum + channels;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t from = pooling.behind(row);
      const float part = from < 0 ? 0.0f : pooling.on() ? 0.25f : 1.0f;
      const T* __restrict x = maps + row * ld;
      const T* __restrict d = gradient + std::max<int64_t>(from, 0) * ld_gradient;
      float* __restrict to = total + row * ld_total;
      const auto one = [&](int64_t c) {
        const float g = read(x[c]) * scale[c] + shift[c] > floor ? part * read(d[c]) : 0.0f;
        sum[c] += g;
        product[c] += g * (read(x[c]) - mean[c]);
        return g;
      };
      if (!total) {
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) one(c);
      } else if (fresh) {
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) to[c] = weight[c] * one(c);
      } else {
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) to[c] += weight[c] * one(c);
      }
    }
    sums.add(thread);
  });
  for (int64_t c = 0; c < channels; ++c) {
    const float g = static_cast<float>(sums.total(c)), gx = static_cast<float>(sums.total(channels + c));
    of_bias[c] = g;
    of_weight[c] = gx * found.inverse()[c];
    sum_g[c] += weight[c] * g;
    sum_gx[c] += weight[c] * gx;
  }
}

// BatchNorm's gradient, of what was gathered: inverse * (g - mean of g - normalised maps * mean of g * normalised
// maps). In `gradient` is g times the weight, of all who read the maps; or, where there is a `scale`, what a single
// one has behind its ReLU.
template <class G, class T>
void finish(const G* gradient, int64_t ld_gradient, const T* maps, int64_t ld, T* made, int64_t rows, int64_t channels,
            int threads, Moments found, const float* scale_of, const float* shift_of, int relu, const float* sum_g,
            const float* sum_gx) {
  const float floor = floor_of(relu);
  std::vector<float> less(channels), slope(channels);
  for (int64_t c = 0; c < channels; ++c) {
    const float inverse = found.inverse()[c];
    less[c] = inverse * sum_g[c] / rows;
    slope[c] = inverse * inverse * inverse * sum_gx[c] / rows;
  }
  const float* __restrict scale = scale_of ? scale_of : found.inverse();
  const float* __restrict shift = scale_of ? shift_of : found.mean;
  const float* __restrict mean = found.mean;
  const float* __restrict lessened = less.data();
  const float* __restrict sloped = slope.data();
  each(rows, threads, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* __restrict x = maps + row * ld;
      const G* __restrict d = gradient + row * ld_gradient;
      T* __restrict to = made + row * channels;
#pragma omp simd
      for (int64_t c = 0; c < channels; ++c) {
        const float value = read(x[c]);
        const float g = value * scale[c] + shift[c] > floor ? read(d[c]) : 0.0f;
        write(to[c], scale[c] * g - lessened[c] - sloped[c] * (value - mean[c]));
      }
    }
  });
}

}  // namespace

namespace {

// From here on `type` says what maps and gradient are made of: 0 fp32, 1 bf16, 2 fp16.
template <class F>
void as(int type, F f) {
  if (type == 0) return f(float());
  if (type == 1) return f(bf16());
  f(fp16());
}

}  // namespace

extern "C" {

void orch_moments(int type, const void* maps, int64_t ld, void* copy, int64_t ld_copy, int64_t rows, int64_t channels,
                  int threads, double eps, float* mean, int64_t apart) {
  as(type, [&](auto of) {
    using T = decltype(of);
    moments(static_cast<const T*>(maps), ld, static_cast<T*>(copy), ld_copy, rows, channels, threads, eps,
            {mean, apart});
  });
}

void orch_normalise(int type, const void* maps, int64_t ld, void* made, int64_t height, int64_t width, int64_t rows,
                    int64_t channels, int threads, const float* scale, const float* shift, int relu) {
  as(type, [&](auto of) {
    using T = decltype(of);
    normalise(static_cast<const T*>(maps), ld, static_cast<T*>(made), {height, width}, rows, channels, threads, scale,
              shift, relu);
  });
}

void orch_follow(float* mean, int64_t apart, int64_t rows, int64_t channels, const float* weight, const float* bias,
                 double momentum, float* running_mean, float* running_variance, float* scale, float* shift) {
  follow({mean, apart}, rows, channels, weight, bias, static_cast<float>(momentum), running_mean, running_variance,
         scale, shift);
}

void orch_gather(int type, const void* gradient, int64_t ld_gradient, int64_t height, int64_t width, const void* maps,
                 int64_t ld, float* total, int64_t ld_total, int fresh, int64_t rows, int64_t channels, int threads,
                 float* mean, int64_t apart, const float* weight, const float* scale, const float* shift, int relu,
                 float* of_weight, float* of_bias, float* sum_g, float* sum_gx) {
  as(type, [&](auto of) {
    using T = decltype(of);
    gather(static_cast<const T*>(gradient), ld_gradient, {height, width}, static_cast<const T*>(maps), ld, total,
           ld_total, fresh, rows, channels, threads, {mean, apart}, weight, scale, shift, relu, of_weight, of_bias,
           sum_g, sum_gx);
  });
}

void orch_finish(int type_gradient, const void* gradient, int64_t ld_gradient, int type, const void* maps, int64_t ld,
                 void* made, int64_t rows, int64_t channels, int threads, float* mean, int64_t apart,
                 const float* scale, const float* shift, int relu, const float* sum_g, const float* sum_gx) {
  as(type_gradient, [&](auto of_gradient) {
    as(type, [&](auto of) {
      using G = decltype(of_gradient);
      using T = decltype(of);
      finish(static_cast<const G*>(gradient), ld_gradient, static_cast<const T*>(maps), ld, static_cast<T*>(made), rows,
             channels, threads, {mean, apart}, scale, shift, relu, sum_g, sum_gx);
    });
  });
}

}  // extern "C"
