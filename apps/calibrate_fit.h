// Fits a cost y = c[0] x[0] + c[1] x[1] + ... to measured points, with costs that are not negative.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace nanocp::apps {

struct FitPoint {
  std::vector<double> x;  // [num_terms]; 1 for a fixed cost
  double y = 0.0;         // us
};

enum class FitWeight {
  kRelative,  // by each point's own size: small costs count as much as large ones
  kAbsolute,  // for differences, which may be near or below zero
};

struct FitResult {
  std::vector<double> coefficients;  // [num_terms], >= 0
  // Root mean square of residual / y, or of residual / mean |y| where weights are absolute.
  double relative_error = 0.0;
  bool is_determined = false;  // the points tell all terms apart
};

namespace fit_detail {

using Rows = std::vector<std::vector<double>>;

// Solves the normal equations by Gauss-Jordan with pivots; false if they are singular.
inline bool solve(Rows a, std::vector<double> b, std::vector<double>& x) {
  const size_t n = b.size();
  for (size_t column = 0; column < n; ++column) {
    size_t pivot = column;
    for (size_t r = column + 1; r < n; ++r) {
      if (std::abs(a[r][column]) > std::abs(a[pivot][column])) pivot = r;
    }
    if (!(std::abs(a[pivot][column]) > 1e-9)) return false;
    std::swap(a[column], a[pivot]);
    std::swap(b[column], b[pivot]);
    for (size_t r = 0; r < n; ++r) {
      if (r == column) continue;
      const double factor = a[r][column] / a[column][column];
      for (size_t c = column; c < n; ++c) a[r][c] -= factor * a[column][c];
      b[r] -= factor * b[column];
    }
  }
  x.resize(n);
  for (size_t i = 0; i < n; ++i) x[i] = b[i] / a[i][i];
  return true;
}

// Least squares over the columns `terms` of weighted rows. Columns are scaled to length 1 first:
// tokens and rows differ by orders of magnitude.
inline bool fit_terms(const Rows& x, const std::vector<double>& y, const std::vector<size_t>& terms,
                      std::vector<double>& result) {
  const size_t n = terms.size();
  std::vector<double> scale(n, 0.0);
  for (size_t i = 0; i < n; ++i) {
    for (const auto& row : x) scale[i] += row[terms[i]] * row[terms[i]];
    if (!(scale[i] > 0.0)) return false;
    scale[i] = std::sqrt(scale[i]);
  }
  Rows normal(n, std::vector<double>(n, 0.0));
  std::vector<double> right(n, 0.0);
  for (size_t p = 0; p < x.size(); ++p) {
    for (size_t i = 0; i < n; ++i) {
      const double value = x[p][terms[i]] / scale[i];
      right[i] += value * y[p];
      for (size_t j = 0; j < n; ++j) normal[i][j] += value * x[p][terms[j]] / scale[j];
    }
  }
  if (!solve(std::move(normal), std::move(right), result)) return false;
  for (size_t i = 0; i < n; ++i) result[i] /= scale[i];
  return true;
}

}  // namespace fit_detail

// A term whose best coefficient would be negative is left out (0) and the others are fitted again.
// Requires: points not empty, all with the same number of terms.
inline FitResult fit_costs(const std::vector<FitPoint>& points, FitWeight weight) {
  const size_t num_terms = points.front().x.size();
  double mean = 0.0;
  for (const FitPoint& point : points) {
    mean += std::abs(point.y) / static_cast<double>(points.size());
  }
  const double floor = std::max(mean * 1e-9, 1e-12);
  fit_detail::Rows x;
  std::vector<double> y;
  for (const FitPoint& point : points) {
    const double size = weight == FitWeight::kRelative ? std::abs(point.y) : mean;
    const double w = 1.0 / std::max(size, floor);
    x.push_back(point.x);
    for (double& value : x.back()) value *= w;
    y.push_back(point.y * w);
  }
  FitResult result;
  result.coefficients.assign(num_terms, 0.0);
  std::vector<size_t> terms;
  for (size_t i = 0; i < num_terms; ++i) terms.push_back(i);
  std::vector<double> best;
  while (!terms.empty()) {
    const bool is_solved = fit_detail::fit_terms(x, y, terms, best);
    if (terms.size() == num_terms) result.is_determined = is_solved;
    if (!is_solved) {
      terms.clear();
      break;
    }
    const auto least = std::min_element(best.begin(), best.end());
    if (*least >= 0.0) break;
    terms.erase(terms.begin() + (least - best.begin()));
  }
  for (size_t i = 0; i < terms.size(); ++i) result.coefficients[terms[i]] = best[i];
  double sum = 0.0;
  for (size_t p = 0; p < x.size(); ++p) {
    double residual = -y[p];
    for (size_t i = 0; i < num_terms; ++i) residual += result.coefficients[i] * x[p][i];
    sum += residual * residual;
  }
  result.relative_error = std::sqrt(sum / static_cast<double>(x.size()));
  return result;
}

}  // namespace nanocp::apps
