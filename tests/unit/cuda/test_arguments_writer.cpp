// The writer against the struct that kernels read: both are laid out by hand, so each checks the other.
#include <doctest/doctest.h>

#include <cstring>

#include "runtime/cuda/arguments_writer.h"
#include "vicinal/arguments.cuh"
#include "vicinal/backward_arguments.cuh"

namespace vicinal::cuda {
namespace {

template <class T>
T as(const std::vector<std::byte>& bytes) {
  static_assert(sizeof(T) % 8 == 0);
  T value{};
  REQUIRE(bytes.size() == sizeof(T));
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

template <int Rank>
void check_tensor(const TensorArgument<Rank>& read, const TensorWords& written) {
  CHECK(reinterpret_cast<std::uint64_t>(read.data) == written.data);
  CHECK(read.batch == written.batch);
  CHECK(read.head == written.head);
  CHECK(read.dim == written.dim);
  for (std::size_t i = 0; i < Rank; ++i)
    CHECK(read.axis[i] == (i < written.axis.size() ? written.axis[i] : 0));
}

struct Parameters {
  alignas(8) float gain;
  alignas(8) int window;
  InputArgument<float, 2> table;
  InputArgument<float, 0> scalar;
};

}  // namespace

TEST_CASE("arguments: every field arrives in its place") {
  std::int64_t next = 100;
  const auto tensor = [&](std::size_t rank) {
    TensorWords t;
    t.data = static_cast<std::uint64_t>(next++);
    t.batch = next++;
    t.head = next++;
    t.dim = next++;
    for (std::size_t i = 0; i < rank; ++i) t.axis.push_back(-next++);
    return t;
  };
  const ForwardWords words{.batch = 1,
                           .heads = 2,
                           .kv_heads = 3,
                           .tokens = 4,
                           .keys = std::int64_t{1} << 40,
                           .context = 6,
                           .q_axis = {{7, 8, 9}, {10, 11, 12}},
                           .k_axis = {{13, 14, 15}, {16, 17, 18}},
                           .q = tensor(2),
                           .k = tensor(2),
                           .v = tensor(2),
                           .context_k = tensor(1),
                           .context_v = tensor(1),
                           .out = tensor(2),
                           .lse = tensor(2),
                           .tiles = {{4, 8}, {2, 16}, 77, 0x1000, 0x2000, 78, 0x3000, 5, 6, 7}};
  ParameterWords parameters;
  parameters.add_float(1.5f);
  parameters.add_int(-3);
  const std::int64_t strides[] = {50, 1}, extents[] = {4, 50};
  parameters.add_input(0xabcd, strides, extents);
  parameters.add_input(0xef, {}, {});

  const auto a = as<ForwardArguments<2, Parameters>>(write_arguments(words, parameters));
  CHECK(a.batch == 1);
  CHECK(a.heads == 2);
  CHECK(a.kv_heads == 3);
  CHECK(a.tokens == 4);
  CHECK(a.keys == std::int64_t{1} << 40);
  CHECK(a.context == 6);
  CHECK(a.q_axis[1].origin == 12);
  CHECK(a.k_axis[0].extent == 13);
  CHECK(a.k_axis[1].local == 17);
  check_tensor(a.q, words.q);
  check_tensor(a.k, words.k);
  check_tensor(a.v, words.v);
  check_tensor(a.context_k, words.context_k);
  check_tensor(a.context_v, words.context_v);
  check_tensor(a.out, words.out);
  check_tensor(a.lse, words.lse);
  CHECK(a.tiles.q[0] == 4);
  CHECK(a.tiles.k[1] == 16);
  CHECK(a.tiles.rows == 77);
  CHECK(reinterpret_cast<std::uint64_t>(a.tiles.row_runs) == 0x1000);
  CHECK(reinterpret_cast<std::uint64_t>(a.tiles.runs) == 0x2000);
  CHECK(a.tiles.run_capacity == 78);
  CHECK(reinterpret_cast<std::uint64_t>(a.tiles.pairs) == 0x3000);
  CHECK(a.tiles.slice_batch == 5);
  CHECK(a.tiles.slice_head == 6);
  CHECK(a.tiles.heads_per_slice == 7);
  CHECK(a.parameters.gain == 1.5f);
  CHECK(a.parameters.window == -3);
  CHECK(reinterpret_cast<std::uint64_t>(a.parameters.table.data) == 0xabcd);
  CHECK(a.parameters.table.stride[0] == 50);
  CHECK(a.parameters.table.extent[0] == 4);
  CHECK(a.parameters.table.extent[1] == 50);
  CHECK(reinterpret_cast<std::uint64_t>(a.parameters.scalar.data) == 0xef);
}

TEST_CASE("arguments: without parameters, and with eight axes") {
  struct None {};
  ForwardWords words;
  words.q_axis.resize(8);
  words.k_axis.resize(8);
  words.k_axis[7].origin = 5;
  words.tiles.q = words.tiles.k = std::vector<std::int64_t>(8, 1);
  const auto a = as<ForwardArguments<8, None>>(write_arguments(words, {}));
  CHECK(a.k_axis[7].origin == 5);
  CHECK(a.lse.data == nullptr);
}

TEST_CASE("arguments: of backward, behind those of forward") {
  std::int64_t next = 500;
  const auto tensor = [&] {
    TensorWords t{static_cast<std::uint64_t>(next), next + 1, next + 2, next + 3, {next + 4, next + 5}};
    next += 6;
    return t;
  };
  ForwardWords forward;
  forward.batch = 1;
  forward.q_axis.resize(2);
  forward.k_axis.resize(2);
  forward.tiles.q = forward.tiles.k = {4, 8};
  ParameterWords parameters;
  parameters.add_float(2.5f);
  const BackwardWords words{.d_out = tensor(),
                            .d_lse = tensor(),
                            .given_d_out = tensor(),
                            .d_q = tensor(),
                            .d_k = tensor(),
                            .d_v = tensor(),
                            .d_context_k = tensor(),
                            .d_context_v = tensor(),
                            .key_rows = 1,
                            .d_rows = 2,
                            .row_terms = 3,
                            .partial_sums = 4,
                            .captured_elements = 5,
                            .partial_blocks = 6,
                            .captured = {{7, 8, 9}, {10, 11, 12}}};
  struct Gain {
    alignas(8) float gain;
  };
  const auto read = as<BackwardArguments<2, Gain, 2>>(write_arguments(forward, parameters, words));
  CHECK(read.batch == 1);
  CHECK(read.parameters.gain == 2.5f);
  check_tensor(read.d_out, words.d_out);
  check_tensor(read.d_lse, words.d_lse);
  check_tensor(read.given_d_out, words.given_d_out);
  check_tensor(read.d_q, words.d_q);
  check_tensor(read.d_k, words.d_k);
  check_tensor(read.d_v, words.d_v);
  check_tensor(read.d_context_k, words.d_context_k);
  check_tensor(read.d_context_v, words.d_context_v);
  CHECK(read.key_rows == 1);
  CHECK(reinterpret_cast<std::uint64_t>(read.d_rows) == 2);
  CHECK(reinterpret_cast<std::uint64_t>(read.row_terms) == 3);
  CHECK(reinterpret_cast<std::uint64_t>(read.partial_sums) == 4);
  CHECK(read.captured_elements == 5);
  CHECK(read.partial_blocks == 6);
  CHECK(reinterpret_cast<std::uint64_t>(read.captured[0].data) == 7);
  CHECK(read.captured[0].begin == 8);
  CHECK(read.captured[0].count == 9);
  CHECK(read.captured[1].count == 12);
  // Without params and captured gradients both still take their place.
  struct None {};
  BackwardWords nothing = words;
  nothing.captured.clear();
  const auto empty = as<BackwardArguments<2, None, 0>>(write_arguments(forward, {}, nothing));
  CHECK(empty.partial_blocks == 6);
  check_tensor(empty.d_context_v, words.d_context_v);
}

}  // namespace vicinal::cuda
