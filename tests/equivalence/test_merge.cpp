// Joining partial results: what merge() refuses, empty parts, and NaN.
#include <doctest/doctest.h>

#include <limits>

#include "tests/support/host_tensor.h"

namespace vicinal::testing {

TEST_CASE("merge: what it refuses") {
  HostTensor out(DType::f32, {1, 2, 3, 8}), lse(DType::f32, {1, 2, 3});
  out.fill(1.0), lse.fill(0.0);
  const auto refused = [&](std::vector<Tensor> outs, std::vector<Tensor> lses, Tensor result,
                           const std::vector<std::string>& words, ErrorKind kind = ErrorKind::spec) {
    const Result<void> merged = merge(outs, lses, result);
    REQUIRE_FALSE(merged.has_value());
    CHECK(merged.error().kind == kind);
    for (const std::string& word : words) {
      CAPTURE(word);
      CHECK(merged.error().message.find(word) != std::string::npos);
    }
  };
  CHECK(merge({out.view()}, {lse.view()}, out.view()).has_value());
  refused({}, {}, out.view(), {"lse"}, ErrorKind::usage);
  refused({out.view(), out.view()}, {lse.view()}, out.view(), {"2", "1"}, ErrorKind::usage);
  Tensor other = out.view();
  other.shape[2] = 2;
  refused({out.view(), other}, {lse.view(), lse.view()}, out.view(), {"outs[1]", "shape"});
  refused({out.view()}, {out.view()}, out.view(), {"lses[0]", "shape"});
  refused({out.view()}, {lse.view()}, other, {"`out`", "shape"});
  Tensor none = out.view();
  none.data = nullptr;
  refused({none}, {lse.view()}, out.view(), {"outs[0]", "no data"});
  Tensor ints = out.view();
  ints.dtype = DType::i32;
  refused({ints}, {lse.view()}, out.view(), {"outs[0]", "i32"});
  Tensor negative = out.view(), negative_lse = lse.view();
  negative.shape = {1, -2, -3, 8}, negative_lse.shape = {1, -2, -3};
  refused({negative}, {negative_lse}, negative, {"outs[0]", "extent"});
}

TEST_CASE("merge: empty parts weigh nothing, and NaN is not hidden") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity(),
                   kNaN = std::numeric_limits<double>::quiet_NaN();
  const auto joined = [](std::vector<std::pair<double, double>> parts) {
    std::vector<HostTensor> tensors;
    std::vector<Tensor> outs, lses;
    for (const auto& [out, lse] : parts)
      tensors.push_back(HostTensor(DType::f64, {1, 1, 1, 8}).fill(out)),
          tensors.push_back(HostTensor(DType::f64, {1, 1, 1}).fill(lse));
    for (std::size_t i = 0; i < tensors.size(); i += 2)
      outs.push_back(tensors[i].view()), lses.push_back(tensors[i + 1].view());
    HostTensor out(DType::f64, {1, 1, 1, 8}), lse(DType::f64, {1, 1, 1});
    merge(outs, lses, out.view(), lse.view()).value();
    return std::pair(out.at({0, 0, 0, 3}), lse.at({0, 0, 0}));
  };
  CHECK(joined({{3, 0}, {kNaN, -kInfinity}}) == std::pair(3.0, 0.0));
  CHECK(joined({{3, -kInfinity}, {kNaN, -kInfinity}}) == std::pair(0.0, -kInfinity));
  CHECK(joined({{1, 0}, {3, 0}}).first == doctest::Approx(2).epsilon(1e-15));
  CHECK(joined({{1, 0}, {3, 0}}).second == doctest::Approx(0.6931471805599453).epsilon(1e-15));
  for (const auto& parts : {std::vector<std::pair<double, double>>{{1, kNaN}},
                            {{1, kNaN}, {2, 0}},
                            {{2, 0}, {1, kNaN}},
                            {{1, kNaN}, {0, -kInfinity}}}) {
    CHECK(joined(parts).first != joined(parts).first);
    CHECK(joined(parts).second != joined(parts).second);
  }
}

}  // namespace vicinal::testing
