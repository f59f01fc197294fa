#include "cli/accuracy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "runtime/host/elements.h"
#include "runtime/host/parallel.h"

namespace vicinal::cli {
namespace {

// The distance from |x| to the next number of the dtype.
double ulp(DType dtype, double x) {
  if (!std::isfinite(x)) return 0;
  const int digits = dtype == DType::bf16 ? 8 : dtype == DType::f16 ? 11 : dtype == DType::f32 ? 24 : 53;
  const int lowest = dtype == DType::f16    ? -24
                     : dtype == DType::f64  ? -1074
                     : dtype == DType::bf16 ? -133
                                            : -149;
  int exponent = 0;
  std::frexp(x, &exponent);
  return std::ldexp(1.0, std::max(exponent - digits, lowest));
}

// Equal counts as no error, infinities and NaNs included.
double error_of(double got, double want) {
  if (got == want || (std::isnan(got) && std::isnan(want))) return 0;
  const double e = std::fabs(got - want);
  return std::isnan(e) ? std::numeric_limits<double>::infinity() : e;
}

struct Statistics {
  ErrorRow row;
  double excess = -std::numeric_limits<double>::infinity();  // of an error over its own allowance
  std::int64_t count = 0;

  void add(double got, double want, double plain, DType dtype, const cpu::Row& at, std::int64_t channel) {
    const double e = error_of(got, want), p = error_of(plain, want), allowance = 2 * ulp(dtype, want);
    if (e > row.max)
      row.worst = fmt::format("batch {}, head {}, token {}, channel {}: {:.9g}, exactly {:.9g}", at.batch,
                              at.head, at.token, channel, got, want);
    row.max = std::max(row.max, e);
    row.plain_max = std::max(row.plain_max, p);
    row.mean += e;
    row.plain_mean += p;
    row.allowance = std::max(row.allowance, allowance);
    excess = std::max(excess, e - allowance);
    ++count;
  }

  ErrorRow finish() {
    if (count != 0) row.mean /= static_cast<double>(count), row.plain_mean /= static_cast<double>(count);
    row.pass = count == 0 || excess <= 2 * row.plain_max;
    return row;
  }
};

std::vector<cpu::Row> choose(const runtime::Problem& p, std::int64_t limit, std::uint64_t seed) {
  const std::int64_t queries = p.local_queries(), total = p.rows();
  std::vector<std::int64_t> picked;
  if (total <= limit) {
    for (std::int64_t n = 0; n < total; ++n) picked.push_back(n);
  } else {
    std::uint64_t state = seed + 1;
    for (std::int64_t i = 0; i < limit; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      picked.push_back(static_cast<std::int64_t>((state >> 16) % static_cast<std::uint64_t>(total)));
    }
    const std::int64_t heads = std::min<std::int64_t>(p.batch * p.heads, limit / 4 + 1);
    for (std::int64_t h = 0; h < heads; ++h)
      picked.push_back(h * queries), picked.push_back(h * queries + queries - 1);
    std::sort(picked.begin(), picked.end());
    picked.erase(std::unique(picked.begin(), picked.end()), picked.end());
  }
  std::vector<cpu::Row> rows;
  for (std::int64_t n : picked) rows.push_back({n / queries / p.heads, n / queries % p.heads, n % queries});
  return rows;
}

std::int64_t offset(const runtime::Strided& t, const std::vector<runtime::GridAxis>& axes,
                    const cpu::Row& row) {
  std::int64_t at = row.batch * t.batch + row.head * t.head, token = row.token;
  for (std::size_t i = axes.size(); i-- > 0; token /= axes[i].local) at += token % axes[i].local * t.axis[i];
  return at;
}

}  // namespace

bool Comparison::pass() const {
  return std::all_of(rows.begin(), rows.end(), [](const ErrorRow& r) { return r.pass; });
}

Comparison compare(const cpu::Interpreter& oracle, const runtime::Problem& p, std::int64_t limit,
                   std::uint64_t seed) {
  Comparison result;
  result.total = p.rows();
  if (result.total == 0) return result;
  const std::vector<cpu::Row> rows = choose(p, limit, seed);
  result.compared = static_cast<std::int64_t>(rows.size());
  Statistics out, lse;
  out.row.what = "out";
  lse.row.what = "lse";
  std::mutex mutex;
  host::parallel_for(result.compared, host::default_threads(), [&](std::int64_t n) {
    const cpu::Row& row = rows[static_cast<std::size_t>(n)];
    const cpu::RowResult exact = oracle.row(row), plain = oracle.plain_row(row);
    const std::int64_t at = offset(p.out, p.q_axis, row);
    const std::lock_guard lock(mutex);
    for (std::int64_t c = 0; c < p.value_dim; ++c)
      out.add(host::load_element(p.out.data, p.out.dtype, at + c * p.out.dim),
              exact.out[static_cast<std::size_t>(c)], plain.out[static_cast<std::size_t>(c)], p.out.dtype,
              row, c);
    if (p.lse.data != nullptr)
      lse.add(host::load_element(p.lse.data, p.lse.dtype, offset(p.lse, p.q_axis, row)), exact.lse, plain.lse,
              DType::f32, row, 0);
  });
  result.rows.push_back(out.finish());
  if (p.lse.data != nullptr) result.rows.push_back(lse.finish());
  return result;
}

}  // namespace vicinal::cli
