#include "tests/support/kernel_runner.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <random>

#include "runtime/cuda/arguments_writer.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/cuda/nvrtc_compiler.h"
#include "templates/embed/bundle.h"
#include "templates/vicinal/tiles.cuh"

namespace vicinal::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// f16 and bf16 by their definitions: a sign, an exponent, `mantissa` bits.
std::uint16_t encode_f16(float x) {
  const auto sign = static_cast<std::uint16_t>(std::signbit(x) ? 0x8000 : 0);
  const double magnitude = std::fabs(static_cast<double>(x));
  if (std::isnan(x)) return 0x7e00;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  const int unit = std::max(exponent - 11, -24);  // of the last mantissa bit
  const double steps = std::nearbyint(std::ldexp(magnitude, -unit));
  if (std::isinf(x) || std::ldexp(steps, unit) >= 65520) return static_cast<std::uint16_t>(sign | 0x7c00);
  // Counting steps from the smallest exponent upwards carries into the exponent field by itself.
  const int bits = static_cast<int>(steps) + (unit + 24) * 1024;
  return static_cast<std::uint16_t>(sign | bits);
}

float decode_f16(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double magnitude = exponent == 31  ? (mantissa ? std::nan("") : kInfinity)
                           : exponent == 0 ? std::ldexp(mantissa, -24)
                                           : std::ldexp(1024 + mantissa, exponent - 25);
  return static_cast<float>(bits & 0x8000 ? -magnitude : magnitude);
}

std::uint16_t encode_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return 0x7fc0;
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float decode_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

void encode(DType dtype, float value, std::byte* to) {
  if (dtype == DType::f32) {
    std::memcpy(to, &value, sizeof value);
  } else {
    const std::uint16_t bits = dtype == DType::f16 ? encode_f16(value) : encode_bf16(value);
    std::memcpy(to, &bits, sizeof bits);
  }
}

float decode(DType dtype, const std::byte* from) {
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, from, sizeof bits);
  return dtype == DType::f16 ? decode_f16(bits) : decode_bf16(bits);
}

float rounded(DType dtype, float value) {
  std::byte bytes[4];
  encode(dtype, value, bytes);
  return decode(dtype, bytes);
}

int local_of(const AxisShard& axis) {
  return axis.local < 0 ? axis.extent : axis.local;
}

int tokens_of(const std::vector<AxisShard>& axes, bool local) {
  int tokens = 1;
  for (const AxisShard& axis : axes) tokens *= local ? local_of(axis) : axis.extent;
  return tokens;
}

struct Place {
  std::vector<int> coordinate;
  int position;
};

// The global coordinates and position of a token of a shard.
Place place_of(const std::vector<AxisShard>& axes, int index) {
  Place place{std::vector<int>(axes.size()), 0};
  for (std::size_t i = axes.size(); i-- > 0;) {
    place.coordinate[i] = index % local_of(axes[i]) + axes[i].origin;
    index /= local_of(axes[i]);
  }
  for (std::size_t i = 0; i < axes.size(); ++i)
    place.position = place.position * axes[i].extent + place.coordinate[i];
  return place;
}

template <class Visit>
void for_each_element(const TestTensor& t, Visit visit) {
  std::size_t i = 0;
  for (int b = 0; b < t.batch; ++b) {
    for (int h = 0; h < t.heads; ++h) {
      for (int n = 0; n < t.tokens; ++n) {
        for (int d = 0; d < t.dim; ++d) {
          visit(i++,
                b * t.batch_stride() + n * t.token_stride() + h * t.head_stride() + std::int64_t{d} * t.step);
        }
      }
    }
  }
}

// What lies between the elements is NaN, so that a stray read shows.
std::vector<std::byte> bytes_of(const TestTensor& t) {
  const std::size_t size = size_of(t.dtype);
  std::vector<std::byte> bytes(static_cast<std::size_t>(t.batch * t.batch_stride()) * size);
  for (std::size_t i = 0; i < bytes.size(); i += size) encode(t.dtype, kNaN, &bytes[i]);
  for_each_element(t, [&](std::size_t i, std::int64_t at) {
    encode(t.dtype, t.values[i], &bytes[static_cast<std::size_t>(at) * size]);
  });
  return bytes;
}

TestTensor make_tensor(const KernelProblem& p, int heads, int tokens, int dim) {
  TestTensor t{p.kernel.dtype, p.batch, heads, tokens, dim, p.padding, p.step, {}};
  t.values.resize(static_cast<std::size_t>(p.batch * heads * tokens) * static_cast<std::size_t>(dim));
  return t;
}

cuda::TensorWords words_of(const TestTensor& t, cuda::DevicePointer address,
                           const std::vector<AxisShard>& axes) {
  cuda::TensorWords words{address, t.batch_stride(), t.head_stride(), t.step, {}};
  words.axis.resize(axes.size());
  std::int64_t stride = t.token_stride();
  for (std::size_t i = axes.size(); i-- > 0;) {
    words.axis[i] = stride;
    stride *= local_of(axes[i]);
  }
  return words;
}

std::vector<cuda::GridAxisWords> words_of(const std::vector<AxisShard>& axes) {
  std::vector<cuda::GridAxisWords> words;
  for (const AxisShard& axis : axes) words.push_back({axis.extent, local_of(axis), axis.origin});
  return words;
}

// A tile's tokens over the axes: as even as they go, the last axis first.
std::vector<std::int64_t> spread(int tokens, std::size_t rank) {
  std::vector<std::int64_t> extents(rank, 1);
  for (std::size_t i = rank; tokens > 1; tokens /= 2) {
    i = i == 0 ? rank - 1 : i - 1;
    extents[i] *= 2;
  }
  return extents;
}

cuda::TileWords tiles_of(const KernelProblem& p) {
  std::vector<Axis> axes = meaning_of(p.kernel.example).axes;
  axes.resize(p.q_axis.size(), Axis{0, 0, 1, 1, false});
  cuda::TileWords tiles;
  tiles.q = spread(p.kernel.tile_q, axes.size());
  tiles.k = spread(p.kernel.tile_k, axes.size());
  tiles.rows = 1;
  for (std::size_t i = 0; i < axes.size(); ++i)
    tiles.rows *= rows_along(axes[i], local_of(p.q_axis[i]), static_cast<int>(tiles.q[i]));
  return tiles;
}

// Kernels by source, since many problems share one.
Result<cuda::LoadedKernel> loaded(const cuda::Context& context, const std::string& source) {
  static std::map<std::string, cuda::LoadedKernel> kernels;
  if (const auto it = kernels.find(source); it != kernels.end()) return it->second;
  const char* path = std::getenv("VICINAL_NVRTC");
  VICINAL_TRY(const cuda::NvrtcCompiler compiler, cuda::NvrtcCompiler::open(path ? path : ""));
  VICINAL_TRY(const cuda::DeviceInfo device, cuda::device_info(context.api(), context.device()));
  cuda::CompileRequest request{.source = source,
                               .entry = std::string(kExampleEntry),
                               .arch = fmt::format("sm_{}", device.capability()),
                               .headers = {},
                               .options = {},
                               .ptx = false,
                               .time_limit = {}};
  for (const templates::Header& header : templates::bundle()) {
    request.headers.push_back({std::string(header.name), std::string(header.text)});
  }
  VICINAL_TRY(const cuda::Compiled compiled, compiler.compile(request));
  VICINAL_TRY(cuda::LoadedKernel kernel, cuda::LoadedKernel::load(context, compiled.cubin, request.entry));
  return kernels.emplace(source, std::move(kernel)).first->second;
}

bool close(double got, double wanted, double tolerance) {
  if (std::isnan(wanted) || std::isnan(got)) return std::isnan(wanted) && std::isnan(got);
  if (std::isinf(wanted)) return got == wanted;
  return std::fabs(got - wanted) <= tolerance;
}

}  // namespace

float& TestTensor::at(int b, int h, int t, int d) {
  return values[static_cast<std::size_t>(((b * heads + h) * tokens + t) * dim + d)];
}

KernelData make_data(const KernelProblem& p) {
  const int queries = tokens_of(p.q_axis, true), keys = tokens_of(p.k_axis, true);
  KernelData data{make_tensor(p, p.heads, queries, p.kernel.head_dim),
                  make_tensor(p, p.kv_heads, keys, p.kernel.head_dim),
                  make_tensor(p, p.kv_heads, keys, p.kernel.value_dim),
                  make_tensor(p, p.kv_heads, p.context, p.kernel.head_dim),
                  make_tensor(p, p.kv_heads, p.context, p.kernel.value_dim)};
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1.5f, 1.5f);
  for (TestTensor* t : {&data.q, &data.k, &data.v, &data.context_k, &data.context_v}) {
    for (float& x : t->values) x = rounded(t->dtype, uniform(random));
  }
  return data;
}

KernelOutcome run_on_host(const KernelProblem& p, const KernelData& data) {
  ExampleMeaning m = meaning_of(p.kernel.example);
  for (std::size_t i = 0; i < m.axes.size(); ++i) m.axes[i].extent = p.k_axis[i].extent;
  const int queries = data.q.tokens, grid_keys = data.k.tokens;
  const int shift = m.align_end ? tokens_of(p.k_axis, false) - tokens_of(p.q_axis, false) : 0;
  const bool softmax = m.normalize == Normalize::softmax;

  struct Kept {
    double score;
    const float* value;
  };
  KernelOutcome outcome;
  std::vector<Kept> kept;
  for (int b = 0; b < p.batch; ++b) {
    for (int h = 0; h < p.heads; ++h) {
      const int kv = h / (p.heads / p.kv_heads);
      for (int i = 0; i < queries; ++i) {
        const Place q = place_of(p.q_axis, i);
        kept.clear();
        const auto visit = [&](const TestTensor& keys, const TestTensor& values, int j, int position,
                               const int* at) {
          const Pair pair{b, h, p.heads, q.position + shift, position, q.coordinate.data(), at};
          for (std::size_t x = 0; at != nullptr && x < m.axes.size(); ++x) {
            if (!contains(m.axes[x], neighborhood(m.axes[x], q.coordinate[x]), q.coordinate[x], at[x]))
              return;
          }
          if (!m.mask(pair)) return;
          double dot = 0, qq = 0, kk = 0;
          for (int d = 0; d < p.kernel.head_dim; ++d) {
            const double x = data.q.at(b, h, i, d), y = keys.at(b, kv, j, d);
            dot += x * y, qq += x * x, kk += y * y;
          }
          if (m.query_l2norm) dot /= std::max(std::sqrt(qq), 1e-12);
          if (m.key_l2norm) dot /= std::max(std::sqrt(kk), 1e-12);
          const double score = m.score(pair, m.scale * dot);
          if (score != -kInfinity) {
            kept.push_back({score, &values.values[static_cast<std::size_t>(
                                       ((b * p.kv_heads + kv) * values.tokens + j) * values.dim)]});
          }
        };
        for (int j = 0; j < grid_keys; ++j) {
          const Place k = place_of(p.k_axis, j);
          visit(data.k, data.v, j, k.position, k.coordinate.data());
        }
        for (int j = 0; m.context && j < p.context; ++j) visit(data.context_k, data.context_v, j, j, nullptr);

        const double sink = m.has_sink ? m.sink(h) : -kInfinity;
        double largest = sink, sum = 0;
        for (const Kept& k : kept) largest = std::max(largest, k.score);
        if (largest == -kInfinity) largest = 0;
        for (const Kept& k : kept) sum += std::exp(k.score - largest);
        const double lse = largest + std::log(sum + std::exp(sink - largest));
        for (int d = 0; d < p.kernel.value_dim; ++d) {
          double out = 0, magnitude = 0;
          for (const Kept& k : kept) {
            const double weight = softmax                             ? std::exp(k.score - lse)
                                  : m.normalize == Normalize::sigmoid ? 1 / (1 + std::exp(-k.score))
                                                                      : k.score;
            out += weight * k.value[d];
            magnitude += std::fabs(weight * k.value[d]);
          }
          outcome.out.push_back(m.output(out, lse));
          outcome.magnitude.push_back(magnitude);
        }
        if (softmax) outcome.lse.push_back(lse);
      }
    }
  }
  return outcome;
}

Result<KernelOutcome> run_on_device(const cuda::Context& context, const KernelProblem& p,
                                    const KernelData& data) {
  using cuda::DeviceBuffer;
  const cuda::DriverApi& api = context.api();
  const cuda::ContextScope scope(context);
  VICINAL_TRY(const cuda::LoadedKernel kernel, loaded(context, example_source(p.kernel)));
  VICINAL_TRY(const cuda::Stream stream, cuda::Stream::create(api));

  const int queries = data.q.tokens;
  TestTensor out = make_tensor(p, p.heads, queries, p.kernel.value_dim);
  TestTensor lse{DType::f32, p.batch, p.heads, queries, 1, 0, 1, {}};
  lse.values.resize(static_cast<std::size_t>(p.batch * p.heads * queries));

  // Whatever the kernel does not write stays NaN.
  std::fill(out.values.begin(), out.values.end(), kNaN);
  std::fill(lse.values.begin(), lse.values.end(), kNaN);
  VICINAL_TRY(const DeviceBuffer q, DeviceBuffer::copy_of(api, bytes_of(data.q)));
  VICINAL_TRY(const DeviceBuffer k, DeviceBuffer::copy_of(api, bytes_of(data.k)));
  VICINAL_TRY(const DeviceBuffer v, DeviceBuffer::copy_of(api, bytes_of(data.v)));
  VICINAL_TRY(const DeviceBuffer context_k, DeviceBuffer::copy_of(api, bytes_of(data.context_k)));
  VICINAL_TRY(const DeviceBuffer context_v, DeviceBuffer::copy_of(api, bytes_of(data.context_v)));
  std::vector<std::byte> out_bytes = bytes_of(out), lse_bytes = bytes_of(lse);
  VICINAL_TRY(const DeviceBuffer out_buffer, DeviceBuffer::copy_of(api, out_bytes));
  VICINAL_TRY(const DeviceBuffer lse_buffer, DeviceBuffer::copy_of(api, lse_bytes));

  std::vector<float> slopes;
  for (int h = 0; h < p.heads; ++h) slopes.push_back(example_slope(h));
  VICINAL_TRY(const DeviceBuffer slope_buffer, DeviceBuffer::copy_of(api, std::as_bytes(std::span(slopes))));
  cuda::ParameterWords parameters;
  if (p.kernel.example == Example::causal_alibi) {
    const std::int64_t strides[] = {1}, extents[] = {p.heads};
    parameters.add_input(slope_buffer.address(), strides, extents);
  } else if (p.kernel.example == Example::everything) {
    parameters.add_float(kExampleSink);
  }

  const std::vector<AxisShard> sequence = {{p.context}};
  const cuda::ForwardWords words{.batch = p.batch,
                                 .heads = p.heads,
                                 .kv_heads = p.kv_heads,
                                 .tokens = tokens_of(p.q_axis, false),
                                 .keys = tokens_of(p.k_axis, false),
                                 .context = p.context,
                                 .q_axis = words_of(p.q_axis),
                                 .k_axis = words_of(p.k_axis),
                                 .q = words_of(data.q, q.address(), p.q_axis),
                                 .k = words_of(data.k, k.address(), p.k_axis),
                                 .v = words_of(data.v, v.address(), p.k_axis),
                                 .context_k = words_of(data.context_k, context_k.address(), sequence),
                                 .context_v = words_of(data.context_v, context_v.address(), sequence),
                                 .out = words_of(out, out_buffer.address(), p.q_axis),
                                 .lse = words_of(lse, lse_buffer.address(), p.q_axis),
                                 .tiles = tiles_of(p)};
  const std::vector<std::byte> arguments = cuda::write_arguments(words, parameters);
  const cuda::LaunchShape shape{{p.blocks}, {256}, 0};
  const auto start = [&] { return cuda::launch(kernel, stream.handle(), shape, arguments); };
  if (p.graph) {
    VICINAL_TRY(const cuda::Graph graph, cuda::Graph::capture(api, stream.handle(), start));
    for (int i = 0; i < 2; ++i) VICINAL_TRY_VOID(graph.launch(stream.handle()));
    VICINAL_TRY_VOID(stream.synchronize());
  } else {
    VICINAL_TRY_VOID(start());
  }
  VICINAL_TRY_VOID(out_buffer.read(out_bytes, stream.handle()));
  VICINAL_TRY_VOID(lse_buffer.read(lse_bytes, stream.handle()));
  VICINAL_TRY_VOID(stream.synchronize());

  KernelOutcome outcome;
  for_each_element(out, [&](std::size_t, std::int64_t at) {
    outcome.out.push_back(decode(out.dtype, &out_bytes[static_cast<std::size_t>(at) * size_of(out.dtype)]));
  });
  if (meaning_of(p.kernel.example).normalize == Normalize::softmax) {
    for_each_element(lse, [&](std::size_t, std::int64_t at) {
      outcome.lse.push_back(decode(DType::f32, &lse_bytes[static_cast<std::size_t>(at) * sizeof(float)]));
    });
  }
  return outcome;
}

void check_on_device(const cuda::Context& context, const KernelProblem& p, const KernelData& data) {
  INFO(describe(p));
  const auto got = run_on_device(context, p, data);
  REQUIRE_MESSAGE(got.has_value(), (got ? "" : got.error().message));
  const KernelOutcome wanted = run_on_host(p, data);
  REQUIRE(got->out.size() == wanted.out.size());
  REQUIRE(got->lse.size() == wanted.lse.size());

  // One rounding to the dtype, and fp32 rounding of every term.
  const double unit = p.kernel.dtype == DType::f32 ? 0 : p.kernel.dtype == DType::f16 ? 0x1p-11 : 0x1p-8;
  const double least = p.kernel.dtype == DType::f16 ? 0x1p-24 : 1e-30;
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < wanted.out.size(); ++i) {
    const double tolerance = unit * std::fabs(wanted.out[i]) + 2e-5 * wanted.magnitude[i] + least;
    if (close(got->out[i], wanted.out[i], tolerance)) continue;
    const auto dim = static_cast<std::size_t>(p.kernel.value_dim);
    if (wrong++ == 0) {
      FAIL_CHECK("row ", i / dim, " element ", i % dim, ": got ", got->out[i], ", wanted ", wanted.out[i]);
    }
  }
  for (std::size_t i = 0; i < wanted.lse.size(); ++i) {
    if (close(got->lse[i], wanted.lse[i], 2e-5 * (1 + std::fabs(wanted.lse[i])))) continue;
    if (wrong++ == 0) FAIL_CHECK("LSE of row ", i, ": got ", got->lse[i], ", wanted ", wanted.lse[i]);
  }
  CHECK(wrong == 0);
}

void check_on_device(const cuda::Context& context, const KernelProblem& p) {
  check_on_device(context, p, make_data(p));
}

std::string describe(const KernelProblem& p) {
  const auto axes = [](const std::vector<AxisShard>& list) {
    std::vector<std::string> words;
    for (const AxisShard& a : list) {
      words.push_back(a.local < 0 ? fmt::to_string(a.extent)
                                  : fmt::format("{}+{}of{}", a.origin, a.local, a.extent));
    }
    return fmt::format("{}", fmt::join(words, "x"));
  };
  return fmt::format(
      "{} {} {} dims {}/{} tile {}x{} batch {} heads {}/{} queries {} keys {} context {} padding {} step {}",
      p.kernel.reference ? "reference" : "portable", name_of(p.kernel.example), name_of(p.kernel.dtype),
      p.kernel.head_dim, p.kernel.value_dim, p.kernel.tile_q, p.kernel.tile_k, p.batch, p.heads, p.kv_heads,
      axes(p.q_axis), axes(p.k_axis), p.context, p.padding, p.step);
}

}  // namespace vicinal::testing
